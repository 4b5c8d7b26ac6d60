/*
 * convert_plan.c - the list of output tensors in file order. Types: the wished one where its
 * blocks fit the rows, else the nearest with smaller blocks; vectors, router and the indexer's
 * head weights stay F32, because their rounding decides near ties.
 */
#include "engine/convert_plan.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model_file.h"
#include "engine/quant/quant.h"
#include "engine/weights_list.h"

struct maker {
    struct plan *p;
    const struct model_convert *o;
    uint32_t want; /* o->type as a number */
    char at[32];   /* "blk.3." */
    uint64_t on_matrix, on_vector; /* bit i: rule i has matched one */
    int rc;
    struct err *err;
};

/* --- types -------------------------------------------------------------------------------- */

/* What stands in when rows are not whole blocks: 256 -> 32 elements -> one. */
static uint32_t fallback(uint32_t type)
{
    switch (type) {
    case QUANT_Q2_K:
    case QUANT_Q3_K:
    case QUANT_IQ4_XS:
        return QUANT_IQ4_NL;
    case QUANT_Q4_K:
        return QUANT_Q5_0;
    case QUANT_Q5_K:
        return QUANT_Q5_1;
    case QUANT_Q6_K:
        return QUANT_Q8_0;
    default:
        return QUANT_F16;
    }
}

static bool fits(uint32_t type, uint64_t n)
{
    return n % quant_traits(type)->block == 0;
}

static int find_type(const char *name, uint32_t *out, struct err *err)
{
    const struct quant_traits *t = quant_find(str_c(name));
    if (!t || t->type == QUANT_F8_E4M3)
        return err_set(err, ERR_UNSUPPORTED, "type '%s' is unknown; 'agentctl model convert "
                       "--help' lists them", name);
    *out = t->type;
    return 0;
}

/* A pattern may sweep over vectors; it changes matrices alone. */
static void choose_type(struct maker *m, struct out_tensor *t, bool keep_f32)
{
    t->type = keep_f32 || t->n_dims == 1 ? QUANT_F32 : m->want;
    for (unsigned i = 0; m->rc == 0 && i < m->o->n_rules; i++) {
        uint32_t type = t->type;
        if (fnmatch(m->o->rule[i].pattern, t->name, 0) != 0)
            continue;
        m->rc = find_type(m->o->rule[i].type, &type, m->err);
        if (t->n_dims == 1 && type != QUANT_F32) {
            m->on_vector |= 1ull << i;
        } else {
            m->on_matrix |= 1ull << i;
            t->type = type;
        }
    }
    while (m->rc == 0 && !fits(t->type, t->ne[0]))
        t->type = fallback(t->type);
}

/* A rule that changes nothing is a mistake of whoever wrote it. */
static int check_rules(const struct maker *m)
{
    for (unsigned i = 0; i < m->o->n_rules; i++) {
        const char *pattern = m->o->rule[i].pattern;
        if (m->on_matrix >> i & 1)
            continue;
        if (m->on_vector >> i & 1)
            return err_set(m->err, ERR_UNSUPPORTED, "pattern '%s' matches vectors only; "
                           "vectors are kept in f32", pattern);
        return err_set(m->err, ERR_NOTFOUND, "pattern '%s' matches no tensor; 'agentctl model "
                       "info' of a GGUF file shows the names' form, such as "
                       "'blk.0.attn_output.weight'", pattern);
    }
    return 0;
}

/* --- the list ----------------------------------------------------------------------------- */

static struct out_tensor *add(struct maker *m, const char *tail, uint32_t n_dims,
                              const uint64_t *ne, bool keep_f32)
{
    struct plan *p = m->p;
    if (m->rc < 0)
        return NULL;
    if (p->n == p->cap) {
        uint32_t cap = p->cap ? p->cap * 2 : 256;
        void *item = mem_resize(p->item, cap, sizeof *p->item);
        if (!item) {
            m->rc = err_nomem(m->err);
            return NULL;
        }
        p->item = item;
        p->cap = cap;
    }
    struct out_tensor *t = &p->item[p->n];
    *t = (struct out_tensor){.n_dims = n_dims, .ne = {1, 1, 1, 1}};
    memcpy(t->ne, ne, n_dims * sizeof *ne);
    snprintf(t->name, sizeof t->name, "%s%s", m->at, tail);
    choose_type(m, t, keep_f32);
    if (m->rc < 0)
        return NULL;
    uint64_t row = 0;
    if (!quant_row_bytes(quant_traits(t->type), t->ne[0], &row) ||
        __builtin_mul_overflow(row, t->ne[1] * t->ne[2], &t->bytes)) {
        m->rc = err_set(m->err, ERR_LIMIT, "'%s' is too large", t->name);
        return NULL;
    }
    p->n++;
    return t;
}

static void plain(struct maker *m, const char *tail, const struct tensor *src, bool keep_f32)
{
    if (!tensor_exists(src))
        return;
    struct out_tensor *t = add(m, tail, src->n_dims, src->ne, keep_f32);
    if (t) {
        t->kind = OUT_PLAIN;
        t->src = src;
    }
}

static void stack(struct maker *m, const char *tail, const struct layer_weights *w,
                  enum out_part part, uint64_t ne0, uint64_t ne1)
{
    struct out_tensor *t = add(m, tail, 3, (uint64_t[]){ne0, ne1, m->p->w->hp.n_routed_experts},
                               false);
    if (t) {
        t->kind = OUT_STACK;
        t->part = part;
        t->expert = w->experts;
    }
}

static void kv_b(struct maker *m, const struct layer_weights *w)
{
    const struct hparams *hp = &m->p->w->hp;
    if (!tensor_exists(&w->kv_b)) {
        plain(m, "attn_k_b.weight", &w->k_b, false);
        plain(m, "attn_v_b.weight", &w->v_b, false);
        return;
    }
    struct out_tensor *t = add(m, "attn_k_b.weight", 3, (uint64_t[]){hp->qk_nope_head_dim,
                               hp->kv_lora_rank, hp->n_heads}, false);
    if (t) {
        t->kind = OUT_K_B;
        t->src = &w->kv_b;
    }
    t = add(m, "attn_v_b.weight", 3, (uint64_t[]){hp->kv_lora_rank, hp->v_head_dim,
            hp->n_heads}, false);
    if (t) {
        t->kind = OUT_V_B;
        t->src = &w->kv_b;
    }
}

static void layer(struct maker *m, uint32_t l)
{
    const struct hparams *hp = &m->p->w->hp;
    const struct layer_weights *w = &m->p->w->layer[l];
    snprintf(m->at, sizeof m->at, "blk.%u.", l);
    plain(m, "attn_norm.weight", &w->attn_norm, true);
    plain(m, "attn_q_a.weight", &w->q_a, false);
    plain(m, "attn_q_a_norm.weight", &w->q_a_norm, true);
    plain(m, "attn_q_b.weight", &w->q_b, false);
    plain(m, "attn_q.weight", &w->q, false);
    plain(m, "attn_kv_a_mqa.weight", &w->kv_a, false);
    plain(m, "attn_kv_a_norm.weight", &w->kv_a_norm, true);
    kv_b(m, w);
    plain(m, "attn_output.weight", &w->o, false);
    plain(m, "indexer.attn_q_b.weight", &w->index_q_b, false);
    plain(m, "indexer.attn_k.weight", &w->index_k, false);
    plain(m, "indexer.k_norm.weight", &w->index_k_norm, true);
    plain(m, "indexer.k_norm.bias", &w->index_k_norm_bias, true);
    plain(m, "indexer.proj.weight", &w->index_proj, true);
    plain(m, "ffn_norm.weight", &w->ffn_norm, true);
    plain(m, "ffn_gate.weight", &w->mlp.gate, false);
    plain(m, "ffn_up.weight", &w->mlp.up, false);
    plain(m, "ffn_down.weight", &w->mlp.down, false);
    if (!hp->moe[l])
        return;
    plain(m, "ffn_gate_inp.weight", &w->router, true);
    plain(m, "exp_probs_b.bias", &w->router_bias, true);
    stack(m, "ffn_gate_exps.weight", w, PART_GATE, hp->dim, hp->moe_inter_dim);
    stack(m, "ffn_up_exps.weight", w, PART_UP, hp->dim, hp->moe_inter_dim);
    stack(m, "ffn_down_exps.weight", w, PART_DOWN, hp->moe_inter_dim, hp->dim);
    plain(m, "ffn_gate_shexp.weight", &w->shared.gate, false);
    plain(m, "ffn_up_shexp.weight", &w->shared.up, false);
    plain(m, "ffn_down_shexp.weight", &w->shared.down, false);
}

static void mtp(struct maker *m)
{
    const struct weights *w = m->p->w;
    snprintf(m->at, sizeof m->at, "blk.%u.nextn.", w->hp.n_layers);
    plain(m, "eh_proj.weight", &w->mtp.eh_proj, false);
    plain(m, "enorm.weight", &w->mtp.enorm, true);
    plain(m, "hnorm.weight", &w->mtp.hnorm, true);
    plain(m, "shared_head_norm.weight", &w->mtp.norm, true);
}

int plan_make(struct plan *p, const struct weights *w, const struct model_convert *o,
              struct err *err)
{
    *p = (struct plan){.w = w, .head_at = -1};
    struct maker m = {.p = p, .o = o, .err = err};
    const struct hparams *hp = &w->hp;
    m.rc = o->n_rules <= 64 ? find_type(o->type, &m.want, err)
                            : err_set(err, ERR_LIMIT, "more than 64 patterns");
    plain(&m, "token_embd.weight", &w->embed, false);
    plain(&m, "output_norm.weight", &w->norm, true);
    if (w->head.data != w->embed.data)
        plain(&m, "output.weight", &w->head, false);
    bool keep_mtp = model_keeps_mtp(w);
    for (uint32_t l = 0; m.rc == 0 && l < hp->n_layers + (keep_mtp ? 1u : 0u); l++)
        layer(&m, l);
    if (keep_mtp)
        mtp(&m);
    if (m.rc == 0)
        m.rc = check_rules(&m);
    p->head = m.rc == 0 ? mem_array((size_t)hp->qk_nope_head_dim * hp->kv_lora_rank,
                                    sizeof *p->head) : NULL;
    if (m.rc == 0 && !p->head)
        m.rc = err_nomem(err);
    if (m.rc < 0)
        plan_done(p);
    return m.rc;
}

void plan_done(struct plan *p)
{
    mem_free(p->item);
    mem_free(p->head);
    *p = (struct plan){.head_at = -1};
}

/* --- rows --------------------------------------------------------------------------------- */

static const struct tensor *part_of(const struct ffn_weights *e, enum out_part part)
{
    return part == PART_GATE ? &e->gate : part == PART_UP ? &e->up : &e->down;
}

/* Heads are transposed one at a time, through scratch that remembers which it holds. */
static void key_row(struct plan *p, const struct out_tensor *t, uint64_t r, float *out)
{
    const struct hparams *hp = &p->w->hp;
    uint64_t nope = hp->qk_nope_head_dim, rank = hp->kv_lora_rank, head = r / rank;
    if (p->head_of != t || p->head_at != (int64_t)head) {
        uint64_t first = head * (nope + hp->v_head_dim);
        for (uint64_t d = 0; d < nope; d++)
            tensor_read_row(t->src, first + d, p->head + d * rank);
        p->head_of = t;
        p->head_at = (int64_t)head;
    }
    for (uint64_t d = 0; d < nope; d++)
        out[d] = p->head[d * rank + r % rank];
}

void plan_row(struct plan *p, const struct out_tensor *t, uint64_t r, float *out)
{
    const struct hparams *hp = &p->w->hp;
    if (p->fill) {
        p->fill(p->fill_arg, t, r, out);
        return;
    }
    switch (t->kind) {
    case OUT_PLAIN:
        tensor_read_row(t->src, r, out);
        break;
    case OUT_STACK:
        tensor_read_row(part_of(&t->expert[r / t->ne[1]], t->part), r % t->ne[1], out);
        break;
    case OUT_K_B:
        key_row(p, t, r, out);
        break;
    case OUT_V_B: {
        uint64_t per = hp->qk_nope_head_dim + hp->v_head_dim, v = hp->v_head_dim;
        tensor_read_row(t->src, r / v * per + hp->qk_nope_head_dim + r % v, out);
        break;
    }
    }
}

const void *plan_raw_row(const struct plan *p, const struct out_tensor *t, uint64_t r)
{
    if (p->fill)
        return NULL;
    const struct tensor *src = t->kind == OUT_PLAIN ? t->src
                               : t->kind == OUT_STACK
                                   ? part_of(&t->expert[r / t->ne[1]], t->part)
                                   : NULL;
    if (!src || src->type != t->type)
        return NULL;
    return tensor_row(src, t->kind == OUT_STACK ? r % t->ne[1] : r);
}
