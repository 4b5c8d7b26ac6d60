/*
 * session_toolset.c - `tools` of session.create: which of the profile's tools a session has,
 * and tools that its client declares and carries out.
 *
 * The profile's come first and in its order, so that the beginning of the prompt stays the
 * same; a client's follow in theirs. Their schemas reach the model in the one canonical form.
 */
#include <ctype.h>
#include <string.h>

#include "agentd/jsontext.h"
#include "agentd/session.h"
#include "agentd/toollua.h"
#include "agentd/toolrun.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/schema.h"

enum { NAME_MAX_LEN = 64, SCHEMA_MAX = 65536 };

static bool good_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '_' && s.p[i] != '-')
            return false;
    return s.n > 0 && s.n <= NAME_MAX_LEN;
}

static bool listed(const json_t *names, struct str name)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)names, i, one)
        if (str_eq(json_is_object(one) ? json_view(json_object_get(one, "name")) : json_view(one),
                   name))
            return true;
    return false;
}

static int add_name(struct session *s, struct str name, struct err *err)
{
    const struct tool_profile *p =
        s->profile->tools ? tool_profile_find(str_c(s->profile->tools)) : NULL;
    bool lua = *s->d->config.agent_tools != '\0'; /* those are looked at with the first turn */
    if (!lua && (!p || !tool_profile_has(p, name)))
        return err_set(err, ERR_PARSE, "tools: profile %s has no tool '%.*s'; 'agentctl tool "
                       "list' names them", s->profile->name,
                       (int)(name.n < 60 ? name.n : 60), name.p);
    if (!listed(s->tool_names, name))
        json_array_append_new(s->tool_names, json_text(name));
    return 0;
}

/* {"name", "description"?, "parameters"?}, also inside {"type": "function", "function"}. */
static int add_function(struct session *s, const json_t *o, size_t at, struct err *err)
{
    const json_t *f = json_object_get(o, "function");
    f = f ? f : o;
    struct str name = json_view(json_object_get(f, "name")), what = {0};
    json_t *params = json_object_get(f, "parameters");
    if (!good_name(name))
        return err_set(err, ERR_PARSE, "tools[%zu]: a name has 1 to %d letters, digits, - and _",
                       at, NAME_MAX_LEN);
    if (tool_find(name) || listed(s->client_tools, name))
        return err_set(err, ERR_PARSE, "tools[%zu]: the name '%.*s' is taken", at, STR_ARG(name));
    int rc = json_opt_str(f, "description", &what, err);
    if (rc < 0)
        return err_prefix(err, "tools[%zu]", at);
    if (params && (!json_is_object(params) ||
                   (json_object_get(params, "type") &&
                    !str_is(json_view(json_object_get(params, "type")), "object"))))
        return err_set(err, ERR_PARSE, "tools[%zu]: parameters is a JSON schema of type object",
                       at);
    json_t *own = json_pack("{s:o}", "name", json_text(name));
    if (what.n)
        json_object_set_new(own, "description", json_text(what));
    json_object_set_new(own, "parameters",
                        params ? json_incref(params)
                               : json_pack("{s:s, s:{}}", "type", "object", "properties"));
    json_array_append_new(s->client_tools, own);
    return 0;
}

int session_toolset(struct session *s, struct err *err)
{
    json_t *tools = json_object_get(s->config, "tools"), *one;
    size_t i, names = 0;
    int rc = 0;
    json_decref(s->tool_names);
    json_decref(s->client_tools);
    s->tool_names = s->client_tools = NULL;
    if (!tools || json_is_null(tools))
        return 0;
    if (!json_is_array(tools) || json_array_size(tools) > TOOLSET_MAX)
        return err_set(err, ERR_PARSE, "tools is a list of at most %d names of tools and "
                       "function declarations", TOOLSET_MAX);
    json_array_foreach(tools, i, one)
        names += json_is_string(one);
    if (names || json_array_size(tools) == 0)
        s->tool_names = json_array();
    s->client_tools = json_array();
    json_array_foreach(tools, i, one)
    {
        if (json_is_string(one))
            rc = add_name(s, json_view(one), err);
        else if (json_is_object(one))
            rc = add_function(s, one, i, err);
        else
            rc = err_set(err, ERR_PARSE, "tools[%zu] is neither a name nor a declaration", i);
        if (rc < 0)
            return rc;
    }
    return 0;
}

bool session_client_tool(const struct session *s, struct str name)
{
    return listed(s->client_tools, name);
}

/* The declaration as the model reads it. */
static int schema_text(struct session *s, const json_t *f, struct str *out, struct err *err)
{
    struct buf plain, text;
    buf_init(&plain, SCHEMA_MAX);
    buf_init(&text, 2 * SCHEMA_MAX);
    int rc = json_write(f, &plain, err);
    if (rc == 0)
        rc = jsontext_rewrite(&text, buf_view(&plain), err);
    if (rc == 0)
        rc = buf_check(&text, "a declaration", err);
    const char *copy = rc == 0 ? arena_strdup(&s->schema_text, buf_view(&text)) : NULL;
    *out = str_of(copy, text.len);
    buf_done(&plain);
    buf_done(&text);
    return rc < 0 ? rc : copy ? 0 : err_nomem(err);
}

int session_schemas(struct session *s, struct err *err)
{
    enum { MOST = TOOL_PROFILE_MAX + TOOLLUA_MAX + TOOLSET_MAX };
    const char *schema;
    size_t k;
    json_t *f;
    int rc = 0;
    s->n_schemas = 0;
    s->schema = mem_array(MOST, sizeof *s->schema);
    if (!s->schema)
        return err_nomem(err);
    for (unsigned i = 0; s->tools && i < MOST && toolrun_tool(s->tools, i, &schema); i++)
        s->schema[s->n_schemas++] = str_c(schema); /* byte-stable, as long as s->tools */
    json_array_foreach(s->client_tools, k, f)
    {
        if (rc < 0 || s->n_schemas == MOST)
            break;
        rc = schema_text(s, f, &s->schema[s->n_schemas], err);
        s->n_schemas += rc == 0;
    }
    return rc;
}

int session_client_args(const struct session *s, const char *name, struct str args,
                        struct err *err)
{
    uint32_t first = s->n_schemas - (uint32_t)json_array_size(s->client_tools);
    for (uint32_t i = first; i < s->n_schemas; i++)
        if (str_is(json_view(json_object_get(json_array_get(s->client_tools, i - first), "name")),
                   name)) {
            json_t *parsed = NULL;
            int rc = schema_parse_args(name, s->schema[i].p, args, &parsed, err);
            json_decref(parsed);
            return rc;
        }
    return err_set(err, ERR_NOTFOUND, "there is no tool '%.60s'", name);
}

json_t *session_schemas_json(const struct session *s)
{
    json_t *list = json_array();
    struct err ignored;
    for (uint32_t i = 0; i < s->n_schemas; i++) {
        json_t *f = NULL;
        if (json_read(&f, s->schema[i], &ignored) == 0)
            json_array_append_new(list, json_pack("{s:s, s:o}", "type", "function", "function",
                                                  f));
    }
    return list;
}
