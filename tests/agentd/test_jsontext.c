/* test_jsontext.c - the rewriter's rules one by one, its refusals, its cost on hostile text. */
#include "test.h"

#include "agentd/jsontext.h"
#include "base/limits.h"
#include "base/mem.h"

static const struct {
    const char *in, *out; /* out NULL: refused */
} cases[] = {
    {" { } ", "{}"},
    {"[ ]", "[]"},
    {"{\"b\":1,\"a\":[true,false,null]}", "{\"b\": 1, \"a\": [true, false, null]}"},
    {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}"},
    {"{\"o\":{\"x\":1,\"x\":{\"y\":1,\"y\":2}},\"o\":{\"z\":[{\"k\":1,\"k\":2}]}}",
     "{\"o\": {\"z\": [{\"k\": 2}]}}"},
    {"{\"\\u0061\":1,\"a\":2}", "{\"a\": 2}"},
    {"-0", "0"},
    {"-0.0", "-0.0"},
    {"123456789012345678901234567890", "123456789012345678901234567890"},
    {"1.0", "1.0"},
    {"1e2", "100.0"},
    {"1E+2", "100.0"},
    {"2.50", "2.5"},
    {"1e15", "1000000000000000.0"},
    {"1e16", "1e+16"},
    {"0.0001", "0.0001"},
    {"1e-5", "1e-05"},
    {"1e21", "1e+21"},
    {"1.5e300", "1.5e+300"},
    {"5e-324", "5e-324"},
    {"7.1202363472230444e-307", "7.120236347223045e-307"}, /* 2^-1017: not the nearest */
    {"1e-999", "0.0"},
    {"9007199254740993.0", "9007199254740992.0"},
    {"0.1000000000000000055511151231257827", "0.1"},
    {"\"\\/\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001F\\u007f\"",
     "\"/\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\""},
    {"\"\\ud83c\\udf24 \\u00e9\"", "\"\xf0\x9f\x8c\xa4 \xc3\xa9\""},
    {"", NULL},
    {" ", NULL},
    {"nul", NULL},
    {"NaN", NULL},
    {"Infinity", NULL},
    {"-Infinity", NULL},
    {"1e999", NULL},
    {"-1e999", NULL},
    {"01", NULL},
    {"-", NULL},
    {"1.", NULL},
    {".5", NULL},
    {"1e", NULL},
    {"+1", NULL},
    {"[1,]", NULL},
    {"{\"a\":1,}", NULL},
    {"{\"a\"}", NULL},
    {"{a:1}", NULL},
    {"[1 2]", NULL},
    {"[1", NULL},
    {"\"a", NULL},
    {"\"\t\"", NULL},
    {"\"\\x\"", NULL},
    {"\"\\u12\"", NULL},
    {"\"\\ud800\"", NULL},
    {"\"\\udc00\"", NULL},
    {"\"\\ud800\\u0041\"", NULL},
    {"\"\xff\"", NULL},
    {"\"\xed\xa0\x80\"", NULL},
    {"\"\xc0\x80\"", NULL},
    {"{} {}", NULL},
    {"// x\n1", NULL},
    {"\xef\xbb\xbf{}", NULL},
};

static void every_rule(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b;
        struct err err = {0};
        buf_init(&b, 0);
        buf_puts(&b, "kept");
        int rc = jsontext_rewrite(&b, str_c(cases[i].in), &err);
        if (rc != (cases[i].out ? 0 : -ERR_PARSE) || !str_starts(buf_view(&b), STR("kept"))
            || strcmp(buf_cstr(&b) + 4, cases[i].out ? cases[i].out : ""))
            fail_msg("%s gave %d %s (%s)", cases[i].in, rc, buf_cstr(&b), err.text);
        buf_done(&b);
    }
}

static void caps_hold(void **state)
{
    (void)state;
    struct buf in, out;
    struct err err;
    buf_init(&in, 0);
    buf_init(&out, 0);
    for (int way = 0; way < 2; way++) {
        buf_reset(&in);
        for (int i = 0; i < LIMIT_JSON_DEPTH + way; i++)
            buf_putc(&in, '[');
        for (int i = 0; i < LIMIT_JSON_DEPTH + way; i++)
            buf_putc(&in, ']');
        int rc = jsontext_rewrite(&out, buf_view(&in), &err);
        assert_int_equal(rc, way ? -ERR_LIMIT : 0);
    }
    ASSERT_ERR(jsontext_rewrite(&out, str_of("1", (size_t)LIMIT_JSON_BYTES + 1), &err), ERR_LIMIT,
               &err, "cap");
    buf_done(&out);
    buf_init(&out, 8);
    ASSERT_ERR(jsontext_rewrite(&out, STR("[1, 2, 3, 4, 5]"), &err), ERR_LIMIT, &err, "JSON");
    buf_done(&in);
    buf_done(&out);
}

/* A quarter of a million members, each key a hundred times. */
static void duplicates_cost_n_log_n(void **state)
{
    (void)state;
    struct buf in, out;
    struct err err;
    buf_init(&in, 0);
    buf_init(&out, 0);
    buf_putc(&in, '{');
    for (int i = 0; i < 250000; i++)
        buf_printf(&in, "%s\"k%d\":%d", i ? "," : "", i % 2500, i);
    buf_putc(&in, '}');
    ASSERT_OK(jsontext_rewrite(&out, buf_view(&in), &err), &err);
    assert_true(str_starts(buf_view(&out), STR("{\"k0\": 247500, \"k1\": 247501, ")));
    assert_true(str_is(jsontext_get(buf_view(&out), "k2499"), "249999"));
    buf_done(&in);
    buf_done(&out);
}

static void walking(void **state)
{
    (void)state;
    struct str o = STR("{\"a\": [1, \"x, ]\\\"\"], \"b\\\"\": {\"c\": {}}, \"n\": null}");
    struct str key, value;
    struct jsontext_iter it = jsontext_each(o);
    assert_true(jsontext_next(&it, &key, &value));
    assert_true(str_is(key, "\"a\"") && str_is(value, "[1, \"x, ]\\\"\"]"));
    assert_true(jsontext_next(&it, &key, &value));
    assert_true(str_is(key, "\"b\\\"\"") && str_is(value, "{\"c\": {}}"));
    assert_true(jsontext_next(&it, &key, &value));
    assert_int_equal(jsontext_kind(value), JSONTEXT_NULL);
    assert_false(jsontext_next(&it, &key, &value));
    assert_int_equal(jsontext_kind(jsontext_get(o, "missing")), JSONTEXT_NONE);
    struct buf b;
    buf_init(&b, 0);
    jsontext_unquote(&b, STR("\"a\\u0000\\u001f\\n\\\"\\\\\""));
    assert_int_equal(b.len, 6);
    assert_memory_equal(b.data, "a\0\x1f\n\"\\", 6);
    buf_done(&b);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct str in = STR("{\"a\": [1.5, {\"x\": 1, \"x\": 2}], \"b\": \"\\u00e9\"}");
    for (uint64_t n = 1;; n++) {
        struct buf b;
        struct err err;
        buf_init(&b, 0);
        uint64_t before = mem_count();
        mem_fail_at(n);
        int rc = jsontext_rewrite(&b, in, &err);
        mem_fail_at(0);
        buf_done(&b);
        if (mem_count() - before < n) {
            assert_int_equal(rc, 0);
            break;
        }
        assert_int_equal(rc, -ERR_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule),
        cmocka_unit_test(caps_hold),
        cmocka_unit_test(duplicates_cost_n_log_n),
        cmocka_unit_test(walking),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
