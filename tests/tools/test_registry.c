/*
 * test_registry.c - schemas are byte-stable: they equal the recorded bytes, they are JSON in
 * the spacing of Python's json.dumps, and every profile names tools that exist.
 */
#include "test.h"

#include "base/io.h"
#include "tools/tool.h"

/* json.dumps(v, ensure_ascii=False): ", " and ": " between items. */
static void dump(const json_t *v, struct buf *b)
{
    char *s = json_dumps(v, JSON_ENCODE_ANY);
    assert_non_null(s);
    buf_puts(b, s);
    free(s);
}

static void profiles_match_golden(void **state)
{
    (void)state;
    struct err e = {0};
    const struct tool_profile *p;
    for (unsigned i = 0; (p = tool_profile_at(i)); i++) {
        char path[512];
        struct buf got, want;
        buf_init(&got, 0);
        buf_init(&want, 0);
        snprintf(path, sizeof path, "%s/tests/tools/golden/%s.json", getenv("SRC"), p->name);
        ASSERT_OK(io_read_file(path, &want, &e), &e);
        tool_profile_json(p, &got);
        buf_putc(&got, '\n');
        assert_string_equal(buf_cstr(&got), buf_cstr(&want));
        buf_done(&got);
        buf_done(&want);
    }
}

static void schemas_are_canonical_json(void **state)
{
    (void)state;
    struct err e = {0};
    const struct tool *t;
    for (unsigned i = 0; (t = tool_at(i)); i++) {
        const char *texts[] = {t->schema, t->brief};
        for (unsigned j = 0; j < 2 && texts[j]; j++) {
            json_t *v;
            struct buf b;
            struct str name = {0};
            buf_init(&b, 0);
            ASSERT_OK(json_read(&v, str_c(texts[j]), &e), &e);
            dump(v, &b);
            assert_string_equal(buf_cstr(&b), texts[j]);
            ASSERT_OK(json_need_str(v, "name", &name, &e), &e);
            assert_true(str_is(name, t->name));
            buf_done(&b);
            json_decref(v);
        }
    }
}

static void profiles_name_real_tools(void **state)
{
    (void)state;
    const struct tool_profile *p;
    for (unsigned i = 0; (p = tool_profile_at(i)); i++) {
        assert_ptr_equal(tool_profile_find(str_c(p->name)), p);
        for (unsigned j = 0; p->tools[j]; j++) {
            assert_true(j + 1 < TOOL_PROFILE_MAX);
            assert_non_null(tool_find(str_c(p->tools[j])));
            assert_true(tool_profile_has(p, str_c(p->tools[j])));
        }
    }
    assert_null(tool_find(STR("shell")));
    assert_null(tool_profile_find(STR("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profiles_match_golden),
        cmocka_unit_test(schemas_are_canonical_json),
        cmocka_unit_test(profiles_name_real_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
