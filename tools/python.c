/*
 * python.c - python: one interpreter kept between calls, told what to run over a socket.
 *
 * States: none -> (start) idle -> (call) busy -> idle; busy -> (limit) interrupted -> idle,
 * or killed -> none. Whatever the driver says is checked: an answer without the nonce of
 * its request, or anything out of form, ends the interpreter.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/child.h"
#include "tools/interp.h"
#include "tools/toolbox_impl.h"

#define NS 1000000000LL
enum { START_S = 20, GRACE_S = 1, REPLY_MAX = 4 << 20 };

struct interp {
    struct child child;
    int sock;
    bool had_threads; /* code left threads of Python's own behind, once */
    struct buf in; /* bytes of a reply */
    size_t used;   /* of these, what the last reply took */
};

/* The driver's own frames are named <driver>, so that it can leave them out of tracebacks. */
static const char *const driver_argv[] = {
    "python3", "-I", "-S", "-X", "utf8", "-c",
    "exec(compile(__import__('sys').argv[1], '<driver>', 'exec'), "
    "{'__builtins__': dict(vars(__import__('builtins')))})", interp_driver, NULL};
static const char *const driver_env[] = {"MPLBACKEND=Agg", NULL};

void interp_free(struct interp *p)
{
    if (!p)
        return;
    child_done(&p->child);
    io_close(&p->sock);
    buf_done(&p->in);
    mem_free(p);
}

pid_t interp_pid(const struct interp *p)
{
    return p->child.pid;
}

static int64_t left_ms(int64_t deadline)
{
    int64_t ns = deadline - io_mono_ns();
    return ns <= 0 ? 0 : ns / 1000000 < 60000 ? ns / 1000000 + 1 : 60000;
}

/* What the driver said about one request; views into interp.in until the next read. */
struct reply {
    char nonce[40];
    bool asks;       /* not an answer: part[0] names a tool that the code calls */
    int64_t threads; /* of Python's own that go on */
    bool has[4];
    struct str part[4]; /* value, error, trace, figures */
};
enum { VALUE, ERROR, TRACE, FIGURES };

/*
 * "NONCE THREADS L L L L", or "NONCE ? L" for a question: 0, or -ERR_PARSE. *total is the
 * number of bytes that follow.
 */
static int read_header(struct str line, struct reply *r, int64_t len[4], size_t *total,
                       struct err *err)
{
    struct str piece;
    if (!str_split(&line, ' ', &piece) || piece.n >= sizeof r->nonce)
        return err_set(err, ERR_PARSE, "the interpreter's answer has no nonce");
    snprintf(r->nonce, sizeof r->nonce, "%.*s", STR_ARG(piece));
    bool there = str_split(&line, ' ', &piece);
    r->asks = there && str_is(piece, "?");
    if (!r->asks && (!there || !str_to_i64(piece, &r->threads)))
        return err_set(err, ERR_PARSE, "the interpreter's answer has no count of threads");
    *total = 0;
    for (unsigned i = 0; i < 4; i++) {
        len[i] = -1;
        if (r->asks && i)
            continue;
        if (!str_split(&line, ' ', &piece) || !str_to_i64(piece, &len[i]) || len[i] < -1 ||
            len[i] > REPLY_MAX)
            return err_set(err, ERR_PARSE, "the interpreter's answer has no length");
        *total += len[i] > 0 ? (size_t)len[i] : 0;
    }
    return line.n ? err_set(err, ERR_PARSE, "the interpreter's answer is too long") : 0;
}

/* 1 and *r when an answer is there, 0 when it is not yet complete, -ERR_*. */
static int take_reply(struct interp *p, struct reply *r, struct err *err)
{
    char chunk[16384];
    for (;;) {
        size_t nl = str_find(str_sub(buf_view(&p->in), 0, 200), STR("\n"), 0);
        int64_t len[4];
        size_t total = 0;
        if (nl != STR_NONE) {
            int rc = read_header(str_sub(buf_view(&p->in), 0, nl), r, len, &total, err);
            if (rc < 0)
                return rc;
            if (p->in.len - nl - 1 >= total) {
                size_t at = nl + 1;
                for (unsigned i = 0; i < 4; i++) {
                    r->has[i] = len[i] >= 0;
                    r->part[i] = str_sub(buf_view(&p->in), at, len[i] > 0 ? (size_t)len[i] : 0);
                    at += r->part[i].n;
                }
                p->used = at;
                return 1;
            }
        } else if (p->in.len >= 200) {
            return err_set(err, ERR_PARSE, "the interpreter's answer has no header");
        }
        ssize_t n = recv(p->sock, chunk, sizeof chunk, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return err_set(err, ERR_STATE, "the interpreter closed its socket");
        buf_add(&p->in, chunk, (size_t)n);
        if (p->in.failed)
            return err_set(err, ERR_LIMIT, "the interpreter's answer is too long");
    }
}

static int start_driver(struct interp *p, const struct toolbox *t, struct err *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "socketpair");
    const struct child_spec spec = {
        .argv = driver_argv, .env = driver_env, .cwd = t->fs.path, .control = pair[1],
        .apart = t->apart};
    int rc = child_start(&p->child, &spec, err);
    close(pair[1]);
    p->sock = pair[0];
    return rc;
}

/* Starts an interpreter and waits until it listens. */
static int interp_new(struct interp **out, struct toolbox *t, struct err *err)
{
    struct interp *p = mem_zalloc(sizeof *p);
    struct reply ready;
    if (!p)
        return err_nomem(err);
    p->sock = -1;
    p->child.pidfd = -1;
    buf_init(&p->in, REPLY_MAX);
    int rc = start_driver(p, t, err);
    int64_t deadline = io_mono_ns() + START_S * NS;
    while (rc == 0 && (rc = take_reply(p, &ready, err)) == 0) {
        struct pollfd fd = {p->sock, POLLIN, 0};
        if (left_ms(deadline) == 0)
            rc = err_set(err, ERR_TIMEOUT, "the interpreter did not start in %d s", START_S);
        else
            poll(&fd, 1, (int)left_ms(deadline));
    }
    buf_reset(&p->in);
    if (rc < 0) {
        child_reap(&p->child);
        if (p->child.exited && p->child.code == 127)
            rc = err_set(err, ERR_UNSUPPORTED, "there is no python3 here");
        interp_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

/* What a thread waits in: the number of the call and its first argument; false when it runs. */
static bool waits_in(pid_t pid, const char *tid, long *call, unsigned long *fd)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/task/%.12s/syscall", (int)pid, tid);
    int f = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = f < 0 ? -1 : read(f, text, sizeof text - 1);
    io_close(&f);
    if (n <= 0)
        return false;
    text[n] = '\0';
    return sscanf(text, "%ld 0x%lx", call, fd) == 2;
}

/* Whether a descriptor of the interpreter is its end of our socket. */
static bool is_control(pid_t pid, unsigned long fd)
{
    char path[64], name[2][64] = {{0}};
    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%lu", (int)pid, i ? fd : CHILD_CONTROL_FD);
        if (readlink(path, name[i], sizeof name[i] - 1) <= 0)
            return false;
    }
    return strcmp(name[0], name[1]) == 0;
}

/* One look at all threads but the main one: whether one reads the control socket. */
static bool reads_control(pid_t pid)
{
    static const long reads[] = {SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg,
                                 SYS_pread64, SYS_preadv};
    char path[32], self[12];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    snprintf(self, sizeof self, "%d", (int)pid);
    DIR *d = opendir(path);
    bool hit = false;
    for (struct dirent *e; d && !hit && (e = readdir(d));) {
        long call;
        unsigned long fd;
        if (e->d_name[0] == '.' || strcmp(e->d_name, self) == 0 ||
            !waits_in(pid, e->d_name, &call, &fd))
            continue;
        for (unsigned i = 0; i < ARRAY_LEN(reads) && !hit; i++)
            hit = call == reads[i] && is_control(pid, fd);
    }
    if (d)
        closedir(d);
    return hit;
}

/*
 * A thread that code left behind and that waits for our next request could take it, with its
 * nonce, and answer in the driver's place. Only the main thread reads there; where another one
 * is seen to, the interpreter is no longer to be believed. Where threads of Python's own were
 * left, they are watched for longer than they need to come by the interpreter's lock.
 */
static bool overheard(const struct interp *p)
{
    enum { LOOKS = 20, PAUSE_NS = 1000000 };
    bool hit = reads_control(p->child.pid);
    for (unsigned i = 0; p->had_threads && !hit && i < LOOKS; i++) {
        nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
        hit = reads_control(p->child.pid);
    }
    return hit;
}

/* What earlier code left going, as a call begins. */
enum { OTHERS_MAX = 64 };
struct others {
    struct {
        char tid[12];
        uint64_t wrote;
    } at[OTHERS_MAX];
    unsigned n;
    bool more, timers;
};

static ssize_t read_proc(pid_t pid, const char *tid, const char *file, char *text, size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%.11s/%s", (int)pid, tid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, cap - 1);
    io_close(&fd);
    text[n > 0 ? n : 0] = '\0';
    return n;
}

/* Bytes that a thread has written; false when it is gone. */
static bool wrote(pid_t pid, const char *tid, uint64_t *bytes)
{
    char text[256];
    if (read_proc(pid, tid, "io", text, sizeof text) <= 0)
        return false;
    struct str rest = str_c(text), line;
    while (str_split(&rest, '\n', &line))
        if (str_starts(line, STR("wchar: ")))
            return str_to_u64(str_sub(line, 7, line.n), bytes);
    return false;
}

static void look_at_others(pid_t pid, struct others *o)
{
    char path[64], self[12], byte[2];
    *o = (struct others){.n = 0};
    snprintf(self, sizeof self, "%d", (int)pid);
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.' || strcmp(e->d_name, self) == 0)
            continue;
        o->more = o->n == OTHERS_MAX;
        if (o->more)
            break;
        snprintf(o->at[o->n].tid, sizeof o->at[0].tid, "%.11s", e->d_name);
        (void)wrote(pid, o->at[o->n].tid, &o->at[o->n].wrote);
        o->n++;
    }
    if (d)
        closedir(d);
    snprintf(path, sizeof path, "/proc/%d/timers", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC); /* the driver takes back all but the kernel's own */
    o->timers = fd >= 0 && read(fd, byte, 1) == 1;
    io_close(&fd);
}

/* Whether one of these threads has written meanwhile, or may have before it ended. */
static bool others_wrote(pid_t pid, const struct others *o)
{
    uint64_t now;
    for (unsigned i = 0; i < o->n; i++)
        if (!wrote(pid, o->at[i].tid, &now) || now > o->at[i].wrote)
            return true;
    return o->more;
}

enum outcome { ANSWERED, TIMED_OUT, CANCELLED, DIED, BROKEN };

/* One call under way. */
struct call {
    struct interp *p;
    struct capture cap[2];
    bool open[2];
    char nonce[40];
    struct reply reply;
    int cancel_fd;
    struct toolbox *box;
    const struct toolbox_request *r;
    unsigned asked;
    struct others others;
    bool mixed; /* with what earlier code did meanwhile */
};

static int make_nonce(char out[40], struct err *err)
{
    uint8_t b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return err_sys(err, "getrandom");
    for (unsigned i = 0; i < sizeof b; i++)
        snprintf(out + 2 * i, 3, "%02x", b[i]);
    return 0;
}

static void drain(struct call *c)
{
    for (unsigned i = 0; i < 2; i++)
        if (c->open[i])
            c->open[i] = capture_drain(&c->cap[i], c->p->child.out[i], 1 << 24);
}

/* "HEAD LENGTH" and the text. The driver reads it at once, so this cannot stall. */
static int send_text(struct call *c, const char *head, struct str text, struct err *err)
{
    struct buf b;
    buf_init(&b, 0);
    buf_printf(&b, "%s %zu\n", head, text.n);
    buf_str(&b, text);
    int rc = buf_check(&b, "code", err);
    for (size_t put = 0; rc == 0 && put < b.len;) {
        ssize_t w = send(c->p->sock, b.data + put, b.len - put, MSG_NOSIGNAL);
        if (w < 0 && errno != EINTR)
            rc = err_set(err, ERR_STATE, "the interpreter closed its socket");
        else if (w > 0)
            put += (size_t)w;
    }
    buf_done(&b);
    return rc;
}

/* "NONCE ! STATUS LENGTH" and the text: what a question's sender waits for. */
static int send_answer(struct call *c, enum tool_status status, struct str text, struct err *err)
{
    char head[80];
    snprintf(head, sizeof head, "%s ! %s", c->nonce, tool_status_name(status));
    return send_text(c, head, text, err);
}

/* A tool of this box, allowed by whoever was asked. */
static void run_nested(struct call *c, const json_t *o, int64_t deadline, struct answer *a)
{
    char tool[40];
    struct toolbox_request r = *c->r;
    snprintf(tool, sizeof tool, "%s", json_string_value(json_object_get(o, "run")));
    r.tool = tool;
    r.args = json_object_get(o, "args");
    r.timeout_s = r.hard_s = (uint32_t)((left_ms(deadline) + 999) / 1000);
    r.on_output = NULL;
    r.jobs = false;
    int64_t began = io_mono_ns();
    toolbox_call(c->box, &r, a);
    if (c->r->tell) /* whoever allowed it wants to know what came of it */
        c->r->tell(c->r->arg, json_pack("{s:I, s:s, s:I}", "ran",
                                        json_integer_value(json_object_get(o, "answer")), "status",
                                        tool_status_name(a->status), "us",
                                        (json_int_t)((io_mono_ns() - began) / 1000)));
}

/* The code calls another tool: its name and arguments go up, its result comes back. 0, or
 * -ERR_TIMEOUT or -ERR_CANCELLED when the whole call is to end. */
static int answer_question(struct call *c, int64_t deadline, struct err *err)
{
    enum { ASKED_MAX = 1000 };
    json_t *question = NULL, *o = NULL;
    struct answer a;
    int rc = json_read(&question, c->reply.part[0], err);
    buf_consume(&c->p->in, c->p->used);
    if (rc < 0 || !json_is_object(question)) {
        json_decref(question);
        return err_set(err, ERR_PARSE, "the interpreter's question is not understood");
    }
    answer_init(&a);
    json_object_set_new(question, "ask", json_string("tool"));
    if (!c->r->ask || ++c->asked > ASKED_MAX) {
        json_decref(question);
        answer_fail(&a, TOOL_UNAVAILABLE, c->r->ask ? "one piece of code may call at most %d tools"
                    : "tools can be called only in a session of the daemon", ASKED_MAX);
    } else {
        rc = c->r->ask(c->r->arg, question, deadline, &o, err);
        if (rc < 0)
            answer_fail(&a, TOOL_CANCELLED, "%s", err->text);
        else if (json_is_string(json_object_get(o, "run")))
            run_nested(c, o, deadline, &a);
        else
            buf_str(&a.text, json_view(json_object_get(o, "text")));
    }
    enum tool_status status = json_is_true(json_object_get(o, "is_error")) ? TOOL_FAILED : a.status;
    struct err ignored = {0};
    if (send_answer(c, status, buf_view(&a.text), rc < 0 ? &ignored : err) < 0 && rc == 0)
        rc = -ERR_STATE;
    answer_done(&a);
    json_decref(o);
    return rc;
}

static enum outcome await(struct call *c, int64_t deadline, struct err *err)
{
    struct interp *p = c->p;
    for (;;) {
        drain(c);
        int rc = take_reply(p, &c->reply, err);
        if (rc == 1 && c->reply.asks && strcmp(c->reply.nonce, c->nonce) == 0) {
            rc = answer_question(c, deadline, err);
            c->reply = (struct reply){0};
            if (rc == -ERR_TIMEOUT || rc == -ERR_CANCELLED)
                return rc == -ERR_TIMEOUT ? TIMED_OUT : CANCELLED;
            if (rc == 0)
                continue;
        }
        if (rc == 1) {
            if (strcmp(c->reply.nonce, c->nonce) != 0 || p->used != p->in.len) {
                c->reply = (struct reply){0}; /* nobody's word */
                return BROKEN;
            }
            drain(c);
            p->had_threads |= c->reply.threads > 0;
            if (overheard(p)) { /* whose word it was, nobody knows */
                c->reply = (struct reply){0};
                return BROKEN;
            }
            return ANSWERED;
        }
        if (rc < 0)
            return err->code == ERR_STATE ? DIED : BROKEN;
        if (left_ms(deadline) == 0)
            return TIMED_OUT;
        struct pollfd fd[] = {{p->sock, POLLIN, 0},
                              {c->open[0] ? p->child.out[0] : -1, POLLIN, 0},
                              {c->open[1] ? p->child.out[1] : -1, POLLIN, 0},
                              {c->cancel_fd, POLLIN, 0}};
        poll(fd, ARRAY_LEN(fd), (int)left_ms(deadline));
        if (fd[3].revents)
            return CANCELLED;
    }
}

/* Output that came between calls, from threads or children of earlier code. */
static void late_output(struct call *c)
{
    drain(c);
    static const char late[] = "\n[above: late output of earlier code]\n";
    bool any = c->cap[0].keep.total || c->cap[1].keep.total;
    if (any)
        capture_feed(&c->cap[0], late, sizeof late - 1);
}

static void add_figures(struct answer *a, struct str paths)
{
    struct str path;
    for (unsigned i = 0; i < 32 && paths.n && str_split(&paths, '\n', &path); i++) {
        envelope_newline(&a->text);
        buf_puts(&a->text, "figure: ");
        envelope_clean(&a->text, str_sub(path, 0, 200));
    }
}

/* Output, value, stderr, figures, traceback: in this order. */
static void assemble(struct call *c, struct answer *a)
{
    uint64_t cut[2];
    struct str value = c->reply.part[VALUE], trace = c->reply.part[TRACE];
    bool heading = c->cap[1].keep.total > 0; /* a traceback alone needs none */
    if (c->reply.has[VALUE]) {
        if (!c->cap[0].ends_line)
            capture_feed(&c->cap[0], "\n", 1);
        capture_feed(&c->cap[0], value.p, value.n);
    }
    if (trace.n) {
        if (!c->cap[1].ends_line)
            capture_feed(&c->cap[1], "\n", 1);
        capture_feed(&c->cap[1], trace.p, trace.n);
    }
    capture_text(&c->cap[0], &a->text, &cut[0]);
    if (c->cap[1].keep.total) {
        envelope_newline(&a->text);
        if (heading)
            buf_puts(&a->text, "[stderr]\n");
        capture_text(&c->cap[1], &a->text, &cut[1]);
        a->cut_bytes = cut[1];
    }
    a->cut_bytes += cut[0];
    a->output_bytes = c->cap[0].keep.total + c->cap[1].keep.total;
    a->spill = c->cap[0].spill >= 0 ? c->cap[0].spill : c->cap[1].spill;
    if (c->reply.threads > 0) {
        envelope_newline(&a->text);
        buf_printf(&a->text, "[threads that this or earlier code started go on: %lld; what they "
                   "print is mixed into what later code prints]\n", (long long)c->reply.threads);
    } else if (c->mixed) {
        envelope_newline(&a->text);
        buf_puts(&a->text, "[earlier code went on meanwhile, by a thread or a timer; what it "
                           "printed or raised is mixed into the above]\n");
    }
    add_figures(a, c->reply.part[FIGURES]);
}

static void say_how(struct toolbox *t, struct call *c, enum outcome how, bool kept,
                    uint32_t limit_s, struct answer *a)
{
    struct str error = c->reply.part[ERROR];
    const char *lost = kept ? "interrupted, variables are kept"
                            : "interpreter killed, variables are lost";
    if (how == TIMED_OUT) {
        a->status = TOOL_TIMED_OUT;
        envelope_status(&a->text, "timed out after %u s: %s", limit_s, lost);
    } else if (how == CANCELLED) {
        a->status = TOOL_CANCELLED;
        envelope_status(&a->text, "cancelled: %s", lost);
    } else if (how == ANSWERED && error.n == 0) {
        envelope_status(&a->text, "ok");
    } else if (how == ANSWERED) {
        a->status = TOOL_FAILED;
        envelope_status(&a->text, "error: %.*s",
                        STR_ARG(str_sub(error, 0, utf8_complete(str_sub(error, 0, 100)))));
    } else {
        a->status = TOOL_FAILED;
        if (how == DIED && t->interp->child.code >= 0)
            envelope_status(&a->text, "the interpreter ended with exit code %d, variables are "
                            "lost", t->interp->child.code);
        else
            envelope_status(&a->text, "the interpreter broke its protocol and was ended, "
                            "variables are lost");
    }
    a->state_lost = !kept;
    if (!kept) {
        interp_free(t->interp);
        t->interp = NULL;
    }
}

static void run_call(struct toolbox *t, struct call *c, const struct toolbox_request *r,
                     uint32_t limit_s, struct answer *a)
{
    struct err err = {0};
    bool kept = true;
    late_output(c);
    look_at_others(c->p->child.pid, &c->others);
    enum outcome how = DIED;
    c->box = t;
    c->r = r;
    buf_reset(&c->p->in);
    if (send_text(c, c->nonce, json_view(json_object_get(r->args, "code")), &err) == 0)
        how = await(c, io_mono_ns() + limit_s * NS, &err);
    if (how == TIMED_OUT || how == CANCELLED) {
        kill(c->p->child.pid, SIGINT);
        c->cancel_fd = -1;
        kept = await(c, io_mono_ns() + GRACE_S * NS, &err) == ANSWERED;
    } else if (how != ANSWERED) {
        kept = false;
    }
    if (!kept) {
        /* Dead or to be dead; its exit status tells which. */
        struct pollfd fd = {c->p->child.pidfd, POLLIN, 0};
        if (how == DIED)
            poll(&fd, 1, 200);
        child_reap(&c->p->child);
        child_kill(&c->p->child, SIGKILL);
        drain(c);
    }
    if (t->opts.strays && kept)
        toolbox_kill_strays(t);
    bool said = c->cap[0].keep.total + c->cap[1].keep.total > 0;
    c->mixed = kept && (c->others.timers ||
                        (said && others_wrote(c->p->child.pid, &c->others)));
    assemble(c, a);
    say_how(t, c, how, kept, limit_s, a);
}

void tool_python(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    const json_t *asked = json_object_get(r->args, "timeout_s");
    uint32_t limit_s = r->timeout_s ? r->timeout_s : r->limits->timeout_s;
    uint32_t most = r->hard_s ? r->hard_s : limit_s;
    struct call c = {.cancel_fd = r->cancel_fd, .open = {true, true}};
    struct err err = {0};
    if (json_is_integer(asked) && json_integer_value(asked) > 0)
        limit_s = json_integer_value(asked) < most ? (uint32_t)json_integer_value(asked) : most;
    if (json_is_true(json_object_get(r->args, "reset"))) {
        interp_free(t->interp);
        t->interp = NULL;
    }
    bool lost = t->interp && reads_control(t->interp->child.pid);
    if (lost) {
        interp_free(t->interp);
        t->interp = NULL;
    }
    int rc = t->interp ? 0 : interp_new(&t->interp, t, &err);
    c.cap[0].spill_fd = c.cap[1].spill_fd = -1;
    if (rc == 0)
        rc = make_nonce(c.nonce, &err);
    if (rc == 0)
        rc = capture_init(&c.cap[0], t, r->limits, &err);
    if (rc == 0)
        rc = capture_init(&c.cap[1], t, r->limits, &err);
    if (rc < 0) {
        answer_fail(a, TOOL_UNAVAILABLE, "python cannot run: %s", err.text);
    } else {
        c.p = t->interp;
        for (int i = 0; i < 2; i++) {
            c.cap[i].stream = i + 1;
            c.cap[i].on_output = r->on_output;
            c.cap[i].arg = r->arg;
        }
        if (lost)
            buf_puts(&a->text, "[the interpreter was started anew, variables are lost: threads of "
                               "earlier code read what is sent to it]\n");
        run_call(t, &c, r, limit_s, a);
        a->state_lost |= lost;
    }
    capture_done(&c.cap[0]);
    capture_done(&c.cap[1]);
}
