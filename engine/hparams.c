/*
 * hparams.c - what must hold between the numbers of a model, whatever file they came from.
 * A sentence names the field in the words of config.json.
 */
#include "engine/hparams.h"

#include <math.h>

#include "engine/hparams_read.h"

/* Yarn's magnitude: 0.1 m ln(s) + 1 for s > 1, else 1. */
static double magnitude(double factor, double m)
{
    return factor > 1 ? 0.1 * m * log(factor) + 1 : 1;
}

void hparams_rope_scale(struct hparams *hp, double mscale, double mscale_all_dim)
{
    double scale = 1 / sqrt((double)hp->qk_nope_head_dim + hp->qk_rope_head_dim), mul = 1;
    if (hp->yarn) {
        double s = (double)hp->yarn_factor;
        bool both = !isnan(mscale) && !isnan(mscale_all_dim) && mscale != 0 &&
                    mscale_all_dim != 0;
        mul = both ? magnitude(s, mscale) / magnitude(s, mscale_all_dim) : magnitude(s, 1);
        if (!isnan(mscale_all_dim) && mscale_all_dim != 0)
            scale *= magnitude(s, mscale_all_dim) * magnitude(s, mscale_all_dim);
    }
    hp->yarn_mscale_all = hp->yarn && !isnan(mscale_all_dim) ? (float)mscale_all_dim : 0;
    hp->rope_mul = (float)mul;
    hp->attn_scale = (float)scale;
}

void hparams_index_pattern(struct hparams *hp, uint32_t freq, uint32_t offset)
{
    for (uint32_t l = 0; l < HPARAMS_LAYERS_MAX; l++) {
        uint32_t past = l + 1 > offset ? l + 1 - offset : 0;
        hp->index_full[l] = l >= hp->n_layers || past % freq == 0;
    }
}

void hparams_add_end(struct hparams *hp, int64_t id)
{
    for (uint32_t i = 0; i < hp->n_ends; i++)
        if (hp->end[i] == id)
            return;
    if (id >= 0 && id <= INT32_MAX && hp->n_ends < HPARAMS_ENDS_MAX)
        hp->end[hp->n_ends++] = (int32_t)id;
}

struct range {
    const char *field;
    uint32_t value, lo, hi;
};

static int check_ranges(const struct range *r, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (r[i].value < r[i].lo || r[i].value > r[i].hi)
            return err_set(err, r[i].value < r[i].lo ? ERR_PARSE : ERR_LIMIT,
                           "%s is %u, outside %u to %u", r[i].field, r[i].value, r[i].lo,
                           r[i].hi);
    return 0;
}

static int check_sizes(const struct hparams *hp, struct err *err)
{
    const struct range r[] = {
        {"vocab_size", hp->n_vocab, 1, 1u << 22},
        {"hidden_size", hp->dim, 1, 1u << 17},
        {"num_hidden_layers", hp->n_layers, 1, HPARAMS_LAYERS_MAX - 1},
        {"max_position_embeddings", hp->n_ctx, 1, 1u << 27},
        {"num_attention_heads", hp->n_heads, 1, 4096},
        {"q_lora_rank", hp->q_lora_rank, 0, 1u << 16},
        {"kv_lora_rank", hp->kv_lora_rank, 1, 1u << 14},
        {"qk_nope_head_dim", hp->qk_nope_head_dim, 1, 4096},
        {"qk_rope_head_dim", hp->qk_rope_head_dim, 2, 1024},
        {"v_head_dim", hp->v_head_dim, 1, 4096},
        {"intermediate_size", hp->inter_dim, hp->n_dense_layers ? 1 : 0, 1u << 20},
    };
    int rc = check_ranges(r, ARRAY_LEN(r), err);
    if (rc == 0 && hp->qk_rope_head_dim % 2)
        rc = err_set(err, ERR_PARSE, "qk_rope_head_dim is %u; rotation needs pairs",
                     hp->qk_rope_head_dim);
    return rc;
}

static int check_router(const struct hparams *hp, struct err *err)
{
    bool any = false;
    for (uint32_t l = 0; l < hp->n_layers + hp->n_mtp_layers; l++)
        any |= hp->moe[l];
    if (!any)
        return 0;
    const struct range r[] = {
        {"n_routed_experts", hp->n_routed_experts, 1, 4096},
        {"num_experts_per_tok", hp->n_activated_experts, 1, 64},
        {"n_shared_experts", hp->n_shared_experts, 0, 64},
        {"moe_intermediate_size", hp->moe_inter_dim, 1, 1u << 18},
        {"n_group", hp->n_expert_groups, 1, 256},
        {"topk_group", hp->n_limited_groups, 1, hp->n_expert_groups},
    };
    int rc = check_ranges(r, ARRAY_LEN(r), err);
    if (rc < 0)
        return rc;
    uint32_t per = hp->n_routed_experts / hp->n_expert_groups;
    if (hp->n_routed_experts % hp->n_expert_groups)
        return err_set(err, ERR_PARSE, "n_group %u does not divide n_routed_experts %u",
                       hp->n_expert_groups, hp->n_routed_experts);
    if (hp->n_activated_experts > per * hp->n_limited_groups)
        return err_set(err, ERR_PARSE, "num_experts_per_tok is %u, but the %u groups kept hold "
                       "%u experts", hp->n_activated_experts, hp->n_limited_groups,
                       per * hp->n_limited_groups);
    if (hp->n_expert_groups > 1 && hp->group_score == GROUP_TOP2_SUM && per < 2)
        return err_set(err, ERR_PARSE, "n_group %u leaves one expert per group; topk_method "
                       "noaux_tc needs two", hp->n_expert_groups);
    return isfinite(hp->route_scale)
               ? 0
               : err_set(err, ERR_PARSE, "routed_scaling_factor is not finite");
}

static int check_indexer(const struct hparams *hp, struct err *err)
{
    if (!hp->index_n_heads && !hp->index_head_dim && !hp->index_topk)
        return 0;
    const struct range r[] = {
        {"index_n_heads", hp->index_n_heads, 1, 1024},
        {"index_head_dim", hp->index_head_dim, 2, 1024},
        {"index_topk", hp->index_topk, 1, 1u << 20},
        {"index_head_dim", hp->index_head_dim, hp->qk_rope_head_dim, 1024},
    };
    int rc = check_ranges(r, ARRAY_LEN(r), err);
    if (rc < 0)
        return rc;
    if (!hp->q_lora_rank)
        return err_set(err, ERR_UNSUPPORTED,
                       "q_lora_rank is null, but index_n_heads asks for an indexer, which "
                       "reads the query's latent");
    if (hp->index_head_dim & (hp->index_head_dim - 1))
        return err_set(err, ERR_UNSUPPORTED, "index_head_dim is %u, not a power of two",
                       hp->index_head_dim);
    if (!hp->index_full[0])
        return err_set(err, ERR_PARSE, "indexer_types[0] is 'shared', but there is no layer "
                       "before it");
    return 0;
}

static int check_numbers(const struct hparams *hp, struct err *err)
{
    if (!(hp->rms_eps > 0 && hp->rms_eps < 1) || !(hp->latent_norm_eps > 0))
        return err_set(err, ERR_PARSE, "rms_norm_eps is %g; it must lie between 0 and 1",
                       (double)hp->rms_eps);
    if (!(hp->rope_theta > 1 && isfinite(hp->rope_theta)))
        return err_set(err, ERR_PARSE, "rope_theta is %g; it must exceed 1",
                       (double)hp->rope_theta);
    if (hp->yarn && !(hp->yarn_factor >= 1 && hp->yarn_factor < 1e6f))
        return err_set(err, ERR_PARSE, "rope_scaling.factor is %g, outside 1 to 1e6",
                       (double)hp->yarn_factor);
    if (hp->yarn && !hp->yarn_orig_ctx)
        return err_set(err, ERR_PARSE,
                       "rope_scaling.original_max_position_embeddings is missing");
    if (hp->yarn && !(hp->yarn_beta_fast > 0 && hp->yarn_beta_slow > 0))
        return err_set(err, ERR_PARSE, "rope_scaling.beta_fast and beta_slow must be positive");
    if (!(hp->attn_scale > 0 && isfinite(hp->attn_scale) && isfinite(hp->rope_mul)))
        return err_set(err, ERR_PARSE, "rope_scaling.mscale_all_dim gives no finite scale");
    return 0;
}

int hparams_check(const struct hparams *hp, struct err *err)
{
    int rc = check_sizes(hp, err);
    if (rc == 0 && hp->n_mtp_layers > 1)
        rc = err_set(err, ERR_PARSE, "%u MTP layers; one at most is run", hp->n_mtp_layers);
    if (rc == 0)
        rc = check_router(hp, err);
    if (rc == 0)
        rc = check_indexer(hp, err);
    return rc == 0 ? check_numbers(hp, err) : rc;
}
