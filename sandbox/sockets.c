/*
 * sockets.c - Unix sockets of the host's services that lie in the workspace. Namespaces do not
 * stop a connection by path, so what is bound when a cell is made is found and covered inside.
 * The kernel is asked which sockets are bound to which inodes; only then is the tree walked.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/io.h"
#include "sandbox/build.h"
#include "sandbox/sys.h"

enum { BOUND_MAX = 4096, ENTRIES_MAX = 100000, DEPTH_MAX = 64 };

struct bound {
    uint32_t ino[BOUND_MAX]; /* of sockets on the workspace's device; low bits as reported */
    unsigned n;
};

/* The kernel's own coding of a device number in this message. */
static uint32_t kernel_dev(dev_t d)
{
    return (uint32_t)(major(d) << 20 | minor(d));
}

static size_t align4(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

static void take(struct bound *b, const struct nlmsghdr *h, uint32_t dev)
{
    size_t head = NLMSG_LENGTH(sizeof(struct unix_diag_msg));
    for (size_t at = head; at + sizeof(struct nlattr) <= h->nlmsg_len;) {
        struct nlattr a;
        struct unix_diag_vfs v;
        memcpy(&a, (const char *)h + at, sizeof a);
        if (a.nla_len < sizeof a || at + a.nla_len > h->nlmsg_len)
            return;
        if (a.nla_type == UNIX_DIAG_VFS && a.nla_len >= sizeof a + sizeof v) {
            memcpy(&v, (const char *)h + at + sizeof a, sizeof v);
            if (v.udiag_vfs_dev == dev && b->n < BOUND_MAX)
                b->ino[b->n++] = v.udiag_vfs_ino;
        }
        at += align4(a.nla_len);
    }
}

/* Every bound socket of this network namespace; false when the kernel cannot tell. */
static bool ask(struct bound *b, uint32_t dev)
{
    static char buf[32768]; /* the spawner has one thread */
    struct {
        struct nlmsghdr h;
        struct unix_diag_req r;
    } q = {.h = {.nlmsg_len = sizeof q, .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
           .r = {.sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_show = UDIAG_SHOW_VFS}};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return false;
    bool whole = false, ok = send(fd, &q, sizeof q, 0) == sizeof q;
    while (ok && !whole) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        ok = n > 0;
        for (size_t at = 0; ok && !whole && at + sizeof(struct nlmsghdr) <= (size_t)n;) {
            struct nlmsghdr h;
            memcpy(&h, buf + at, sizeof h);
            if (h.nlmsg_len < sizeof h || at + h.nlmsg_len > (size_t)n ||
                h.nlmsg_type == NLMSG_ERROR)
                ok = false;
            else if (h.nlmsg_type == NLMSG_DONE)
                whole = true;
            else
                take(b, (const struct nlmsghdr *)(const void *)(buf + at), dev);
            at += align4(h.nlmsg_len);
        }
    }
    close(fd);
    return ok && whole;
}

struct walk {
    struct build *b;
    const struct bound *bound;
    DIR *level[DEPTH_MAX];
    size_t length[DEPTH_MAX]; /* of the path before this level's names */
    char path[SANDBOX_PATH_MAX];
    unsigned depth, seen;
};

static bool enter(struct walk *w, int at, const char *name, size_t length)
{
    if (w->depth == DEPTH_MAX)
        return true; /* what lies deeper than any socket's own path could */
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        io_close(&fd);
        return true;
    }
    w->length[w->depth] = length;
    w->level[w->depth++] = d;
    return true;
}

static bool is_bound(const struct bound *b, ino_t ino)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->ino[i] == (uint32_t)ino)
            return true;
    return false;
}

/* One name: descends, or keeps the path of a socket that somebody holds. */
static bool look_at(struct walk *w, DIR *d, const struct dirent *e)
{
    size_t before = w->length[w->depth - 1];
    int n = snprintf(w->path + before, sizeof w->path - before, "%s%s", before ? "/" : "",
                     e->d_name);
    if (n < 0 || before + (size_t)n >= sizeof w->path)
        return true;
    if (e->d_type == DT_DIR)
        return enter(w, dirfd(d), e->d_name, before + (size_t)n);
    if (e->d_type != DT_SOCK || !is_bound(w->bound, e->d_ino))
        return true;
    if (w->b->n_sockets == BUILD_SOCKETS_MAX)
        return false;
    memcpy(w->b->socket[w->b->n_sockets++], w->path, before + (size_t)n + 1);
    return true;
}

int sockets_find(struct build *b)
{
    static struct bound bound;
    static struct walk w;
    bound.n = 0;
    b->n_sockets = 0;
    if (!ask(&bound, kernel_dev(b->work_dev)) || bound.n == 0)
        return 0;
    w = (struct walk){.b = b, .bound = &bound};
    bool ok = enter(&w, b->workspace, ".", 0);
    while (w.depth > 0) {
        DIR *d = w.level[w.depth - 1];
        struct dirent *e = ok && w.seen++ < ENTRIES_MAX ? readdir(d) : NULL;
        if (!e) {
            closedir(d);
            w.depth--;
        } else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            ok = look_at(&w, d, e);
        }
    }
    errno = ENOBUFS;
    return ok ? 0 : -1;
}

int sockets_cover(struct build *b, int workspace)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    for (unsigned i = 0; i < b->n_sockets; i++) {
        struct stat st;
        int at = sys_openat2(workspace, b->socket[i], &how);
        if (at < 0 && errno == ENOENT)
            continue;
        int cover = at < 0 ? -1
                           : open_tree(b->root, "dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        int rc = cover < 0 ? -1 : fstat(at, &st);
        if (rc == 0 && S_ISSOCK(st.st_mode))
            rc = move_mount(cover, "", at, "",
                            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        int saved = errno;
        io_close(&at);
        io_close(&cover);
        errno = saved;
        if (rc < 0)
            return -1;
    }
    return 0;
}
