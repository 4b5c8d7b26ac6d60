/* test_yaml.c - configuration text to a tree: what is read, what is refused, and where. */
#include "test.h"

#include "agentd/yaml.h"
#include "base/mem.h"

static struct yaml *must(const char *text)
{
    struct err err = {0};
    struct yaml *y = NULL;
    ASSERT_OK(yaml_read(&y, "t.yaml", str_c(text), &err), &err);
    return y;
}

static void refuses(const char *text, const char *needle)
{
    struct err err = {0};
    struct yaml *y = NULL;
    int rc = yaml_read(&y, "t.yaml", str_c(text), &err);
    assert_true(rc < 0);
    assert_null(y);
    if (!strstr(err.text, needle))
        fail_msg("error '%s' does not mention '%s'", err.text, needle);
}

static void reads_maps_lists_and_lines(void **state)
{
    (void)state;
    struct yaml *y = must("# comment\na: 1\nb:\n  - x\n  - 'true'\nc: {d: true, e: 64M}\n");
    const struct yaml_node *root = yaml_root(y), *b = yaml_get(root, "b");
    assert_int_equal(root->n, 3);
    assert_int_equal(yaml_get(root, "a")->line, 2);
    assert_int_equal(b->line, 3);
    assert_int_equal(b->n, 2);
    assert_true(b->first->next->quoted);
    struct err err = {0};
    uint64_t size = 0;
    bool yes = false;
    const struct yaml_node *c = yaml_get(root, "c");
    ASSERT_OK(yaml_size(y, yaml_get(c, "e"), 0, UINT64_MAX, &size, &err), &err);
    assert_int_equal(size, 64 << 20);
    ASSERT_OK(yaml_bool(y, yaml_get(c, "d"), &yes, &err), &err);
    assert_true(yes);
    assert_null(yaml_get(root, "nothing"));
    assert_null(yaml_get(b, "x"));
    yaml_close(y);
}

static void conversions_name_file_line_and_key(void **state)
{
    (void)state;
    struct yaml *y = must("n: twelve\nb: yes\nt: 5 parsecs\ns: -1\nempty:\nm: {}\nd: 90s\n");
    const struct yaml_node *root = yaml_root(y);
    struct err err = {0};
    int64_t v = 0;
    uint64_t u = 0;
    bool b = false;
    struct str t;
    ASSERT_ERR(yaml_int(y, yaml_get(root, "n"), 0, 9, &v, &err), ERR_PARSE, &err,
               "t.yaml:1: 'n': wanted a whole number from 0 to 9, found 'twelve'");
    ASSERT_ERR(yaml_bool(y, yaml_get(root, "b"), &b, &err), ERR_PARSE, &err, "true or false");
    ASSERT_ERR(yaml_duration(y, yaml_get(root, "t"), 0, 1000, &v, &err), ERR_PARSE, &err,
               "t.yaml:3");
    ASSERT_ERR(yaml_size(y, yaml_get(root, "s"), 0, 9, &u, &err), ERR_PARSE, &err, "t.yaml:4");
    ASSERT_ERR(yaml_text(y, yaml_get(root, "empty"), &t, &err), ERR_PARSE, &err, "nothing");
    ASSERT_ERR(yaml_text(y, yaml_get(root, "m"), &t, &err), ERR_PARSE, &err, "a map");
    ASSERT_OK(yaml_duration(y, yaml_get(root, "d"), 0, 100000, &v, &err), &err);
    assert_int_equal(v, 90000);
    yaml_close(y);
}

static void refuses_what_hides_meaning(void **state)
{
    (void)state;
    refuses("a: 1\nb: 2\na: 3\n", "t.yaml:3: 'a' was already given on line 1");
    refuses("a: &x 1\nb: *x\n", "t.yaml:1: anchors");
    refuses("a: !!str 1\n", "t.yaml:1: anchors");
    refuses("a: 1\n---\nb: 2\n", "second document");
    refuses("a: [1, 2\n", "t.yaml:");
    refuses("? [a]\n: 1\n", "a key must be a plain word");
    refuses("a: \"x\\0y\"\n", "NUL");
    refuses("a: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", "deeper");
    struct yaml *y = must("");
    assert_int_equal(yaml_root(y)->kind, YAML_MAP);
    yaml_close(y);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (unsigned n = 1; n < 100; n++) {
        struct err err = {0};
        struct yaml *y = NULL;
        mem_fail_at(n);
        int rc = yaml_read(&y, "t.yaml", STR("a: [1, 2]\nb: {c: d}\n"), &err);
        mem_fail_at(0);
        if (rc == 0) {
            yaml_close(y);
            return;
        }
        assert_int_equal(rc, -ERR_NOMEM);
    }
    fail_msg("never succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_maps_lists_and_lines),
        cmocka_unit_test(conversions_name_file_line_and_key),
        cmocka_unit_test(refuses_what_hides_meaning),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
