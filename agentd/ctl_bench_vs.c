/*
 * ctl_bench_vs.c - the other side of `agentctl bench engine --vs`: one run of a llama-bench
 * on the same file, read from the JSON it prints. Nothing is taken from its exit alone: a run
 * counts only with both rates in it.
 */
#include "agentd/ctl_bench_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"

extern char **environ;

enum { OUTPUT_CAP = 1 << 20 };

/* Its standard output, whole; what it says beside that is passed on only if it fails. */
static int run_peer(const char *const *argv, struct buf *out, struct err *err)
{
    int p[2] = {-1, -1}, status = 0;
    pid_t pid;
    posix_spawn_file_actions_t fa;
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "pipe");
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, p[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int no = posix_spawn(&pid, argv[0], &fa, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    io_close(&p[1]);
    if (no != 0) {
        io_close(&p[0]);
        errno = no;
        return err_sys(err, "start '%s'", argv[0]);
    }
    int rc = io_read_all(p[0], out, err);
    io_close(&p[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (rc < 0)
        return err_prefix(err, "'%s'", argv[0]);
    if (status != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "'%s' failed (%s %d): run it on this model by hand to see why", argv[0],
                       WIFEXITED(status) ? "status" : "signal",
                       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return 0;
}

/* llama-bench's list of tests: one with prompt tokens, one with generated ones. */
static int read_rates(const char *peer, struct str text, struct bench_peer_run *out,
                      struct err *err)
{
    json_t *all = NULL, *test;
    size_t i;
    int rc = json_read(&all, text, err);
    if (rc < 0)
        return err_prefix(err, "the output of '%s'", peer);
    json_array_foreach(all, i, test)
    {
        double rate = json_number_value(json_object_get(test, "avg_ts"));
        bool prompt = json_integer_value(json_object_get(test, "n_prompt")) > 0;
        bool gen = json_integer_value(json_object_get(test, "n_gen")) > 0;
        const char *commit = json_string_value(json_object_get(test, "build_commit"));
        if (prompt && !gen)
            out->prefill = rate;
        else if (gen && !prompt)
            out->decode = rate;
        snprintf(out->commit, sizeof out->commit, "%s", commit ? commit : "unknown");
    }
    json_decref(all);
    if (!(out->prefill > 0) || !(out->decode > 0))
        return err_set(err, ERR_PARSE, "'%s' printed no prefill and decode rate: is it a "
                       "llama-bench that knows -o json?", peer);
    return 0;
}

int bench_peer(const char *peer, const char *model, const struct bench_report *r,
               uint32_t depth, struct bench_peer_run *out, struct err *err)
{
    char prompt[16], gen[16], deep[16], threads[16];
    snprintf(prompt, sizeof prompt, "%u", r->prefill_tokens);
    snprintf(gen, sizeof gen, "%u", r->decode_tokens);
    snprintf(deep, sizeof deep, "%u", depth);
    snprintf(threads, sizeof threads, "%u", r->threads);
    const char *const argv[] = {peer, "-m", model, "-p", prompt, "-n", gen, "-d", deep, "-t",
                                threads, "-r", "1", "-o", "json", NULL};
    struct buf text;
    buf_init(&text, OUTPUT_CAP);
    *out = (struct bench_peer_run){.prefill = 0};
    int rc = run_peer(argv, &text, err);
    if (rc == 0)
        rc = read_rates(peer, buf_view(&text), out, err);
    buf_done(&text);
    return rc;
}
