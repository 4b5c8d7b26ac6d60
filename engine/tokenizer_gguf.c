/*
 * tokenizer_gguf.c - the vocabulary of a GGUF file. Spellings, types and merges are arrays of
 * the metadata; they are checked for number and kind here, and for sense by tokenizer_new().
 */
#include "engine/tokenizer_gguf.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* Names that other converters give to the same patterns. */
static const struct {
    const char *alias, *scheme;
} aliases[] = {
    {"deepseek-v3", "deepseek-v3"},
    {"deepseek-llm", "deepseek-llm"},
    {"glm4", "glm4"},
    {"chatglm-bpe", "glm4"},
    {"kimi-k2", "kimi-k2"},
};

struct draft {
    struct vocab v;
    struct str *token, *merge;
    uint8_t *type;
};

static int read_tokens(struct draft *d, const struct gguf *g, struct err *err)
{
    const struct gguf_kv *t = gguf_find(g, "tokenizer.ggml.tokens");
    const struct gguf_kv *y = gguf_find(g, "tokenizer.ggml.token_type");
    if (!t || !t->n)
        return err_set(err, ERR_NOTFOUND, "the file holds no tokenizer.ggml.tokens");
    if (y && y->n != t->n)
        return err_set(err, ERR_PARSE, "tokenizer.ggml.token_type has %llu entries for %llu "
                       "tokens", (unsigned long long)y->n, (unsigned long long)t->n);
    d->token = mem_array((size_t)t->n, sizeof *d->token);
    d->type = mem_array((size_t)t->n, 1);
    if (!d->token || !d->type)
        return err_nomem(err);
    int rc = gguf_strings(t, d->token, err);
    for (uint64_t i = 0; rc == 0 && i < t->n; i++) {
        int64_t type = TOKEN_NORMAL;
        if (y && (!gguf_int_at(y, i, &type) || type < TOKEN_NORMAL || type > TOKEN_BYTE))
            return err_set(err, ERR_PARSE, "tokenizer.ggml.token_type[%llu] is not 1 to 6",
                           (unsigned long long)i);
        /* An added token without text matches nothing: it is a hole. */
        d->type[i] = d->token[i].n ? (uint8_t)type : TOKEN_UNUSED;
        if (d->type[i] == TOKEN_UNUSED)
            d->token[i].n = 0; /* "[PAD17]" is a place, not a text */
    }
    d->v.n_tokens = (uint32_t)t->n; /* below LIMIT_GGUF_ARRAY */
    return rc;
}

static int read_merges(struct draft *d, const struct gguf *g, struct err *err)
{
    const struct gguf_kv *m = gguf_find(g, "tokenizer.ggml.merges");
    if (!m)
        return 0;
    d->merge = mem_array((size_t)m->n, sizeof *d->merge);
    if (!d->merge)
        return err_nomem(err);
    d->v.n_merges = (uint32_t)m->n;
    return gguf_strings(m, d->merge, err);
}

static int read_scheme(struct draft *d, const struct gguf *g, struct err *err)
{
    struct str model = {0}, pre = {0};
    int rc = gguf_str(g, "tokenizer.ggml.model", &model, err);
    if (rc == 0)
        rc = gguf_str(g, "tokenizer.ggml.pre", &pre, err);
    if (rc < 0)
        return rc;
    if (!str_is(model, "gpt2"))
        return err_set(err, ERR_UNSUPPORTED, "tokenizer.ggml.model is '%.*s'; byte-level BPE "
                       "('gpt2') is read", (int)(model.n < 40 ? model.n : 40), model.p);
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (str_is(pre, aliases[i].alias))
            d->v.pre = str_c(aliases[i].scheme);
    return d->v.pre.n ? 0
                      : err_set(err, ERR_UNSUPPORTED, "tokenizer.ggml.pre is '%.*s'; known are "
                                "deepseek-v3, deepseek-llm, glm4 and kimi-k2",
                                (int)(pre.n < 40 ? pre.n : 40), pre.p);
}

static int read_rest(struct draft *d, const struct gguf *g, struct err *err)
{
    int64_t bos = -1, eos = -1, top = (int64_t)d->v.n_tokens - 1;
    int rc = gguf_int(g, "tokenizer.ggml.bos_token_id", 0, top, &bos, err);
    if (rc == 0)
        rc = gguf_int(g, "tokenizer.ggml.eos_token_id", 0, top, &eos, err);
    if (rc == 0)
        rc = gguf_bool(g, "tokenizer.ggml.ignore_merges", &d->v.whole_first, err);
    d->v.bos = (int32_t)bos;
    d->v.eos = (int32_t)eos;
    return rc;
}

int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, struct err *err)
{
    struct draft d = {0};
    int rc = read_tokens(&d, g, err);
    if (rc == 0)
        rc = read_scheme(&d, g, err);
    if (rc == 0)
        rc = read_merges(&d, g, err);
    if (rc == 0)
        rc = read_rest(&d, g, err);
    d.v.token = d.token;
    d.v.type = d.type;
    d.v.merge = d.merge;
    if (rc == 0)
        rc = tokenizer_new(out, &d.v, err);
    mem_free(d.token);
    mem_free(d.type);
    mem_free(d.merge);
    return rc;
}

int tokenizer_from_folder(struct tokenizer **out, const char *folder, struct err *err)
{
    struct buf path;
    buf_init(&path, 4096);
    buf_printf(&path, "%s/tokenizer.json", folder);
    int rc = buf_check(&path, "path", err);
    if (rc == 0 && access(buf_cstr(&path), F_OK) < 0)
        rc = err_set(err, ERR_NOTFOUND, "'%s' has no tokenizer.json", folder);
    if (rc == 0)
        rc = tokenizer_open(out, buf_cstr(&path), err);
    buf_done(&path);
    return rc;
}
