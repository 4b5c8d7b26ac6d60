/*
 * mapfile.h - a whole file mapped for reading. Pages come in as they are touched; opening a
 * file of any size costs the same. A file that another program cuts short while it is mapped
 * kills the process on access (SIGBUS), so replace weight files by rename, never in place.
 */
#ifndef ENGINE_MAPFILE_H
#define ENGINE_MAPFILE_H

#include <stdint.h>

#include "base/err.h"

struct mapfile {
    const uint8_t *p; /* owned mapping; NULL when n is 0 */
    uint64_t n;
    char *path; /* owned */
};

NODISCARD int mapfile_open(struct mapfile *m, const char *path, struct err *err);
void mapfile_close(struct mapfile *m);

#endif
