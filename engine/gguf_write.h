/*
 * gguf_write.h - the header of a GGUF file of version 3, built in memory: keys, then tensor
 * infos, then padding. The data follows, tensor after tensor, each padded to GGUF_ALIGN.
 */
#ifndef ENGINE_GGUF_WRITE_H
#define ENGINE_GGUF_WRITE_H

#include "base/buf.h"
#include "engine/quant/quant.h"

enum { GGUF_ALIGN = 32 };

struct gguf_head {
    struct buf kv, info; /* owned; sticky failure, checked by gguf_head_finish() */
    uint64_t n_kv, n_tensors;
    uint64_t data_bytes; /* so far, padded */
};

void gguf_head_init(struct gguf_head *h);
void gguf_head_done(struct gguf_head *h);

void gguf_put_u32(struct gguf_head *h, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_head *h, const char *key, float v);
void gguf_put_bool(struct gguf_head *h, const char *key, bool v);
void gguf_put_str(struct gguf_head *h, const char *key, struct str v);
void gguf_put_strs(struct gguf_head *h, const char *key, const struct str *v, uint32_t n);
void gguf_put_i32s(struct gguf_head *h, const char *key, const int32_t *v, uint32_t n);
void gguf_put_bools(struct gguf_head *h, const char *key, const bool *v, uint32_t n);
/* Returns the tensor's offset in the data. */
uint64_t gguf_put_tensor(struct gguf_head *h, const char *name, uint32_t type,
                         uint32_t n_dims, const uint64_t *ne, uint64_t bytes);
/* The whole header, padded: the data begins where `out` ends. */
NODISCARD int gguf_head_finish(const struct gguf_head *h, struct buf *out, struct err *err);

#endif
