/* ctl_bench.c - `agentctl bench`: one subcommand per part that has figures to keep. */
#include "agentd/ctl.h"

static const struct ctl_command commands[] = {
    {"depth", ctl_bench_depth, "What the length of a context costs, sparse and dense."},
    {"engine", ctl_bench_engine, "How fast a model reads and writes, beside the memory's roof."},
    {"sandbox", ctl_bench_sandbox, "What confinement costs, beside fork+exec and bwrap."},
};

int ctl_bench(int argc, char **argv)
{
    return ctl_dispatch("agentctl bench", commands, ARRAY_LEN(commands), argc, argv);
}
