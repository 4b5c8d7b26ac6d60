/*
 * noise.c - positions that no token made: rows of uniform noise with variance one, as norms
 * leave them, so that a depth can be measured without computing it first.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/engine_impl.h"
#include "engine/model.h"

struct noise_job {
    struct engine_seq *s;
    uint64_t seed;
    uint32_t from;
    float *row; /* owned; one for each thread */
    size_t width;
};

/* Numbers of row `pos` of layer l start from these three alone: any thread, same rows. */
static void fill(float *x, uint32_t n, uint64_t s)
{
    for (uint32_t i = 0; i < n; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        x[i] = ((float)(s >> 40) / 8388608.0f - 1.0f) * 1.7320508f;
    }
}

static void noise_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct noise_job *j = arg;
    struct engine *e = j->s->e;
    const struct hparams *hp = &e->w->hp;
    float *row = j->row + thread * j->width;
    uint32_t n_layers = hp->n_layers + (e->mtp ? hp->n_mtp_layers : 0);
    for (uint64_t i = first; i < last; i++) {
        uint32_t pos = j->from + (uint32_t)i;
        for (uint32_t l = 0; l < n_layers; l++) {
            uint64_t s = (j->seed * 0x9e3779b97f4a7c15u + pos) * 0xbf58476d1ce4e5b9u + l;
            fill(row, hp->kv_lora_rank + hp->qk_rope_head_dim, s);
            kvseq_put(&j->s->kv, l, pos, row);
            if (!hp->index_topk || !hp->index_full[l])
                continue;
            fill(row, hp->index_head_dim, ~s);
            kvseq_put_index(&j->s->kv, l, pos, row);
        }
    }
}

int model_fill_noise(struct engine_seq *s, uint32_t n, uint64_t seed, struct err *err)
{
    struct engine *e = s->e;
    const struct hparams *hp = &e->w->hp;
    uint32_t from = s->kv.len;
    if (n > e->info.n_ctx - from)
        return err_set(err, ERR_LIMIT, "%u more positions exceed the context of %u", n,
                       e->info.n_ctx);
    int rc = kvseq_reserve(&s->kv, from, from + n, err);
    if (rc < 0)
        return rc;
    struct noise_job j = {.s = s, .seed = seed, .from = from};
    j.width = (size_t)hp->kv_lora_rank + hp->qk_rope_head_dim + hp->index_head_dim;
    j.row = mem_array(j.width * pool_threads(e->pool), sizeof *j.row);
    if (!j.row)
        return err_nomem(err);
    pool_run(e->pool, noise_rows, &j, n, KV_PAGE);
    mem_free(j.row);
    memset(s->tok + from, 0, n * sizeof *s->tok);
    memset(s->hidden, 0, (size_t)HIDDEN_KEPT * hp->dim * sizeof *s->hidden);
    s->kv.len += n;
    s->n_hidden = s->kv.len < HIDDEN_KEPT ? s->kv.len : HIDDEN_KEPT;
    s->mtp_len = e->mtp && s->kv.len ? s->kv.len - 1 : 0;
    s->drafted = -1;
    return 0;
}
