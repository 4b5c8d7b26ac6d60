/* config.c - the table of keys, and reading a file through it. */
#include "agentd/config.h"

#include <stddef.h>
#include <string.h>

#include "agentd/yaml.h"
#include "base/buf.h"

enum type { TEXT, BOOL, INT, SIZE, DURATION, CHOICE };

static const char *const sync_names[] = {"normal", "full", NULL};
static const char *const unattended_names[] = {"wait", "deny", "fail", NULL};
static const char *const recall_names[] = {"workspace", "session", NULL};
static const char *const sandbox_names[] = {"required", "off", NULL};

static const struct key {
    const char *name; /* section.key */
    enum type type;
    size_t at;           /* offset in struct config */
    int64_t lo, hi;      /* INT, SIZE (bytes), DURATION (ms) */
    const char *initial; /* as it would stand in a file */
    const char *const *choices;
    const char *doc;
} keys[] = {
#define AT(field) offsetof(struct config, field)
    {"socket.path", TEXT, AT(socket_path), 0, 0, "", NULL,
     "where clients connect; empty = $XDG_RUNTIME_DIR/agentd/agentd.sock"},
    {"socket.allow_uids", TEXT, AT(socket_uids), 0, 0, "", NULL,
     "user ids besides the daemon's own and root that may connect, separated by spaces"},
    {"socket.stall", DURATION, AT(socket_stall_ms), 100, 3600000, "30s", NULL,
     "a client whose full output queue does not move for so long is disconnected"},
    {"store.dir", TEXT, AT(store_dir), 0, 0, "", NULL,
     "database, blobs and KV snapshots; empty = $STATE_DIRECTORY or ~/.local/state/agentd"},
    {"store.sync", CHOICE, AT(store_sync), 0, 0, "normal", sync_names,
     "normal survives a killed daemon, full also a power cut, at one fsync a commit"},
    {"store.max_bytes", SIZE, AT(store_max_bytes), 0, (int64_t)1 << 46, "0", NULL,
     "cap of the database file; 0 = none; above it requests get store_error"},
    {"store.transcripts", SIZE, AT(store_transcripts), 0, (int64_t)1 << 46, "64M", NULL,
     "memory for the transcripts of idle sessions; above it they are read from the log again"},
    {"store.allow_network_fs", BOOL, AT(store_network_fs), 0, 0, "false", NULL,
     "run on NFS, SMB and the like although SQLite's locks are not safe there"},
    {"engine.spec", TEXT, AT(engine_spec), 0, 0, "", NULL,
     "native:PATH (GGUF file or safetensors folder), script:FILE or remote:URL"},
    {"engine.threads", INT, AT(engine_threads), 0, 1024, "0", NULL,
     "worker threads; 0 = cores allowed to the process"},
    {"engine.context", INT, AT(engine_context), 0, 1 << 24, "0", NULL,
     "longest context in tokens; 0 = the model's"},
    {"engine.batch", INT, AT(engine_batch), 0, 65536, "0", NULL,
     "rows of one step; 0 = the engine's choice"},
    {"engine.cache", SIZE, AT(engine_cache_bytes), 0, (int64_t)1 << 46, "0", NULL,
     "memory for KV pages; 0 = a quarter of the machine's"},
    {"engine.idle_prefill", BOOL, AT(idle_prefill), 0, 0, "true", NULL,
     "after an answer, compute the history without its reasoning while nobody asks"},
    {"engine.constrain", BOOL, AT(constrain), 0, 0, "true", NULL,
     "native: sample calls only as the tools' schemas allow them"},
    {"engine.repeat", INT, AT(engine_repeat), 0, 1 << 20, "1024", NULL,
     "native: a reply whose last so many tokens are one block of 1 to 64 over and over ends there; "
     "0 = never"},
    {"engine.model", TEXT, AT(engine_model), 0, 0, "deepseek-reasoner", NULL,
     "remote: the model's name in requests"},
    {"engine.key_file", TEXT, AT(engine_key_file), 0, 0, "", NULL,
     "remote: file with the bearer token, readable by its owner alone"},
    {"engine.timeout", DURATION, AT(engine_timeout_ms), 1000, 86400000, "1h", NULL,
     "remote: longest duration of one request"},
    {"engine.stall", DURATION, AT(engine_stall_ms), 100, 3600000, "5m", NULL,
     "remote: longest silence within one request"},
    {"engine.retries", INT, AT(engine_retries), 0, 20, "4", NULL,
     "further tries after a failure that may pass, with growing pauses"},
    {"agent.profile", TEXT, AT(agent_profile), 0, 0, "general", NULL,
     "profile of sessions that name none"},
    {"agent.policies", TEXT, AT(policy_dir), 0, 0, "", NULL,
     "folder of policy files; empty = the ones installed with agentd"},
    {"agent.index", TEXT, AT(agent_index), 0, 0, "", NULL,
     "local search index made by `agentctl index add`; empty = none"},
    {"agent.tools", TEXT, AT(agent_tools), 0, 0, "", NULL,
     "folder of tools declared in Lua files; empty = none"},
    {"agent.search", TEXT, AT(agent_search), 0, 0, "", NULL,
     "YAML file of web search providers; empty = none"},
    {"agent.cassette", TEXT, AT(agent_cassette), 0, 0, "", NULL,
     "record:FILE keeps what search and open fetch, replay:FILE answers from it; empty = neither"},
    {"agent.sandbox", CHOICE, AT(sandbox), 0, 0, "required", sandbox_names,
     "off runs tools unconfined: for machines that cannot confine and tasks that are trusted"},
    {"agent.unattended", CHOICE, AT(unattended), 0, 0, "wait", unattended_names,
     "an approval is asked and no client watches: wait for one, deny, or fail the turn"},
    {"agent.recall", CHOICE, AT(recall), 0, 0, "workspace", recall_names,
     "what the tool recall may read: earlier sessions of the same person and folder, or its own"},
    {"agent.approval", DURATION, AT(approval_ms), 1000, 604800000, "24h", NULL,
     "how long an approval may wait before it counts as denied"},
    {"agent.grace", DURATION, AT(grace_ms), 0, 60000, "2s", NULL,
     "how long running tools may go on after a soft interrupt"},
    {"log.level", TEXT, AT(log_level), 0, 0, "info", NULL, "error, warn, info or debug"},
#undef AT
};

static void *field(struct config *c, const struct key *k)
{
    return (char *)c + k->at;
}

static int set(struct config *c, const struct key *k, const struct yaml *y,
               const struct yaml_node *n, struct err *err)
{
    struct str text;
    int choice = 0, rc;
    uint64_t size = 0;
    switch (k->type) {
    case TEXT:
        rc = yaml_text(y, n, &text, err);
        if (rc == 0) {
            char *copy = arena_strdup(&c->arena, text);
            if (!copy)
                return err_nomem(err);
            *(const char **)field(c, k) = copy;
        }
        return rc;
    case BOOL:
        return yaml_bool(y, n, field(c, k), err);
    case INT:
        return yaml_int(y, n, k->lo, k->hi, field(c, k), err);
    case SIZE:
        rc = yaml_size(y, n, (uint64_t)k->lo, (uint64_t)k->hi, &size, err);
        if (rc == 0)
            *(int64_t *)field(c, k) = (int64_t)size;
        return rc;
    case DURATION:
        return yaml_duration(y, n, k->lo, k->hi, field(c, k), err);
    case CHOICE:
        rc = yaml_choice(y, n, k->choices, &choice, err);
        if (rc == 0)
            *(int64_t *)field(c, k) = choice;
        return rc;
    }
    return 0;
}

static const struct key *find(struct str section, struct str key)
{
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        struct str rest = str_c(keys[i].name), head;
        str_split(&rest, '.', &head);
        if (str_eq(head, section) && (!key.p || str_eq(rest, key)))
            return &keys[i];
    }
    return NULL;
}

static int read_tree(struct config *c, const struct yaml *y, struct err *err)
{
    const struct yaml_node *root = yaml_root(y);
    if (root->kind != YAML_MAP)
        return yaml_fail(y, root, err, "a configuration is a map of sections");
    for (const struct yaml_node *s = root->first; s; s = s->next) {
        if (!find(s->key, (struct str){0}))
            return yaml_fail(y, s, err, "unknown section '%s'; agentd --explain-config lists them",
                             s->key.p);
        if (s->kind != YAML_MAP && !(s->kind == YAML_SCALAR && !s->text.n))
            return yaml_fail(y, s, err, "section '%s' must be a map of keys", s->key.p);
        for (const struct yaml_node *n = s->first; n; n = n->next) {
            const struct key *k = find(s->key, n->key);
            if (!k)
                return yaml_fail(y, n, err,
                                 "unknown key '%s.%s'; agentd --explain-config lists them",
                                 s->key.p, n->key.p);
            int rc = set(c, k, y, n, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int set_text(struct config *c, const struct key *k, const char *value, struct err *err)
{
    struct yaml *y = NULL;
    struct buf b;
    struct str rest = str_c(k->name), section;
    buf_init(&b, 65536);
    str_split(&rest, '.', &section);
    buf_printf(&b, "%.*s:\n  %.*s: %s\n", STR_ARG(section), STR_ARG(rest),
               *value ? value : "\"\"");
    int rc = buf_check(&b, k->name, err);
    if (rc == 0)
        rc = yaml_read(&y, k->name, buf_view(&b), err);
    if (rc == 0)
        rc = read_tree(c, y, err);
    yaml_close(y);
    buf_done(&b);
    return rc;
}

int config_set(struct config *c, const char *key, const char *value, struct err *err)
{
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        if (strcmp(keys[i].name, key) == 0)
            return set_text(c, &keys[i], value, err);
    return err_set(err, ERR_NOTFOUND, "unknown key '%s'; agentd --explain-config lists them",
                   key);
}

int config_load(struct config *c, const char *path, struct err *err)
{
    struct yaml *y = NULL;
    int rc = 0;
    memset(c, 0, sizeof *c);
    arena_init(&c->arena, 1 << 20);
    for (unsigned i = 0; rc == 0 && i < ARRAY_LEN(keys); i++)
        rc = set_text(c, &keys[i], keys[i].initial, err);
    if (rc == 0 && path)
        rc = yaml_load(&y, path, err);
    if (rc == 0 && path)
        rc = read_tree(c, y, err);
    yaml_close(y);
    if (rc < 0)
        config_done(c);
    return rc;
}

void config_done(struct config *c)
{
    arena_done(&c->arena);
    memset(c, 0, sizeof *c);
}

void config_explain(FILE *to)
{
    struct str section = {0};
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        struct str rest = str_c(keys[i].name), head;
        str_split(&rest, '.', &head);
        if (!str_eq(head, section))
            fprintf(to, "%s%.*s:\n", i ? "\n" : "", STR_ARG(head));
        section = head;
        fprintf(to, "  # %s", keys[i].doc);
        for (const char *const *p = keys[i].choices; p && *p; p++)
            fprintf(to, "%s%s", p == keys[i].choices ? "; one of " : ", ", *p);
        if (keys[i].type == INT)
            fprintf(to, "; %lld to %lld", (long long)keys[i].lo, (long long)keys[i].hi);
        const char *initial = keys[i].initial;
        fprintf(to, "\n  %.*s: %s\n", STR_ARG(rest), *initial ? initial : "\"\"");
    }
}
