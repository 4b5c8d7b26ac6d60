/*
 * test_grammar.c - random walks through the mask: whatever the sampler picks, the completion
 * is well-formed, its calls fit their schemas, and there is always a next token.
 */
#include "test.h"

#include "agentd/grammar.h"
#include "agentd/literal.h"
#include "base/json.h"
#include "dsml_trace.h"

#define D LIT_TEXT_DSML

/* 256 bytes, a few longer tokens that straddle tags, the literals, one unnamed special. */
static const char *const longer[] = {
    "\n\n<", ">\n", "\">", "\">\n", "=\"", "<", "</", "invoke", " name=\"", "function", "_calls",
    "function_calls>\n<", "parameter", " string=\"", "true\">", "false\">", "true", "false", "null",
    "\", \"", ": ", "[1, 2]", "12", "get_", "get_weather", "weather\">\n", "city", "the ", "\n\n",
    ">\n<", "{\"", "\"}", "]</", "fast\"", "fast</", "3</", "}\n", "a\"b", "\\u", "d83d", "\\\"",
};
enum { N_LONGER = ARRAY_LEN(longer), FIRST_LITERAL = 256 + N_LONGER,
       N_VOCAB = FIRST_LITERAL + LIT_COUNT + 1 };

static struct str token_bytes(const void *arg, int32_t id)
{
    static char byte[256];
    (void)arg;
    if (id < 256) {
        byte[id] = (char)id;
        return str_of(&byte[id], 1);
    }
    if (id < FIRST_LITERAL)
        return str_c(longer[id - 256]);
    return id < N_VOCAB - 1 ? literal_text(id - FIRST_LITERAL) : str_c("<|pad|>");
}

static bool token_special(const void *arg, int32_t id)
{
    (void)arg;
    return id >= FIRST_LITERAL;
}

static const struct grammar_tokens tokens = {.n_vocab = N_VOCAB, .bytes = token_bytes,
                                             .special = token_special};

static const char *const tools[] = {
    "{\"name\": \"get_weather\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"integer\"}, "
    "\"mode\": {\"type\": \"string\", \"enum\": [\"fast\", \"faster\", \"slow\"]}, "
    "\"flag\": {\"type\": \"boolean\"}, \"num\": {\"type\": \"number\"}, "
    "\"maybe\": {\"type\": [\"string\", \"null\"]}, \"level\": {\"enum\": [1, 10, null]}, "
    "\"list\": {\"type\": \"array\", \"items\": {\"type\": \"integer\"}}, "
    "\"obj\": {\"type\": \"object\", \"properties\": {\"k\": {\"type\": \"string\"}, "
    "\"key\": {\"type\": \"array\"}, \"z\": {\"enum\": [\"a\", 2]}}, \"required\": [\"k\"], "
    "\"additionalProperties\": false}, \"any\": {}}, \"required\": [\"city\", \"days\"]}}",
    "{\"name\": \"get\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"id\": {\"type\": \"string\"}}}}",
    "{\"name\": \"ping\"}",
};

static uint64_t rng = 7;

static struct grammar *new_grammar(void)
{
    struct str text[ARRAY_LEN(tools)];
    struct grammar *g = NULL;
    struct err err;
    for (unsigned i = 0; i < ARRAY_LEN(tools); i++)
        text[i] = str_c(tools[i]);
    ASSERT_OK(grammar_new(&g, text, ARRAY_LEN(tools), &err), &err);
    return g;
}

static bool allowed(const uint8_t *mask, int32_t id)
{
    return mask[id / 8] >> (id % 8) & 1;
}

/* One of the allowed tokens; half the time one that leads out of text and values. */
static int32_t pick(const uint8_t *mask)
{
    static const char *const ways_out[] = {"\n\n<", "</", "\"", "\"}", "}", "]", "<", "\">"};
    int32_t ids[N_VOCAB];
    uint32_t n = 0;
    if (allowed(mask, FIRST_LITERAL + LIT_DSML) && trace_random(&rng) % 4)
        return FIRST_LITERAL + LIT_DSML;
    if (allowed(mask, FIRST_LITERAL + LIT_ENDTHINK) && trace_random(&rng) % 4 == 0)
        return FIRST_LITERAL + LIT_ENDTHINK;
    bool out = trace_random(&rng) % 2;
    for (int32_t id = 0; id < N_VOCAB; id++) {
        if (!allowed(mask, id))
            continue;
        bool is_out = false;
        for (unsigned i = 0; i < ARRAY_LEN(ways_out); i++)
            is_out |= str_is(token_bytes(NULL, id), ways_out[i]);
        if (out && is_out && trace_random(&rng) % 2)
            return id;
        ids[n++] = id;
    }
    MUST(n > 0);
    return ids[trace_random(&rng) % n];
}

static void check_object(const json_t *o, const json_t *schema)
{
    const char *key;
    json_t *v;
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, v)
        MUST(json_object_get(o, json_string_value(v)));
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        const json_t *s = json_object_get(json_object_get(schema, "properties"), key);
        const json_t *type = json_object_get(s, "type"), *list = json_object_get(s, "enum");
        MUST(s);
        bool found = !json_is_array(list);
        for (i = 0; i < json_array_size(list); i++)
            found |= json_equal(json_array_get(list, i), v);
        MUST(found);
        if (!json_is_string(type))
            continue;
        struct str t = json_view(type);
        MUST(!str_is(t, "string") || json_is_string(v));
        MUST(!str_is(t, "integer") || json_is_integer(v) || json_is_real(v));
        MUST(!str_is(t, "number") || json_is_number(v));
        MUST(!str_is(t, "boolean") || json_is_boolean(v));
        MUST(!str_is(t, "array") || json_is_array(v));
        MUST(!str_is(t, "object") || json_is_object(v));
        if (str_is(t, "object"))
            check_object(v, s);
    }
}

/* Big integers overflow jansson's reader; they are right all the same. */
static void check_call(const struct dsml_call *c)
{
    json_t *arguments = NULL, *tool = NULL;
    struct err err;
    const char *text = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(tools); i++) {
        json_decref(tool);
        ASSERT_OK(json_read(&tool, str_c(tools[i]), &err), &err);
        if (str_eq(json_view(json_object_get(tool, "name")), c->name)) {
            text = tools[i];
            break;
        }
    }
    MUST(text);
    if (json_read(&arguments, c->arguments, &err) == 0) {
        check_object(arguments, json_object_get(tool, "parameters"));
        json_decref(arguments);
    } else {
        /* "any" may repeat a key in an object of its own; integers may exceed 64 bits. */
        MUST(strstr(err.text, "integer") || strstr(err.text, "duplicate")
             || strstr(err.text, "real") || strstr(err.text, "UTF-8") || strstr(err.text, "NUL")
             || strstr(err.text, "u0000"));
    }
    json_decref(tool);
}

static void walks_are_well_formed(void **state)
{
    (void)state;
    struct grammar *g = new_grammar();
    struct grammar_vocab *v = NULL;
    struct err err = {0};
    uint32_t calls = 0, ended = 0;
    ASSERT_OK(grammar_vocab_new(&v, &tokens, &err), &err);
    for (int i = 0; i < 300; i++) {
        struct grammar_run *r = NULL;
        bool thinking = i % 2;
        struct buf text;
        buf_init(&text, 0);
        ASSERT_OK(grammar_run_new(&r, g, v, thinking, &err), &err);
        for (int n = 0; n < 700 && !grammar_run_ended(r); n++) {
            int32_t id = pick(grammar_run_mask(r));
            MUST(grammar_run_accept(r, id));
            buf_str(&text, token_bytes(NULL, id));
        }
        if (grammar_run_ended(r)) {
            struct dsml_message m;
            trace_repair(&text);
            int rc = dsml_parse(&m, buf_view(&text), thinking, &err);
            if (rc < 0)
                fail_msg("%s: %s\n%s", dsml_code_name(m.code), err.text, buf_cstr(&text));
            for (uint32_t k = 0; k < m.n_calls; k++)
                check_call(&m.calls[k]);
            calls += m.n_calls;
            ended++;
            dsml_message_done(&m);
        }
        grammar_run_free(r);
        buf_done(&text);
    }
    print_message("%u walks ended, with %u calls\n", ended, calls);
    assert_true(ended > 100 && calls > 100);
    grammar_vocab_free(v);
    grammar_free(g);
}

/* Feeds text, literals as their tokens; true when every byte was allowed. */
static bool accepts(const struct grammar *g, bool thinking, const char *text, size_t *stopped)
{
    struct grammar_vocab *v = NULL;
    struct grammar_run *r = NULL;
    struct err err;
    struct str s = str_c(text);
    bool ok = true;
    ASSERT_OK(grammar_vocab_new(&v, &tokens, &err), &err);
    ASSERT_OK(grammar_run_new(&r, g, v, thinking, &err), &err);
    size_t at = 0;
    while (at < s.n && ok) {
        enum literal which = LIT_BOS;
        bool special = literal_find(s, at, &which) == at;
        int32_t id = special ? FIRST_LITERAL + which : (unsigned char)s.p[at];
        /* The mask and the step must agree. */
        bool bit = allowed(grammar_run_mask(r), id);
        ok = grammar_run_accept(r, id);
        MUST(bit == ok);
        at += ok ? (special ? literal_text(which).n : 1) : 0;
    }
    *stopped = at;
    grammar_run_free(r);
    grammar_vocab_free(v);
    return ok;
}

#define HEAD "\n\n<" D "function_calls>\n<" D "invoke name=\""
#define P(k, b, v) "<" D "parameter name=\"" k "\" string=\"" b "\">" v "</" D "parameter>\n"
#define TAIL "</" D "invoke>\n</" D "function_calls>" LIT_TEXT_EOS
#define CITY P("city", "true", "Paris </b> <") P("days", "false", "2")

static void what_is_written_and_what_not(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *stops; /* the rest that is refused, or NULL */
    } cases[] = {
        {HEAD "get_weather\">\n" CITY TAIL, NULL},
        {HEAD "get_weather\">\n" CITY P("mode", "true", "faster") TAIL, NULL},
        {HEAD "ping\">\n\n" TAIL, NULL},
        {HEAD "get\">\n\n" TAIL, NULL},
        {HEAD "get\">\n" P("id", "true", "") TAIL, NULL},
        {HEAD "get_weather\">\n" CITY P("obj", "false", "{\"k\": \"\\u00e9\", \"key\": [{}]}") TAIL,
         NULL},
        {HEAD "get_weather\">\n" CITY P("maybe", "false", "null") P("maybe", "true", "x"),
         "aybe\" string=\"true\">x</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("city", "true", "x") TAIL, "/" D "invoke>\n</" D
                                                              "function_calls>" LIT_TEXT_EOS},
        {HEAD "get_weather\">\n\n", "\n"},
        {HEAD "rm\">", "rm\">"},
        {HEAD "get_weather\">\n" P("days", "true", "2"), "true\">2</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("days", "false", "2.5"), ".5</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("days", "false", "02"), "2</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("mode", "true", "fastest"), "st</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("num", "false", "-0.5e10") P("num", "false", "1"),
         "num\" string=\"false\">1</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("obj", "false", "{}"), "}</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("list", "false", "[1, \"a\"]"), "\"a\"]</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("level", "false", "10") P("level", "false", "1"),
         "evel\" string=\"false\">1</" D "parameter>\n"},
        {HEAD "get_weather\">\n" P("any", "false", "[\"\\ud83d\"]"), "83d\"]</" D "parameter>\n"},
        {"a <" D, D},
        {"text\n<" D, D},
        {LIT_TEXT_THINK, LIT_TEXT_THINK},
        {"text" LIT_TEXT_EOS, NULL},
        {"text" LIT_TEXT_USER, LIT_TEXT_USER},
    };
    struct grammar *g = new_grammar();
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        size_t stopped = 0, n = strlen(cases[i].text);
        bool ok = accepts(g, false, cases[i].text, &stopped);
        size_t want = cases[i].stops ? n - strlen(cases[i].stops) : n;
        if (ok != !cases[i].stops || stopped != want)
            fail_msg("case %u stopped at %zu, wanted %zu: ...%s", i, stopped, want,
                     cases[i].text + stopped);
    }
    size_t stopped;
    assert_true(accepts(g, true, "hm " LIT_TEXT_ENDTHINK "ok" LIT_TEXT_EOS, &stopped));
    assert_false(accepts(g, true, "hm" LIT_TEXT_EOS, &stopped));
    assert_false(accepts(g, true, "hm\n\n<" D, &stopped));
    grammar_free(g);
}

static void live_sets_hold(void **state)
{
    (void)state;
    struct grammar *g = new_grammar();
    struct err err;
    size_t stopped;
    struct str ids[] = {STR("job-2"), STR("job-1")};
    ASSERT_OK(grammar_live(g, STR("get"), STR("id"), ids, 2, &err), &err);
    assert_true(accepts(g, false, HEAD "get\">\n" P("id", "true", "job-1") TAIL, &stopped));
    assert_false(accepts(g, false, HEAD "get\">\n" P("id", "true", "job-3") TAIL, &stopped));
    ASSERT_OK(grammar_live(g, STR("get"), STR("id"), NULL, 0, &err), &err);
    assert_true(accepts(g, false, HEAD "get\">\n" P("id", "true", "job-3") TAIL, &stopped));
    ASSERT_ERR(grammar_live(g, STR("get_weather"), STR("days"), ids, 1, &err), ERR_NOTFOUND, &err,
               "days");
    grammar_free(g);
}

static void types_of_parameters(void **state)
{
    (void)state;
    struct grammar *g = new_grammar();
    struct str tool = STR("get_weather");
    assert_int_equal(grammar_types(g, tool, STR("days")), DSML_INTEGER);
    assert_int_equal(grammar_types(g, tool, STR("mode")), DSML_STRING);
    assert_int_equal(grammar_types(g, tool, STR("maybe")), DSML_STRING | DSML_NULL);
    assert_int_equal(grammar_types(g, tool, STR("any")), 0);
    assert_int_equal(grammar_types(g, tool, STR("nothing")), 0);
    assert_int_equal(grammar_types(g, STR("nobody"), STR("days")), 0);
    grammar_free(g);
}

static void no_tools_no_calls(void **state)
{
    (void)state;
    struct grammar *g = NULL;
    struct err err;
    size_t stopped;
    ASSERT_OK(grammar_new(&g, NULL, 0, &err), &err);
    assert_false(accepts(g, false, "\n\n<" D, &stopped));
    assert_true(accepts(g, false, "hello\n\n<" LIT_TEXT_EOS, &stopped));
    grammar_free(g);
}

static void bad_tools_are_refused(void **state)
{
    (void)state;
    struct grammar *g = NULL;
    struct err err;
    struct buf b;
    ASSERT_ERR(grammar_new(&g, &STR("{\"name\": \"a\\\"b\"}"), 1, &err), ERR_PARSE, &err, "name");
    ASSERT_ERR(grammar_new(&g, &STR("{"), 1, &err), ERR_PARSE, &err, "JSON");
    buf_init(&b, 0);
    buf_puts(&b, "{\"name\": \"f\", \"parameters\": {\"properties\": {");
    for (int i = 0; i < 65; i++)
        buf_printf(&b, "%s\"p%d\": {}", i ? ", " : "", i);
    buf_puts(&b, "}}}");
    struct str many = buf_view(&b);
    ASSERT_ERR(grammar_new(&g, &many, 1, &err), ERR_LIMIT, &err, "64");
    buf_done(&b);
}

/* Every integer within the bounds can be written, and no other. */
static void bounds_of_integers_hold(void **state)
{
    static const int lows[] = {-30, -7, -1, 0, 1, 5, 17}, highs[] = {-5, -1, 0, 3, 9, 23, 105};
    (void)state;
    for (unsigned a = 0; a < ARRAY_LEN(lows); a++)
        for (unsigned b = 0; b < ARRAY_LEN(highs); b++) {
            char tool[256];
            struct grammar *g = NULL;
            struct err err;
            if (lows[a] > highs[b])
                continue;
            snprintf(tool, sizeof tool,
                     "{\"name\": \"t\", \"parameters\": {\"properties\": {\"n\": {\"type\": "
                     "\"integer\", \"minimum\": %d, \"exclusiveMaximum\": %d}}, \"required\": "
                     "[\"n\"]}}", lows[a], highs[b] + 1);
            struct str text = str_c(tool);
            ASSERT_OK(grammar_new(&g, &text, 1, &err), &err);
            for (int n = -120; n <= 120; n++) {
                char call[300];
                size_t stopped;
                snprintf(call, sizeof call, HEAD "t\">\n" P("n", "false", "%d") TAIL, n);
                if (accepts(g, false, call, &stopped) != (n >= lows[a] && n <= highs[b]))
                    fail_msg("%d within %d to %d", n, lows[a], highs[b]);
            }
            grammar_free(g);
        }
}

static void numbers_of_items_hold(void **state)
{
    static const char *const tool =
        "{\"name\": \"t\", \"parameters\": {\"properties\": {\"a\": {\"type\": \"array\", "
        "\"items\": {\"type\": \"boolean\"}, \"minItems\": 2, \"maxItems\": 3}}}}";
    static const struct {
        const char *list;
        bool fits;
    } cases[] = {{"[]", false}, {"[true]", false}, {"[true, false]", true},
                 {"[true, false, true]", true}, {"[true, false, true, true]", false}};
    struct str text = str_c(tool);
    struct grammar *g = NULL;
    struct err err;
    (void)state;
    ASSERT_OK(grammar_new(&g, &text, 1, &err), &err);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char call[300];
        size_t stopped;
        snprintf(call, sizeof call, HEAD "t\">\n" P("a", "false", "%s") TAIL, cases[i].list);
        assert_int_equal(accepts(g, false, call, &stopped), cases[i].fits);
    }
    grammar_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_of_integers_hold),
        cmocka_unit_test(numbers_of_items_hold),
        cmocka_unit_test(what_is_written_and_what_not), cmocka_unit_test(walks_are_well_formed),
        cmocka_unit_test(live_sets_hold),               cmocka_unit_test(types_of_parameters),
        cmocka_unit_test(no_tools_no_calls),            cmocka_unit_test(bad_tools_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
