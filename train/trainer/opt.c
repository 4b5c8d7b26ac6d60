/* opt.c - the optimizer (see opt.h).
 *
 * Muon (Jordan et al. 2024): momentum, then five Newton-Schulz steps push all singular values of
 * the update towards 1. The router's selection bias follows the load, without gradient.
 */
#include "opt.h"

#include <math.h>
#include <string.h>

void opt_init(struct opt *o, const struct model *m)
{
    o->m = falloc(m->n);
    o->v = falloc(m->n);
}

static void newton_schulz(float *x, int r, int c)
{
    static _Thread_local float *A, *B, *Y, *X;
    if (!A)
        A = falloc(512 * 512), B = falloc(512 * 512), Y = falloc(512 * 1024),
        X = falloc(512 * 1024);
    double s = 0;
    for (int i = 0; i < r * c; i++)
        s += (double)x[i] * (double)x[i];
    float k = 1.0f / ((float)sqrt(s) + 1e-7f);
    int tr = r > c, n = tr ? c : r, m = tr ? r : c;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            X[i * m + j] = k * (tr ? x[j * c + i] : x[i * c + j]);
    for (int it = 0; it < 5; it++) {
        gemm_nt(n, n, m, X, m, X, m, A, n, 0);
        gemm_nn(n, n, n, A, n, A, n, B, n, 0);
        for (int i = 0; i < n * n; i++)
            B[i] = -4.7750f * A[i] + 2.0315f * B[i];
        gemm_nn(n, m, n, B, n, X, m, Y, m, 0);
        for (int i = 0; i < n * m; i++)
            X[i] = 3.4445f * X[i] + Y[i];
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            x[tr ? j * c + i : i * c + j] = X[i * m + j];
}

static void muon(struct opt *o, float *w, const struct param *p, const float *g,
                 const struct opt_step *s)
{
    static _Thread_local float *u;
    if (!u)
        u = falloc(512 * 1024);
    int n = p->rows * p->cols;
    float *m = o->m + p->off;
    for (int i = 0; i < n; i++) {
        m[i] = 0.95f * m[i] + 0.05f * g[i];
        u[i] = 0.05f * g[i] + 0.95f * m[i];
    }
    newton_schulz(u, p->rows, p->cols);
    float ratio = (float)p->rows / (float)p->cols;
    float lr = s->lr_muon * sqrtf(ratio > 1 ? ratio : 1), keep = 1 - s->lr_muon * s->wd;
    for (int i = 0; i < n; i++)
        w[i] = w[i] * keep - lr * u[i];
}

static void adam(struct opt *o, float *w, const struct param *p, const float *g,
                 const struct opt_step *s)
{
    size_t n = (size_t)(p->rows ? p->rows : 1) * (size_t)p->cols;
    float *m = o->m + p->off, *v = o->v + p->off;
    const float b1 = 0.9f, b2 = 0.98f;
    float c1 = 1 - powf(b1, (float)s->t), c2 = 1 - powf(b2, (float)s->t);
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + (1 - b1) * g[i];
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
        w[i] -= s->lr_adam * (m[i] / c1) / (sqrtf(v[i] / c2) + 1e-10f);
    }
}

void opt_param(struct opt *o, struct model *m, int i, float *g0, float *g1,
               const struct opt_step *s)
{
    const struct param *p = &m->p[i];
    size_t n = (size_t)(p->rows ? p->rows : 1) * (size_t)p->cols;
    float *g = g0 + p->off, *h = g1 ? g1 + p->off : NULL;
    int is_mtp = p->off >= m->l[NL].enorm && p->off < m->norm;
    if (p->kind == P_BIAS || (is_mtp && !s->mtp) || (!s->index && strstr(p->name, "indexer")))
        return;
    for (size_t k = 0; h && k < n; k++)
        g[k] += h[k];
    if (p->kind == P_MUON)
        muon(o, m->w + p->off, p, g, s);
    else
        adam(o, m->w + p->off, p, g, s);
    memset(g, 0, n * sizeof(float));
    if (h)
        memset(h, 0, n * sizeof(float));
}

void opt_bias(struct model *m, int l, const long load[E], float rate)
{
    long sum = 0;
    for (int e = 0; e < E; e++)
        sum += load[e];
    for (int e = 0; e < E; e++)
        m->w[m->l[l].bias + (size_t)e] += load[e] * E < sum ? rate : -rate;
}
