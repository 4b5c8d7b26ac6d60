/* ctl.h - the commands of agentctl; each is a main() of its own, argv[0] is its name. */
#ifndef AGENTD_CTL_H
#define AGENTD_CTL_H

#include "agentd/opt.h"
#include "base/err.h"

/* One declaration per row of the table in ctl.c, in the same order. */
int ctl_run(int argc, char **argv);
int ctl_chat(int argc, char **argv);
int ctl_ask(int argc, char **argv); /* sessions, show, ...: argv[0] says which */
int ctl_follow(int argc, char **argv); /* attach, tail */
int ctl_changes(int argc, char **argv);
int ctl_cache(int argc, char **argv);
int ctl_encode(int argc, char **argv);
int ctl_parse(int argc, char **argv);
int ctl_tool(int argc, char **argv);
int ctl_index(int argc, char **argv);
int ctl_model(int argc, char **argv);
int ctl_eval(int argc, char **argv);
int ctl_doctor(int argc, char **argv);
int ctl_sandbox(int argc, char **argv);
int ctl_completions(int argc, char **argv);
int ctl_bench(int argc, char **argv);
int ctl_version(int argc, char **argv);

/* Of `agentctl bench`. */
int ctl_bench_depth(int argc, char **argv);
int ctl_bench_engine(int argc, char **argv);
int ctl_bench_sandbox(int argc, char **argv);

/* Subcommands that have files of their own. */
int ctl_index_bench(int argc, char **argv);
int ctl_tool_bench(int argc, char **argv);

/* A subcommand table, for commands such as `model info`. */
struct ctl_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};
/* Finds argv[1] in the table and runs it with argv+1; prints the table for --help. */
int ctl_dispatch(const char *prefix, const struct ctl_command *table, unsigned n, int argc,
                 char **argv);
/* "agentctl: <sentence>" on stderr; returns EXIT_FAIL. */
int ctl_fail(const struct err *err);

#endif
