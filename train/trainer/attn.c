/* attn.c - latent attention with the lightning indexer, forward and backward.
 *
 * Keys of a segment are the shared prefix's rows, then its own. Scores are recomputed in the
 * backward pass from the stored log-sum-exp. In sparse mode unselected keys are masked, which is
 * the same as gathering the selected ones. The indexer sees detached inputs and learns from
 *   KL( mean over heads of the attention weights || softmax of the index scores )
 * over the visible keys (dense stage) or the selected ones (sparse stage), as in the V3.2 report.
 */
#include "model.h"

#include <math.h>
#include <string.h>

#include "vexp.h"

#define PBROWS (CTX / QBLK + 1)

struct span {
    int r0, L, P, nk; /* first own row, own rows, prefix rows in front, keys in all */
};

static const float qk_scale = 0.144337567f; /* 48^-1/2 */

static struct span span_of(const struct batch *b, int g)
{
    struct span s = {b->seg[g], b->seg[g + 1] - b->seg[g], 0, 0};
    s.P = g > 0 || b->prefix == 0 ? b->prefix : 0;
    s.nk = s.P + s.L;
    return s;
}

static inline int key_row(const struct span *s, int k)
{
    return k < s->P ? k : s->r0 + k - s->P;
}

static inline v16m tail(int n, int v)
{
    int r = n - v;
    return r >= 16 ? 0xffff : r <= 0 ? 0 : (v16m)((1u << r) - 1);
}

/* Marks the k keys with the largest score, ties to the lower position. x has n > k scores. */
static void select_topk(float *x, int n, int k, uint16_t *sel)
{
    int32_t lo = INT32_MIN, hi = INT32_MAX; /* largest v with count(key >= v) >= k */
    int nv = (n + 15) / 16;
    static _Thread_local int32_t key[CTX + 32];
    for (int v = 0; v < nv; v++) {
        v16i i = v16_bits(
            v16_add(v16_load(x + 16 * v), v16_zero()));
        i = v16_xor(i, v16_and(v16_sra(i, 31),
                                                 v16_set1i(0x7fffffff)));
        i = v16_keepi(tail(n, 16 * v), i, v16_set1i(INT32_MIN));
        v16_storei(key + 16 * v, i);
    }
    while (lo < hi) {
        int32_t mid = (int32_t)(((int64_t)lo + hi + 1) >> 1);
        v16i m = v16_set1i(mid);
        int c = 0;
        for (int v = 0; v < nv; v++)
            c += __builtin_popcount(
                v16_ge(v16_loadi(key + 16 * v), m));
        if (c >= k)
            lo = mid;
        else
            hi = mid - 1;
        if (c == k)
            break;
    }
    int above = 0;
    v16i m = v16_set1i(lo);
    for (int v = 0; v < nv; v++) {
        sel[v] = v16_gt(v16_loadi(key + 16 * v), m);
        above += __builtin_popcount(sel[v]);
    }
    for (int v = 0; v < nv && above < k; v++) {
        unsigned eq = v16_eq(v16_loadi(key + 16 * v), m);
        while (eq && above < k) {
            sel[v] |= (uint16_t)(eq & -eq);
            eq &= eq - 1;
            above++;
        }
    }
}

/* exp(s * scale - lse) over visible keys, zero elsewhere up to nk; lse computed when asked */
static void probs(float *s, int n, int nk, const uint16_t *sel, float *lse, int fresh)
{
    v16f sc = v16_set1(qk_scale);
    int nv = (nk + 15) / 16;
    if (fresh) {
        v16f mx = v16_set1(-1e30f);
        for (int v = 0; v * 16 < n; v++) {
            v16m m = tail(n, 16 * v) & (sel ? sel[v] : 0xffff);
            mx = v16_largest_if(mx, m, v16_load(s + 16 * v));
        }
        float f = v16_largest(mx) * qk_scale;
        v16f sum = v16_zero(), mv = v16_set1(f);
        for (int v = 0; v < nv; v++) {
            v16m m = tail(n, 16 * v) & (sel ? sel[v] : 0xffff);
            v16f p = vexp(v16_fms(v16_load(s + 16 * v), sc, mv));
            p = v16_keep(m, p);
            sum = v16_add(sum, p);
            v16_store(s + 16 * v, p);
        }
        float z = v16_sum(sum);
        v16f iz = v16_set1(1.0f / z);
        for (int v = 0; v < nv; v++)
            v16_store(s + 16 * v, v16_mul(v16_load(s + 16 * v), iz));
        *lse = f + logf(z);
        return;
    }
    v16f mv = v16_set1(*lse);
    for (int v = 0; v < nv; v++) {
        v16m m = tail(n, 16 * v) & (sel ? sel[v] : 0xffff);
        v16f p = vexp(v16_fms(v16_load(s + 16 * v), sc, mv));
        v16_store(s + 16 * v, v16_keep(m, p));
    }
}

static void gather_head(struct worker *w, struct acts *a, const struct span *s, int h)
{
    for (int k = 0; k < s->nk; k++) {
        int r = key_row(s, k);
        const float *kv = a->kv + (size_t)r * KVB + h * (DN + DV);
        memcpy(w->K + k * DQK, kv, DN * sizeof(float));
        memcpy(w->K + k * DQK + DN, a->kp + (size_t)r * DR, DR * sizeof(float));
        memcpy(w->V + k * DV, kv + DN, DV * sizeof(float));
    }
}

static const uint16_t *sel_of(const struct worker *w, const struct acts *a, int row, int n)
{
    return w->hp.sparse && n > w->hp.topk ? a->sel + (size_t)row * (CTX / 16) : NULL;
}

/* index scores of one query block: IS = per-head dot products, I = sum_j w_j relu(.) */
static void index_scores(struct worker *w, struct acts *a, int row, int mq, int nk, float *I, int ld)
{
    for (int j = 0; j < HI; j++)
        gemm_packed(mq, nk, DI, a->iq + (size_t)row * HI * DI + j * DI, HI * DI, &w->pik,
                    w->IS + (size_t)j * QBLK * ld, ld, 0);
    for (int i = 0; i < mq; i++) {
        const float *iw = a->iw + (size_t)(row + i) * HI;
        for (int k = 0; k < nk; k++) {
            float v = 0;
            for (int j = 0; j < HI; j++) {
                float d = w->IS[((size_t)j * QBLK + (size_t)i) * ld + k];
                v += iw[j] * (d > 0 ? d : 0);
            }
            I[(size_t)i * ld + k] = v;
        }
    }
}

static void gather_index(struct worker *w, struct acts *a, const struct span *s)
{
    for (int k = 0; k < s->nk; k++)
        memcpy(w->IK + k * DI, a->ik + (size_t)key_row(s, k) * DI, DI * sizeof(float));
    bpack_nk(&w->pik, s->nk, DI, w->IK, DI);
}

static void select_span(struct worker *w, struct acts *a, const struct span *s)
{
    if (!w->hp.sparse || s->nk <= w->hp.topk || w->hp.frozen)
        return;
    gather_index(w, a, s);
    for (int q = 0; q < s->L; q += QBLK) {
        int mq = s->L - q < QBLK ? s->L - q : QBLK, nk = s->P + q + mq, ld = (nk + 15) / 16 * 16;
        if (nk <= w->hp.topk)
            continue;
        index_scores(w, a, s->r0 + q, mq, nk, w->ID, ld);
        for (int i = 0; i < mq; i++) {
            int n = s->P + q + i + 1;
            if (n > w->hp.topk)
                select_topk(w->ID + (size_t)i * ld, n, w->hp.topk,
                            a->sel + (size_t)(s->r0 + q + i) * (CTX / 16));
        }
    }
}

static void index_fwd(struct worker *w, int l)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    int T = w->b->T;
    const float sc = 0.5f * 0.176776695f; /* HI^-1/2 DI^-1/2 */
    gemm_nt(T, HI * DI, RQ, a->qr, RQ, W + L->iqb, RQ, a->iq, HI * DI, 0);
    gemm_nt(T, DI, D, a->a, D, W + L->ik, D, a->ikr, DI, 0);
    gemm_nt(T, HI, D, a->a, D, W + L->iw, D, a->iw, HI, 0);
    for (int t = 0; t < T; t++) {
        const float *x = a->ikr + t * DI;
        float m = 0, v = 0, *y = a->ik + t * DI;
        for (int i = 0; i < DI; i++)
            m += x[i];
        m /= DI;
        for (int i = 0; i < DI; i++)
            v += (x[i] - m) * (x[i] - m);
        v = 1.0f / sqrtf(v / DI + 1e-6f);
        a->mik[t] = m;
        a->rik[t] = v;
        for (int i = 0; i < DI; i++)
            y[i] = (x[i] - m) * v * W[L->ikn + i] + W[L->ikb + i];
        rope(w->m, y, w->b->pos[t], 1, 0);
        for (int j = 0; j < HI; j++) {
            rope(w->m, a->iq + (t * HI + j) * DI, w->b->pos[t], 1, 0);
            a->iw[t * HI + j] *= sc;
        }
    }
}

void attn_fwd(struct worker *w, int l)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    int T = w->b->T;
    gemm_nt(T, QKVA, D, a->a, D, W + L->qa, D, a->qkva, QKVA, 0);
    rms_fwd(T, RQ, a->qkva, QKVA, W + L->qan, a->qr, RQ, a->rq);
    rms_fwd(T, RKV, a->qkva + RQ, QKVA, W + L->kvan, a->c, RKV, a->rkv);
    gemm_nt(T, QB, RQ, a->qr, RQ, W + L->qb, RQ, a->q, QB, 0);
    gemm_nt(T, KVB, RKV, a->c, RKV, W + L->kvb, RKV, a->kv, KVB, 0);
    for (int t = 0; t < T; t++) {
        memcpy(a->kp + t * DR, a->qkva + (size_t)t * QKVA + RQ + RKV, DR * sizeof(float));
        rope(w->m, a->kp + t * DR, w->b->pos[t], 0, 0);
        for (int h = 0; h < NH; h++)
            rope(w->m, a->q + (size_t)t * QB + h * DQK + DN, w->b->pos[t], 0, 0);
    }
    if (w->hp.sparse || w->hp.index_every)
        index_fwd(w, l);
    for (int g = 0; g < w->b->nseg; g++) {
        struct span s = span_of(w->b, g);
        select_span(w, a, &s);
        for (int h = 0; h < NH; h++) {
            gather_head(w, a, &s, h);
            bpack_nk(&w->pk, s.nk, DQK, w->K, DQK);
            bpack_kn(&w->pvn, DV, s.nk, w->V, DV);
            for (int q = 0; q < s.L; q += QBLK) {
                int mq = s.L - q < QBLK ? s.L - q : QBLK, row = s.r0 + q;
                int nk = s.P + q + mq, ld = (nk + 15) / 16 * 16;
                gemm_packed(mq, nk, DQK, a->q + (size_t)row * QB + h * DQK, QB, &w->pk, w->S, ld,
                            0);
                for (int i = 0; i < mq; i++) {
                    int n = s.P + q + i + 1;
                    probs(w->S + (size_t)i * ld, n, nk, sel_of(w, a, row + i, n),
                          a->lse + (size_t)(row + i) * NH + h, 1);
                }
                gemm_packed(mq, DV, nk, w->S, ld, &w->pvn, a->o + (size_t)row * OB + h * DV, OB,
                            0);
            }
        }
    }
}

/* ------------------------------------------------------------------ indexer's own loss */

/* dI in place of I for one query; target p sums to 1 over its support */
static void index_row(struct worker *w, float *I, const float *p, int n, int ld,
                      const uint16_t *sel, float coef)
{
    v16f mx = v16_set1(-1e30f), z = v16_zero(), ce = z;
    if (!sel && n > w->hp.topk) { /* how much attention would the selection keep? */
        uint16_t top[CTX / 16];
        v16f got = z;
        select_topk(I, n, w->hp.topk, top);
        for (int v = 0; v < n; v += 16)
            got = v16_add(got, v16_load_if(top[v / 16], p + v));
        w->recall += (double)v16_sum(got);
        w->nrecall++;
    }
    for (int v = 0; v < n; v += 16) {
        v16m m = tail(n, v) & (sel ? sel[v / 16] : 0xffff);
        mx = v16_largest_if(mx, m, v16_load(I + v));
    }
    float f = v16_largest(mx);
    mx = v16_set1(f);
    for (int v = 0; v < n; v += 16) {
        v16m m = tail(n, v) & (sel ? sel[v / 16] : 0xffff);
        v16f x = v16_sub(v16_load(I + v), mx);
        v16f e = v16_keep(m, vexp(x));
        z = v16_add(z, e);
        ce = v16_add(ce, v16_keep(m, v16_mul(x, v16_load(p + v))));
        v16_store(I + v, e);
    }
    float zs = v16_sum(z);
    v16f iz = v16_set1(1.0f / zs), c = v16_set1(coef);
    for (int v = 0; v < ld; v += 16) {
        v16m m = tail(n, v) & (sel ? sel[v / 16] : 0xffff);
        v16f d = v16_fms(v16_load(I + v), iz, v16_load(p + v));
        v16_store(I + v, v16_keep(m, v16_mul(d, c)));
    }
    w->index_loss += (double)(logf(zs) - v16_sum(ce));
    w->nindex++;
}

static void index_block_bwd(struct worker *w, struct acts *a, const struct span *s, int q, int mq,
                            const float *pb, float *diq, float *diw)
{
    int row = s->r0 + q, nk = s->P + q + mq, ld = (nk + 15) / 16 * 16;
    index_scores(w, a, row, mq, nk, w->ID, ld);
    for (int i = 0; i < mq; i++) {
        int n = s->P + q + i + 1;
        index_row(w, w->ID + (size_t)i * ld, pb + (size_t)i * ld, n, ld,
                  sel_of(w, a, row + i, n), w->inv);
    }
    for (int j = 0; j < HI; j++) {
        float *d = w->IS + (size_t)j * QBLK * ld;
        for (int i = 0; i < mq; i++) {
            float wj = a->iw[(size_t)(row + i) * HI + j], g = 0, *x = d + (size_t)i * ld;
            const float *dI = w->ID + (size_t)i * ld;
            for (int k = 0; k < nk; k++) {
                float r = x[k] > 0 ? x[k] : 0;
                g += dI[k] * r;
                x[k] = x[k] > 0 ? dI[k] * wj : 0;
            }
            diw[(size_t)(row + i) * HI + j] += g;
        }
        gemm_packed(mq, DI, nk, d, ld, &w->pikn, diq + (size_t)row * HI * DI + j * DI, HI * DI, 1);
        gemm_tn(nk, DI, mq, d, ld, a->iq + (size_t)row * HI * DI + j * DI, HI * DI, w->dIK, DI, 1);
    }
}

static void index_span_bwd(struct worker *w, struct acts *a, const struct span *s, float *diq,
                           float *diw, float *dik)
{
    static _Thread_local float *pb;
    if (!pb)
        pb = falloc((size_t)PBROWS * QBLK * CTX);
    int every = w->hp.index_every, first = (int)rng_below(&w->rng, (uint32_t)every);
    if (first * QBLK >= s->L)
        return;
    for (int h = 0; h < NH; h++) {
        gather_head(w, a, s, h);
        bpack_nk(&w->pk, s->nk, DQK, w->K, DQK);
        float *p = pb;
        for (int q = first * QBLK; q < s->L; q += every * QBLK) {
            int mq = s->L - q < QBLK ? s->L - q : QBLK, row = s->r0 + q;
            int nk = s->P + q + mq, ld = (nk + 15) / 16 * 16;
            gemm_packed(mq, nk, DQK, a->q + (size_t)row * QB + h * DQK, QB, &w->pk, w->S, ld, 0);
            for (int i = 0; i < mq; i++) {
                int n = s->P + q + i + 1;
                float *x = w->S + (size_t)i * ld, *o = p + (size_t)i * ld;
                probs(x, n, nk, sel_of(w, a, row + i, n), a->lse + (size_t)(row + i) * NH + h, 0);
                for (int k = 0; k < nk; k++)
                    o[k] = (h ? o[k] : 0) + x[k] * (1.0f / NH);
            }
            p += (size_t)QBLK * ld;
        }
    }
    gather_index(w, a, s);
    bpack_kn(&w->pikn, DI, s->nk, w->IK, DI);
    memset(w->dIK, 0, (size_t)s->nk * DI * sizeof(float));
    const float *p = pb;
    for (int q = first * QBLK; q < s->L; q += every * QBLK) {
        int mq = s->L - q < QBLK ? s->L - q : QBLK, ld = (s->P + q + mq + 15) / 16 * 16;
        index_block_bwd(w, a, s, q, mq, p, diq, diw);
        p += (size_t)QBLK * ld;
    }
    for (int k = 0; k < s->nk; k++) {
        float *d = dik + (size_t)key_row(s, k) * DI;
        for (int i = 0; i < DI; i++)
            d[i] += w->dIK[k * DI + i];
    }
}

static void index_bwd(struct worker *w, int l)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    float *G = w->g;
    int T = w->b->T;
    const float sc = 0.5f * 0.176776695f;
    float *diq = w->t2, *dik = w->t3, *diw = w->t4;
    memset(diq, 0, (size_t)T * HI * DI * sizeof(float));
    memset(dik, 0, (size_t)T * DI * sizeof(float));
    memset(diw, 0, (size_t)T * HI * sizeof(float));
    for (int g = 0; g < w->b->nseg; g++) {
        struct span s = span_of(w->b, g);
        index_span_bwd(w, a, &s, diq, diw, dik);
    }
    for (int t = 0; t < T; t++) {
        float *d = dik + t * DI, s1 = 0, s2 = 0;
        const float *x = a->ikr + t * DI;
        rope(w->m, d, w->b->pos[t], 1, 1);
        for (int i = 0; i < DI; i++) {
            float xh = (x[i] - a->mik[t]) * a->rik[t];
            G[L->ikn + i] += d[i] * xh;
            G[L->ikb + i] += d[i];
            d[i] *= W[L->ikn + i];
            s1 += d[i];
            s2 += d[i] * xh;
        }
        for (int i = 0; i < DI; i++) {
            float xh = (x[i] - a->mik[t]) * a->rik[t];
            d[i] = a->rik[t] * (d[i] - s1 / DI - xh * s2 / DI);
        }
        for (int j = 0; j < HI; j++) {
            rope(w->m, diq + (t * HI + j) * DI, w->b->pos[t], 1, 1);
            diw[t * HI + j] *= sc;
        }
    }
    gemm_tn(HI * DI, RQ, T, diq, HI * DI, a->qr, RQ, G + L->iqb, RQ, 1);
    gemm_tn(DI, D, T, dik, DI, a->a, D, G + L->ik, D, 1);
    gemm_tn(HI, D, T, diw, HI, a->a, D, G + L->iw, D, 1);
}

/* ------------------------------------------------------------------ attention backward */

static void head_bwd(struct worker *w, struct acts *a, const struct span *s, int h,
                     const float *dout)
{
    gather_head(w, a, s, h);
    bpack_nk(&w->pk, s->nk, DQK, w->K, DQK);
    bpack_kn(&w->pkn, DQK, s->nk, w->K, DQK);
    bpack_nk(&w->pv, s->nk, DV, w->V, DV);
    memset(w->dK, 0, (size_t)s->nk * DQK * sizeof(float));
    memset(w->dV, 0, (size_t)s->nk * DV * sizeof(float));
    for (int q = 0; q < s->L; q += QBLK) {
        int mq = s->L - q < QBLK ? s->L - q : QBLK, row = s->r0 + q;
        int nk = s->P + q + mq, ld = (nk + 15) / 16 * 16;
        const float *Q = a->q + (size_t)row * QB + h * DQK, *dO = dout + (size_t)row * OB + h * DV;
        gemm_packed(mq, nk, DQK, Q, QB, &w->pk, w->S, ld, 0);
        gemm_packed(mq, nk, DV, dO, OB, &w->pv, w->dP, ld, 0);
        for (int i = 0; i < mq; i++) {
            int n = s->P + q + i + 1;
            float *x = w->S + (size_t)i * ld, *d = w->dP + (size_t)i * ld;
            size_t th = (size_t)(row + i) * NH + (size_t)h;
            probs(x, n, nk, sel_of(w, a, row + i, n), a->lse + th, 0);
            v16f dl = v16_set1(a->delta[th]), sc = v16_set1(qk_scale);
            for (int v = 0; v < nk; v += 16) {
                v16f p = v16_mul(v16_load(x + v), sc);
                v16f e = v16_keep(tail(nk, v), v16_sub(v16_load(d + v), dl));
                v16_store(d + v, v16_mul(p, e));
            }
        }
        gemm_packed(mq, DQK, nk, w->dP, ld, &w->pkn, w->dq + (size_t)row * QB + h * DQK, QB, 0);
        gemm_tn(nk, DQK, mq, w->dP, ld, Q, QB, w->dK, DQK, 1);
        gemm_tn(nk, DV, mq, w->S, ld, dO, OB, w->dV, DV, 1);
    }
    for (int k = 0; k < s->nk; k++) {
        int r = key_row(s, k);
        float *kv = w->dkv + (size_t)r * KVB + h * (DN + DV), *kp = w->dkp + (size_t)r * DR;
        for (int i = 0; i < DN; i++)
            kv[i] += w->dK[k * DQK + i];
        for (int i = 0; i < DR; i++)
            kp[i] += w->dK[k * DQK + DN + i];
        for (int i = 0; i < DV; i++)
            kv[DN + i] += w->dV[k * DV + i];
    }
}

void attn_bwd(struct worker *w, int l, const float *dout)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    float *G = w->g;
    int T = w->b->T;
    if (w->hp.index_every)
        index_bwd(w, l);
    memset(w->dkv, 0, (size_t)T * KVB * sizeof(float));
    memset(w->dkp, 0, (size_t)T * DR * sizeof(float));
    for (int t = 0; t < T; t++)
        for (int h = 0; h < NH; h++) {
            const float *o = a->o + (size_t)t * OB + h * DV, *d = dout + (size_t)t * OB + h * DV;
            float s = 0;
            for (int i = 0; i < DV; i++)
                s += o[i] * d[i];
            a->delta[t * NH + h] = s;
        }
    for (int g = 0; g < w->b->nseg; g++) {
        struct span s = span_of(w->b, g);
        for (int h = 0; h < NH; h++)
            head_bwd(w, a, &s, h, dout);
    }
    for (int t = 0; t < T; t++) {
        rope(w->m, w->dkp + t * DR, w->b->pos[t], 0, 1);
        memcpy(w->dqkva + (size_t)t * QKVA + RQ + RKV, w->dkp + t * DR, DR * sizeof(float));
        for (int h = 0; h < NH; h++)
            rope(w->m, w->dq + (size_t)t * QB + h * DQK + DN, w->b->pos[t], 0, 1);
    }
    gemm_tn(KVB, RKV, T, w->dkv, KVB, a->c, RKV, G + L->kvb, RKV, 1);
    gemm_nn(T, RKV, KVB, w->dkv, KVB, W + L->kvb, RKV, w->t3, RKV, 0);
    gemm_tn(QB, RQ, T, w->dq, QB, a->qr, RQ, G + L->qb, RQ, 1);
    gemm_nn(T, RQ, QB, w->dq, QB, W + L->qb, RQ, w->t4, RQ, 0);
    rms_bwd(T, RQ, a->qkva, QKVA, W + L->qan, a->rq, w->t4, RQ, w->dqkva, QKVA, 0, G + L->qan);
    rms_bwd(T, RKV, a->qkva + RQ, QKVA, W + L->kvan, a->rkv, w->t3, RKV, w->dqkva + RQ, QKVA, 0,
            G + L->kvan);
    gemm_tn(QKVA, D, T, w->dqkva, QKVA, a->a, D, G + L->qa, D, 1);
    gemm_nn(T, D, QKVA, w->dqkva, QKVA, W + L->qa, D, w->da, D, 0);
}
