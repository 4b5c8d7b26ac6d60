/* weights_gguf.c - GGUF tensor names -> places in the model. */
#include <stdio.h>
#include <string.h>

#include "engine/weights_bind.h"

/* Old files hold kv_b whole; new ones its halves per head, the key half transposed. */
static void bind_kv_b(struct binder *b, struct layer_weights *w)
{
    const struct hparams *hp = &b->w->hp;
    if (bind_peek(b, "attn_kv_b.weight") && !bind_peek(b, "attn_k_b.weight")) {
        bind_matrix(b, &w->kv_b, "attn_kv_b.weight", hp->kv_lora_rank,
                    (uint64_t)hp->n_heads * (hp->qk_nope_head_dim + hp->v_head_dim));
        return;
    }
    bind_cube(b, &w->k_b, "attn_k_b.weight", hp->qk_nope_head_dim, hp->kv_lora_rank,
              hp->n_heads);
    bind_cube(b, &w->v_b, "attn_v_b.weight", hp->kv_lora_rank, hp->v_head_dim, hp->n_heads);
}

static void bind_attention(struct binder *b, struct layer_weights *w)
{
    const struct hparams *hp = &b->w->hp;
    uint64_t h = hp->n_heads, qk = hp->qk_nope_head_dim + hp->qk_rope_head_dim;
    bind_vector(b, &w->attn_norm, "attn_norm.weight", hp->dim);
    bind_vector(b, &w->ffn_norm, "ffn_norm.weight", hp->dim);
    if (hp->q_lora_rank) {
        bind_matrix(b, &w->q_a, "attn_q_a.weight", hp->dim, hp->q_lora_rank);
        bind_vector(b, &w->q_a_norm, "attn_q_a_norm.weight", hp->q_lora_rank);
        bind_matrix(b, &w->q_b, "attn_q_b.weight", hp->q_lora_rank, h * qk);
    } else {
        bind_matrix(b, &w->q, "attn_q.weight", hp->dim, h * qk);
    }
    bind_matrix(b, &w->kv_a, "attn_kv_a_mqa.weight", hp->dim,
                hp->kv_lora_rank + hp->qk_rope_head_dim);
    bind_vector(b, &w->kv_a_norm, "attn_kv_a_norm.weight", hp->kv_lora_rank);
    bind_kv_b(b, w);
    bind_matrix(b, &w->o, "attn_output.weight", h * hp->v_head_dim, hp->dim);
}

static void bind_indexer(struct binder *b, struct layer_weights *w)
{
    const struct hparams *hp = &b->w->hp;
    bind_matrix(b, &w->index_q_b, "indexer.attn_q_b.weight", hp->q_lora_rank,
                (uint64_t)hp->index_n_heads * hp->index_head_dim);
    bind_matrix(b, &w->index_k, "indexer.attn_k.weight", hp->dim, hp->index_head_dim);
    bind_vector(b, &w->index_k_norm, "indexer.k_norm.weight", hp->index_head_dim);
    bind_vector(b, &w->index_k_norm_bias, "indexer.k_norm.bias", hp->index_head_dim);
    bind_matrix(b, &w->index_proj, "indexer.proj.weight", hp->dim, hp->index_n_heads);
}

/* Matrix i of a stack, rows first..first+n-1 of it. */
static struct tensor slice(const struct tensor *stack, uint64_t i, uint64_t first, uint64_t n)
{
    return tensor_rows(stack, i * stack->ne[1] + first, n);
}

static void bind_experts(struct binder *b, struct layer_weights *w, uint32_t l)
{
    const struct hparams *hp = &b->w->hp;
    uint64_t f = hp->moe_inter_dim, n = hp->n_routed_experts;
    struct tensor gate = {0}, up = {0}, down = {0}, both = {0};
    weights_alloc_experts(b, l);
    bool fused = bind_peek(b, "ffn_gate_up_exps.weight") != NULL;
    if (fused) {
        bind_cube(b, &both, "ffn_gate_up_exps.weight", hp->dim, 2 * f, n);
    } else {
        bind_cube(b, &gate, "ffn_gate_exps.weight", hp->dim, f, n);
        bind_cube(b, &up, "ffn_up_exps.weight", hp->dim, f, n);
    }
    bind_cube(b, &down, "ffn_down_exps.weight", f, hp->dim, n);
    for (uint32_t e = 0; b->rc == 0 && e < n; e++) {
        w->experts[e].gate = fused ? slice(&both, e, 0, f) : slice(&gate, e, 0, f);
        w->experts[e].up = fused ? slice(&both, e, f, f) : slice(&up, e, 0, f);
        w->experts[e].down = slice(&down, e, 0, hp->dim);
    }
}

static void bind_moe(struct binder *b, struct layer_weights *w, uint32_t l)
{
    const struct hparams *hp = &b->w->hp;
    bind_matrix(b, &w->router, "ffn_gate_inp.weight", hp->dim, hp->n_routed_experts);
    if (bind_peek(b, "exp_probs_b.bias") || hp->score_func == SCORE_SIGMOID)
        bind_vector(b, &w->router_bias, "exp_probs_b.bias", hp->n_routed_experts);
    bind_experts(b, w, l);
    if (hp->n_shared_experts) {
        uint64_t width = (uint64_t)hp->n_shared_experts * hp->moe_inter_dim;
        bind_matrix(b, &w->shared.gate, "ffn_gate_shexp.weight", hp->dim, width);
        bind_matrix(b, &w->shared.up, "ffn_up_shexp.weight", hp->dim, width);
        bind_matrix(b, &w->shared.down, "ffn_down_shexp.weight", width, hp->dim);
    }
}

static void bind_layer(struct binder *b, uint32_t l)
{
    const struct hparams *hp = &b->w->hp;
    struct layer_weights *w = &b->w->layer[l];
    snprintf(b->at, sizeof b->at, "blk.%u.", l);
    bind_attention(b, w);
    if (hp->index_topk && hp->index_full[l])
        bind_indexer(b, w);
    if (hp->moe[l]) {
        bind_moe(b, w, l);
    } else {
        bind_matrix(b, &w->mlp.gate, "ffn_gate.weight", hp->dim, hp->inter_dim);
        bind_matrix(b, &w->mlp.up, "ffn_up.weight", hp->dim, hp->inter_dim);
        bind_matrix(b, &w->mlp.down, "ffn_down.weight", hp->inter_dim, hp->dim);
    }
}

static void bind_mtp(struct binder *b)
{
    const struct hparams *hp = &b->w->hp;
    struct mtp_weights *m = &b->w->mtp;
    snprintf(b->at, sizeof b->at, "blk.%u.nextn.", hp->n_layers);
    bind_vector(b, &m->enorm, "enorm.weight", hp->dim);
    bind_vector(b, &m->hnorm, "hnorm.weight", hp->dim);
    bind_matrix(b, &m->eh_proj, "eh_proj.weight", 2 * (uint64_t)hp->dim, hp->dim);
    bind_vector(b, &m->norm, "shared_head_norm.weight", hp->dim);
    bind_skip(b, "embed_tokens.weight");
    bind_skip(b, "shared_head_head.weight");
    m->embed = b->w->embed;
    m->head = b->w->head;
}

void weights_bind_gguf(struct binder *b)
{
    struct hparams *hp = &b->w->hp;
    struct weights *w = b->w;
    bind_matrix(b, &w->embed, "token_embd.weight", hp->dim, hp->n_vocab);
    bind_vector(b, &w->norm, "output_norm.weight", hp->dim);
    if (bind_peek(b, "output.weight"))
        bind_matrix(b, &w->head, "output.weight", hp->dim, hp->n_vocab);
    else
        w->head = w->embed;
    for (uint32_t l = 0; b->rc == 0 && l < hp->n_layers + hp->n_mtp_layers; l++)
        bind_layer(b, l);
    if (hp->n_mtp_layers)
        bind_mtp(b);
}
