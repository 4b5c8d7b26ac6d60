/*
 * fuzz_tokenizer.c - bytes as a tokenizer.json, and bytes as text for a small vocabulary: what
 * was encoded decodes to itself, with and without special tokens.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "engine/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tokenizer *small;

static void make_small(void)
{
    static struct str token[270];
    static uint8_t type[270];
    static char text[256][4];
    static struct str merge[] = {{"a b", 3}, {"ab c", 4}, {"a a", 3}, {"aa aa", 5},
                                 {"\xC4\xA0 a", 4}};
    static const char *more[] = {"ab", "abc", "aa", "aaaa", "\xC4\xA0\x61", "<a>", "<a>>"};
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
                      .n_merges = ARRAY_LEN(merge), .pre = STR("deepseek-v3")};
    struct err err = {0};
    if (tokenizer_new(&small, &v, &err) < 0)
        abort();
}

static int append(void *arg, int32_t id, struct err *err)
{
    (void)err;
    buf_str(arg, tokenizer_bytes(small, id));
    return 0;
}

static void round_trip(struct str text, bool special)
{
    struct err err = {0};
    struct buf out;
    buf_init(&out, 0);
    if (tokenizer_encode(small, text, special, append, &out, &err) < 0 ||
        !str_eq(buf_view(&out), text))
        abort();
    buf_done(&out);
}

/* The loader takes a path: hand it the bytes through a memory file. */
static void as_json(const uint8_t *data, size_t size)
{
    struct err err = {0};
    char path[64];
    int fd = memfd_create("tokenizer", MFD_CLOEXEC);
    if (fd < 0 || io_write_full(fd, data, size, &err) < 0)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct tokenizer *t = NULL;
    if (tokenizer_open(&t, path, &err) == 0)
        tokenizer_free(t);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!small)
        make_small();
    if (size && data[0] == '{') {
        as_json(data, size);
        return 0;
    }
    round_trip(str_of(data, size), false);
    round_trip(str_of(data, size), true);
    struct text_stream s = {0};
    struct buf out;
    buf_init(&out, 0);
    text_stream_push(&s, str_of(data, size), &out);
    text_stream_flush(&s, &out);
    if (!utf8_valid(buf_view(&out)))
        abort();
    buf_done(&out);
    return 0;
}
