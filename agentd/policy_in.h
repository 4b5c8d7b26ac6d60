/* policy_in.h - between policykeys.c (the table), policylists.c (its readers) and policy.c. */
#ifndef AGENTD_POLICY_IN_H
#define AGENTD_POLICY_IN_H

#include "agentd/policy.h"
#include "agentd/yaml.h"

struct policy_ctx { /* a file being read */
    struct policy *p;
    const struct yaml *y;
    struct err *err;
};

extern const char *const policylist_decisions[]; /* by enum policy_decision; ends with NULL */

/* Each takes one key's value into c->p; 0, or -ERR_PARSE naming file, line and remedy. */
int policylist_paths_ro(struct policy_ctx *c, const struct yaml_node *n);
int policylist_paths_rw(struct policy_ctx *c, const struct yaml_node *n);
int policylist_env(struct policy_ctx *c, const struct yaml_node *n);
int policylist_tools(struct policy_ctx *c, const struct yaml_node *n);
int policylist_allow(struct policy_ctx *c, const struct yaml_node *n);
int policylist_deny(struct policy_ctx *c, const struct yaml_node *n);
int policylist_ports(struct policy_ctx *c, const struct yaml_node *n);
int policylist_secrets(struct policy_ctx *c, const struct yaml_node *n);
int policylist_hooks(struct policy_ctx *c, const struct yaml_node *n);
int policylist_calls(struct policy_ctx *c, const struct yaml_node *n);

/* A copy in the policy's own memory. */
const char *policylist_keep(struct policy_ctx *c, struct str s);
int policylist_need_kind(struct policy_ctx *c, const struct yaml_node *n, enum yaml_kind kind);
/* "unknown key" of what `where` says. */
int policylist_unknown(struct policy_ctx *c, const struct yaml_node *n, const char *where);

#endif
