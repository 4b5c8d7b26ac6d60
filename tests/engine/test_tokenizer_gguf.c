/*
 * test_tokenizer_gguf.c - vocabularies in GGUF metadata: the same ids as from the source they
 * were written from, other converters' spellings, and what a bad vocabulary is called. With
 * AGENTD_DEEPSEEK_TOKENIZER set to a tokenizer.json, the published vectors go through GGUF.
 */
#include "test.h"

#include <stdlib.h>

#include "base/buf.h"
#include "engine/gguf.h"
#include "engine/gguf_write.h"
#include "engine/model_file.h"
#include "engine/tokenizer_gguf.h"

enum { N_BASE = 256, N_TOKENS = 264 };
static struct str token[N_TOKENS];
static int32_t type[N_TOKENS];
static char spelled[N_BASE][4];
static const struct str merge[] = {{"a b", 3}, {"ab c", 4}};

static void fill(void)
{
    static const char *more[] = {"ab", "abc", "<a>", "<b>", "[PAD260]", "", "[UNUSED]", "<a><b>"};
    static const int32_t kind[] = {1, 1, 3, 4, 5, 3, 5, 4};
    uint32_t next = 256;
    for (unsigned b = 0; b < N_BASE; b++) {
        bool shows = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        token[b] = str_of(spelled[b], utf8_encode(shows ? b : next++, spelled[b]));
        type[b] = TOKEN_NORMAL;
    }
    for (unsigned i = 0; i < 8; i++) {
        token[N_BASE + i] = str_c(more[i]);
        type[N_BASE + i] = kind[i];
    }
}

struct file {
    struct buf bytes;
    struct gguf *g;
};

static void finish(struct file *f, struct gguf_head *h)
{
    struct err err = {0};
    buf_init(&f->bytes, 0);
    ASSERT_OK(gguf_head_finish(h, &f->bytes, &err), &err);
    ASSERT_OK(gguf_parse(&f->g, f->bytes.data, f->bytes.len, &err), &err);
    gguf_head_done(h);
}

static void done(struct file *f)
{
    gguf_close(f->g);
    buf_done(&f->bytes);
}

/* The small vocabulary under these names, with n_types entries of token_type. */
static struct file small(const char *model, const char *pre, uint32_t n_types)
{
    struct gguf_head h;
    struct file f;
    fill();
    gguf_head_init(&h);
    gguf_put_str(&h, "tokenizer.ggml.model", str_c(model));
    gguf_put_str(&h, "tokenizer.ggml.pre", str_c(pre));
    gguf_put_strs(&h, "tokenizer.ggml.tokens", token, N_TOKENS);
    gguf_put_i32s(&h, "tokenizer.ggml.token_type", type, n_types);
    gguf_put_strs(&h, "tokenizer.ggml.merges", merge, 2);
    gguf_put_u32(&h, "tokenizer.ggml.bos_token_id", 258);
    finish(&f, &h);
    return f;
}

static int32_t ids[1 << 16];
static size_t n_ids;

static int take(void *arg, int32_t id, struct err *err)
{
    (void)arg;
    (void)err;
    ids[n_ids++] = id;
    return 0;
}

static void expect(struct tokenizer *t, struct str text, bool special, const int32_t *want,
                   size_t n)
{
    struct err err = {0};
    n_ids = 0;
    ASSERT_OK(tokenizer_encode(t, text, special, take, NULL, &err), &err);
    assert_int_equal(n_ids, n);
    assert_memory_equal(ids, want, n * sizeof *ids);
}

#define EXPECT(t, text, special, ...)                                                    \
    expect(t, STR(text), special, (const int32_t[]){__VA_ARGS__},                        \
           sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void types_decide(void **state)
{
    (void)state;
    struct err err = {0};
    struct tokenizer *t = NULL;
    struct file f = small("gpt2", "deepseek-v3", N_TOKENS);
    ASSERT_OK(tokenizer_from_gguf(&t, f.g, &err), &err);
    done(&f); /* the tokenizer keeps its own copies */
    EXPECT(t, "abcab", false, 257, 256);
    EXPECT(t, "x<a>", true, 'x', 258);
    EXPECT(t, "<a><b>", true, 263); /* longest first */
    EXPECT(t, "<a>", false, '<', 'a', '>');
    EXPECT(t, "[PAD260]", true, '[', 'P', 'A', 'D', '2', '6', '0', ']');
    assert_int_equal(tokenizer_bytes(t, 260).n, 0);
    assert_int_equal(tokenizer_vocab(t)->bos, 258);
    assert_int_equal(tokenizer_vocab(t)->eos, -1);
    tokenizer_free(t);
}

static void refuse(struct file f, int code, const char *needle)
{
    struct err err = {0};
    struct tokenizer *t = NULL;
    ASSERT_ERR(tokenizer_from_gguf(&t, f.g, &err), code, &err, needle);
    done(&f);
}

static void refusals(void **state)
{
    (void)state;
    refuse(small("llama", "default", N_TOKENS), ERR_UNSUPPORTED, "model is 'llama'");
    refuse(small("gpt2", "qwen2", N_TOKENS), ERR_UNSUPPORTED, "pre is 'qwen2'");
    refuse(small("gpt2", "deepseek-v3", 5), ERR_PARSE, "5 entries for 264 tokens");
    fill();
    struct gguf_head h;
    struct file f;
    gguf_head_init(&h);
    gguf_put_str(&h, "tokenizer.ggml.model", STR("gpt2"));
    finish(&f, &h);
    refuse(f, ERR_NOTFOUND, "no tokenizer.ggml.tokens");
    gguf_head_init(&h);
    gguf_put_strs(&h, "tokenizer.ggml.tokens", token, 3);
    gguf_put_i32s(&h, "tokenizer.ggml.token_type", (int32_t[]){1, 9, 1}, 3);
    finish(&f, &h);
    refuse(f, ERR_PARSE, "token_type[1] is not 1 to 6");
    gguf_head_init(&h);
    gguf_put_i32s(&h, "tokenizer.ggml.tokens", (int32_t[]){1, 9, 1}, 3);
    finish(&f, &h);
    refuse(f, ERR_PARSE, "does not hold strings");
    gguf_head_init(&h);
    gguf_put_str(&h, "tokenizer.ggml.model", STR("gpt2"));
    gguf_put_str(&h, "tokenizer.ggml.pre", STR("glm4"));
    gguf_put_strs(&h, "tokenizer.ggml.tokens", token, N_TOKENS);
    gguf_put_u32(&h, "tokenizer.ggml.eos_token_id", N_TOKENS);
    finish(&f, &h);
    refuse(f, ERR_LIMIT, "eos_token_id' is 264");
}

/* A real vocabulary written by the converter and read back. */
static void published_through_gguf(void **state)
{
    (void)state;
    const char *path = getenv("AGENTD_DEEPSEEK_TOKENIZER");
    if (!path) {
        print_message("skipped: AGENTD_DEEPSEEK_TOKENIZER names no tokenizer.json\n");
        skip();
    }
    struct err err = {0};
    struct tokenizer *a = NULL, *b = NULL;
    struct gguf_head h;
    struct file f;
    struct weights w = {.hp = {.arch = "deepseek2", .n_vocab = 129280, .bos = 0, .eos = 1},
                        .path = "/nowhere", .name = "vectors"};
    ASSERT_OK(tokenizer_open(&a, path, &err), &err);
    gguf_head_init(&h);
    ASSERT_OK(model_put_meta(&h, &w, a, &err), &err);
    finish(&f, &h);
    ASSERT_OK(tokenizer_from_gguf(&b, f.g, &err), &err);
    assert_int_equal(tokenizer_vocab(b)->n_merges, tokenizer_vocab(a)->n_merges);
    EXPECT(b, "Hello, world!", false, 19923, 14, 2058, 3);
    EXPECT(b, "  leading and trailing  ", false, 223, 6646, 305, 52964, 262);
    EXPECT(b, "a\r\n\r\nb", false, 67, 204, 201, 204, 201, 68);
    EXPECT(b, "e\xCC\x81", false, 71, 17793);
    EXPECT(b, "x = y_z;\n\n\treturn 0;", false, 90, 438, 383, 56949, 1048, 5562, 223, 18, 29);
    EXPECT(b, "<\xEF\xBD\x9CUser\xEF\xBD\x9C>hello", true, 128803, 33310);
    done(&f);
    tokenizer_free(a);
    tokenizer_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_decide),
        cmocka_unit_test(refusals),
        cmocka_unit_test(published_through_gguf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
