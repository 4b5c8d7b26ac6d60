/*
 * changes.h - what lies in the layer above a `copy` workspace, against the directory below: an
 * ordered list, and taking parts of it over. Names and contents were made by code inside, so
 * nothing is followed: every path is resolved beneath the two descriptors, without links.
 */
#ifndef SANDBOX_CHANGES_H
#define SANDBOX_CHANGES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

enum change_kind { CHANGE_REMOVED, CHANGE_ADDED, CHANGE_CHANGED };
enum change_type { CHANGE_FILE, CHANGE_DIR, CHANGE_LINK, CHANGE_OTHER };
enum { CHANGES_MAX = 20000, CHANGES_DEPTH = 128 };

struct change {
    const char *path; /* relative; any bytes but NUL */
    enum change_kind kind;
    enum change_type type; /* of what is there now; of a removed one what was */
    mode_t mode, old_mode; /* permission bits; 0 where there is none */
    uint64_t size, old_size;
    bool content;    /* the bytes, or the link's target, differ; else the mode alone */
    const char *to;  /* of a link: its target */
    bool stale;      /* the directory's own file was changed since the layer was made */
};

struct changes {
    struct arena mem;
    struct change *at; /* owned; by path, a removal before what takes its place */
    unsigned n, room;
    bool cut; /* there is more than CHANGES_MAX, or deeper than CHANGES_DEPTH */
};

/* The directory below, opened so that no link is on its way: descriptor, or -ERR_SYS. */
NODISCARD int changes_open_lower(const char *workspace, struct err *err);
/* When the layer was made, in nanoseconds since 1970; 0 = not known. */
int64_t changes_born(int upper);

/* since: see `stale`; 0 = not asked. */
NODISCARD int changes_list(struct changes *c, int upper, int lower, int64_t since,
                           struct err *err);
void changes_free(struct changes *c); /* takes one that is all zeros */

/*
 * Does to the directory what the layer says, for each change that `take` agrees to. Files come
 * whole (written beside and renamed), with the owner of the directory, without set-id bits. What
 * is no file, folder or link is passed over. `told` hears of each: why is NULL when it was done.
 */
struct changes_take {
    bool (*take)(void *arg, const struct change *one);
    void (*told)(void *arg, const struct change *one, const char *why);
    void *arg;
};
void changes_apply(const struct changes *c, int upper, int lower, const struct changes_take *t);

/* Whether a path is there in the workspace as it is seen inside; upper -1 = no layer. */
bool changes_has(int upper, int lower, const char *path);

/* The bytes of a file below `dir`; -ERR_LIMIT above the buffer's cap. */
NODISCARD int changes_read(int dir, const char *path, struct buf *out, struct err *err);

#endif
