/*
 * policy.h - what a session may do, from one YAML file. Every key is a row of a table with
 * its type, range, default and meaning; `explain` prints the rows, so the text cannot drift
 * from the code. An unknown key, a wrong type or a value out of range is an error with file
 * and line. What is not named is denied: an empty file allows nothing.
 */
#ifndef AGENTD_POLICY_H
#define AGENTD_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "sandbox/sandbox.h"

enum policy_decision { POLICY_ALLOW, POLICY_ASK, POLICY_DENY };

enum { POLICY_TOOLS_MAX = 64, POLICY_HOSTS_MAX = 256, POLICY_SECRETS_MAX = 16,
       POLICY_HOOKS_MAX = 8, POLICY_PORTS_MAX = 16 };

struct policy_tool {
    const char *name; /* "*" = every tool without an entry of its own */
    enum policy_decision decision;
    int64_t max_calls;  /* per turn; 0 = the policy's */
    int64_t timeout_ms; /* 0 = the policy's */
};

/* A header that the proxy adds on the way to one host; the value never enters a cell. */
struct policy_secret {
    const char *host, *header;
    const char *prefix;   /* before the value, such as "Bearer " */
    const char *from_env; /* name of a variable of the daemon, or NULL */
    const char *from_file; /* path of a file with the value, or NULL */
    const char *ca_file;   /* certificates that vouch for the host, or NULL: the system's */
    int64_t port;          /* of the host's TLS */
};

struct policy_env {
    const char *name;
    const char *value;    /* literal, or NULL */
    const char *from_env; /* a variable of the daemon, or NULL */
};

struct policy {
    struct arena mem;
    const char *path;
    const char *summary;
    char hash[72];            /* "sha256:..." of the file's bytes */
    struct sandbox_spec spec; /* without workspace and resolved variables */
    bool background;          /* jobs may outlive a call, up to the session's end */
    int64_t wall_ms, wall_max_ms; /* of a call: default, and the most it may ask for */
    int64_t output_bytes;     /* kept of one stream of one call */
    int64_t max_calls;        /* of a turn, all tools together */
    int64_t repeat_nudge, repeat_insist, repeat_pause; /* same call again: how often */
    struct policy_tool tool[POLICY_TOOLS_MAX];
    const char *allow[POLICY_HOSTS_MAX], *deny[POLICY_HOSTS_MAX];
    uint16_t port[POLICY_PORTS_MAX];
    struct policy_secret secret[POLICY_SECRETS_MAX];
    struct policy_env env[SANDBOX_ENV_MAX];
    const char *hook[POLICY_HOOKS_MAX]; /* paths of Lua files */
    unsigned n_tools, n_allow, n_deny, n_ports, n_secrets, n_env, n_hooks;
};

/*
 * Loads a policy by path, or by name ("coding") from `dir` (may be NULL), then from the
 * folders that policy_find() knows. *out is owned: policy_free().
 */
NODISCARD int policy_load(struct policy **out, const char *name, const char *dir,
                          struct err *err);
NODISCARD int policy_read(struct policy **out, const char *path, struct str text,
                          struct err *err);
void policy_free(struct policy *p);

/* The decision for a tool, and its entry (NULL = denied by absence). */
enum policy_decision policy_decide(const struct policy *p, const char *tool,
                                   const struct policy_tool **entry);
const char *policy_decision_name(enum policy_decision d);

/*
 * The cell that this policy describes, for a workspace given by the real path of an existing
 * directory (-ERR_DENIED when a link is on the way; NULL where the policy makes its own).
 * Variables taken from the
 * daemon's environment are read now. Callers may add binds afterwards with policy_bind().
 */
NODISCARD int policy_spec(const struct policy *p, const char *workspace,
                          struct sandbox_spec *out, struct err *err);
NODISCARD int policy_bind(struct sandbox_spec *spec, const char *host, const char *inside,
                          bool write, struct err *err);

/* Every row: key, type or range, default (NULL without one), meaning; borrowed for the call. */
typedef void (*policy_key_cb)(void *arg, const char *key, const char *values,
                              const char *preset, const char *doc);
NODISCARD int policy_each_key(policy_key_cb one, void *arg);
/* The same as text for people. */
void policy_explain(struct buf *out);

/* What it allows, for a reviewer: a line per tool, host, port, secret (never its value), limit
 * of calls, variable and hook, in that order. The cell's own part is spec_text()'s. */
void policy_text(const struct policy *p, struct buf *out);

#endif
