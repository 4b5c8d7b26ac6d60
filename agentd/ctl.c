/* ctl.c - agentctl: finds the command and runs it. */
#include "agentd/ctl.h"

#include <stdio.h>
#include <string.h>

#include "agentd/spawner.h"
#include "base/io.h"

static const struct ctl_command commands[] = {
    {"run", ctl_run, "Run one turn and show it."},
    {"chat", ctl_chat, "Talk with the agent, turn by turn, in one session."},
    {"sessions", ctl_ask, "List the sessions, newest first."},
    {"show", ctl_ask, "Print what was said, thought, called and answered."},
    {"attach", ctl_follow, "Replay a session and stay with it."},
    {"tail", ctl_follow, "Watch events as they come."},
    {"approve", ctl_ask, "Answer a question of an agent; without one, list them."},
    {"changes", ctl_changes, "Show, take over or drop what a session changed in a copy."},
    {"cancel", ctl_ask, "Interrupt a turn."},
    {"fork", ctl_ask, "Make a session with the same history, or a part of it."},
    {"export", ctl_ask, "Print every event with the sampled token ids."},
    {"render", ctl_ask, "Print the exact bytes of the next prompt."},
    {"status", ctl_ask, "Say how the daemon is."},
    {"cache", ctl_cache, "Look into the KV cache of a session."},
    {"encode", ctl_encode, "Render messages to the exact prompt of the model."},
    {"parse", ctl_parse, "Read a completion back into a message, strictly."},
    {"tool", ctl_tool, "List tools and call them without a model."},
    {"index", ctl_index, "Keep the local search index: add folders, list, search."},
    {"model", ctl_model, "Look into model files, convert them, tokenise text."},
    {"eval", ctl_eval, "Play held-out tasks with a model; print pass rates."},
    {"doctor", ctl_doctor, "Say what this host, its sandbox, store and model can do."},
    {"sandbox", ctl_sandbox, "Run programs confined; explain and try policies."},
    {"completions", ctl_completions, "Print the completion script of a shell."},
    {"bench", ctl_bench, "Measure this machine: engine, sandbox."},
    {"version", ctl_version, "Print the version."},
};

int ctl_version(int argc, char **argv)
{
    bool json = false;
    int code;
    const struct opt opts[] = {{"json", 'j', OPT_FLAG, &json, NULL, "print it as JSON"}};
    const struct opt_cmd cmd = {.name = "agentctl version", .summary = "Print the version.",
                                .more = "Exit codes: 0 printed, 2 usage.", .opts = opts,
                                .n_opts = ARRAY_LEN(opts)};
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    puts(json ? "{\"version\":\"" AGENTD_VERSION "\"}" : "agentctl " AGENTD_VERSION);
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    if (spawner_role(argc, argv))
        return spawner_main();
    io_hold_standard();
    return opt_end("agentctl",
                   ctl_dispatch("agentctl", commands, ARRAY_LEN(commands), argc, argv));
}
