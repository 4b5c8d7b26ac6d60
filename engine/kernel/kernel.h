/*
 * kernel.h - arithmetic on rows, behind one table.
 *
 * Callers see matrices and rows of floats; which instruction set runs, whether weights
 * are read as they lie in the file or from a repacked copy, and whether activations are
 * quantised on the way is decided here, once, when the kernels are opened.
 *
 * Weights in floats are multiplied in floats; quantised ones in whole numbers, with rows
 * of activations rounded to int8 (int8.h), but where a caller asks for floats.
 *
 * Determinism, which every implementation keeps:
 *   - each output element is computed by one thread, in one fixed order of additions;
 *   - y[i][r] depends on row i of x and row r of w alone: not on n, not on the other
 * rows, not on the number of threads. One row and many give the same bits.
 */
#ifndef ENGINE_KERNEL_KERNEL_H
#define ENGINE_KERNEL_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/pool.h"
#include "engine/weights.h"

/*
 * Rows of activations as matmul reads them: the floats, and beside them whatever form the
 * weight's type wants (int8 blocks, say), made once per batch of rows by pack().
 */
struct acts {
    const float *x; /* row i starts at x + i * ldx */
    size_t ldx;
    const uint8_t *packed; /* row i at packed + i * ldp; unused where pack_bytes() is 0 */
    size_t ldp;
    const uint32_t *pick; /* use row pick[i] as the i-th; NULL = all in order */
    const void *next;     /* memory that will be read afterwards, if known: asked for early */
};

/*
 * What differs by instruction set; every function is single-threaded. ref.c is the
 * meaning, and tests hold the others to it.
 */
struct kernel_ops {
    const char *name; /* "exact", "ref", "neon", "avx2", "avx512", "avx512bf16" */

    /* sum_i a[i] * b[i] */
    float (*dot)(const float *a, const float *b, size_t n);
    /* y[i] += a * x[i] */
    void (*axpy)(float *y, float a, const float *x, size_t n);
    /* out = w .* x / sqrt(mean(x^2) + eps); out may be x */
    void (*rmsnorm)(float *out, const float *x, const float *w, size_t n, float eps);
    /* g[i] = silu(g[i]) * u[i] */
    void (*swiglu)(float *g, const float *u, size_t n);
    /* n stored elements of any block type (but E4M3, which has scales apart) as floats */
    void (*widen)(uint32_t type, float *y, const void *x, size_t n);

    /* Bytes of one packed row of `cols` activations for weights of `type`; 0 = floats. There
     * is one packing: rows packed for one type serve every other that wants any. */
    size_t (*pack_bytes)(uint32_t type, uint64_t cols);
    void (*pack)(uint32_t type, const float *x, uint64_t cols, void *out);
    /*
     * y[i * ldy + (r - first)] = w[r] . x[i]   rows first..last-1 of w, n rows of x
     * as int8.h says where w wants packed rows and x has them, else in floats
     * work: KERNEL_WORK(w->ne[0]) bytes, 64-byte aligned, this thread's own.
     */
    void (*matmul)(const struct tensor *w, uint64_t first, uint64_t last,
                   const struct acts *x, uint32_t n, float *y, size_t ldy, void *work);

    /* Reads n bytes (a multiple of 256, 64-byte aligned) as fast as this machine can, for
     * measurements; returns some sum of them, so that no compiler leaves them out. */
    uint64_t (*read)(const void *p, size_t n);
    /* Multiply-adds on registers alone, as many as this machine can: the roof over matmul of
     * quantised weights and of floats. Return how many `rounds` were. */
    uint64_t (*mac_int8)(uint64_t rounds);
    uint64_t (*mac_f32)(uint64_t rounds);
};
/* Room for 8 rows as floats, or 16 as codes with their scales in whole chunks of 256. */
#define KERNEL_WORK(cols) ((((size_t)(cols) + 15) & ~(size_t)15) * 8 * sizeof(float) + 8192)

/*
 * The table for this machine; AGENTD_KERNEL=exact|ref|neon|avx2|avx512|avx512bf16
 * in the environment overrides. "exact" is ref without the rounding of activations: what
 * weights of any type give in plain floats.
 */
const struct kernel_ops *kernel_best(void);
extern const struct kernel_ops kernel_ref, kernel_exact;
#if defined(__x86_64__)
extern const struct kernel_ops kernel_avx2, kernel_avx512, kernel_avx512bf16;
#elif defined(__aarch64__)
extern const struct kernel_ops kernel_neon;
#endif
/* The i-th table that this machine can run, best first; NULL behind the last. */
const struct kernel_ops *kernel_list(unsigned i);

/* What a CPU can do, as far as some table asks; no bits: it runs "ref", slowly. */
enum {
    KERNEL_AVX2 = 1,
    KERNEL_FMA = 2,
    KERNEL_F16C = 4,
    KERNEL_AVX512F = 8,
    KERNEL_AVX512BW = 16,
    KERNEL_AVX512VL = 32,
    KERNEL_AVX512DQ = 64,
    KERNEL_AVX512VNNI = 128,
    KERNEL_AVX512BF16 = 256,
    KERNEL_DOTPROD = 512,
    KERNEL_CPU_ALL = 1023
};
uint32_t kernel_cpu(void);
/* The i-th table of that name (NULL: any) which a CPU with these bits can run, or NULL. */
const struct kernel_ops *kernel_choose(uint32_t cpu, const char *name, unsigned i);

/* --- parallel forms ------------------------------------------------------------------------ */

struct kernel;

/* Scratch for `max_rows` rows through any matrix of the model; borrows both for its life. */
NODISCARD int kernel_open(struct kernel **out, const struct weights *w, struct pool *pool,
                          uint32_t max_rows, struct err *err);
void kernel_close(struct kernel *k);
const struct kernel_ops *kernel_ops(const struct kernel *k);
struct pool *kernel_pool(const struct kernel *k);

/* y[i * ldy + r] = w[r] . x[i], n rows. The second form: activations as floats. */
void kernel_matmul_exact(struct kernel *k, const struct tensor *w, const float *x,
                         size_t ldx, uint32_t n, float *y, size_t ldy);
void kernel_matmul(struct kernel *k, const struct tensor *w, const float *x, size_t ldx,
                   uint32_t n, float *y, size_t ldy);
/* Several matrices on the same rows at once: packed once, one round of the pool. */
enum { KERNEL_PARTS_MAX = 4 };
struct kernel_part {
    const struct tensor *w;
    float *y;
    size_t ldy;
    bool exact; /* activations as floats whatever the type: for what decides, not sums */
};
void kernel_matmul_parts(struct kernel *k, const struct kernel_part *part,
                         uint32_t n_parts, const float *x, size_t ldx, uint32_t n);
/*
 * Inside a pool job, on thread `thread` alone, for the matrices between heads and latents
 * (at most kv_lora_rank, v or nope rows). As near to floats as makes no difference: what the
 * rounding of activations leaves over is multiplied too.
 */
void kernel_matmul_local(struct kernel *k, uint32_t thread, const struct tensor *w,
                         const float *x, size_t ldx, uint32_t n, float *y, size_t ldy);

/*
 * y[i] = sum_j weight[i][j] * ffn(experts[pick[i][j]], x[i]) + ffn(all, x[i])
 *
 * with ffn(x) = down(silu(gate x) .* up x). Rows are bucketed by expert, so that each
 * expert's weights are read once; per row the experts add in ascending id, `all` (a shared
 * expert, or with n_used = 0 a dense layer's FFN) last. Experts are all of one type each for
 * gate, up and down.
 */
struct kernel_moe {
    const struct ffn_weights *experts, *all; /* all may be NULL */
    uint32_t n_experts, n_used;
    const uint32_t *pick; /* (n, n_used), ascending in each row */
    const float *weight;  /* (n, n_used) */
};
void kernel_moe(struct kernel *k, const struct kernel_moe *m, const float *x, size_t ldx,
                uint32_t n, float *y, size_t ldy);

#endif
