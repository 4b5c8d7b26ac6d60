/*
 * testmodel.c - deterministic small models.
 *
 *   z = fnv1a64(name) + (i+1) * 0x9e3779b97f4a7c15, mixed as splitmix64 does
 *   u = (z >> 11) * 2^-52 - 1                       in [-1, 1)
 *   matrix [o, i]: u * sqrt(3 / i); norm weights: 1 + u/4; indexer bias: u/4;
 *   router bias: u/2 - 1/2; the embedding is a matrix, times 16 after rounding.
 */
#include "engine/testmodel.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/quant/half.h"

/* Sizes that differ between the models; the rest is the same in all. */
struct sizes {
    const char *name, *config;
    uint32_t q_lora, index_heads, shared_layer,
        mtp; /* shared_layer: has no indexer; 0 none */
    uint32_t n_experts;
    bool bias;
};

enum {
    VOCAB = 512,
    DIM = 256,
    LAYERS = 4,
    HEADS = 4,
    RANK = 64,
    NOPE = 32,
    ROPE = 16,
    V = 32,
    INTER = 320,
    MOE_INTER = 96,
    INDEX_DIM = 32,
};

#define COMMON                                                                           \
    "\"vocab_size\":512,\"hidden_size\":256,\"num_hidden_layers\":4,"                    \
    "\"first_k_dense_replace\":1,\"moe_layer_freq\":1,\"num_attention_heads\":4,"        \
    "\"num_key_value_heads\":4,\"kv_lora_rank\":64,\"qk_nope_head_dim\":32,"             \
    "\"qk_rope_head_dim\":16,\"v_head_dim\":32,\"intermediate_size\":320,"               \
    "\"moe_intermediate_size\":96,\"n_routed_experts\":8,\"n_shared_experts\":1,"        \
    "\"num_experts_per_tok\":3,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,"   \
    "\"attention_bias\":false,\"bos_token_id\":0,\"eos_token_id\":1,"                    \
    "\"torch_dtype\":\"bfloat16\","
#define NOAUX                                                                            \
    "\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5,\"scoring_func\":"            \
    "\"sigmoid\","                                                                       \
    "\"topk_method\":\"noaux_tc\","
#define YARN                                                                             \
    "\"rope_theta\":10000,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"             \
    "\"original_max_position_embeddings\":64,\"beta_fast\":32,\"beta_slow\":1,"          \
    "\"mscale\":1.0,\"mscale_all_dim\":1.0},"
#define INDEXER "\"index_n_heads\":4,\"index_head_dim\":32,\"index_topk\":16,"

static const struct sizes models[TESTMODEL_KINDS] = {
    [TESTMODEL_V32] = {"tiny-v32",
                       "{\"architectures\":[\"DeepseekV32ForCausalLM\"],\"model_type\":"
                       "\"deepseek_v32\"," COMMON NOAUX YARN INDEXER
                       "\"q_lora_rank\":128,\"n_group\":4,\"topk_group\":2,\"num_nextn_"
                       "predict_layers\":1,"
                       "\"rms_norm_eps\":1e-6,\"max_position_embeddings\":256}\n",
                       128, 4, 0, 1, 8, true},
    [TESTMODEL_GLM] =
        {"tiny-glm",
         "{\"architectures\":[\"GlmMoeDsaForCausalLM\"],\"model_type\":\"glm_moe_"
         "dsa\"," COMMON NOAUX INDEXER "\"q_lora_rank\":128,\"n_group\":1,\"topk_group\":"
                                       "1,\"num_nextn_predict_layers\":1,"
         "\"rms_norm_eps\":1e-5,\"max_position_embeddings\":256,"
         "\"indexer_rope_interleave\":true,"
         "\"indexer_types\":[\"full\",\"full\",\"shared\",\"full\"],"
         "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1000000}}\n",
         128, 4, 2, 1, 8, true},
    [TESTMODEL_DENSE] =
        {"tiny-dense",
         "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"deepseek_"
         "v3\"," COMMON NOAUX
         "\"q_lora_rank\":null,\"n_group\":1,\"topk_group\":1,\"rms_norm_eps\":1e-5,"
         "\"rope_theta\":50000,\"max_position_embeddings\":256}\n",
         0, 0, 0, 0, 8, true},
    [TESTMODEL_SOFTMAX] =
        {"tiny-softmax",
         "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"model_type\":\"deepseek_"
         "v2\"," COMMON YARN "\"norm_topk_prob\":false,\"routed_scaling_factor\":16.0,"
         "\"scoring_func\":\"softmax\",\"topk_method\":\"group_limited_greedy\","
         "\"q_lora_rank\":128,\"n_group\":4,\"topk_group\":2,\"rms_norm_eps\":1e-6,"
         "\"max_position_embeddings\":256}\n",
         128, 0, 0, 0, 8, false},
};

const char *testmodel_name(enum testmodel_kind kind)
{
    return models[kind].name;
}

const char *testmodel_config(enum testmodel_kind kind)
{
    return models[kind].config;
}

/* Counts tensors and stops at the wanted one. */
struct cursor {
    uint32_t want, at;
    struct testmodel_tensor *out;
    char prefix[64];
};

static void add(struct cursor *c, const char *name, uint64_t rows, uint64_t cols)
{
    if (c->at++ != c->want || !c->out)
        return;
    struct testmodel_tensor *t = c->out;
    *t = (struct testmodel_tensor){.n_dims = cols ? 2 : 1,
                                   .shape = {rows, cols ? cols : 1}};
    snprintf(t->name, sizeof t->name, "%s%s", c->prefix, name);
    t->f32 = strstr(name, "k_norm.") || strstr(name, "e_score");
}

static void add_ffn(struct cursor *c, const char *where, uint64_t inter)
{
    static const char *const part[] = {"gate_proj", "up_proj", "down_proj"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "mlp.%s%s.weight", where, part[i]);
        add(c, name, i < 2 ? inter : DIM, i < 2 ? DIM : inter);
    }
}

static void add_attention(struct cursor *c, const struct sizes *m, uint32_t l)
{
    add(c, "input_layernorm.weight", DIM, 0);
    add(c, "post_attention_layernorm.weight", DIM, 0);
    if (m->q_lora) {
        add(c, "self_attn.q_a_proj.weight", m->q_lora, DIM);
        add(c, "self_attn.q_a_layernorm.weight", m->q_lora, 0);
        add(c, "self_attn.q_b_proj.weight", HEADS * (NOPE + ROPE), m->q_lora);
    } else {
        add(c, "self_attn.q_proj.weight", HEADS * (NOPE + ROPE), DIM);
    }
    add(c, "self_attn.kv_a_proj_with_mqa.weight", RANK + ROPE, DIM);
    add(c, "self_attn.kv_a_layernorm.weight", RANK, 0);
    add(c, "self_attn.kv_b_proj.weight", HEADS * (NOPE + V), RANK);
    add(c, "self_attn.o_proj.weight", DIM, HEADS * V);
    if (!m->index_heads || (m->shared_layer && l == m->shared_layer))
        return;
    add(c, "self_attn.indexer.wq_b.weight", m->index_heads * INDEX_DIM, m->q_lora);
    add(c, "self_attn.indexer.wk.weight", INDEX_DIM, DIM);
    add(c, "self_attn.indexer.k_norm.weight", INDEX_DIM, 0);
    add(c, "self_attn.indexer.k_norm.bias", INDEX_DIM, 0);
    add(c, "self_attn.indexer.weights_proj.weight", m->index_heads, DIM);
}

static void add_layer(struct cursor *c, const struct sizes *m, uint32_t l)
{
    snprintf(c->prefix, sizeof c->prefix, "model.layers.%u.", l);
    add_attention(c, m, l);
    if (l == 0) {
        add_ffn(c, "", INTER);
        return;
    }
    add(c, "mlp.gate.weight", m->n_experts, DIM);
    if (m->bias)
        add(c, "mlp.gate.e_score_correction_bias", m->n_experts, 0);
    for (uint32_t e = 0; e < m->n_experts; e++) {
        char where[32];
        snprintf(where, sizeof where, "experts.%u.", e);
        add_ffn(c, where, MOE_INTER);
    }
    add_ffn(c, "shared_experts.", MOE_INTER);
    if (l < LAYERS)
        return;
    add(c, "enorm.weight", DIM, 0);
    add(c, "hnorm.weight", DIM, 0);
    add(c, "eh_proj.weight", DIM, 2 * DIM);
    add(c, "shared_head.norm.weight", DIM, 0);
}

static uint32_t walk(enum testmodel_kind kind, uint32_t want,
                     struct testmodel_tensor *out)
{
    const struct sizes *m = &models[kind];
    struct cursor c = {.want = want, .out = out};
    add(&c, "model.embed_tokens.weight", VOCAB, DIM);
    add(&c, "model.norm.weight", DIM, 0);
    add(&c, "lm_head.weight", VOCAB, DIM);
    for (uint32_t l = 0; l < LAYERS + m->mtp; l++)
        add_layer(&c, m, l);
    return c.at;
}

uint32_t testmodel_n_tensors(enum testmodel_kind kind)
{
    return walk(kind, UINT32_MAX, NULL);
}

void testmodel_tensor(enum testmodel_kind kind, uint32_t i, struct testmodel_tensor *out)
{
    walk(kind, i, out);
}

static uint64_t fnv1a64(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return h;
}

static double uniform(uint64_t base, uint64_t i)
{
    uint64_t z = base + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-52 - 1.0;
}

void testmodel_fill(const struct testmodel_tensor *t, float *out)
{
    uint64_t base = fnv1a64(t->name), n = t->shape[0] * t->shape[1];
    double mul = 0.25, add_to = 1;
    float after = 1;
    if (t->n_dims == 2) {
        mul = sqrt(3.0 / (double)t->shape[1]);
        add_to = 0;
    } else if (strstr(t->name, "k_norm.bias")) {
        add_to = 0;
    } else if (strstr(t->name, "e_score_correction_bias")) {
        mul = 0.5;
        add_to = -0.5;
    }
    if (strcmp(t->name, "model.embed_tokens.weight") == 0)
        after = 16;
    for (uint64_t i = 0; i < n; i++) {
        float v = (float)(add_to + mul * uniform(base, i));
        out[i] = bf16_to_f32(f32_to_bf16(v)) * after;
    }
}
