/* ctl_tool.c - agentctl tool: what tools there are, and calls without a model. */
#include <stdio.h>
#include <string.h>

#include "agentd/ctl.h"
#include "tools/tool.h"

static void print_profiles(void)
{
    const struct tool_profile *p;
    printf("profiles:\n");
    for (unsigned i = 0; (p = tool_profile_at(i)); i++) {
        printf("  %-10s %s\n            ", p->name, p->summary);
        for (unsigned j = 0; p->tools[j]; j++)
            printf(" %s", p->tools[j]);
        printf("%s\n", p->tools[0] ? "" : " none");
    }
}

static void print_tools(const struct tool_profile *p)
{
    static const char *const places[] = {"cell", "web cell", "daemon"};
    const struct tool *t;
    printf("%-20s %-9s %s\n", "TOOL", "RUNS IN", "WHAT IT DOES");
    for (unsigned i = 0; (t = tool_at(i)); i++)
        if (!p || tool_profile_has(p, str_c(t->name)))
            printf("%-20s %-9s %s\n", t->name, places[t->place], t->summary);
}

static int tool_list(int argc, char **argv)
{
    const char *profile = NULL;
    bool json = false;
    const struct opt opts[] = {
        {"profile", 'p', OPT_STR, &profile, "NAME", "Only this profile's tools, in its order."},
        {"json", 'j', OPT_FLAG, &json, NULL, "The value of a request's \"tools\" member."},
    };
    const struct opt_cmd cmd = {
        .name = "tool list",
        .summary = "List the tools, or print their schemas as the model sees them.",
        .more = "The JSON is byte-stable from one release to the next within a profile.\n"
                "Exit status: 0; 2 for an unknown profile.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
    };
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    const struct tool_profile *p = NULL;
    if (profile || json)
        p = tool_profile_find(str_c(profile ? profile : "general"));
    if (profile && !p) {
        fprintf(stderr, "agentctl: no profile '%s'; 'agentctl tool list' names them\n", profile);
        return EXIT_USAGE;
    }
    if (json) {
        struct err err = {0};
        struct buf b;
        buf_init(&b, 0);
        tool_profile_json(p, &b);
        int rc = buf_check(&b, "schemas", &err);
        if (rc == 0)
            puts(buf_cstr(&b));
        buf_done(&b);
        return rc < 0 ? ctl_fail(&err) : EXIT_OK;
    }
    print_tools(p);
    if (!p) {
        putchar('\n');
        print_profiles();
    }
    return EXIT_OK;
}

int ctl_tool(int argc, char **argv)
{
    static const struct ctl_command table[] = {
        {"list", tool_list, "List tools and print their schemas."},
    };
    return ctl_dispatch("agentctl tool", table, ARRAY_LEN(table), argc, argv);
}
