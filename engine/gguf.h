/*
 * gguf.h - a GGUF file of version 2 or 3, in one part or many, mapped and checked: metadata
 * by key, tensors by name. Every count, offset, length and type is compared with the file
 * before it is used; data is not read.
 */
#ifndef ENGINE_GGUF_H
#define ENGINE_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/tensors.h"

struct stat;

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
    GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64,
};

struct gguf_kv {
    struct str key;
    uint32_t type;       /* enum gguf_type; of the elements when is_array */
    bool is_array;
    uint64_t n;          /* elements; 1 when not an array */
    const uint8_t *data; /* borrowed from the mapping: n values one after another */
};

struct gguf;

/* `path` is the only part or the first one ("...-00001-of-000NN.gguf"). */
NODISCARD int gguf_open(struct gguf **out, const char *path, struct err *err);
/* The same over bytes in memory (one part), which must outlive it; for fuzzing. */
NODISCARD int gguf_parse(struct gguf **out, const uint8_t *p, uint64_t n, struct err *err);
/* Are the files still what was opened? See mapfile_check(). */
NODISCARD int gguf_check(const struct gguf *g, struct err *err);
/* Is this one of its files? */
bool gguf_reads(const struct gguf *g, const struct stat *st);
void gguf_close(struct gguf *g);

uint32_t gguf_version(const struct gguf *g);
const struct tensors *gguf_tensors(const struct gguf *g);
uint64_t gguf_n_kv(const struct gguf *g);
const struct gguf_kv *gguf_kv_at(const struct gguf *g, uint64_t i);
/* NULL when absent. */
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);

/*
 * Typed reads: absent leaves *out alone and returns 0, a present value of another kind is
 * -ERR_PARSE and one out of range -ERR_LIMIT, both naming the key. Integers of any width and
 * sign convert, integers convert to numbers, and a bool is also an integer 0 or 1.
 */
NODISCARD int gguf_int(const struct gguf *g, const char *key, int64_t lo, int64_t hi,
                       int64_t *out, struct err *err);
NODISCARD int gguf_num(const struct gguf *g, const char *key, double *out, struct err *err);
NODISCARD int gguf_bool(const struct gguf *g, const char *key, bool *out, struct err *err);
NODISCARD int gguf_str(const struct gguf *g, const char *key, struct str *out,
                       struct err *err);
/* Element i of a numeric value or array, i < kv->n; false when it is not an integer. */
bool gguf_int_at(const struct gguf_kv *kv, uint64_t i, int64_t *out);
/* All strings of an array into out[kv->n]; views borrowed from the mapping. */
NODISCARD int gguf_strings(const struct gguf_kv *kv, struct str *out, struct err *err);

#endif
