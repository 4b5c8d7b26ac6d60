/* ctl_model.h - the subcommands of `agentctl model` that live in files of their own. */
#ifndef AGENTD_CTL_MODEL_H
#define AGENTD_CTL_MODEL_H

#include <stdint.h>

#include "base/err.h"

int ctl_model_tokenize(int argc, char **argv);
int ctl_model_logits(int argc, char **argv);
int ctl_model_generate(int argc, char **argv);

/* An option whose value is a word of a list that ends with a NULL name. */
struct ctl_choice {
    const char *name;
    int value;
};
extern const struct ctl_choice ctl_cache_choices[];
/* 0 and *out, or -1 after a sentence on stderr. */
int ctl_choose(const struct ctl_choice *c, const char *option, const char *text,
               int *out);
struct ctl_range {
    const char *option;
    double value, lo, hi;
};
/* The same for numbers: the first that is out of range, or no number, is named. */
int ctl_ranges(const struct ctl_range *r, unsigned n);
/* "1,2,3": ids are owned by the caller, on failure too. */
NODISCARD int ctl_parse_ids(const char *text, int32_t **ids, uint32_t *n,
                            struct err *err);

#endif
