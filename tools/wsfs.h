/*
 * wsfs.h - files of the workspace, and of nothing else.
 *
 * A path is walked one component at a time from an open descriptor of the workspace, never
 * by the kernel's own resolution: symbolic links are followed only while they stay inside,
 * ".." never leaves the top, and a link swapped in meanwhile is not followed. So an editor
 * outside a cell (tests, data synthesis) is held as well as one inside.
 */
#ifndef TOOLS_WSFS_H
#define TOOLS_WSFS_H

#include <sys/stat.h>

#include "base/buf.h"
#include "base/err.h"

struct wsfs {
    int root;   /* O_PATH descriptor of the workspace */
    char *path; /* owned: its absolute path on this side */
};
NODISCARD int wsfs_open(struct wsfs *fs, const char *path, struct err *err);
void wsfs_close(struct wsfs *fs);

/* A path as the model wrote it, found: the folder it lies in and its last component. */
struct wsfs_at {
    int dir;        /* owned descriptor of the folder */
    char name[256]; /* "" when the path is the workspace itself */
    char shown[1024]; /* the path relative to the workspace, for messages; "." for the top */
    bool exists;
    struct stat st; /* when it exists; the target of a link */
};
/*
 * `path` is relative, or absolute below the workspace or below /workspace. -ERR_DENIED when
 * it leads outside, -ERR_NOTFOUND when a folder on the way is missing. With make_dirs
 * missing folders are created.
 */
NODISCARD int wsfs_find(struct wsfs *fs, struct str path, bool make_dirs, struct wsfs_at *at,
                        struct err *err);
void wsfs_at_done(struct wsfs_at *at);

/* Regular file, whole, at most `max` bytes. */
NODISCARD int wsfs_read(const struct wsfs_at *at, struct buf *out, size_t max, struct err *err);
/* Old or new content, never half; keeps the mode of a file that exists. */
NODISCARD int wsfs_write(struct wsfs_at *at, struct str data, struct err *err);
NODISCARD int wsfs_remove(const struct wsfs_at *at, struct err *err);

#endif
