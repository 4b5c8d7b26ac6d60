/* fuzz_gguf.c - any bytes as a GGUF file: header, metadata, hyperparameters, vocabulary. */
#include <stdint.h>

#include "engine/gguf.h"
#include "engine/hparams_read.h"
#include "engine/tokenizer_gguf.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct gguf *g = NULL;
    if (gguf_parse(&g, data, size, &err) < 0)
        return 0;
    volatile unsigned sink = touch(g);
    (void)sink;
    struct hparams hp;
    if (hparams_from_gguf(&hp, g, &err) == 0 && !(hp.attn_scale > 0))
        __builtin_trap(); /* accepted numbers are usable numbers */
    struct tokenizer *t = NULL;
    if (tokenizer_from_gguf(&t, g, &err) == 0)
        tokenizer_free(t);
    gguf_close(g);
    return 0;
}
