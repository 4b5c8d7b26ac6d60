/* watch.c - measures what no control group counts: memory of a cell, size of a workspace. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/str.h"
#include "sandbox/spawn.h"
#include "sandbox/sys.h"
#include "sandbox/tree.h"

enum { ANON_MAX = 4096, FDS_MAX = 20000 };

/* What a look at a cell's memory finds. Anonymous files count whether mapped or not, and a
 * mapped page of theirs only once. */
struct memory {
    uint64_t pss, shmem;      /* of mappings; the part of it that belongs to shared memory */
    uint64_t anon;            /* of open files that only memory holds */
    uint64_t ino[ANON_MAX];   /* those counted already: forks share them */
    unsigned n_ino, n_fds;
    dev_t anon_dev;
};

static uint64_t kib_of(struct str line, struct str head)
{
    uint64_t kib;
    line = str_trim(str_sub(line, head.n, line.n));
    bool ok = str_ends(line, STR(" kB")) && str_to_u64(str_sub(line, 0, line.n - 3), &kib);
    return ok ? kib * 1024 : 0;
}

static void add_mappings(struct memory *m, int proc, const char *pid)
{
    char path[64], text[1024];
    struct str pss = STR("Pss:"), shmem = STR("Pss_Shmem:"), rest, line;
    snprintf(path, sizeof path, "%.20s/smaps_rollup", pid);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    rest = str_of(text, n > 0 ? (size_t)n : 0);
    while (str_split(&rest, '\n', &line)) {
        if (str_starts(line, pss))
            m->pss += kib_of(line, pss);
        else if (str_starts(line, shmem))
            m->shmem += kib_of(line, shmem);
    }
}

static bool counted(struct memory *m, ino_t ino)
{
    for (unsigned i = 0; i < m->n_ino; i++)
        if (m->ino[i] == ino)
            return true;
    if (m->n_ino < ANON_MAX)
        m->ino[m->n_ino++] = ino;
    return false;
}

static void add_files(struct memory *m, int proc, const char *pid)
{
    char path[32];
    snprintf(path, sizeof path, "%.20s/fd", pid);
    int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *e; d && m->n_fds < FDS_MAX && (e = readdir(d)); m->n_fds++) {
        struct stat st;
        if (e->d_name[0] != '.' && fstatat(fd, e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode) &&
            st.st_dev == m->anon_dev && st.st_nlink == 0 && !counted(m, st.st_ino))
            m->anon += (uint64_t)st.st_blocks * 512;
    }
    if (d)
        closedir(d);
}

static void add_process(struct memory *m, int proc, const char *pid)
{
    add_mappings(m, proc, pid);
    add_files(m, proc, pid);
}

/* The file system that the kernel keeps for anonymous files. */
static dev_t anon_device(void)
{
    static dev_t dev;
    struct stat st;
    int fd = dev ? -1 : memfd_create("device", MFD_CLOEXEC);
    if (fd >= 0 && fstat(fd, &st) == 0)
        dev = st.st_dev;
    if (fd >= 0)
        close(fd);
    return dev;
}

static uint64_t total(const struct memory *m, uint32_t *cost)
{
    *cost += m->n_fds / 64;
    return m->pss - m->shmem + (m->anon > m->shmem ? m->anon : m->shmem);
}

uint64_t sandbox_memory(const struct sandbox *s, uint32_t *processes)
{
    static struct memory m; /* the spawner has one thread */
    m = (struct memory){.anon_dev = anon_device()};
    *processes = 0;
    if (s->level == SANDBOX_LANDLOCK) {
        static pid_t below[TREE_MAX];
        *processes = tree_below(s->proc, s->pid, below, TREE_MAX);
        for (unsigned i = 0; i < *processes; i++) {
            char name[16];
            snprintf(name, sizeof name, "%d", (int)below[i]);
            add_process(&m, s->proc, name);
        }
        return total(&m, processes);
    }
    int fd = openat(s->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9' || strcmp(e->d_name, "1") == 0)
            continue;
        ++*processes;
        add_process(&m, s->proc, e->d_name);
    }
    closedir(d);
    return total(&m, processes);
}

uint64_t sandbox_nameless(const struct sandbox *s, dev_t dev, uint64_t *files)
{
    static struct memory m;
    static pid_t below[TREE_MAX];
    m = (struct memory){.anon_dev = dev};
    unsigned n = tree_below(s->proc, s->pid, below, TREE_MAX);
    for (unsigned i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", (int)below[i]);
        add_files(&m, s->proc, name);
    }
    *files = m.n_ino;
    return m.anon;
}

static uint64_t of_pid(int proc, pid_t pid, uint64_t (*measure)(int, const char *))
{
    char name[16];
    snprintf(name, sizeof name, "%d", (int)pid);
    return measure(proc, name);
}

/* What one process has written to disks, with the children that it has buried. */
static uint64_t written_by(int proc, const char *pid)
{
    char path[32], text[1024];
    int n = snprintf(path, sizeof path, "%.10s/io", pid);
    int fd = n > 0 ? openat(proc, path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        close(fd);
    struct str rest = str_of(text, got > 0 ? (size_t)got : 0), line, head = STR("write_bytes: ");
    uint64_t bytes;
    while (str_split(&rest, '\n', &line))
        if (str_starts(line, head) && str_to_u64(str_sub(line, head.n, line.n), &bytes))
            return bytes;
    return 0;
}

/* Open files, and mappings whose line ends like "(deleted)". */
static uint64_t held_by(int proc, const char *pid)
{
    static char text[65536];
    char path[32], last = '\0';
    uint64_t held = 0;
    snprintf(path, sizeof path, "%.10s/fd", pid);
    int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    while (d && readdir(d))
        held++;
    if (d)
        closedir(d);
    snprintf(path, sizeof path, "%.10s/maps", pid);
    fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && (n = read(fd, text, sizeof text)) > 0; last = text[n - 1])
        for (ssize_t i = 0; i < n; i++)
            held += text[i] == '\n' && (i ? text[i - 1] : last) == ')';
    if (fd >= 0)
        close(fd);
    return held;
}

static uint64_t sum_of(const struct sandbox *s, uint64_t (*measure)(int, const char *))
{
    uint64_t sum = 0;
    if (s->level == SANDBOX_LANDLOCK) {
        static pid_t below[TREE_MAX];
        unsigned n = tree_below(s->proc, s->pid, below, TREE_MAX);
        for (unsigned i = 0; i < n; i++)
            sum += of_pid(s->proc, below[i], measure);
        return sum;
    }
    int fd = openat(s->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            sum += measure(s->proc, e->d_name);
    if (d)
        closedir(d);
    return sum;
}

uint64_t sandbox_written(const struct sandbox *s)
{
    return sum_of(s, written_by);
}

uint64_t sandbox_held(const struct sandbox *s)
{
    return sum_of(s, held_by);
}

enum { DEPTH_MAX = 256 };

/* One level of the walk: an open folder. Descriptors bound the depth; a tree that goes deeper
 * has not been counted whole. */
struct walk {
    DIR *level[DEPTH_MAX];
    unsigned depth;
    dev_t dev;
};

static bool enter(struct walk *w, int at, const char *name)
{
    if (w->depth == DEPTH_MAX)
        return false;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    DIR *d = fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == w->dev ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    w->level[w->depth++] = d;
    return true;
}

bool sandbox_usage(int dir, uint32_t max, uint64_t *bytes, uint64_t *entries)
{
    struct stat st;
    struct walk w = {.depth = 0};
    *bytes = *entries = 0;
    if (fstat(dir, &st) < 0)
        return false;
    w.dev = st.st_dev;
    if (!enter(&w, dir, "."))
        return false;
    bool whole = true;
    while (w.depth > 0) {
        DIR *d = w.level[w.depth - 1];
        struct dirent *e = whole ? readdir(d) : NULL;
        if (!e) {
            closedir(d);
            w.depth--;
            continue;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        *bytes += (uint64_t)st.st_blocks * 512;
        whole = ++*entries < max;
        if (S_ISDIR(st.st_mode) && !enter(&w, dirfd(d), e->d_name))
            whole &= w.depth < DEPTH_MAX;
    }
    return whole;
}
