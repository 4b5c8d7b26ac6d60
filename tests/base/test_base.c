/* test_base.c - strings, UTF-8, buffers, memory, JSON, files. */
#include "test.h"

#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

static void views(void **state)
{
    (void)state;
    struct str piece, rest = STR("a,b,,c");
    const char *want[] = {"a", "b", "", "c"};
    for (int i = 0; i < 4; i++) {
        assert_true(str_split(&rest, ',', &piece));
        assert_true(str_is(piece, want[i]));
    }
    assert_false(str_split(&rest, ',', &piece));
    assert_int_equal(str_find(STR("hello"), STR("lo"), 0), 3);
    assert_int_equal(str_find(STR("hello"), STR("x"), 0), STR_NONE);
    assert_true(str_is(str_trim(STR(" \t x y\n")), "x y"));

    int64_t i;
    assert_true(str_to_i64(STR("-9223372036854775808"), &i));
    assert_false(str_to_i64(STR("9223372036854775808"), &i));
    assert_false(str_to_i64(STR("12x"), &i));
    assert_false(str_to_i64(STR(" 12"), &i));
    uint64_t u;
    assert_false(str_to_u64(STR("-1"), &u));
}

static void utf8(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char b[4];
        uint32_t back = 0;
        if (cp >= 0xD800 && cp <= 0xDFFF)
            continue;
        size_t n = utf8_encode(cp, b);
        assert_int_equal(utf8_decode(str_of(b, n), 0, &back), n);
        assert_int_equal(back, cp);
        assert_int_equal(utf8_complete(str_of(b, n)), n);
        for (size_t cut = 1; cut < n; cut++)
            assert_int_equal(utf8_complete(str_of(b, cut)), 0);
    }
    assert_false(utf8_valid(STR("\xC0\x80")));         /* overlong */
    assert_false(utf8_valid(STR("\xED\xA0\x80")));     /* surrogate */
    assert_false(utf8_valid(STR("\xF4\x90\x80\x80"))); /* above U+10FFFF */
    assert_false(utf8_valid(STR("\xE2\x82")));         /* cut */
}

static void buffers(void **state)
{
    (void)state;
    struct err err = {0};
    struct buf b;
    buf_init(&b, 10);
    buf_printf(&b, "%d-%s", 42, "x");
    assert_string_equal(buf_cstr(&b), "42-x");
    buf_consume(&b, 3);
    assert_string_equal(buf_cstr(&b), "x");
    buf_puts(&b, "0123456789");
    assert_string_equal(buf_cstr(&b), "x"); /* over the cap: nothing was added */
    ASSERT_ERR(buf_check(&b, "reply", &err), ERR_LIMIT, &err, "reply");
    buf_done(&b);

    for (uint64_t n = 1; n <= 3; n++) {
        buf_init(&b, 0);
        mem_fail_at(n);
        for (int i = 0; i < 100; i++)
            buf_puts(&b, "0123456789");
        mem_fail_at(0);
        ASSERT_ERR(buf_check(&b, "x", &err), ERR_NOMEM, &err, "memory");
        buf_done(&b);
    }
}

static void memory(void **state)
{
    (void)state;
    size_t r;
    assert_false(mem_mul(SIZE_MAX, 2, &r));
    assert_false(mem_add(SIZE_MAX, 1, &r));
    assert_null(mem_array(SIZE_MAX / 2, 3));
    struct arena a;
    arena_init(&a, 100000);
    char *s = arena_strdup(&a, STR("hello"));
    assert_string_equal(s, "hello");
    for (int i = 0; i < 20; i++)
        assert_int_equal((uintptr_t)arena_alloc(&a, 3) % 16, 0);
    assert_non_null(arena_alloc(&a, 50000));
    assert_null(arena_alloc(&a, 60000));
    assert_string_equal(s, "hello");
    arena_done(&a);
}

static void json(void **state)
{
    (void)state;
    struct err err = {0};
    json_t *v = NULL;
    const char *bad[] = {"{\"a\":1,\"a\":2}", "\"\\u0000\"", "\"\\ud800\"", "[1,]", "",
                         "1e999", "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(json_read(&v, str_c(bad[i]), &err), -ERR_PARSE);

    ASSERT_OK(json_read(&v, STR("{\"n\":7,\"s\":\"\xC3\xA9\",\"z\":null}"), &err), &err);
    int64_t n = 0;
    struct str s = {0};
    ASSERT_OK(json_need_int(v, "n", 0, 10, &n, &err), &err);
    assert_int_equal(n, 7);
    ASSERT_ERR(json_need_int(v, "n", 0, 5, &n, &err), ERR_LIMIT, &err, "'n'");
    ASSERT_ERR(json_need_str(v, "n", &s, &err), ERR_PARSE, &err, "'n'");
    ASSERT_ERR(json_need_str(v, "z", &s, &err), ERR_PARSE, &err, "missing");
    struct buf b;
    buf_init(&b, 0);
    ASSERT_OK(json_write(v, &b, &err), &err);
    assert_string_equal(buf_cstr(&b), "{\"n\":7,\"s\":\"\xC3\xA9\",\"z\":null}");
    buf_done(&b);
    json_decref(v);

    json_t *t = json_text(STR("a\xff"
                              "b"));
    assert_true(str_is(json_view(t), "a\xEF\xBF\xBD"
                                     "b"));
    json_decref(t);
}

static void files(void **state)
{
    (void)state;
    struct err err = {0};
    char dir[] = "/tmp/agentd-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a/b", dir);
    ASSERT_OK(io_make_dirs(path, 0700, &err), &err);
    ASSERT_OK(io_make_dirs(path, 0700, &err), &err);
    snprintf(path, sizeof path, "%s/a/b/f", dir);
    ASSERT_OK(io_write_file(path, STR("one"), 0600, &err), &err);
    ASSERT_OK(io_write_file(path, STR("two"), 0600, &err), &err);
    struct buf b;
    buf_init(&b, 0);
    ASSERT_OK(io_read_file(path, &b, &err), &err);
    assert_string_equal(buf_cstr(&b), "two");
    buf_done(&b);
    buf_init(&b, 2);
    ASSERT_ERR(io_read_file(path, &b, &err), ERR_LIMIT, &err, path);
    buf_done(&b);
    assert_int_equal(unlink(path), 0);
    ASSERT_ERR(io_read_file(path, &b, &err), ERR_SYS, &err, path);
    snprintf(path, sizeof path, "%s/a/b", dir);
    rmdir(path);
    snprintf(path, sizeof path, "%s/a", dir);
    rmdir(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views), cmocka_unit_test(utf8), cmocka_unit_test(buffers),
        cmocka_unit_test(memory), cmocka_unit_test(json), cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
