/* session_tools.c - the tools of a session: opened once, with their schemas as text. */
#include <stdio.h>
#include <string.h>

#include "agentd/log.h"
#include "agentd/policy.h"
#include "agentd/session.h"
#include "agentd/toollua.h"
#include "agentd/toolrun.h"
#include "base/io.h"
#include "base/mem.h"

/* What earlier calls left: their plan, pages that can be cited, a shell that is gone. */
static void note_calls(struct session *s)
{
    const struct message *from = NULL;
    for (uint32_t i = 0; i < s->n_msgs; i++) {
        const struct message *m = &s->msg[i];
        if (m->role == PROMPT_ASSISTANT)
            from = m;
        for (uint32_t k = 0; m->role == PROMPT_ASSISTANT && k < m->n_calls; k++) {
            if (m->calls[k].answered && strcmp(m->calls[k].name, "plan") == 0)
                toolrun_note_plan(s->tools, str_c(m->calls[k].arguments));
            if (m->calls[k].in_cell)
                toolrun_note_ran(s->tools, m->calls[k].name);
        }
        for (uint32_t k = 0; from && m->role == PROMPT_TOOL && k < from->n_calls; k++)
            if (strcmp(from->calls[k].id, m->call_id) == 0)
                toolrun_note_result(s->tools, from->calls[k].name, m->content);
    }
}

/* Cells as they are made and connections as they end: JSON, its hostile bytes escaped. */
static void log_audit(void *arg, const char *record)
{
    const struct session *s = arg;
    LOGI("audit", "session=%s %s", s->id, record);
}

/* Notes of scope workspace: of this person in this folder. */
static void notes_place(const struct session *s, char *out, size_t size)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *p = s->cwd; *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    snprintf(out, size, "%s/notes/%lld/%016llx", store_dir(s->d->store), (long long)s->uid,
             (unsigned long long)h);
}

static int open_tools(struct session *s, struct err *err)
{
    char state[4096], notes[4200];
    const char *dir = *s->d->config.policy_dir ? s->d->config.policy_dir : NULL;
    size_t i;
    json_t *name;
    if (!*s->cwd)
        return err_set(err, ERR_PARSE, "profile %s has tools: the session needs a cwd",
                       s->profile->name);
    snprintf(state, sizeof state, "%s/sessions/%s", store_dir(s->d->store), s->id);
    int rc = io_make_dirs(state, 0700, err);
    if (rc == 0 && s->n_gone)
        rc = session_reload(s, err); /* note_calls() wants the beginning too */
    if (rc == 0 && !s->policy)
        rc = policy_load(&s->policy, s->profile->policy, dir, err);
    if (rc < 0)
        return rc;
    if (s->copy && s->no_sandbox)
        return err_set(err, ERR_PARSE, "copy: with the sandbox off a workspace is edited in place");
    if (s->copy && s->policy->spec.work == SANDBOX_WORK_DIR) /* narrower, so anybody may ask */
        s->policy->spec.work = SANDBOX_WORK_COPY;
    struct toolrun_opts o = {
        .ev = s->d->ev,
        .spawner = s->no_sandbox ? NULL : s->d->spawner,
        .unconfined = s->no_sandbox,
        .policy = s->policy,
        .profile = s->profile->tools,
        .session = s->id,
        .workspace = s->cwd,
        .state_dir = state,
        .index = *s->d->config.agent_index ? s->d->config.agent_index : NULL,
        .search = *s->d->config.agent_search ? s->d->config.agent_search : NULL,
        .cassette = *s->d->config.agent_cassette ? s->d->config.agent_cassette : NULL,
        .lua_tools = *s->d->config.agent_tools ? s->d->config.agent_tools : NULL,
        .only = s->tool_names,
        .notes_dir = notes,
    };
    notes_place(s, notes, sizeof notes);
    o.hook = session_hook;
    o.unhook = session_unhook;
    o.hook_arg = s;
    o.audit = log_audit;
    rc = toolrun_open(&s->tools, &o, err);
    if (rc < 0)
        return rc;
    json_array_foreach(s->tool_names, i, name)
        if (!toolrun_has(s->tools, json_view(name)))
            return err_set(err, ERR_PARSE, "tools: profile %s has no tool '%s'",
                           s->profile->name, json_string_value(name));
    note_calls(s);
    return 0;
}

int session_tools(struct session *s, struct err *err)
{
    bool own = s->profile->tools && (!s->tool_names || json_array_size(s->tool_names));
    int rc = 0;
    if (s->schema || (!own && !json_array_size(s->client_tools)))
        return 0;
    if (own)
        rc = open_tools(s, err);
    if (rc == 0)
        rc = session_schemas(s, err);
    if (rc == 0)
        s->grammar = infer_grammar_new(s->schema, s->n_schemas);
    s->context.valid = CONTEXT_NONE;
    if (rc < 0)
        session_tools_close(s);
    return rc;
}

void session_tools_close(struct session *s)
{
    toolrun_close(s->tools);
    policy_free(s->policy);
    infer_grammar_unref(s->grammar);
    mem_free(s->schema);
    arena_done(&s->schema_text);
    s->tools = NULL;
    s->policy = NULL;
    s->grammar = NULL;
    s->schema = NULL;
    s->n_schemas = 0;
    s->context.valid = CONTEXT_NONE;
}
