/*
 * mapfile.h - a whole file mapped for reading. Pages come in as they are touched; opening a
 * file of any size costs the same.
 *
 * A file may be cut short or rewritten by another program while it is mapped. Touching a page
 * that is gone raises SIGBUS; a handler puts zeros in its place and marks the file as lost, so
 * that the thread goes on, the process lives, and mapfile_check() says what happened. What was
 * computed since the last good check is worth nothing then. Model files are to be replaced by
 * rename, never in place.
 */
#ifndef ENGINE_MAPFILE_H
#define ENGINE_MAPFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "base/err.h"

struct mapguard; /* mapfile.c */

struct mapfile {
    const uint8_t *p; /* owned mapping; NULL when n is 0 */
    uint64_t n;
    char *path;             /* owned */
    int fd;                 /* owned; only to look at the file's size and time */
    struct timespec time;   /* last change of the data, as it was at open */
    struct mapguard *guard; /* owned slot of the handler's table */
};

NODISCARD int mapfile_open(struct mapfile *m, const char *path, struct err *err);
void mapfile_close(struct mapfile *m);

/* Is it still the file that was opened? -ERR_CORRUPT with path, size then and size now. One
 * system call. */
NODISCARD int mapfile_check(const struct mapfile *m, struct err *err);
/* Is it the file that a stat() told about? */
bool mapfile_is(const struct mapfile *m, const struct stat *st);

#endif
