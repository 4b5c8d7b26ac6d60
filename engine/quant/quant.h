/*
 * quant.h - the storage types of weights: how many elements make a block, how many bytes a
 * block takes, and both ways between a row of blocks and a row of floats.
 *
 * The layouts are GGML's, field by field; each file in this folder is one of them and opens
 * with its formula. dequantize() is the meaning of a type: a fast kernel has to agree with
 * it. quantize() picks codes for a small squared error, is deterministic, and belongs to
 * the converter.
 */
#ifndef ENGINE_QUANT_QUANT_H
#define ENGINE_QUANT_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/str.h"

/* GGML's numbers; those from 256 are ours alone and never stand in a GGUF file. */
enum quant_type {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q4_1 = 3,
    QUANT_Q5_0 = 6,
    QUANT_Q5_1 = 7,
    QUANT_Q8_0 = 8,
    QUANT_Q2_K = 10,
    QUANT_Q3_K = 11,
    QUANT_Q4_K = 12,
    QUANT_Q5_K = 13,
    QUANT_Q6_K = 14,
    QUANT_IQ4_NL = 20,
    QUANT_IQ4_XS = 23,
    QUANT_BF16 = 30,
    QUANT_MXFP4 = 39,
    QUANT_F8_E4M3 = 256, /* safetensors: bytes here, 128x128 scales beside them */
    /* Types a safetensors file may list and no layer may use: named, without traits. */
    QUANT_F8_E8M0 = 257, /* 2^(b-127): scales of some files */
    QUANT_OTHER = 258,
};

struct quant_traits {
    const char *name; /* "q8_0": GGML's spelling in lower case */
    uint32_t type;    /* enum quant_type */
    uint32_t block;   /* elements per block */
    uint32_t bytes;   /* bytes per block */
    /* n elements, n a multiple of `block`; `x` needs no alignment. */
    void (*dequantize)(float *y, const void *x, size_t n);
    /* The inverse. Finite input; NaN gives some code, never undefined behaviour. */
    void (*quantize)(void *y, const float *x, size_t n);
};

/* The row of the table, or NULL for a type we do not read. */
const struct quant_traits *quant_traits(uint32_t type);
/* By name, case ignored ("Q8_0", "bf16"), or NULL. */
const struct quant_traits *quant_find(struct str name);
/* All rows, *n of them, for listings. */
const struct quant_traits *const *quant_list(unsigned *n);
/* GGML's name of a type number, ours or not ("iq2_xxs"), or NULL: for error sentences. */
const char *quant_type_name(uint32_t type);

/* Bytes of a row of n elements: false when n is not whole blocks or the size overflows. */
NODISCARD bool quant_row_bytes(const struct quant_traits *t, uint64_t n, uint64_t *bytes);

/* e4m3 (OCP, no infinities). Encoding rounds to nearest even, saturates to +-448, keeps
 * the sign of zero and gives 0x7f for NaN. Decoding 0x7f and 0xff gives NaN. */
float quant_f8_decode(uint8_t b);
uint8_t quant_f8_encode(float x);
/*
 * One row of block-scaled e4m3: y[i] = e4m3(x[i]) * scale[i / 128], i = 0..n-1. `scale` is
 * the row of the scale grid that covers this weight row (row / 128); n need not be whole
 * blocks. The scale multiplies, whatever "weight_scale_inv" suggests.
 */
void quant_f8_row(float *y, const uint8_t *x, const float *scale, size_t n);

/* One object per type, each in its own file; quant.c lists them. */
extern const struct quant_traits quant_f32, quant_f16, quant_bf16, quant_f8_e4m3;
extern const struct quant_traits quant_q8_0, quant_q4_0, quant_q4_1, quant_q5_0, quant_q5_1;
extern const struct quant_traits quant_q2_k, quant_q3_k, quant_q4_k, quant_q5_k, quant_q6_k;
extern const struct quant_traits quant_iq4_nl, quant_iq4_xs, quant_mxfp4;

#endif
