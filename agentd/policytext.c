/* policytext.c - a policy as lines that a reviewer reads; nothing of it is a secret's value. */
#include "agentd/policy.h"

static void seconds(struct buf *out, const char *name, int64_t ms)
{
    buf_printf(out, "limit %s %lld.%03lld s\n", name, (long long)(ms / 1000),
               (long long)(ms % 1000));
}

static void tools(const struct policy *p, struct buf *out)
{
    for (unsigned i = 0; i < p->n_tools; i++) {
        const struct policy_tool *t = &p->tool[i];
        buf_printf(out, "tool %s %s", t->name, policy_decision_name(t->decision));
        if (t->max_calls)
            buf_printf(out, ", %lld calls of a turn", (long long)t->max_calls);
        if (t->timeout_ms)
            buf_printf(out, ", %lld ms at most", (long long)t->timeout_ms);
        buf_putc(out, '\n');
    }
    buf_puts(out, p->n_tools ? "every other tool deny\n" : "every tool deny\n");
}

static void network(const struct policy *p, struct buf *out)
{
    if (p->spec.net != SANDBOX_NET_PROXY)
        return;
    for (unsigned i = 0; i < p->n_deny; i++)
        buf_printf(out, "never reach %s\n", p->deny[i]);
    for (unsigned i = 0; i < p->n_allow; i++)
        buf_printf(out, "reach %s\n", p->allow[i]);
    if (p->n_allow == 0)
        buf_puts(out, "reach nobody: the list is empty\n");
    for (unsigned i = 0; i < p->n_ports; i++)
        buf_printf(out, "port %u of tunnels\n", p->port[i]);
    for (unsigned i = 0; i < p->n_secrets; i++)
        buf_printf(out, "secret %s for %s port %lld, from %s %s\n", p->secret[i].header,
                   p->secret[i].host, (long long)p->secret[i].port,
                   p->secret[i].from_env ? "variable" : "file",
                   p->secret[i].from_env ? p->secret[i].from_env : p->secret[i].from_file);
}

void policy_text(const struct policy *p, struct buf *out)
{
    bool star = false;
    for (unsigned i = 0; i < p->n_tools; i++)
        star |= p->tool[i].name[0] == '*';
    tools(p, out);
    if (star) /* the last line would be untrue */
        buf_truncate(out, out->len - sizeof "every other tool deny\n" + 1);
    network(p, out);
    seconds(out, "wall", p->wall_ms);
    seconds(out, "wall_max", p->wall_max_ms);
    buf_printf(out, "limit output %lld\nlimit max_calls %lld\nrepeat nudge %lld, insist %lld, "
               "pause %lld\nbackground %s\n", (long long)p->output_bytes,
               (long long)p->max_calls, (long long)p->repeat_nudge,
               (long long)p->repeat_insist, (long long)p->repeat_pause,
               p->background ? "until the session ends" : "no");
    for (unsigned i = 0; i < p->n_hooks; i++)
        buf_printf(out, "hook %s\n", p->hook[i]);
}
