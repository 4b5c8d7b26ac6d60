/*
 * test_dsml_soak.c - random completions through both readers. DSML_SOAK in the environment
 * says how many (default 20,000), DSML_SEED where to start. Three kinds in turn:
 *   rendered  a random message, encoded: both readers must give the same message back;
 *   mutated   the same after a few random edits;
 *   soup      fragments of the format in random order.
 * For the last two the promises in dsml_trace.h hold, and any chunking tells the same story.
 */
#include "test.h"

#include "agentd/prompt.h"
#include "dsml_trace.h"

#define D LIT_TEXT_DSML

static uint64_t rng;

static uint32_t below(uint32_t n)
{
    return (uint32_t)(trace_random(&rng) >> 33) % n;
}

static const char *const fragments[] = {
    "<" D "function_calls>", "</" D "function_calls>", "\n\n<" D "function_calls>\n",
    "<" D "invoke name=\"f\">", "<" D "invoke name=\"", "</" D "invoke>", "<" D "parameter",
    "<" D "parameter name=\"k\" string=\"true\">", " string=\"false\">", "</" D "parameter>",
    "<" D "parameter name=\"j\" string=\"false\">", "\">", "<" D "tool_calls>",
    "<function_calls>", "<invoke name=\"g\">", "<parameter name=\"k\" string=\"true\">",
    "</parameter>", "</invoke>", "</function_calls>", LIT_TEXT_THINK, LIT_TEXT_ENDTHINK,
    LIT_TEXT_EOS, LIT_TEXT_BOS, LIT_TEXT_USER, LIT_TEXT_ASSISTANT, D, "<", "</", "<" D, "</" D,
    "\n", "\n\n", " ", "a", "text", "{}", "[1, 2]", "{\"a\": ", "null", "\"", "1e999", "\xff",
    "\xe4\xbd", "\xe5\xa4\xa9", "\\u0000", "name=\"", "string=\"true\"", ">",
};

static const char *const words[] = {
    "", "a", "x y", "\n", "\n\n", "\n\n\n", "<", "</", "</b>", "\"", "\\", "\t", "{\"k\": 1}",
    "\xe5\xa4\xa9\xe6\xb0\x94", "\xf0\x9f\x8c\xa4", "\xef\xbd\x9c", "<\xef\xbd\x9c", "true", "3",
    "</parameter>", "<result>", "name=\"", "\">", "function_calls>", "/", " string=\"true\">",
};

static void random_text(struct buf *b)
{
    for (uint32_t n = below(4); n > 0; n--)
        buf_puts(b, words[below(ARRAY_LEN(words))]);
}

static void random_value(struct buf *b, int depth)
{
    static const char *const scalars[] = {"1", "-0", "true", "null", "0.5", "1e2",
                                          "123456789012345678901234567890"};
    struct buf text;
    switch (below(depth > 2 ? 2 : 4)) {
    case 0:
        buf_puts(b, scalars[below(ARRAY_LEN(scalars))]);
        return;
    case 1:
        buf_init(&text, 0);
        random_text(&text);
        jsontext_quote(b, buf_view(&text));
        buf_done(&text);
        return;
    case 2:
        buf_putc(b, '[');
        for (uint32_t i = 0, n = below(3); i < n; i++) {
            buf_puts(b, i ? ", " : "");
            random_value(b, depth + 1);
        }
        buf_putc(b, ']');
        return;
    default:
        buf_putc(b, '{');
        for (uint32_t i = 0, n = below(3); i < n; i++) {
            buf_printf(b, "%s\"k%u\": ", i ? ", " : "", i);
            random_value(b, depth + 1);
        }
        buf_putc(b, '}');
    }
}

/* A random assistant message, rendered; *think is the mode. */
static void random_completion(struct buf *out, bool *think)
{
    static const char *const names[] = {"f", "get_weather", "a.b", "x-y"};
    struct buf reasoning, content, args[4];
    struct prompt_call calls[4];
    struct prompt_msg msg[2] = {{.role = PROMPT_USER, .content = STR("q")},
                                {.role = PROMPT_ASSISTANT, .calls = calls}};
    *think = below(2);
    buf_init(&reasoning, 0);
    buf_init(&content, 0);
    buf_putc(&reasoning, 'r');
    random_text(&reasoning);
    random_text(&content);
    msg[1].reasoning = buf_view(&reasoning);
    msg[1].content = buf_view(&content);
    msg[1].n_calls = below(4);
    for (uint32_t i = 0; i < msg[1].n_calls; i++) {
        buf_init(&args[i], 0);
        buf_putc(&args[i], '{');
        for (uint32_t k = 0, n = below(4); k < n; k++) {
            buf_printf(&args[i], "%s\"p%u\": ", k ? ", " : "", k);
            random_value(&args[i], 0);
        }
        buf_putc(&args[i], '}');
        calls[i] = (struct prompt_call){.name = str_c(names[below(ARRAY_LEN(names))]),
                                        .arguments = buf_view(&args[i])};
    }
    struct prompt_opts o = {.mode = *think ? PROMPT_THINKING : PROMPT_CHAT, .n_context = 1};
    struct prompt p;
    struct err err = {0};
    MUST(prompt_render(&p, msg, 2, &o, &err) == 0);
    buf_str(out, buf_view(&p.text));
    prompt_done(&p);
    for (uint32_t i = 0; i < msg[1].n_calls; i++)
        buf_done(&args[i]);
    buf_done(&reasoning);
    buf_done(&content);
}

static void mutate(struct buf *b)
{
    for (uint32_t n = 1 + below(4); n > 0; n--) {
        size_t at = b->len ? below((uint32_t)b->len) : 0, len = 1 + below(12);
        struct buf c;
        struct str all = buf_view(b);
        buf_init(&c, 0);
        buf_str(&c, str_sub(all, 0, at));
        switch (below(4)) {
        case 0: /* delete */
            buf_str(&c, str_sub(all, at + len, SIZE_MAX));
            break;
        case 1: /* insert */
            buf_puts(&c, fragments[below(ARRAY_LEN(fragments))]);
            buf_str(&c, str_sub(all, at, SIZE_MAX));
            break;
        case 2: /* repeat */
            buf_str(&c, str_sub(all, at, len * 4));
            buf_str(&c, str_sub(all, at, SIZE_MAX));
            break;
        default: /* cut */
            break;
        }
        buf_done(b);
        *b = c;
    }
}

/* Every way to read the text tells the same story and keeps the promises. */
static void read_all_ways(struct str text, bool think, bool tools, const struct dsml_message *m)
{
    for (int tokens = 0; tokens < 2; tokens++) {
        struct dsml_opts o = {.thinking = think, .tools = tools, .tokens = tokens};
        struct trace whole, cut;
        trace_run(&whole, &o, text, 0, 1);
        trace_run(&cut, &o, text, 1 + below(9), trace_random(&rng));
        trace_same(&whole, &cut);
        trace_no_lost_arguments(&whole, text);
        if (m)
            trace_agrees(&whole, m);
        trace_done(&whole);
        trace_done(&cut);
    }
}

static void one(uint64_t i, uint64_t counts[4])
{
    struct buf b;
    struct dsml_message m;
    struct err err = {0};
    bool think = below(2);
    uint32_t kind = i % 3;
    buf_init(&b, 0);
    if (kind == 2) {
        for (uint32_t n = below(24); n > 0; n--)
            buf_puts(&b, fragments[below(ARRAY_LEN(fragments))]);
    } else {
        random_completion(&b, &think);
        if (kind == 1)
            mutate(&b);
    }
    bool accepted = dsml_parse(&m, buf_view(&b), think, &err) == 0;
    MUST(accepted || (m.code != DSML_OK && err.text[0]));
    MUST(accepted || kind != 0);
    read_all_ways(buf_view(&b), think, kind != 0 && below(2), kind == 0 ? &m : NULL);
    counts[kind]++;
    counts[3] += accepted;
    dsml_message_done(&m);
    buf_done(&b);
}

static uint64_t from_environment(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    uint64_t n = fallback;
    if (text && !str_to_u64(str_c(text), &n))
        fail_msg("%s must be a number", name);
    return n;
}

static void soak(void **state)
{
    (void)state;
    uint64_t n = from_environment("DSML_SOAK", 20000), counts[4] = {0};
    uint64_t seed = from_environment("DSML_SEED", 1);
    for (uint64_t i = 0; i < n; i++) {
        /* Each completion has its own seed, so that any one can be run alone. */
        rng = (seed + i) * 0x9E3779B97F4A7C15u | 1;
        one(seed + i, counts);
        if (n > 100000 && i % 1000000 == 999999) {
            printf("%llu\n", (unsigned long long)i + 1);
            fflush(stdout);
        }
    }
    printf("%llu rendered, %llu mutated, %llu soup; the strict reader accepted %llu\n",
           (unsigned long long)counts[0], (unsigned long long)counts[1],
           (unsigned long long)counts[2], (unsigned long long)counts[3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(soak)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
