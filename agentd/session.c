/* session.c - sessions: made, found, logged, forgotten. */
#include "agentd/session.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/crash.h"
#include "agentd/log.h"
#include "agentd/loop.h"
#include "agentd/policy.h"
#include "agentd/toolrun.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

static const struct {
    const char *name;
    enum session_approval value;
} approvals[] = {
    {"never", APPROVE_NEVER}, {"on_escalation", APPROVE_ESCALATION}, {"always", APPROVE_ALWAYS},
};

/* A key that nobody reads is a typing mistake: it is told, not passed over. */
static int known_keys(const json_t *o, const char *what, const char *const *keys, unsigned n,
                      struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        unsigned i = 0;
        while (i < n && strcmp(key, keys[i]) != 0)
            i++;
        if (i == n)
            return err_set(err, ERR_PARSE, "%s has no '%.60s'", what, key);
    }
    return 0;
}

int session_read_budget(struct budget *b, const json_t *limits, struct err *err)
{
    static const char *const keys[] = {"maxSteps", "maxTokens", "maxSeconds", "maxThinking",
                                       "reserve"};
    const int64_t most = (int64_t)1 << 40;
    int64_t *const to[] = {&b->max_steps, &b->max_tokens, &b->max_seconds, &b->think_max,
                           &b->reserve};
    const int64_t least[] = {1, 1, 1, 0, 0}, highest[] = {1000000, most, 1000000000, most, most};
    int rc = known_keys(limits, "limits", keys, ARRAY_LEN(keys), err);
    for (unsigned i = 0; rc == 0 && i < ARRAY_LEN(keys); i++) {
        int64_t v = *to[i];
        bool given = json_object_get(limits, keys[i]);
        rc = json_opt_int(limits, keys[i], INT64_MIN, INT64_MAX, &v, err);
        /* There is no "unlimited": a budget only narrows what the profile has. */
        if (rc == 0 && given && (v < least[i] || v > highest[i]))
            return err_set(err, ERR_PARSE, "limits: %s is %lld; it must be %lld to %lld, and 0 is "
                           "not unlimited: leave it out for the profile's own budget",
                           keys[i], (long long)v, (long long)least[i], (long long)highest[i]);
        *to[i] = v;
    }
    return rc;
}

/* A share or the like; what is not given stays as it was, below 0 for "the engine's own". */
static int read_from_0(const json_t *o, const char *key, double most, double *out, struct err *err)
{
    int rc = json_opt_num(o, key, out, err);
    if (rc == 0 && json_is_number(json_object_get(o, key)) && !(*out >= 0 && *out <= most))
        return err_set(err, ERR_LIMIT, "sampling: %s is %g; it goes from 0 to %g", key, *out, most);
    return rc;
}

static int read_sampling(struct infer_sampling *p, const json_t *o, struct err *err)
{
    static const char *const keys[] = {"temperature", "topP", "minP", "topK", "seed"};
    int64_t seed = (int64_t)p->seed;
    int rc = known_keys(o, "sampling", keys, ARRAY_LEN(keys), err);
    if (rc == 0)
        rc = read_from_0(o, keys[0], 5, &p->temperature, err);
    if (rc == 0)
        rc = read_from_0(o, keys[1], 1, &p->top_p, err);
    if (rc == 0)
        rc = read_from_0(o, keys[2], 1, &p->min_p, err);
    if (rc == 0)
        rc = json_opt_int(o, keys[3], 0, 1 << 20, &p->top_k, err);
    if (rc == 0)
        rc = json_opt_int(o, keys[4], 0, INT64_MAX, &seed, err);
    p->seed = (uint64_t)seed;
    return rc;
}

static int read_choices(struct session *s, const json_t *c, struct err *err)
{
    struct str approval = {0}, strategy = {0}, sandbox = {0};
    s->copy = false;
    int rc = json_opt_str(c, "approvalPolicy", &approval, err);
    if (rc == 0)
        rc = json_opt_bool(c, "copy", &s->copy, err);
    if (rc == 0)
        rc = json_opt_str(c, "contextStrategy", &strategy, err);
    if (rc == 0)
        rc = json_opt_str(c, "sandbox", &sandbox, err);
    if (rc < 0)
        return rc;
    bool known = !approval.n;
    for (unsigned i = 0; i < ARRAY_LEN(approvals); i++)
        if (str_is(approval, approvals[i].name)) {
            s->approval = approvals[i].value;
            known = true;
        }
    if (!known)
        return err_set(err, ERR_PARSE, "approvalPolicy is never, on_escalation or always");
    if (strategy.n && !strategy_parse(strategy, &s->first))
        return err_set(err, ERR_PARSE, "contextStrategy is none, discard-tools, discard-all or "
                                       "summary");
    if (strategy.n)
        s->then = s->first == STRATEGY_NONE ? STRATEGY_NONE : STRATEGY_DISCARD_ALL;
    if (sandbox.n && !str_is(sandbox, "off") && !str_is(sandbox, "required"))
        return err_set(err, ERR_PARSE, "sandbox is required or off");
    if (str_is(sandbox, "off") && s->d->config.sandbox != CONFIG_SANDBOX_OFF)
        return err_set(err, ERR_DENIED, "sandbox off is not allowed here; the daemon's "
                                        "configuration must say agent.sandbox: off");
    s->no_sandbox = str_is(sandbox, "off") ||
                    (!sandbox.n && s->d->config.sandbox == CONFIG_SANDBOX_OFF);
    return 0;
}

/* The configuration object into fields; called again after each update. */
static int read_config(struct session *s, struct err *err)
{
    json_t *c = s->config, *limits = NULL, *sampling = NULL;
    struct str profile = str_c(s->d->config.agent_profile), cwd = {0}, system;
    int rc = json_opt_str(c, "profile", &profile, err);
    if (rc < 0)
        return rc;
    s->profile = profile_find(profile);
    if (!s->profile)
        return err_set(err, ERR_NOTFOUND, "there is no profile '%.*s'", STR_ARG(profile));
    system = str_c(s->profile->system);
    s->thinking = s->profile->thinking;
    s->keep = s->profile->keep;
    s->sampling = s->profile->sampling;
    s->budget = s->profile->budget;
    s->first = s->profile->first;
    s->then = s->profile->then;
    s->approval = APPROVE_ESCALATION;
    rc = json_opt_str(c, "cwd", &cwd, err);
    if (rc == 0)
        rc = json_opt_str(c, "system", &system, err);
    if (rc == 0)
        rc = json_opt_bool(c, "thinking", &s->thinking, err);
    if (rc == 0)
        rc = json_opt_obj(c, "limits", &limits, err);
    if (rc == 0)
        rc = json_opt_obj(c, "sampling", &sampling, err);
    if (rc == 0)
        rc = session_read_budget(&s->budget, limits, err);
    if (rc == 0)
        rc = read_sampling(&s->sampling, sampling, err);
    if (rc == 0)
        rc = read_choices(s, c, err);
    if (rc < 0)
        return rc;
    if (cwd.n && cwd.p[0] != '/')
        return err_set(err, ERR_PARSE, "cwd must be an absolute path");
    char *own_cwd = mem_strdup(cwd), *own_system = mem_strdup(system);
    if (!own_cwd || !own_system) {
        mem_free(own_cwd);
        mem_free(own_system);
        return err_nomem(err);
    }
    mem_free(s->cwd);
    mem_free(s->system);
    s->cwd = own_cwd;
    s->system = own_system;
    return session_toolset(s, err);
}

/* Takes config. */
static int session_new(struct session **out, struct daemon *d, const char *id, json_t *config,
                       struct err *err)
{
    struct session *s = mem_zalloc(sizeof *s);
    if (!s || !config) {
        mem_free(s);
        json_decref(config);
        return err_nomem(err);
    }
    s->d = d;
    s->config = config;
    snprintf(s->id, sizeof s->id, "%s", id);
    arena_init(&s->arena, 0);
    arena_init(&s->schema_text, 0);
    buf_init(&s->steers, LIMIT_LINE_BYTES);
    s->used_ns = io_mono_ns();
    s->loaded = true;
    int rc = read_config(s, err);
    if (rc < 0) {
        session_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

static void enlist(struct session *s)
{
    s->next = s->d->sessions;
    s->d->sessions = s;
    s->d->n_sessions++;
}

void session_free(struct session *s)
{
    if (!s)
        return;
    for (struct session **at = &s->d->sessions; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            s->d->n_sessions--;
            break;
        }
    loop_drop(s->turn);
    if (s->watch)
        loop_delegate_ended(s, NULL);
    if (s->warm)
        infer_abandon(s->warm);
    session_tools_close(s);
    session_empty(s);
    json_decref(s->config);
    json_decref(s->tool_names);
    json_decref(s->client_tools);
    buf_done(&s->steers);
    mem_free(s->cwd);
    mem_free(s->system);
    mem_free(s);
}

void session_free_all(struct daemon *d)
{
    while (d->sessions)
        session_free(d->sessions);
}

/* --- memory ----------------------------------------------------------------------------- */

void session_empty(struct session *s)
{
    arena_done(&s->arena);
    mem_free(s->msg);
    s->msg = NULL;
    s->n_msgs = s->cap_msgs = s->n_gone = s->gone_replies = 0;
    tokens_done(&s->ctx);
    mem_free(s->context.known);
    s->context = (struct context){0};
    buf_reset(&s->steers);
    s->loaded = false;
}

size_t session_bytes(const struct session *s)
{
    return sizeof *s + s->arena.used + s->cap_msgs * sizeof *s->msg +
           s->ctx.cap * sizeof *s->ctx.id + s->context.cap_known * sizeof *s->context.known;
}

/* The idle session unused for longest; only_loaded leaves out those that hold nothing. */
static struct session *oldest(struct daemon *d, const struct session *but, bool only_loaded)
{
    struct session *best = NULL;
    for (struct session *s = d->sessions; s; s = s->next)
        if (s != but && !s->turn && (s->loaded || !only_loaded) &&
            (!best || s->used_ns < best->used_ns))
            best = s;
    return best;
}

void session_trim(struct daemon *d, const struct session *but)
{
    size_t used = 0, most = (size_t)d->config.store_transcripts;
    struct session *s;
    if (store_pending(d->store))
        return;
    while (d->n_sessions >= LIMIT_SESSIONS_LOADED && (s = oldest(d, but, false)))
        session_free(s);
    for (s = d->sessions; s; s = s->next)
        used += session_bytes(s);
    while (used > most && (s = oldest(d, but, true))) {
        used -= session_bytes(s);
        session_empty(s);
        used += session_bytes(s);
    }
}

/* --- made and found --------------------------------------------------------------------- */

/* A link that the person names is followed now, once; later nobody follows any. A folder that
 * is not there yet keeps its name. */
static void resolve_cwd(json_t *config)
{
    char real[PATH_MAX];
    const char *cwd = json_string_value(json_object_get(config, "cwd"));
    if (cwd && cwd[0] == '/' && realpath(cwd, real))
        json_object_set_new(config, "cwd", json_text(str_c(real)));
}

/* What a configuration may hold; `rules` come from answers to approvals. */
static const char *const kept[] = {"cwd",     "profile", "thinking",       "system",
                                   "sandbox", "limits",  "approvalPolicy", "contextStrategy",
                                   "metadata", "sampling", "tools",        "rules",
                                   "copy"};

/* Servers of outside tools cannot be had: to say nothing would promise them. */
static int refuse_mcp(const json_t *params, struct err *err)
{
    const json_t *mcp = json_object_get(params, "mcp");
    bool empty = !mcp || json_is_null(mcp) || (json_is_array(mcp) && !json_array_size(mcp)) ||
                 (json_is_object(mcp) && !json_object_size(mcp));
    if (empty)
        return 0;
    return err_set(err, ERR_PARSE, "mcp: this daemon does not connect to tool servers; declare "
                                   "the functions in `tools` and answer their calls with "
                                   "tool.result");
}

static int create(struct session **out, struct daemon *d, uid_t uid, const json_t *params,
                  json_t *parent, const struct store_idem *idem, struct err *err)
{
    char id[ID_TEXT];
    struct session *s = NULL;
    json_t *config = json_pack("{s:I}", "uid", (json_int_t)uid);
    int rc = refuse_mcp(params, err);
    if (rc < 0) {
        json_decref(config);
        json_decref(parent);
        return rc;
    }
    for (unsigned i = 0; config && i < ARRAY_LEN(kept); i++) {
        json_t *v = json_object_get(params, kept[i]);
        if (v && !json_is_null(v))
            json_object_set(config, kept[i], v);
    }
    if (parent)
        json_object_set_new(config, "parent", parent);
    resolve_cwd(config);
    if (config && !json_object_get(config, "profile"))
        json_object_set_new(config, "profile", json_string(d->config.agent_profile));
    session_trim(d, NULL);
    id_new(id);
    rc = session_new(&s, d, id, config, err);
    if (rc < 0)
        return rc;
    enlist(s);
    s->uid = uid;
    s->created = io_wall_ms();
    char result[128];
    struct store_idem known;
    if (idem) {
        known = *idem;
        snprintf(result, sizeof result, "{\"sessionId\":\"%s\",\"seq\":1}", s->id);
        known.result = str_c(result);
    }
    rc = session_log_idem(s, NULL, "session.created", json_incref(s->config),
                          idem ? &known : NULL, err);
    if (rc < 0) {
        session_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

int session_create(struct session **out, struct daemon *d, uid_t uid, const json_t *params,
                   const struct store_idem *idem, struct err *err)
{
    return create(out, d, uid, params, NULL, idem, err);
}

int session_create_child(struct session **out, struct session *of, const json_t *params,
                         json_t *parent, struct err *err)
{
    return create(out, of->d, (uid_t)of->uid, params, parent, NULL, err);
}

struct loading {
    struct session *s;
    int rc;
    struct err *err;
};

static bool load_one(void *arg, const struct store_event *e)
{
    struct loading *l = arg;
    json_t *data = NULL;
    struct tokens ids = {0};
    l->rc = json_read(&data, e->data, l->err);
    tokens_add(&ids, (const int32_t *)(const void *)e->ids.p,
               (uint32_t)(e->ids.n / sizeof(int32_t)));
    if (l->rc == 0)
        l->rc = session_apply(l->s, e->type, e->turn, e->item, data, &ids, e->bytes, l->err);
    if (l->rc < 0)
        l->rc = err_prefix(l->err, "session %s event %lld", l->s->id, (long long)e->seq);
    json_decref(data);
    tokens_done(&ids);
    crash_here(CRASH_DURING_REPLAY);
    return l->rc == 0;
}

/* Replays the log into a session that holds nothing yet. */
static int replay(struct session *s, struct err *err)
{
    struct loading l = {s, 0, err};
    s->loaded = true;
    int rc = store_read(s->d->store, str_c(s->id), 0, true, load_one, &l, err);
    return rc == 0 ? l.rc : rc;
}

int session_reload(struct session *s, struct err *err)
{
    int rc = store_commit(s->d->store, err);
    if (rc < 0)
        return rc;
    session_empty(s);
    rc = replay(s, err);
    if (rc < 0)
        session_empty(s);
    return rc;
}

static int session_load(struct session **out, struct daemon *d, struct str id, struct err *err)
{
    struct store_session row;
    struct buf text;
    struct session *s = NULL;
    json_t *config = NULL;
    buf_init(&text, LIMIT_JSON_BYTES);
    int rc = store_session(d->store, id, &row, &text, err);
    if (rc == 0)
        rc = json_read(&config, row.config, err);
    if (rc == 0)
        rc = session_new(&s, d, row.id, config, err);
    buf_done(&text);
    if (rc < 0)
        return rc;
    s->uid = row.uid;
    s->created = row.created;
    s->closed = row.closed;
    rc = replay(s, err);
    if (rc < 0) {
        session_free(s);
        return rc;
    }
    s->head = row.head;
    *out = s;
    return 0;
}

int session_whole(struct session **out, struct session *s, struct err *err)
{
    *out = s;
    if (!s->n_gone)
        return 0;
    (void)!store_commit(s->d->store, err); /* a store that cannot be written can be read */
    int rc = session_load(out, s->d, str_c(s->id), err);
    if (rc < 0)
        return rc;
    (*out)->schema = s->schema; /* lent: a copy has no tools of its own */
    (*out)->n_schemas = s->n_schemas;
    return 0;
}

void session_whole_done(struct session *whole, struct session *s)
{
    if (whole == s || !whole)
        return;
    whole->schema = NULL;
    session_free(whole);
}

int session_find(struct session **out, struct daemon *d, struct str id, struct err *err)
{
    struct session *s = d->sessions;
    int rc = 0;
    while (s && !str_is(id, s->id))
        s = s->next;
    if (!s) {
        rc = session_load(&s, d, id, err);
        if (rc < 0)
            return rc;
        enlist(s);
        session_trim(d, s);
    } else if (!s->loaded) {
        rc = session_reload(s, err);
        session_trim(d, s);
    }
    if (rc < 0)
        return rc;
    s->used_ns = io_mono_ns();
    *out = s;
    return 0;
}

/* What was rendered stays right unless the system text, the mode or the tools change. */
static bool same_prompt(const struct session *s, const struct session *old)
{
    return s->profile == old->profile && s->thinking == old->thinking && s->keep == old->keep &&
           strcmp(s->system, old->system) == 0;
}

static bool changed(const json_t *old, const json_t *new, const char *key)
{
    const json_t *a = json_object_get(old, key), *b = json_object_get(new, key);
    return a != b && !(a && b && json_equal((json_t *)(uintptr_t)a, (json_t *)(uintptr_t)b));
}

static int known_changes(const json_t *changes, struct err *err)
{
    const char *key;
    json_t *value;
    int rc = refuse_mcp(changes, err);
    json_object_foreach((json_t *)(uintptr_t)changes, key, value)
    {
        bool known = strcmp(key, "mcp") == 0;
        for (unsigned i = 0; i < ARRAY_LEN(kept); i++)
            known |= strcmp(key, kept[i]) == 0;
        if (rc == 0 && !known)
            rc = err_set(err, ERR_PARSE, "changes: a session has no '%.60s'", key);
    }
    return rc;
}

int session_update(struct session *s, const json_t *changes, struct err *err)
{
    struct session before = *s; /* to compare with; owns nothing */
    int rc = known_changes(changes, err);
    if (rc < 0)
        return rc;
    json_t *merged = json_deep_copy(s->config);
    if (!merged || json_object_update_recursive(merged, (json_t *)(uintptr_t)changes) < 0) {
        json_decref(merged);
        return err_nomem(err);
    }
    before.cwd = mem_strdup(str_c(s->cwd));
    before.system = mem_strdup(str_c(s->system));
    rc = before.cwd && before.system ? 0 : err_nomem(err);
    s->config = merged;
    if (rc == 0)
        rc = read_config(s, err);
    if (rc == 0)
        rc = session_log(s, NULL, NULL, "session.updated", json_deep_copy(changes), err);
    if (rc < 0) {
        struct err ignored;
        s->config = before.config;
        json_decref(merged);
        (void)!read_config(s, &ignored);
    } else {
        bool tools = changed(before.config, merged, "tools");
        json_decref(before.config);
        bool moved = strcmp(s->cwd, before.cwd) != 0 || s->no_sandbox != before.no_sandbox ||
                     s->copy != before.copy;
        if (moved || tools || s->profile != before.profile)
            session_tools_close(s);
        if (!same_prompt(s, &before))
            s->context.valid = CONTEXT_NONE;
    }
    mem_free(before.cwd);
    mem_free(before.system);
    return rc;
}

/* --- the log ---------------------------------------------------------------------------- */

static int log_event(struct session *s, const char *turn, const char *item, const char *type,
                     json_t *data, struct str ids, struct str bytes,
                     const struct store_idem *idem, struct err *err)
{
    struct buf text;
    buf_init(&text, LIMIT_JSON_BYTES);
    int rc = data ? json_write(data, &text, err) : err_nomem(err);
    if (rc == 0) {
        struct store_event e = {
            .session = str_c(s->id),
            .seq = s->head + 1,
            .ts = io_wall_ms(),
            .turn = str_c(turn),
            .item = str_c(item),
            .type = str_c(type),
            .data = buf_view(&text),
            .ids = ids,
            .bytes = bytes,
        };
        rc = store_append(s->d->store, &e, idem, err);
    }
    buf_done(&text);
    if (rc < 0) {
        json_decref(data);
        return rc;
    }
    s->head++;
    struct tokens t = {(int32_t *)(uintptr_t)ids.p, (uint32_t)(ids.n / sizeof(int32_t)), 0, false};
    rc = session_apply(s, str_c(type), str_c(turn), str_c(item), data, &t, bytes, err);
    json_decref(data);
    return rc;
}

int session_log(struct session *s, const char *turn, const char *item, const char *type,
                json_t *data, struct err *err)
{
    return log_event(s, turn, item, type, data, (struct str){0}, (struct str){0}, NULL, err);
}

int session_log_sample(struct session *s, const char *turn, json_t *data,
                       const struct tokens *ids, struct str bytes, struct err *err)
{
    struct str raw = str_of(ids->id, ids->n * sizeof *ids->id);
    return log_event(s, turn, NULL, "usage", data, raw, bytes, NULL, err);
}

int session_log_idem(struct session *s, const char *turn, const char *type, json_t *data,
                     const struct store_idem *idem, struct err *err)
{
    return log_event(s, turn, NULL, type, data, (struct str){0}, (struct str){0}, idem, err);
}
