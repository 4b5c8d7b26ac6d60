/* spec.h - a spec made whole: defaults filled in, every field checked, and its plain text. */
#ifndef SANDBOX_SPEC_H
#define SANDBOX_SPEC_H

#include "base/buf.h"
#include "sandbox/sandbox.h"

/* One row a limit: name in policies, place in the struct, default, bounds, meaning. */
struct spec_limit {
    const char *name;
    unsigned offset; /* in struct sandbox_limits */
    bool wide;       /* uint64_t, else uint32_t */
    uint64_t preset, min, max;
    const char *doc;
};
/* The table; ends with a NULL name. */
extern const struct spec_limit spec_limits[];

uint64_t spec_limit_get(const struct sandbox_limits *l, const struct spec_limit *row);
void spec_limit_set(struct sandbox_limits *l, const struct spec_limit *row, uint64_t value);

/*
 * Checks what came over a socket or out of a policy: strings end, enums are known, paths are
 * absolute and plain, places inside do not shadow ours, names of variables are harmless.
 * Fills zero limits with their defaults. -ERR_PARSE or -ERR_LIMIT with a sentence.
 */
NODISCARD int spec_check(struct sandbox_spec *spec, struct err *err);

/* Canonical text, one field a line, for the audit and for `explain`. */
void spec_text(const struct sandbox_spec *spec, struct buf *out);

/* True when `path` is `dir` or lies below it; both absolute and plain. */
bool spec_below(const char *path, const char *dir);
/* No empty, "." or ".." component, no control characters, absolute, not "/". */
bool spec_plain_path(const char *path);

#endif
