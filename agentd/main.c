/* main.c - the daemon's flags and roles. */
#include <stdio.h>
#include <string.h>

#include "agentd/opt.h"
#include "agentd/spawner.h"

int main(int argc, char **argv)
{
    if (spawner_role(argc, argv))
        return spawner_main();
    static const struct opt_cmd cmd = {
        .name = "agentd",
        .summary = "Host a sparse-attention model and the agent loop around it.",
    };
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    return EXIT_OK;
}
