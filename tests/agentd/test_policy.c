/* test_policy.c - policies as files: what is read, refused, denied by absence. */
#include "test.h"

#include <unistd.h>

#include "agentd/policy.h"

static struct policy *must(const char *text)
{
    struct err err = {0};
    struct policy *p = NULL;
    ASSERT_OK(policy_read(&p, "t.yaml", str_c(text), &err), &err);
    return p;
}

static void refuses(const char *text, const char *needle)
{
    struct err err = {0};
    struct policy *p = NULL;
    assert_true(policy_read(&p, "t.yaml", str_c(text), &err) < 0);
    if (!strstr(err.text, needle))
        fail_msg("error '%s' does not mention '%s'", err.text, needle);
}

static void empty_means_nothing(void **state)
{
    (void)state;
    struct policy *p = must("version: 1\n");
    assert_int_equal(p->spec.require, SANDBOX_FULL);
    assert_int_equal(p->spec.net, SANDBOX_NET_NONE);
    assert_int_equal(policy_decide(p, "bash", NULL), POLICY_DENY);
    policy_free(p);
    p = must("version: 1\ntools:\nnetwork:\n  mode: proxy\n  allow:\n");
    assert_int_equal(p->n_allow, 0); /* proxy to nowhere */
    assert_int_equal(policy_decide(p, "bash", NULL), POLICY_DENY);
    policy_free(p);
}

static void typos_name_file_line_and_remedy(void **state)
{
    (void)state;
    refuses("version: 1\nreqire: full\n", "t.yaml:2: unknown key 'reqire'");
    refuses("version: 1\nlimits:\n  memroy: 1G\n", "t.yaml:3: unknown key 'memroy'");
    refuses("version: 1\nlimits:\n  memory: 1\n", "t.yaml:3: 'memory': wanted a size");
    refuses("version: 1\nnetwork:\n  mode: all\n", "one of none, proxy, host");
    refuses("version: 2\n", "from 1 to 1");
    refuses("summary: x\n", "version: 1");
    refuses("version: 1\ntools:\n  bash: alow\n", "allow, ask, deny");
    refuses("version: 1\ntools:\n  bash: {max_calls: 3}\n", "no decision");
    refuses("version: 1\nread: /etc\n", "must be a list");
    refuses("version: 1\nread: [etc]\n", "absolute");
    refuses("version: 1\nread: [/home/../etc/shadow]\n", "absolute");
    refuses("version: 1\nwrite: [{path: /srv/x, at: /proc/x}]\n", "cover or enter /proc");
    refuses("version: 1\nwrite: [{path: /srv/x, at: /workspace/x}]\n", "/workspace");
    refuses("version: 1\nnetwork:\n  mode: proxy\n  allow: ['https://x.org/']\n", "host name");
    refuses("version: 1\nnetwork: {mode: none, allow: [x.org]}\n", "mode proxy alone");
}

static void the_dangerous_must_be_said(void **state)
{
    (void)state;
    refuses("version: 1\nrequire: none\n", "cannot switch the sandbox off");
    refuses("version: 1\nnetwork: {mode: host}\n", "i_know: true");
    policy_free(must("version: 1\nnetwork: {mode: host, i_know: true}\n"));
    refuses("version: 1\nenv: {LD_PRELOAD: /x.so}\n", "would run code");
    refuses("version: 1\nenv: {GITHUB_TOKEN: {from: GITHUB_TOKEN}}\n", "credential");
    refuses("version: 1\nenv: {MY_API_KEY: abc}\n", "credential");
    policy_free(must("version: 1\nenv: {T_TOKEN: {from: T, force: true}}\n"));
}

static void tools_and_star(void **state)
{
    (void)state;
    struct policy *p = must("version: 1\ntools:\n  bash: {decision: ask, max_calls: 3,"
                            " timeout: 5s}\n  '*': allow\n  python: deny\n");
    const struct policy_tool *t;
    assert_int_equal(policy_decide(p, "bash", &t), POLICY_ASK);
    assert_int_equal(t->max_calls, 3);
    assert_int_equal(t->timeout_ms, 5000);
    assert_int_equal(policy_decide(p, "python", NULL), POLICY_DENY);
    assert_int_equal(policy_decide(p, "plan", NULL), POLICY_ALLOW);
    policy_free(p);
}

static void specs_resolve_workspace_and_variables(void **state)
{
    (void)state;
    struct err err = {0};
    struct sandbox_spec spec;
    setenv("AGENTD_TEST_VALUE", "v", 1);
    struct policy *p = must("version: 1\nrequire: nolimits\nenv: {A: '1', B: {from: "
                            "AGENTD_TEST_VALUE}, C: {from: AGENTD_NOT_SET}}\n");
    ASSERT_ERR(policy_spec(p, "/usr/share/../share", &spec, &err), ERR_DENIED, &err,
               "leads to '/usr/share'");
    ASSERT_ERR(policy_spec(p, "/proc/self/root/usr", &spec, &err), ERR_DENIED, &err, "real");
    ASSERT_OK(policy_spec(p, "/usr/share", &spec, &err), &err);
    assert_string_equal(spec.workspace, "/usr/share");
    assert_int_equal(spec.n_env, 2);
    assert_string_equal(spec.env[1], "B=v");
    assert_int_equal(spec.limits.tasks, 256); /* filled in */
    ASSERT_ERR(policy_spec(p, "/no/such", &spec, &err), ERR_SYS, &err, "/no/such");
    ASSERT_ERR(policy_spec(p, NULL, &spec, &err), ERR_PARSE, &err, "name a workspace");
    policy_free(p);
}

static void the_shipped_ones_load(void **state)
{
    (void)state;
    static const char *const names[] = {"default", "coding", "research", "computation"};
    char dir[512];
    const char *src = getenv("SRC");
    snprintf(dir, sizeof dir, "%s/policies", src ? src : ".");
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        struct err err = {0};
        struct policy *p = NULL;
        ASSERT_OK(policy_load(&p, names[i], dir, &err), &err);
        assert_int_equal(policy_decide(p, "unheard_of", NULL), POLICY_DENY);
        if (strcmp(names[i], "default") == 0) {
            assert_int_equal(p->spec.require, SANDBOX_FULL);
            assert_int_equal(policy_decide(p, "bash", NULL), POLICY_DENY);
        }
        policy_free(p);
    }
    struct err err = {0};
    struct policy *p = NULL;
    ASSERT_ERR(policy_load(&p, "nonesuch", dir, &err), ERR_NOTFOUND, &err, "nonesuch");
}

/* Every line of a shipped policy says why it is there. */
static void every_line_is_commented(void **state)
{
    (void)state;
    static const char *const names[] = {"default", "coding", "research", "computation"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        char path[512], line[512];
        snprintf(path, sizeof path, "%s/policies/%s.yaml", getenv("SRC") ? getenv("SRC") : ".",
                 names[i]);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        while (fgets(line, sizeof line, f)) {
            size_t n = strcspn(line, "\n");
            bool section = n > 0 && line[n - 1] == ':';
            if (n && !section && !strchr(line, '#'))
                fail_msg("%s: no comment: %s", path, line);
        }
        fclose(f);
    }
}

static void explains_every_key(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    policy_explain(&b);
    static const char *const keys[] = {"require", "network.mode", "limits.memory",
                                       "limits.wall", "repeat.pause", "secrets", "tools"};
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        assert_non_null(strstr(buf_cstr(&b), keys[i]));
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_means_nothing),
        cmocka_unit_test(typos_name_file_line_and_remedy),
        cmocka_unit_test(the_dangerous_must_be_said),
        cmocka_unit_test(tools_and_star),
        cmocka_unit_test(specs_resolve_workspace_and_variables),
        cmocka_unit_test(the_shipped_ones_load),
        cmocka_unit_test(every_line_is_commented),
        cmocka_unit_test(explains_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
