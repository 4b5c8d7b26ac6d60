/* test_opt.c - option tables: kinds, errors, help, commands that carry commands. */
#include "test.h"

#include "agentd/opt.h"

static bool json;
static const char *name, *mode;
static int64_t count;
static double rate;
static struct opt_list tags;

static const struct opt opts[] = {
    {"json", 'j', OPT_FLAG, &json, NULL, "print JSON"},
    {"name", 'n', OPT_STR, &name, "NAME", "a name"},
    {"count", 0, OPT_INT, &count, "N", "a number"},
    {"rate", 0, OPT_NUM, &rate, "X", "a rate"},
    {"mode", 'm', OPT_WORD, &mode, "soft|hard", "a word"},
    {"tag", 't', OPT_LIST, &tags, "TAG", "a tag; may be repeated"},
};
static const struct opt_cmd cmd = {
    .name = "probe", .args = "FILE", .summary = "Probe.", .opts = opts,
    .n_opts = ARRAY_LEN(opts), .min_args = 1, .max_args = 2,
};

static int parse(bool early, int *code, int argc, const char **argv)
{
    json = false;
    name = NULL;
    count = 0;
    rate = 0;
    tags = (struct opt_list){0};
    *code = -1;
    return opt_parse(&cmd, argc, (char **)argv, early, code);
}
#define PARSE(early, code, ...)                                                          \
    parse(early, code, (int)(sizeof((const char *[]){"probe", __VA_ARGS__}) / sizeof(char *)), \
          (const char *[]){"probe", __VA_ARGS__, NULL})

static void kinds(void **state)
{
    (void)state;
    int code;
    const char *argv[] = {"probe", "f", "-j", "--count", "-7", "--rate=0.5", "-ta", "-t", "b",
                          "--name", "x", NULL};
    int first = parse(false, &code, 11, argv);
    assert_int_equal(first, 10);
    assert_string_equal(argv[first], "f");
    assert_true(json);
    assert_string_equal(name, "x");
    assert_int_equal(count, -7);
    assert_true(rate == 0.5);
    assert_int_equal(tags.n, 2);
    assert_string_equal(tags.item[1], "b");
}

static void errors(void **state)
{
    (void)state;
    int code;
    assert_int_equal(PARSE(false, &code, "f", "--bogus"), -1);
    assert_int_equal(code, EXIT_USAGE);
    assert_int_equal(PARSE(false, &code, "f", "--count", "7x"), -1);
    assert_int_equal(code, EXIT_USAGE);
    assert_int_equal(PARSE(false, &code, "f", "--name"), -1);
    assert_int_equal(code, EXIT_USAGE);
    assert_int_equal(PARSE(false, &code, "-j"), -1);
    assert_int_equal(code, EXIT_USAGE);
    assert_int_equal(PARSE(false, &code, "a", "b", "c"), -1);
    assert_int_equal(code, EXIT_USAGE);
    static const char *const words[] = {"", "har", "hard|soft", "|", "hardly"};
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        assert_int_equal(PARSE(false, &code, "f", "--mode", words[i]), -1);
        assert_int_equal(code, EXIT_USAGE);
    }
    assert_true(PARSE(false, &code, "f", "-mhard") > 0);
    assert_string_equal(mode, "hard");
    assert_int_equal(PARSE(false, &code, "--help"), -1);
    assert_int_equal(code, EXIT_OK);
}

static void carried(void **state)
{
    (void)state;
    int code;
    assert_int_equal(PARSE(true, &code, "-j", "ls", "-l"), 2);
    assert_true(json);
    assert_int_equal(PARSE(false, &code, "--", "-j"), 2);
    assert_false(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds),
        cmocka_unit_test(errors),
        cmocka_unit_test(carried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
