/*
 * mark.c - how a cell of level landlock is known again when its reaper, the spawner and the
 * daemon were all killed at one moment and nobody is left who had it below him. Each of its
 * processes inherits a hard limit that means nothing here (time of the real-time classes,
 * which are not allowed inside), has the cell's own value, and that the filter lets nobody
 * change.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/io.h"
#include "base/str.h"
#include "sandbox/build.h"
#include "sandbox/sys.h"
#include "sandbox/tree.h"

enum { ROUNDS = 200 };

/* FNV-1a of the name. One high bit is always set and the highest never: no limit that somebody
 * would choose, and not "unlimited". */
static uint64_t mark_of(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return (h & ((1ull << 62) - 1)) | 1ull << 61;
}

void mark_set(const char *name)
{
    struct rlimit l;
    uint64_t mark = mark_of(name);
    if (getrlimit(RLIMIT_RTTIME, &l) < 0)
        return;
    l.rlim_max = mark;
    l.rlim_cur = l.rlim_cur < mark ? l.rlim_cur : mark;
    (void)!setrlimit(RLIMIT_RTTIME, &l); /* a host that has lowered it cannot be marked */
}

struct hunt {
    int proc;
    uint64_t mark;
    unsigned found;
};

static bool marked(const struct hunt *h, pid_t pid)
{
    char path[32], text[4096];
    snprintf(path, sizeof path, "%d/limits", (int)pid);
    int fd = openat(h->proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    io_close(&fd);
    struct str rest = str_of(text, n > 0 ? (size_t)n : 0), line, head = STR("Max realtime timeout");
    while (str_split(&rest, '\n', &line)) {
        struct str word;
        uint64_t hard;
        if (!str_starts(line, head))
            continue;
        line = str_trim(str_sub(line, head.n, line.n));
        (void)str_split(&line, ' ', &word); /* the soft one, which is theirs to lower */
        line = str_trim(line);
        return str_split(&line, ' ', &word) && str_to_u64(word, &hard) && hard == h->mark;
    }
    return false;
}

static void on_process(void *arg, pid_t pid)
{
    struct hunt *h = arg;
    int fd = marked(h, pid) ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd >= 0 && marked(h, pid) && sys_pidfd_signal(fd, SIGKILL) == 0) /* held, then looked at */
        h->found++;
    io_close(&fd);
}

void mark_kill(const char *name)
{
    struct hunt h = {open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), mark_of(name), 0};
    for (unsigned round = 0; h.proc >= 0 && round < ROUNDS; round++) {
        h.found = 0;
        tree_each(h.proc, on_process, &h); /* again, for who was born meanwhile */
        if (h.found == 0)
            break;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    io_close(&h.proc);
}
