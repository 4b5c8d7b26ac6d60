/*
 * sockets.c - finds bound Unix sockets and covers them. The kernel is asked which sockets are
 * bound to which inodes and under which names; only when that changed is anything looked for:
 * by name in the trees that are only read, by a walk in the workspace, where hard links and
 * names relative to some folder are found too.
 */
#include "sandbox/sockets.h"

#include <dirent.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/io.h"
#include "sandbox/spec.h"
#include "sandbox/sys.h"

enum { BOUND_MAX = 4096, ENTRIES_MAX = 100000, DEPTH_MAX = 64, NAME_MAX_UN = 109 };

/* One bound socket as the kernel tells it: its coding of the device, low bits of the inode. */
struct one {
    uint32_t dev, ino;
    char name[NAME_MAX_UN]; /* as it was bound; may be relative */
};

struct bound {
    struct one at[BOUND_MAX];
    unsigned n;
    uint64_t look;
};

static uint32_t kernel_dev(dev_t d)
{
    return (uint32_t)(major(d) << 20 | minor(d));
}

static uint64_t key_of(uint32_t dev, uint32_t ino)
{
    return (uint64_t)dev << 32 | ino;
}

/* Spreads a key so that the sum over a set stands for the set. */
static uint64_t spread(uint64_t k)
{
    k = (k ^ (k >> 30)) * 0xbf58476d1ce4e5b9u;
    k = (k ^ (k >> 27)) * 0x94d049bb133111ebu;
    return k ^ (k >> 31);
}

static size_t align4(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

static void take(struct bound *b, const struct nlmsghdr *h)
{
    struct one o = {0};
    struct unix_diag_vfs v = {0};
    struct unix_diag_msg m;
    size_t head = NLMSG_LENGTH(sizeof m);
    if (h->nlmsg_len < head)
        return;
    memcpy(&m, (const char *)h + NLMSG_HDRLEN, sizeof m);
    for (size_t at = head; at + sizeof(struct nlattr) <= h->nlmsg_len;) {
        struct nlattr a;
        memcpy(&a, (const char *)h + at, sizeof a);
        if (a.nla_len < sizeof a || at + a.nla_len > h->nlmsg_len)
            return;
        size_t n = a.nla_len - sizeof a;
        if (a.nla_type == UNIX_DIAG_VFS && n >= sizeof v)
            memcpy(&v, (const char *)h + at + sizeof a, sizeof v);
        else if (a.nla_type == UNIX_DIAG_NAME)
            memcpy(o.name, (const char *)h + at + sizeof a,
                   n < sizeof o.name ? n : sizeof o.name - 1);
        at += align4(a.nla_len);
    }
    if (v.udiag_vfs_ino == 0 || b->n == BOUND_MAX)
        return;
    o.dev = v.udiag_vfs_dev;
    o.ino = v.udiag_vfs_ino;
    b->look += spread(key_of(o.dev, o.ino) ^ (uint64_t)m.udiag_ino << 17);
    b->at[b->n++] = o;
}

/* Every socket of this network namespace that one could connect or send to; false when the
 * kernel cannot tell. */
static bool ask(struct bound *b)
{
    static char buf[32768]; /* the spawner has one thread */
    static int fd = -1;     /* kept: every call begins with a question */
    enum { CLOSE = 7, LISTEN = 10 };
    struct {
        struct nlmsghdr h;
        struct unix_diag_req r;
    } q = {.h = {.nlmsg_len = sizeof q, .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
           .r = {.sdiag_family = AF_UNIX, .udiag_states = 1u << CLOSE | 1u << LISTEN,
                 .udiag_show = UDIAG_SHOW_VFS | UDIAG_SHOW_NAME}};
    if (fd < 0 && (fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)) < 0)
        return false;
    b->n = 0;
    b->look = 0;
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
                take(b, (const struct nlmsghdr *)(const void *)(buf + at));
            at += align4(h.nlmsg_len);
        }
    }
    if (!ok || !whole) /* answers to come would be taken for the next one's */
        io_close(&fd);
    return ok && whole;
}

/* ---- finding ---- */

static bool known(const struct sockets *s, uint64_t key)
{
    for (unsigned i = 0; i < s->n_covered; i++)
        if (s->covered[i] == key)
            return true;
    return false;
}

/* False when there is no room, and then nobody may run here. */
static bool note(struct sockets *s, struct sockets_found *f, uint64_t key, const char *in,
                 const char *rest)
{
    in += in[0] == '/';
    if (f->n == SOCKETS_MAX || (!known(s, key) && s->n_covered == SOCKETS_MAX))
        return false;
    int n = snprintf(f->place[f->n], sizeof f->place[0], "%s%s%s", in, in[0] ? "/" : "", rest);
    if (n < 0 || (size_t)n >= sizeof f->place[0])
        return true; /* longer than any socket's address inside */
    for (unsigned i = 0; i < f->n; i++)
        if (strcmp(f->place[i], f->place[f->n]) == 0)
            return true;
    f->n++;
    if (!known(s, key))
        s->covered[s->n_covered++] = key;
    return true;
}

/* A socket that was bound by its whole path below one of the trees. */
static bool by_name(struct sockets *s, struct sockets_found *f, const struct one *o)
{
    struct stat st;
    bool ok = true;
    uint64_t key = key_of(o->dev, o->ino);
    if (o->name[0] != '/' || known(s, key) || lstat(o->name, &st) < 0 || !S_ISSOCK(st.st_mode) ||
        (uint32_t)st.st_ino != o->ino || kernel_dev(st.st_dev) != o->dev)
        return true;
    const char *at = (const char *)s->trees.data, *end = at ? at + s->trees.len : at;
    while (ok && at < end) {
        const char *host = at, *in = host + strlen(host) + 1;
        at = in + strlen(in) + 1;
        size_t n = strlen(host);
        if (spec_below(o->name, host) && strlen(o->name) > n)
            ok = note(s, f, key, in, o->name + n + 1);
    }
    return ok;
}

struct walk {
    struct sockets *s;
    struct sockets_found *found;
    const struct bound *bound;
    uint32_t dev;
    DIR *level[DEPTH_MAX];
    size_t length[DEPTH_MAX]; /* of the path before this level's names */
    char path[SANDBOX_PATH_MAX];
    unsigned depth, seen;
};

static void enter(struct walk *w, int at, const char *name, size_t length)
{
    if (w->depth == DEPTH_MAX)
        return; /* what lies deeper than any socket's own path could */
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        io_close(&fd);
        return;
    }
    w->length[w->depth] = length;
    w->level[w->depth++] = d;
}

static bool is_bound(const struct walk *w, ino_t ino)
{
    for (unsigned i = 0; i < w->bound->n; i++)
        if (w->bound->at[i].ino == (uint32_t)ino && w->bound->at[i].dev == w->dev)
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
    if (e->d_type == DT_DIR) {
        enter(w, dirfd(d), e->d_name, before + (size_t)n);
        return true;
    }
    if (e->d_type != DT_SOCK || !is_bound(w, e->d_ino))
        return true;
    return note(w->s, w->found, key_of(w->dev, (uint32_t)e->d_ino), SANDBOX_WORKSPACE, w->path);
}

static bool by_walk(struct sockets *s, struct sockets_found *f, const struct bound *b)
{
    static struct walk w;
    struct stat st;
    bool ok = true, any = false;
    if (s->workspace < 0 || fstat(s->workspace, &st) < 0)
        return true;
    w = (struct walk){.s = s, .found = f, .bound = b, .dev = kernel_dev(st.st_dev)};
    for (unsigned i = 0; !any && i < b->n; i++)
        any = b->at[i].dev == w.dev;
    if (any)
        enter(&w, s->workspace, ".", 0);
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
    return ok;
}

int sockets_init(struct sockets *s, const struct plan *p, int workspace, struct err *err)
{
    *s = (struct sockets){.workspace = workspace, .mounts = -1};
    buf_init(&s->trees, 64 * 1024);
    for (unsigned i = 0; i < p->n; i++) {
        const struct plan_step *step = &p->step[i];
        if (step->what != DO_BIND || (step->flags & PLAN_DEVICE))
            continue;
        buf_add(&s->trees, step->b, strlen(step->b) + 1);
        buf_add(&s->trees, step->a, strlen(step->a) + 1);
    }
    return buf_check(&s->trees, "shown trees", err);
}

void sockets_done(struct sockets *s)
{
    io_close(&s->mounts);
    buf_done(&s->trees);
}

int sockets_find(struct sockets *s, struct sockets_found *found)
{
    static struct bound bound;
    bool ok = true;
    found->n = 0;
    if (!ask(&bound) || bound.look == s->look)
        return 0;
    for (unsigned i = 0; ok && i < bound.n; i++)
        ok = by_name(s, found, &bound.at[i]);
    ok = ok && by_walk(s, found, &bound);
    s->look = bound.look;
    errno = ENOBUFS;
    return ok ? 0 : -1;
}

/* ---- covering ---- */

int sockets_cover(const struct sockets_found *found, int root)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    for (unsigned i = 0; i < found->n; i++) {
        struct stat st;
        int at = sys_openat2(root, found->place[i], &how);
        if (at < 0 && (errno == ENOENT || errno == ELOOP || errno == ENOTDIR))
            continue; /* gone, or another file by now */
        int cover = at < 0 ? -1 : open_tree(root, "dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
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

/* In a process of its own, which becomes one of the cell's owner in its mounts. */
static int cover_inside(const struct sockets *s, const struct sockets_found *found)
{
    int user = ioctl(s->mounts, _IO(0xb7, 1) /* NS_GET_USERNS */);
    if (user < 0 || setns(user, CLONE_NEWUSER) < 0 || setns(s->mounts, CLONE_NEWNS) < 0)
        return -1;
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return root < 0 ? -1 : sockets_cover(found, root);
}

int sockets_again(struct sockets *s)
{
    static struct sockets_found found;
    int status = -1;
    if (s->mounts < 0)
        return 0;
    if (sockets_find(s, &found) < 0)
        return -1;
    if (found.n == 0)
        return 0;
    long pid = syscall(SYS_clone, (unsigned long)SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(cover_inside(s, &found) < 0);
    while (pid > 0 && waitpid((pid_t)pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return pid > 0 && status == 0 ? 0 : -1;
}
