/* ctl_cache.c - agentctl cache explain: what of a session's next prompt is computed already. */
#include <stdio.h>

#include "agentd/client.h"
#include "agentd/ctl.h"
#include "agentd/ctl_view.h"

static struct str field(const json_t *o, const char *key)
{
    return json_view(json_object_get(o, key));
}

/* Model text on a terminal: control bytes as escapes. */
static void print_quoted(struct str text)
{
    putchar('"');
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c < 0x20 || c == 0x7f || c == '"')
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void explain(const json_t *r)
{
    long long all = (long long)json_integer_value(json_object_get(r, "tokens"));
    long long cached = (long long)json_integer_value(json_object_get(r, "cached"));
    json_t *first = json_object_get(r, "first");
    printf("%lld of %lld tokens of the next prompt are in the cache\n", cached, all);
    if (first) {
        printf("first other token: position %lld, in a %.*s message %.*s\n",
               (long long)json_integer_value(json_object_get(first, "position")),
               STR_ARG(field(first, "role")), STR_ARG(field(first, "itemId")));
        printf("  the prompt has ");
        print_quoted(field(first, "prompt"));
        printf("\n  the cache has  ");
        print_quoted(field(first, "cache"));
        putchar('\n');
    }
    printf("because %.*s\n", STR_ARG(field(r, "cause")));
}

static int cache_explain(int argc, char **argv)
{
    const char *socket = NULL;
    bool json = false;
    const struct opt opts[] = {
        {"socket", 0, OPT_STR, &socket, "PATH", "where the daemon listens"},
        {"json", 'j', OPT_FLAG, &json, NULL, "print the reply as it came"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl cache explain",
        .args = "SESSION",
        .summary = "Show how much of the next prompt is computed, and what differs first.",
        .more = "Exit codes: 0 done, 1 failed, 2 usage.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
    };
    struct err err;
    struct client *c = NULL;
    json_t *r = NULL;
    int code;
    int at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    int rc = client_connect(&c, socket, &err);
    if (rc == 0)
        rc = client_call(c, "cache.explain",
                         json_pack("{s:o}", "sessionId", json_text(str_c(argv[at]))), &r, &err);
    if (rc == 0 && json)
        view_json(r);
    else if (rc == 0)
        explain(r);
    json_decref(r);
    client_close(c);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}

int ctl_cache(int argc, char **argv)
{
    static const struct ctl_command table[] = {
        {"explain", cache_explain, "Show what of the next prompt is computed already."},
    };
    return ctl_dispatch("agentctl cache", table, ARRAY_LEN(table), argc, argv);
}
