/*
 * fuzz_tokenizer.c - bytes as a tokenizer.json, and bytes as text for a small vocabulary: what
 * was encoded decodes to itself, with and without special tokens, plain text never becomes a
 * control token, and a stream of tokens shows the same text as the whole. The first byte of a
 * text chooses the pre-tokenizer. After the NUL of a JSON comes the text it is to encode.
 */
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "engine/tokenizer.h"
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const schemes[] = {"deepseek-v3", "deepseek-llm", "glm4", "kimi-k2"};
enum { N_SCHEMES = 4 };

static struct tokenizer *make_small(const char *scheme)
{
    static struct str token[270];
    static uint8_t type[270];
    static char text[256][4];
    static struct str merge[] = {{"a b", 3}, {"ab c", 4}, {"a a", 3}, {"aa aa", 5},
                                 {"\xC4\xA0 a", 4}};
    static const char *more[] = {"ab", "abc", "aa", "aaaa", "\xC4\xA0\x61", "<a>", "<a>>"};
    struct tokenizer *t = NULL;
    uint32_t n = 0, next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool shows = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        token[n] = str_of(text[b], utf8_encode(shows ? b : next++, text[b]));
        type[n++] = TOKEN_NORMAL;
    }
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        token[n] = str_c(more[i]);
        type[n++] = more[i][0] == '<' ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    struct vocab v = {.token = token, .type = type, .n_tokens = n, .merge = merge,
                      .n_merges = ARRAY_LEN(merge), .pre = str_c(scheme)};
    struct err err = {0};
    if (tokenizer_new(&t, &v, &err) < 0)
        abort();
    return t;
}

struct trip {
    const struct tokenizer *t;
    bool special;
    struct buf bytes, shown;
    struct text_stream stream;
};

static int append(void *arg, int32_t id, struct err *err)
{
    struct trip *p = arg;
    enum token_type type = tokenizer_type(p->t, id);
    (void)err;
    if (!p->special && (type == TOKEN_CONTROL || type == TOKEN_USER))
        abort();
    buf_str(&p->bytes, tokenizer_bytes(p->t, id));
    text_stream_push(&p->stream, tokenizer_bytes(p->t, id), &p->shown);
    return 0;
}

/* Whether the vocabulary has a token for every byte of the text. */
static bool can_spell(const struct tokenizer *t, struct str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (tokenizer_find(t, str_sub(text, i, 1)) < 0)
            return false;
    return true;
}

static void round_trip(struct tokenizer *t, struct str text, bool special)
{
    struct err err = {0};
    struct trip p = {.t = t, .special = special};
    struct text_stream whole = {0};
    struct buf shown;
    buf_init(&p.bytes, 0);
    buf_init(&p.shown, 0);
    buf_init(&shown, 0);
    if (tokenizer_encode(t, text, special, append, &p, &err) < 0)
        abort();
    if (can_spell(t, text) && !str_eq(buf_view(&p.bytes), text))
        abort();
    text_stream_flush(&p.stream, &p.shown);
    text_stream_push(&whole, text, &shown);
    text_stream_flush(&whole, &shown);
    if (!utf8_valid(buf_view(&p.shown)) ||
        (can_spell(t, text) && !str_eq(buf_view(&p.shown), buf_view(&shown))))
        abort();
    if (utf8_valid(text) && !str_eq(buf_view(&shown), text))
        abort();
    buf_done(&p.bytes);
    buf_done(&p.shown);
    buf_done(&shown);
}

/* The loader takes a path: hand it the bytes through a memory file. */
static void as_json(const uint8_t *data, size_t size)
{
    struct err err = {0};
    char path[64];
    const uint8_t *nul = memchr(data, 0, size);
    size_t n = nul ? (size_t)(nul - data) : size;
    struct str text = nul ? str_of(nul + 1, size - n - 1) : str_of(data, n);
    int fd = fuzz_memfile(data, n, path);
    struct tokenizer *t = NULL;
    if (tokenizer_open(&t, path, &err) == 0) {
        round_trip(t, text, false);
        round_trip(t, text, true);
        tokenizer_free(t);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *small[N_SCHEMES];
    for (int i = 0; i < N_SCHEMES && !small[i]; i++)
        small[i] = make_small(schemes[i]);
    if (size && data[0] == '{') {
        as_json(data, size);
    } else if (size) {
        struct tokenizer *t = small[data[0] % N_SCHEMES];
        round_trip(t, str_of(data + 1, size - 1), false);
        round_trip(t, str_of(data + 1, size - 1), true);
    }
    return 0;
}
