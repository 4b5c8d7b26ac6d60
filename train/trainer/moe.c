/* moe.c - dense SwiGLU, shared expert, router and routed experts, forward and backward.
 *
 * Router: s = sigmoid(gate b); selection by s + bias within the best groups (sum of the group's
 * two largest); weights s / sum(s) * route_scale. The bias takes no gradient: the step balances it.
 */
#include "model.h"

#include <math.h>
#include <string.h>

#include "vexp.h"

/* g = silu(h[:f]) * h[f:] * wt */
static void swiglu(int n, int f, const float *h, float *g, const float *wt)
{
    for (int t = 0; t < n; t++, h += 2 * f, g += f)
        for (int i = 0; i < f; i += 16) {
            v16f a = v16_load(h + i), u = v16_load(h + f + i);
            v16f y = v16_mul(v16_mul(a, vsigmoid(a)), u);
            if (wt)
                y = v16_mul(y, v16_set1(wt[t]));
            v16_store(g + i, y);
        }
}

/* dh from dg; dwt[t] = sum dg * silu*up when weights are given */
static void swiglu_bwd(int n, int f, const float *h, const float *dg, float *dh, const float *wt,
                       float *dwt)
{
    for (int t = 0; t < n; t++, h += 2 * f, dg += f, dh += 2 * f) {
        v16f s = v16_zero(), k = v16_set1(wt ? wt[t] : 1.0f);
        for (int i = 0; i < f; i += 16) {
            v16f a = v16_load(h + i), u = v16_load(h + f + i);
            v16f d = v16_load(dg + i), sg = vsigmoid(a), si = v16_mul(a, sg);
            s = v16_fma(d, v16_mul(si, u), s);
            d = v16_mul(d, k);
            /* silu' = sg (1 + a (1 - sg)) = sg + si (1 - sg) */
            v16f ds = v16_fma(si, v16_sub(v16_set1(1), sg), sg);
            v16_store(dh + i, v16_mul(v16_mul(d, u), ds));
            v16_store(dh + f + i, v16_mul(d, si));
        }
        if (dwt)
            dwt[t] = v16_sum(s);
    }
}

static void choose(const float *s, const float *bias, int8_t *out)
{
    float c[E], gs[NG];
    int keep[E] = {0};
    for (int e = 0; e < E; e++)
        c[e] = s[e] + bias[e];
    for (int g = 0; g < NG; g++) {
        float a = -1e30f, b = -1e30f;
        for (int e = g * PG; e < (g + 1) * PG; e++) {
            if (c[e] > a)
                b = a, a = c[e];
            else if (c[e] > b)
                b = c[e];
        }
        gs[g] = a + b;
    }
    for (int k = 0; k < GK; k++) {
        int best = 0;
        for (int g = 1; g < NG; g++)
            if (gs[g] > gs[best])
                best = g;
        gs[best] = -1e30f;
        for (int e = best * PG; e < (best + 1) * PG; e++)
            keep[e] = 1;
    }
    for (int k = 0; k < EK; k++) {
        int best = -1;
        for (int e = 0; e < E; e++)
            if (keep[e] && (best < 0 || c[e] > c[best]))
                best = e;
        keep[best] = 0;
        out[k] = (int8_t)best;
    }
}

static void route(struct worker *w, int l)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    int T = w->b->T, cnt[E + 1] = {0};
    static _Thread_local v16f gt[D]; /* the router runs in f32, as in the engine */
    _Static_assert(E == 16, "one vector holds the experts");
    for (int i = 0; i < D; i++)
        for (int e = 0; e < E; e++)
            ((float *)&gt[i])[e] = W[L->gate + (size_t)e * D + i];
    for (int t = 0; t < T; t++) {
        float *s = a->s + t * E;
        const float *b = a->b + (size_t)t * D;
        v16f z[4] = {0};
        for (int i = 0; i < D; i += 4)
            for (int k = 0; k < 4; k++)
                z[k] = v16_fma(v16_set1(b[i + k]), gt[i + k], z[k]);
        z[0] = v16_add(v16_add(z[0], z[1]), v16_add(z[2], z[3]));
        v16_store(s, vsigmoid(z[0]));
        int8_t *e = a->ei + t * EK;
        if (!w->hp.frozen)
            choose(s, W + L->bias, e);
        float sum = 1e-20f;
        for (int k = 0; k < EK; k++)
            sum += s[e[k]], cnt[e[k] + 1]++;
        for (int k = 0; k < EK; k++)
            a->wt[t * EK + k] = s[e[k]] / sum * route_scale;
    }
    for (int e = 0; e < E; e++) {
        w->load[l][e] += cnt[e + 1];
        cnt[e + 1] += cnt[e];
    }
    memcpy(a->cnt, cnt, sizeof cnt);
    for (int t = 0; t < T; t++)
        for (int k = 0; k < EK; k++) {
            int i = cnt[a->ei[t * EK + k]]++;
            a->rows[i] = t;
            a->slot[i] = t * EK + k;
        }
}

void ffn_fwd(struct worker *w, int l, float *out)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    int T = w->b->T, f = L->moe ? FM : FD;
    size_t up = L->moe ? L->sh : L->ff, down = L->moe ? L->shd : L->ffd;
    gemm_nt(T, 2 * f, D, a->b, D, W + up, D, a->hs, 2 * f, 0);
    swiglu(T, f, a->hs, a->gs, NULL);
    gemm_nt(T, D, f, a->gs, f, W + down, f, out, D, 1);
    if (!L->moe)
        return;
    route(w, l);
    float wt[TMAX];
    for (int e = 0; e < E; e++) {
        int i0 = a->cnt[e], n = a->cnt[e + 1] - i0;
        if (!n)
            continue;
        for (int i = 0; i < n; i++) {
            memcpy(w->xg + (size_t)i * D, a->b + (size_t)a->rows[i0 + i] * D, D * sizeof(float));
            wt[i] = a->wt[a->slot[i0 + i]];
        }
        float *h = a->h + (size_t)i0 * 2 * FM, *g = a->g + (size_t)i0 * FM;
        gemm_nt(n, 2 * FM, D, w->xg, D, W + L->ex[e], D, h, 2 * FM, 0);
        swiglu(n, FM, h, g, wt);
        gemm_nt(n, D, FM, g, FM, W + L->exd[e], FM, w->t3, D, 0);
        for (int i = 0; i < n; i++) {
            float *o = out + (size_t)a->rows[i0 + i] * D, *s = w->t3 + (size_t)i * D;
            for (int j = 0; j < D; j++)
                o[j] += s[j];
        }
    }
}

static void experts_bwd(struct worker *w, int l, const float *dout, float *db, float *dwt)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    float wt[TMAX], dw[TMAX];
    for (int e = 0; e < E; e++) {
        int i0 = a->cnt[e], n = a->cnt[e + 1] - i0;
        if (!n)
            continue;
        for (int i = 0; i < n; i++) {
            size_t r = (size_t)a->rows[i0 + i] * D;
            memcpy(w->xg + (size_t)i * D, a->b + r, D * sizeof(float));
            memcpy(w->t3 + (size_t)i * D, dout + r, D * sizeof(float));
            wt[i] = a->wt[a->slot[i0 + i]];
        }
        const float *h = a->h + (size_t)i0 * 2 * FM, *g = a->g + (size_t)i0 * FM;
        gemm_tn(D, FM, n, w->t3, D, g, FM, w->g + L->exd[e], FM, 1);
        gemm_nn(n, FM, D, w->t3, D, W + L->exd[e], FM, w->t1, FM, 0);
        swiglu_bwd(n, FM, h, w->t1, w->t2, wt, dw);
        gemm_tn(2 * FM, D, n, w->t2, 2 * FM, w->xg, D, w->g + L->ex[e], D, 1);
        gemm_nn(n, D, 2 * FM, w->t2, 2 * FM, W + L->ex[e], D, w->t4, D, 0);
        for (int i = 0; i < n; i++) {
            float *o = db + (size_t)a->rows[i0 + i] * D, *s = w->t4 + (size_t)i * D;
            for (int j = 0; j < D; j++)
                o[j] += s[j];
            dwt[a->slot[i0 + i]] = dw[i];
        }
    }
}

/* db = d loss / d (post_attention_layernorm output) */
void ffn_bwd(struct worker *w, int l, const float *dout, float *db)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    int T = w->b->T, f = L->moe ? FM : FD;
    size_t up = L->moe ? L->sh : L->ff, down = L->moe ? L->shd : L->ffd;
    gemm_tn(D, f, T, dout, D, a->gs, f, w->g + down, f, 1);
    gemm_nn(T, f, D, dout, D, W + down, f, w->t1, f, 0);
    swiglu_bwd(T, f, a->hs, w->t1, w->t2, NULL, NULL);
    gemm_tn(2 * f, D, T, w->t2, 2 * f, a->b, D, w->g + up, D, 1);
    gemm_nn(T, D, 2 * f, w->t2, 2 * f, W + up, D, db, D, 0);
    if (!L->moe)
        return;
    static _Thread_local float dwt[TMAX * EK], ds[TMAX * E];
    experts_bwd(w, l, dout, db, dwt);
    memset(ds, 0, (size_t)T * E * sizeof(float));
    for (int t = 0; t < T; t++) {
        const float *s = a->s + t * E, *wt = a->wt + t * EK;
        const int8_t *e = a->ei + t * EK;
        float sum = 1e-20f, dot = 0;
        for (int k = 0; k < EK; k++) {
            sum += s[e[k]];
            dot += dwt[t * EK + k] * wt[k]; /* wt = scale s / sum */
        }
        for (int k = 0; k < EK; k++) {
            float g = (dwt[t * EK + k] * route_scale - dot) / sum;
            ds[t * E + e[k]] = g * s[e[k]] * (1 - s[e[k]]);
        }
    }
    gemm_tn(E, D, T, ds, E, a->b, D, w->g + L->gate, D, 1);
    gemm_nn(T, D, E, ds, E, W + L->gate, D, db, D, 1);
}
