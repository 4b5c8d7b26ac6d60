/*
 * moe.c - the router, and the feed-forward half of a layer.
 *
 * The router chooses by biased scores and weighs by unbiased ones; groups that are not
 * kept count as minus infinity, not zero. All of it in f32.
 */
#include <math.h>

#include "engine/forward.h"
#include "engine/residency.h"

static void score_experts(const struct hparams *hp, const float *logits, float *s)
{
    uint32_t n = hp->n_routed_experts;
    if (hp->score_func == SCORE_SIGMOID) {
        for (uint32_t e = 0; e < n; e++) {
            float z = expf(-fabsf(logits[e])); /* stable for both signs */
            s[e] = logits[e] >= 0 ? 1 / (1 + z) : z / (1 + z);
        }
        return;
    }
    float max = -INFINITY, sum = 0;
    for (uint32_t e = 0; e < n; e++)
        max = fmaxf(max, logits[e]);
    for (uint32_t e = 0; e < n; e++)
        sum += s[e] = expf(logits[e] - max);
    for (uint32_t e = 0; e < n; e++)
        s[e] /= sum;
}

/* The score of experts first..first+n-1 as a group: their best, or their best two. */
static float score_group(const struct hparams *hp, const float *c, uint32_t n)
{
    float best = -INFINITY, second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (c[i] > best) {
            second = best;
            best = c[i];
        } else if (c[i] > second) {
            second = c[i];
        }
    }
    return hp->group_score == GROUP_MAX || n == 1 ? best : best + second;
}

/* Excludes all but the n_limited_groups best groups; ties to the lower group. */
static void limit_groups(const struct hparams *hp, float *c)
{
    uint32_t per = hp->n_routed_experts / hp->n_expert_groups;
    float score[HPARAMS_GROUPS_MAX];
    bool keep[HPARAMS_GROUPS_MAX];
    for (uint32_t g = 0; g < hp->n_expert_groups; g++) {
        score[g] = score_group(hp, c + g * per, per);
        keep[g] = false;
    }
    for (uint32_t i = 0; i < hp->n_limited_groups; i++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t g = 0; g < hp->n_expert_groups; g++)
            if (!keep[g] && (best == UINT32_MAX || score[g] > score[best]))
                best = g;
        keep[best] = true;
    }
    for (uint32_t e = 0; e < hp->n_routed_experts; e++)
        if (!keep[e / per])
            c[e] = -INFINITY;
}

void moe_route(const struct hparams *hp, const float *logits, const float *bias,
               uint32_t *pick, float *weight)
{
    float s[HPARAMS_EXPERTS_MAX], c[HPARAMS_EXPERTS_MAX];
    bool taken[HPARAMS_EXPERTS_MAX] = {false}; /* distinct even when every score is NaN */
    uint32_t n = hp->n_routed_experts, used = hp->n_activated_experts;
    score_experts(hp, logits, s);
    for (uint32_t e = 0; e < n; e++)
        c[e] = s[e] + (bias ? bias[e] : 0);
    if (hp->n_expert_groups > 1)
        limit_groups(hp, c);
    for (uint32_t i = 0; i < used; i++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < n; e++)
            if (!taken[e] && (best == UINT32_MAX || c[e] > c[best]))
                best = e;
        taken[best] = true;
        uint32_t at = i; /* keep the chosen ones ascending */
        for (; at > 0 && pick[at - 1] > best; at--)
            pick[at] = pick[at - 1];
        pick[at] = best;
    }
    float sum = 0;
    for (uint32_t i = 0; i < used; i++)
        sum += weight[i] = s[pick[i]];
    /* V2's code scales only where it does not normalise. */
    float scale =
        hp->norm_topk_prob && hp->score_func == SCORE_SOFTMAX ? 1 : hp->route_scale;
    for (uint32_t i = 0; i < used; i++)
        weight[i] = (hp->norm_topk_prob ? weight[i] / (sum + 1e-20f) : weight[i]) * scale;
}

struct route_job {
    struct forward *f;
    const float *bias;
};

static void route_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct route_job *j = arg;
    const struct hparams *hp = j->f->hp;
    for (uint64_t i = first; i < last; i++)
        moe_route(hp, j->f->router + i * hp->n_routed_experts, j->bias,
                  j->f->pick + i * hp->n_activated_experts,
                  j->f->weight + i * hp->n_activated_experts);
}

void moe_layer(struct forward *f, uint32_t layer)
{
    const struct hparams *hp = f->hp;
    const struct layer_weights *w = &f->w->layer[layer];
    size_t dim = hp->dim;
    struct kernel_moe m = {.all = &w->mlp};
    if (hp->moe[layer]) {
        kernel_matmul_exact(f->k, &w->router, f->a, dim, f->n_rows, f->router,
                            hp->n_routed_experts);
        struct route_job j = {f, f->vec[layer].router_bias};
        forward_rows(f, route_rows, &j);
        if (f->o.residency)
            residency_want(f->o.residency, w->experts, f->pick,
                           (size_t)f->n_rows * hp->n_activated_experts);
        m = (struct kernel_moe){.experts = w->experts,
                                .all = hp->n_shared_experts ? &w->shared : NULL,
                                .n_experts = hp->n_routed_experts,
                                .n_used = hp->n_activated_experts,
                                .pick = f->pick,
                                .weight = f->weight};
    }
    kernel_moe(f->k, &m, f->a, dim, f->n_rows, f->y, dim);
}
