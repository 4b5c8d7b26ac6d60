/*
 * hparams.h - the numbers of a model, in the words of its reference, validated. Loaders fill
 * this from config.json or GGUF keys; everything downstream trusts it.
 */
#ifndef ENGINE_HPARAMS_H
#define ENGINE_HPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { HPARAMS_LAYERS_MAX = 256, HPARAMS_EXPERTS_MAX = 1024, HPARAMS_GROUPS_MAX = 64 };
enum { HPARAMS_ENDS_MAX = 8 };

enum score_func { SCORE_SIGMOID, SCORE_SOFTMAX };
enum group_score { GROUP_TOP2_SUM, GROUP_MAX }; /* noaux_tc; group_limited_greedy */

struct hparams {
    char arch[32]; /* "deepseek2", "deepseek32" or "glm-dsa": GGUF's names for the families */
    char rule[64]; /* which family rule applied, for people: "DeepseekV32ForCausalLM", ... */

    char note[160]; /* what was assumed or left out, for people; empty = nothing */

    uint32_t n_vocab;      /* rows of the head */
    uint32_t dim;          /* hidden size */
    uint32_t n_layers;     /* main layers, without MTP */
    uint32_t n_mtp_layers; /* 0 or 1 that the file really holds */
    uint32_t n_ctx;        /* longest trained context */
    uint32_t n_heads;
    uint32_t q_lora_rank; /* 0 = a single q_proj, and no indexer */
    uint32_t kv_lora_rank;
    uint32_t qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
    float rms_eps;         /* RMSNorm */
    float latent_norm_eps; /* q_a and kv_a norms; rms_eps unless told otherwise */

    uint32_t n_dense_layers; /* leading; kept for printing, `moe` decides */
    bool moe[HPARAMS_LAYERS_MAX]; /* by layer, MTP layers included */
    uint32_t inter_dim, moe_inter_dim; /* the shared expert is n_shared_experts * moe_inter_dim */
    uint32_t n_routed_experts, n_shared_experts, n_activated_experts;
    uint32_t n_expert_groups, n_limited_groups; /* 1, 1 = no groups */
    enum score_func score_func;
    enum group_score group_score;
    bool norm_topk_prob;
    float route_scale;

    uint32_t index_n_heads, index_head_dim, index_topk; /* all 0 = dense attention */
    bool index_rope_pairs; /* GLM; DeepSeek's indexer rotates halves */
    bool index_full[HPARAMS_LAYERS_MAX]; /* runs its own indexer; false = shares the nearest
                                          * earlier full layer's selection */

    float rope_theta;
    bool yarn;
    float yarn_factor, yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    float yarn_mscale_all; /* mscale_all_dim, 0 when absent; attn_scale has it already */
    float rope_mul;   /* of cos and sin: g(mscale) / g(mscale_all_dim), mostly 1 */
    float attn_scale; /* (nope + rope)^-1/2, times g(mscale_all_dim)^2 under YaRN */

    int32_t bos, eos;         /* -1 = none */
    int32_t end[HPARAMS_ENDS_MAX]; /* every id that ends a text, eos first: GLM has three */
    uint32_t n_ends;
    float temperature, top_p; /* generation_config, else 1 and 1 */
};

/* -ERR_UNSUPPORTED or -ERR_PARSE with the field that decides; 0 when the engine can run it. */
NODISCARD int hparams_check(const struct hparams *hp, struct err *err);
/* rope_mul and attn_scale from the magnitudes of section "YaRN" (absent = NAN). */
void hparams_rope_scale(struct hparams *hp, double mscale, double mscale_all_dim);

#endif
