/* tree.c - reads /proc by hand: pid 1 of a cell uses it too, which allocates nothing. */
#include "sandbox/tree.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "sandbox/sys.h"

enum { HOST_MAX = 65536 };

struct entry {
    pid_t pid, parent;
};

struct dirent64_head {
    uint64_t ino;
    int64_t off;
    uint16_t len;
    uint8_t type;
    char name[];
};

void tree_each(int dir, void (*cb)(void *arg, pid_t n), void *arg)
{
    static char buf[32768];
    (void)!lseek(dir, 0, SEEK_SET);
    for (long n; (n = syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0;) {
        for (long at = 0; at < n;) {
            struct dirent64_head h;
            memcpy(&h, buf + at, sizeof h);
            const char *name = buf + at + offsetof(struct dirent64_head, name);
            if (name[0] >= '1' && name[0] <= '9')
                cb(arg, (pid_t)strtol(name, NULL, 10));
            at += h.len;
        }
    }
}

/* The word after n spaces. */
static const char *word(const char *s, int n)
{
    for (; n > 0 && s; n--) {
        s = strchr(s, ' ');
        s = s ? s + 1 : NULL;
    }
    return s;
}

/* The name in it may hold anything, so it is read from its last parenthesis. */
bool tree_stat(int proc, const char *path, char *state, pid_t *parent)
{
    char text[512];
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *s = strrchr(text, ')');
    s = s ? word(s, 1) : NULL;
    const char *p = s ? word(s, 1) : NULL;
    if (!p)
        return false;
    *state = *s;
    *parent = (pid_t)strtol(p, NULL, 10);
    return true;
}

struct scan {
    int proc;
    unsigned n;
    struct entry at[HOST_MAX];
};

char *tree_path(char *to, pid_t pid, const char *rest)
{
    char digits[12];
    unsigned n = 0;
    for (unsigned v = (unsigned)pid; v || n == 0; v /= 10)
        digits[n++] = (char)('0' + v % 10);
    while (n)
        *to++ = digits[--n];
    size_t len = strlen(rest);
    memcpy(to, rest, len + 1);
    return to + len;
}

static void on_process(void *arg, pid_t pid)
{
    struct scan *s = arg;
    char path[32], state;
    if (s->n == HOST_MAX)
        return;
    tree_path(path, pid, "/stat");
    s->at[s->n].pid = pid;
    if (tree_stat(s->proc, path, &state, &s->at[s->n].parent))
        s->n++;
}

/* The copy of `proc` has a place of its own in the folder; the descriptor may be shared. */
static int reopen(int proc)
{
    return openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

unsigned tree_below(int proc, pid_t root, pid_t *out, unsigned cap)
{
    static struct scan s;
    int dir = reopen(proc);
    unsigned n = 0;
    if (dir < 0)
        return 0;
    s.proc = proc;
    s.n = 0;
    tree_each(dir, on_process, &s);
    close(dir);
    for (unsigned next = 0;; next++) { /* the answer is its own queue */
        pid_t of = next == 0 ? root : out[next - 1];
        for (unsigned i = 0; i < s.n && n < cap; i++)
            if (s.at[i].parent == of)
                out[n++] = s.at[i].pid;
        if (next == n)
            return n;
    }
}

bool tree_has(int proc, pid_t root, pid_t pid)
{
    for (unsigned depth = 0; pid > 1 && depth < TREE_MAX; depth++) {
        char path[32], state;
        tree_path(path, pid, "/stat");
        if (!tree_stat(proc, path, &state, &pid))
            return false;
        if (pid == root)
            return true;
    }
    return false;
}

bool tree_signal(int proc, pid_t root, pid_t pid, int signo)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return false;
    bool sent = tree_has(proc, root, pid) && sys_pidfd_signal(fd, signo) == 0;
    close(fd);
    return sent;
}

struct count {
    int proc;
    uid_t uid;
    unsigned n;
};

/* /proc/PID/task has a link for each thread besides the usual two. */
static void on_owned(void *arg, pid_t pid)
{
    struct count *c = arg;
    struct stat st;
    char path[32];
    tree_path(path, pid, "/task");
    if (fstatat(c->proc, path, &st, 0) < 0 || st.st_uid != c->uid)
        return;
    c->n += st.st_nlink > 2 ? (unsigned)st.st_nlink - 2 : 1;
}

unsigned tree_tasks_of(int proc, uid_t uid)
{
    struct count c = {proc, uid, 0};
    int dir = reopen(proc);
    if (dir >= 0)
        tree_each(dir, on_owned, &c);
    io_close(&dir);
    return c.n;
}
