/* ctl_model.h - the subcommands of `agentctl model` that live in files of their own. */
#ifndef AGENTD_CTL_MODEL_H
#define AGENTD_CTL_MODEL_H

int ctl_model_tokenize(int argc, char **argv);

#endif
