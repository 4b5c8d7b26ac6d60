/*
 * shell.c - bash and job.
 *
 * Each command is a bash of its own. What a user expects to survive (variables, functions,
 * aliases, options, umask, working directory) is written down by the shell when it ends and
 * read by the next one, so a shell that was killed, exec'ed away or became a job costs
 * nothing but its own changes. The script goes in and the state comes out through one
 * memory file at descriptor 100, which the user's command itself does not inherit.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/child.h"
#include "tools/toolbox_impl.h"

#define NS 1000000000LL
enum { DRAIN_MS = 50, JOB_WAIT_MAX_S = 600 };

struct job {
    int id; /* 0 = free */
    struct child child;
    struct capture cap;   /* since last read */
    int script;           /* memory file with the script, then the state */
    int64_t started_ns, ended_ns;
    bool done, told;
    char title[80];
};

struct shell {
    struct buf state; /* what the next shell reads first */
    struct buf options; /* what it reads last: `set -o` lines */
    struct job current; /* the command of the call under way */
    struct job job[LIMIT_JOBS];
    int next_id;
};

/* Reads the memory file and marks that, runs the command without it, writes the state on every
 * way out. */
static const char *const shell_argv[] = {
    "bash", "--norc", "--noprofile", "-c",
    ". /dev/fd/100; builtin printf '#begun\\n' >|/dev/fd/100; "
    "eval \"$__agentd_command\" 100>&-; { __agentd_save $?; } 2>/dev/null", NULL};

/* Past functions of the user's with the same names, and past noclobber. */
static const char prologue[] =
    "__agentd_save() {\n"
    "  builtin trap - EXIT\n"
    "  { builtin declare -p; builtin declare -f; builtin declare -Fx; builtin alias -p;\n"
    "    builtin umask -p; builtin printf 'builtin cd -- %q\\n#end\\n' \"$PWD\";\n"
    "  } >|/dev/fd/100 2>/dev/null\n"
    "  builtin exit $1\n"
    "}\n"
    "trap '{ __agentd_save $?; } 2>/dev/null' EXIT\n";

static struct shell *shell_of(struct toolbox *t)
{
    if (!t->shell) {
        t->shell = mem_zalloc(sizeof *t->shell);
        if (t->shell) {
            buf_init(&t->shell->state, LIMIT_SHELL_STATE);
            buf_init(&t->shell->options, 1024);
            t->shell->next_id = 1;
        }
    }
    return t->shell;
}

static void job_done(struct job *j)
{
    child_done(&j->child);
    capture_done(&j->cap);
    io_close(&j->script);
    *j = (struct job){.script = -1};
}

void shell_free(struct shell *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < LIMIT_JOBS; i++)
        if (s->job[i].id)
            job_done(&s->job[i]);
    buf_done(&s->state);
    buf_done(&s->options);
    mem_free(s);
}

unsigned shell_pids(const struct shell *s, pid_t *pid)
{
    unsigned n = 0;
    for (unsigned i = 0; s && i < LIMIT_JOBS; i++)
        if (s->job[i].id && !s->job[i].done)
            pid[n++] = s->job[i].child.pid;
    return n;
}

unsigned shell_jobs(const struct shell *s)
{
    unsigned n = 0;
    for (unsigned i = 0; s && i < LIMIT_JOBS; i++)
        n += s->job[i].id != 0 && !s->job[i].done;
    return n;
}

static void single_quoted(struct buf *out, struct str s)
{
    buf_putc(out, '\'');
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\'')
            buf_puts(out, "'\\''");
        else
            buf_putc(out, s.p[i]);
    buf_putc(out, '\'');
}

/* The memory file: our functions, the command as one quoted word, the state. In this order, and
 * the state as one compound, because what is read after it is read with the user's aliases. */
static int make_script(const struct shell *s, struct str command, int *fd, struct err *err)
{
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, prologue);
    buf_puts(&b, "__agentd_command=");
    single_quoted(&b, command);
    buf_puts(&b, "\n{ :\n");
    buf_str(&b, buf_view(&s->state));
    buf_str(&b, buf_view(&s->options));
    buf_puts(&b, "} 2>/dev/null\n");
    int rc = buf_check(&b, "command", err);
    *fd = rc == 0 ? memfd_create("command", MFD_CLOEXEC) : -1;
    if (rc == 0 && *fd < 0)
        rc = err_sys(err, "memfd_create");
    if (rc == 0)
        rc = io_write_full(*fd, b.data, b.len, err);
    buf_done(&b);
    return rc;
}

/* Names that belong to one shell process, not to the session. */
static bool is_passing(struct str line)
{
    static const char *const names[] = {
        "BASH",     "BASHOPTS", "SHELLOPTS", "PPID",   "UID",        "EUID",
        "_",        "FUNCNAME", "DIRSTACK",  "GROUPS", "PIPESTATUS", "RANDOM",
        "SRANDOM",  "SECONDS",  "LINENO",    "OPTERR", "OPTIND",     "SHLVL",
        "HOSTNAME", "HOSTTYPE", "MACHTYPE",  "OSTYPE", "PS4",        "EPOCHSECONDS",
        "EPOCHREALTIME", "COMP_WORDBREAKS"};
    if (!str_starts(line, STR("declare -")))
        return false;
    size_t at = str_find(line, STR(" "), 9);
    if (at == STR_NONE)
        return false;
    struct str name = str_sub(line, at + 1, line.n);
    size_t eq = str_find(name, STR("="), 0);
    name = str_sub(name, 0, eq == STR_NONE ? name.n : eq);
    if (str_starts(name, STR("BASH_")) || str_starts(name, STR("__agentd_")))
        return true;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (str_is(name, names[i]))
            return true;
    return false;
}

/*
 * `shopt -p` would print every option on a line of its own, each a system call. The variable
 * BASHOPTS lists those that are on; what differs from a fresh shell is set again.
 */
static void restore_options(struct str line, struct buf *out)
{
    static const char *const usual[] = {
        "checkwinsize", "cmdhist", "complete_fullquote", "extquote", "force_fignore",
        "globasciiranges", "globskipdots", "hostcomplete", "interactive_comments",
        "patsub_replacement", "progcomp", "promptvars", "sourcepath"};
    bool on[ARRAY_LEN(usual)] = {false};
    size_t quote = str_find(line, STR("\""), 0);
    struct str rest = str_sub(line, quote == STR_NONE ? line.n : quote + 1, line.n), name;
    while (rest.n && str_split(&rest, ':', &name)) {
        if (str_ends(name, STR("\"")))
            name.n--;
        bool known = false;
        for (unsigned i = 0; i < ARRAY_LEN(usual); i++)
            if (str_is(name, usual[i]))
                known = on[i] = true;
        if (!known && name.n)
            buf_printf(out, "shopt -s %.*s\n", STR_ARG(name));
    }
    for (unsigned i = 0; i < ARRAY_LEN(usual); i++)
        if (!on[i])
            buf_printf(out, "shopt -u %s\n", usual[i]);
}

/*
 * Of the options of `set`, those that change how later commands are read or judged. Not
 * errexit: each command has a shell of its own, which it would end for another's sake.
 */
static void restore_set(struct str line, struct buf *out)
{
    static const char *const kept[] = {"noclobber", "noglob", "nounset", "pipefail"};
    size_t quote = str_find(line, STR("\""), 0);
    struct str rest = str_sub(line, quote == STR_NONE ? line.n : quote + 1, line.n), name;
    while (rest.n && str_split(&rest, ':', &name)) {
        if (str_ends(name, STR("\"")))
            name.n--;
        for (unsigned i = 0; i < ARRAY_LEN(kept); i++)
            if (str_is(name, kept[i]))
                buf_printf(out, "set -o %s\n", kept[i]);
    }
}

/* The first line of a function that would come between us and the next command. */
static bool is_in_the_way(struct str line)
{
    static const char *const heads[] = {
        "eval () ",  "trap () ", "exit () ",  "builtin () ", "declare () ", "set () ",
        "shopt () ", ". () ",    "alias () ", "umask () ",   ": () "};
    if (str_starts(line, STR("__agentd_")) && str_ends(line, STR(" () ")))
        return true;
    for (unsigned i = 0; i < ARRAY_LEN(heads); i++)
        if (str_is(line, heads[i]))
            return true;
    return false;
}

/*
 * Takes the state that an ended shell left. Without the end mark (killed, exec'ed away) the
 * state before the command stays. Lines of bash's own variables are dropped where they stand
 * alone; all others are kept as they are.
 */
static bool take_state(struct shell *s, int fd)
{
    struct err ignored = {0};
    struct buf b;
    bool ok = false;
    buf_init(&b, LIMIT_SHELL_STATE);
    if (lseek(fd, 0, SEEK_SET) == 0 && io_read_all(fd, &b, &ignored) == 0 &&
        str_ends(buf_view(&b), STR("#end\n"))) {
        struct str rest = str_sub(buf_view(&b), 0, b.len - 5), line;
        buf_reset(&s->state);
        buf_reset(&s->options);
        while (str_split(&rest, '\n', &line))
            if (str_starts(line, STR("declare -r BASHOPTS="))) {
                restore_options(line, &s->state);
            } else if (str_starts(line, STR("declare -r SHELLOPTS="))) {
                restore_set(line, &s->options);
            } else if (is_in_the_way(line)) {
                buf_puts(&s->state, "__agentd_dropped () \n");
            } else if (!is_passing(line)) {
                buf_str(&s->state, line);
                buf_putc(&s->state, '\n');
            }
        ok = !s->state.failed && !s->options.failed;
        if (!ok) {
            buf_reset(&s->state);
            buf_reset(&s->options);
        }
    }
    buf_done(&b);
    return ok;
}

/*
 * A shell that did not come to its command: what an earlier command left held it up, and would
 * hold up every other, so it is forgotten.
 */
static void forget_state(struct shell *s, int fd, struct answer *a)
{
    char start[sizeof prologue - 1];
    if (s->state.len + s->options.len == 0 ||
        pread(fd, start, sizeof start, 0) != (ssize_t)sizeof start ||
        memcmp(start, prologue, sizeof start) != 0)
        return;
    buf_reset(&s->state);
    buf_reset(&s->options);
    a->state_lost = true;
    envelope_status(&a->text, "the shell's state kept it from this command and was dropped: "
                    "call again");
}

static struct job *free_slot(struct shell *s)
{
    struct job *oldest = NULL;
    for (unsigned i = 0; i < LIMIT_JOBS; i++) {
        struct job *j = &s->job[i];
        if (j->id == 0)
            return j;
        if (j->done && (!oldest || j->ended_ns < oldest->ended_ns))
            oldest = j;
    }
    if (oldest)
        job_done(oldest);
    return oldest;
}

/* Drains a job's output and notes its end. */
static void job_service(struct job *j)
{
    if (j->id == 0 || j->done)
        return;
    bool open = j->child.out[0] >= 0 && capture_drain(&j->cap, j->child.out[0], 1 << 24);
    if (!open)
        io_close(&j->child.out[0]);
    if (child_reap(&j->child)) {
        child_kill(&j->child, SIGKILL);
        if (j->child.out[0] >= 0)
            capture_drain(&j->cap, j->child.out[0], 1 << 24);
        io_close(&j->child.out[0]);
        j->done = true;
        j->ended_ns = io_mono_ns();
    }
}

static void service_jobs(struct shell *s)
{
    for (unsigned i = 0; i < LIMIT_JOBS; i++)
        job_service(&s->job[i]);
}

/* Descriptors to watch so that no job ever blocks on a full pipe. */
static unsigned job_fds(const struct shell *s, struct pollfd *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LIMIT_JOBS; i++) {
        const struct job *j = &s->job[i];
        if (j->id == 0 || j->done)
            continue;
        p[n++] = (struct pollfd){j->child.pidfd, POLLIN, 0};
        if (j->child.out[0] >= 0)
            p[n++] = (struct pollfd){j->child.out[0], POLLIN, 0};
    }
    return n;
}

enum { WATCH_MAX = 4 + 2 * LIMIT_JOBS };

static int left_ms(int64_t deadline)
{
    int64_t ns = deadline - io_mono_ns();
    return ns <= 0 ? 0 : (int)(ns / 1000000 < 60000 ? ns / 1000000 + 1 : 60000);
}

enum outcome { EXITED, SOFT_LIMIT, CANCELLED };

/* Drains until the program exits, the deadline passes or somebody cancels. */
static enum outcome watch(struct shell *s, struct job *j, int64_t deadline, int cancel_fd)
{
    bool open = true;
    while (!child_reap(&j->child)) {
        struct pollfd p[WATCH_MAX];
        unsigned n = 0;
        int wait = left_ms(deadline);
        if (wait == 0)
            return SOFT_LIMIT;
        p[n++] = (struct pollfd){j->child.pidfd, POLLIN, 0};
        p[n++] = (struct pollfd){open ? j->child.out[0] : -1, POLLIN, 0};
        p[n++] = (struct pollfd){cancel_fd, POLLIN, 0};
        n += job_fds(s, p + n);
        if (poll(p, n, wait) < 0 && errno != EINTR)
            return CANCELLED;
        if (p[2].revents)
            return CANCELLED;
        if (p[1].revents)
            open = capture_drain(&j->cap, j->child.out[0], 1 << 24);
        service_jobs(s);
    }
    return EXITED;
}

/* What a command left in the background gets a moment to end by itself (a tee at the end of
 * a pipe). True when something has to be ended. */
static bool left_behind(struct job *j)
{
    enum { PATIENCE = 6, STEP_MS = 5 };
    for (unsigned i = 0; i < PATIENCE; i++) {
        while (waitpid(-j->child.pid, NULL, WNOHANG) > 0)
            continue; /* without a cell they have become ours */
        if (kill(-j->child.pid, 0) < 0)
            return false;
        struct pollfd p = {j->child.out[0], POLLIN, 0};
        if (poll(&p, 1, STEP_MS) > 0 && !capture_drain(&j->cap, j->child.out[0], 1 << 24))
            poll(NULL, 0, STEP_MS); /* closed; its end follows */
    }
    return kill(-j->child.pid, 0) == 0;
}

/* After the end: the group dies, then what its pipes still hold is read, briefly. */
static void sweep(struct toolbox *t, struct job *j)
{
    child_kill(&j->child, SIGKILL);
    if (t->opts.strays)
        toolbox_kill_strays(t);
    int64_t end = io_mono_ns() + DRAIN_MS * 1000000LL;
    while (capture_drain(&j->cap, j->child.out[0], 1 << 24)) {
        struct pollfd p = {j->child.out[0], POLLIN, 0};
        int wait = left_ms(end);
        if (wait == 0 || poll(&p, 1, wait) <= 0)
            break;
    }
}

/* Seconds for people: "12" or "0.4". */
static void seconds(char out[24], int64_t ns)
{
    if (ns >= 10 * NS)
        snprintf(out, 24, "%lld", (long long)(ns / NS));
    else
        snprintf(out, 24, "%.1f", (double)ns / (double)NS);
}

static void report_end(struct toolbox *t, struct job *j, enum outcome how, bool left,
                       bool jobs, uint32_t limit_s, struct answer *a)
{
    capture_text(&j->cap, &a->text, &a->cut_bytes);
    a->output_bytes = j->cap.keep.total;
    a->spill = j->cap.spill;
    if (how == EXITED) {
        a->exit_code = j->child.code;
        a->status = j->child.code == 0 ? TOOL_OK : TOOL_FAILED;
        if (!take_state(t->shell, j->script))
            forget_state(t->shell, j->script, a);
        if (left)
            envelope_status(&a->text, "what the command left running was ended%s",
                            jobs ? "; start it with background true to keep it" : "");
        envelope_status(&a->text, "exit code: %d", j->child.code);
    } else if (how == CANCELLED) {
        a->status = TOOL_CANCELLED;
        envelope_status(&a->text, "cancelled: the command was killed");
    } else {
        a->status = TOOL_TIMED_OUT;
        forget_state(t->shell, j->script, a);
        envelope_status(&a->text, "timed out: killed after %u s", limit_s);
    }
}

static void report_job(struct job *j, struct answer *a)
{
    char s[24];
    seconds(s, io_mono_ns() - j->started_ns);
    capture_text(&j->cap, &a->text, &a->cut_bytes);
    a->output_bytes = j->cap.keep.total;
    a->spill = j->cap.spill;
    a->status = TOOL_RUNNING;
    envelope_status(&a->text, "running: job %d, %s s", j->id, s);
    keep_reset(&j->cap.keep); /* the job tool shows what comes after */
    j->cap.on_output = NULL;
}

static int start(struct toolbox *t, struct job *j, const struct toolbox_request *r,
                 struct str command, struct err *err)
{
    struct child_spec spec = {
        .argv = shell_argv,
        .cwd = t->fs.path,
        .apart = t->apart,
        .merge = true,
        .pipe_in = r->jobs && json_is_true(json_object_get(r->args, "background")),
    };
    *j = (struct job){.script = -1, .child = {.pidfd = -1, .out = {-1, -1}, .in = -1}};
    int rc = make_script(t->shell, command, &j->script, err);
    if (rc == 0)
        rc = capture_init(&j->cap, t, r->limits, err);
    if (rc == 0) {
        spec.control = j->script;
        rc = child_start(&j->child, &spec, err);
    }
    if (rc < 0) {
        capture_done(&j->cap);
        io_close(&j->script);
        return rc;
    }
    j->started_ns = io_mono_ns();
    j->cap.on_output = r->on_output;
    j->cap.arg = r->arg;
    size_t n = utf8_complete(str_sub(command, 0, sizeof j->title - 1));
    snprintf(j->title, sizeof j->title, "%.*s", (int)n, command.p);
    for (char *c = j->title; *c; c++)
        if ((unsigned char)*c < 0x20)
            *c = ' ';
    return 0;
}

void tool_bash(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct str command = json_view(json_object_get(r->args, "command"));
    bool background = r->jobs && json_is_true(json_object_get(r->args, "background"));
    uint32_t soft = r->timeout_s ? r->timeout_s : r->limits->timeout_s;
    uint32_t hard = r->hard_s ? r->hard_s : soft;
    const json_t *asked = json_object_get(r->args, "timeout_s");
    struct err err = {0};
    struct shell *s = shell_of(t);
    struct job *slot = s ? free_slot(s) : NULL, *j = s ? &s->current : NULL;
    if (json_is_integer(asked) && json_integer_value(asked) > 0)
        soft = json_integer_value(asked) < (r->jobs ? UINT32_MAX : hard)
                   ? (uint32_t)json_integer_value(asked) : hard;
    if (!slot) {
        answer_fail(a, TOOL_FAILED, "%d jobs are running; end one with the job tool first",
                    LIMIT_JOBS);
        return;
    }
    if (start(t, j, r, command, &err) < 0) {
        answer_fail(a, TOOL_UNAVAILABLE, "the shell could not be started: %s", err.text);
        return;
    }
    enum outcome how = SOFT_LIMIT;
    bool left = false;
    if (!background)
        how = watch(s, j, j->started_ns + soft * NS, r->cancel_fd);
    if (how == SOFT_LIMIT && r->jobs) {
        if (!background)
            forget_state(s, j->script, a);
        j->id = s->next_id++;
        report_job(j, a);
        *slot = *j; /* its descriptors move along */
        return;
    }
    if (how != EXITED) {
        child_kill(&j->child, SIGKILL);
        child_reap(&j->child);
    } else {
        left = left_behind(j);
    }
    sweep(t, j);
    report_end(t, j, how, left, r->jobs, soft, a);
    job_done(j);
}

static struct job *job_by_id(struct shell *s, json_int_t id)
{
    for (unsigned i = 0; i < LIMIT_JOBS; i++)
        if (s->job[i].id != 0 && s->job[i].id == id)
            return &s->job[i];
    return NULL;
}

static void list_jobs(struct shell *s, struct answer *a)
{
    unsigned n = 0;
    for (int id = 1; id < s->next_id; id++) {
        struct job *j = job_by_id(s, id);
        char time[24];
        if (!j)
            continue;
        n++;
        seconds(time, (j->done ? j->ended_ns : io_mono_ns()) - j->started_ns);
        if (j->done)
            buf_printf(&a->text, "job %d: exit code %d after %s s: %s\n", j->id, j->child.code,
                       time, j->title);
        else
            buf_printf(&a->text, "job %d: running, %s s: %s\n", j->id, time, j->title);
    }
    if (n == 0)
        buf_puts(&a->text, "There are no jobs.");
}

static void report_progress(struct job *j, bool killed, struct answer *a)
{
    char time[24];
    capture_text(&j->cap, &a->text, &a->cut_bytes);
    a->output_bytes = j->cap.keep.total;
    a->spill = j->cap.spill;
    keep_reset(&j->cap.keep);
    seconds(time, (j->done ? j->ended_ns : io_mono_ns()) - j->started_ns);
    if (killed) {
        j->told = true;
        envelope_status(&a->text, "killed: job %d, %s s", j->id, time);
        io_close(&j->script);
    } else if (j->done) {
        j->told = true;
        a->exit_code = j->child.code;
        a->status = j->child.code == 0 ? TOOL_OK : TOOL_FAILED;
        envelope_status(&a->text, "exit code: %d; job %d ended after %s s", j->child.code, j->id,
                        time);
        io_close(&j->script);
    } else {
        a->status = TOOL_RUNNING;
        envelope_status(&a->text, "running: job %d, %s s", j->id, time);
    }
}

static void wait_job(struct shell *s, struct job *j, int64_t wait_s, int cancel_fd)
{
    int64_t deadline = io_mono_ns() + wait_s * NS;
    while (!j->done && left_ms(deadline) > 0) {
        struct pollfd p[WATCH_MAX] = {{cancel_fd, POLLIN, 0}};
        unsigned n = 1 + job_fds(s, p + 1);
        poll(p, n, left_ms(deadline));
        if (p[0].revents)
            return;
        service_jobs(s);
    }
}

static void send_input(struct job *j, struct str input, struct answer *a)
{
    size_t put = 0;
    int64_t deadline = io_mono_ns() + NS;
    signal(SIGPIPE, SIG_IGN);
    while (put < input.n && left_ms(deadline) > 0) {
        ssize_t w = write(j->child.in, input.p + put, input.n - put);
        if (w > 0) {
            put += (size_t)w;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            break;
        struct pollfd p = {j->child.in, POLLOUT, 0};
        poll(&p, 1, 50);
    }
    if (put == input.n)
        buf_printf(&a->text, "Sent %zu bytes to job %d.", put, j->id);
    else
        answer_fail(a, TOOL_FAILED, "job %d took only %zu of %zu bytes of input", j->id, put,
                    input.n);
}

void tool_job(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct str action = json_view(json_object_get(r->args, "action"));
    const json_t *id = json_object_get(r->args, "id");
    const json_t *wait = json_object_get(r->args, "wait_s");
    bool killed = false;
    struct shell *s = shell_of(t);
    if (!s) {
        answer_fail(a, TOOL_UNAVAILABLE, "out of memory");
        return;
    }
    service_jobs(s);
    if (str_is(action, "list")) {
        list_jobs(s, a);
        return;
    }
    struct job *j = json_is_integer(id) ? job_by_id(s, json_integer_value(id)) : NULL;
    if (!j) {
        answer_fail(a, TOOL_INVALID, json_is_integer(id) ? "there is no job %lld; action list "
                    "names the jobs" : "this action needs the id of a job; action list names "
                    "them", (long long)json_integer_value(id));
        return;
    }
    if (str_is(action, "send")) {
        if (!json_is_string(json_object_get(r->args, "input")))
            answer_fail(a, TOOL_INVALID, "send needs input, the text for the job");
        else if (j->child.in < 0)
            answer_fail(a, TOOL_FAILED, "job %d has no input: only commands started with "
                        "background true have", j->id);
        else if (j->done)
            answer_fail(a, TOOL_FAILED, "job %d has ended", j->id);
        else
            send_input(j, json_view(json_object_get(r->args, "input")), a);
        return;
    }
    if (str_is(action, "wait")) {
        int64_t wait_s = json_is_integer(wait) ? json_integer_value(wait) : 10;
        wait_job(s, j, wait_s < JOB_WAIT_MAX_S ? wait_s : JOB_WAIT_MAX_S, r->cancel_fd);
    } else if (str_is(action, "kill") && !j->done) {
        child_kill(&j->child, SIGKILL);
        wait_job(s, j, 2, -1);
        killed = j->done;
    }
    report_progress(j, killed, a);
}

void shell_service(struct shell *s)
{
    if (s)
        service_jobs(s);
}

unsigned shell_fds(const struct shell *s, struct pollfd *p)
{
    return s ? job_fds(s, p) : 0;
}

void shell_notices(struct shell *s, struct buf *out)
{
    for (unsigned i = 0; s && i < LIMIT_JOBS; i++) {
        struct job *j = &s->job[i];
        job_service(j);
        if (j->id == 0 || !j->done || j->told)
            continue;
        j->told = true;
        buf_printf(out, "job %d ended with exit code %d\n", j->id, j->child.code);
    }
}
