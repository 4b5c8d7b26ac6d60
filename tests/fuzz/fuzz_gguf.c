/*
 * fuzz_gguf.c - any bytes as a GGUF file: header, metadata, hyperparameters, vocabulary, and
 * when all of it fits, a model at work. Bytes that begin with "2:" are a split file: a length
 * of four bytes, the first part, the second part.
 */
#include <stdint.h>
#include <string.h>

#include "engine/gguf.h"
#include "engine/hparams_read.h"
#include "engine/tokenizer_gguf.h"
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every value in every way that the engine does. */
static unsigned touch(const struct gguf *g)
{
    unsigned sum = 0;
    for (uint64_t i = 0; i < gguf_n_kv(g); i++) {
        const struct gguf_kv *kv = gguf_kv_at(g, i);
        int64_t v = 0;
        if (kv->n && gguf_int_at(kv, kv->n - 1, &v))
            sum += (unsigned)v;
        struct str *s = kv->type == GGUF_STRING ? mem_array((size_t)kv->n, sizeof *s) : NULL;
        struct err err = {0};
        if (s && gguf_strings(kv, s, &err) == 0)
            for (uint64_t k = 0; k < kv->n; k++)
                sum += s[k].n ? (unsigned char)s[k].p[s[k].n - 1] : 1;
        mem_free(s);
    }
    const struct tensors *t = gguf_tensors(g);
    for (uint32_t i = 0; i < t->n; i++)
        sum += ((const uint8_t *)t->item[i].data)[t->item[i].bytes - 1];
    return sum;
}

/* From the heap, where the sanitizer sees a byte too far. */
static void in_memory(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct gguf *g = NULL;
    if (gguf_parse(&g, data, size, &err) < 0)
        return;
    volatile unsigned sink = touch(g);
    (void)sink;
    struct hparams hp;
    if (hparams_from_gguf(&hp, g, &err) == 0 && !(hp.attn_scale > 0))
        __builtin_trap(); /* accepted numbers are usable numbers */
    struct tokenizer *t = NULL;
    if (tokenizer_from_gguf(&t, g, &err) == 0)
        tokenizer_free(t);
    gguf_close(g);
}

static void write_part(const char *path, const uint8_t *data, size_t size)
{
    struct err err = {0};
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || io_write_full(fd, data, size, &err) < 0)
        abort();
    close(fd);
}

static void in_two_parts(const uint8_t *data, size_t size)
{
    static char first[64], second[64];
    uint32_t n;
    if (!first[0]) {
        char dir[] = "/tmp/fuzz_gguf.XXXXXX";
        if (!mkdtemp(dir))
            abort();
        snprintf(first, sizeof first, "%s/m-00001-of-00002.gguf", dir);
        snprintf(second, sizeof second, "%s/m-00002-of-00002.gguf", dir);
    }
    if (size < sizeof n)
        return;
    memcpy(&n, data, sizeof n);
    data += sizeof n;
    size -= sizeof n;
    n = n < size ? n : (uint32_t)size;
    write_part(first, data, n);
    write_part(second, data + n, size - n);
    fuzz_open_model(first);
    unlink(first);
    unlink(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    if (size >= 2 && memcmp(data, "2:", 2) == 0) {
        in_two_parts(data + 2, size - 2);
        return 0;
    }
    in_memory(data, size);
    int fd = fuzz_memfile(data, size, path);
    fuzz_open_model(path);
    close(fd);
    return 0;
}
