/*
 * mounts.c - the tree inside. Sources become detached mounts while the host's tree is in
 * view; mount points are made only on file systems of our own, so nothing that the other
 * side planted in the workspace is ever walked through.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "sandbox/build.h"
#include "sandbox/spec.h"
#include "sandbox/sys.h"

static int fail(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* Home directories of real users, by the file itself: no name service runs in the spawner. */
static bool is_home(const char *path)
{
    struct buf b;
    struct err err = {0};
    buf_init(&b, 1 << 20);
    bool hit = io_read_file("/etc/passwd", &b, &err) < 0; /* unreadable: take no chance */
    struct str rest = buf_view(&b), line;
    while (!hit && str_split(&rest, '\n', &line)) {
        struct str field = {0};
        for (unsigned i = 0; i < 6; i++)
            if (!str_split(&line, ':', &field))
                field.n = 0;
        hit = field.n > 1 && str_is(field, path);
    }
    buf_done(&b);
    return hit;
}

static bool forbidden(const struct build *b, const char *path)
{
    static const char *const system_dirs[] = {"/usr", "/etc", "/bin",  "/sbin", "/lib",
                                              "/dev", "/sys", "/proc", "/boot", "/run", NULL};
    static const char *const bare[] = {"/home", "/var", "/tmp", "/opt", "/srv", "/mnt",
                                       "/media", "/var/tmp", "/var/lib", "/root", NULL};
    for (unsigned i = 0; system_dirs[i]; i++)
        if (spec_below(path, system_dirs[i]) && !spec_below(path, "/run/user"))
            return true;
    for (unsigned i = 0; bare[i]; i++)
        if (strcmp(path, bare[i]) == 0)
            return true;
    const char *state = b->host->state_dir;
    if (state[0] && (spec_below(path, state) || spec_below(state, path)))
        return true;
    return is_home(path);
}

static int open_source(const char *path, unsigned flags)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
    if (!(flags & PLAN_FOLLOW)) /* code inside may have swapped a folder for a link */
        how.resolve |= RESOLVE_NO_SYMLINKS;
    return sys_openat2(AT_FDCWD, path, &how);
}

int mounts_workspace(struct build *b)
{
    const char *path = b->spec->workspace;
    struct stat st;
    if (forbidden(b, path)) {
        errno = EINVAL;
        return -1;
    }
    int fd = open_source(path, PLAN_WORK);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0)
        return fail(fd);
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return fail(fd);
    }
    b->workspace = fd;
    b->work_dev = st.st_dev;
    b->work_ino = st.st_ino;
    return 0;
}

static int attributes(int tree, const struct plan_step *s)
{
    struct mount_attr a = {.attr_set = MOUNT_ATTR_NOSUID, .propagation = MS_PRIVATE};
    if (!(s->flags & PLAN_WRITE))
        a.attr_set |= MOUNT_ATTR_RDONLY;
    if (!(s->flags & PLAN_DEVICE))
        a.attr_set |= MOUNT_ATTR_NODEV;
    if (s->flags & PLAN_NOEXEC)
        a.attr_set |= MOUNT_ATTR_NOEXEC;
    return mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof a);
}

/* Files of the owner on disk appear as the payload's, and new ones are the owner's again. */
static int map_owner(struct build *b, int tree, int source)
{
    struct stat st;
    const struct probe *h = b->host;
    uid_t payload = h->uid_base + b->plan->uid;
    if (fstat(source, &st) < 0)
        return -1;
    int ns = b->owner_ns >= 0 ? dup(b->owner_ns)
                              : ns_owner(st.st_uid, st.st_gid, payload, payload);
    if (ns < 0)
        return -1;
    struct mount_attr a = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)(unsigned)ns};
    int rc = mount_setattr(tree, "", AT_EMPTY_PATH, &a, sizeof a);
    int saved = errno;
    close(ns);
    errno = saved;
    return rc;
}

/* The same directory as the one that was checked, even if links moved meanwhile. */
static bool same_workspace(const struct build *b, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == b->work_dev && st.st_ino == b->work_ino;
}

static int open_tree_of(struct build *b, const struct plan_step *s)
{
    /* As root the mapped mount must not take submounts along: they would not be mapped. */
    bool mapped = b->host->root && (s->flags & PLAN_IDMAP);
    unsigned recursive = mapped ? 0 : AT_RECURSIVE;
    int source = open_source(s->b, s->flags);
    if (source < 0)
        return -1;
    if ((s->flags & PLAN_WORK) && !same_workspace(b, source)) {
        errno = ESTALE;
        return fail(source);
    }
    int tree = open_tree(source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC |
                                         recursive);
    if (tree < 0)
        return fail(source);
    if (attributes(tree, s) < 0 || (mapped && map_owner(b, tree, source) < 0)) {
        close(source);
        return fail(tree);
    }
    close(source);
    return tree;
}

int mounts_sources(struct build *b)
{
    for (unsigned i = 0; i < b->plan->n; i++) {
        const struct plan_step *s = &b->plan->step[i];
        if (s->what != DO_BIND && s->what != DO_OVERLAY)
            continue;
        b->at = i;
        b->tree[i] = open_tree_of(b, s);
        bool absent = errno == ENOENT || errno == EACCES;
        if (b->tree[i] < 0 && !(absent && (s->flags & PLAN_OPTIONAL)))
            return -1;
    }
    return 0;
}

void mounts_close(struct build *b)
{
    for (unsigned i = 0; i < PLAN_STEPS_MAX; i++)
        io_close(&b->tree[i]);
    io_close(&b->workspace);
}

/* Folders on the way to a place; those that exist are fine. */
static int make_parents(int root, const char *place)
{
    char path[SANDBOX_PATH_MAX];
    for (const char *c = strchr(place, '/'); c; c = strchr(c + 1, '/')) {
        memcpy(path, place, (size_t)(c - place));
        path[c - place] = '\0';
        if (mkdirat(root, path, 0755) < 0 && errno != EEXIST)
            return -1;
    }
    return 0;
}

static const char *relative(const char *place)
{
    return place[0] == '/' ? place + 1 : place;
}

/* A mount point of the right kind, on our own tmpfs. */
static int make_point(int root, const char *place, bool dir)
{
    for (int tries = 0; tries < 2; tries++) {
        int rc = dir ? mkdirat(root, place, 0755) : mknodat(root, place, S_IFREG | 0444, 0);
        if (rc == 0 || errno == EEXIST)
            return 0;
        if (errno != ENOENT || make_parents(root, place) < 0)
            return -1;
    }
    return -1;
}

static int attach(int tree, int root, const char *place)
{
    struct stat st;
    if (fstat(tree, &st) < 0 || make_point(root, place, S_ISDIR(st.st_mode)) < 0)
        return -1;
    return move_mount(tree, "", root, place, MOVE_MOUNT_F_EMPTY_PATH);
}

/* A detached file system of a type with string options "key=value,...". */
static int new_fs(const char *type, const char *const *options, unsigned attr)
{
    int fs = fsopen(type, FSOPEN_CLOEXEC);
    if (fs < 0)
        return -1;
    for (; *options; options += 2) {
        int rc = options[1][0]
                     ? fsconfig(fs, FSCONFIG_SET_STRING, options[0], options[1], 0)
                     : fsconfig(fs, FSCONFIG_SET_FLAG, options[0], NULL, 0);
        if (rc < 0)
            return fail(fs);
    }
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return fail(fs);
    int mnt = fsmount(fs, FSMOUNT_CLOEXEC, attr);
    if (mnt < 0)
        return fail(fs);
    close(fs);
    return mnt;
}

static int new_tmpfs(uint64_t bytes, uint64_t inodes, uint64_t mode, uint32_t owner,
                     unsigned attr)
{
    char size[32], files[32], bits[16], id[16];
    snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
    snprintf(files, sizeof files, "%llu", (unsigned long long)inodes);
    snprintf(bits, sizeof bits, "%o", (unsigned)mode);
    snprintf(id, sizeof id, "%u", owner);
    const char *options[] = {"size", size, "nr_inodes", files, "mode", bits,
                             "uid",  id,   "gid",       id,    NULL};
    return new_fs("tmpfs", options, attr);
}

static uint32_t owner_of(const struct build *b, const struct plan_step *s)
{
    return (s->flags & PLAN_OWNED) || !b->plan->two_ids ? b->plan->uid : 0;
}

/* The new root stands over some directory that every host has; which one does not matter,
 * it is gone after the pivot. */
static int step_root(struct build *b, const struct plan_step *s)
{
    static const char *const places[] = {"/tmp", "/var", "/proc", "/usr", NULL};
    int fd = new_tmpfs(s->n1, s->n2, 0755, owner_of(b, s), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (fd < 0)
        return -1;
    for (unsigned i = 0; places[i]; i++)
        if (move_mount(fd, "", AT_FDCWD, places[i], MOVE_MOUNT_F_EMPTY_PATH) == 0) {
            b->root = fd;
            b->root_at = places[i];
            return 0;
        }
    return fail(fd);
}

static int step_dir(struct build *b, const struct plan_step *s, const char *place)
{
    if (make_parents(b->root, place) < 0 ||
        (mkdirat(b->root, place, (mode_t)s->n1) < 0 && errno != EEXIST))
        return -1;
    if (!(s->flags & PLAN_OWNED) || !b->plan->two_ids)
        return 0;
    return fchownat(b->root, place, b->plan->uid, b->plan->uid, AT_SYMLINK_NOFOLLOW);
}

static int step_file(struct build *b, const struct plan_step *s, const char *place)
{
    int fd = openat(b->root, place, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (fd < 0)
        return -1;
    size_t n = strlen(s->b);
    if (write(fd, s->b, n) != (ssize_t)n)
        return fail(fd);
    close(fd);
    return 0;
}

static int step_tmpfs(struct build *b, const struct plan_step *s, const char *place)
{
    int fd = new_tmpfs(s->n1, s->n2, s->n3, owner_of(b, s),
                       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (fd < 0)
        return -1;
    if (attach(fd, b->root, place) < 0)
        return fail(fd);
    close(fd);
    return 0;
}

/* Only pid 1, by its group 0, sees the processes of the other id. */
static int step_proc(struct build *b, const char *place)
{
    const char *with_group[] = {"hidepid", "2", "gid", "0", NULL};
    const char *alone[] = {"hidepid", "2", NULL};
    int fd = new_fs("proc", b->plan->two_ids ? with_group : alone,
                    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (fd < 0)
        return -1;
    if (attach(fd, b->root, place) < 0)
        return fail(fd);
    b->proc = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(fd);
    return b->proc < 0 ? -1 : 0;
}

/* A kernel without the file has no such count. */
static int step_quota(struct build *b, const struct plan_step *s)
{
    char text[24];
    int fd = openat(b->proc, s->a, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    int n = snprintf(text, sizeof text, "%llu", (unsigned long long)s->n1);
    if (write(fd, text, (size_t)n) != n)
        return fail(fd);
    close(fd);
    return 0;
}

static int step_shadow(struct build *b, const char *place)
{
    struct stat st;
    if (fstatat(b->root, place, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                       MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
    int fd = open_tree(b->root, S_ISDIR(st.st_mode) ? PLAN_EMPTY + 1 : "dev/null",
                       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd >= 0 && S_ISDIR(st.st_mode) &&
        mount_setattr(fd, "", AT_EMPTY_PATH, &a, sizeof a) < 0)
        return fail(fd);
    if (fd < 0)
        return -1;
    if (move_mount(fd, "", b->root, place, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return fail(fd);
    close(fd);
    return 0;
}

static int step_readonly(struct build *b, const char *place)
{
    struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};
    int fd = open_tree(b->root, place, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    if (mount_setattr(fd, "", AT_EMPTY_PATH, &a, sizeof a) < 0 ||
        move_mount(fd, "", b->root, place, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return fail(fd);
    close(fd);
    return 0;
}

/* The directory below, a tmpfs of limited size above; both leave the tree once joined. */
static int step_overlay(struct build *b, unsigned i, const char *place)
{
    const struct plan_step *s = &b->plan->step[i];
    uint32_t id = b->plan->uid;
    char lower[64], upper[64], work[64];
    int top = new_tmpfs(s->n1, s->n2, 0755, id, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (top < 0)
        return -1;
    if (attach(b->tree[i], b->root, ".lower") < 0 || attach(top, b->root, ".upper") < 0 ||
        mkdirat(top, "u", 0755) < 0 || mkdirat(top, "w", 0755) < 0 ||
        (b->plan->two_ids && (fchownat(top, "u", id, id, 0) < 0 ||
                              fchownat(top, "w", id, id, 0) < 0)))
        return fail(top);
    b->upper = openat(top, "u", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(top);
    snprintf(lower, sizeof lower, "%s/.lower", b->root_at);
    snprintf(upper, sizeof upper, "%s/.upper/u", b->root_at);
    snprintf(work, sizeof work, "%s/.upper/w", b->root_at);
    const char *options[] = {"lowerdir", lower, "upperdir", upper, "workdir",
                             work,       "userxattr", "",     NULL};
    int fd = new_fs("overlay", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (fd < 0)
        return -1;
    if (attach(fd, b->root, place) < 0)
        return fail(fd);
    close(fd);
    snprintf(upper, sizeof upper, "%s/.upper", b->root_at);
    if (umount2(lower, MNT_DETACH) < 0 || umount2(upper, MNT_DETACH) < 0)
        return -1;
    (void)!unlinkat(b->root, ".lower", AT_REMOVEDIR);
    (void)!unlinkat(b->root, ".upper", AT_REMOVEDIR);
    return 0;
}

static int step_pivot(struct build *b)
{
    if (fchdir(b->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0)
        return -1;
    return chdir("/");
}

int mounts_step(struct build *b, unsigned i)
{
    const struct plan_step *s = &b->plan->step[i];
    const char *place = relative(s->a);
    switch (s->what) {
    case DO_PRIVATE:
        return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    case DO_ROOT:
        return step_root(b, s);
    case DO_DIR:
        return step_dir(b, s, place);
    case DO_LINK:
        return make_parents(b->root, place) < 0 ? -1 : symlinkat(s->b, b->root, place);
    case DO_FILE:
        return step_file(b, s, place);
    case DO_BIND:
        return b->tree[i] < 0 ? 0 : attach(b->tree[i], b->root, place);
    case DO_TMPFS:
        return step_tmpfs(b, s, place);
    case DO_OVERLAY:
        return step_overlay(b, i, place);
    case DO_PROC:
        return step_proc(b, place);
    case DO_QUOTA:
        return step_quota(b, s);
    case DO_SOCKETS:
        return sockets_cover(&b->sockets, b->root);
    case DO_SHADOW:
        return step_shadow(b, place);
    case DO_READONLY:
        return step_readonly(b, place);
    case DO_PIVOT:
        return step_pivot(b);
    case DO_SEAL:
        return mount_setattr(AT_FDCWD, "/", 0,
                             &(struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY},
                             sizeof(struct mount_attr));
    default:
        errno = EINVAL;
        return -1;
    }
}
