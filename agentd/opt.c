/* opt.c - getopt_long driven by tables. */
#include "agentd/opt.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

enum { MAX_OPTS = 48, FIRST_LONG = 256, HELP = 'h' };

static void print_column(const struct opt *o)
{
    char left[64];
    int n = o->letter ? snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name)
                      : snprintf(left, sizeof left, "    --%s", o->name);
    if (o->arg && n > 0 && (size_t)n < sizeof left)
        snprintf(left + n, sizeof left - (size_t)n, " %s", o->arg);
    printf("  %-28s %s\n", left, o->help);
}

void opt_help(const struct opt_cmd *cmd)
{
    bool args = cmd->args && *cmd->args;
    struct str more = str_trim(str_c(cmd->more));
    printf("usage: %s [options]%s%s\n\n%s\n", cmd->name, args ? " " : "", args ? cmd->args : "",
           cmd->summary);
    if (more.n)
        printf("\n%.*s\n", STR_ARG(more));
    printf("\noptions:\n");
    for (unsigned i = 0; i < cmd->n_opts; i++)
        print_column(&cmd->opts[i]);
    print_column(&(struct opt){"help", 'h', OPT_FLAG, NULL, NULL, "show this and exit"});
}

static int usage_error(const struct opt_cmd *cmd, int *exit_code)
{
    fprintf(stderr, "try '%s --help'\n", cmd->name);
    *exit_code = EXIT_USAGE;
    return -1;
}

static bool is_word(const char *words, const char *value)
{
    struct str rest = str_c(words), word;
    while (rest.n && str_split(&rest, '|', &word))
        if (str_is(word, value))
            return true;
    return false;
}

static bool store(const struct opt *o, const char *value)
{
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)o->to = true;
        return true;
    case OPT_STR:
        *(const char **)o->to = value;
        return true;
    case OPT_WORD:
        *(const char **)o->to = value;
        return is_word(o->arg, value);
    case OPT_INT:
        return str_to_i64(str_c(value), o->to);
    case OPT_NUM:
        return str_to_f64(str_c(value), o->to);
    case OPT_LIST: {
        struct opt_list *list = o->to;
        if (list->n == OPT_LIST_MAX)
            return false;
        list->item[list->n++] = value;
        return true;
    }
    }
    return false;
}

/* getopt's two spellings of the same table. */
static void spell(const struct opt_cmd *cmd, bool stop_early, char *shorts,
                  struct option *longs)
{
    char *s = shorts;
    *s++ = stop_early ? '+' : ':';
    if (stop_early)
        *s++ = ':';
    *s++ = 'h';
    for (unsigned i = 0; i < cmd->n_opts && i < MAX_OPTS; i++) {
        const struct opt *o = &cmd->opts[i];
        bool has_arg = o->kind != OPT_FLAG;
        longs[i] = (struct option){o->name, has_arg, NULL, FIRST_LONG + (int)i};
        if (o->letter) {
            *s++ = o->letter;
            if (has_arg)
                *s++ = ':';
        }
    }
    longs[cmd->n_opts] = (struct option){"help", 0, NULL, HELP};
    *s = '\0';
}

static const struct opt *find(const struct opt_cmd *cmd, int c)
{
    if (c >= FIRST_LONG)
        return &cmd->opts[c - FIRST_LONG];
    for (unsigned i = 0; i < cmd->n_opts; i++)
        if (cmd->opts[i].letter == c)
            return &cmd->opts[i];
    return NULL;
}

int opt_parse(const struct opt_cmd *cmd, int argc, char **argv, bool stop_early,
              int *exit_code)
{
    char shorts[2 * MAX_OPTS + 4];
    struct option longs[MAX_OPTS + 2] = {{0}};
    spell(cmd, stop_early, shorts, longs);
    optind = 0;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const struct opt *o = find(cmd, c);
        if (c == HELP && !(o && o->letter == HELP)) {
            opt_help(cmd);
            *exit_code = EXIT_OK;
            return -1;
        }
        if (c == '?' || c == ':') {
            const char *what = c == ':' ? "missing value for" : "unknown option";
            if (optopt > 0 && optopt < FIRST_LONG) /* a letter, maybe one of several: -jx */
                fprintf(stderr, "%s: %s '-%c'\n", cmd->name, what, optopt);
            else
                fprintf(stderr, "%s: %s '%s'\n", cmd->name, what, argv[optind - 1]);
            return usage_error(cmd, exit_code);
        }
        if (o && !store(o, optarg)) {
            fprintf(stderr, "%s: --%s cannot be '%s'", cmd->name, o->name, optarg);
            if (o->kind == OPT_WORD)
                fprintf(stderr, "; it is one of %s", o->arg);
            fputc('\n', stderr);
            return usage_error(cmd, exit_code);
        }
    }
    int n = argc - optind;
    if (n < cmd->min_args || (cmd->max_args >= 0 && n > cmd->max_args)) {
        fprintf(stderr, "%s: %s\n", cmd->name,
                n < cmd->min_args ? "an argument is missing" : "too many arguments");
        return usage_error(cmd, exit_code);
    }
    return optind;
}

int opt_end(const char *program, int code)
{
    bool failed = ferror(stdout) != 0; /* whose errno is forgotten */
    if (fflush(stdout) != 0)
        fprintf(stderr, "%s: write to standard output: %s\n", program, strerror(errno));
    else if (failed && code != EXIT_FAIL) /* which has its sentence */
        fprintf(stderr, "%s: not all of standard output could be written\n", program);
    else
        return code;
    return EXIT_FAIL;
}
