/*
 * io.h - whole reads and writes, atomic file replacement, clocks, pidfds. Every descriptor
 * made here is close-on-exec.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* Exactly n bytes, EINTR retried. -ERR_CORRUPT when the file ends early. */
NODISCARD int io_read_full(int fd, void *p, size_t n, struct err *err);
NODISCARD int io_write_full(int fd, const void *p, size_t n, struct err *err);
/* To end of file, into `b` (whose cap applies). */
NODISCARD int io_read_all(int fd, struct buf *b, struct err *err);
NODISCARD int io_read_file(const char *path, struct buf *b, struct err *err);
/* The same, but nothing else than a regular file: a pipe would make us wait, a device never end. */
NODISCARD int io_read_regular(const char *path, struct buf *b, struct err *err);
/* Temporary file, fsync, rename, fsync of the folder: old or new content, never half. */
NODISCARD int io_write_file(const char *path, struct str data, mode_t mode, struct err *err);
/* The folder's absolute path without links; -ERR_SYS for anything that is no folder. `what` it
 * is for begins the sentence: "workspace". */
NODISCARD int io_real_dir(const char *what, const char *path, char out[PATH_MAX], struct err *err);
/* mkdir -p; existing folders are fine. */
NODISCARD int io_make_dirs(const char *path, mode_t mode, struct err *err);

/* Descriptors 0 to 2 that are closed become ones on which every read or write fails; else the
 * next file opened would be taken for the terminal. First thing in a main(). */
void io_hold_standard(void);

void io_close(int *fd); /* closes when >= 0 and sets -1; keeps errno */
NODISCARD int io_pidfd_open(pid_t pid, struct err *err); /* descriptor, or -ERR_SYS */

int64_t io_mono_ns(void); /* CLOCK_MONOTONIC */
int64_t io_wall_ms(void); /* milliseconds since 1970, UTC */

#endif
