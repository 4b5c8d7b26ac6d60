/* rpc_changes.c - session.changes: the layer above a copy workspace, for whoever takes it over. */
#include "agentd/layer.h"
#include "agentd/policy.h"
#include "agentd/rpc_in.h"
#include "agentd/session.h"
#include "agentd/toolrun.h"

/* The session's tools, where its policy keeps a copy; fails the call itself. */
static int tools_of(struct rpc_call *c, struct session **s)
{
    struct err err = {0};
    if (rpc_session_of(c, s))
        return c->code;
    if (session_tools(*s, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    if (!(*s)->tools || !(*s)->policy || (*s)->policy->spec.work != SANDBOX_WORK_COPY ||
        (*s)->no_sandbox)
        return rpc_fail(c, RPC_PARAMS, "this session edits its workspace in place; only a policy "
                        "with workspace: copy keeps changes apart");
    return 0;
}

int rpc_session_changes(struct rpc_call *c)
{
    struct session *s;
    struct err err = {0};
    struct str action = json_view(json_object_get(c->params, "action"));
    const json_t *paths = json_object_get(c->params, "paths");
    bool list = action.n == 0 || str_is(action, "list"), apply = str_is(action, "apply");
    if (!list && !apply && !str_is(action, "drop"))
        return rpc_fail(c, RPC_PARAMS, "action must be list, apply or drop");
    if (tools_of(c, &s))
        return c->code;
    if (!list && (s->turn || toolrun_busy(s->tools)))
        return rpc_fail(c, RPC_TURN_ACTIVE, "a call is running; wait for its end");
    int64_t since;
    int layer = toolrun_layer(s->tools, &since);
    if (list) {
        c->result = layer_list(layer, s->cwd, since, &err);
    } else if (apply) {
        c->result = layer_apply(layer, s->cwd, since, paths,
                                json_is_true(json_object_get(c->params, "force")), &err);
        toolrun_layer_taken(s->tools);
    } else {
        toolrun_drop_layer(s->tools);
        c->result = json_object();
    }
    return c->result ? 0 : rpc_fail(c, RPC_INTERNAL, "%s", err.text);
}
