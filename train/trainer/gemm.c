/* gemm.c - packed bf16 matrix products (see gemm.h).
 *
 * Tile: 12 rows by 32 columns of f32 sums in 24 registers; one step takes two terms of the inner
 * dimension. The left operand is kept row-major (stride AMS) or, for transposed sources, as
 * [K/2][12]; the right operand as panels of 32 columns. Odd inner sizes are padded with zeros.
 */
#include "gemm.h"
#include "simd.h"

#include <stdlib.h>
#include <string.h>

#define MR 12
#define KC 512 /* terms per pass: a right panel of 32 KiB stays in L1 */
#define MC 480 /* rows per left block: 480 * 1056 bytes stay in L2 */
#define AMS 264

int gemm_exact;

static _Thread_local uint32_t *apk;
static _Thread_local struct bpack tmp_b;

static void *xalloc(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!p)
        abort();
    return p;
}

/* one row of K floats to K/2 pairs */
static inline void cvt_row(uint32_t *d, const float *s, int K)
{
    int k = 0;
    for (; k + 32 <= K; k += 32)
        v16_storei(d + k / 2,
                            v16_narrow2(v16_load(s + k), v16_load(s + k + 16)));
    if (k < K) {
        int r = K - k;
        v16m m0 = r >= 16 ? 0xffff : (v16m)((1u << r) - 1);
        v16m m1 = r > 16 ? (v16m)((1u << (r - 16)) - 1) : 0;
        v16i v = v16_narrow2(v16_load_if(m0, s + k), v16_load_if(m1, s + k + 16));
        v16_storei_if(d + k / 2, (v16m)((1u << ((r + 1) / 2)) - 1), v);
    }
}

#ifdef SIMD_NATIVE
#define KERNEL(NAME, NZ, ROW, STEP)                                                               \
    static inline void NAME(int K2, const uint32_t *a, const uint32_t *b, v16f acc[MR][NZ])       \
    {                                                                                             \
        _Pragma("GCC unroll 12") for (int i = 0; i < MR; i++)                                     \
            _Pragma("GCC unroll 2") for (int z = 0; z < NZ; z++) acc[i][z] = v16_zero();          \
        for (int k = 0; k < K2; k++, b += 32) {                                                   \
            v16i bv[NZ];                                                                          \
            _Pragma("GCC unroll 2") for (int z = 0; z < NZ; z++) bv[z] = v16_loadi(b + 16 * z);   \
            _Pragma("GCC unroll 12") for (int i = 0; i < MR; i++)                                 \
            {                                                                                     \
                v16i av = v16_set1i((int)a[i * ROW + k * STEP]);                                  \
                _Pragma("GCC unroll 2") for (int z = 0; z < NZ; z++)                              \
                    acc[i][z] = v16_dot(acc[i][z], av, bv[z]);                                    \
            }                                                                                     \
        }                                                                                         \
    }
#else
#ifdef __AVX__
#define PV 8
#else
#define PV 4
#endif
typedef float vpf __attribute__((vector_size(4 * PV)));
typedef uint32_t vpu __attribute__((vector_size(4 * PV)));

/* The tile in plain f32, four rows by two vectors at a time: what sixteen registers hold. The left operand is unpacked first; a bf16 is the upper half of an f32. */
static void plain(int K2, const uint32_t *a, int row, int step, const uint32_t *b, int width,
                  float *out)
{
    static _Thread_local float f[MR][KC + 2];
    for (int i = 0; i < MR; i++)
        for (int k = 0; k < K2; k++) {
            uint32_t pair = a[i * row + k * step], half[2] = {pair << 16, pair & 0xffff0000u};
            memcpy(&f[i][2 * k], half, sizeof half);
        }
    for (int n = 0; n < width; n += 2 * PV)
        for (int i = 0; i < MR; i += 4) {
            vpf acc[4][2] = {{{0}}};
            for (int k = 0; k < K2; k++) {
                vpu p, q;
                memcpy(&p, b + (size_t)k * 32 + n, sizeof p);
                memcpy(&q, b + (size_t)k * 32 + n + PV, sizeof q);
                vpf lo[2] = {(vpf)(p << 16), (vpf)(q << 16)};
                vpf hi[2] = {(vpf)(p & 0xffff0000u), (vpf)(q & 0xffff0000u)};
                _Pragma("GCC unroll 4") for (int r = 0; r < 4; r++)
                {
                    float x = f[i + r][2 * k], y = f[i + r][2 * k + 1];
                    acc[r][0] += x * lo[0];
                    acc[r][1] += x * lo[1];
                    acc[r][0] += y * hi[0];
                    acc[r][1] += y * hi[1];
                }
            }
            for (int r = 0; r < 4; r++)
                memcpy(out + (i + r) * width + n, acc[r], sizeof acc[r]);
        }
}

#define KERNEL(NAME, NZ, ROW, STEP)                                                               \
    static inline void NAME(int K2, const uint32_t *a, const uint32_t *b, v16f acc[MR][NZ])       \
    {                                                                                             \
        plain(K2, a, ROW, STEP, b, 16 * NZ, (float *)acc);                                        \
    }
#endif

KERNEL(kern_row2, 2, AMS, 1)
KERNEL(kern_row1, 1, AMS, 1)
KERNEL(kern_col2, 2, 1, MR)
KERNEL(kern_col1, 1, 1, MR)

static inline void put(float *c, v16f v, v16m m, int acc)
{
    if (acc)
        v = v16_add(v, v16_load_if(m, c));
    v16_store_if(c, m, v);
}

/* all panels of one packed left block (M rows) against a packed right side */
static void core(int M, int N, int K2, int col, const uint32_t *a, const uint32_t *b, int bstride,
                 float *C, int ldc, int acc)
{
    for (int n = 0; n < N; n += 32) {
        int w = N - n;
        const uint32_t *bp = b + (size_t)(n / 32) * bstride;
        v16m m0 = w >= 16 ? 0xffff : (v16m)((1u << w) - 1);
        if (w <= 16) {
            for (int m = 0; m < M; m += MR) {
                v16f t[MR][1];
                const uint32_t *ap = a + (size_t)(m / MR) * MR * AMS;
                if (col)
                    kern_col1(K2, ap, bp, t);
                else
                    kern_row1(K2, ap, bp, t);
                for (int i = 0; i < MR && m + i < M; i++)
                    put(C + (size_t)(m + i) * ldc + n, t[i][0], m0, acc);
            }
            continue;
        }
        v16m m1 = w >= 32 ? 0xffff : (v16m)((1u << (w - 16)) - 1);
        for (int m = 0; m < M; m += MR) {
            v16f t[MR][2];
            const uint32_t *ap = a + (size_t)(m / MR) * MR * AMS;
            if (col)
                kern_col2(K2, ap, bp, t);
            else
                kern_row2(K2, ap, bp, t);
            if (m + MR <= M) {
                _Pragma("GCC unroll 12") for (int i = 0; i < MR; i++)
                {
                    float *c = C + (size_t)(m + i) * ldc + n;
                    put(c, t[i][0], m0, acc);
                    put(c + 16, t[i][1], m1, acc);
                }
            } else {
                for (int i = 0; m + i < M; i++) {
                    float *c = C + (size_t)(m + i) * ldc + n;
                    put(c, t[i][0], m0, acc);
                    put(c + 16, t[i][1], m1, acc);
                }
            }
        }
    }
}

static void apack_row(int M, int K, const float *A, int lda)
{
    if (!apk)
        apk = xalloc((size_t)(MC + MR) * AMS * 4);
    for (int m = 0; m < M; m++)
        cvt_row(apk + (size_t)m * AMS, A + (size_t)m * lda, K);
    for (int m = M; m % MR; m++)
        memset(apk + (size_t)m * AMS, 0, (size_t)(K + 1) / 2 * 4);
}

/* A[K][M]: rows k and k+1 interleave into [K/2][12] panels */
static void apack_col(int M, int K, const float *A, int lda)
{
    if (!apk)
        apk = xalloc((size_t)(MC + MR) * AMS * 4);
    for (int m = 0; m < M; m += MR) {
        uint32_t *d = apk + (size_t)m * AMS;
        int w = M - m < MR ? M - m : MR;
        v16m mm = (v16m)((1u << w) - 1);
        for (int k = 0; k < K; k += 2) {
            const float *s = A + (size_t)k * lda + m;
            v16f lo = v16_load_if(mm, s);
            v16f hi = k + 1 < K ? v16_load_if(mm, s + lda) : v16_zero();
            v16_storei_if(d + k / 2 * MR, 0xfff, v16_pair(lo, hi));
        }
    }
}

static void breserve(struct bpack *b, int N, int K)
{
    int need = (N + 31) / 32 * 32 * ((K + 1) / 2);
    if (need > b->cap) {
        free(b->p);
        b->cap = need + need / 2;
        b->p = xalloc((size_t)b->cap * 4);
    }
    b->N = N;
    b->K = K;
}

void bpack_kn(struct bpack *b, int N, int K, const float *B, int ldb)
{
    b->src = B;
    b->ld = ldb;
    b->trans = 0;
    breserve(b, N, K);
    if (gemm_exact)
        return;
    int K2 = (K + 1) / 2;
    for (int n = 0; n < N; n += 16) {
        uint32_t *d = b->p + (size_t)(n / 32) * 32 * K2 + n % 32;
        v16m mm = N - n >= 16 ? 0xffff : (v16m)((1u << (N - n)) - 1);
        for (int k = 0; k < K; k += 2) {
            const float *s = B + (size_t)k * ldb + n;
            v16f lo = v16_load_if(mm, s);
            v16f hi = k + 1 < K ? v16_load_if(mm, s + ldb) : v16_zero();
            v16_storei(d + (size_t)k / 2 * 32, v16_pair(lo, hi));
        }
    }
}

void bpack_nk(struct bpack *b, int N, int K, const float *B, int ldb)
{
    b->src = B;
    b->ld = ldb;
    b->trans = 1;
    breserve(b, N, K);
    if (gemm_exact)
        return;
    int K2 = (K + 1) / 2;
    uint32_t row[16][16];
    for (int n = 0; n < N; n += 16) {
        uint32_t *d = b->p + (size_t)(n / 32) * 32 * K2 + n % 32;
        int h = N - n < 16 ? N - n : 16;
        for (int k = 0; k < K; k += 32) {
            int w = K - k < 32 ? K - k : 32;
            memset(row, 0, sizeof row);
            for (int i = 0; i < h; i++)
                cvt_row(row[i], B + (size_t)(n + i) * ldb + k, w);
            for (int j = 0; j < (w + 1) / 2; j++)
                v16_storei(d + (size_t)(k / 2 + j) * 32,
                                    v16_column(&row[0][j]));
        }
    }
}

static void exact(int M, int N, int K, const float *A, int am, int ak, const float *B, int bn,
                  int bk, float *C, int ldc, int acc)
{
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            double s = 0;
            for (int k = 0; k < K; k++)
                s += (double)A[(size_t)m * am + (size_t)k * ak] *
                     (double)B[(size_t)n * bn + (size_t)k * bk];
            C[(size_t)m * ldc + n] = (float)(acc ? s + (double)C[(size_t)m * ldc + n] : s);
        }
}

void gemm_packed(int M, int N, int K, const float *A, int lda, const struct bpack *b, float *C,
                 int ldc, int acc)
{
    if (gemm_exact) {
        exact(M, N, K, A, lda, 1, b->src, b->trans ? b->ld : 1, b->trans ? 1 : b->ld, C, ldc,
              acc);
        return;
    }
    int K2 = (b->K + 1) / 2;
    for (int k = 0; k < K; k += KC) {
        int kc = K - k < KC ? K - k : KC;
        for (int m = 0; m < M; m += MC) {
            int mc = M - m < MC ? M - m : MC;
            apack_row(mc, kc, A + (size_t)m * lda + k, lda);
            core(mc, N, (kc + 1) / 2, 0, apk, b->p + (size_t)k / 2 * 32, 32 * K2,
                 C + (size_t)m * ldc, ldc, acc || k);
        }
    }
}

void gemm_nt(int M, int N, int K, const float *A, int lda, const float *B, int ldb, float *C,
             int ldc, int acc)
{
    bpack_nk(&tmp_b, N, K, B, ldb);
    gemm_packed(M, N, K, A, lda, &tmp_b, C, ldc, acc);
}

void gemm_nn(int M, int N, int K, const float *A, int lda, const float *B, int ldb, float *C,
             int ldc, int acc)
{
    bpack_kn(&tmp_b, N, K, B, ldb);
    gemm_packed(M, N, K, A, lda, &tmp_b, C, ldc, acc);
}

void gemm_tn(int M, int N, int K, const float *A, int lda, const float *B, int ldb, float *C,
             int ldc, int acc)
{
    if (gemm_exact) {
        exact(M, N, K, A, 1, lda, B, 1, ldb, C, ldc, acc);
        return;
    }
    if (K == 0)
        return;
    for (int k = 0; k < K; k += KC) {
        int kc = K - k < KC ? K - k : KC;
        bpack_kn(&tmp_b, N, kc, B + (size_t)k * ldb, ldb);
        for (int m = 0; m < M; m += MC) {
            int mc = M - m < MC ? M - m : MC;
            apack_col(mc, kc, A + (size_t)k * lda + m, lda);
            core(mc, N, (kc + 1) / 2, 1, apk, tmp_b.p, 32 * ((kc + 1) / 2), C + (size_t)m * ldc,
                 ldc, acc || k);
        }
    }
}
