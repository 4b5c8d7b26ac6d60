/*
 * hparams_gguf.c - metadata keys of deepseek2, deepseek32 and glm-dsa files, including those
 * written before some keys existed.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/hparams_read.h"

/* A reader that remembers its failure, because most keys are read the same way. */
struct reader {
    const struct gguf *g;
    struct str arch;
    int rc;
    struct err *err;
};

static const char *full_key(const struct reader *r, const char *tail, char key[96])
{
    snprintf(key, 96, "%.*s.%s", STR_ARG(r->arch), tail);
    return key;
}

static bool has(const struct reader *r, const char *tail)
{
    char key[96];
    return gguf_find(r->g, full_key(r, tail, key)) != NULL;
}

static void take(struct reader *r, const char *tail, uint32_t *out)
{
    char key[96];
    int64_t v = *out;
    if (r->rc == 0)
        r->rc = gguf_int(r->g, full_key(r, tail, key), 0, INT32_MAX, &v, r->err);
    *out = (uint32_t)v;
}

static void need(struct reader *r, const char *tail, uint32_t *out)
{
    char key[96];
    if (r->rc == 0 && !has(r, tail))
        r->rc = err_set(r->err, ERR_PARSE, "metadata key '%s' is missing",
                        full_key(r, tail, key));
    take(r, tail, out);
}

static void take_num(struct reader *r, const char *tail, float *out)
{
    char key[96];
    double v = (double)*out;
    if (r->rc == 0)
        r->rc = gguf_num(r->g, full_key(r, tail, key), &v, r->err);
    *out = (float)v;
}

/* --- groups of keys ----------------------------------------------------------------------- */

static bool has_block(const struct gguf *g, uint32_t l, const char *tail)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%u.%s", l, tail);
    return tensors_find(gguf_tensors(g), name) != NULL;
}

/* block_count includes the MTP block where the file, or its architecture, has one. */
static void read_layers(struct reader *r, struct hparams *hp)
{
    uint32_t blocks = 0, mtp = 0;
    need(r, "block_count", &blocks);
    take(r, "nextn_predict_layers", &mtp);
    if (r->rc == 0 && (blocks == 0 || blocks > HPARAMS_LAYERS_MAX || mtp >= blocks))
        r->rc = err_set(r->err, ERR_LIMIT, "block_count %u with %u MTP blocks is outside 1 to "
                        "%d", blocks, mtp, HPARAMS_LAYERS_MAX);
    if (r->rc < 0)
        return;
    bool there = mtp && has_block(r->g, blocks - mtp, "nextn.eh_proj.weight");
    bool counted = there || !str_is(r->arch, "deepseek2");
    hp->n_layers = counted ? blocks - mtp : blocks;
    hp->n_mtp_layers = there;
    take(r, "leading_dense_block_count", &hp->n_dense_layers);
    if (!hp->n_routed_experts || hp->n_dense_layers > hp->n_layers)
        hp->n_dense_layers = hp->n_layers;
    for (uint32_t l = 0; l <= hp->n_layers && l < HPARAMS_LAYERS_MAX; l++)
        hp->moe[l] = hp->n_routed_experts && l >= hp->n_dense_layers;
}

static void read_sizes(struct reader *r, struct hparams *hp)
{
    uint32_t k = 0, v = 0;
    need(r, "context_length", &hp->n_ctx);
    need(r, "embedding_length", &hp->dim);
    need(r, "attention.head_count", &hp->n_heads);
    need(r, "attention.kv_lora_rank", &hp->kv_lora_rank);
    need(r, "rope.dimension_count", &hp->qk_rope_head_dim);
    take(r, "attention.q_lora_rank", &hp->q_lora_rank);
    take(r, "feed_forward_length", &hp->inter_dim);
    /* Files without the split of latent attention give the head's own widths. */
    need(r, has(r, "attention.key_length_mla") ? "attention.key_length_mla"
                                               : "attention.key_length", &k);
    need(r, has(r, "attention.value_length_mla") ? "attention.value_length_mla"
                                                 : "attention.value_length", &v);
    take_num(r, "attention.layer_norm_rms_epsilon", &hp->rms_eps);
    hp->latent_norm_eps = hp->rms_eps;
    if (r->rc == 0 && k <= hp->qk_rope_head_dim)
        r->rc = err_set(r->err, ERR_PARSE, "attention.key_length_mla is %u, not more than "
                        "rope.dimension_count %u", k, hp->qk_rope_head_dim);
    hp->qk_nope_head_dim = k - hp->qk_rope_head_dim;
    hp->v_head_dim = v;
    const struct tensor *embed = tensors_find(gguf_tensors(r->g), "token_embd.weight");
    hp->n_vocab = embed && embed->ne[1] < INT32_MAX ? (uint32_t)embed->ne[1] : 0;
    take(r, "vocab_size", &hp->n_vocab);
}

/* expert_gating_func: 1 softmax, 2 sigmoid. Absent: by architecture, and GLM-4.7-Flash is
 * known by its vocabulary. */
static void read_gating(struct reader *r, struct hparams *hp)
{
    uint32_t func = 0;
    take(r, "expert_gating_func", &func);
    if (func == 0)
        func = str_is(r->arch, "deepseek2") && hp->n_vocab != 154880 ? 1 : 2;
    if (r->rc == 0 && func > 2)
        r->rc = err_set(r->err, ERR_UNSUPPORTED, "expert_gating_func is %u; 1 (softmax) and 2 "
                        "(sigmoid) are computed", func);
    hp->score_func = func == 1 ? SCORE_SOFTMAX : SCORE_SIGMOID;
}

/* Files from before the group keys: DeepSeek-V3 and V2 are known by their sizes. */
static void read_groups(struct reader *r, struct hparams *hp)
{
    take(r, "expert_group_count", &hp->n_expert_groups);
    take(r, "expert_group_used_count", &hp->n_limited_groups);
    if (!hp->n_expert_groups) {
        bool v3 = hp->score_func == SCORE_SIGMOID && hp->n_routed_experts == 256 &&
                  hp->dim == 7168;
        bool v2 = hp->n_routed_experts == 160;
        hp->n_expert_groups = v3 || v2 ? 8 : 1;
        hp->n_limited_groups = v3 ? 4 : v2 ? 3 : 1;
        if (v3 || v2)
            snprintf(hp->note, sizeof hp->note, "no group keys: groups 8, kept %u, as in %s",
                     hp->n_limited_groups, v3 ? "DeepSeek-V3" : "DeepSeek-V2");
    }
    if (!hp->n_limited_groups)
        hp->n_limited_groups = hp->n_expert_groups;
    hp->group_score = hp->score_func == SCORE_SOFTMAX ? GROUP_MAX : GROUP_TOP2_SUM;
}

static void read_router(struct reader *r, struct hparams *hp)
{
    char key[96];
    take(r, "expert_count", &hp->n_routed_experts);
    if (!hp->n_routed_experts)
        return;
    need(r, "expert_used_count", &hp->n_activated_experts);
    need(r, "expert_feed_forward_length", &hp->moe_inter_dim);
    take(r, "expert_shared_count", &hp->n_shared_experts);
    take_num(r, "expert_weights_scale", &hp->route_scale);
    if (hp->route_scale == 0)
        hp->route_scale = 1;
    if (r->rc == 0)
        r->rc = gguf_bool(r->g, full_key(r, "expert_weights_norm", key), &hp->norm_topk_prob,
                          r->err);
    read_gating(r, hp);
    read_groups(r, hp);
}

static void read_index_types(struct reader *r, struct hparams *hp)
{
    char key[96];
    const struct gguf_kv *kv = gguf_find(r->g, full_key(r, "attention.indexer.types", key));
    bool glm52 = !kv && str_is(r->arch, "glm-dsa") && hp->n_ctx >= 1048576;
    hparams_index_pattern(hp, glm52 ? 4 : 1, glm52 ? 3 : 2);
    if (glm52)
        snprintf(hp->note, sizeof hp->note, "no indexer.types: the pattern of GLM-5.2");
    if (!kv || r->rc < 0)
        return;
    if (kv->n < hp->n_layers) {
        r->rc = err_set(r->err, ERR_PARSE, "'%s' has %llu entries for %u layers", key,
                        (unsigned long long)kv->n, hp->n_layers);
        return;
    }
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        int64_t full = 1;
        if (!gguf_int_at(kv, l, &full)) {
            r->rc = err_set(r->err, ERR_PARSE, "'%s' is not an array of booleans", key);
            return;
        }
        hp->index_full[l] = full != 0;
    }
}

/* Keys without tensors: dense attention, which is not the trained computation beyond topk. */
static void read_indexer(struct reader *r, struct hparams *hp)
{
    take(r, "attention.indexer.head_count", &hp->index_n_heads);
    if (!hp->index_n_heads)
        return;
    need(r, "attention.indexer.key_length", &hp->index_head_dim);
    need(r, "attention.indexer.top_k", &hp->index_topk);
    hp->index_rope_pairs = str_is(r->arch, "glm-dsa");
    read_index_types(r, hp);
    bool any = false;
    for (uint32_t l = 0; l < hp->n_layers; l++)
        any |= has_block(r->g, l, "indexer.attn_k.weight");
    if (any || r->rc < 0)
        return;
    snprintf(hp->note, sizeof hp->note, "the file holds no indexer tensors: dense attention, "
             "exact up to %u tokens only", hp->index_topk);
    hp->index_n_heads = hp->index_head_dim = hp->index_topk = 0;
}

static void read_rope(struct reader *r, struct hparams *hp)
{
    char key[96];
    struct str type = {0};
    take_num(r, "rope.freq_base", &hp->rope_theta);
    if (r->rc == 0)
        r->rc = gguf_str(r->g, full_key(r, "rope.scaling.type", key), &type, r->err);
    if (r->rc == 0 && type.n && !str_is(type, "yarn") && !str_is(type, "none"))
        r->rc = err_set(r->err, ERR_UNSUPPORTED, "'%s' is '%.*s'; yarn and none are computed",
                        key, (int)(type.n < 40 ? type.n : 40), type.p);
    hp->yarn = str_is(type, "yarn");
    float log_mul = NAN;
    if (hp->yarn) {
        take_num(r, "rope.scaling.factor", &hp->yarn_factor);
        take(r, "rope.scaling.original_context_length", &hp->yarn_orig_ctx);
        take_num(r, "rope.scaling.yarn_log_multiplier", &log_mul);
        take_num(r, "rope.scaling.yarn_beta_fast", &hp->yarn_beta_fast);
        take_num(r, "rope.scaling.yarn_beta_slow", &hp->yarn_beta_slow);
    }
    /* The key holds 0.1 * mscale_all_dim, and the format has no other magnitude. */
    double all = (double)log_mul * 10;
    hparams_rope_scale(hp, all, all);
    hp->rope_mul = 1;
}

/* End of turn, end of message: what else ends a text. */
static int read_ends(struct hparams *hp, const struct gguf *g, struct err *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        int64_t id = -1;
        int rc = gguf_int(g, keys[i], 0, INT32_MAX, &id, err);
        if (rc < 0)
            return rc;
        hparams_add_end(hp, id);
    }
    return 0;
}

static int find_arch(const struct gguf *g, struct str *arch, struct err *err)
{
    int rc = gguf_str(g, "general.architecture", arch, err);
    if (rc < 0)
        return rc;
    if (str_is(*arch, "deepseek2") || str_is(*arch, "deepseek32") || str_is(*arch, "glm-dsa"))
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "general.architecture is '%.*s'; this engine runs deepseek2, deepseek32 "
                   "and glm-dsa", (int)(arch->n < 60 ? arch->n : 60), arch->p);
}

int hparams_from_gguf(struct hparams *hp, const struct gguf *g, struct err *err)
{
    struct reader r = {.g = g, .err = err};
    int64_t bos = -1, eos = -1;
    *hp = (struct hparams){
        .rms_eps = 1e-6f, .rope_theta = 10000, .route_scale = 1, .yarn_factor = 1,
        .yarn_beta_fast = 32, .yarn_beta_slow = 1, .temperature = 1, .top_p = 1,
    };
    int rc = find_arch(g, &r.arch, err);
    if (rc < 0)
        return rc;
    read_sizes(&r, hp);
    read_router(&r, hp);
    read_layers(&r, hp);
    read_indexer(&r, hp);
    read_rope(&r, hp);
    rc = r.rc;
    if (rc == 0)
        rc = gguf_int(g, "tokenizer.ggml.bos_token_id", 0, INT32_MAX, &bos, err);
    if (rc == 0)
        rc = gguf_int(g, "tokenizer.ggml.eos_token_id", 0, INT32_MAX, &eos, err);
    double t = 1, p = 1;
    if (rc == 0)
        rc = gguf_num(g, "agentd.temperature", &t, err);
    if (rc == 0)
        rc = gguf_num(g, "agentd.top_p", &p, err);
    if (rc < 0)
        return rc;
    hp->temperature = (float)t;
    hp->top_p = (float)p;
    hp->bos = (int32_t)bos;
    hp->eos = (int32_t)eos;
    hparams_add_end(hp, eos);
    rc = read_ends(hp, g, err);
    if (rc < 0)
        return rc;
    snprintf(hp->arch, sizeof hp->arch, "%.*s", STR_ARG(r.arch));
    snprintf(hp->rule, sizeof hp->rule, "general.architecture %.*s", STR_ARG(r.arch));
    return hparams_check(hp, err);
}
