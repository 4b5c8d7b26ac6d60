/*
 * toolset.c - which tools a session has, with the schemas that its model sees, and whether a call
 * fits them. Nothing is run here.
 */
#include <stdint.h>

#include "agentd/jsontext.h"
#include "agentd/toollua.h"
#include "agentd/toolplace.h"
#include "agentd/toolrun_impl.h"
#include "base/limits.h"
#include "tools/schema.h"

static bool wanted(const struct toolrun *t, struct str name)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)t->o.only, i, one)
        if (str_eq(json_view(one), name))
            return true;
    return !t->o.only;
}

/* A tool that this session has, and the schema it shows; NULL when there is none. */
const struct tool *toolrun_find(const struct toolrun *t, struct str name,
                                    const char **schema)
{
    const struct tool *row = wanted(t, name) ? toollua_find(t->lua, name) : NULL;
    if (!row && wanted(t, name) && tool_profile_has(t->profile, name))
        row = tool_find(name);
    *schema = row ? tool_schema(t->profile, row) : NULL;
    return row;
}

/* What the model wrote: a key twice at any depth counts as its last value. */
int toolset_args(const char *tool, const char *schema, struct str args, json_t **out,
                      struct err *err)
{
    struct buf b;
    buf_init(&b, 2 * LIMIT_ARGUMENTS_BYTES);
    int rc = str_trim(args).n ? jsontext_rewrite(&b, args, err) : 0;
    if (rc < 0)
        rc = err_prefix(err, "%s: the arguments are not valid JSON", tool);
    else
        rc = schema_parse_args(tool, schema, buf_view(&b), out, err);
    buf_done(&b);
    return rc;
}

const struct tool_profile *toolrun_profile(const struct toolrun *t)
{
    return t->profile;
}

const struct tool *toolrun_tool(const struct toolrun *t, unsigned i, const char **schema)
{
    unsigned n = 0, seen = 0;
    while (t->profile->tools[n])
        n++;
    for (unsigned k = 0;; k++) {
        const struct tool *row =
            k < n ? tool_find(str_c(t->profile->tools[k])) : toollua_at(t->lua, k - n);
        if (row && (!wanted(t, str_c(row->name)) || seen++ < i))
            continue;
        *schema = row ? tool_schema(t->profile, row) : NULL;
        return row;
    }
}

bool toolrun_has(const struct toolrun *t, struct str name)
{
    const char *schema;
    return toolrun_find(t, name, &schema) != NULL;
}

json_t *toolrun_schemas(const struct toolrun *t)
{
    struct err ignored = {0};
    const char *schema;
    json_t *v = NULL;
    struct buf b;
    buf_init(&b, 0);
    buf_putc(&b, '[');
    for (unsigned i = 0; toolrun_tool(t, i, &schema); i++)
        buf_printf(&b, "%s{\"type\": \"function\", \"function\": %s}", i ? ", " : "", schema);
    buf_putc(&b, ']');
    if (b.failed || json_read(&v, buf_view(&b), &ignored) < 0)
        v = NULL;
    buf_done(&b);
    return v;
}

bool toolrun_args(const struct toolrun *t, const char *tool, struct str args, json_t **out)
{
    struct err ignored = {0};
    const char *schema;
    return toolrun_find(t, str_c(tool), &schema) &&
           toolset_args(tool, schema, args, out, &ignored) == 0;
}

enum toolrun_verdict toolrun_check(struct toolrun *t, const char *tool, const char *args,
                                   struct buf *why)
{
    json_t *v = NULL;
    if (!toolrun_args(t, tool, str_c(args), &v))
        return TOOLRUN_ALLOW;
    enum toolrun_verdict verdict = toolplace_decide(t->o.policy, t->hooks, tool, v, why);
    json_decref(v);
    return verdict;
}
