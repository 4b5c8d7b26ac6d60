/*
 * test_grammar_model.c - random sampling through the mask with the vocabulary that ships and
 * the schemas of every profile: whatever is drawn, each call that came to its end is read by
 * the strict parser and fits its schema.
 */
#include "test.h"

#include "agentd/dsml.h"
#include "agentd/grammar.h"
#include "agentd/jsontext.h"
#include "agentd/literal.h"
#include "base/json.h"
#include "dsml_trace.h"
#include "engine/engine.h"
#include "tools/schema.h"
#include "tools/tool.h"

static struct engine *engine;
static uint64_t rng;

static struct str token_bytes(const void *arg, int32_t id)
{
    (void)arg;
    return engine_token_bytes(engine, id);
}

static bool token_special(const void *arg, int32_t id)
{
    (void)arg;
    return engine_token_is_special(engine, id);
}

static int32_t drawn[1 << 18];

/* Any allowed token, but half the time one that leads on: a literal, a quote, a bracket. */
static int32_t pick(const uint8_t *mask, uint32_t n_vocab, int32_t dsml, bool late)
{
    static const char *const ways_out[] = {"\n\n<", "</", "\"", "\"}", "}", "]", "<", "\">", "\"]"};
    uint32_t n = 0, outs = 0;
    int32_t out[64];
    if (mask[dsml / 8] >> (dsml % 8) & 1 && (late || trace_random(&rng) % 4))
        return dsml;
    for (int32_t id = 0; id < (int32_t)n_vocab; id++) {
        if (!(mask[id / 8] >> (id % 8) & 1))
            continue;
        drawn[n++] = id;
        bool way = token_special(NULL, id);
        for (unsigned i = 0; !way && i < ARRAY_LEN(ways_out); i++)
            way = str_is(token_bytes(NULL, id), ways_out[i]);
        if (way && outs < ARRAY_LEN(out))
            out[outs++] = id;
    }
    MUST(n > 0);
    if (outs && (late || trace_random(&rng) % 2))
        return out[trace_random(&rng) % outs];
    return drawn[trace_random(&rng) % n];
}

/* The way of toolrun: canonical form, then the schema. */
static void check_call(const struct tool_profile *p, const struct dsml_call *c)
{
    const struct tool *tool = tool_find(c->name);
    struct err err = {0};
    struct buf b;
    json_t *args = NULL;
    MUST(tool && tool_profile_has(p, c->name));
    buf_init(&b, 0);
    ASSERT_OK(jsontext_rewrite(&b, c->arguments, &err), &err);
    int rc = schema_parse_args(tool->name, tool_schema(p, tool), buf_view(&b), &args, &err);
    if (rc < 0)
        fail_msg("%s\n%s", err.text, buf_cstr(&b));
    json_decref(args);
    buf_done(&b);
}

/* A text that must be possible, as the tokens of the vocabulary. */
static void write_text(struct grammar_run *r, struct buf *text, struct str s)
{
    struct engine_tokens t = {0};
    struct err err = {0};
    ASSERT_OK(engine_tokenize(engine, s, true, &t, &err), &err);
    for (uint32_t i = 0; i < t.n; i++) {
        MUST(grammar_run_accept(r, t.id[i]));
        buf_str(text, token_bytes(NULL, t.id[i]));
    }
    engine_tokens_done(&t);
}

/* One completion; the number of its calls, or -1 when it did not end in time. */
static int sample(const struct tool_profile *p, const struct grammar *g, struct grammar_vocab *v,
                  uint32_t n_vocab, int32_t dsml)
{
    struct grammar_run *r = NULL;
    struct err err = {0};
    struct buf text;
    bool thinking = trace_random(&rng) % 2;
    int calls = -1;
    buf_init(&text, 0);
    ASSERT_OK(grammar_run_new(&r, g, v, thinking, &err), &err);
    if (thinking)
        write_text(r, &text, STR("hm" LIT_TEXT_ENDTHINK));
    if (p->tools[0] && trace_random(&rng) % 8)
        write_text(r, &text, STR("\n\n<" LIT_TEXT_DSML));
    for (int n = 0; n < 600 && !grammar_run_ended(r); n++) {
        int32_t id = pick(grammar_run_mask(r), n_vocab, dsml, n > 250);
        MUST(grammar_run_accept(r, id));
        buf_str(&text, token_bytes(NULL, id));
    }
    if (grammar_run_ended(r)) {
        struct dsml_message m;
        trace_repair(&text);
        if (dsml_parse(&m, buf_view(&text), thinking, &err) < 0)
            fail_msg("%s: %s\n%s", dsml_code_name(m.code), err.text, buf_cstr(&text));
        for (uint32_t k = 0; k < m.n_calls; k++)
            check_call(p, &m.calls[k]);
        calls = (int)m.n_calls;
        dsml_message_done(&m);
    }
    grammar_run_free(r);
    buf_done(&text);
    return calls;
}

static void every_profile(void **state)
{
    const char *src = getenv("SRC"), *many = getenv("GRAMMAR_SAMPLES");
    int samples = many ? atoi(many) : 60;
    struct err err = {0};
    char path[4096];
    (void)state;
    snprintf(path, sizeof path, "%s/models/agentd-small.gguf", src ? src : "../..");
    const struct engine_opts o = {.path = path, .n_threads = 1};
    ASSERT_OK(engine_open(&engine, &o, &err), &err);
    uint32_t n_vocab = engine_info(engine)->n_vocab;
    MUST(n_vocab < ARRAY_LEN(drawn));
    const struct grammar_tokens tokens = {.n_vocab = n_vocab, .bytes = token_bytes,
                                          .special = token_special};
    int32_t dsml = engine_token_id(engine, STR(LIT_TEXT_DSML));
    struct grammar_vocab *v = NULL;
    ASSERT_OK(grammar_vocab_new(&v, &tokens, &err), &err);
    const struct tool_profile *p;
    for (unsigned i = 0; (p = tool_profile_at(i)); i++) {
        struct str text[TOOL_PROFILE_MAX];
        struct grammar *g = NULL;
        uint32_t n = 0;
        int ended = 0, calls = 0;
        for (; p->tools[n]; n++)
            text[n] = str_c(tool_schema(p, tool_find(str_c(p->tools[n]))));
        ASSERT_OK(grammar_new(&g, text, n, &err), &err);
        rng = 11 + i;
        for (int k = 0; k < samples; k++) {
            int got = sample(p, g, v, n_vocab, dsml);
            ended += got >= 0;
            calls += got > 0 ? got : 0;
        }
        print_message("%-10s %d of %d samples ended, with %d calls\n", p->name, ended, samples,
                      calls);
        assert_true(ended > samples / 3);
        assert_true(n == 0 || calls > samples / 4);
        grammar_free(g);
    }
    grammar_vocab_free(v);
    engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_profile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
