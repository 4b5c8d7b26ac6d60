/* test_plan.c - spec to steps without privilege: order, promises, refusals, bad specs. */
#include "test.h"

#include <errno.h>

#include "sandbox/plan.h"
#include "sandbox/spec.h"

static struct probe host(bool root, enum limits_kind kind)
{
    struct probe p = {.root = root, .uid = root ? 0 : 1234, .gid = root ? 0 : 1234,
                      .landlock = 7, .limits.kind = kind, .uid_base = 700000,
                      .uid_count = 2000};
    snprintf(p.usr[0], sizeof p.usr[0], "usr/bin");
    snprintf(p.usr[2], sizeof p.usr[2], "/");
    p.shadow[0] = true;
    return p;
}

static struct sandbox_spec dir_spec(void)
{
    struct sandbox_spec s = {.require = SANDBOX_FULL, .work = SANDBOX_WORK_DIR};
    struct err err = {0};
    snprintf(s.workspace, sizeof s.workspace, "/srv/job");
    ASSERT_OK(spec_check(&s, &err), &err);
    return s;
}

static int at(const struct plan *p, enum plan_do what, const char *place)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->step[i].what == what && (!place || strcmp(p->step[i].a, place) == 0))
            return (int)i;
    return -1;
}

static void the_order_is_safe(void **state)
{
    (void)state;
    struct plan *p = calloc(1, sizeof *p);
    struct probe h = host(true, LIMITS_V2);
    struct sandbox_spec s = dir_spec();
    struct sandbox_refusal r;
    struct err err = {0};
    ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err);
    assert_int_equal(p->level, SANDBOX_FULL);
    assert_int_equal(at(p, DO_WORKSPACE, NULL), 0); /* opened before anything else happens */
    assert_true(at(p, DO_SOURCES, NULL) < at(p, DO_CLONE, NULL));
    assert_true(at(p, DO_CLONE, NULL) < at(p, DO_IDMAP, NULL));
    assert_true(at(p, DO_PROC, NULL) < at(p, DO_PIVOT, NULL));
    assert_true(at(p, DO_PIVOT, NULL) < at(p, DO_SEAL, "/"));
    assert_true(at(p, DO_LOCK, NULL) < at(p, DO_FILTER, NULL));
    assert_true(at(p, DO_FILTER, NULL) < at(p, DO_USER, NULL));
    assert_true(at(p, DO_LANDLOCK, NULL) < at(p, DO_EXEC, NULL));
    assert_int_equal(p->step[p->n - 1].what, DO_EXEC);
    enum plan_phase phase = PLAN_OUTSIDE;
    for (unsigned i = 0; i < p->n; i++) {
        assert_true(plan_phase(p->step[i].what) >= phase);
        phase = plan_phase(p->step[i].what);
    }
    plan_drop(p);
    free(p);
}

static void what_is_shown_is_read_only(void **state)
{
    (void)state;
    struct plan *p = calloc(1, sizeof *p);
    struct probe h = host(true, LIMITS_V1);
    struct sandbox_spec s = dir_spec();
    struct sandbox_refusal r;
    struct err err = {0};
    ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err);
    for (unsigned i = 0; i < p->n; i++) {
        const struct plan_step *step = &p->step[i];
        if (step->what != DO_BIND)
            continue;
        bool write = step->flags & PLAN_WRITE;
        bool device = step->flags & PLAN_DEVICE;
        assert_int_equal(write && !device, strcmp(step->a, SANDBOX_WORKSPACE) == 0);
        static const char *const absent[] = {"/home", "/root", "/run", "/sys", "/var", "/etc"};
        for (unsigned k = 0; k < ARRAY_LEN(absent); k++)
            assert_string_not_equal(step->a, absent[k]);
    }
    plan_drop(p);
    free(p);
}

static void a_host_without_groups_is_refused_or_named(void **state)
{
    (void)state;
    struct plan *p = calloc(1, sizeof *p);
    struct probe h = host(false, LIMITS_NONE);
    struct sandbox_spec s = dir_spec();
    struct sandbox_refusal r;
    struct err err = {0};
    ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "require: nolimits");
    assert_int_equal(r.offered, SANDBOX_NOLIMITS);
    s.require = SANDBOX_NOLIMITS;
    ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err);
    assert_int_equal(p->level, SANDBOX_NOLIMITS);
    assert_false(p->two_ids);
    assert_int_equal(at(p, DO_GROUPS, NULL), -1);
    assert_int_equal(p->step[at(p, DO_RLIMITS, NULL)].n1, 1); /* address space instead */
    plan_drop(p);
    h.landlock = 0;
    s.landlock = SANDBOX_LANDLOCK_NEED;
    ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "Landlock");
    free(p);
}

/* A plain user with a subordinate id: pid 1 is somebody else than the payload. */
static void a_subordinate_id_is_for_pid_1(void **state)
{
    (void)state;
    struct plan *p = calloc(1, sizeof *p);
    struct probe h = host(false, LIMITS_V2);
    struct sandbox_spec s = dir_spec();
    struct sandbox_refusal r;
    struct err err = {0};
    struct buf b;
    buf_init(&b, 0);
    h.sub_uid = h.sub_gid = 165535;
    ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err);
    assert_true(p->two_ids);
    plan_print(p, &b);
    assert_non_null(strstr(buf_cstr(&b), "0 inside is 165535 outside, 1000 is 1234, by newuidmap"));
    buf_done(&b);
    plan_drop(p);
    free(p);
}

static void the_daemons_state_is_never_shown(void **state)
{
    (void)state;
    struct plan *p = calloc(1, sizeof *p);
    struct probe h = host(true, LIMITS_V2);
    struct sandbox_spec s = dir_spec();
    struct sandbox_refusal r;
    struct err err = {0};
    snprintf(h.state_dir, sizeof h.state_dir, "/srv/agentd/state");
    s.n_binds = 1;
    snprintf(s.bind[0].host, sizeof s.bind[0].host, "/srv/agentd");
    snprintf(s.bind[0].inside, sizeof s.bind[0].inside, "/data");
    ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "daemon's own state");
    snprintf(s.bind[0].host, sizeof s.bind[0].host, "/srv/agentd/state/spill");
    ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err); /* a part that the daemon chose */
    plan_drop(p);
    free(p);
}

static void printing_is_stable(void **state)
{
    (void)state;
    struct plan *p = calloc(1, sizeof *p);
    struct probe h = host(true, LIMITS_V2);
    struct sandbox_spec s = dir_spec();
    struct sandbox_refusal r;
    struct err err = {0};
    struct buf a, b;
    buf_init(&a, 0);
    buf_init(&b, 0);
    for (int i = 0; i < 2; i++) {
        ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err);
        plan_print(p, i ? &b : &a);
        plan_drop(p);
    }
    assert_string_equal(buf_cstr(&a), buf_cstr(&b));
    assert_non_null(strstr(buf_cstr(&a), "user mount pid ipc uts cgroup net"));
    assert_non_null(strstr(buf_cstr(&a), "700000-701999"));
    buf_done(&a);
    buf_done(&b);
    free(p);
}

static struct probe bare(bool root)
{
    struct probe h = host(root, LIMITS_NONE);
    probe_explain(&h, "clone", EPERM, &h.bare);
    snprintf(h.scratch, sizeof h.scratch, "/tmp/agentd-tmp-1");
    snprintf(h.tool, sizeof h.tool, "/opt/agentd/agentd-tool");
    h.payload_uid = h.payload_gid = root ? 4321 : 0;
    return h;
}

/* Without namespaces: never unless the policy says so, never with a mount, never as root. */
static void the_bare_level_is_named_or_refused(void **state)
{
    (void)state;
    struct plan *p = calloc(1, sizeof *p);
    struct probe h = bare(false);
    struct sandbox_spec s = dir_spec();
    struct sandbox_refusal r;
    struct err err = {0};
    for (int need = SANDBOX_NOLIMITS; need <= SANDBOX_FULL; need++) {
        s.require = (enum sandbox_level)need;
        ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "require: landlock");
        assert_int_equal(r.offered, SANDBOX_LANDLOCK);
    }
    s.require = SANDBOX_LANDLOCK;
    ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err);
    assert_int_equal(p->level, SANDBOX_LANDLOCK);
    assert_int_equal(p->uid, 1234);
    assert_int_equal(p->step[at(p, DO_CLONE, NULL)].n1, 0);
    for (unsigned i = 0; i < p->n; i++)
        assert_true(p->step[i].what != DO_BIND && p->step[i].what != DO_PROC);
    for (unsigned i = 0; i < p->n_rules; i++) {
        bool ours = strcmp(p->rule[i].path, "/srv/job") == 0 ||
                    strcmp(p->rule[i].path, h.scratch) == 0;
        assert_int_equal((p->rule[i].may & LANDLOCK_WRITE) != 0, ours);
        assert_true(strcmp(p->rule[i].path, "/") != 0 && strcmp(p->rule[i].path, "/etc") != 0);
    }
    char buf[SANDBOX_PATH_MAX];
    assert_string_equal(bare_place(p, "/workspace/a/b", buf, sizeof buf), "/srv/job/a/b");
    assert_string_equal(bare_place(p, "/workspaces", buf, sizeof buf), "/workspaces");
    assert_string_equal(bare_place(p, SANDBOX_HOME, buf, sizeof buf), "/tmp/agentd-tmp-1/home");
    assert_string_equal(bare_place(p, SANDBOX_TOOL, buf, sizeof buf), h.tool);
    plan_drop(p);
    h.landlock = 2;
    ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "ABI 3");
    assert_int_equal(r.offered, SANDBOX_NONE);
    h = bare(true);
    ASSERT_OK(plan_build(p, &s, &h, &r, &err), &err);
    assert_int_equal(p->uid, 4321);
    plan_drop(p);
    h.payload_uid = 0;
    ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "would be root");
    h = bare(false);
    s.net = SANDBOX_NET_PROXY;
    ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "mode: none");
    s.net = SANDBOX_NET_NONE;
    s.work = SANDBOX_WORK_COPY;
    ASSERT_ERR(plan_build(p, &s, &h, &r, &err), ERR_DENIED, &err, "workspace: dir");
    free(p);
}

static void refuses(struct sandbox_spec *s, const char *needle)
{
    struct err err = {0};
    assert_true(spec_check(s, &err) < 0);
    if (!strstr(err.text, needle))
        fail_msg("error '%s' does not mention '%s'", err.text, needle);
}

/* What arrives over the socket is checked field by field, whoever sent it. */
static void bad_specs_are_refused(void **state)
{
    (void)state;
    struct sandbox_spec s = dir_spec();
    s.net = 9;
    refuses(&s, "outside its list");
    s = dir_spec();
    s.net = SANDBOX_NET_HOST;
    refuses(&s, "i_know");
    s = dir_spec();
    memset(s.workspace, 'a', sizeof s.workspace);
    refuses(&s, "does not end");
    static const char *const paths[] = {"", "/", "relative", "/a/../b", "/a//b", "/a/", "/a\n"};
    for (unsigned i = 0; i < ARRAY_LEN(paths); i++) {
        s = dir_spec();
        snprintf(s.workspace, sizeof s.workspace, "%s", paths[i]);
        refuses(&s, "absolute");
    }
    static const char *const places[] = {"/proc/x", "/etc", "/usr/x", "/workspace/x", "/dev",
                                         "/agentd/agentd-tool", "/tmp/x", "/agentd"};
    for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
        s = dir_spec();
        s.n_binds = 1;
        snprintf(s.bind[0].host, sizeof s.bind[0].host, "/srv/x");
        snprintf(s.bind[0].inside, sizeof s.bind[0].inside, "%s", places[i]);
        refuses(&s, "cover or enter");
    }
    s = dir_spec();
    s.n_binds = SANDBOX_BINDS_MAX + 1;
    refuses(&s, "more than");
    s = dir_spec();
    s.n_env = 1;
    snprintf(s.env[0], sizeof s.env[0], "LD_PRELOAD=/x.so");
    refuses(&s, "would run code");
    s = dir_spec();
    s.limits.tasks = 1;
    refuses(&s, "must be");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_safe),
        cmocka_unit_test(what_is_shown_is_read_only),
        cmocka_unit_test(a_host_without_groups_is_refused_or_named),
        cmocka_unit_test(a_subordinate_id_is_for_pid_1),
        cmocka_unit_test(the_daemons_state_is_never_shown),
        cmocka_unit_test(printing_is_stable),
        cmocka_unit_test(the_bare_level_is_named_or_refused),
        cmocka_unit_test(bad_specs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
