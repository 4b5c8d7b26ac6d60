/*
 * tokenizer_json.c - reads a Hugging Face tokenizer.json of BPE kind into a vocabulary. The
 * pre-tokenizer is recognised by its patterns' tell-tale pieces; an unknown one is refused,
 * since a wrong split changes every prompt silently.
 */
#include "engine/tokenizer.h"

#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"

enum { MAX_TOKENS = 1 << 20 };

struct draft {
    struct vocab v;
    struct str *token;
    uint8_t *type;
    struct str *merge;
    struct arena arena; /* merges that come as pairs are joined here */
};

static int grow_to(const json_t *vocab, const json_t *added, uint32_t *n, struct err *err)
{
    const char *key;
    json_t *v;
    json_int_t max = -1;
    json_object_foreach((json_t *)(uintptr_t)vocab, key, v)
    {
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return err_set(err, ERR_PARSE, "model.vocab['%s'] is not an id", key);
        if (json_integer_value(v) > max)
            max = json_integer_value(v);
    }
    size_t i;
    json_array_foreach(added, i, v)
    {
        int64_t id = -1;
        int rc = json_need_int(v, "id", 0, MAX_TOKENS - 1, &id, err);
        if (rc < 0)
            return err_prefix(err, "added_tokens[%zu]", i);
        if (id > max)
            max = id;
    }
    if (max >= MAX_TOKENS)
        return err_set(err, ERR_LIMIT, "token id %lld exceeds the cap of %d",
                       (long long)max, MAX_TOKENS - 1);
    *n = (uint32_t)(max + 1);
    return 0;
}

static int read_tokens(struct draft *d, const json_t *vocab, const json_t *added,
                       struct err *err)
{
    int rc = grow_to(vocab, added, &d->v.n_tokens, err);
    if (rc < 0)
        return rc;
    d->token = mem_array((size_t)d->v.n_tokens + 1, sizeof *d->token);
    d->type = mem_array((size_t)d->v.n_tokens + 1, 1);
    if (!d->token || !d->type)
        return err_nomem(err);
    memset(d->type, TOKEN_UNUSED, d->v.n_tokens);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)vocab, key, v)
    {
        json_int_t id = json_integer_value(v);
        d->token[id] = str_c(key);
        d->type[id] = TOKEN_NORMAL;
    }
    size_t i;
    json_array_foreach(added, i, v)
    {
        int64_t id = 0;
        struct str content = {0};
        bool special = false;
        rc = json_need_int(v, "id", 0, MAX_TOKENS - 1, &id, err);
        if (rc == 0)
            rc = json_need_str(v, "content", &content, err);
        if (rc == 0)
            rc = json_opt_bool(v, "special", &special, err);
        if (rc < 0)
            return err_prefix(err, "added_tokens[%zu]", i);
        d->token[id] = content;
        d->type[id] = special ? TOKEN_CONTROL : TOKEN_USER;
    }
    return 0;
}

/* Old files write "A B", new ones ["A", "B"]. */
static int read_merges(struct draft *d, const json_t *merges, struct err *err)
{
    size_t n = json_array_size(merges), i;
    json_t *m;
    d->merge = mem_array(n + 1, sizeof *d->merge);
    if (!d->merge)
        return err_nomem(err);
    json_array_foreach(merges, i, m)
    {
        if (json_is_string(m)) {
            d->merge[i] = json_view(m);
            continue;
        }
        struct str a = json_view(json_array_get(m, 0)), b = json_view(json_array_get(m, 1));
        char *p = arena_alloc(&d->arena, a.n + b.n + 2);
        if (!p)
            return err_nomem(err);
        memcpy(p, a.p, a.n);
        p[a.n] = ' ';
        memcpy(p + a.n + 1, b.p, b.n);
        d->merge[i] = str_of(p, a.n + b.n + 1);
    }
    d->v.n_merges = (uint32_t)n;
    return 0;
}

static struct str pattern_of(const json_t *split)
{
    return json_view(json_object_get(json_object_get(split, "pattern"), "Regex"));
}

/* Each scheme has a pattern that no other has. */
static int read_scheme(struct draft *d, const json_t *pre, struct err *err)
{
    static const struct {
        const char *tell, *also, *scheme; /* `also` tells it from a look-alike */
    } table[] = {
        {"\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80", "", "deepseek-v3"}, /* CJK, then hiragana */
        {"\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80", "", "deepseek-llm"},
        {"\\p{Han}", "", "kimi-k2"},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)", "\\p{N}{1,3}", "glm4"}, /* others take one digit */
    };
    const json_t *list = json_object_get(pre, "pretokenizers");
    size_t i;
    json_t *split;
    json_array_foreach(list, i, split) for (size_t k = 0; k < ARRAY_LEN(table); k++)
    {
        struct str pattern = pattern_of(split);
        if (str_find(pattern, str_c(table[k].tell), 0) == STR_NONE ||
            (*table[k].also && str_find(pattern, str_c(table[k].also), 0) == STR_NONE))
            continue;
        d->v.pre = str_c(table[k].scheme);
        return 0;
    }
    return err_set(err, ERR_UNSUPPORTED,
                   "pre_tokenizer is none of deepseek-v3, deepseek-llm, glm4, kimi-k2");
}

/* What would change the ids and is not computed here. */
static int refuse_variants(const json_t *root, const json_t *model, struct err *err)
{
    const json_t *n = json_object_get(root, "normalizer");
    const json_t *list = json_object_get(n, "normalizers");
    if (json_is_object(n) && !(json_is_array(list) && json_array_size(list) == 0))
        return err_set(err, ERR_UNSUPPORTED, "it has a normalizer ('%.40s'); the tokenizers of "
                       "this family have none", json_string_value(json_object_get(n, "type"))
                       ? json_string_value(json_object_get(n, "type")) : "");
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return err_set(err, ERR_UNSUPPORTED, "model.byte_fallback must be false");
    return 0;
}

static int32_t id_of(const struct draft *d, const char *literal)
{
    for (uint32_t i = 0; i < d->v.n_tokens; i++)
        if (str_is(d->token[i], literal))
            return (int32_t)i;
    return -1;
}

static int read_all(struct draft *d, const json_t *root, struct err *err)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_object(vocab) || !json_is_array(merges))
        return err_set(err, ERR_UNSUPPORTED,
                       "model.vocab and model.merges are missing; only BPE files load");
    int rc = refuse_variants(root, model, err);
    if (rc == 0)
        rc = read_tokens(d, vocab, json_object_get(root, "added_tokens"), err);
    if (rc == 0)
        rc = read_merges(d, merges, err);
    if (rc == 0)
        rc = read_scheme(d, json_object_get(root, "pre_tokenizer"), err);
    if (rc < 0)
        return rc;
    d->v.whole_first = json_is_true(json_object_get(model, "ignore_merges"));
    d->v.token = d->token;
    d->v.type = d->type;
    d->v.merge = d->merge;
    d->v.bos = id_of(d, "<\xEF\xBD\x9C"
                        "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>");
    d->v.eos = id_of(d, "<\xEF\xBD\x9C"
                        "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>");
    return 0;
}

int tokenizer_open(struct tokenizer **out, const char *path, struct err *err)
{
    struct buf text;
    json_t *root = NULL;
    struct draft d = {0};
    arena_init(&d.arena, 0);
    buf_init(&text, LIMIT_JSON_BYTES);
    int rc = io_read_regular(path, &text, err);
    bool read = rc == 0;
    if (rc == 0)
        rc = json_read(&root, buf_view(&text), err);
    if (rc == 0)
        rc = read_all(&d, root, err);
    if (rc == 0)
        rc = tokenizer_new(out, &d.v, err);
    if (rc < 0 && read)
        err_prefix(err, "'%s'", path);
    mem_free(d.token);
    mem_free(d.type);
    mem_free(d.merge);
    arena_done(&d.arena);
    json_decref(root);
    buf_done(&text);
    return rc;
}
