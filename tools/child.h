/*
 * child.h - programs that a tool starts: each leads a process group of its own, is watched
 * through a pidfd, and is killed with its group. Output is drained always, kept in flat
 * memory, and spilled to a file once it is longer than what is kept.
 */
#ifndef TOOLS_CHILD_H
#define TOOLS_CHILD_H

#include <sys/types.h>

#include "tools/envelope.h"
#include "tools/toolbox.h"

enum { CHILD_CONTROL_FD = 100 }; /* where a program finds its control descriptor */

struct child {
    pid_t pid;
    int pidfd;
    int out[2]; /* our ends of stdout and stderr; out[1] is -1 when merged into out[0] */
    int in;     /* our end of stdin, or -1 for /dev/null */
    bool exited;
    int code; /* exit status, or 128 + signal */
    int signal;
};

struct child_spec {
    const char *const *argv;
    const char *const *env; /* added to or replacing what we have; NULL-terminated or NULL */
    const char *cwd;
    int control;    /* becomes descriptor 100; -1 = none */
    int apart;      /* from child_apart(); 0 or -1 = none */
    bool merge;     /* stderr goes where stdout goes */
    bool pipe_in;
};

/*
 * A Landlock ruleset that forbids next to nothing: programs that enter it one by one are in
 * domains of their own, and the kernel lets none read or write the memory of another, though
 * all have one user id. Descriptor, or -1 where the kernel has no Landlock.
 */
int child_apart(void);

NODISCARD int child_start(struct child *c, const struct child_spec *spec, struct err *err);
/* Looks whether it has exited and reaps it; true when it has. */
bool child_reap(struct child *c);
void child_kill(struct child *c, int signo); /* the whole group */
void child_done(struct child *c);            /* kills what is left, reaps, closes */

/* Output of a child as it is kept. */
struct capture {
    struct keep keep;
    struct toolbox *box; /* where spills go; NULL = no spill */
    int spill_fd;
    int64_t spill; /* id, or -1 */
    uint64_t spilled;
    bool ends_line; /* the last byte was a newline, or there was none */
    toolbox_output on_output;
    void *arg;
    int stream;
    uint64_t shown; /* bytes passed to on_output */
};
NODISCARD int capture_init(struct capture *c, struct toolbox *box,
                           const struct tool_limits *limits, struct err *err);
void capture_done(struct capture *c);
void capture_feed(struct capture *c, const void *p, size_t n);
/* Reads what is there, at most `max` bytes; false at end of file. */
bool capture_drain(struct capture *c, int fd, size_t max);
/* Appends the kept text and, when some was cut, the line that says so. */
void capture_text(struct capture *c, struct buf *out, uint64_t *cut);

/*
 * Outside a cell nothing else ends processes that left their group: kills every descendant
 * that is not one of `keep`. Orphans must come back to us (PR_SET_CHILD_SUBREAPER).
 */
void child_kill_strays(const pid_t *keep, unsigned n);

#endif
