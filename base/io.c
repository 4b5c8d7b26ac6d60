/* io.c - the few system calls that everybody needs, with their loops done right. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void io_hold_standard(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY); /* the lowest free number */
}

int io_read_full(int fd, void *p, size_t n, struct err *err)
{
    for (size_t got = 0; got < n;) {
        ssize_t r = read(fd, (char *)p + got, n - got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(err, "read");
        if (r == 0)
            return err_set(err, ERR_CORRUPT, "file ends after %zu of %zu bytes", got, n);
        got += (size_t)r;
    }
    return 0;
}

int io_write_full(int fd, const void *p, size_t n, struct err *err)
{
    for (size_t put = 0; put < n;) {
        ssize_t r = write(fd, (const char *)p + put, n - put);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(err, "write");
        put += (size_t)r;
    }
    return 0;
}

int io_read_all(int fd, struct buf *b, struct err *err)
{
    enum { CHUNK = 65536 };
    char chunk[CHUNK];
    for (;;) {
        ssize_t r = read(fd, chunk, sizeof chunk);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(err, "read");
        if (r == 0)
            return buf_check(b, "file", err);
        buf_add(b, chunk, (size_t)r);
        if (b->failed)
            return buf_check(b, "file", err);
    }
}

static int read_path(const char *path, bool regular, struct buf *b, struct err *err)
{
    struct stat st;
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC | (regular ? O_NONBLOCK : 0));
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    if (regular && fstat(fd, &st) < 0)
        rc = err_sys(err, "stat");
    else if (regular && !S_ISREG(st.st_mode))
        rc = err_set(err, ERR_UNSUPPORTED, "it is not a regular file");
    else
        rc = io_read_all(fd, b, err);
    close(fd);
    return rc < 0 ? err_prefix(err, "'%s'", path) : 0;
}

int io_read_file(const char *path, struct buf *b, struct err *err)
{
    return read_path(path, false, b, err);
}

int io_read_regular(const char *path, struct buf *b, struct err *err)
{
    return read_path(path, true, b, err);
}

/* The folder's entry must reach the disk too, or a crash brings the old name back. */
static int sync_folder_of(const char *path, struct err *err)
{
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir ? 1 : 0] = '\0';
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "open folder of '%s'", path);
    int rc = fsync(fd) < 0 ? err_sys(err, "fsync folder of '%s'", path) : 0;
    close(fd);
    return rc;
}

int io_write_file(const char *path, struct str data, mode_t mode, struct err *err)
{
    char tmp[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.XXXXXX", path) >= (int)sizeof tmp)
        return err_set(err, ERR_LIMIT, "path '%s' is too long", path);
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "create '%s'", tmp);
    int rc = io_write_full(fd, data.p, data.n, err);
    if (rc == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
        rc = err_sys(err, "sync '%s'", tmp);
    close(fd);
    if (rc == 0 && rename(tmp, path) < 0)
        rc = err_sys(err, "rename '%s' to '%s'", tmp, path);
    if (rc < 0) {
        unlink(tmp);
        return rc;
    }
    return sync_folder_of(path, err);
}

int io_real_dir(const char *what, const char *path, char out[PATH_MAX], struct err *err)
{
    struct stat st;
    if (!realpath(path, out) || stat(out, &st) < 0)
        return err_sys(err, "%s '%.200s'", what, path);
    errno = ENOTDIR;
    return S_ISDIR(st.st_mode) ? 0 : err_sys(err, "%s '%.200s'", what, path);
}

int io_make_dirs(const char *path, mode_t mode, struct err *err)
{
    char p[PATH_MAX];
    if (snprintf(p, sizeof p, "%s", path) >= (int)sizeof p)
        return err_set(err, ERR_LIMIT, "path '%s' is too long", path);
    for (char *s = p + 1;; s++) {
        if (*s != '/' && *s != '\0')
            continue;
        char was = *s;
        *s = '\0';
        if (mkdir(p, mode) < 0 && errno != EEXIST)
            return err_sys(err, "mkdir '%s'", p);
        if (was == '\0')
            return 0;
        *s = was;
    }
}

void io_close(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

int io_pidfd_open(pid_t pid, struct err *err)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? err_sys(err, "pidfd_open %d", (int)pid) : fd;
}

int64_t io_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t io_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
