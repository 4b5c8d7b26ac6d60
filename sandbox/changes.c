/* changes.c - the walk over a layer and the directory below it, and the taking over. */
#include "sandbox/changes.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/io.h"
#include "sandbox/sys.h"

enum { CHUNK = 65536 };
/* Bytes compared of one file, and of all; what is beyond counts as changed. */
#define COMPARE_ONE (64ll << 20)
#define COMPARE_ALL (512ull << 20)

/* One folder in both trees; lower is -1 where there is none, or where it is hidden. */
struct level {
    DIR *up;
    int low;
    size_t n_path; /* of the folder's own path */
    bool opaque;   /* what is not above is gone */
};

struct walk {
    struct changes *out;
    struct level at[CHANGES_DEPTH];
    unsigned depth;
    char path[PATH_MAX];
    int64_t since;
    uint64_t compared;
    bool failed;
};

static int open_below(int dir, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    return sys_openat2(dir, path[0] ? path : ".", &how);
}

int changes_open_lower(const char *workspace, struct err *err)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    int fd = sys_openat2(AT_FDCWD, workspace, &how);
    return fd < 0 ? err_sys(err, "open the workspace '%.200s'", workspace) : fd;
}

int64_t changes_born(int upper)
{
    struct statx st;
    if (statx(upper, "", AT_EMPTY_PATH, STATX_BTIME, &st) < 0 || !(st.stx_mask & STATX_BTIME))
        return 0;
    return (int64_t)st.stx_btime.tv_sec * 1000000000 + st.stx_btime.tv_nsec;
}

void changes_free(struct changes *c)
{
    arena_done(&c->mem);
    mem_free(c->at);
    *c = (struct changes){0};
}

/* ---- listing ---- */

static enum change_type type_of(const struct stat *st)
{
    return S_ISREG(st->st_mode)   ? CHANGE_FILE
           : S_ISDIR(st->st_mode) ? CHANGE_DIR
           : S_ISLNK(st->st_mode) ? CHANGE_LINK
                                  : CHANGE_OTHER;
}

static const char *keep(struct walk *w, const char *text)
{
    const char *s = arena_strdup(&w->out->mem, str_c(text));
    w->failed |= !s;
    return s ? s : "";
}

static struct change *add(struct walk *w, enum change_kind kind, const struct stat *now,
                          const struct stat *before)
{
    struct changes *c = w->out;
    static struct change none;
    if (c->n == CHANGES_MAX) {
        c->cut = true;
        return &none;
    }
    if (c->n == c->room) {
        unsigned room = c->room ? 2 * c->room : 64;
        struct change *more = mem_array(room, sizeof *more);
        if (!more) {
            w->failed = true;
            return &none;
        }
        if (c->n)
            memcpy(more, c->at, c->n * sizeof *more);
        mem_free(c->at);
        c->at = more;
        c->room = room;
    }
    struct change *one = &c->at[c->n++];
    *one = (struct change){.path = keep(w, w->path), .kind = kind, .content = true};
    one->type = type_of(now ? now : before);
    if (now) {
        one->mode = now->st_mode & 07777;
        one->size = S_ISREG(now->st_mode) ? (uint64_t)now->st_size : 0;
    }
    if (before) {
        one->old_mode = before->st_mode & 07777;
        one->old_size = S_ISREG(before->st_mode) ? (uint64_t)before->st_size : 0;
        one->stale = w->since && (int64_t)before->st_ctim.tv_sec * 1000000000 +
                                         before->st_ctim.tv_nsec > w->since;
    }
    return one;
}

static bool is_whiteout(int dir, const char *name, const struct stat *st)
{
    if (S_ISCHR(st->st_mode))
        return st->st_rdev == 0;
    char self[PATH_MAX + 40], mark[4];
    if (!S_ISREG(st->st_mode) || st->st_size != 0)
        return false;
    snprintf(self, sizeof self, "/proc/self/fd/%d/%.255s", dir, name);
    return lgetxattr(self, "user.overlay.whiteout", mark, sizeof mark) >= 0;
}

static bool is_opaque(int dir)
{
    char mark[4];
    return fgetxattr(dir, "user.overlay.opaque", mark, sizeof mark) == 1 && mark[0] == 'y';
}

static bool same_bytes(struct walk *w, int up, int low, const char *name)
{
    static char a[CHUNK], b[CHUNK];
    int fa = openat(up, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int fb = openat(low, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool same = fa >= 0 && fb >= 0;
    while (same) {
        ssize_t na = read(fa, a, sizeof a), nb = read(fb, b, sizeof b);
        same = na >= 0 && na == nb && memcmp(a, b, (size_t)na) == 0 && w->compared < COMPARE_ALL;
        if (!same || na == 0)
            break;
        w->compared += (uint64_t)na;
    }
    io_close(&fa);
    io_close(&fb);
    return same;
}

static bool read_target(int dir, const char *name, char out[PATH_MAX])
{
    ssize_t n = readlinkat(dir, name, out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* Same type above and below; a folder's content is walked, not compared. */
static void compare(struct walk *w, struct level *l, const char *name, const struct stat *now,
                    const struct stat *before)
{
    char a[PATH_MAX] = "", b[PATH_MAX] = "";
    int up = dirfd(l->up);
    enum change_type type = type_of(now);
    bool same = true;
    if (type == CHANGE_FILE)
        same = now->st_size == before->st_size && now->st_size <= COMPARE_ONE &&
               same_bytes(w, up, l->low, name);
    else if (type == CHANGE_LINK)
        same = read_target(up, name, a) && read_target(l->low, name, b) && strcmp(a, b) == 0;
    else if (type == CHANGE_OTHER)
        same = now->st_rdev == before->st_rdev;
    bool mode = type != CHANGE_LINK && (now->st_mode & 07777) != (before->st_mode & 07777);
    if (same && !mode)
        return;
    struct change *one = add(w, CHANGE_CHANGED, now, before);
    one->content = !same;
    if (type == CHANGE_LINK)
        one->to = keep(w, a);
}

static bool enter(struct walk *w, int up, int low, bool opaque)
{
    if (w->depth == CHANGES_DEPTH) {
        w->out->cut = true;
        goto no;
    }
    DIR *d = fdopendir(up);
    if (!d) {
        w->failed = true;
        goto no;
    }
    w->at[w->depth++] = (struct level){d, low, strlen(w->path), opaque};
    return true;
no:
    io_close(&up);
    io_close(&low);
    return false;
}

/* A name of the layer, w->path already says which. */
static void visit(struct walk *w, struct level *l, const char *name)
{
    struct stat now, before;
    int up = dirfd(l->up);
    if (fstatat(up, name, &now, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    bool below = l->low >= 0 && fstatat(l->low, name, &before, AT_SYMLINK_NOFOLLOW) == 0;
    bool out = is_whiteout(up, name, &now);
    if (below && (out || type_of(&now) != type_of(&before)))
        add(w, CHANGE_REMOVED, NULL, &before);
    if (out)
        return;
    bool folder = S_ISDIR(now.st_mode), both = below && type_of(&now) == type_of(&before);
    if (both) {
        compare(w, l, name, &now, &before);
    } else {
        char to[PATH_MAX];
        struct change *one = add(w, CHANGE_ADDED, &now, NULL);
        if (S_ISLNK(now.st_mode) && read_target(up, name, to))
            one->to = keep(w, to);
    }
    if (!folder)
        return;
    int in = openat(up, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int low = both ? openat(l->low, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (in >= 0)
        enter(w, in, low, l->opaque || is_opaque(in));
    else
        io_close(&low);
}

/* Of an opaque folder: what was below and is not above. */
static void visit_hidden(struct walk *w, struct level *l)
{
    int fd = l->low >= 0 ? openat(l->low, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct stat now, before;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd(l->up), e->d_name, &now, AT_SYMLINK_NOFOLLOW) == 0 ||
            fstatat(l->low, e->d_name, &before, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        int n = snprintf(w->path + l->n_path, sizeof w->path - l->n_path, "%s%s",
                         l->n_path ? "/" : "", e->d_name);
        if (n > 0 && (size_t)n < sizeof w->path - l->n_path)
            add(w, CHANGE_REMOVED, NULL, &before);
    }
    if (d)
        closedir(d);
}

static int by_path(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : (int)x->kind - (int)y->kind;
}

static void leave(struct walk *w)
{
    struct level *l = &w->at[--w->depth];
    closedir(l->up);
    io_close(&l->low);
}

int changes_list(struct changes *c, int upper, int lower, int64_t since, struct err *err)
{
    struct walk *w = mem_zalloc(sizeof *w);
    *c = (struct changes){0};
    if (!w)
        return err_nomem(err);
    arena_init(&c->mem, 0);
    w->out = c;
    w->since = since;
    int up = openat(upper, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int low = openat(lower, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (up < 0 || low < 0)
        w->failed = true;
    else if (enter(w, up, low, is_opaque(up)) && w->at[0].opaque)
        visit_hidden(w, &w->at[0]);
    while (w->depth > 0) {
        struct level *l = &w->at[w->depth - 1];
        struct dirent *e = w->failed || c->n == CHANGES_MAX ? NULL : readdir(l->up);
        unsigned depth = w->depth;
        if (!e) {
            leave(w);
            continue;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        int n = snprintf(w->path + l->n_path, sizeof w->path - l->n_path, "%s%s",
                         l->n_path ? "/" : "", e->d_name);
        if (n < 0 || (size_t)n >= sizeof w->path - l->n_path) {
            c->cut = true;
            continue;
        }
        visit(w, l, e->d_name);
        if (w->depth > depth && w->at[depth].opaque)
            visit_hidden(w, &w->at[depth]);
        if (w->depth > depth)
            w->path[w->at[depth].n_path] = '\0';
    }
    bool failed = w->failed;
    mem_free(w);
    if (failed) {
        changes_free(c);
        return err_set(err, ERR_SYS, "the layer of the workspace could not be read");
    }
    if (c->n)
        qsort(c->at, c->n, sizeof *c->at, by_path);
    return 0;
}

/* In this tree; links on the way may lead about within it. */
static bool there(int dir, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = sys_openat2(dir, path[0] ? path : ".", &how);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

bool changes_has(int upper, int lower, const char *path)
{
    char part[PATH_MAX];
    bool hidden = false;
    size_t n = strlen(path);
    if (n >= sizeof part)
        return false;
    for (size_t at = strcspn(path, "/"); upper >= 0; at += 1 + strcspn(path + at + 1, "/")) {
        struct stat st;
        const char *name;
        memcpy(part, path, at);
        part[at] = '\0';
        const char *slash = strrchr(part, '/');
        name = slash ? slash + 1 : part;
        char parent[PATH_MAX] = "";
        if (slash)
            memcpy(parent, part, (size_t)(slash - part));
        int dir = open_below(upper, parent, O_RDONLY | O_DIRECTORY);
        bool here = dir >= 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
        bool gone = here && is_whiteout(dir, name, &st);
        io_close(&dir);
        if (gone)
            return false;
        if (here && at >= n)
            return true;
        if (!here) /* nothing of the layer goes further down */
            break;
        int folder = S_ISDIR(st.st_mode) ? open_below(upper, part, O_RDONLY | O_DIRECTORY) : -1;
        hidden |= folder < 0 || is_opaque(folder);
        io_close(&folder);
    }
    return !hidden && there(lower, path);
}

int changes_read(int dir, const char *path, struct buf *out, struct err *err)
{
    struct stat st;
    int fd = open_below(dir, path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return err_sys(err, "open it");
    int rc = fstat(fd, &st) == 0 && S_ISREG(st.st_mode)
                 ? io_read_all(fd, out, err)
                 : err_set(err, ERR_STATE, "it is no file");
    close(fd);
    return rc;
}

/* ---- taking over ---- */

struct taking {
    int upper, lower;
    uid_t uid; /* who owns the directory owns what comes into it */
    gid_t gid;
    unsigned serial;
};

/* The folder that holds a path, beneath `dir`; *name is the last piece. */
static int open_parent(int dir, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    char parent[PATH_MAX];
    *name = slash ? slash + 1 : path;
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof parent)
        return -1;
    memcpy(parent, path, n);
    parent[n] = '\0';
    return open_below(dir, parent, O_RDONLY | O_DIRECTORY);
}

/* Holes stay holes: a file may be longer than any disk. */
static int copy_bytes(int from, int to, off_t size)
{
    static char buf[CHUNK];
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        off_t end = data < 0 ? size : lseek(from, data, SEEK_HOLE);
        if (data < 0)
            data = at;
        for (at = data; at < end;) {
            size_t want = end - at < CHUNK ? (size_t)(end - at) : CHUNK;
            ssize_t n = pread(from, buf, want, at);
            if (n <= 0)
                return n < 0 ? -1 : 0;
            if (pwrite(to, buf, (size_t)n, at) != n)
                return -1;
            at += n;
        }
    }
    return ftruncate(to, size);
}

static int give(const struct taking *t, int fd)
{
    return geteuid() == 0 ? fchown(fd, t->uid, t->gid) : 0;
}

static int put_file(struct taking *t, const struct change *c, int parent, const char *name)
{
    char beside[64];
    struct stat st;
    int from = open_below(t->upper, c->path, O_RDONLY | O_NONBLOCK);
    if (from < 0)
        return -1;
    snprintf(beside, sizeof beside, ".agentd-%d-%u", (int)getpid(), ++t->serial);
    int to = openat(parent, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int rc = to >= 0 && fstat(from, &st) == 0 && S_ISREG(st.st_mode) ? 0 : -1;
    if (rc == 0 && (copy_bytes(from, to, st.st_size) < 0 || give(t, to) < 0 ||
                    fchmod(to, c->mode & 0777) < 0 ||
                    renameat(parent, beside, parent, name) < 0))
        rc = -1;
    int saved = errno;
    if (rc < 0 && to >= 0)
        unlinkat(parent, beside, 0);
    io_close(&to);
    close(from);
    errno = saved;
    return rc;
}

static int put_link(struct taking *t, const struct change *c, int parent, const char *name)
{
    char beside[64];
    snprintf(beside, sizeof beside, ".agentd-%d-%u", (int)getpid(), ++t->serial);
    if (symlinkat(c->to ? c->to : "", parent, beside) < 0)
        return -1;
    if (geteuid() == 0)
        (void)!fchownat(parent, beside, t->uid, t->gid, AT_SYMLINK_NOFOLLOW);
    if (renameat(parent, beside, parent, name) == 0)
        return 0;
    int saved = errno;
    unlinkat(parent, beside, 0);
    errno = saved;
    return -1;
}

/* Open to its owner until everything in it is there; set_modes() gives it its own mode. */
static int put_dir(struct taking *t, const struct change *c, int parent, const char *name)
{
    if (c->kind == CHANGE_ADDED && mkdirat(parent, name, 0700) < 0)
        return -1;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int rc = fd < 0 ? -1 : c->kind == CHANGE_ADDED ? give(t, fd) : 0;
    io_close(&fd);
    return rc;
}

static int set_mode(int dir, const char *path, mode_t mode)
{
    int fd = open_below(dir, path, O_RDONLY | O_NONBLOCK);
    int rc = fd < 0 ? -1 : fchmod(fd, mode & 0777);
    int saved = errno;
    io_close(&fd);
    errno = saved;
    return rc;
}

/* A folder with all that is in it, by descriptors, without following a link. */
static int remove_tree(int parent, const char *name)
{
    DIR *at[CHANGES_DEPTH];
    char names[CHANGES_DEPTH][NAME_MAX + 1];
    unsigned n = 0;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
    if (fd < 0 || !(at[0] = fdopendir(fd)))
        return -1;
    snprintf(names[n++], sizeof names[0], "%s", name);
    while (n > 0 && rc == 0) {
        struct dirent *e = readdir(at[n - 1]);
        if (!e) {
            closedir(at[--n]);
            rc = unlinkat(n ? dirfd(at[n - 1]) : parent, names[n], AT_REMOVEDIR);
            continue;
        }
        int dir = dirfd(at[n - 1]);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            unlinkat(dir, e->d_name, 0) == 0)
            continue;
        fd = n < CHANGES_DEPTH
                 ? openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                 : -1;
        if (fd < 0 || !(at[n] = fdopendir(fd)))
            rc = -1;
        else
            snprintf(names[n++], sizeof names[0], "%s", e->d_name);
    }
    int saved = errno;
    while (n > 0)
        closedir(at[--n]);
    errno = saved;
    return rc;
}

static int do_one(struct taking *t, const struct change *c)
{
    const char *name;
    int parent = open_parent(t->lower, c->path, &name), rc = -1;
    if (parent < 0)
        return -1;
    if (c->kind == CHANGE_REMOVED)
        rc = c->type == CHANGE_DIR ? remove_tree(parent, name) : unlinkat(parent, name, 0);
    else if (c->type == CHANGE_FILE && !c->content)
        rc = set_mode(t->lower, c->path, c->mode);
    else if (c->type == CHANGE_FILE)
        rc = put_file(t, c, parent, name);
    else if (c->type == CHANGE_LINK)
        rc = put_link(t, c, parent, name);
    else if (c->type == CHANGE_DIR)
        rc = put_dir(t, c, parent, name);
    int saved = errno;
    close(parent);
    errno = saved;
    return rc;
}

void changes_apply(const struct changes *c, int upper, int lower, const struct changes_take *t)
{
    struct taking way = {.upper = upper, .lower = lower};
    struct stat st;
    bool *done = c->n ? mem_zalloc(c->n) : NULL;
    if (fstat(lower, &st) == 0) {
        way.uid = st.st_uid;
        way.gid = st.st_gid;
    }
    for (unsigned i = 0; i < c->n; i++) {
        const struct change *one = &c->at[i];
        if (!t->take(t->arg, one))
            continue;
        if (one->type == CHANGE_OTHER && one->kind != CHANGE_REMOVED)
            t->told(t->arg, one, "it is no file, folder or link");
        else if (do_one(&way, one) < 0)
            t->told(t->arg, one, strerror(errno));
        else if (done)
            done[i] = true;
    }
    for (unsigned i = c->n; i-- > 0;) { /* the deepest first: a closed folder shuts out */
        const struct change *one = &c->at[i];
        if (!done || !done[i])
            continue;
        bool folder = one->type == CHANGE_DIR && one->kind != CHANGE_REMOVED;
        bool bad = folder && set_mode(lower, one->path, one->mode) < 0;
        t->told(t->arg, one, bad ? strerror(errno) : NULL);
    }
    mem_free(done);
}
