/*
 * test_spawner.c - real cells through the real spawner process: output, exit status, kept
 * drivers, what outlives a call, deadlines, and a spawner that dies. Skips with a reason
 * where the host cannot confine.
 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/spawner.h"
#include "base/io.h"

static const char *exe;

struct world {
    struct spawner *s;
    struct ev *ev;
    struct ev_timer *tick; /* lets a wait notice that its time is over */
    struct cell *cell;
    struct sandbox_exit exit[8];
    unsigned exits, opened, refused, gone, ended, closed, deaths;
    struct cell_ended last;
    struct sandbox_refusal refusal;
    char record[4096];
    enum sandbox_level level;
};

static void on_opened(void *arg, const struct cell_info *i)
{
    struct world *w = arg;
    w->opened++;
    w->level = i->level;
    snprintf(w->record, sizeof w->record, "%s", i->record);
}

static void on_refused(void *arg, const struct sandbox_refusal *r)
{
    struct world *w = arg;
    w->refusal = *r;
    w->refused++;
}

static void on_gone(void *arg, const char *why)
{
    (void)why;
    ((struct world *)arg)->gone++;
}

static void on_done(void *arg, const struct sandbox_exit *x)
{
    struct world *w = arg;
    w->exit[w->exits++ % 8] = *x;
}

static void on_ended(void *arg, const struct cell_ended *e)
{
    struct world *w = arg;
    w->last = *e;
    w->ended++;
}

static void on_closed(void *arg)
{
    ((struct world *)arg)->closed++;
}

static void on_death(void *arg)
{
    ((struct world *)arg)->deaths++;
}

static const struct cell_cb callbacks = {on_opened, on_refused, on_gone, NULL};

static void until(struct world *w, const unsigned *counter, unsigned want)
{
    int64_t limit = io_mono_ns() + 60000000000ll;
    while (*counter < want && io_mono_ns() < limit)
        ev_run_once(w->ev, true);
    assert_true(*counter >= want);
}

static struct sandbox_spec spec_of(const char *workspace)
{
    struct sandbox_spec spec = {.require = SANDBOX_NOLIMITS};
    if (workspace) {
        spec.work = SANDBOX_WORK_DIR;
        snprintf(spec.workspace, sizeof spec.workspace, "%s", workspace);
    }
    return spec;
}

static void on_tick(void *arg)
{
    (void)arg;
}

static void world_open(struct world *w, const struct sandbox_spec *spec)
{
    struct err err = {0};
    struct spawner_opts o = {.exe = exe};
    memset(w, 0, sizeof *w);
    ASSERT_OK(spawner_start(&w->s, &o, &err), &err);
    ASSERT_OK(ev_new(&w->ev, &err), &err);
    ASSERT_OK(ev_timer_new(&w->tick, w->ev, on_tick, NULL, &err), &err);
    ev_timer_start(w->tick, 50000000, 50000000);
    ASSERT_OK(spawner_attach(w->s, w->ev, on_death, w, &err), &err);
    ASSERT_OK(cell_open(&w->cell, w->s, spec, &callbacks, w, &err), &err);
    int64_t limit = io_mono_ns() + 60000000000ll;
    while (!w->opened && !w->refused && io_mono_ns() < limit)
        ev_run_once(w->ev, true);
}

static void world_done(struct world *w)
{
    cell_close(w->cell, on_closed, w);
    until(w, &w->closed, 1);
    spawner_free(w->s);
    ev_timer_free(w->tick);
    ev_free(w->ev);
}

static bool confined(struct world *w)
{
    if (w->opened)
        return true;
    print_message("skipped: %s\n", w->refusal.reason);
    cell_close(w->cell, NULL, NULL);
    spawner_free(w->s);
    ev_timer_free(w->tick);
    ev_free(w->ev);
    return false;
}

static uint32_t start(struct world *w, const char *script, int out, enum sandbox_keep keep,
                      uint32_t wall_ms)
{
    struct err err = {0};
    const char *argv[] = {"bash", "--norc", "--noprofile", "-c", script, NULL};
    struct cell_run run = {.argv = argv, .fd = {-1, out, out, -1}, .keep = keep,
                           .wall_ms = wall_ms, .done = on_done, .arg = w};
    uint32_t id = 0;
    ASSERT_OK(cell_start(w->cell, &run, &id, &err), &err);
    return id;
}

static void end(struct world *w, bool freeze)
{
    struct err err = {0};
    unsigned before = w->ended;
    ASSERT_OK(cell_end(w->cell, freeze, on_ended, w, &err), &err);
    until(w, &w->ended, before + 1);
}

/* Runs a script and returns what it wrote. */
static char *output_of(struct world *w, const char *script)
{
    static char text[8192];
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    unsigned before = w->exits;
    start(w, script, p[1], SANDBOX_KEEP_NONE, 0);
    close(p[1]);
    until(w, &w->exits, before + 1);
    end(w, true);
    ssize_t n = 0, r;
    while ((r = read(p[0], text + n, sizeof text - 1 - (size_t)n)) > 0)
        n += r;
    close(p[0]);
    text[n] = '\0';
    return text;
}

static char *make_workspace(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/agentd-test-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static void runs_and_reports(void **state)
{
    (void)state;
    struct world w;
    char *dir = make_workspace();
    struct sandbox_spec spec = spec_of(dir);
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    assert_non_null(strstr(w.record, "\"landlock_abi\":"));
    assert_string_equal(output_of(&w, "echo hello; id -u; pwd"), "hello\n1000\n/workspace\n");
    assert_int_equal(w.exit[0].code, 0);
    output_of(&w, "exit 7");
    assert_int_equal(w.exit[1].code, 7);
    output_of(&w, "kill -9 $$");
    assert_int_equal(w.exit[2].signal, 9);
    output_of(&w, "echo made >file; ls -ln file >&2");
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/file", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, geteuid()); /* seen from outside, it is ours */
    unlink(path);
    world_done(&w);
    rmdir(dir);
}

static void a_program_that_is_not_there(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    struct err err = {0};
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    const char *argv[] = {"no-such-program", NULL};
    struct cell_run run = {.argv = argv, .fd = {-1, -1, -1, -1}, .done = on_done, .arg = &w};
    ASSERT_OK(cell_start(w.cell, &run, NULL, &err), &err);
    until(&w, &w.exits, 1);
    assert_true(w.exit[0].failed);
    assert_string_equal(w.exit[0].step, "exec");
    assert_int_equal(w.exit[0].sys, ENOENT);
    world_done(&w);
}

static void nothing_outlives_a_call(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    start(&w,
          "for i in 1 2 3; do (trap '' TERM INT HUP; setsid sleep 1000 &) ; done;"
          "nohup bash -c 'while :; do sleep 0.01; done' >/dev/null 2>&1 & exit 0",
          p[1], SANDBOX_KEEP_NONE, 0);
    close(p[1]);
    until(&w, &w.exits, 1);
    end(&w, true);
    assert_true(w.last.killed >= 4);
    assert_int_equal(w.last.kept, 0);
    char c;
    assert_int_equal(read(p[0], &c, 1), 0); /* the last writer is dead */
    close(p[0]);
    world_done(&w);
}

static void fork_hoppers_die_too(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    start(&w,
          "exec /usr/bin/python3 -I -S -c \"import os\n"
          "for _ in range(8):\n"
          " if os.fork() == 0:\n"
          "  while True:\n"
          "   if os.fork(): os._exit(0)\n"
          "\"", p[1], SANDBOX_KEEP_NONE, 0);
    close(p[1]);
    until(&w, &w.exits, 1);
    end(&w, true);
    char c;
    assert_int_equal(read(p[0], &c, 1), 0);
    close(p[0]);
    assert_string_equal(output_of(&w, "exec /usr/bin/python3 -I -S -c \"import os; "
                                     "print(sum(n.isdigit() for n in os.listdir('/proc')))\""),
                        "1\n");
    world_done(&w);
}

/* A kept driver stops between calls and keeps its state; its strays die. */
static void kept_drivers_stay_and_stop(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    struct err err = {0};
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    const char *argv[] = {"bash", "--norc", "-c",
                          "n=0; while read -r -u 100 word; do n=$((n+1));"
                          " sleep 1000 & echo \"$n $word\" >&100; done", NULL};
    struct cell_run run = {.argv = argv, .fd = {-1, -1, -1, sv[1]}, .keep = SANDBOX_KEEP_SELF,
                           .done = on_done, .arg = &w};
    ASSERT_OK(cell_start(w.cell, &run, NULL, &err), &err);
    close(sv[1]);
    char reply[64];
    for (int i = 1; i <= 3; i++) {
        ASSERT_OK(cell_begin(w.cell, &err), &err);
        assert_int_equal(write(sv[0], "ping\n", 5), 5);
        ssize_t n = read(sv[0], reply, sizeof reply - 1);
        assert_true(n > 0);
        reply[n] = '\0';
        char want[16];
        snprintf(want, sizeof want, "%d ping\n", i);
        assert_string_equal(reply, want);
        end(&w, true);
        assert_int_equal(w.last.killed, 1); /* the stray sleep */
        assert_int_equal(w.last.kept, 1);
    }
    assert_int_equal(write(sv[0], "ping\n", 5), 5);
    struct pollfd p = {sv[0], POLLIN, 0};
    assert_int_equal(poll(&p, 1, 200), 0); /* stopped: nobody answers */
    ASSERT_OK(cell_begin(w.cell, &err), &err);
    assert_int_equal(poll(&p, 1, 20000), 1);
    assert_int_equal(w.exits, 0);
    close(sv[0]);
    world_done(&w);
}

static void deadlines_kill_the_tree(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    start(&w, "trap '' TERM INT; (setsid sleep 1000 &); while :; do :; done", p[1],
          SANDBOX_KEEP_NONE, 200);
    close(p[1]);
    until(&w, &w.exits, 1);
    assert_int_equal(w.exit[0].signal, SIGKILL);
    assert_true(w.exit[0].limits & SANDBOX_LIMIT_WALL);
    char c;
    assert_int_equal(read(p[0], &c, 1), 0);
    close(p[0]);
    assert_string_equal(output_of(&w, "echo on we go"), "on we go\n");
    world_done(&w);
}

/* Killing or stopping everything hurts the call alone; the cell goes on. */
static void suicide_spares_the_cell(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    output_of(&w, "sleep 1000 & kill -9 -1; kill -9 0");
    assert_int_equal(w.exit[0].signal, SIGKILL);
    output_of(&w, "kill -9 1; kill -19 1; kill -11 1; exit 3");
    assert_int_equal(w.exit[1].code, 3);
    assert_string_equal(output_of(&w, "echo alive"), "alive\n");
    world_done(&w);
}

static void a_job_runs_on(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    struct err err = {0};
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    uint32_t id = start(&w, "sleep 0.3; (sleep 0.3; echo inner); echo outer", p[1],
                        SANDBOX_KEEP_NONE, 0);
    close(p[1]);
    ASSERT_OK(cell_keep(w.cell, id, SANDBOX_KEEP_TREE, 0, &err), &err);
    end(&w, false);
    assert_true(w.last.kept >= 1);
    until(&w, &w.exits, 1);
    assert_int_equal(w.exit[0].code, 0);
    char text[64];
    ssize_t n = read(p[0], text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, "inner\nouter\n");
    close(p[0]);
    world_done(&w);
}

static unsigned entries(const char *path)
{
    unsigned n = 0;
    DIR *d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static int youngest_child(void)
{
    char path[64];
    int pid = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fscanf(f, "%d", &pid) == 1)
        ;
    fclose(f);
    return pid;
}

static void a_dead_spawner_is_noticed(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    start(&w, "echo $$; sleep 1000", p[1], SANDBOX_KEEP_NONE, 0);
    close(p[1]);
    char text[16];
    assert_true(read(p[0], text, sizeof text) > 0);
    int spawner = youngest_child();
    assert_true(spawner > 0);
    kill(spawner, SIGKILL);
    until(&w, &w.deaths, 1);
    assert_int_equal(w.exits, 1);
    assert_true(w.exit[0].lost);
    assert_int_equal(w.gone, 1);
    assert_int_equal(read(p[0], text, 1), 0); /* the cell died with it */
    close(p[0]);
    cell_close(w.cell, on_closed, &w);
    assert_int_equal(w.closed, 1);
    spawner_free(w.s);
    ev_timer_free(w.tick);
    ev_free(w.ev);
}

/* One spawner, many cells: descriptors, mounts and slots come back. AGENTD_CELLS=1000 makes
 * it as long as a release demands. */
static void many_cells_leave_nothing(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of(NULL);
    struct err err = {0};
    const char *n = getenv("AGENTD_CELLS");
    int cells = n ? (int)strtol(n, NULL, 10) : 25;
    char fds[64];
    world_open(&w, &spec);
    if (!confined(&w))
        return;
    snprintf(fds, sizeof fds, "/proc/%d/fd", youngest_child());
    unsigned before = entries(fds), own = entries("/proc/self/fd"), limit = before + 8;
    for (int i = 0; i < cells; i++) {
        struct cell *c = NULL;
        unsigned opened = w.opened, exits = w.exits, closed = w.closed;
        ASSERT_OK(cell_open(&c, w.s, &spec, &callbacks, &w, &err), &err);
        until(&w, &w.opened, opened + 1);
        const char *argv[] = {"/bin/true", NULL};
        struct cell_run run = {.argv = argv, .fd = {-1, -1, -1, -1}, .done = on_done,
                               .arg = &w};
        ASSERT_OK(cell_start(c, &run, NULL, &err), &err);
        until(&w, &w.exits, exits + 1);
        cell_close(c, on_closed, &w);
        until(&w, &w.closed, closed + 1);
        assert_true(entries(fds) <= limit);
    }
    assert_int_equal(entries("/proc/self/fd"), own);
    w.closed = 0;
    world_done(&w);
}

static void refusals_say_why(void **state)
{
    (void)state;
    struct world w;
    struct sandbox_spec spec = spec_of("/no/such/place");
    world_open(&w, &spec);
    assert_int_equal(w.refused, 1);
    if (strcmp(w.refusal.step, "workspace") == 0)
        assert_non_null(strstr(w.refusal.reason, "does not exist"));
    cell_close(w.cell, on_closed, &w);
    spawner_free(w.s);
    ev_timer_free(w.tick);
    ev_free(w.ev);
    spec = spec_of("/etc");
    world_open(&w, &spec);
    assert_int_equal(w.refused, 1);
    cell_close(w.cell, on_closed, &w);
    spawner_free(w.s);
    ev_timer_free(w.tick);
    ev_free(w.ev);
}

int main(void)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/agentctl", getenv("BIN") ? getenv("BIN") : ".");
    exe = path;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_and_reports),
        cmocka_unit_test(a_program_that_is_not_there),
        cmocka_unit_test(nothing_outlives_a_call),
        cmocka_unit_test(fork_hoppers_die_too),
        cmocka_unit_test(kept_drivers_stay_and_stop),
        cmocka_unit_test(deadlines_kill_the_tree),
        cmocka_unit_test(suicide_spares_the_cell),
        cmocka_unit_test(a_job_runs_on),
        cmocka_unit_test(a_dead_spawner_is_noticed),
        cmocka_unit_test(many_cells_leave_nothing),
        cmocka_unit_test(refusals_say_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
