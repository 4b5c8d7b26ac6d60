/* weights_hf.c - names of Hugging Face checkpoints -> places in the model. */
#include <stdio.h>
#include <string.h>

#include "engine/weights_bind.h"

static void bind_attention(struct binder *b, struct layer_weights *w)
{
    const struct hparams *hp = &b->w->hp;
    uint64_t h = hp->n_heads, qk = hp->qk_nope_head_dim + hp->qk_rope_head_dim;
    bind_vector(b, &w->attn_norm, "input_layernorm.weight", hp->dim);
    bind_vector(b, &w->ffn_norm, "post_attention_layernorm.weight", hp->dim);
    if (hp->q_lora_rank) {
        bind_matrix(b, &w->q_a, "self_attn.q_a_proj.weight", hp->dim, hp->q_lora_rank);
        bind_vector(b, &w->q_a_norm, "self_attn.q_a_layernorm.weight", hp->q_lora_rank);
        bind_matrix(b, &w->q_b, "self_attn.q_b_proj.weight", hp->q_lora_rank, h * qk);
    } else {
        bind_matrix(b, &w->q, "self_attn.q_proj.weight", hp->dim, h * qk);
    }
    bind_matrix(b, &w->kv_a, "self_attn.kv_a_proj_with_mqa.weight", hp->dim,
                hp->kv_lora_rank + hp->qk_rope_head_dim);
    bind_vector(b, &w->kv_a_norm, "self_attn.kv_a_layernorm.weight", hp->kv_lora_rank);
    bind_matrix(b, &w->kv_b, "self_attn.kv_b_proj.weight", hp->kv_lora_rank,
                h * (hp->qk_nope_head_dim + hp->v_head_dim));
    bind_matrix(b, &w->o, "self_attn.o_proj.weight", h * hp->v_head_dim, hp->dim);
}

static void bind_indexer(struct binder *b, struct layer_weights *w)
{
    const struct hparams *hp = &b->w->hp;
    bind_matrix(b, &w->index_q_b, "self_attn.indexer.wq_b.weight", hp->q_lora_rank,
                (uint64_t)hp->index_n_heads * hp->index_head_dim);
    bind_matrix(b, &w->index_k, "self_attn.indexer.wk.weight", hp->dim, hp->index_head_dim);
    bind_vector(b, &w->index_k_norm, "self_attn.indexer.k_norm.weight", hp->index_head_dim);
    bind_vector(b, &w->index_k_norm_bias, "self_attn.indexer.k_norm.bias",
                hp->index_head_dim);
    bind_matrix(b, &w->index_proj, "self_attn.indexer.weights_proj.weight", hp->dim,
                hp->index_n_heads);
}

static void bind_ffn(struct binder *b, struct ffn_weights *w, const char *at, uint64_t width)
{
    char name[64];
    uint64_t dim = b->w->hp.dim;
    snprintf(name, sizeof name, "%sgate_proj.weight", at);
    bind_matrix(b, &w->gate, name, dim, width);
    snprintf(name, sizeof name, "%sup_proj.weight", at);
    bind_matrix(b, &w->up, name, dim, width);
    snprintf(name, sizeof name, "%sdown_proj.weight", at);
    bind_matrix(b, &w->down, name, width, dim);
}

static void bind_moe(struct binder *b, struct layer_weights *w, uint32_t l)
{
    const struct hparams *hp = &b->w->hp;
    bind_matrix(b, &w->router, "mlp.gate.weight", hp->dim, hp->n_routed_experts);
    if (bind_peek(b, "mlp.gate.e_score_correction_bias"))
        bind_vector(b, &w->router_bias, "mlp.gate.e_score_correction_bias",
                    hp->n_routed_experts);
    else if (b->rc == 0 && hp->score_func == SCORE_SIGMOID)
        bind_vector(b, &w->router_bias, "mlp.gate.e_score_correction_bias",
                    hp->n_routed_experts); /* the sentence about its absence */
    weights_alloc_experts(b, l);
    for (uint32_t e = 0; b->rc == 0 && e < hp->n_routed_experts; e++) {
        char at[48];
        snprintf(at, sizeof at, "mlp.experts.%u.", e);
        bind_ffn(b, &w->experts[e], at, hp->moe_inter_dim);
    }
    if (hp->n_shared_experts)
        bind_ffn(b, &w->shared, "mlp.shared_experts.",
                 (uint64_t)hp->n_shared_experts * hp->moe_inter_dim);
}

static void bind_layer(struct binder *b, uint32_t l)
{
    const struct hparams *hp = &b->w->hp;
    struct layer_weights *w = &b->w->layer[l];
    snprintf(b->at, sizeof b->at, "model.layers.%u.", l);
    bind_attention(b, w);
    if (hp->index_topk && hp->index_full[l])
        bind_indexer(b, w);
    if (hp->moe[l])
        bind_moe(b, w, l);
    else
        bind_ffn(b, &w->mlp, "mlp.", hp->inter_dim);
}

/* Embedding and head are stored again, byte for byte, or not at all: alias the main ones. */
static void bind_mtp(struct binder *b)
{
    const struct hparams *hp = &b->w->hp;
    struct mtp_weights *m = &b->w->mtp;
    snprintf(b->at, sizeof b->at, "model.layers.%u.", hp->n_layers);
    bind_vector(b, &m->enorm, "enorm.weight", hp->dim);
    bind_vector(b, &m->hnorm, "hnorm.weight", hp->dim);
    bind_matrix(b, &m->eh_proj, "eh_proj.weight", 2 * (uint64_t)hp->dim, hp->dim);
    bind_vector(b, &m->norm, "shared_head.norm.weight", hp->dim);
    bind_skip(b, "embed_tokens.weight");
    bind_skip(b, "shared_head.head.weight");
    m->embed = b->w->embed;
    m->head = b->w->head;
}

void weights_bind_hf(struct binder *b, bool tied)
{
    struct hparams *hp = &b->w->hp;
    struct weights *w = b->w;
    bind_matrix(b, &w->embed, "model.embed_tokens.weight", hp->dim, hp->n_vocab);
    bind_vector(b, &w->norm, "model.norm.weight", hp->dim);
    if (tied && !bind_peek(b, "lm_head.weight"))
        w->head = w->embed;
    else
        bind_matrix(b, &w->head, "lm_head.weight", hp->dim, hp->n_vocab);
    for (uint32_t l = 0; b->rc == 0 && l < hp->n_layers + hp->n_mtp_layers; l++)
        bind_layer(b, l);
    if (hp->n_mtp_layers)
        bind_mtp(b);
}
