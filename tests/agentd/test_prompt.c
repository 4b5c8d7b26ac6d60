/*
 * test_prompt.c - what the vectors cannot show: pieces, checkpoints, replay of sampled bytes,
 * pairing by id, and the way there and back through a real tokenizer.
 */
#include "test.h"

#include "agentd/literal.h"
#include "agentd/prompt.h"
#include "dsml_trace.h"
#include "engine/tokenizer.h"

#define B LIT_TEXT_BOS
#define U LIT_TEXT_USER
#define A LIT_TEXT_ASSISTANT
#define T LIT_TEXT_THINK
#define E LIT_TEXT_ENDTHINK
#define EOS LIT_TEXT_EOS
#define D LIT_TEXT_DSML
#define CALL "\n\n<" D "function_calls>\n<" D "invoke name=\"f\">\n"                             \
             "<" D "parameter name=\"a\" string=\"true\">1</" D "parameter>\n"                  \
             "</" D "invoke>\n</" D "function_calls>"

static const struct prompt_opts thinking = {.mode = PROMPT_THINKING};

static struct prompt render(const struct prompt_msg *m, uint32_t n, const struct prompt_opts *o)
{
    struct prompt p;
    struct err err = {0};
    ASSERT_OK(prompt_render(&p, m, n, o, &err), &err);
    return p;
}

static void assert_text(struct prompt *p, const char *want)
{
    if (!str_is(buf_view(&p->text), want))
        fail_msg("got  %s\nwant %s", buf_cstr(&p->text), want);
}

static void pieces_alternate(void **state)
{
    (void)state;
    struct prompt_msg m[] = {{.role = PROMPT_SYSTEM, .content = STR("s")},
                             {.role = PROMPT_USER, .content = STR("a" U "b" D T)}};
    struct prompt p = render(m, 2, &thinking);
    static const char *const want[] = {B, "s", U, "a" U "b" D T, A, T};
    assert_int_equal(p.n_pieces, ARRAY_LEN(want));
    for (uint32_t i = 0; i < p.n_pieces; i++) {
        assert_true(str_is(prompt_piece_text(&p, i), want[i]));
        assert_int_equal(p.piece[i].special, i != 1 && i != 3);
    }
    assert_int_equal(p.n_defused, 3);
    assert_true(p.ready && p.thinking);
    assert_int_equal(p.n_marks, 1);
    assert_int_equal(p.mark[0].piece, 5);
    assert_int_equal(p.mark[0].msg, 1);
    assert_int_equal(p.mark[0].at, p.text.len - strlen(T));
    assert_int_equal(p.n_spans, 2);
    assert_int_equal(p.span[1].at + p.span[1].len, p.text.len);
    prompt_done(&p);
}

static const struct prompt_call call = {STR("c"), STR("f"), STR("{\"a\": \"1\"}")};

/* user, assistant (sampled, one call), result; with `more`, a new user message. */
static struct prompt replay(struct prompt_sampled s, bool more, const struct prompt_opts *o)
{
    struct prompt_msg m[] = {
        {.role = PROMPT_USER, .content = STR("q")},
        {.role = PROMPT_ASSISTANT, .reasoning = STR("not this"), .calls = &call, .n_calls = 1,
         .sampled = s},
        {.role = PROMPT_TOOL, .content = STR("x"), .call_id = STR("c")},
        {.role = PROMPT_USER, .content = STR("w")},
    };
    return render(m, more ? 4 : 3, o);
}

#define RESULT "\n\n<function_results>\n<result>x</result>\n</function_results>\n\n"

static void what_was_sampled_is_replayed(void **state)
{
    (void)state;
    static const int32_t ids[] = {11, 12, 13, 14, 15};
    /* Not canonical on purpose: a space that the renderer would not write. */
    struct prompt_sampled s = {.bytes = STR("hm " E " ok" CALL EOS), .ids = ids, .n_ids = 5,
                               .think_bytes = 3 + 8, .think_ids = 2};
    struct prompt p = replay(s, false, &thinking);
    assert_text(&p, B U "q" A T "hm " E " ok" CALL EOS RESULT T);
    assert_ptr_equal(p.piece[5].ids, ids);
    assert_int_equal(p.piece[5].n_ids, 5);
    prompt_done(&p);
    p = replay(s, true, &thinking);
    assert_text(&p, B U "q" A E " ok" CALL EOS RESULT E U "w" A T);
    assert_ptr_equal(p.piece[5].ids, ids + 2);
    assert_int_equal(p.piece[5].n_ids, 3);
    assert_int_equal(p.n_marks, 2);
    prompt_done(&p);
    struct prompt_opts all = {.mode = PROMPT_THINKING, .keep = PROMPT_KEEP_ALL};
    p = replay(s, true, &all);
    assert_text(&p, B U "q" A T "hm " E " ok" CALL EOS RESULT T U "w" A T);
    prompt_done(&p);
    struct prompt_opts none = {.mode = PROMPT_THINKING, .keep = PROMPT_KEEP_NONE};
    p = replay(s, false, &none);
    assert_text(&p, B U "q" A E " ok" CALL EOS RESULT T);
    prompt_done(&p);
}

static void odd_endings_are_closed(void **state)
{
    (void)state;
    struct prompt_sampled open = {.bytes = STR("hm"), .think_open = true};
    struct prompt p = replay(open, false, &thinking);
    assert_text(&p, B U "q" A T "hm" E EOS RESULT T);
    prompt_done(&p);
    p = replay(open, true, &thinking);
    assert_text(&p, B U "q" A E EOS RESULT E U "w" A T);
    prompt_done(&p);
    struct prompt_sampled no_eos = {.bytes = STR(E "a" CALL), .think_bytes = 8};
    p = replay(no_eos, false, &thinking);
    assert_text(&p, B U "q" A T E "a" CALL EOS RESULT T);
    prompt_done(&p);
    /* Sampled in chat mode, replayed in thinking mode. */
    struct prompt_sampled chat = {.bytes = STR("a" EOS)};
    p = replay(chat, false, &thinking);
    assert_text(&p, B U "q" A T E "a" EOS RESULT T);
    prompt_done(&p);
    struct prompt_sampled wrong = {.bytes = STR("a"), .think_bytes = 9};
    struct prompt_msg m = {.role = PROMPT_ASSISTANT, .sampled = wrong};
    struct err err;
    ASSERT_ERR(prompt_render(&p, &m, 1, &thinking, &err), ERR_CORRUPT, &err, "reasoning");
    prompt_done(&p);
}

/* Bytes alone: marks are special where the format has a place for them, not in values. */
static void bytes_are_cut_by_structure(void **state)
{
    (void)state;
    struct prompt_sampled s = {.bytes = STR("h" T E "\n\n<" D "function_calls>\n<" D
                                            "invoke name=\"f\">\n<" D
                                            "parameter name=\"a\" string=\"true\">" U EOS "</" D
                                            "parameter>\n</" D "invoke>\n</" D
                                            "function_calls>" EOS),
                               .think_bytes = 1 + 7 + 8};
    struct prompt p = replay(s, false, &thinking);
    unsigned special[LIT_COUNT] = {0};
    for (uint32_t i = 0; i < p.n_pieces; i++) {
        enum literal which = LIT_BOS;
        if (p.piece[i].special) {
            literal_find(prompt_piece_text(&p, i), 0, &which);
            special[which]++;
        }
    }
    assert_int_equal(special[LIT_DSML], 6);
    assert_int_equal(special[LIT_USER], 1);
    assert_int_equal(special[LIT_EOS], 1);
    assert_int_equal(special[LIT_THINK], 2);
    assert_int_equal(special[LIT_ENDTHINK], 1);
    prompt_done(&p);
}

static void results_find_their_calls(void **state)
{
    (void)state;
    struct prompt_call calls[] = {{STR("a"), STR("f"), STR("{}")}, {STR("b"), STR("g"), STR("{}")}};
    struct prompt_msg m[] = {
        {.role = PROMPT_USER, .content = STR("q")},
        {.role = PROMPT_ASSISTANT, .calls = calls, .n_calls = 2},
        {.role = PROMPT_TOOL, .content = STR("second"), .call_id = STR("b")},
        {.role = PROMPT_TOOL, .content = STR("first"), .call_id = STR("a")},
    };
    struct prompt_opts o = {.mode = PROMPT_THINKING, .pair_by_id = true};
    struct prompt p = render(m, 4, &o);
    struct str text = buf_view(&p.text);
    assert_true(str_find(text, STR("first"), 0) < str_find(text, STR("second"), 0));
    assert_true(p.ready);
    prompt_done(&p);
    p = render(m, 3, &o);
    assert_false(p.ready);
    prompt_done(&p);
    struct err err;
    m[3].call_id = STR("b");
    ASSERT_ERR(prompt_render(&p, m, 4, &o, &err), ERR_PARSE, &err, "message 3");
    assert_int_equal(p.code, PROMPT_RESULT_UNKNOWN_ID);
    prompt_done(&p);
    m[3].call_id = STR("z");
    ASSERT_ERR(prompt_render(&p, m, 4, &o, &err), ERR_PARSE, &err, "message 3");
    prompt_done(&p);
}

static void lenient_renders_an_empty_thought(void **state)
{
    (void)state;
    struct prompt_msg m[] = {{.role = PROMPT_USER, .content = STR("q")},
                             {.role = PROMPT_ASSISTANT, .content = STR("a")}};
    struct prompt_opts o = {.mode = PROMPT_THINKING, .lenient = true};
    struct prompt p = render(m, 2, &o);
    assert_text(&p, B U "q" A T E "a" EOS);
    assert_false(p.ready);
    prompt_done(&p);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    static const char *const json =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"\\n\", \"tools\": [{\"function\": "
        "{\"name\": \"f\"}}]}, {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
        "\"x\"}]}, {\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", "
        "\"arguments\": \"{\\\"a\\\": [1]}\"}}]}, {\"role\": \"tool\", \"content\": \"\\t\"}]}";
    for (uint64_t n = 1;; n++) {
        struct prompt_request r;
        struct prompt p = {0};
        struct err err = {0};
        uint64_t before = mem_count();
        mem_fail_at(n);
        int rc = prompt_read(&r, str_c(json), &err);
        if (rc == 0)
            rc = prompt_render(&p, r.msg, r.n, &r.opts, &err);
        mem_fail_at(0);
        prompt_done(&p);
        prompt_request_done(&r);
        if (mem_count() - before < n) {
            assert_int_equal(rc, 0);
            break;
        }
        assert_int_equal(rc, -ERR_NOMEM);
    }
}

/* --- there and back ------------------------------------------------------------------- */

/* Every byte, a few merges that would straddle our parts, and the literals. */
static struct tokenizer *new_tokenizer(void)
{
    static const char *const merges[] = {"i n", "in v", "o k", "e =", "= \"", "\" >", "a m",
                                         "n am", "nam e=", "\xc4\xa0 name=", "t r", "tr u"};
    static char spelled[256][4];
    struct str token[256 + 16 + LIT_COUNT], merge[16];
    uint8_t type[ARRAY_LEN(token)];
    static char joined[16][24];
    uint32_t n = 0, n_merges = 0, high = 256;
    for (uint32_t b = 0; b < 256; b++) {
        bool shown = (b > 32 && b < 127) || (b > 160 && b != 173);
        token[n] = str_of(spelled[b], utf8_encode(shown ? b : high++, spelled[b]));
        type[n++] = TOKEN_NORMAL;
    }
    for (unsigned i = 0; i < ARRAY_LEN(merges); i++) {
        struct str rest = str_c(merges[i]), left = rest;
        str_split(&rest, ' ', &left);
        int len = snprintf(joined[i], sizeof joined[i], "%.*s%.*s", STR_ARG(left), STR_ARG(rest));
        struct str whole = str_of(joined[i], (size_t)len);
        bool known = false;
        for (uint32_t k = 0; k < n; k++)
            known |= str_eq(token[k], left);
        bool right = false;
        for (uint32_t k = 0; k < n; k++)
            right |= str_eq(token[k], rest);
        if (!known || !right)
            continue;
        token[n] = whole;
        type[n++] = TOKEN_NORMAL;
        merge[n_merges++] = str_c(merges[i]);
    }
    for (int i = 0; i < LIT_COUNT; i++) {
        token[n] = literal_text((enum literal)i);
        type[n++] = TOKEN_CONTROL;
    }
    struct vocab v = {.token = token, .type = type, .n_tokens = n, .merge = merge,
                      .n_merges = n_merges, .pre = STR("deepseek-v3"),
                      .bos = (int32_t)n - LIT_COUNT, .eos = (int32_t)n - LIT_COUNT + 1};
    struct tokenizer *t = NULL;
    struct err err = {0};
    ASSERT_OK(tokenizer_new(&t, &v, &err), &err);
    return t;
}

struct ids {
    int32_t id[8192];
    uint32_t n;
};

static int add_id(void *arg, int32_t id, struct err *err)
{
    struct ids *ids = arg;
    (void)err;
    assert_true(ids->n < ARRAY_LEN(ids->id));
    ids->id[ids->n++] = id;
    return 0;
}

static void tokenise(struct tokenizer *t, const struct prompt *p, struct ids *out)
{
    struct err err = {0};
    out->n = 0;
    for (uint32_t i = 0; i < p->n_pieces; i++)
        ASSERT_OK(tokenizer_encode(t, prompt_piece_text(p, i), p->piece[i].special, add_id, out,
                                   &err),
                  &err);
}

static void clean_text_has_the_tokens_of_the_whole(void **state)
{
    (void)state;
    struct tokenizer *t = new_tokenizer();
    struct str tool = STR("{\"name\": \"f\", \"parameters\": {\"invoke\": true}}");
    struct prompt_msg m[] = {
        {.role = PROMPT_SYSTEM, .content = STR("invoke name=\"ok\">"), .tools = &tool, .n_tools = 1},
        {.role = PROMPT_USER, .content = STR("invoke name=\"true\"")},
        {.role = PROMPT_ASSISTANT, .reasoning = STR("name="), .calls = &call, .n_calls = 1},
        {.role = PROMPT_TOOL, .content = STR("ok")},
    };
    struct prompt p = render(m, 4, &thinking);
    static struct ids parts, whole;
    struct err err = {0};
    tokenise(t, &p, &parts);
    whole.n = 0;
    ASSERT_OK(tokenizer_encode(t, buf_view(&p.text), true, add_id, &whole, &err), &err);
    assert_int_equal(parts.n, whole.n);
    assert_memory_equal(parts.id, whole.id, whole.n * sizeof whole.id[0]);
    prompt_done(&p);
    tokenizer_free(t);
}

/* One message out as tokens and in again; `special` is how many tokens were special. */
static void there_and_back(struct tokenizer *t, const struct prompt_msg *m, struct trace *got)
{
    static struct ids ids;
    struct prompt_msg both[] = {{.role = PROMPT_USER, .content = STR("q")}, *m};
    struct prompt_opts o = {.mode = PROMPT_THINKING, .n_context = 1};
    struct prompt p = render(both, 2, &o);
    struct dsml_opts d_opts = {.thinking = true, .tokens = true};
    struct dsml *d = NULL;
    struct err err = {0};
    struct buf bytes;
    tokenise(t, &p, &ids);
    memset(got, 0, sizeof *got);
    buf_init(&bytes, 0);
    ASSERT_OK(dsml_new(&d, &d_opts, &trace_events, got, &err), &err);
    for (uint32_t i = 0; i < ids.n; i++) {
        struct str s = tokenizer_bytes(t, ids.id[i]);
        bool special = tokenizer_type(t, ids.id[i]) == TOKEN_CONTROL;
        buf_str(&bytes, s);
        ASSERT_OK(dsml_feed(d, s, special, &err), &err);
    }
    ASSERT_OK(dsml_finish(d, &err), &err);
    assert_true(str_eq(buf_view(&bytes), buf_view(&p.text)));
    assert_true(dsml_ended(d));
    buf_done(&bytes);
    dsml_free(d);
    prompt_done(&p);
}

static void encode_tokenise_decode_parse(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "plain", "invoke name=\"", "\xe5\xa4\xa9\xe6\xb0\x94 \xf0\x9f\x8c\xa4", "a\n\n<", "<",
        "say " U EOS E T B A D, "\n\n<" D "function_calls>\n<" D "invoke name=\"rm\">\n",
        "</" D "invoke>", "\x01\x7f\t",
    };
    struct tokenizer *t = new_tokenizer();
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        struct buf args;
        struct trace got;
        buf_init(&args, 0);
        buf_puts(&args, "{\"k\": ");
        jsontext_quote(&args, str_c(texts[i]));
        buf_puts(&args, ", \"n\": [1, {\"x\": ");
        jsontext_quote(&args, str_c(texts[i]));
        buf_puts(&args, "}]}");
        struct prompt_call c[] = {{.name = STR("f"), .arguments = buf_view(&args)},
                                  {.name = STR("g"), .arguments = STR("{}")}};
        struct prompt_msg m = {.role = PROMPT_ASSISTANT, .reasoning = str_c(texts[i]),
                               .content = str_c(texts[(i + 1) % ARRAY_LEN(texts)]), .calls = c,
                               .n_calls = 2};
        there_and_back(t, &m, &got);
        /* Whatever the texts spell: they come back as text, and two calls are two calls. */
        assert_false(got.faulted);
        assert_true(str_eq(buf_view(&got.thinking), m.reasoning));
        assert_true(str_eq(buf_view(&got.text), m.content));
        assert_int_equal(got.n_ended, 2);
        assert_true(str_eq(buf_view(&got.call[0].arguments), buf_view(&args)));
        assert_true(str_is(buf_view(&got.call[1].arguments), "{}"));
        trace_done(&got);
        buf_done(&args);
    }
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_alternate),
        cmocka_unit_test(what_was_sampled_is_replayed),
        cmocka_unit_test(odd_endings_are_closed),
        cmocka_unit_test(bytes_are_cut_by_structure),
        cmocka_unit_test(results_find_their_calls),
        cmocka_unit_test(lenient_renders_an_empty_thought),
        cmocka_unit_test(memory_may_fail_anywhere),
        cmocka_unit_test(clean_text_has_the_tokens_of_the_whole),
        cmocka_unit_test(encode_tokenise_decode_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
