/* ctl.c - agentctl: finds the command and runs it. */
#include "agentd/ctl.h"

#include <stdio.h>
#include <string.h>

#include "agentd/spawner.h"

static const struct ctl_command commands[] = {
    {"run", ctl_run, "Run one turn and show it."},
    {"cache", ctl_cache, "Look into the KV cache of a session."},
    {"encode", ctl_encode, "Render messages to the exact prompt of the model."},
    {"parse", ctl_parse, "Read a completion back into a message, strictly."},
    {"tool", ctl_tool, "List tools and call them without a model."},
    {"index", ctl_index, "Keep the local search index: add folders, list, search."},
    {"model", ctl_model, "Look into model files, convert them, tokenise text."},
    {"doctor", ctl_doctor, "Say what this host can keep of the sandbox."},
    {"sandbox", ctl_sandbox, "Run programs confined; explain and try policies."},
    {"version", ctl_version, "Print the version."},
};

int ctl_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("agentctl " AGENTD_VERSION);
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    if (spawner_role(argc, argv))
        return spawner_main();
    return ctl_dispatch("agentctl", commands, ARRAY_LEN(commands), argc, argv);
}
