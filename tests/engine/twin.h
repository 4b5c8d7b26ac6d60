/*
 * twin.h - the forward pass once more: in double precision, one token at a time, straight
 * from the formulas, sharing no code with the engine. It can be told to make one of the
 * classic mistakes, so that tests can show what each would look like.
 */
#ifndef TESTS_ENGINE_TWIN_H
#define TESTS_ENGINE_TWIN_H

#include <math.h>
#include <stdlib.h>

#include "engine/weights.h"
#include "test.h"

enum twin_fault {
    TWIN_RIGHT,
    TWIN_INDEX_PAIRS,
    TWIN_INDEX_ROPE_LAST,
    TWIN_INDEX_NO_RELU,
    TWIN_INDEX_RMSNORM,
    TWIN_INDEX_NO_BIAS,
    TWIN_INDEX_NO_WEIGHTS,
    TWIN_DENSE,
    TWIN_RECENT,
    TWIN_MLA_HALVES,
    TWIN_NO_YARN,
    TWIN_NO_MSCALE,
    TWIN_NO_KV_NORM,
    TWIN_GROUPS_ZERO,
    TWIN_NO_GROUPS,
    TWIN_GROUP_MAX,
    TWIN_BIASED_WEIGHT,
    TWIN_NO_NORM,
    TWIN_NO_SHARED,
    TWIN_FAULTS,
};

enum { TWIN_N = 96, TWIN_W = 512 }; /* most tokens; widest vector */

struct twin {
    const struct weights *w;
    const struct hparams *hp;
    enum twin_fault fault;
    double x[TWIN_N][TWIN_W]; /* residual stream */
    /* One layer's cache. */
    double c[TWIN_N][TWIN_W], kp[TWIN_N][TWIN_W], ik[TWIN_N][TWIN_W];
    int set[TWIN_N][TWIN_N], n_set[TWIN_N];
};

/* Every layer's sets, when somebody wants them. */
struct twin_sets {
    int set[8][TWIN_N][TWIN_N], n_set[8][TWIN_N];
};

static const float *twin_row(const struct tensor *t, uint64_t r)
{
    return (const float *)t->data + r * t->ne[0];
}

static void twin_mat(const struct tensor *t, const double *x, double *y)
{
    for (uint64_t r = 0; r < t->ne[1]; r++) {
        double s = 0;
        for (uint64_t i = 0; i < t->ne[0]; i++)
            s += (double)twin_row(t, r)[i] * x[i];
        y[r] = s;
    }
}

static void twin_rms(const double *x, const struct tensor *w, double *y, int n,
                     double eps)
{
    double s = 0;
    for (int i = 0; i < n; i++)
        s += x[i] * x[i];
    for (int i = 0; i < n; i++)
        y[i] = x[i] / sqrt(s / n + eps) * (double)twin_row(w, 0)[i];
}

static void twin_index_norm(const struct twin *t, const struct layer_weights *l,
                            double *x)
{
    int n = (int)t->hp->index_head_dim;
    double mean = 0, var = 0;
    if (t->fault == TWIN_INDEX_RMSNORM) {
        twin_rms(x, &l->index_k_norm, x, n, 1e-6);
        return;
    }
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean) / n;
    for (int i = 0; i < n; i++) {
        x[i] =
            (x[i] - mean) / sqrt(var + 1e-6) * (double)twin_row(&l->index_k_norm, 0)[i];
        if (t->fault != TWIN_INDEX_NO_BIAS)
            x[i] += (double)twin_row(&l->index_k_norm_bias, 0)[i];
    }
}

static double twin_freq(const struct twin *t, int i)
{
    const struct hparams *hp = t->hp;
    double d = hp->qk_rope_head_dim, b = (double)hp->rope_theta, f = pow(b, -2.0 * i / d);
    if (!hp->yarn || t->fault == TWIN_NO_YARN)
        return f;
    double lo =
        floor(d * log(hp->yarn_orig_ctx / (2 * M_PI * (double)hp->yarn_beta_fast)) /
              (2 * log(b)));
    double hi =
        ceil(d * log(hp->yarn_orig_ctx / (2 * M_PI * (double)hp->yarn_beta_slow)) /
             (2 * log(b)));
    lo = lo > 0 ? lo : 0;
    hi = hi < d - 1 ? hi : d - 1;
    if (lo == hi)
        hi += 0.001;
    double r = (i - lo) / (hi - lo);
    r = r < 0 ? 0 : r > 1 ? 1 : r;
    return f / (double)hp->yarn_factor * r + f * (1 - r);
}

static void twin_rope(const struct twin *t, double *x, int pos, int halves)
{
    int n = (int)t->hp->qk_rope_head_dim / 2;
    for (int i = 0; i < n; i++) {
        double a = pos * twin_freq(t, i), c = cos(a), s = sin(a);
        double *p = halves ? &x[i] : &x[2 * i], *q = halves ? &x[i + n] : &x[2 * i + 1];
        double u = *p, v = *q;
        *p = u * c - v * s;
        *q = v * c + u * s;
    }
}

static void twin_index_rope(const struct twin *t, double *x, int pos)
{
    int pairs = t->hp->index_rope_pairs || t->fault == TWIN_INDEX_PAIRS;
    if (t->fault == TWIN_INDEX_ROPE_LAST)
        x += t->hp->index_head_dim - t->hp->qk_rope_head_dim;
    twin_rope(t, x, pos, !pairs);
}

/* The set of query t: all, or the best by score with ties to the lower position. */
static void twin_select(struct twin *w, const struct layer_weights *l, const double *a,
                        const double *qr, int t)
{
    const struct hparams *hp = w->hp;
    int k = (int)hp->index_topk, di = (int)hp->index_head_dim, n = t + 1;
    double iq[TWIN_W], iw[64], score[TWIN_N];
    twin_mat(&l->index_q_b, qr, iq);
    twin_mat(&l->index_proj, a, iw);
    for (uint32_t j = 0; j < hp->index_n_heads; j++)
        twin_index_rope(w, iq + j * di, t);
    for (int s = 0; s < n; s++) {
        score[s] = 0;
        for (uint32_t j = 0; j < hp->index_n_heads; j++) {
            double d = 0;
            for (int i = 0; i < di; i++)
                d += iq[j * di + i] * w->ik[s][i];
            if (d < 0 && w->fault != TWIN_INDEX_NO_RELU)
                d = 0;
            score[s] += d * (w->fault == TWIN_INDEX_NO_WEIGHTS ? 1 : iw[j]);
        }
    }
    w->n_set[t] = 0;
    for (int s = 0; s < n; s++) {
        int better = 0;
        for (int o = 0; o < n; o++)
            better += score[o] > score[s] || (score[o] == score[s] && o < s);
        if (w->fault == TWIN_DENSE || (w->fault == TWIN_RECENT ? s >= n - k : better < k))
            w->set[t][w->n_set[t]++] = s;
    }
}

static void twin_attend(struct twin *w, const struct layer_weights *l, const double *q,
                        int t, double *out)
{
    const struct hparams *hp = w->hp;
    int nope = (int)hp->qk_nope_head_dim, rope = (int)hp->qk_rope_head_dim;
    int v = (int)hp->v_head_dim, rank = (int)hp->kv_lora_rank;
    double scale = (double)hp->attn_scale;
    if (w->fault == TWIN_NO_MSCALE)
        scale = pow(nope + rope, -0.5);
    for (uint32_t h = 0; h < hp->n_heads; h++) {
        double z[TWIN_N], mix[TWIN_W] = {0}, max = -1e300, sum = 0,
                          absorbed[TWIN_W] = {0};
        const double *qh = q + h * (nope + rope);
        for (int d = 0; d < nope; d++)
            for (int c = 0; c < rank; c++)
                absorbed[c] += (double)twin_row(&l->kv_b, h * (nope + v) + d)[c] * qh[d];
        for (int i = 0; i < w->n_set[t]; i++) {
            int s = w->set[t][i];
            z[i] = 0;
            for (int c = 0; c < rank; c++)
                z[i] += absorbed[c] * w->c[s][c];
            for (int c = 0; c < rope; c++)
                z[i] += qh[nope + c] * w->kp[s][c];
            z[i] *= scale;
            max = z[i] > max ? z[i] : max;
        }
        for (int i = 0; i < w->n_set[t]; i++)
            sum += z[i] = exp(z[i] - max);
        for (int i = 0; i < w->n_set[t]; i++)
            for (int c = 0; c < rank; c++)
                mix[c] += z[i] / sum * w->c[w->set[t][i]][c];
        for (int d = 0; d < v; d++) {
            out[h * v + d] = 0;
            for (int c = 0; c < rank; c++)
                out[h * v + d] +=
                    (double)twin_row(&l->kv_b, h * (nope + v) + nope + d)[c] * mix[c];
        }
    }
}

static void twin_attention(struct twin *w, uint32_t layer, int t, const double *a,
                           double *y)
{
    const struct hparams *hp = w->hp;
    const struct layer_weights *l = &w->w->layer[layer];
    int nope = (int)hp->qk_nope_head_dim, rope = (int)hp->qk_rope_head_dim;
    int rank = (int)hp->kv_lora_rank;
    double qr[TWIN_W], q[TWIN_W], kv[TWIN_W], o[TWIN_W];
    if (hp->q_lora_rank) {
        twin_mat(&l->q_a, a, qr);
        twin_rms(qr, &l->q_a_norm, qr, (int)hp->q_lora_rank, (double)hp->rms_eps);
        twin_mat(&l->q_b, qr, q);
    } else {
        twin_mat(&l->q, a, q);
    }
    for (uint32_t h = 0; h < hp->n_heads; h++)
        twin_rope(w, q + h * (nope + rope) + nope, t, w->fault == TWIN_MLA_HALVES);
    twin_mat(&l->kv_a, a, kv);
    if (w->fault == TWIN_NO_KV_NORM)
        memcpy(w->c[t], kv, sizeof w->c[t]);
    else
        twin_rms(kv, &l->kv_a_norm, w->c[t], rank, (double)hp->rms_eps);
    memcpy(w->kp[t], kv + rank, rope * sizeof *kv);
    twin_rope(w, w->kp[t], t, w->fault == TWIN_MLA_HALVES);
    if (!hp->index_topk) {
        w->n_set[t] = t + 1;
        w->set[t][t] = t;
        for (int s = 0; s < t; s++)
            w->set[t][s] = s;
    } else if (hp->index_full[layer]) {
        twin_mat(&l->index_k, a, w->ik[t]);
        twin_index_norm(w, l, w->ik[t]);
        twin_index_rope(w, w->ik[t], t);
        twin_select(w, l, a, qr, t);
    }
    twin_attend(w, l, q, t, o);
    twin_mat(&l->o, o, y);
}

static void twin_ffn(const struct ffn_weights *f, const double *x, double *y)
{
    double g[TWIN_W], u[TWIN_W];
    twin_mat(&f->gate, x, g);
    twin_mat(&f->up, x, u);
    for (uint64_t i = 0; i < f->gate.ne[1]; i++)
        g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    twin_mat(&f->down, g, y);
}

static void twin_groups(const struct twin *w, double *c)
{
    const struct hparams *hp = w->hp;
    int n = (int)hp->n_expert_groups,
        per = (int)(hp->n_routed_experts / hp->n_expert_groups);
    double gs[64];
    int max_rule = hp->group_score == GROUP_MAX || w->fault == TWIN_GROUP_MAX;
    for (int g = 0; g < n; g++) {
        double b1 = -1e300, b2 = -1e300;
        for (int i = 0; i < per; i++) {
            double v = c[g * per + i];
            b2 = v > b1 ? b1 : v > b2 ? v : b2;
            b1 = v > b1 ? v : b1;
        }
        gs[g] = max_rule ? b1 : b1 + b2;
    }
    for (int g = 0; g < n; g++) {
        int better = 0;
        for (int o = 0; o < n; o++)
            better += gs[o] > gs[g] || (gs[o] == gs[g] && o < g);
        for (int i = 0; better >= (int)hp->n_limited_groups && i < per; i++)
            c[g * per + i] = w->fault == TWIN_GROUPS_ZERO ? 0 : -1e300;
    }
}

static void twin_moe(const struct twin *w, uint32_t layer, const double *x, double *y)
{
    const struct hparams *hp = w->hp;
    const struct layer_weights *l = &w->w->layer[layer];
    int n = (int)hp->n_routed_experts, sel[16];
    double s[64], c[64], sum = 0, wt[16], max = -1e300;
    twin_mat(&l->router, x, s);
    for (int e = 0; e < n; e++)
        max = s[e] > max ? s[e] : max;
    for (int e = 0; e < n; e++)
        sum += exp(s[e] - max);
    for (int e = 0; e < n; e++) {
        s[e] = hp->score_func == SCORE_SIGMOID ? 1 / (1 + exp(-s[e]))
                                               : exp(s[e] - max) / sum;
        c[e] = s[e] + (l->router_bias.data ? (double)twin_row(&l->router_bias, 0)[e] : 0);
    }
    if (hp->n_expert_groups > 1 && w->fault != TWIN_NO_GROUPS)
        twin_groups(w, c);
    sum = 0;
    for (uint32_t i = 0; i < hp->n_activated_experts; i++) {
        sel[i] = 0;
        for (int e = 1; e < n; e++)
            if (c[e] > c[sel[i]])
                sel[i] = e;
        wt[i] = w->fault == TWIN_BIASED_WEIGHT ? c[sel[i]] : s[sel[i]];
        sum += wt[i];
        c[sel[i]] = -2e300;
    }
    memset(y, 0, hp->dim * sizeof *y);
    for (uint32_t i = 0; i < hp->n_activated_experts; i++) {
        double out[TWIN_W], g = wt[i] * (double)hp->route_scale;
        if (hp->norm_topk_prob && w->fault != TWIN_NO_NORM)
            g /= sum;
        twin_ffn(&l->experts[sel[i]], x, out);
        for (uint32_t d = 0; d < hp->dim; d++)
            y[d] += g * out[d];
    }
    if (w->fault == TWIN_NO_SHARED)
        return;
    double out[TWIN_W];
    twin_ffn(&l->shared, x, out);
    for (uint32_t d = 0; d < hp->dim; d++)
        y[d] += out[d];
}

/* Runs n tokens; logits of position `at` go to out[0], of the last to out[1]. */
static void twin_run_sets(const struct weights *weights, const int32_t *tok, int n,
                          enum twin_fault fault, int at, double out[2][TWIN_W],
                          struct twin_sets *sets)
{
    struct twin *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->w = weights;
    w->hp = &weights->hp;
    w->fault = fault;
    uint32_t dim = w->hp->dim;
    double a[TWIN_W], y[TWIN_W];
    for (int t = 0; t < n; t++)
        for (uint32_t d = 0; d < dim; d++)
            w->x[t][d] = (double)twin_row(&weights->embed, (uint64_t)tok[t])[d];
    for (uint32_t l = 0; l < w->hp->n_layers; l++) {
        const struct layer_weights *lw = &weights->layer[l];
        for (int t = 0; t < n; t++) {
            twin_rms(w->x[t], &lw->attn_norm, a, (int)dim, (double)w->hp->rms_eps);
            twin_attention(w, l, t, a, y);
            for (uint32_t d = 0; d < dim; d++)
                w->x[t][d] += y[d];
            twin_rms(w->x[t], &lw->ffn_norm, a, (int)dim, (double)w->hp->rms_eps);
            if (w->hp->moe[l])
                twin_moe(w, l, a, y);
            else
                twin_ffn(&lw->mlp, a, y);
            for (uint32_t d = 0; d < dim; d++)
                w->x[t][d] += y[d];
        }
        if (sets) {
            memcpy(sets->set[l], w->set, sizeof w->set);
            memcpy(sets->n_set[l], w->n_set, sizeof w->n_set);
        }
    }
    for (int i = 0; i < 2; i++) {
        twin_rms(w->x[i ? n - 1 : at], &weights->norm, a, (int)dim,
                 (double)w->hp->rms_eps);
        twin_mat(&weights->head, a, out[i]);
    }
    free(w);
}

static inline void twin_run(const struct weights *weights, const int32_t *tok, int n,
                            enum twin_fault fault, int at, double out[2][TWIN_W])
{
    twin_run_sets(weights, tok, n, fault, at, out, NULL);
}

#endif
