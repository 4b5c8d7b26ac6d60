/* wsfs.c - the walk below the workspace, whole reads, atomic writes. */
#include "tools/wsfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

enum { LINKS_MAX = 16, DEPTH_MAX = 64 };

int wsfs_open(struct wsfs *fs, const char *path, struct err *err)
{
    char real[PATH_MAX];
    *fs = (struct wsfs){.root = -1};
    if (!realpath(path, real))
        return err_sys(err, "workspace '%s'", path);
    fs->root = open(real, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fs->root < 0)
        return err_sys(err, "open workspace '%s'", real);
    fs->path = mem_strdup(str_c(real));
    if (!fs->path) {
        wsfs_close(fs);
        return err_nomem(err);
    }
    return 0;
}

void wsfs_close(struct wsfs *fs)
{
    io_close(&fs->root);
    mem_free(fs->path);
    fs->path = NULL;
}

void wsfs_at_done(struct wsfs_at *at)
{
    io_close(&at->dir);
}

/* The walk: a stack of open folders, and the text still to be walked. */
struct walk {
    struct wsfs *fs;
    int fd[DEPTH_MAX];
    char name[DEPTH_MAX][256]; /* name[i] leads from fd[i] to fd[i+1] */
    unsigned depth;            /* folders open; fd[0] is the workspace */
    unsigned links;
    char rest[2 * PATH_MAX];
    struct err *err;
};

static void pop_to(struct walk *w, unsigned depth)
{
    while (w->depth > depth)
        close(w->fd[--w->depth]);
}

static int outside(struct walk *w, struct str path)
{
    return err_set(w->err, ERR_DENIED, "'%.*s' is outside the workspace; use a path below it",
                   STR_ARG(str_sub(path, 0, 200)));
}

/* Strips the workspace's own name off an absolute path; false when it points elsewhere. */
static bool below_top(const struct wsfs *fs, struct str *path)
{
    const struct str tops[] = {str_c(fs->path), STR("/workspace")};
    for (unsigned i = 0; i < ARRAY_LEN(tops); i++)
        if (str_starts(*path, tops[i]) &&
            (path->n == tops[i].n || path->p[tops[i].n] == '/')) {
            *path = str_sub(*path, tops[i].n, path->n);
            return true;
        }
    return false;
}

/* Puts a link's target before the rest of the path. */
static int follow(struct walk *w, const char *name)
{
    char target[PATH_MAX], rest[2 * PATH_MAX];
    ssize_t n = readlinkat(w->fd[w->depth - 1], name, target, sizeof target - 1);
    if (n < 0)
        return err_sys(w->err, "read link '%s'", name);
    struct str t = str_of(target, (size_t)n);
    if (++w->links > LINKS_MAX)
        return err_set(w->err, ERR_LIMIT, "too many symbolic links at '%s'", name);
    if (t.n && t.p[0] == '/') {
        if (!below_top(w->fs, &t))
            return outside(w, t);
        pop_to(w, 1);
    }
    if (snprintf(rest, sizeof rest, "%.*s/%s", STR_ARG(t), w->rest) >= (int)sizeof rest)
        return err_set(w->err, ERR_LIMIT, "path is too long");
    memcpy(w->rest, rest, sizeof rest);
    return 0;
}

/* Takes the next component off the rest; false at the end. */
static bool next_component(struct walk *w, char out[256], bool *last, struct err *err, int *rc)
{
    char *s = w->rest;
    while (*s == '/')
        s++;
    size_t n = strcspn(s, "/");
    if (n == 0)
        return false;
    if (n > 255) {
        *rc = err_set(err, ERR_LIMIT, "a name in the path is longer than 255 bytes");
        return false;
    }
    memcpy(out, s, n);
    out[n] = '\0';
    s += n;
    while (*s == '/')
        s++;
    *last = *s == '\0';
    memmove(w->rest, s, strlen(s) + 1);
    return true;
}

static int enter(struct walk *w, const char *name, bool make_dirs)
{
    if (w->depth == DEPTH_MAX)
        return err_set(w->err, ERR_LIMIT, "path is deeper than %d folders", DEPTH_MAX);
    int here = w->fd[w->depth - 1];
    if (make_dirs && mkdirat(here, name, 0777) < 0 && errno != EEXIST)
        return err_sys(w->err, "create folder '%s'", name);
    int fd = openat(here, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return err_set(w->err, ERR_NOTFOUND, "folder '%s' does not exist", name);
    if (fd < 0 && errno == ENOTDIR)
        return err_set(w->err, ERR_NOTFOUND, "'%s' is not a folder", name);
    if (fd < 0)
        return err_sys(w->err, "open folder '%s'", name);
    snprintf(w->name[w->depth - 1], sizeof w->name[0], "%s", name);
    w->fd[w->depth++] = fd;
    return 0;
}

/* Ends the walk: what it reached becomes *at. */
static int arrive(struct walk *w, const char *name, const struct stat *st, struct wsfs_at *at)
{
    size_t n = 0;
    at->shown[0] = '\0';
    for (unsigned i = 0; i + 1 < w->depth; i++)
        n += (size_t)snprintf(at->shown + n, n < sizeof at->shown ? sizeof at->shown - n : 0,
                              "%s/", w->name[i]);
    if (n < sizeof at->shown)
        n += (size_t)snprintf(at->shown + n, sizeof at->shown - n, "%s", name);
    if (n >= sizeof at->shown)
        return err_set(w->err, ERR_LIMIT, "path is longer than %zu bytes", sizeof at->shown);
    if (n == 0)
        snprintf(at->shown, sizeof at->shown, ".");
    else if (at->shown[n - 1] == '/')
        at->shown[n - 1] = '\0';
    snprintf(at->name, sizeof at->name, "%s", name);
    at->exists = st != NULL;
    if (st)
        at->st = *st;
    at->dir = fcntl(w->fd[w->depth - 1], F_DUPFD_CLOEXEC, 3);
    return at->dir < 0 ? err_sys(w->err, "open '%s'", at->shown) : 0;
}

static int walk(struct walk *w, bool make_dirs, struct wsfs_at *at)
{
    char name[256];
    bool last;
    int rc = 0;
    while (next_component(w, name, &last, w->err, &rc)) {
        struct stat st;
        if (strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0) {
            if (w->depth == 1)
                return outside(w, STR(".."));
            pop_to(w, w->depth - 1);
            continue;
        }
        bool there = fstatat(w->fd[w->depth - 1], name, &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (!there && errno != ENOENT)
            return err_sys(w->err, "look at '%s'", name);
        if (there && S_ISLNK(st.st_mode)) {
            rc = follow(w, name);
        } else if (last && (!there || !S_ISDIR(st.st_mode))) {
            return arrive(w, name, there ? &st : NULL, at);
        } else {
            rc = enter(w, name, make_dirs && !there);
        }
        if (rc < 0)
            return rc;
    }
    if (rc < 0)
        return rc;
    struct stat st;
    if (fstat(w->fd[w->depth - 1], &st) < 0)
        return err_sys(w->err, "look at the folder");
    return arrive(w, "", &st, at);
}

int wsfs_find(struct wsfs *fs, struct str path, bool make_dirs, struct wsfs_at *at,
              struct err *err)
{
    struct walk w = {.fs = fs, .depth = 0, .err = err};
    *at = (struct wsfs_at){.dir = -1};
    if (path.n && path.p[0] == '/' && !below_top(fs, &path))
        return outside(&w, path);
    if (memchr(path.p, '\0', path.n) || path.n >= PATH_MAX)
        return err_set(err, ERR_LIMIT, "the path is too long or holds a NUL byte");
    snprintf(w.rest, sizeof w.rest, "%.*s", STR_ARG(path));
    w.fd[0] = fcntl(fs->root, F_DUPFD_CLOEXEC, 3);
    if (w.fd[0] < 0)
        return err_sys(err, "open the workspace");
    w.depth = 1;
    int rc = walk(&w, make_dirs, at);
    pop_to(&w, 0);
    return rc;
}

int wsfs_read(const struct wsfs_at *at, struct buf *out, size_t max, struct err *err)
{
    if (!at->exists)
        return err_set(err, ERR_NOTFOUND, "'%s' does not exist", at->shown);
    if (!S_ISREG(at->st.st_mode))
        return err_set(err, ERR_DENIED, "'%s' is not a regular file", at->shown);
    if ((uint64_t)at->st.st_size > max)
        return err_set(err, ERR_LIMIT, "'%s' has %lld bytes, more than the %zu that can be "
                       "handled here; use bash to look at parts of it", at->shown,
                       (long long)at->st.st_size, max);
    /* O_NONBLOCK: a pipe put there meanwhile must not hang us. */
    int fd = openat(at->dir, at->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "open '%s'", at->shown);
    out->max = max;
    int rc = io_read_all(fd, out, err);
    close(fd);
    return rc < 0 ? err_prefix(err, "'%s'", at->shown) : 0;
}

int wsfs_write(struct wsfs_at *at, struct str data, struct err *err)
{
    char tmp[280];
    mode_t mode = at->exists ? at->st.st_mode & 0777 : 0666;
    if (at->exists && !S_ISREG(at->st.st_mode))
        return err_set(err, ERR_DENIED, "'%s' is not a regular file", at->shown);
    snprintf(tmp, sizeof tmp, ".%.200s.%lx", at->name, (unsigned long)io_mono_ns());
    int fd = openat(at->dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return err_sys(err, "create a file beside '%s'", at->shown);
    int rc = io_write_full(fd, data.p, data.n, err);
    if (rc == 0 && at->exists && fchmod(fd, mode) < 0)
        rc = err_sys(err, "mode of '%s'", at->shown);
    if (close(fd) < 0 && rc == 0)
        rc = err_sys(err, "write '%s'", at->shown);
    if (rc == 0 && renameat(at->dir, tmp, at->dir, at->name) < 0)
        rc = err_sys(err, "replace '%s'", at->shown);
    if (rc < 0) {
        unlinkat(at->dir, tmp, 0);
        return rc;
    }
    at->exists = true;
    if (fstatat(at->dir, at->name, &at->st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(err, "look at '%s'", at->shown);
    return 0;
}

int wsfs_remove(const struct wsfs_at *at, struct err *err)
{
    if (!at->exists || !S_ISREG(at->st.st_mode))
        return err_set(err, ERR_NOTFOUND, "'%s' is not a file", at->shown);
    return unlinkat(at->dir, at->name, 0) < 0 ? err_sys(err, "delete '%s'", at->shown) : 0;
}
