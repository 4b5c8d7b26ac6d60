/* ctl_changes.h - changes of a copy workspace, printed. */
#ifndef AGENTD_CTL_CHANGES_H
#define AGENTD_CTL_CHANGES_H

#include <stdio.h>

#include "base/json.h"

/* The reply of layer_list(): a line each, then the diffs. */
void changes_print(FILE *to, const json_t *reply);
/* The reply of layer_apply(); EXIT_FAIL when something was left. */
int changes_print_taken(FILE *to, const json_t *reply);

#endif
