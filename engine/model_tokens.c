/* model_tokens.c - a tokenizer by itself, wherever it is kept. */
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "engine/gguf.h"
#include "engine/model.h"
#include "engine/tokenizer_gguf.h"

struct model_tokens {
    struct tokenizer *tokenizer; /* owned */
};

static int open_gguf(struct tokenizer **out, const char *path, struct err *err)
{
    struct gguf *g = NULL;
    int rc = gguf_open(&g, path, err);
    if (rc < 0)
        return rc;
    rc = tokenizer_from_gguf(out, g, err);
    gguf_close(g);
    return rc < 0 ? err_prefix(err, "'%s'", path) : 0;
}

int model_tokens_open(struct model_tokens **out, const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return err_sys(err, "open '%s'", path);
    struct model_tokens *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err);
    int rc;
    if (S_ISDIR(st.st_mode))
        rc = tokenizer_from_folder(&t->tokenizer, path, err);
    else if (str_ends(str_c(path), STR(".json")))
        rc = tokenizer_open(&t->tokenizer, path, err);
    else
        rc = open_gguf(&t->tokenizer, path, err);
    if (rc < 0) {
        mem_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void model_tokens_close(struct model_tokens *t)
{
    if (!t)
        return;
    tokenizer_free(t->tokenizer);
    mem_free(t);
}

int model_tokens_encode(struct model_tokens *t, struct str text, bool special, model_id_fn *fn,
                        void *arg, struct err *err)
{
    return tokenizer_encode(t->tokenizer, text, special, fn, arg, err);
}

struct str model_tokens_bytes(const struct model_tokens *t, int32_t id)
{
    return tokenizer_bytes(t->tokenizer, id);
}

uint32_t model_tokens_count(const struct model_tokens *t)
{
    return tokenizer_vocab(t->tokenizer)->n_tokens;
}
