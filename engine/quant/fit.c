/* fit.c - small exhaustive searches; a row of 4096 takes tens of microseconds. */
#include "engine/quant/fit.h"

#include "engine/quant/half.h"

enum { TRIES = 9 };

/* The element of largest magnitude, with its sign; NaN counts as nothing. */
static float extreme(const float *x, int n)
{
    float best = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(best))
            best = x[i];
    return best;
}

float fit_scale(const float *x, int n, int lo, int hi)
{
    float peak = extreme(x, n), best = peak / (float)lo;
    double best_gain = -1;
    if (!isfinite(peak) || inverse(best) == 0)
        return isfinite(best) ? best : 0;
    /* Dividing by more than lo leaves room, dividing by less lets the peak saturate. */
    for (int t = -TRIES; t <= TRIES; t++) {
        float inv = ((float)lo - 0.1f * (float)t) / peak;
        double xq = 0, qq = 0;
        for (int i = 0; i < n; i++) {
            int q = round_to(x[i] * inv, lo, hi);
            xq += (double)x[i] * q;
            qq += (double)q * q;
        }
        /* With d = xq/qq the error is sum(x^2) - xq^2/qq. */
        if (qq > 0 && xq * xq / qq > best_gain) {
            best_gain = xq * xq / qq;
            best = (float)(xq / qq);
        }
    }
    return best;
}

float fit_scales(const float *x, int groups, int n, int lo, int hi, float *scale)
{
    for (int g = 0; g < groups; g++)
        scale[g] = fit_scale(x + g * n, n, lo, hi);
    return extreme(scale, groups);
}

/* Error of codes at (d, m), and the least-squares line through them. */
static double line(const float *x, int n, int hi, float d, float m, float *d2, float *m2)
{
    float inv = inverse(d);
    double err = 0, q1 = 0, qq = 0, x1 = 0, xq = 0;
    for (int i = 0; i < n; i++) {
        int q = round_to((x[i] + m) * inv, 0, hi);
        double e = (double)d * q - m - x[i];
        err += e * e;
        q1 += q;
        qq += (double)q * q;
        x1 += x[i];
        xq += (double)x[i] * q;
    }
    double det = n * qq - q1 * q1;
    if (det > 0) {
        *d2 = (float)((n * xq - q1 * x1) / det);
        *m2 = (float)(-(qq * x1 - q1 * xq) / det);
        if (*m2 < 0) { /* the format cannot raise: the line goes through zero */
            *m2 = 0;
            *d2 = (float)(xq / qq);
        }
    }
    return err;
}

float fit_affine(const float *x, int n, int hi, float *m)
{
    float least = 0, most = 0;
    for (int i = 0; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    float d = (most - least) / (float)hi, best_d = d, best_m = -least;
    if (!isfinite(d) || inverse(d) == 0) {
        *m = isfinite(best_m) ? best_m : 0;
        return 0;
    }
    double best = INFINITY;
    for (int t = 0; t < TRIES; t++) {
        float td = d * (1.06f - 0.025f * (float)t), tm = -least, nd = td, nm = tm, unused[2];
        line(x, n, hi, td, tm, &nd, &nm);
        double err = line(x, n, hi, nd, nm, &unused[0], &unused[1]);
        if (nd > 0 && err < best) {
            best = err;
            best_d = nd;
            best_m = nm;
        }
    }
    *m = best_m;
    return best_d;
}

struct fit_peak fit_affines(const float *x, int groups, int n, int hi, float *scale, float *min)
{
    struct fit_peak peak = {0, 0};
    for (int g = 0; g < groups; g++) {
        scale[g] = fit_affine(x + g * n, n, hi, &min[g]);
        peak.scale = scale[g] > peak.scale ? scale[g] : peak.scale;
        peak.min = min[g] > peak.min ? min[g] : peak.min;
    }
    return peak;
}

/* Level by level rather than element by element, so that compilers vectorise it. */
void nearest_levels(const float *x, int n, float inv, const signed char *level, int n_levels,
                    unsigned char *out)
{
    int at[FIT_MAX] = {0};
    for (int k = 0; k + 1 < n_levels; k++) {
        float middle = 0.5f * (float)(level[k] + level[k + 1]);
        for (int i = 0; i < n; i++)
            at[i] += x[i] * inv > middle; /* NaN stays at 0 */
    }
    for (int i = 0; i < n; i++)
        out[i] = (unsigned char)at[i];
}

float fit_levels(const float *x, int n, const signed char *level, int n_levels)
{
    float peak = extreme(x, n), best = peak / level[0];
    double best_gain = -1;
    if (!isfinite(peak) || inverse(best) == 0)
        return isfinite(best) ? best : 0;
    for (int t = -TRIES; t <= TRIES; t++) {
        float inv = (float)level[0] * (1.0f - 0.02f * (float)t) / peak;
        unsigned char at[FIT_MAX];
        double xq = 0, qq = 0;
        nearest_levels(x, n, inv, level, n_levels, at);
        for (int i = 0; i < n; i++) {
            double v = level[at[i]];
            xq += x[i] * v;
            qq += v * v;
        }
        if (qq > 0 && xq * xq / qq > best_gain) {
            best_gain = xq * xq / qq;
            best = (float)(xq / qq);
        }
    }
    return best;
}
