/* ahead.c - one child process per call that waits, and the pipe it answers through. */
#include "tools/ahead.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "tools/toolbox_impl.h"

/* One answer on the pipe: this, then the bytes in the order of their lengths. */
struct head {
    int32_t rc, errnum, cut;
    int64_t status;
    uint32_t key, type, redirect, text, body;
    uint32_t zero;
};

struct fetch {
    pid_t pid;
    int fd;       /* -1 = over */
    char *tool;   /* owned */
    json_t *args; /* owned */
};

struct ahead {
    struct fetch fetch[AHEAD_MAX];
    unsigned n;
    struct fetch *now; /* of the call at work */
};

static void end_fetch(struct fetch *f)
{
    io_close(&f->fd);
    if (f->pid > 0) {
        kill(f->pid, SIGKILL);
        while (waitpid(f->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    f->pid = 0;
    mem_free(f->tool);
    json_decref(f->args);
    f->tool = NULL;
    f->args = NULL;
}

void ahead_free(struct ahead *a)
{
    for (unsigned i = 0; a && i < a->n; i++)
        end_fetch(&a->fetch[i]);
    mem_free(a);
}

/* The child holds nothing but its pipe: whoever waits for the end of ours is not kept waiting. */
static NORETURN void become_fetch(struct toolbox *t, const char *tool, const json_t *args,
                                  unsigned hits, int fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    if (fd > 3)
        close_range(3, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0u, 0);
    t->ahead_out = fd;
    browser_fetch(t, tool, args, hits);
    _exit(0);
}

static void start_one(struct toolbox *t, const json_t *call, unsigned hits)
{
    struct ahead *a = t->ahead;
    const char *tool = json_string_value(json_object_get(call, "tool"));
    json_t *args = json_object_get(call, "args");
    int p[2];
    if (!tool || !json_is_object(args) || a->n == AHEAD_MAX || pipe2(p, O_CLOEXEC) < 0)
        return;
    struct fetch *f = &a->fetch[a->n];
    pid_t pid = fork();
    if (pid == 0)
        become_fetch(t, tool, args, hits, p[1]);
    close(p[1]);
    *f = (struct fetch){.pid = pid, .fd = p[0], .tool = mem_strdup(str_c(tool)),
                        .args = json_incref(args)};
    if (pid < 0 || !f->tool)
        end_fetch(f);
    else
        a->n++;
}

void ahead_start(struct toolbox *t, const json_t *list, const struct tool_limits *limits)
{
    size_t i;
    json_t *call;
    ahead_free(t->ahead);
    t->ahead = NULL;
    if (!t->opts.web || t->opts.cassette || !json_array_size(list))
        return;
    t->ahead = mem_zalloc(sizeof *t->ahead);
    json_array_foreach((json_t *)(uintptr_t)list, i, call)
    {
        unsigned hits = t->ahead ? browser_would_fetch(t, call, limits) : 0;
        if (hits)
            start_one(t, call, hits);
    }
}

void ahead_enter(struct toolbox *t, const char *tool, const json_t *args)
{
    struct ahead *a = t->ahead;
    for (unsigned i = 0; a && i < a->n && !a->now; i++)
        if (a->fetch[i].tool && strcmp(a->fetch[i].tool, tool) == 0 &&
            json_equal(a->fetch[i].args, (json_t *)(uintptr_t)args))
            a->now = &a->fetch[i];
}

void ahead_leave(struct toolbox *t)
{
    if (!t->ahead || !t->ahead->now)
        return;
    end_fetch(t->ahead->now);
    t->ahead->now = NULL;
}

void ahead_record(const struct toolbox *t, struct str key, const struct http_reply *r, int rc,
                  const struct err *err)
{
    struct err ignored;
    bool ok = rc == 0;
    struct head h = {
        .rc = rc, .errnum = ok ? 0 : err->code, .cut = ok && r->cut, .status = ok ? r->status : 0,
        .key = (uint32_t)key.n, .type = ok ? (uint32_t)strlen(r->type) : 0,
        .redirect = ok ? (uint32_t)strlen(r->redirect) : 0,
        .text = ok ? 0 : (uint32_t)strlen(err->text), .body = ok ? (uint32_t)r->body.len : 0,
    };
    const struct str part[] = {str_of(&h, sizeof h), key, str_of(r->type, h.type),
                               str_of(r->redirect, h.redirect), str_of(err->text, h.text),
                               str_of(r->body.data, h.body)};
    for (unsigned i = 0; i < ARRAY_LEN(part); i++)
        if (part[i].n && io_write_full(t->ahead_out, part[i].p, part[i].n, &ignored) < 0)
            _exit(1);
}

/* n bytes from the pipe, or what rc says: 0 there, -ERR_CANCELLED, -ERR_NOTFOUND at its end. */
static int read_part(struct fetch *f, int cancel_fd, void *to, size_t n)
{
    char *at = to;
    while (n) {
        struct pollfd p[2] = {{f->fd, POLLIN, 0}, {cancel_fd, POLLIN, 0}};
        if (poll(p, cancel_fd >= 0 ? 2 : 1, -1) < 0 && errno != EINTR)
            return -ERR_NOTFOUND;
        if (p[1].revents)
            return -ERR_CANCELLED;
        if (!p[0].revents)
            continue;
        ssize_t got = read(f->fd, at, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -ERR_NOTFOUND;
        at += got;
        n -= (size_t)got;
    }
    return 0;
}

static int read_text(struct fetch *f, int cancel_fd, uint32_t n, uint32_t room, struct buf *out)
{
    char chunk[16384];
    if (n > room)
        return -ERR_NOTFOUND;
    buf_reset(out);
    while (n) {
        size_t some = n < sizeof chunk ? n : sizeof chunk;
        int rc = read_part(f, cancel_fd, chunk, some);
        if (rc < 0)
            return rc;
        buf_add(out, chunk, some);
        n -= (uint32_t)some;
    }
    return 0;
}

/* The next answer; *mine when it is the one wanted. */
static int next_answer(struct fetch *f, struct str key, int cancel_fd, struct http_reply *r,
                       bool *mine, int *rc, struct err *err)
{
    struct head h;
    struct buf text;
    int got = read_part(f, cancel_fd, &h, sizeof h);
    if (got < 0)
        return got;
    buf_init(&text, 1 << 18);
    got = read_text(f, cancel_fd, h.key, 1 << 18, &text);
    *mine = got == 0 && str_eq(buf_view(&text), key);
    *r = (struct http_reply){.status = (long)h.status, .cut = h.cut != 0};
    buf_init(&r->body, 0);
    if (got == 0)
        got = read_text(f, cancel_fd, h.type, sizeof r->type - 1, &text);
    if (got == 0)
        memcpy(r->type, buf_cstr(&text), text.len + 1);
    if (got == 0)
        got = read_text(f, cancel_fd, h.redirect, sizeof r->redirect - 1, &text);
    if (got == 0)
        memcpy(r->redirect, buf_cstr(&text), text.len + 1);
    if (got == 0)
        got = read_text(f, cancel_fd, h.text, 4096, &text);
    if (got == 0 && h.rc < 0)
        *rc = err_set(err, (enum err_code)h.errnum, "%s", buf_cstr(&text));
    else
        *rc = 0;
    if (got == 0)
        got = read_text(f, cancel_fd, h.body, LIMIT_PAGE_BYTES, &r->body);
    buf_done(&text);
    if (got < 0 || !*mine || *rc < 0)
        http_reply_done(r);
    return got;
}

bool ahead_take(struct toolbox *t, struct str key, int cancel_fd, struct http_reply *r, int *rc,
                struct err *err)
{
    struct fetch *f = t->ahead ? t->ahead->now : NULL;
    bool mine = false;
    while (f && f->fd >= 0) {
        int got = next_answer(f, key, cancel_fd, r, &mine, rc, err);
        if (got == -ERR_CANCELLED) {
            *rc = err_set(err, ERR_CANCELLED, "cancelled");
            return true;
        }
        if (got < 0)
            io_close(&f->fd);
        else if (mine)
            return true;
    }
    return false;
}
