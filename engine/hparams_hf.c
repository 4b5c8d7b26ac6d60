/*
 * hparams_hf.c - config.json of the DeepSeek family. What a config does not say is filled in
 * by the family's rule, a row of a table; a config of another architecture is refused with
 * the field that tells it apart, because it would load and answer nonsense.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/hparams_read.h"

static const struct family {
    const char *model_type;
    const char *arch; /* GGUF's name */
    enum score_func score;
    bool index_pairs; /* GLM's indexer, unless the config says otherwise */
} families[] = {
    {"deepseek_v2", "deepseek2", SCORE_SOFTMAX, false},
    {"deepseek_v3", "deepseek2", SCORE_SIGMOID, false},
    {"deepseek_v32", "deepseek32", SCORE_SIGMOID, false},
    {"kimi_k2", "deepseek2", SCORE_SIGMOID, false},
    {"glm4_moe_lite", "deepseek2", SCORE_SIGMOID, false},
    {"glm_moe_dsa", "glm-dsa", SCORE_SIGMOID, true},
};

/* Fields of attention, router and residual stream that this engine does not compute. */
static const struct {
    const char *field, *what;
} foreign[] = {
    {"compress_ratios", "compressed key-value rows (DeepSeek-V4)"},
    {"hc_mult", "hyper-connections (DeepSeek-V4, GLM-5.3-Flash)"},
    {"linear_attn_config", "linear attention layers (Kimi-Linear, Kimi-K3)"},
    {"index_kpool", "pooled index keys (GLM-5.3-Flash)"},
    {"gated_norm_rank", "gated norms (A.X-K2)"},
    {"gated_mla", "gated attention output (A.X-K2)"},
    {"sliding_window", "sliding-window attention"},
};

/* --- typed fields ---------------------------------------------------------------------- */

static int take_u32(const json_t *o, const char *key, uint32_t *out, struct err *err)
{
    int64_t v = *out;
    int rc = json_opt_int(o, key, 0, INT32_MAX, &v, err);
    *out = (uint32_t)v;
    return rc;
}

static int take_f32(const json_t *o, const char *key, float *out, struct err *err)
{
    double v = (double)*out;
    int rc = json_opt_num(o, key, &v, err);
    *out = (float)v;
    return rc;
}

static int need_u32(const json_t *o, const char *key, uint32_t *out, struct err *err)
{
    int64_t v = 0;
    int rc = json_need_int(o, key, 0, INT32_MAX, &v, err);
    *out = (uint32_t)v;
    return rc;
}

/* An id, or the first of a list of ids. */
static int take_id(const json_t *o, const char *key, int32_t *out, struct err *err)
{
    json_t *v = json_object_get(o, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    if (!v || json_is_null(v))
        return 0;
    json_int_t id = json_integer_value(v);
    if (!json_is_integer(v) || id < -1 || id > INT32_MAX)
        return err_set(err, ERR_PARSE, "field '%s' must be a token id", key);
    *out = (int32_t)id;
    return 0;
}

static bool given(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v) && !json_is_false(v);
}

/* --- which family ----------------------------------------------------------------------- */

static int refuse_foreign(const json_t *c, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        if (given(c, foreign[i].field))
            return err_set(err, ERR_UNSUPPORTED,
                           "config.json has '%s': %s, which this engine does not compute",
                           foreign[i].field, foreign[i].what);
    const json_t *rope = json_object_get(c, "qk_rope_head_dim");
    if (json_is_integer(rope) && json_integer_value(rope) == 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "config.json has qk_rope_head_dim 0: latent attention without rotary "
                       "part, which this engine does not compute");
    return 0;
}

static int find_family(const json_t *c, const struct family **out, struct err *err)
{
    struct str type = {0};
    int rc = json_need_str(c, "model_type", &type, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (str_is(type, families[i].model_type)) {
            *out = &families[i];
            return 0;
        }
    return err_set(err, ERR_UNSUPPORTED,
                   "model_type '%.*s' is not of this family; known are deepseek_v2, "
                   "deepseek_v3, deepseek_v32, kimi_k2, glm4_moe_lite and glm_moe_dsa",
                   (int)(type.n < 60 ? type.n : 60), type.p);
}

struct must {
    const char *field;
    const char *want; /* the only spelling that we compute, as JSON text */
    bool ok;
};

/* Fields whose other values would change the computation. */
static int refuse_variants(const json_t *c, struct err *err)
{
    const json_t *freq = json_object_get(c, "moe_layer_freq");
    const json_t *act = json_object_get(c, "hidden_act");
    const json_t *pairs = json_object_get(c, "rope_interleave");
    const json_t *part = json_object_get(c, "partial_rotary_factor");
    const struct must m[] = {
        {"moe_layer_freq", "1", !freq || !json_is_integer(freq) || json_integer_value(freq) == 1},
        {"hidden_act", "\"silu\"", !act || str_is(json_view(act), "silu")},
        {"attention_bias", "false", !given(c, "attention_bias")},
        {"rope_interleave", "true", !json_is_false(pairs)},
        {"partial_rotary_factor", "1.0", !json_is_number(part) || json_number_value(part) == 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(m); i++)
        if (!m[i].ok)
            return err_set(err, ERR_UNSUPPORTED, "%s must be %s; this engine computes nothing "
                           "else", m[i].field, m[i].want);
    const json_t *q = json_object_get(c, "quantization_config");
    struct str method = json_view(json_object_get(q, "quant_method"));
    if (q && json_is_object(q) && !str_is(method, "fp8"))
        return err_set(err, ERR_UNSUPPORTED, "quantization_config.quant_method is '%.*s'; fp8 "
                       "with 128x128 blocks is read, other files have to be converted first",
                       (int)(method.n < 40 ? method.n : 40), method.p);
    const json_t *block = json_object_get(q, "weight_block_size");
    if (json_is_array(block) && (json_integer_value(json_array_get(block, 0)) != 128 ||
                                 json_integer_value(json_array_get(block, 1)) != 128))
        return err_set(err, ERR_UNSUPPORTED,
                       "quantization_config.weight_block_size must be [128, 128]");
    return 0;
}

/* --- groups of fields ------------------------------------------------------------------- */

static int read_sizes(struct hparams *hp, const json_t *c, struct err *err)
{
    const struct {
        const char *key;
        uint32_t *to;
    } need[] = {
        {"vocab_size", &hp->n_vocab},
        {"hidden_size", &hp->dim},
        {"num_hidden_layers", &hp->n_layers},
        {"num_attention_heads", &hp->n_heads},
        {"kv_lora_rank", &hp->kv_lora_rank},
        {"qk_nope_head_dim", &hp->qk_nope_head_dim},
        {"qk_rope_head_dim", &hp->qk_rope_head_dim},
        {"v_head_dim", &hp->v_head_dim},
        {"intermediate_size", &hp->inter_dim},
        {"max_position_embeddings", &hp->n_ctx},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(need); i++)
        rc = need_u32(c, need[i].key, need[i].to, err);
    if (rc == 0)
        rc = take_u32(c, "q_lora_rank", &hp->q_lora_rank, err);
    if (rc == 0)
        rc = take_u32(c, "num_nextn_predict_layers", &hp->n_mtp_layers, err);
    if (rc == 0)
        rc = take_f32(c, "rms_norm_eps", &hp->rms_eps, err);
    hp->n_mtp_layers = hp->n_mtp_layers ? 1 : 0;
    hp->latent_norm_eps = hp->rms_eps;
    if (rc == 0 && hp->n_layers >= HPARAMS_LAYERS_MAX)
        rc = err_set(err, ERR_LIMIT, "num_hidden_layers is %u; the cap is %d", hp->n_layers,
                     HPARAMS_LAYERS_MAX - 1);
    return rc;
}

/* mlp_layer_types overrides first_k_dense_replace; the MTP layer has experts if any has. */
static int read_layers(struct hparams *hp, json_t *c, struct err *err)
{
    json_t *types = NULL;
    int rc = take_u32(c, "first_k_dense_replace", &hp->n_dense_layers, err);
    if (rc == 0)
        rc = json_opt_arr(c, "mlp_layer_types", &types, err);
    if (rc < 0)
        return rc;
    if (!hp->n_routed_experts || hp->n_dense_layers > hp->n_layers)
        hp->n_dense_layers = hp->n_layers;
    for (uint32_t l = 0; l <= hp->n_layers; l++)
        hp->moe[l] = hp->n_routed_experts && l >= hp->n_dense_layers;
    if (!types)
        return 0;
    if (json_array_size(types) < hp->n_layers)
        return err_set(err, ERR_PARSE, "mlp_layer_types has %zu entries for %u layers",
                       json_array_size(types), hp->n_layers);
    hp->n_dense_layers = 0;
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        struct str t = json_view(json_array_get(types, l));
        if (!str_is(t, "dense") && !str_is(t, "sparse"))
            return err_set(err, ERR_PARSE, "mlp_layer_types[%u] is neither dense nor sparse", l);
        hp->moe[l] = str_is(t, "sparse");
        if (!hp->moe[l] && hp->n_dense_layers == l)
            hp->n_dense_layers = l + 1;
    }
    return 0;
}

static int read_router(struct hparams *hp, const json_t *c, const struct family *f,
                       struct err *err)
{
    struct str score = {0}, method = {0};
    hp->score_func = f->score;
    int rc = take_u32(c, "n_routed_experts", &hp->n_routed_experts, err);
    if (rc < 0 || !hp->n_routed_experts)
        return rc;
    rc = need_u32(c, "num_experts_per_tok", &hp->n_activated_experts, err);
    if (rc == 0)
        rc = need_u32(c, "moe_intermediate_size", &hp->moe_inter_dim, err);
    if (rc == 0)
        rc = take_u32(c, "n_shared_experts", &hp->n_shared_experts, err);
    if (rc == 0)
        rc = take_u32(c, "n_group", &hp->n_expert_groups, err);
    if (rc == 0)
        rc = take_u32(c, "topk_group", &hp->n_limited_groups, err);
    if (rc == 0)
        rc = json_opt_bool(c, "norm_topk_prob", &hp->norm_topk_prob, err);
    if (rc == 0)
        rc = take_f32(c, "routed_scaling_factor", &hp->route_scale, err);
    if (rc == 0)
        rc = json_opt_str(c, "scoring_func", &score, err);
    if (rc == 0)
        rc = json_opt_str(c, "topk_method", &method, err);
    if (rc < 0)
        return rc;
    if (score.n && !str_is(score, "sigmoid") && !str_is(score, "softmax"))
        return err_set(err, ERR_UNSUPPORTED, "scoring_func must be sigmoid or softmax, not "
                       "'%.*s'", (int)(score.n < 40 ? score.n : 40), score.p);
    if (score.n)
        hp->score_func = str_is(score, "softmax") ? SCORE_SOFTMAX : SCORE_SIGMOID;
    if (method.n && !str_is(method, "noaux_tc") && !str_is(method, "greedy") &&
        !str_is(method, "group_limited_greedy"))
        return err_set(err, ERR_UNSUPPORTED, "topk_method '%.*s' is unknown",
                       (int)(method.n < 40 ? method.n : 40), method.p);
    bool max = method.n ? str_is(method, "group_limited_greedy")
                        : hp->score_func == SCORE_SOFTMAX;
    hp->group_score = max ? GROUP_MAX : GROUP_TOP2_SUM;
    if (str_is(method, "greedy") || !hp->n_expert_groups)
        hp->n_expert_groups = hp->n_limited_groups = 1;
    if (!hp->n_limited_groups)
        hp->n_limited_groups = hp->n_expert_groups;
    if (strcmp(f->model_type, "deepseek_v2") == 0 && hp->norm_topk_prob)
        hp->route_scale = 1; /* that code scales only what it does not normalise */
    return 0;
}

static int read_index_types(struct hparams *hp, const json_t *types, struct err *err)
{
    if (json_array_size(types) < hp->n_layers)
        return err_set(err, ERR_PARSE, "indexer_types has %zu entries for %u layers",
                       json_array_size(types), hp->n_layers);
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        struct str t = json_view(json_array_get(types, l));
        if (!str_is(t, "full") && !str_is(t, "shared"))
            return err_set(err, ERR_PARSE, "indexer_types[%u] is neither full nor shared", l);
        hp->index_full[l] = str_is(t, "full");
    }
    return 0;
}

static int read_indexer(struct hparams *hp, json_t *c, const struct family *f, struct err *err)
{
    json_t *types = NULL;
    struct str pattern = {0};
    uint32_t freq = 1, offset = 2;
    hp->index_rope_pairs = f->index_pairs;
    int rc = take_u32(c, "index_n_heads", &hp->index_n_heads, err);
    if (rc < 0 || !hp->index_n_heads)
        return rc;
    rc = need_u32(c, "index_head_dim", &hp->index_head_dim, err);
    if (rc == 0)
        rc = need_u32(c, "index_topk", &hp->index_topk, err);
    if (rc == 0)
        rc = json_opt_bool(c, "indexer_rope_interleave", &hp->index_rope_pairs, err);
    if (rc == 0)
        rc = json_opt_arr(c, "indexer_types", &types, err);
    if (rc == 0 && !json_is_array(json_object_get(c, "index_topk_pattern")))
        rc = json_opt_str(c, "index_topk_pattern", &pattern, err);
    if (rc == 0)
        rc = take_u32(c, "index_topk_freq", &freq, err);
    if (rc == 0)
        rc = take_u32(c, "index_skip_topk_offset", &offset, err);
    if (rc < 0)
        return rc;
    hparams_index_pattern(hp, freq ? freq : 1, offset);
    if (types)
        return read_index_types(hp, types, err);
    for (uint32_t l = 0; l < hp->n_layers && l < pattern.n; l++)
        hp->index_full[l] = pattern.p[l] == 'F';
    if (pattern.n && pattern.n < hp->n_layers)
        return err_set(err, ERR_PARSE, "index_topk_pattern has %zu letters for %u layers",
                       pattern.n, hp->n_layers);
    return 0;
}

static int read_rope(struct hparams *hp, json_t *c, struct err *err)
{
    json_t *scaling = NULL, *params = NULL;
    struct str type = {0};
    double mscale = NAN, all = NAN;
    int rc = take_f32(c, "rope_theta", &hp->rope_theta, err);
    if (rc == 0)
        rc = json_opt_obj(c, "rope_scaling", &scaling, err);
    if (rc == 0)
        rc = json_opt_obj(c, "rope_parameters", &params, err);
    const json_t *o = params ? params : scaling;
    if (rc == 0 && o)
        rc = take_f32(o, "rope_theta", &hp->rope_theta, err);
    if (rc == 0 && o)
        rc = json_opt_str(o, "type", &type, err);
    if (rc == 0 && o)
        rc = json_opt_str(o, "rope_type", &type, err);
    if (rc < 0)
        return rc;
    if (type.n && !str_is(type, "yarn") && !str_is(type, "default"))
        return err_set(err, ERR_UNSUPPORTED, "rope_scaling.type must be yarn or default, not "
                       "'%.*s'", (int)(type.n < 40 ? type.n : 40), type.p);
    hp->yarn = str_is(type, "yarn");
    if (hp->yarn) {
        rc = take_f32(o, "factor", &hp->yarn_factor, err);
        if (rc == 0)
            rc = take_f32(o, "beta_fast", &hp->yarn_beta_fast, err);
        if (rc == 0)
            rc = take_f32(o, "beta_slow", &hp->yarn_beta_slow, err);
        if (rc == 0)
            rc = take_u32(o, "original_max_position_embeddings", &hp->yarn_orig_ctx, err);
        if (rc == 0)
            rc = json_opt_num(o, "mscale", &mscale, err);
        if (rc == 0)
            rc = json_opt_num(o, "mscale_all_dim", &all, err);
    }
    hparams_rope_scale(hp, mscale, all);
    return rc;
}

/* eos_token_id is one id or a list of them. */
static int take_ends(struct hparams *hp, const json_t *o, struct err *err)
{
    const json_t *v = json_object_get(o, "eos_token_id");
    if (json_is_integer(v))
        hparams_add_end(hp, json_integer_value(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id))
            return err_set(err, ERR_PARSE, "eos_token_id[%zu] is not a token id", i);
        hparams_add_end(hp, json_integer_value(id));
    }
    return 0;
}

static int read_generation(struct hparams *hp, const json_t *c, json_t *g, struct err *err)
{
    int rc = take_id(c, "bos_token_id", &hp->bos, err);
    if (rc == 0)
        rc = take_id(c, "eos_token_id", &hp->eos, err);
    if (rc == 0)
        rc = take_ends(hp, c, err);
    if (rc == 0 && g)
        rc = take_ends(hp, g, err);
    if (rc == 0 && g)
        rc = take_f32(g, "temperature", &hp->temperature, err);
    if (rc == 0 && g)
        rc = take_f32(g, "top_p", &hp->top_p, err);
    return rc;
}

/* --- the whole --------------------------------------------------------------------------- */

int hparams_from_config(struct hparams *hp, bool *tied, json_t *config, json_t *generation,
                        struct err *err)
{
    const struct family *f = NULL;
    json_t *c = config, *text = NULL;
    int rc = json_opt_obj(config, "text_config", &text, err);
    if (rc == 0 && text)
        c = text; /* a wrapper with eyes: the language model is inside */
    *hp = (struct hparams){
        .rms_eps = 1e-6f, .rope_theta = 10000, .route_scale = 1, .bos = -1, .eos = -1,
        .yarn_factor = 1, .yarn_beta_fast = 32, .yarn_beta_slow = 1, .temperature = 1,
        .top_p = 1,
    };
    if (rc == 0)
        rc = refuse_foreign(c, err);
    if (rc == 0)
        rc = find_family(c, &f, err);
    if (rc == 0)
        rc = refuse_variants(c, err);
    if (rc == 0)
        rc = read_sizes(hp, c, err);
    if (rc == 0)
        rc = read_router(hp, c, f, err);
    if (rc == 0)
        rc = read_layers(hp, c, err);
    if (rc == 0)
        rc = read_indexer(hp, c, f, err);
    if (rc == 0)
        rc = read_rope(hp, c, err);
    if (rc == 0)
        rc = read_generation(hp, c, generation, err);
    *tied = false;
    if (rc == 0)
        rc = json_opt_bool(c, "tie_word_embeddings", tied, err);
    if (rc < 0)
        return rc;
    snprintf(hp->arch, sizeof hp->arch, "%s", f->arch);
    snprintf(hp->rule, sizeof hp->rule, "model_type %s", f->model_type);
    return hparams_check(hp, err);
}
