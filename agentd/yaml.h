/*
 * yaml.h - a YAML file as a small tree that remembers its lines. Only what configuration
 * needs: one document of maps, lists and scalars. Anchors, aliases, tags, duplicate keys
 * and merge keys are errors, so that what a reviewer reads is what the program gets.
 */
#ifndef AGENTD_YAML_H
#define AGENTD_YAML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
    enum yaml_kind kind;
    unsigned line;   /* 1-based, of the value; of the key for entries of a map */
    bool quoted;     /* a scalar in quotes is text, whatever it looks like */
    struct str key;  /* of an entry of a map, else empty; NUL-terminated */
    struct str text; /* of a scalar; NUL-terminated; `key:` alone gives "" unquoted */
    struct yaml_node *first; /* entries of a list or map, in file order */
    struct yaml_node *next;  /* sibling */
    uint32_t n;              /* number of entries */
};

struct yaml;

/* Parses text; `name` appears in errors as "name:line: ...". An empty file is an empty
 * map. */
NODISCARD int yaml_read(struct yaml **out, const char *name, struct str text,
                        struct err *err);
/* The same from a file of at most LIMIT_YAML_BYTES; `name` is the path. */
NODISCARD int yaml_load(struct yaml **out, const char *path, struct err *err);
void yaml_close(struct yaml *y); /* not yaml_free: libyaml exports that name */
const struct yaml_node *yaml_root(const struct yaml *y); /* borrowed, as all nodes are */
const char *yaml_name(const struct yaml *y);

/* The entry of a map, or NULL (also when `map` is NULL or no map). */
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);

/* "name:line: sentence", code ERR_PARSE. */
int yaml_fail(const struct yaml *y, const struct yaml_node *at, struct err *err,
              const char *fmt, ...) PRINTF(4, 5);

/*
 * Conversions; each names file, line, key and what was wanted. Booleans are true and
 * false alone. Sizes take a suffix K, M, G (1024) and durations ms, s, m, h, giving bytes
 * and ms.
 */
NODISCARD int yaml_text(const struct yaml *y, const struct yaml_node *n, struct str *out,
                        struct err *err);
NODISCARD int yaml_bool(const struct yaml *y, const struct yaml_node *n, bool *out,
                        struct err *err);
NODISCARD int yaml_int(const struct yaml *y, const struct yaml_node *n, int64_t lo,
                       int64_t hi, int64_t *out, struct err *err);
NODISCARD int yaml_num(const struct yaml *y, const struct yaml_node *n, double lo,
                       double hi, double *out, struct err *err);
NODISCARD int yaml_size(const struct yaml *y, const struct yaml_node *n, uint64_t lo,
                        uint64_t hi, uint64_t *out, struct err *err);
NODISCARD int yaml_duration(const struct yaml *y, const struct yaml_node *n,
                            int64_t lo_ms, int64_t hi_ms, int64_t *out_ms,
                            struct err *err);
/* One of the names, NULL-terminated; *out is its index. */
NODISCARD int yaml_choice(const struct yaml *y, const struct yaml_node *n,
                          const char *const *names, int *out, struct err *err);

#endif
