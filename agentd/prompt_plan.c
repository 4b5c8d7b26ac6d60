/*
 * prompt_plan.c - which message is written where: folds system text that would otherwise land
 * inside a thought, and puts tool results into the order of their calls. Writes nothing.
 */
#include <string.h>

#include "agentd/prompt_out.h"

int prompt_refuse(struct render *r, enum prompt_code code, const char *why)
{
    r->out->code = code;
    return err_set(r->err, ERR_PARSE, "message %u: %s", r->out->bad_msg, why);
}

static bool hosts_system_text(enum prompt_role role)
{
    return role == PROMPT_USER || role == PROMPT_DEVELOPER || role == PROMPT_TOOL;
}

/* One item per message, but system text behind a user message or result joins it. */
static int fold(struct render *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct prompt_item *host = r->n_items ? &r->item[r->n_items - 1] : NULL;
        if (r->msg[i].role == PROMPT_SYSTEM && host
            && hosts_system_text(r->msg[host->msg].role)) {
            if (i >= r->o->n_context && host->msg < r->o->n_context) {
                r->out->bad_msg = i;
                return prompt_refuse(r, PROMPT_SYSTEM_AFTER_CONTEXT,
                                     "system text belongs into the message before it, which "
                                     "was rendered earlier; render both together");
            }
            host->n_folded++;
            continue;
        }
        r->item[r->n_items++] = (struct prompt_item){.msg = i};
    }
    return 0;
}

/* The call that a result answers: its place from 1, or 0. */
static uint32_t call_of(const struct prompt_msg *caller, struct str id)
{
    for (uint32_t k = 0; k < caller->n_calls; k++)
        if (str_eq(caller->calls[k].id, id))
            return k + 1;
    return 0;
}

/* Sorts the n results at `from` by the place of their call; insertion keeps it obvious. */
static int pair(struct render *r, uint32_t from, uint32_t n, const struct prompt_msg *caller)
{
    struct prompt_item *run = r->item + from;
    for (uint32_t i = 0; i < n; i++) {
        struct prompt_item x = run[i];
        r->out->bad_msg = x.msg;
        x.ordinal = call_of(caller, r->msg[x.msg].call_id);
        if (!x.ordinal)
            return prompt_refuse(r, PROMPT_RESULT_UNKNOWN_ID,
                                 "the result answers no call of the message before it");
        uint32_t k = i;
        for (; k > 0 && run[k - 1].ordinal > x.ordinal; k--)
            run[k] = run[k - 1];
        run[k] = x;
        if (k > 0 && run[k - 1].ordinal == x.ordinal)
            return prompt_refuse(r, PROMPT_RESULT_UNKNOWN_ID,
                                 "the call was answered before");
    }
    return 0;
}

/* Numbers every run of results and names the message before it. */
static int number_results(struct render *r)
{
    for (uint32_t i = 0; i < r->n_items;) {
        if (r->msg[r->item[i].msg].role != PROMPT_TOOL) {
            i++;
            continue;
        }
        uint32_t n = 0, caller = i ? r->item[i - 1].msg + 1 : 0;
        while (i + n < r->n_items && r->msg[r->item[i + n].msg].role == PROMPT_TOOL)
            n++;
        const struct prompt_msg *before = caller ? &r->msg[caller - 1] : NULL;
        if (r->o->pair_by_id && before && before->role == PROMPT_ASSISTANT
            && n <= before->n_calls) {
            int rc = pair(r, i, n, before);
            if (rc < 0)
                return rc;
        }
        for (uint32_t k = 0; k < n; k++) {
            r->item[i + k].caller = caller;
            r->item[i + k].ordinal = k + 1;
        }
        i += n;
    }
    return 0;
}

int prompt_plan(struct render *r)
{
    r->item = mem_array(r->n, sizeof(*r->item));
    if (!r->item)
        return err_nomem(r->err);
    int rc = fold(r);
    if (rc == 0)
        rc = number_results(r);
    r->last_user = -1;
    for (uint32_t i = 0; i < r->n_items; i++) {
        enum prompt_role role = r->msg[r->item[i].msg].role;
        if (role == PROMPT_USER || role == PROMPT_DEVELOPER)
            r->last_user = i;
    }
    return rc;
}

void prompt_plan_done(struct render *r)
{
    mem_free(r->item);
}
