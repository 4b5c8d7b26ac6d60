/*
 * model.h - looking into a model without serving it: what `agentctl model` needs beyond
 * engine.h. Together the two are all that the client may include of the engine.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "engine/engine.h"

/* --- model files ------------------------------------------------------------------------ */

/*
 * What a model is, as one JSON object (owned by the caller): its numbers, the rule that read
 * them, tensors by type, bytes read per token, memory per context length. check: every
 * element is read as well, and one that is not finite is an error.
 */
NODISCARD int model_info(json_t **out, const char *path, bool check,
                         void (*progress)(void *arg, double done), void *arg,
                         struct err *err);

struct model_convert_rule {
    const char *pattern; /* of GGUF tensor names, as in fnmatch(3) */
    const char *type;
};
struct model_convert {
    const char *src;  /* a safetensors folder or a GGUF file */
    const char *dst;  /* GGUF; written as dst.partial, which a later call takes up again */
    const char *type; /* "q8_0", "bf16", ...: of matrices whose rows are whole blocks */
    const char *name; /* general.name; NULL = the source's */
    const struct model_convert_rule *rule; /* the last that matches wins */
    unsigned n_rules;
    /* Bytes of tensor data written, of all; `resumed` of them by an earlier call. */
    void (*progress)(void *arg, uint64_t done, uint64_t total, uint64_t resumed);
    void *arg;
};
NODISCARD int model_convert(const struct model_convert *o, struct err *err);
/* The i-th name that `type` may be; NULL behind the last. */
const char *model_type_name(unsigned i);

struct model_make_test {
    const char *dir;
    const char *variant; /* "tiny-v32", "tiny-glm", "tiny-dense", "tiny-softmax" */
    bool fp8;            /* matrices of layers as e4m3 with 128x128 scales */
    unsigned n_shards;   /* 0 and 1: one file without an index */
};
NODISCARD int model_make_test(const struct model_make_test *o, struct err *err);

/*
 * A model of random weights in the shape of a real one, for measurements. Each weight is a
 * formula of seed, tensor name and place: files of one size and seed share every tensor that
 * their architectures have in common. No vocabulary: it takes token ids.
 */
struct model_make_random {
    const char *dst;  /* GGUF; written as dst.partial, as by model_convert() */
    const char *size; /* "tiny", "small", "mid" */
    const char *arch; /* "deepseek32", "deepseek2" (dense attention), "glm-dsa" */
    const char *type; /* as model_convert.type */
    uint64_t seed;
    void (*progress)(void *arg, uint64_t done, uint64_t total, uint64_t resumed);
    void *arg;
};
NODISCARD int model_make_random(const struct model_make_random *o, struct err *err);

/* --- this machine ------------------------------------------------------------------------- */

/* The instructions that matrices are multiplied with here: "avx512", "avx2", or "ref" for
 * plain C where the processor has neither; AGENTD_KERNEL chooses among what it has. */
const char *model_kernels(void);

/* Bytes per second that n_threads (0 = all cores) read from memory together: the best of
 * `passes` over a buffer no cache holds. */
NODISCARD int model_read_rate(double *out, uint32_t n_threads, uint32_t passes,
                              struct err *err);

/* The same over the pages of a model's file, as they lie in the page cache: memory is not
 * equally fast everywhere. 0 for a folder, or a file that may fit caches. */
NODISCARD int model_file_read_rate(double *out, const char *path, uint32_t n_threads,
                                   uint32_t passes, struct err *err);
/* Multiply-adds per second that they do in registers: of int8 and of floats. */
NODISCARD int model_multiply_rate(double *int8, double *f32, uint32_t n_threads,
                                  uint32_t passes, struct err *err);

struct engine_seq;
/* Appends n positions of random rows, as many as a prefill would leave and at once: for
 * measuring at a depth. What the model then says means nothing. */
NODISCARD int model_fill_noise(struct engine_seq *s, uint32_t n, uint64_t seed,
                               struct err *err);

/* --- tokens without weights ------------------------------------------------------------- */

struct model_tokens;
/* path: a tokenizer.json, a folder that has one, or a GGUF file. */
NODISCARD int model_tokens_open(struct model_tokens **out, const char *path, struct err *err);
void model_tokens_close(struct model_tokens *t);
typedef int model_id_fn(void *arg, int32_t id, struct err *err);
/* special: literals of added tokens become their ids; without it they are plain text. */
NODISCARD int model_tokens_encode(struct model_tokens *t, struct str text, bool special,
                                  model_id_fn *fn, void *arg, struct err *err);
/* The bytes that a token stands for, borrowed; empty for an id out of range. */
struct str model_tokens_bytes(const struct model_tokens *t, int32_t id);
uint32_t model_tokens_count(const struct model_tokens *t);

/* --- looking at a forward pass ---------------------------------------------------------- */

/* One query's selection in one layer, as it is made. Arrays live for the call. */
struct model_selected {
    uint32_t layer, pos;
    const uint32_t *set; /* n_set ascending positions */
    uint32_t n_set;
    const float *scores; /* of positions 0..pos */
};
typedef void model_selected_fn(void *arg, const struct model_selected *s);
/* Calls fn for every row and indexed layer of every later step; NULL switches it off. While
 * it is on, scores are computed even where all positions would be selected anyway. */
void model_watch_selection(struct engine *e, model_selected_fn *fn, void *arg);

/*
 * The MTP layer's logits for rows 0..len-2 of a seq (row i reads position i and token i+1,
 * and predicts token i+2): calls fn for each row in order. Needs engine_opts.mtp.
 */
typedef int model_logits_fn(void *arg, uint32_t pos, const float *logits, struct err *err);
NODISCARD int model_mtp_logits(struct engine *e, const int32_t *tok, uint32_t n,
                               model_logits_fn *fn, void *arg, struct err *err);

#endif
