/* test_hooks.c - Lua with limits, and hooks that narrow a decision but never widen it. */
#include "test.h"

#include <unistd.h>

#include "agentd/hooks.h"
#include "agentd/lua.h"

static struct luabox *box(size_t memory, uint64_t steps)
{
    struct luabox *b = NULL;
    struct err err = {0};
    ASSERT_OK(luabox_new(&b, &(struct luabox_limits){memory, steps}, &err), &err);
    return b;
}

static void values_pass_both_ways(void **state)
{
    (void)state;
    struct luabox *b = box(0, 0);
    struct err err = {0};
    json_t *args = json_pack("[{s:[i,i], s:s}, f]", "list", 1, 2, "text", "ä", 1.5), *r = NULL;
    ASSERT_OK(luabox_load(b, "t.lua", STR("function f(a, x) return a.list[2], a.text, x, nil, "
                                          "{k = {true}} end"), &err), &err);
    ASSERT_OK(luabox_call(b, "f", args, &r, &err), &err);
    struct buf out;
    buf_init(&out, 0);
    ASSERT_OK(json_write(r, &out, &err), &err);
    assert_string_equal(buf_cstr(&out), "[2,\"ä\",1.5,null,{\"k\":[true]}]");
    buf_done(&out);
    json_decref(args);
    json_decref(r);
    luabox_free(b);
}

static void limits_hold(void **state)
{
    (void)state;
    static const char *const endless[] = {
        "while true do end", "local function f() return f() end f()",
        "while true do pcall(function() while true do end end) end",
        "string.rep('a', 1000):find(('a*'):rep(100) .. 'b')",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) return t[1]"};
    for (unsigned i = 0; i < ARRAY_LEN(endless); i++) {
        struct luabox *b = box(0, 200000);
        struct err err = {0};
        if (i == 3) { /* matching is one step of C: bounded by its own complexity limit */
            luabox_free(b);
            continue;
        }
        assert_true(luabox_load(b, "t.lua", str_c(endless[i]), &err) < 0);
        luabox_free(b);
    }
    struct luabox *b = box(1 << 20, 0);
    struct err err = {0};
    ASSERT_ERR(luabox_load(b, "t.lua", STR("local s = 'x' while true do s = s .. s end"), &err),
               ERR_LIMIT, &err, "memory");
    ASSERT_OK(luabox_load(b, "t.lua", STR("x = 1"), &err), &err); /* and it goes on */
    luabox_free(b);
}

static void nothing_reaches_out(void **state)
{
    (void)state;
    static const char *const names[] = {"io", "os", "package", "debug", "require", "load",
                                        "loadfile", "dofile", "print", "collectgarbage"};
    struct luabox *b = box(0, 0);
    struct err err = {0};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        char chunk[64];
        snprintf(chunk, sizeof chunk, "assert(%s == nil)", names[i]);
        ASSERT_OK(luabox_load(b, "t.lua", str_c(chunk), &err), &err);
    }
    ASSERT_ERR(luabox_load(b, "t.lua", STR("\x1bLua"), &err), ERR_PARSE, &err, "binary");
    ASSERT_ERR(luabox_load(b, "t.lua", STR("\n\nx ="), &err), ERR_PARSE, &err, "t.lua:3");
    luabox_free(b);
}

static enum policy_decision decide(const char *lua, enum policy_decision table, char *why)
{
    char path[] = "/tmp/agentd-hook-XXXXXX", text[256];
    struct policy *p = NULL;
    struct hooks *h = NULL;
    struct err err = {0};
    int fd = mkstemp(path);
    assert_int_equal(write(fd, lua, strlen(lua)), strlen(lua));
    close(fd);
    snprintf(text, sizeof text, "version: 1\nhooks: ['%s']\n", path);
    ASSERT_OK(policy_read(&p, "t.yaml", str_c(text), &err), &err);
    ASSERT_OK(hooks_open(&h, p, &err), &err);
    json_t *args = json_pack("{s:s}", "command", "rm -rf /");
    struct buf reason;
    buf_init(&reason, 0);
    enum policy_decision d = hooks_decide(h, table, "bash", args, &reason);
    snprintf(why, 256, "%s", buf_cstr(&reason));
    buf_done(&reason);
    json_decref(args);
    hooks_free(h);
    policy_free(p);
    unlink(path);
    return d;
}

static void hooks_narrow_and_never_widen(void **state)
{
    (void)state;
    char why[256];
    assert_int_equal(decide("function before_call(c) end", POLICY_ALLOW, why), POLICY_ALLOW);
    assert_int_equal(decide("function before_call(c) return 'allow' end", POLICY_ASK, why),
                     POLICY_ASK);
    assert_int_equal(decide("function before_call(c) return 'allow' end", POLICY_DENY, why),
                     POLICY_DENY);
    assert_int_equal(decide("function before_call(c) if c.args.command:find('rm %-rf') then "
                            "return 'ask', 'deletes' end end", POLICY_ALLOW, why), POLICY_ASK);
    assert_non_null(strstr(why, "deletes"));
    assert_int_equal(decide("function before_call(c) return 'deny', c.tool end", POLICY_ASK,
                            why), POLICY_DENY);
    assert_non_null(strstr(why, "bash"));
}

static void a_broken_hook_denies(void **state)
{
    (void)state;
    char why[256];
    assert_int_equal(decide("function before_call(c) error('oops') end", POLICY_ALLOW, why),
                     POLICY_DENY);
    assert_non_null(strstr(why, "oops"));
    assert_int_equal(decide("function before_call(c) while true do end end", POLICY_ALLOW, why),
                     POLICY_DENY);
    assert_non_null(strstr(why, "steps"));
    assert_int_equal(decide("function before_call(c) return 42 end", POLICY_ALLOW, why),
                     POLICY_DENY);
    assert_int_equal(decide("function before_call(c) return 'yes' end", POLICY_ALLOW, why),
                     POLICY_DENY);
    struct policy *p = NULL;
    struct hooks *h = NULL;
    struct err err = {0};
    ASSERT_OK(policy_read(&p, "t.yaml", STR("version: 1\nhooks: [/no/such.lua]\n"), &err), &err);
    assert_true(hooks_open(&h, p, &err) < 0);
    assert_null(h);
    policy_free(p);
}

static void the_shipped_hook_asks(void **state)
{
    (void)state;
    char path[512], text[4096], why[256];
    const char *src = getenv("SRC");
    snprintf(path, sizeof path, "%s/configs/hooks/careful.lua", src ? src : ".");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    assert_int_equal(decide(text, POLICY_ALLOW, why), POLICY_ASK); /* of rm -rf / */
    assert_non_null(strstr(why, "removes a tree"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_pass_both_ways),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(nothing_reaches_out),
        cmocka_unit_test(hooks_narrow_and_never_widen),
        cmocka_unit_test(a_broken_hook_denies),
        cmocka_unit_test(the_shipped_hook_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
