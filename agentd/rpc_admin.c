/* rpc_admin.c - the conversation's opening, and how the daemon is doing. */
#include <stdio.h>
#include <unistd.h>

#include "agentd/log.h"
#include "agentd/loop.h"
#include "agentd/rpc_in.h"
#include "base/io.h"
#include "base/limits.h"
#include "tools/tool.h"

int rpc_ping(struct rpc_call *c)
{
    (void)c;
    return 0;
}

int rpc_initialize(struct rpc_call *c)
{
    struct err err;
    int64_t version = 0;
    json_t *client = NULL, *caps = NULL;
    struct str name = STR("?"), ver = STR("");
    int rc = json_need_int(c->params, "protocolVersion", 0, 1000000, &version, &err);
    if (rc == 0)
        rc = json_opt_obj(c->params, "client", &client, &err);
    if (rc == 0)
        rc = json_opt_obj(c->params, "capabilities", &caps, &err);
    if (rc == 0)
        rc = json_opt_str(client, "name", &name, &err);
    if (rc == 0)
        rc = json_opt_str(client, "version", &ver, &err);
    c->peer->deltas = true;
    if (rc == 0)
        rc = json_opt_bool(caps, "deltas", &c->peer->deltas, &err);
    if (rc == 0)
        rc = json_opt_bool(caps, "approvals", &c->peer->approvals, &err);
    if (rc < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_PARAMS);
    if (version != 1) {
        c->details = json_pack("{s:[i]}", "supported", 1);
        return rpc_fail(c, RPC_VERSION_MISMATCH, "protocol version 1 is spoken here, not %lld",
                        (long long)version);
    }
    c->peer->ready = true;
    snprintf(c->peer->client, sizeof c->peer->client, "%.*s/%.*s",
             (int)(name.n < 48 ? name.n : 48), name.p, (int)(ver.n < 32 ? ver.n : 32), ver.p);
    c->result = json_pack(
        "{s:i, s:{s:s, s:s}, s:{s:I, s:I}, s:s, s:{s:i, s:i, s:i, s:i}, s:{s:b, s:b, s:b}}",
        "protocolVersion", 1, "server", "name", "agentd", "version", AGENTD_VERSION, "peer", "uid",
        (json_int_t)conn_uid(c->peer->conn), "pid", (json_int_t)conn_pid(c->peer->conn), "epoch",
        store_epoch(c->d->store), "limits", "lineBytes", LIMIT_LINE_BYTES, "outputBytes",
        LIMIT_OUTPUT_BYTES, "requests", LIMIT_REQUESTS, "subscriptions", LIMIT_SUBSCRIPTIONS,
        "capabilities", "approvals", 1, "steer", 1, "fork", 1);
    return 0;
}

static const char *engine_state(const struct infer *inf)
{
    static const char *const names[] = {"loading", "ready", "dead"};
    return names[infer_state(inf)];
}

/* Where the weights are; a model that fits asks for no experts, and has no hit rate. */
static json_t *weights_of(const struct infer_weights *w)
{
    json_t *o = json_pack("{s:I, s:b, s:I}", "bytes", (json_int_t)w->bytes, "streaming",
                          w->streaming, "pinnedBytes", (json_int_t)w->pinned);
    if (o && w->wanted)
        json_object_update_new(
            o, json_pack("{s:I, s:I, s:f}", "expertBytes", (json_int_t)w->wanted, "readBytes",
                         (json_int_t)(w->wanted - w->present), "hitRate",
                         (double)w->present / (double)w->wanted));
    return o;
}

int rpc_engine_status(struct rpc_call *c)
{
    struct infer *inf = c->d->infer;
    struct infer_load l;
    c->result = json_pack("{s:s, s:f}", "state", engine_state(inf), "progress",
                          infer_progress(inf));
    if (infer_state(inf) == INFER_DEAD)
        json_object_set_new(c->result, "problem", json_text(str_c(infer_problem(inf))));
    if (infer_state(inf) != INFER_READY)
        return 0;
    const struct infer_info *i = infer_info(inf);
    infer_load(inf, &l);
    json_t *more = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:i, s:I, s:I, s:I, s:I}", "kind", i->kind,
        "model", i->name, "fingerprint", i->fingerprint, "context", (int)i->n_ctx, "waiting",
        (int)l.waiting, "running", (int)l.running, "kvBytes", (json_int_t)l.kv_used, "kvLimit",
        (json_int_t)(l.kv_limit > INT64_MAX ? INT64_MAX : l.kv_limit), "kvTimelines",
        (int)l.kv_seqs, "promptTokens", (json_int_t)l.prompt_tokens, "cachedTokens",
        (json_int_t)l.cached_tokens, "completionTokens", (json_int_t)l.completion_tokens, "steps",
        (json_int_t)l.steps);
    json_object_update(c->result, more);
    json_decref(more);
    if (l.weights.bytes)
        json_object_set_new(c->result, "weights", weights_of(&l.weights));
    return 0;
}

int rpc_model_list(struct rpc_call *c)
{
    struct infer *inf = c->d->infer;
    json_t *models = json_array();
    if (infer_state(inf) == INFER_READY) {
        const struct infer_info *i = infer_info(inf);
        json_array_append_new(models, json_pack("{s:s, s:s, s:i}", "id", i->name, "engine",
                                                i->kind, "context", (int)i->n_ctx));
    }
    c->result = json_pack("{s:o}", "models", models);
    return 0;
}

int rpc_tool_list(struct rpc_call *c)
{
    struct str name = str_c(c->d->config.agent_profile);
    struct err err;
    if (json_opt_str(c->params, "profile", &name, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_PARAMS);
    const struct profile *p = profile_find(name);
    if (!p)
        return rpc_fail(c, RPC_PARAMS, "there is no profile '%.*s'", STR_ARG(name));
    const struct tool_profile *tp = p->tools ? tool_profile_find(str_c(p->tools)) : NULL;
    struct buf text;
    json_t *tools = NULL;
    buf_init(&text, 1 << 20);
    if (tp)
        tool_profile_json(tp, &text);
    else
        buf_puts(&text, "[]");
    if (json_read(&tools, buf_view(&text), &err) < 0)
        rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    else
        c->result = json_pack("{s:s, s:o}", "profile", p->name, "tools", tools);
    buf_done(&text);
    return c->code;
}

int rpc_mcp_status(struct rpc_call *c)
{
    c->result = json_pack("{s:[]}", "servers");
    return 0;
}

static int64_t resident_bytes(void)
{
    struct buf b;
    struct err err;
    int64_t pages = 0;
    struct str rest, word = {0};
    buf_init(&b, 4096);
    if (io_read_file("/proc/self/statm", &b, &err) == 0) {
        rest = buf_view(&b);
        str_split(&rest, ' ', &word);
        str_split(&rest, ' ', &word);
        if (!str_to_i64(word, &pages))
            pages = 0;
    }
    buf_done(&b);
    return pages * sysconf(_SC_PAGESIZE);
}

static unsigned running_turns(const struct daemon *d)
{
    unsigned n = 0;
    for (const struct session *s = d->sessions; s; s = s->next)
        n += s->turn != NULL;
    return n;
}

int rpc_daemon_status(struct rpc_call *c)
{
    struct daemon *d = c->d;
    int64_t db, wal, events;
    json_t *profiles = json_array();
    for (unsigned i = 0; profile_at(i); i++)
        json_array_append_new(profiles, json_pack("{s:s, s:s}", "name", profile_at(i)->name,
                                                  "summary", profile_at(i)->summary));
    store_sizes(d->store, &db, &wal, &events);
    unsigned loaded = 0;
    size_t bytes = 0;
    for (const struct session *s = d->sessions; s; s = s->next) {
        loaded += s->loaded;
        bytes += session_bytes(s);
    }
    c->result = json_pack(
        "{s:s, s:I, s:i, s:s, s:s, s:i, s:i, s:i, s:I, s:b, s:{s:s, s:I, s:I, s:I, s:b},"
        " s:{s:i, s:I, s:I}, s:o}",
        "version", AGENTD_VERSION, "uptimeMs",
        (json_int_t)((io_mono_ns() - d->started_ns) / 1000000), "pid", (int)getpid(), "epoch",
        store_epoch(d->store), "engine", engine_state(d->infer), "connections",
        (int)sock_count(d->sock), "sessionsLoaded", (int)d->n_sessions, "turnsRunning",
        (int)running_turns(d), "residentBytes", (json_int_t)resident_bytes(), "draining",
        (int)d->draining, "store", "dir", store_dir(d->store), "databaseBytes", (json_int_t)db,
        "walBytes", (json_int_t)wal, "events", (json_int_t)events, "stuck", (int)d->stuck,
        "transcripts", "loaded", (int)loaded, "bytes", (json_int_t)bytes, "limit",
        (json_int_t)d->config.store_transcripts, "profiles", profiles);
    if (d->stuck)
        json_object_set_new(json_object_get(c->result, "store"), "problem",
                            json_text(str_c(d->stuck_why)));
    if (store_damage(d->store))
        json_object_set_new(json_object_get(c->result, "store"), "damage",
                            json_text(str_c(store_damage(d->store))));
    return 0;
}

int rpc_daemon_drain(struct rpc_call *c)
{
    uid_t uid = conn_uid(c->peer->conn);
    if (uid != 0 && uid != getuid())
        return rpc_fail(c, RPC_FORBIDDEN, "only the daemon's own user may drain it");
    c->d->draining = true;
    LOGI("daemon", "draining turns=%u", running_turns(c->d));
    c->result = json_pack("{s:i}", "running", (int)running_turns(c->d));
    return 0;
}
