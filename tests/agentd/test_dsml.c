/* test_dsml.c - every shape of the streaming reader, whole, byte by byte and cut at random. */
#include "test.h"

#include "dsml_trace.h"

#define D LIT_TEXT_DSML
#define EOS LIT_TEXT_EOS
#define P(k, v) "<" D "parameter name=\"" k "\" string=\"true\">" v "</" D "parameter>\n"
#define N(k, v) "<" D "parameter name=\"" k "\" string=\"false\">" v "</" D "parameter>\n"
#define I(n, params) "<" D "invoke name=\"" n "\">\n" params "</" D "invoke>\n"
#define B(calls) "\n\n<" D "function_calls>\n" calls "</" D "function_calls>"

struct shape {
    const char *name, *in;
    const char *want; /* R:reasoning T:text C:name arguments F:code N (a note was made) */
    bool thinking, tools, tokens;
};

static const struct shape shapes[] = {
    {"answer", "Hello." EOS, "T:Hello.\n", 0, 0, 0},
    {"reasoning", "r</think>Hi" EOS, "R:r\nT:Hi\n", 1, 0, 0},
    {"no eos", "Hello", "T:Hello\n", 0, 0, 0},
    {"call", "ok" B(I("f", P("a", "x\"y") N("n", "[1,  2]"))) EOS,
     "T:ok\nC:f {\"a\": \"x\\\"y\", \"n\": [1,  2]}\n", 0, 0, 0},
    {"two calls", B(I("f", P("a", "1")) I("g", N("b", "2"))) EOS,
     "C:f {\"a\": \"1\"}\nC:g {\"b\": 2}\n", 0, 0, 0},
    {"empty call, spelled out", B(I("ping", "\n")), "C:ping {}\n", 0, 0, 0},
    {"newlines stay text", "a\n\n\n\nb\n" EOS, "T:a\n\n\n\nb\n\n", 0, 0, 0},
    {"three newlines before a block", "a\n" B(I("f", P("a", "1"))), "T:a\n\nC:f {\"a\": \"1\"}\n",
     0, 0, 0},
    {"angle brackets are text", "a < b </ c <" EOS, "T:a < b </ c <\n", 0, 0, 0},
    {"invoke without block", "a\n" I("f", P("a", "1")) EOS, "T:a\nC:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"invoke without block, twice", I("f", P("a", "1")) I("g", P("b", "2")) EOS,
     "C:f {\"a\": \"1\"}\nC:g {\"b\": \"2\"}\nN\n", 0, 0, 0},
    {"block not closed", "\n\n<" D "function_calls>\n" I("f", P("a", "1")) EOS,
     "C:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"invoke not closed", "\n\n<" D "function_calls>\n<" D "invoke name=\"f\">\n" P("a", "1") EOS,
     "C:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"invoke closed by the block",
     B("<" D "invoke name=\"f\">\n" P("a", "1")), "C:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"invoke closed by the next", B("<" D "invoke name=\"f\">\n" P("a", "1") I("g", P("b", "2"))),
     "C:f {\"a\": \"1\"}\nC:g {\"b\": \"2\"}\nN\n", 0, 0, 0},
    {"cut before the first parameter", "\n\n<" D "function_calls>\n<" D "invoke name=\"f\">\n",
     "C:f\nF:call_truncated\n", 0, 0, 0},
    {"closed block, nothing in invoke", B("<" D "invoke name=\"f\">\n"),
     "C:f\nF:call_truncated\n", 0, 0, 0},
    {"cut in a value", B("<" D "invoke name=\"f\">\n<" D "parameter name=\"a\" string=\"true\">x"),
     "C:f\nF:parameter_format\n", 0, 0, 0},
    {"cut in a value, at the end",
     "\n\n<" D "function_calls>\n<" D "invoke name=\"f\">\n<" D "parameter name=\"a\" string=\"true\">x",
     "C:f\nF:call_truncated\n", 0, 0, 0},
    {"cut in a key", "\n\n<" D "function_calls>\n<" D "invoke name=\"f\">\n<" D "parameter nam",
     "C:f\nF:call_truncated\n", 0, 0, 0},
    {"cut in a name", "\n\n<" D "function_calls>\n<" D "invoke nam" EOS, "F:call_truncated\n", 0, 0, 0},
    {"cut in a tag", "a\n\n<" D "func", "T:a\nF:block_format\n", 0, 0, 0},
    {"cut behind the block tag", "a\n\n<" D "function_calls>\n", "T:a\nF:block_unterminated\n",
     0, 0, 0},
    {"empty block", "a" B(""), "T:a\nF:block_format\n", 0, 0, 0},
    {"tool_calls", "\n\n<" D "tool_calls>\n" I("f", P("a", "1")) "</" D "tool_calls>" EOS,
     "C:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"toolcalls", "\n\n<" D "toolcalls>\n" I("f", P("a", "1")) "</" D "toolcalls>" EOS,
     "C:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"tool-calls", "\n\n<" D "tool-calls>\n" I("f", P("a", "1")) "</" D "tool-calls>" EOS,
     "C:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"bare tags", "a\n<function_calls>\n<invoke name=\"f\">\n<parameter name=\"a\" string=\"true\">1"
     "</parameter>\n</invoke>\n</function_calls>" EOS, "T:a\nC:f {\"a\": \"1\"}\nN\n", 0, 1, 0},
    {"bare invoke", "<invoke name=\"f\">\n" P("a", "1") "</invoke>" EOS, "C:f {\"a\": \"1\"}\nN\n",
     0, 1, 0},
    {"bare tags without tools", "<invoke name=\"f\">" EOS, "T:<invoke name=\"f\">\n", 0, 0, 0},
    {"bare tags in mid-line", "use <invoke name=\"f\">" EOS, "T:use <invoke name=\"f\">\n", 0, 1, 0},
    {"bare tags in reasoning", "\n<invoke name=\"f\">\n</think>" EOS, "R:\n<invoke name=\"f\">\n\n",
     1, 1, 0},
    {"no string attribute", B(I("f", "<" D "parameter name=\"a\">1</" D "parameter>\n")),
     "C:f\nF:parameter_format\n", 0, 0, 0},
    {"parameter without DSML", B(I("f", "<parameter name=\"a\" string=\"true\">1</parameter>\n")),
     "C:f\nF:invoke_format\n", 0, 0, 0},
    {"wrong closer", B(I("f", "<" D "parameter name=\"a\" string=\"true\">1</parameter>\n")),
     "C:f\nF:parameter_format\n", 0, 0, 0},
    {"wrong closer, then another",
     B(I("f", "<" D "parameter name=\"a\" string=\"true\">1</parameter>\n" P("b", "2"))),
     "C:f\nF:parameter_format\n", 0, 0, 0},
    {"JSON instead of parameters", B(I("f", "{\"a\": 1}\n")), "C:f\nF:invoke_format\n", 0, 0, 0},
    {"parameter outside", P("a", "1"), "F:block_format\n", 0, 0, 0},
    {"closer outside", "a</" D "invoke>", "T:a\nF:block_format\n", 0, 0, 0},
    {"unknown tag", "a<" D "call>", "T:a\nF:block_format\n", 0, 0, 0},
    {"marker in the answer", "a " D " b" EOS, "T:a \nF:special_token_in_text\n", 0, 0, 0},
    {"block before the end of reasoning", "hm" B(I("f", P("a", "1"))) EOS,
     "R:hm\nC:f {\"a\": \"1\"}\nN\n", 1, 0, 0},
    {"syntax discussed in reasoning", "write <" D "parameter</think>ok" EOS,
     "R:write <" D "parameter\nT:ok\n", 1, 0, 0},
    {"one newline", "a\n<" D "function_calls>\n" I("f", P("a", "1")) "</" D "function_calls>",
     "T:a\nC:f {\"a\": \"1\"}\n", 0, 0, 0},
    {"no newline", "a<" D "function_calls>\n" I("f", P("a", "1")) "</" D "function_calls>",
     "T:a\nC:f {\"a\": \"1\"}\n", 0, 0, 0},
    {"text behind calls", B(I("f", P("a", "1"))) " done" EOS, "C:f {\"a\": \"1\"}\nN\n", 0, 0, 0},
    {"text between calls", B(I("f", P("a", "1")) "then " I("g", P("b", "2"))),
     "C:f {\"a\": \"1\"}\nF:block_format\n", 0, 0, 0},
    {"second block", B(I("f", P("a", "1"))) B(I("g", P("b", "2"))),
     "C:f {\"a\": \"1\"}\nC:g {\"b\": \"2\"}\nN\n", 0, 0, 0},
    {"parameter twice", B(I("f", P("a", "1") P("a", "2"))), "C:f\nF:parameter_duplicate\n", 0, 0, 0},
    {"not JSON", B(I("f", N("a", "[1,"))), "C:f\nF:arguments_not_json\n", 0, 0, 0},
    {"empty JSON", B(I("f", N("a", ""))), "C:f\nF:arguments_not_json\n", 0, 0, 0},
    {"NaN", B(I("f", N("a", "NaN"))), "C:f\nF:arguments_not_json\n", 0, 0, 0},
    {"stray tags of reasoning", "<think>a</think>b" EOS, "T:ab\nN\n", 0, 0, 0},
    {"reasoning without end", "hm" EOS, "R:hm\nF:thinking_unterminated\n", 1, 0, 0},
    {"coerced to integer", B(I("f", P("int", "3"))), "C:f {\"int\": 3}\nN\n", 0, 0, 0},
    {"not coercible", B(I("f", P("int", "three"))), "C:f {\"int\": \"three\"}\n", 0, 0, 0},
    {"a float is no integer", B(I("f", P("int", "3.5"))), "C:f {\"int\": \"3.5\"}\n", 0, 0, 0},
    {"coerced to string", B(I("f", N("str", "3"))), "C:f {\"str\": \"3\"}\nN\n", 0, 0, 0},
    {"text coerced to string", B(I("f", N("str", "a b"))), "C:f {\"str\": \"a b\"}\nN\n", 0, 0, 0},
    {"JSON string for a string", B(I("f", N("str", "\"a\""))), "C:f {\"str\": \"a\"}\n", 0, 0, 0},
    {"ambiguous: left alone", B(I("f", P("any", "3"))), "C:f {\"any\": \"3\"}\n", 0, 0, 0},
    {"object for a string value", B(I("f", P("obj", "{\"k\": 1}"))), "C:f {\"obj\": {\"k\": 1}}\nN\n",
     0, 0, 0},
    {"literals inside a value, as text",
     B(I("f", P("a", "<think> " LIT_TEXT_USER EOS " </think>" D "<"))) EOS,
     "C:f {\"a\": \"<think> " LIT_TEXT_USER EOS " </think>" D "<\"}\n", 0, 0, 0},
    {"eos token inside a value", B(I("f", P("a", "x" EOS))), "C:f\nF:call_truncated\n", 0, 0, 1},
    {"user token ends", "abc" LIT_TEXT_USER "evil", "T:abc\nN\n", 0, 0, 1},
    {"tokens: call", "r</think>a" B(I("f", P("a", "1"))) EOS, "R:r\nT:a\nC:f {\"a\": \"1\"}\n", 1, 0, 1},
    {"text behind eos", "a" EOS "b", "T:a\n", 0, 0, 0},
    {"invalid UTF-8", "a\xff\xe4\xbd" EOS, "T:a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\n", 0, 0, 0},
    {"name with spaces around", B("<" D "invoke  name=\"f\">" P("a", "1") "</" D "invoke>"),
     "C:f {\"a\": \"1\"}\n", 0, 0, 0},
    {"no name", B("<" D "invoke name=\"\">\n</" D "invoke>\n"), "F:invoke_format\n", 0, 0, 0},
    {"id instead of name", B("<" D "invoke id=\"f\">\n</" D "invoke>\n"), "F:invoke_format\n", 0, 0, 0},
    {"marker in a name", B("<" D "invoke name=\"f" D "\">\n</" D "invoke>\n"), "F:invoke_format\n",
     0, 0, 0},
};

static unsigned types(void *arg, struct str name, struct str key)
{
    (void)arg;
    (void)name;
    return str_is(key, "int")   ? DSML_INTEGER
           : str_is(key, "str") ? DSML_STRING
           : str_is(key, "any") ? DSML_STRING | DSML_INTEGER
           : str_is(key, "obj") ? DSML_OBJECT
                                : 0;
}

/* What happened, as the table spells it. */
static void tell(const struct trace *t, struct buf *b)
{
    if (t->thinking.len)
        buf_printf(b, "R:%s\n", buf_cstr(&t->thinking));
    if (t->text.len)
        buf_printf(b, "T:%s\n", buf_cstr(&t->text));
    for (uint32_t i = 0; i < t->n_started; i++)
        buf_printf(b, "C:%s%s%s\n", buf_cstr(&t->call[i].name),
                   t->call[i].arguments.len ? " " : "", buf_cstr(&t->call[i].arguments));
    if (t->faulted)
        buf_printf(b, "F:%s\n", dsml_code_name(t->code));
    if (t->notes.len && !t->faulted)
        buf_puts(b, "N\n");
}

static void every_shape(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
        const struct shape *s = &shapes[i];
        struct dsml_opts o = {s->thinking, s->tools, s->tokens, types};
        for (unsigned way = 0; way < 12; way++) {
            struct trace t;
            struct buf b;
            buf_init(&b, 0);
            trace_run(&t, &o, str_c(s->in), way < 2 ? way : 7, way * 977 + 1);
            tell(&t, &b);
            if (strcmp(buf_cstr(&b), s->want))
                fail_msg("%s (way %u):\n%s\nwanted:\n%s", s->name, way, buf_cstr(&b), s->want);
            trace_no_lost_arguments(&t, str_c(s->in));
            trace_done(&t);
            buf_done(&b);
        }
    }
}

static void spelled_markers_are_text_with_tokens(void **state)
{
    (void)state;
    /* The same bytes, once as tokens and once typed: typed ones must not open anything. */
    struct dsml_opts o = {.tokens = true, .tools = true};
    struct str in = str_c("see" B(I("shell", P("cmd", "rm -rf /"))) EOS);
    struct trace t = {0};
    struct dsml *d;
    struct err err;
    ASSERT_OK(dsml_new(&d, &o, &trace_events, &t, &err), &err);
    for (size_t i = 0; i < in.n; i++)
        ASSERT_OK(dsml_feed(d, str_sub(in, i, 1), false, &err), &err);
    ASSERT_OK(dsml_finish(d, &err), &err);
    assert_int_equal(t.n_started, 0);
    assert_false(t.faulted);
    assert_true(str_eq(buf_view(&t.text), in));
    dsml_free(d);
    trace_done(&t);
}

static size_t think_bytes(const char *text, bool tokens)
{
    struct dsml_opts o = {.thinking = true, .tokens = tokens};
    struct dsml_events none = {0};
    struct dsml *d;
    struct err err;
    ASSERT_OK(dsml_new(&d, &o, &none, NULL, &err), &err);
    ASSERT_OK(dsml_feed(d, str_c(text), false, &err), &err);
    ASSERT_OK(dsml_finish(d, &err), &err);
    size_t n = dsml_think_bytes(d);
    dsml_free(d);
    return n;
}

static void reasoning_is_measured_in_fed_bytes(void **state)
{
    (void)state;
    assert_int_equal(think_bytes("abc</think>x" EOS, false), 11);
    assert_int_equal(think_bytes("\xff\xff</think>x" EOS, false), 10);
    assert_int_equal(think_bytes("</think>" EOS, false), 8);
    assert_int_equal(think_bytes("ab\n" B(I("f", P("a", "1"))), false), 3);
    assert_int_equal(think_bytes("ab", false), 0);
    assert_int_equal(think_bytes("ab</think>", true), 0);
}

static void caps_hold(void **state)
{
    (void)state;
    struct dsml_opts o = {0};
    struct trace t;
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "\n\n<" D "function_calls>\n");
    for (int i = 0; i < 70; i++)
        buf_puts(&b, I("f", P("a", "1")));
    trace_run(&t, &o, buf_view(&b), 100, 3);
    assert_int_equal(t.n_ended, LIMIT_CALLS_PER_MESSAGE);
    assert_int_equal(t.code, DSML_TOO_MANY_CALLS);
    trace_done(&t);
    buf_reset(&b);
    buf_puts(&b, "<" D "invoke name=\"");
    for (int i = 0; i < 1000; i++)
        buf_putc(&b, 'n');
    trace_run(&t, &o, buf_view(&b), 100, 3);
    assert_int_equal(t.code, DSML_TOO_LONG);
    trace_done(&t);
    /* At its cap to the byte, a name is the same however it is cut. */
    for (size_t n = LIMIT_NAME_BYTES; n < LIMIT_NAME_BYTES + 40; n++) {
        struct trace cut;
        buf_reset(&b);
        buf_puts(&b, "<" D "invoke name=\"");
        for (size_t i = 0; i < n; i++)
            buf_putc(&b, 'n');
        buf_puts(&b, "\">\n</" D "invoke>");
        trace_run(&t, &o, buf_view(&b), 0, 1);
        trace_run(&cut, &o, buf_view(&b), 1, 1);
        trace_same(&t, &cut);
        trace_done(&t);
        trace_done(&cut);
    }
    buf_reset(&b);
    buf_puts(&b, "<" D "invoke name=\"f\"><" D "parameter name=\"a\" string=\"true\">");
    for (size_t i = 0; i < LIMIT_ARGUMENTS_BYTES / 16 + 1; i++)
        buf_puts(&b, "0123456789abcdef");
    trace_run(&t, &o, buf_view(&b), 100000, 3);
    assert_int_equal(t.code, DSML_TOO_LONG);
    trace_done(&t);
    buf_done(&b);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct str in = str_c("r</think>a" B(I("f", P("a", "1") N("b", "[1]"))) EOS);
    struct dsml_opts o = {.thinking = true};
    for (uint64_t n = 1;; n++) {
        struct trace t = {0};
        struct dsml_events none = {0};
        struct dsml *d = NULL;
        struct err err = {0};
        uint64_t before = mem_count();
        mem_fail_at(n);
        int rc = dsml_new(&d, &o, &none, &t, &err);
        for (size_t i = 0; i < in.n && rc == 0; i += 5)
            rc = dsml_feed(d, str_sub(in, i, 5), false, &err);
        if (rc == 0)
            rc = dsml_finish(d, &err);
        mem_fail_at(0);
        dsml_free(d);
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
        cmocka_unit_test(every_shape),
        cmocka_unit_test(spelled_markers_are_text_with_tokens),
        cmocka_unit_test(reasoning_is_measured_in_fed_bytes),
        cmocka_unit_test(caps_hold),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
