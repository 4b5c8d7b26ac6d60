/*
 * weights.h - tensor name -> place in the model. Opening maps the file and checks every
 * shape and type once, here; nothing is copied but small scale tables.
 */
#ifndef ENGINE_WEIGHTS_H
#define ENGINE_WEIGHTS_H

#include "base/err.h"
#include "engine/hparams.h"
#include "engine/tensor.h"

struct stat;

struct tokenizer;

/* A gated FFN: down(silu(gate x) .* up x). */
struct ffn_weights {
    struct tensor gate, up, down;
};

/* Matrices are {inputs, outputs}; vectors are {n} and F32, BF16 or F16. */
struct layer_weights {
    struct tensor attn_norm, ffn_norm;
    struct tensor q_a, q_a_norm, q_b; /* or q alone without q_lora_rank */
    struct tensor q;
    struct tensor kv_a, kv_a_norm;
    /*
     * Either kv_b, {kv_lora_rank, n_heads * (nope + v)}, head h's rows being K then V; or
     * the split form of GGUF: k_b {nope, kv_lora_rank, n_heads} (already transposed: row
     * c of a head maps q_nope to its absorbed c) and v_b {kv_lora_rank, v, n_heads}.
     */
    struct tensor kv_b, k_b, v_b;
    struct tensor o;
    struct tensor index_q_b, index_k, index_k_norm, index_k_norm_bias,
        index_proj;         /* full only */
    struct ffn_weights mlp; /* dense layers */
    struct tensor router, router_bias;
    struct ffn_weights *experts; /* n_routed_experts 2-D views; owned by struct weights */
    struct ffn_weights shared;
};

struct mtp_weights {
    struct tensor enorm, hnorm; /* {dim} */
    struct tensor eh_proj;      /* {2 dim, dim}: [embedding ; hidden] */
    struct tensor norm;         /* shared_head.norm */
    struct tensor embed, head;  /* the main ones where the file has none */
};

struct weights {
    struct hparams hp;
    const char *path, *name;         /* name: general.name, or the folder's */
    struct tensor embed, norm, head; /* head = embed when tied */
    struct layer_weights *layer;     /* n_layers + n_mtp_layers */
    struct mtp_weights mtp;
    uint8_t fingerprint[16];   /* of hparams, tensor table and samples of the data */
    struct weights_file *file; /* the mapping and its owner, private to weights.c */
};

/* path: a GGUF file (the first part), or a folder with config.json and safetensors. */
NODISCARD int weights_open(struct weights **out, const char *path, struct err *err);
/*
 * Are the files still what was opened? -ERR_CORRUPT: one was cut or rewritten meanwhile, and
 * anything computed since the last good check is worth nothing. One fstat per file.
 */
NODISCARD int weights_check(const struct weights *w, struct err *err);
/* Is this one of the files that hold them? */
bool weights_reads(const struct weights *w, const struct stat *st);
void weights_close(struct weights *w);
/* The model's tokenizer; -ERR_NOTFOUND when the files hold none. */
NODISCARD int weights_tokenizer(struct tokenizer **out, const struct weights *w,
                                struct err *err);

#endif
