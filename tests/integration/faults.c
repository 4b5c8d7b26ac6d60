/*
 * faults.c - a disk that fails, for the tests: loaded into the daemon with LD_PRELOAD.
 *
 * Only files under $FAULT_DIR are touched.
 *   $FAULT_FLAG  a file; while it exists, the call that it names ("write" or "sync", then
 *                "ENOSPC" or "EIO") fails
 *   $FAULT_POWER a number; a SIGKILL that the process sends itself becomes a power cut: each
 *                write that no sync followed is undone or not, as drawn from that number
 *   $FAULT_FS    statfs() says this number as the type of the file system
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

struct undo {
    char path[512];
    off_t at, size; /* where it was written; how long the file was */
    size_t n;       /* bytes that were there before */
    struct undo *older;
    char old[];
};

static struct undo *newest; /* of the database alone, which one thread writes */

#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

static bool watched(int fd, char path[512])
{
    char link[64];
    const char *dir = getenv("FAULT_DIR");
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 511);
    errno = saved;
    path[n < 0 ? 0 : n] = '\0';
    return dir && *dir && strncmp(path, dir, strlen(dir)) == 0;
}

static bool fails(const char *what, const char *path)
{
    char text[64] = "";
    const char *flag = getenv("FAULT_FLAG");
    int fd = flag && strstr(path, "agentd.db") ? REAL(open)(flag, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0 || strncmp(text, what, strlen(what)) != 0)
        return false;
    errno = strstr(text, "ENOSPC") ? ENOSPC : EIO;
    return true;
}

static void remember(int fd, const char *path, off_t at, size_t n)
{
    struct stat sb;
    if (!getenv("FAULT_POWER") || !strstr(path, "agentd.db") || fstat(fd, &sb) < 0)
        return;
    struct undo *u = malloc(sizeof *u + n);
    if (!u)
        abort();
    snprintf(u->path, sizeof u->path, "%s", path);
    u->at = at;
    u->size = sb.st_size;
    ssize_t got = n ? pread(fd, u->old, n, at) : 0;
    u->n = got > 0 ? (size_t)got : 0;
    u->older = newest;
    newest = u;
}

static void synced(const char *path)
{
    if (!strstr(path, "agentd.db"))
        return;
    for (struct undo **at = &newest; *at;) {
        struct undo *u = *at;
        if (strcmp(u->path, path) == 0) {
            *at = u->older;
            free(u);
        } else {
            at = &u->older;
        }
    }
}

static void lose_power(void)
{
    unsigned draw = (unsigned)atoi(getenv("FAULT_POWER"));
    for (struct undo *u = newest; u; u = u->older) {
        draw = draw * 1103515245 + 12345;
        int fd = (draw >> 16) % 4 ? REAL(open)(u->path, O_RDWR | O_CLOEXEC) : -1;
        if (fd < 0)
            continue;
        if (u->n && REAL(pwrite)(fd, u->old, u->n, u->at) < 0)
            abort();
        if (REAL(ftruncate)(fd, u->size) < 0)
            abort();
        close(fd);
    }
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    char path[512];
    if (watched(fd, path)) {
        if (fails("write", path))
            return -1;
        remember(fd, path, at, n);
    }
    return REAL(pwrite)(fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    return pwrite(fd, p, n, (off_t)at);
}

ssize_t write(int fd, const void *p, size_t n)
{
    char path[512];
    if (watched(fd, path)) {
        if (fails("write", path))
            return -1;
        remember(fd, path, lseek(fd, 0, SEEK_CUR), n);
    }
    return REAL(write)(fd, p, n);
}

int ftruncate(int fd, off_t size)
{
    char path[512];
    struct stat sb;
    if (watched(fd, path) && fstat(fd, &sb) == 0 && sb.st_size > size)
        remember(fd, path, size, (size_t)(sb.st_size - size));
    return REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, (off_t)size);
}

int fsync(int fd)
{
    char path[512];
    if (watched(fd, path)) {
        if (fails("sync", path))
            return -1;
        synced(path);
    }
    return REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    char path[512];
    if (watched(fd, path)) {
        if (fails("sync", path))
            return -1;
        synced(path);
    }
    return REAL(fdatasync)(fd);
}

int kill(pid_t pid, int signo)
{
    if (pid == getpid() && signo == SIGKILL && getenv("FAULT_POWER"))
        lose_power();
    return REAL(kill)(pid, signo);
}

int statfs(const char *path, struct statfs *out)
{
    const char *type = getenv("FAULT_FS");
    int rc = REAL(statfs)(path, out);
    if (rc == 0 && type)
        out->f_type = (__typeof__(out->f_type))strtoul(type, NULL, 0);
    return rc;
}
