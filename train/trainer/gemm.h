/* gemm.h - bf16 matrix products with f32 sums, for one thread.
 *
 * All matrices are row-major f32 in memory; operands are rounded to bf16 while they are packed
 * (vdpbf16ps multiplies them), sums stay f32. gemm_exact = 1 replaces everything by plain f32
 * loops: the definition the fast path is tested against, used for gradient checks and parity.
 */
#ifndef TRAIN_GEMM_H
#define TRAIN_GEMM_H

#include <stdint.h>

extern int gemm_exact;

/* C[M][N] (+)= A[M][K] B[N][K]^T */
void gemm_nt(int M, int N, int K, const float *A, int lda, const float *B, int ldb, float *C,
             int ldc, int acc);
/* C[M][N] (+)= A[M][K] B[K][N] */
void gemm_nn(int M, int N, int K, const float *A, int lda, const float *B, int ldb, float *C,
             int ldc, int acc);
/* C[M][N] (+)= A[K][M]^T B[K][N] */
void gemm_tn(int M, int N, int K, const float *A, int lda, const float *B, int ldb, float *C,
             int ldc, int acc);

/* A right operand packed once and used for many left blocks (attention keys and values). */
struct bpack {
    uint32_t *p; /* bf16 pairs, [panel of 32 columns][K/2][32] */
    const float *src;
    int ld, N, K, cap, trans;
};
void bpack_nk(struct bpack *b, int N, int K, const float *B, int ldb); /* B[N][K] */
void bpack_kn(struct bpack *b, int N, int K, const float *B, int ldb); /* B[K][N] */
/* C[M][N] (+)= A[M][K] b, only the first N columns and the first K terms (K even or last) */
void gemm_packed(int M, int N, int K, const float *A, int lda, const struct bpack *b, float *C,
                 int ldc, int acc);
#endif
