/* hooks.c - one limited Lua state per file; answers are only ever allowed to narrow. */
#include "agentd/hooks.h"

#include <string.h>

#include "agentd/lua.h"
#include "base/io.h"
#include "base/mem.h"

struct hooks {
    struct luabox *box[POLICY_HOOKS_MAX];
    const char *path[POLICY_HOOKS_MAX]; /* borrowed from the policy */
    unsigned n;
};

static int load(struct hooks *h, const char *path, struct err *err)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    int rc = io_read_file(path, &b, err);
    if (rc == 0)
        rc = luabox_new(&h->box[h->n], NULL, err);
    if (rc == 0) {
        h->path[h->n++] = path;
        rc = luabox_load(h->box[h->n - 1], path, buf_view(&b), err);
    }
    if (rc == 0 && !luabox_has(h->box[h->n - 1], "before_call"))
        rc = err_set(err, ERR_PARSE, "%s defines no function before_call(call)", path);
    buf_done(&b);
    return rc < 0 ? err_prefix(err, "hook") : 0;
}

int hooks_open(struct hooks **out, const struct policy *p, struct err *err)
{
    *out = NULL;
    if (p->n_hooks == 0)
        return 0;
    struct hooks *h = mem_zalloc(sizeof *h);
    if (!h)
        return err_nomem(err);
    for (unsigned i = 0; i < p->n_hooks; i++) {
        int rc = load(h, p->hook[i], err);
        if (rc < 0) {
            hooks_free(h);
            return rc;
        }
    }
    *out = h;
    return 0;
}

void hooks_free(struct hooks *h)
{
    if (!h)
        return;
    for (unsigned i = 0; i < POLICY_HOOKS_MAX; i++)
        luabox_free(h->box[i]);
    mem_free(h);
}

/* What the script returned, as a decision; anything unexpected denies. */
static enum policy_decision answer(const json_t *results, struct str *why)
{
    const json_t *first = json_array_get(results, 0), *second = json_array_get(results, 1);
    static const enum policy_decision all[] = {POLICY_ALLOW, POLICY_ASK, POLICY_DENY};
    *why = json_view(second);
    if (!first || json_is_null(first))
        return POLICY_ALLOW;
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        if (str_is(json_view(first), policy_decision_name(all[i])))
            return all[i];
    *why = STR("its answer is neither allow, ask nor deny");
    return POLICY_DENY;
}

enum policy_decision hooks_decide(struct hooks *h, enum policy_decision table, const char *tool,
                                  const json_t *args, struct buf *reason)
{
    enum policy_decision now = table;
    for (unsigned i = 0; h && i < h->n && now != POLICY_DENY; i++) {
        struct err err = {0};
        struct str why = {0};
        json_t *results = NULL, *call = json_object(), *list = json_array();
        json_object_set_new(call, "tool", json_text(str_c(tool)));
        json_object_set_new(call, "args", json_deep_copy(args));
        json_object_set_new(call, "decision", json_text(str_c(policy_decision_name(now))));
        json_array_append_new(list, call);
        enum policy_decision said = POLICY_DENY;
        if (luabox_call(h->box[i], "before_call", list, &results, &err) < 0)
            why = str_c(err.text);
        else
            said = answer(results, &why);
        if (said > now) {
            const char *name = strrchr(h->path[i], '/');
            now = said;
            buf_reset(reason);
            buf_printf(reason, "hook %s: %.*s", name ? name + 1 : h->path[i],
                       (int)(why.n < 300 ? why.n : 300), why.p ? why.p : "");
        }
        json_decref(results);
        json_decref(list);
    }
    return now;
}
