/* toolbox.c - the box of one driver process: opening, resetting, spills, dispatch. */
#include "tools/toolbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/child.h"
#include "tools/ahead.h"
#include "tools/toolbox_impl.h"

static void tool_spill(struct toolbox *t, const struct toolbox_request *r, struct answer *a);

static const struct {
    const char *name;
    void (*run)(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
} runs[] = {
    {"bash", tool_bash},
    {"job", tool_job},
    {"python", tool_python},
    {"str_replace_editor", tool_editor},
    {"apply_patch", tool_patch},
    {"spill", tool_spill},
    {"search", tool_search},
    {"open", tool_open},
    {"find", tool_find_in_page},
};

void answer_init(struct answer *a)
{
    *a = (struct answer){.exit_code = -1, .spill = -1};
    buf_init(&a->text, LIMIT_LINE_BYTES / 4);
}

void answer_done(struct answer *a)
{
    buf_done(&a->text);
    json_decref(a->undo);
    a->undo = NULL;
}

void answer_fail(struct answer *a, enum tool_status status, const char *fmt, ...)
{
    va_list ap;
    struct buf b;
    buf_init(&b, 0);
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    a->status = status;
    envelope_newline(&a->text);
    envelope_clean(&a->text, buf_view(&b));
    envelope_status(&a->text, status == TOOL_INVALID ? "invalid arguments"
                              : status == TOOL_UNAVAILABLE ? "unavailable" : "error");
    buf_done(&b);
}

/* One owned copy of an option string. */
static int copy(const char **to, const char *from, struct err *err)
{
    *to = from ? mem_strdup(str_c(from)) : NULL;
    return from && !*to ? err_nomem(err) : 0;
}

static void drop(const char **s)
{
    mem_free((void *)(uintptr_t)*s);
    *s = NULL;
}

static int copy_opts(struct toolbox *t, const struct toolbox_opts *o, struct err *err)
{
    t->opts = (struct toolbox_opts){.record = o->record, .web = o->web, .strays = o->strays};
    int rc = copy(&t->opts.spill_dir, o->spill_dir, err);
    if (rc == 0)
        rc = copy(&t->opts.index, o->index, err);
    if (rc == 0)
        rc = copy(&t->opts.providers, o->providers, err);
    if (rc == 0)
        rc = copy(&t->opts.private_hosts, o->private_hosts, err);
    if (rc == 0)
        rc = copy(&t->opts.cassette, o->cassette, err);
    return rc;
}

int toolbox_new(struct toolbox **out, const struct toolbox_opts *o, struct err *err)
{
    struct toolbox *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err);
    t->fs.root = -1;
    t->ahead_out = -1;
    t->oldest = 1;
    for (unsigned i = 0; i < SPILLS_MAX; i++)
        t->kept[i] = -1;
    t->apart = o->strays ? -1 : child_apart();
    int rc = copy_opts(t, o, err);
    if (rc == 0 && o->workspace)
        rc = wsfs_open(&t->fs, o->workspace, err);
    if (rc < 0) {
        toolbox_free(t);
        return rc;
    }
    if (o->strays)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    *out = t;
    return 0;
}

static void forget(struct toolbox *t)
{
    shell_free(t->shell);
    interp_free(t->interp);
    t->shell = NULL;
    t->interp = NULL;
    views_clear(&t->views);
    browser_forget(t->browser);
    ahead_free(t->ahead);
    t->ahead = NULL;
    if (t->opts.strays)
        child_kill_strays(NULL, 0);
}

static void drop_oldest(struct toolbox *t)
{
    io_close(&t->kept[t->oldest++ % SPILLS_MAX]);
}

static void drop_spills(struct toolbox *t)
{
    while (t->oldest <= t->spills)
        drop_oldest(t);
    t->spills = 0;
    t->oldest = 1;
}

void toolbox_free(struct toolbox *t)
{
    if (!t)
        return;
    forget(t);
    browser_free(t->browser);
    drop_spills(t);
    wsfs_close(&t->fs);
    io_close(&t->apart);
    drop(&t->opts.spill_dir);
    drop(&t->opts.index);
    drop(&t->opts.providers);
    drop(&t->opts.private_hosts);
    drop(&t->opts.cassette);
    mem_free(t);
}

int toolbox_reset(struct toolbox *t, const char *workspace, struct err *err)
{
    forget(t);
    drop_spills(t);
    if (!workspace)
        return 0;
    wsfs_close(&t->fs);
    return wsfs_open(&t->fs, workspace, err);
}

int toolbox_set_index(struct toolbox *t, const char *index, struct err *err)
{
    if (index && t->opts.index && strcmp(index, t->opts.index) == 0)
        return 0;
    drop(&t->opts.index);
    return copy(&t->opts.index, index, err);
}

void toolbox_kill_strays(struct toolbox *t)
{
    pid_t keep[LIMIT_JOBS + 1];
    unsigned n = shell_pids(t->shell, keep);
    if (t->interp)
        keep[n++] = interp_pid(t->interp);
    child_kill_strays(keep, n);
}

/* Whether another spill would take too much of what the process may hold. */
static bool is_crowded(const struct toolbox *t)
{
    struct rlimit files = {0};
    struct stat st;
    uint64_t bytes = 0, n = (uint64_t)(t->spills - t->oldest + 1);
    for (int64_t i = t->oldest; i <= t->spills; i++)
        if (fstat(t->kept[i % SPILLS_MAX], &st) == 0)
            bytes += (uint64_t)st.st_size;
    (void)!getrlimit(RLIMIT_NOFILE, &files);
    return n && (n >= SPILLS_MAX || n >= files.rlim_cur / 4 || bytes > LIMIT_SPILLS_BYTES);
}

/* A file with a name could be rewritten by a later call, so it has none. */
static int spill_nameless(struct toolbox *t, int64_t *id)
{
    const char *tmp = getenv("TMPDIR"); /* at level landlock /tmp is the host's */
    while (is_crowded(t))
        drop_oldest(t);
    int fd = open(tmp && tmp[0] ? tmp : "/tmp", O_RDWR | O_TMPFILE | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        fd = memfd_create("spill", MFD_CLOEXEC);
    int writer = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (writer < 0) {
        io_close(&fd);
        return -1;
    }
    *id = ++t->spills;
    t->kept[*id % SPILLS_MAX] = fd;
    return writer;
}

static bool spill_path(const struct toolbox *t, int64_t id, char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/%lld.txt", t->opts.spill_dir, (long long)id) < PATH_MAX;
}

int toolbox_spill(struct toolbox *t, int64_t *id)
{
    char path[PATH_MAX];
    int fd = -1;
    *id = -1;
    if (!t->opts.spill_dir)
        return spill_nameless(t, id);
    /* Numbers taken by an earlier driver of the same session are skipped. */
    for (unsigned tries = 0; fd < 0 && tries < 10000; tries++) {
        if (!spill_path(t, ++t->spills, path))
            return -1;
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST)
            return -1;
    }
    *id = t->spills;
    return fd;
}

/* From its beginning, wherever its writer stands. */
static int read_kept(int fd, struct buf *out, struct err *err)
{
    char chunk[16384];
    off_t at = 0;
    for (ssize_t n; (n = pread(fd, chunk, sizeof chunk, at)) != 0; at += n) {
        if (n < 0)
            return err_sys(err, "read a kept output");
        buf_add(out, chunk, (size_t)n);
        if (out->failed)
            break;
    }
    return buf_check(out, "the kept output", err);
}

int toolbox_read_spill(struct toolbox *t, struct str ref, struct buf *out, struct err *err)
{
    uint64_t id;
    char path[PATH_MAX];
    if (!str_starts(ref, STR("spill:")) || !str_to_u64(str_sub(ref, 6, ref.n), &id))
        return err_set(err, ERR_PARSE, "'%.*s' is not of the form spill:7",
                       STR_ARG(str_sub(ref, 0, 40)));
    out->max = LIMIT_SPILL_BYTES + 4096;
    bool kept = !t->opts.spill_dir && id >= (uint64_t)t->oldest && id <= (uint64_t)t->spills;
    if (kept)
        return read_kept(t->kept[id % SPILLS_MAX], out, err);
    int fd = t->opts.spill_dir && id <= INT64_MAX && spill_path(t, (int64_t)id, path)
                 ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    if (fd < 0)
        return err_set(err, ERR_NOTFOUND, "there is no spill:%llu", (unsigned long long)id);
    int rc = io_read_all(fd, out, err);
    close(fd);
    return rc;
}

/* A kept output for `open`, which runs in another process: not a tool of the model's. */
static void tool_spill(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct err err = {0};
    struct buf raw;
    buf_init(&raw, 0);
    if (toolbox_read_spill(t, json_view(json_object_get(r->args, "id")), &raw, &err) < 0)
        answer_fail(a, TOOL_FAILED, "%s", err.text);
    else
        envelope_clean(&a->text, str_sub(buf_view(&raw), 0, LIMIT_SPILL_SHOWN));
    buf_done(&raw);
}

void toolbox_call(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct err err = {0};
    for (unsigned i = 0; i < ARRAY_LEN(runs); i++)
        if (strcmp(r->tool, runs[i].name) == 0) {
            if (r->ahead)
                ahead_start(t, r->ahead, r->limits);
            ahead_enter(t, r->tool, r->args);
            runs[i].run(t, r, a);
            ahead_leave(t);
            if (buf_check(&a->text, "the result", &err) < 0) {
                buf_reset(&a->text);
                answer_fail(a, TOOL_FAILED, "%s", err.text);
            }
            if (a->text.len && a->text.data[a->text.len - 1] == '\n')
                buf_truncate(&a->text, a->text.len - 1);
            return;
        }
    answer_fail(a, TOOL_UNAVAILABLE, "%s does not run here", r->tool);
}

unsigned toolbox_jobs(const struct toolbox *t)
{
    return shell_jobs(t->shell);
}

pid_t toolbox_interp(const struct toolbox *t)
{
    return t->interp ? interp_pid(t->interp) : 0;
}

void toolbox_notices(struct toolbox *t, struct buf *out)
{
    shell_notices(t->shell, out);
}

void toolbox_wait(struct toolbox *t, int fd)
{
    for (;;) {
        struct pollfd p[1 + SHELL_FDS_MAX] = {{fd, POLLIN, 0}};
        unsigned n = 1 + shell_fds(t->shell, p + 1);
        if (poll(p, n, -1) < 0 && errno != EINTR)
            return;
        shell_service(t->shell);
        if (p[0].revents)
            return;
    }
}
