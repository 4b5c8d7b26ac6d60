/* layers.c - RMSNorm and rotary embedding, forward and backward. */
#include "model.h"

#include <math.h>

void rms_fwd(int T, int n, const float *x, int ldx, const float *w, float *y, int ldy, float *r)
{
    for (int t = 0; t < T; t++) {
        const float *a = x + (size_t)t * ldx;
        float *o = y + (size_t)t * ldy, s = 0;
        for (int i = 0; i < n; i++)
            s += a[i] * a[i];
        s = 1.0f / sqrtf(s / (float)n + 1e-6f);
        r[t] = s;
        for (int i = 0; i < n; i++)
            o[i] = a[i] * s * w[i];
    }
}

/* y = w x r: dx = r (w dy - x r^2 mean(w dy x)) */
void rms_bwd(int T, int n, const float *x, int ldx, const float *w, const float *r,
             const float *dy, int lddy, float *dx, int lddx, int acc, float *dw)
{
    for (int t = 0; t < T; t++) {
        const float *a = x + (size_t)t * ldx, *d = dy + (size_t)t * lddy;
        float *o = dx + (size_t)t * lddx, s = 0, q = r[t];
        for (int i = 0; i < n; i++) {
            s += w[i] * d[i] * a[i];
            dw[i] += d[i] * a[i] * q;
        }
        s = s * q * q / (float)n;
        if (acc)
            for (int i = 0; i < n; i++)
                o[i] += q * (w[i] * d[i] - a[i] * s);
        else
            for (int i = 0; i < n; i++)
                o[i] = q * (w[i] * d[i] - a[i] * s);
    }
}

/* Rotates DR values: adjacent pairs (MLA) or halves (indexer); inverse for gradients. */
void rope(const struct model *m, float *x, int pos, int halves, int inverse)
{
    const float *cs = m->rope_cos[pos], *sn = m->rope_sin[pos];
    for (int i = 0; i < DR / 2; i++) {
        int a = halves ? i : 2 * i, b = halves ? i + DR / 2 : 2 * i + 1;
        float s = inverse ? -sn[i] : sn[i], u = x[a], v = x[b];
        x[a] = u * cs[i] - v * s;
        x[b] = v * cs[i] + u * s;
    }
}
