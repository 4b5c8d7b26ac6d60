/*
 * test_tokenizer.c - merging order, pieces, added tokens, bytes both ways, hostile input, and
 * the published vectors.
 */
#include "test.h"

#include <stdlib.h>

#include "base/io.h"
#include "engine/pretok.h"
#include "engine/tokenizer.h"

enum { MAX_IDS = 4 << 20 };
static int32_t ids[MAX_IDS];
static size_t n_ids;

static int take(void *arg, int32_t id, struct err *err)
{
    (void)arg;
    if (n_ids == MAX_IDS)
        return err_set(err, ERR_LIMIT, "too many ids");
    ids[n_ids++] = id;
    return 0;
}

static void encode(struct tokenizer *t, struct str text, bool special)
{
    struct err err = {0};
    n_ids = 0;
    ASSERT_OK(tokenizer_encode(t, text, special, take, NULL, &err), &err);
}

static void decode(struct tokenizer *t, struct buf *out)
{
    for (size_t i = 0; i < n_ids; i++)
        buf_str(out, tokenizer_bytes(t, ids[i]));
}

/* --- a small vocabulary: 256 bytes, some merges, two added tokens ----------------------- */

static struct str token[300];
static uint8_t type[300];
static char spelled[256][3];

static const char *const schemes[] = {"deepseek-v3", "deepseek-llm", "glm4", "kimi-k2"};

static struct tokenizer *small_with(const char *scheme)
{
    static const char *merged[] = {"ab", "abc", "bc", "aa", "aaaa", "\xC4\xA0" "a"};
    static struct str merge[] = {
        {"a b", 3}, {"ab c", 4}, {"b c", 3}, {"a a", 3}, {"aa aa", 5}, {"\xC4\xA0 a", 4},
    };
    struct err err = {0};
    struct vocab v = {.token = token, .type = type, .merge = merge, .n_merges = 6,
                      .pre = str_c(scheme), .bos = 262, .eos = 263};
    uint32_t n = 0, next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool shows = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        size_t len = utf8_encode(shows ? b : next++, spelled[b]);
        token[n] = str_of(spelled[b], len);
        type[n++] = TOKEN_NORMAL;
    }
    for (size_t i = 0; i < ARRAY_LEN(merged); i++) {
        token[n] = str_c(merged[i]);
        type[n++] = TOKEN_NORMAL;
    }
    token[n] = STR("<a>");
    type[n++] = TOKEN_CONTROL;
    token[n] = STR("<a>>");
    type[n++] = TOKEN_USER;
    v.n_tokens = n;
    struct tokenizer *t = NULL;
    ASSERT_OK(tokenizer_new(&t, &v, &err), &err);
    return t;
}

static void merges(void **state)
{
    (void)state;
    struct tokenizer *t = small_with(schemes[0]);
    encode(t, STR("abc"), false); /* rank 0 first: ab, then abc */
    assert_int_equal(n_ids, 1);
    assert_int_equal(ids[0], 257);
    encode(t, STR("aaaaa"), false); /* leftmost first: aaaa + a */
    assert_int_equal(n_ids, 2);
    assert_int_equal(ids[0], 260);
    assert_int_equal(ids[1], 'a');
    encode(t, STR("x a"), false);
    assert_int_equal(ids[n_ids - 1], 261);
    tokenizer_free(t);
}

static void added(void **state)
{
    (void)state;
    struct tokenizer *t = small_with(schemes[0]);
    encode(t, STR("a<a>><a>b<a"), true); /* longest at one place, leftmost first */
    assert_int_equal(ids[0], 'a');
    assert_int_equal(ids[1], 263);
    assert_int_equal(ids[2], 262);
    assert_int_equal(ids[3], 'b');
    encode(t, STR("<a>"), false); /* from outside it is text */
    assert_true(n_ids > 1);
    assert_int_equal(tokenizer_find(t, STR("<a>")), 262);
    assert_int_equal(tokenizer_find(t, STR("abc")), 257);
    assert_int_equal(tokenizer_find(t, STR("nope")), -1);
    tokenizer_free(t);
}

static uint64_t rng = 88172645463325252u;
static uint64_t next_random(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}

static void bytes_survive(void **state)
{
    (void)state;
    struct tokenizer *t = small_with(schemes[0]);
    for (int kind = 0; kind < 2; kind++) {
        struct buf in, out;
        buf_init(&in, 0);
        buf_init(&out, 0);
        while (in.len < 1 << 20) {
            uint64_t r = next_random();
            char c[4] = {(char)r};
            size_t n = 1;
            if (kind) {
                static const uint32_t base[] = {0x20, 0x61, 0x4e00, 0x3041, 0x301, 0x1f600,
                                                0xa0, 0x30, 0xac00};
                n = utf8_encode(base[(r >> 8) % 9] + (uint32_t)((r >> 16) % 60), c);
            }
            buf_add(&in, c, n);
        }
        encode(t, buf_view(&in), false);
        decode(t, &out);
        assert_true(str_eq(buf_view(&in), buf_view(&out)));
        buf_done(&in);
        buf_done(&out);
    }
    tokenizer_free(t);
}

/* A megabyte of one thing: quadratic code would need hours. */
/* A megabyte of the worst, a quarter of one of the merely bad, each with a tail that makes
 * every alternative fail as late as it can. */
static void hostile(void **state)
{
    (void)state;
    static const char *const unit[] = {
        "a", " ", "\xCC\x81", "A", "\xE0\xB8\x81", /* what follows is the quarter */
        "\n", "1", "<", " \n", "<a", "aA", "'s", "'", "!", "+", "\t", "\xC2\xA0",
        "\xE2\x80\x83", "\xE4\xBD\xA0", "\xE3\x81\x82", "\xCA\xB0", "\xC7\x85",
        "\xF0\x9F\x91\xA8\xE2\x80\x8D", "e\xCC\x81", "\xFF"};
    static const char *const tail[] = {"", "x", "\xE0\xB8\x81", "!", "1"};
    for (size_t k = 0; k < ARRAY_LEN(schemes); k++) {
        struct tokenizer *t = small_with(schemes[k]);
        for (size_t u = 0; u < ARRAY_LEN(unit); u++) {
            struct buf in, out;
            buf_init(&in, 0);
            buf_init(&out, 0);
            while (in.len < (u < 5 ? 1u << 20 : 1u << 18))
                buf_puts(&in, unit[u]);
            buf_puts(&in, tail[(u + k) % ARRAY_LEN(tail)]);
            encode(t, buf_view(&in), true);
            decode(t, &out);
            assert_true(str_eq(buf_view(&in), buf_view(&out)));
            buf_done(&in);
            buf_done(&out);
        }
        tokenizer_free(t);
    }
}

/* DeepSeek-V2's vocabulary has no token for the bytes that UTF-8 never uses. */
static void bytes_that_no_text_has(void **state)
{
    (void)state;
    static struct str some[300];
    static struct str merge[] = {{"a b", 3}};
    struct tokenizer *t = small_with("deepseek-llm"), *lacking = NULL;
    struct vocab v = *tokenizer_vocab(t);
    struct err err = {0};
    struct buf out;
    memcpy(some, v.token, v.n_tokens * sizeof *some);
    static const int never[] = {0xC0, 0xC1, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9,
                                0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF};
    for (size_t i = 0; i < ARRAY_LEN(never); i++)
        some[never[i]] = STR("");
    v.token = some;
    v.merge = merge;
    v.n_merges = 1;
    ASSERT_OK(tokenizer_new(&lacking, &v, &err), &err);
    encode(lacking, STR("ab\xFFz\xC3\xA9\xC3"), false);
    buf_init(&out, 0);
    decode(lacking, &out);
    assert_string_equal(buf_cstr(&out), "ab\xEF\xBF\xBDz\xC3\xA9\xC3");
    buf_done(&out);
    tokenizer_free(lacking);
    some[0xF4] = STR("");
    ASSERT_ERR(tokenizer_new(&lacking, &v, &err), ERR_PARSE, &err, "byte 0xf4");
    tokenizer_free(t);
}


static char pieces[256];
static int show(void *arg, struct str piece, struct err *err)
{
    (void)arg;
    (void)err;
    snprintf(pieces + strlen(pieces), sizeof pieces - strlen(pieces), "[%.*s]", STR_ARG(piece));
    return 0;
}

static void boundaries(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } table[] = {
        {"a 1", "[a][ ][1]"},
        {"\n\n x", "[\n\n][ x]"},
        {"12345", "[123][45]"},
        {"don't", "[don]['t]"},
        {"abc\xE4\xBD\xA0\xE5\xA5\xBD" "d", "[abc][\xE4\xBD\xA0\xE5\xA5\xBD][d]"},
        {"e\xCC\x81!", "[e\xCC\x81][!]"},
        {"x = y;\n\n\tz", "[x][ =][ y][;\n\n][\tz]"},
        {"  a  ", "[ ][ a][  ]"},
    };
    struct err err = {0};
    struct pretok *p = NULL;
    ASSERT_OK(pretok_new(&p, STR("deepseek-v3"), &err), &err);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        pieces[0] = '\0';
        ASSERT_OK(pretok_split(p, str_c(table[i].text), show, NULL, &err), &err);
        assert_string_equal(pieces, table[i].want);
    }
    pretok_free(p);
    static const struct {
        const char *scheme, *text, *want;
    } others[] = {
        {"deepseek-llm", "It's 12 \xE4\xBD\xA0 ok\n ", "[It]['][s][ ][12][ ]"
                                                       "[\xE4\xBD\xA0][ ok][\n][ ]"},
        /* the class of CJK begins at U+0800: an em space belongs to it, a space does not */
        {"deepseek-llm", "a \xE2\x80\x83\xE4\xBD\xA0", "[a][ ][\xE2\x80\x83\xE4\xBD\xA0]"},
        {"deepseek-llm", "a   ", "[a][   ]"},
        {"glm4", "It's 1234 \xE4\xBD\xA0 OK!!\n\n x", "[It]['s][ ][123][4][ \xE4\xBD\xA0]"
                                                    "[ OK][!!\n\n][ x]"},
        {"kimi-k2", "It's 1234 \xE4\xBD\xA0 OK!!\n\n x", "[It's][ ][123][4][ ][\xE4\xBD\xA0]"
                                                       "[ OK][!!\n\n][ x]"},
        {"kimi-k2", "camelCase HTTPServer aW I'LL", "[camel][Case][ HTTPServer][ a][W][ I'LL]"},
        /* without case, then a capital: the word ends at the last such letter */
        {"kimi-k2", "AB\xE0\xB8\x81" "C", "[AB\xE0\xB8\x81][C]"},
        {"kimi-k2", "AB\xE0\xB8\x81" "Cd", "[AB\xE0\xB8\x81" "Cd]"},
        /* a bracket that is used with Han is no Han; a Han numeral is */
        {"kimi-k2", "\xE3\x80\x8B,Vm", "[\xE3\x80\x8B,][Vm]"},
        {"kimi-k2", "\xE3\x80\xA5" "1234", "[\xE3\x80\xA5][123][4]"},
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        ASSERT_OK(pretok_new(&p, str_c(others[i].scheme), &err), &err);
        pieces[0] = '\0';
        ASSERT_OK(pretok_split(p, str_c(others[i].text), show, NULL, &err), &err);
        assert_string_equal(pieces, others[i].want);
        pretok_free(p);
    }
    ASSERT_ERR(pretok_new(&p, STR("gpt9"), &err), ERR_UNSUPPORTED, &err, "gpt9");
}

static void streaming(void **state)
{
    (void)state;
    struct buf whole, out;
    buf_init(&whole, 0);
    buf_init(&out, 0);
    struct text_stream s = {0};
    struct str text = STR("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z");
    for (size_t i = 0; i < text.n; i++) {
        text_stream_push(&s, str_sub(text, i, 1), &out);
        assert_true(utf8_valid(buf_view(&out)));
    }
    assert_true(str_eq(buf_view(&out), text));
    buf_reset(&out);
    text_stream_push(&s, STR("\xE2\x82(\xFF\xC3"), &out);
    text_stream_flush(&s, &out);
    assert_string_equal(buf_cstr(&out), "\xEF\xBF\xBD(\xEF\xBF\xBD\xEF\xBF\xBD");
    buf_done(&whole);
    buf_done(&out);
}

/* Without merges a token is reached only as a whole piece, where the file says so. */
static void whole_pieces_first(void **state)
{
    (void)state;
    struct tokenizer *t = small_with("glm4"), *whole = NULL;
    struct vocab v = *tokenizer_vocab(t);
    struct err err = {0};
    v.n_merges = 0;
    for (int first = 0; first < 2; first++) {
        v.whole_first = first;
        ASSERT_OK(tokenizer_new(&whole, &v, &err), &err);
        encode(whole, STR("abc"), false);
        assert_int_equal(n_ids, first ? 1 : 3);
        encode(whole, STR("abcd"), false);
        assert_int_equal(n_ids, 4);
        tokenizer_free(whole);
    }
    tokenizer_free(t);
}

static void refusals(void **state)
{
    (void)state;
    struct err err = {0};
    struct tokenizer *t = NULL;
    struct vocab v = {.token = token, .type = type, .n_tokens = 10, .pre = STR("deepseek-v3")};
    ASSERT_ERR(tokenizer_new(&t, &v, &err), ERR_PARSE, &err, "no token for byte");
    struct str bad = STR("a zz");
    v.n_tokens = 262;
    v.merge = &bad;
    v.n_merges = 1;
    ASSERT_ERR(tokenizer_new(&t, &v, &err), ERR_PARSE, &err, "does not exist");
    bad = STR("nopair");
    ASSERT_ERR(tokenizer_new(&t, &v, &err), ERR_PARSE, &err, "not a pair");
}

/* Vectors of the V3 tokenizer: facts published with the models. */
#define BEGIN "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define END "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define USER "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"
#define ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"

/* The published ids, from those tokens of DeepSeek-V3 that the vectors need; or from the whole
 * file where AGENTD_DEEPSEEK_TOKENIZER names one. */
static void published(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int32_t id[12];
    } table[] = {
        {"Hello, world!", {19923, 14, 2058, 3}},
        {"  leading and trailing  ", {223, 6646, 305, 52964, 262}},
        {"1234567890", {6895, 18009, 25744, 18}},
        {"\xE4\xBD\xA0\xE5\xA5\xBD\xEF\xBC\x8C\xE4\xB8\x96\xE7\x95\x8C", {30594, 303, 3427}},
        {"\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x83\x86\xE3\x82\xB9\xE3\x83\x88",
         {88768, 109288}},
        {"a\r\n\r\nb", {67, 204, 201, 204, 201, 68}},
        {"don't", {20385, 1664}},
        {"\xC3\xA9migr\xC3\xA9", {8242, 350, 17713}},
        {"e\xCC\x81", {71, 17793}},
        {"\xF0\x9F\x98\x80", {28927, 225}},
        {"x = y_z;\n\n\treturn 0;", {90, 438, 383, 56949, 1048, 5562, 223, 18, 29}},
        {"3.14159", {21, 16, 9926, 3318}},
        {"na\xC3\xAFve caf\xC3\xA9 \xE2\x91\xA0\xE2\x91\xA1", {2720, 91223, 57664, 223, 104894}},
        {"  \n  x", {2143, 223, 1527}},
        {"\xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4 \xED\x85\x8C\xEC\x8A\xA4\xED\x8A\xB8",
         {5634, 17564, 9227, 78758, 45652}},
        {"\xC2\xA0nbsp", {2162, 28706}},
        {"\xEF\xBD\x86\xEF\xBD\x95\xEF\xBD\x8C\xEF\xBD\x8C",
         {5879, 231, 5879, 246, 5879, 237, 5879, 237}},
    };
    static const int32_t chat[] = {0, 128803, 33310, 128804, 128799, 19923, 3, 342, 1030, 22651,
                                   4374, 1465, 16, 1, 128803, 19, 13, 19, 127252, 128804,
                                   128798};
    const char *whole = getenv("AGENTD_DEEPSEEK_TOKENIZER"), *src = getenv("SRC");
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/golden/tokenizer.json", src ? src : ".");
    struct err err = {0};
    struct tokenizer *t = NULL;
    ASSERT_OK(tokenizer_open(&t, whole ? whole : path, &err), &err);
    if (!whole) { /* V3's own file calls the two think tokens place holders */
        encode(t, STR(BEGIN USER "hello" ASSISTANT "</think>Hello! I am DeepSeek." END USER
                      "1+1=?" ASSISTANT "<think>"), true);
        assert_int_equal(n_ids, ARRAY_LEN(chat));
        assert_memory_equal(ids, chat, sizeof chat);
        encode(t, STR(USER "hello<think>"), false);
        for (size_t i = 0; i < n_ids; i++)
            assert_int_equal(tokenizer_type(t, ids[i]), TOKEN_NORMAL);
    }
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        encode(t, str_c(table[i].text), false);
        size_t want = 0;
        while (want < 12 && table[i].id[want])
            want++;
        assert_int_equal(n_ids, want);
        assert_memory_equal(ids, table[i].id, want * sizeof *ids);
    }
    assert_int_equal(tokenizer_vocab(t)->bos, 0);
    assert_int_equal(tokenizer_vocab(t)->eos, 1);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges),     cmocka_unit_test(added),
        cmocka_unit_test(boundaries), cmocka_unit_test(bytes_survive),
        cmocka_unit_test(bytes_that_no_text_has),
        cmocka_unit_test(whole_pieces_first),
        cmocka_unit_test(hostile),    cmocka_unit_test(streaming),
        cmocka_unit_test(refusals),   cmocka_unit_test(published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
