/*
 * generate.c - train-generate MODEL [indexer|dense|recent] [THREADS]: the engine on a pipe,
 * for evaluation without a daemon. One JSON object per line:
 *
 *   {"pieces": [{"text": "...", "special": true}, ...]}  ->  {"ids": [...]}
 *   {"ids": [0, 17, ...], "max": 200}  ->  {"ids": [...], "text": "..."}   greedy, up to EOS
 *
 * The KV cache keeps the common prefix of one request and the next. It knows no encoding, no
 * tools and no sandbox; eval.py does. The second argument replaces the indexer's choice of
 * positions, which is how the model card measures what the indexer is worth.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/engine.h"

enum { MAX_NEW = 4096 };

struct run {
    struct engine *e;
    struct engine_seq *seq;
    const struct engine_info *info;
    int32_t *tok; /* owned; the prompt, then what was generated */
    uint32_t n, cap;
    const float *logits; /* of the last position */
};

static int push(struct run *r, int32_t id, struct err *err)
{
    if (r->n == r->cap) {
        uint32_t cap = r->cap ? r->cap * 2 : 1024;
        int32_t *t = mem_array(cap, sizeof *t);
        if (!t)
            return err_nomem(err);
        if (r->n)
            memcpy(t, r->tok, r->n * sizeof *t);
        mem_free(r->tok);
        r->tok = t;
        r->cap = cap;
    }
    r->tok[r->n++] = id;
    return 0;
}

/* Computes positions from..n-1; the last row's logits stay until the next step. */
static int extend(struct run *r, uint32_t from, struct err *err)
{
    while (from < r->n) {
        uint32_t n = r->n - from;
        if (n > r->info->max_batch)
            n = r->info->max_batch;
        struct engine_work w = {.seq = r->seq, .tok = r->tok + from, .n = n, .n_logits = 1};
        int rc = engine_step(r->e, &w, 1, err);
        if (rc < 0)
            return rc;
        r->logits = w.logits;
        from += n;
    }
    return 0;
}

static int prompt(struct run *r, const json_t *ids, struct err *err)
{
    r->n = 0;
    size_t i;
    json_t *v;
    json_array_foreach(ids, i, v)
    {
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= (json_int_t)r->info->n_vocab)
            return err_set(err, ERR_PARSE, "ids[%zu] is not a token of this model", i);
        int rc = push(r, (int32_t)id, err);
        if (rc < 0)
            return rc;
    }
    if (r->n == 0)
        return err_set(err, ERR_PARSE, "ids is empty");
    uint32_t keep = 0, len = engine_seq_len(r->seq);
    const int32_t *old = engine_seq_tokens(r->seq);
    while (keep < len && keep + 1 < r->n && old[keep] == r->tok[keep])
        keep++;
    engine_seq_truncate(r->seq, keep);
    return extend(r, keep, err);
}

static int tokenize(struct run *r, const json_t *pieces, json_t **reply, struct err *err)
{
    struct engine_tokens t = {0};
    int rc = 0;
    size_t i;
    json_t *v;
    json_array_foreach(pieces, i, v)
    {
        struct str text = {0};
        bool special = false;
        rc = json_need_str(v, "text", &text, err);
        if (rc == 0)
            rc = json_opt_bool(v, "special", &special, err);
        if (rc == 0)
            rc = engine_tokenize(r->e, text, special, &t, err);
        if (rc < 0)
            break;
    }
    json_t *ids = json_array();
    for (uint32_t k = 0; k < t.n; k++)
        json_array_append_new(ids, json_integer(t.id[k]));
    *reply = json_pack("{s:o}", "ids", ids);
    engine_tokens_done(&t);
    return rc;
}

static int complete(struct run *r, const json_t *ids, int64_t max, json_t **reply,
                    struct err *err)
{
    json_t *got = json_array();
    struct buf text;
    buf_init(&text, 0);
    int rc = prompt(r, ids, err);
    struct sample_rng rng;
    sample_seed(&rng, 1);
    struct sample_opts greedy = {.top_p = 1};
    while (rc == 0 && max-- > 0) {
        struct sample_result s;
        rc = engine_sample(r->e, r->logits, &greedy, &rng, &s, err);
        if (rc < 0)
            break;
        json_array_append_new(got, json_integer(s.id));
        if (s.id == r->info->eos || r->n + 1 >= r->info->n_ctx)
            break;
        buf_str(&text, engine_token_bytes(r->e, s.id));
        rc = push(r, s.id, err);
        if (rc == 0)
            rc = extend(r, r->n - 1, err);
    }
    *reply = json_pack("{s:o, s:o}", "ids", got, "text", json_text(buf_view(&text)));
    buf_done(&text);
    return rc;
}

static int answer(struct run *r, struct str line, struct buf *out, struct err *err)
{
    json_t *m = NULL, *ids = NULL, *pieces = NULL, *reply = NULL;
    int64_t max = 256;
    int rc = json_read(&m, line, err);
    if (rc == 0)
        rc = json_opt_arr(m, "ids", &ids, err);
    if (rc == 0)
        rc = json_opt_arr(m, "pieces", &pieces, err);
    if (rc == 0)
        rc = json_opt_int(m, "max", 1, MAX_NEW, &max, err);
    if (rc == 0)
        rc = pieces ? tokenize(r, pieces, &reply, err) : complete(r, ids, max, &reply, err);
    if (rc < 0) {
        json_decref(reply);
        reply = json_pack("{s:s}", "error", err->text);
    }
    rc = reply ? json_write(reply, out, err) : err_nomem(err);
    json_decref(reply);
    json_decref(m);
    return rc;
}

static int serve(struct run *r, struct err *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    struct buf out;
    buf_init(&out, 0);
    int rc = 0;
    while (rc == 0 && (n = getline(&line, &cap, stdin)) > 0) {
        buf_reset(&out);
        rc = answer(r, str_of(line, (size_t)n), &out, err);
        if (rc == 0)
            rc = buf_check(&out, "the reply", err);
        if (rc == 0) {
            puts(buf_cstr(&out));
            fflush(stdout);
        }
    }
    buf_done(&out);
    free(line);
    return rc;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"indexer", "dense", "recent"};
    if (argc < 2) {
        fputs("usage: train-generate MODEL [indexer|dense|recent] [THREADS]\n", stderr);
        return 2;
    }
    struct engine_opts o = {.path = argv[1], .n_threads = 1};
    if (argc > 3)
        o.n_threads = (uint32_t)strtoul(argv[3], NULL, 10);
    for (int i = 0; argc > 2 && i < 3; i++)
        if (!strcmp(argv[2], names[i]))
            o.select = (enum engine_select)i;
    struct err err = {0};
    struct run r = {0};
    int rc = engine_open(&r.e, &o, &err);
    if (rc == 0) {
        r.info = engine_info(r.e);
        rc = engine_seq_new(&r.seq, r.e, &err);
    }
    if (rc == 0)
        rc = serve(&r, &err);
    if (rc < 0)
        fprintf(stderr, "train-generate: %s\n", err.text);
    mem_free(r.tok);
    engine_seq_free(r.seq);
    engine_close(r.e);
    return rc < 0;
}
