/*
 * opt.h - command lines from tables: one row per option, and the same row parses, prints
 * --help, and feeds the shell completion.
 */
#ifndef AGENTD_OPT_H
#define AGENTD_OPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum opt_kind {
    OPT_FLAG, /* bool *: set true */
    OPT_STR,  /* const char **: last one wins */
    OPT_INT,  /* int64_t *: decimal */
    OPT_NUM,  /* double * */
    OPT_WORD, /* const char **: one of the words of `arg`, "on|off" */
    OPT_LIST, /* struct opt_list *: may be repeated */
};

enum { OPT_LIST_MAX = 64 };
struct opt_list {
    const char *item[OPT_LIST_MAX];
    unsigned n;
};

struct opt {
    const char *name; /* long name without dashes */
    char letter;      /* 0 = none */
    enum opt_kind kind;
    void *to;         /* per kind */
    const char *arg;  /* name of the argument in --help; NULL for flags */
    const char *help; /* one line */
};

struct opt_cmd {
    const char *name;    /* "model info" */
    const char *args;    /* "MODEL [TEXT]", for the usage line */
    const char *summary; /* one line, imperative, ends with a full stop */
    const char *more;    /* further help text, or NULL */
    const struct opt *opts;
    unsigned n_opts;
    int min_args, max_args; /* positionals; max -1 = any */
};

/* Exit codes that every command shares; a command's own are documented in its help. */
enum { EXIT_OK = 0, EXIT_FAIL = 1, EXIT_USAGE = 2 };

/*
 * Parses argv[1..]. Returns the index of the first positional in argv (options are moved
 * before them), or -1 when the command should end: *exit_code then says how (0 after
 * --help, EXIT_USAGE after a sentence on stderr). "--" ends the options; with stop_early
 * so does the first positional (for commands that carry another command line).
 */
NODISCARD int opt_parse(const struct opt_cmd *cmd, int argc, char **argv, bool stop_early,
                        int *exit_code);
/* The --help text to stdout. */
void opt_help(const struct opt_cmd *cmd);

/* The end of a main(): `code`, or EXIT_FAIL with a sentence when standard output, whole or in
 * part, could not be written. */
int opt_end(const char *program, int code);

#endif
