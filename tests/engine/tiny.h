/*
 * tiny.h - the deterministic test models as struct weights in memory, without a file:
 * what tests of the forward pass start from, so that they do not depend on a loader.
 */
#ifndef TESTS_ENGINE_TINY_H
#define TESTS_ENGINE_TINY_H

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "engine/quant/quant.h"
#include "engine/testmodel.h"
#include "engine/weights.h"
#include "test.h"

enum { TINY_TENSORS = 512 };

struct tiny {
    struct weights w;
    struct testmodel_tensor info[TINY_TENSORS];
    float *data[TINY_TENSORS];
    uint32_t n;
    struct layer_weights layer[8];
    struct ffn_weights experts[8][8];
};

static struct tensor tiny_find(struct tiny *t, const char *fmt, ...)
{
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    for (uint32_t i = 0; i < t->n; i++) {
        const struct testmodel_tensor *in = &t->info[i];
        if (strcmp(in->name, name) != 0)
            continue;
        struct tensor out = {.name = in->name,
                             .type = QUANT_F32,
                             .n_dims = in->n_dims,
                             .ne = {1, 1, 1, 1},
                             .data = t->data[i]};
        out.ne[0] = in->n_dims == 2 ? in->shape[1] : in->shape[0];
        out.ne[1] = in->n_dims == 2 ? in->shape[0] : 1;
        out.row_bytes = out.ne[0] * 4;
        out.bytes = out.row_bytes * out.ne[1];
        return out;
    }
    return (struct tensor){0};
}

static void tiny_hparams(struct hparams *hp, enum testmodel_kind kind)
{
    bool index = kind == TESTMODEL_V32 || kind == TESTMODEL_GLM;
    *hp = (struct hparams){
        .n_vocab = 512,
        .dim = 256,
        .n_layers = 4,
        .n_mtp_layers = index,
        .n_ctx = 256,
        .n_heads = 4,
        .q_lora_rank = kind == TESTMODEL_DENSE ? 0 : 128,
        .kv_lora_rank = 64,
        .qk_nope_head_dim = 32,
        .qk_rope_head_dim = 16,
        .v_head_dim = 32,
        .rms_eps = 1e-6f,
        .n_dense_layers = 1,
        .inter_dim = 320,
        .moe_inter_dim = 96,
        .n_routed_experts = 8,
        .n_shared_experts = 1,
        .n_activated_experts = 3,
        .n_expert_groups = 4,
        .n_limited_groups = 2,
        .norm_topk_prob = true,
        .route_scale = 2.5f,
        .index_n_heads = index ? 4 : 0,
        .index_head_dim = index ? 32 : 0,
        .index_topk = index ? 16 : 0,
        .rope_theta = 10000,
        .yarn = true,
        .yarn_factor = 4,
        .yarn_beta_fast = 32,
        .yarn_beta_slow = 1,
        .yarn_orig_ctx = 64,
        .rope_mul = 1,
        .bos = 0,
        .eos = 1,
        .temperature = 1,
        .top_p = 1,
    };
    snprintf(hp->arch, sizeof hp->arch, "%s",
             kind == TESTMODEL_V32   ? "deepseek32"
             : kind == TESTMODEL_GLM ? "glm-dsa"
                                     : "deepseek2");
    for (int l = 0; l < 5; l++) {
        hp->moe[l] = l > 0;
        hp->index_full[l] = index && !(kind == TESTMODEL_GLM && l == 2);
    }
    if (kind == TESTMODEL_GLM || kind == TESTMODEL_DENSE) {
        hp->yarn = false;
        hp->rms_eps = 1e-5f;
        hp->rope_theta = kind == TESTMODEL_GLM ? 1000000 : 50000;
        hp->n_expert_groups = hp->n_limited_groups = 1;
        hp->index_rope_pairs = kind == TESTMODEL_GLM;
    }
    if (kind == TESTMODEL_SOFTMAX) {
        hp->score_func = SCORE_SOFTMAX;
        hp->group_score = GROUP_MAX;
        hp->norm_topk_prob = false;
        hp->route_scale = 16;
    }
    hp->latent_norm_eps = hp->rms_eps;
    double g = hp->yarn ? 0.1 * log(4.0) + 1 : 1;
    hp->attn_scale = (float)(pow(48, -0.5) * g * g);
}

static struct ffn_weights tiny_ffn(struct tiny *t, int l, const char *where)
{
    return (struct ffn_weights){
        tiny_find(t, "model.layers.%d.mlp.%sgate_proj.weight", l, where),
        tiny_find(t, "model.layers.%d.mlp.%sup_proj.weight", l, where),
        tiny_find(t, "model.layers.%d.mlp.%sdown_proj.weight", l, where),
    };
}

static void tiny_layer(struct tiny *t, int l)
{
    struct layer_weights *w = &t->layer[l];
#define ATTN(field, name) w->field = tiny_find(t, "model.layers.%d." name, l)
    ATTN(attn_norm, "input_layernorm.weight");
    ATTN(ffn_norm, "post_attention_layernorm.weight");
    ATTN(q_a, "self_attn.q_a_proj.weight");
    ATTN(q_a_norm, "self_attn.q_a_layernorm.weight");
    ATTN(q_b, "self_attn.q_b_proj.weight");
    ATTN(q, "self_attn.q_proj.weight");
    ATTN(kv_a, "self_attn.kv_a_proj_with_mqa.weight");
    ATTN(kv_a_norm, "self_attn.kv_a_layernorm.weight");
    ATTN(kv_b, "self_attn.kv_b_proj.weight");
    ATTN(o, "self_attn.o_proj.weight");
    ATTN(index_q_b, "self_attn.indexer.wq_b.weight");
    ATTN(index_k, "self_attn.indexer.wk.weight");
    ATTN(index_k_norm, "self_attn.indexer.k_norm.weight");
    ATTN(index_k_norm_bias, "self_attn.indexer.k_norm.bias");
    ATTN(index_proj, "self_attn.indexer.weights_proj.weight");
    ATTN(router, "mlp.gate.weight");
    ATTN(router_bias, "mlp.gate.e_score_correction_bias");
#undef ATTN
    if (!t->w.hp.moe[l]) {
        w->mlp = tiny_ffn(t, l, "");
        return;
    }
    for (int e = 0; e < 8; e++) {
        char where[32];
        snprintf(where, sizeof where, "experts.%d.", e);
        t->experts[l][e] = tiny_ffn(t, l, where);
    }
    w->experts = t->experts[l];
    w->shared = tiny_ffn(t, l, "shared_experts.");
}

static struct tiny *tiny_open(enum testmodel_kind kind)
{
    struct tiny *t = mem_zalloc(sizeof *t);
    assert_non_null(t);
    t->n = testmodel_n_tensors(kind);
    assert_true(t->n <= TINY_TENSORS);
    for (uint32_t i = 0; i < t->n; i++) {
        testmodel_tensor(kind, i, &t->info[i]);
        t->data[i] = mem_array(t->info[i].shape[0] * t->info[i].shape[1], sizeof(float));
        assert_non_null(t->data[i]);
        testmodel_fill(&t->info[i], t->data[i]);
    }
    tiny_hparams(&t->w.hp, kind);
    t->w.path = t->w.name = testmodel_name(kind);
    t->w.fingerprint[0] = (uint8_t)kind;
    t->w.layer = t->layer;
    t->w.embed = tiny_find(t, "model.embed_tokens.weight");
    t->w.norm = tiny_find(t, "model.norm.weight");
    t->w.head = tiny_find(t, "lm_head.weight");
    for (uint32_t l = 0; l < 4 + t->w.hp.n_mtp_layers; l++)
        tiny_layer(t, (int)l);
    if (t->w.hp.n_mtp_layers) {
        t->w.mtp = (struct mtp_weights){
            .enorm = tiny_find(t, "model.layers.4.enorm.weight"),
            .hnorm = tiny_find(t, "model.layers.4.hnorm.weight"),
            .eh_proj = tiny_find(t, "model.layers.4.eh_proj.weight"),
            .norm = tiny_find(t, "model.layers.4.shared_head.norm.weight"),
            .embed = t->w.embed,
            .head = t->w.head,
        };
    }
    return t;
}

static void tiny_close(struct tiny *t)
{
    for (uint32_t i = 0; i < t->n; i++)
        mem_free(t->data[i]);
    mem_free(t);
}

/* t_i = (7 i^2 + 3 i + 1) mod 512: the golden prompt. */
static void tiny_prompt(int32_t *tok, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        tok[i] = (int32_t)((7u * i * i + 3u * i + 1u) % 512u);
}

#endif
