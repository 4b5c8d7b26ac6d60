/*
 * config.h - how we run: every key in one table with type, range, default and doc. Unknown
 * keys are errors with a line number, `agentd --explain-config` prints the table.
 */
#ifndef AGENTD_CONFIG_H
#define AGENTD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"

enum config_sync { CONFIG_SYNC_NORMAL, CONFIG_SYNC_FULL };
enum config_unattended { CONFIG_WAIT, CONFIG_DENY, CONFIG_FAIL };
enum config_recall { CONFIG_RECALL_WORKSPACE, CONFIG_RECALL_SESSION };
enum config_sandbox { CONFIG_SANDBOX_REQUIRED, CONFIG_SANDBOX_OFF };

struct config {
    struct arena arena; /* owned: every string below lives here */
    const char *socket_path; /* "" = the default place */
    const char *socket_uids; /* further peers: numbers with spaces between */
    int64_t socket_stall_ms;
    const char *store_dir;
    int64_t store_sync, store_max_bytes, store_transcripts;
    bool store_network_fs;
    const char *engine_spec;
    int64_t engine_threads, engine_context, engine_batch, engine_cache_bytes, engine_repeat;
    const char *engine_model, *engine_key_file;
    bool idle_prefill, constrain;
    int64_t engine_timeout_ms, engine_stall_ms, engine_retries;
    const char *agent_profile, *policy_dir, *agent_index, *agent_search;
    const char *agent_tools, *agent_cassette;
    int64_t sandbox, unattended, recall, approval_ms, grace_ms;
    const char *log_level;
};

/* Fills in the defaults; then a file's values, when path is not NULL. */
NODISCARD int config_load(struct config *c, const char *path, struct err *err);
/* One value, as `key=value` on the command line. */
NODISCARD int config_set(struct config *c, const char *key, const char *value,
                         struct err *err);
void config_done(struct config *c);
/* The table, as a commented YAML file that loads to the defaults. */
void config_explain(FILE *to);

#endif
