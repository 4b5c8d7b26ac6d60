/* dispatch.c - subcommand tables: look up, run, or list what there is. */
#include <stdio.h>
#include <string.h>

#include "agentd/ctl.h"

static void list(FILE *to, const char *prefix, const struct ctl_command *table, unsigned n)
{
    fprintf(to, "usage: %s COMMAND [options]\n\ncommands:\n", prefix);
    for (unsigned i = 0; i < n; i++)
        fprintf(to, "  %-14s %s\n", table[i].name, table[i].summary);
    fprintf(to, "\n'%s COMMAND --help' says more.\n", prefix);
}

int ctl_dispatch(const char *prefix, const struct ctl_command *table, unsigned n, int argc,
                 char **argv)
{
    if (argc < 2) {
        list(stderr, prefix, table, n);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        list(stdout, prefix, table, n);
        return EXIT_OK;
    }
    for (unsigned i = 0; i < n; i++)
        if (strcmp(argv[1], table[i].name) == 0)
            return table[i].run(argc - 1, argv + 1);
    fprintf(stderr, "%s: unknown command '%s'; try '%s --help'\n", prefix, argv[1], prefix);
    return EXIT_USAGE;
}

int ctl_fail(const struct err *err)
{
    fprintf(stderr, "agentctl: %s\n", err->text);
    return EXIT_FAIL;
}
