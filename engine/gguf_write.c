/* gguf_write.c - appends typed values; the counts go in front at the end. */
#include "engine/gguf_write.h"

#include <string.h>

#include "engine/gguf.h"

void gguf_head_init(struct gguf_head *h)
{
    *h = (struct gguf_head){0};
    buf_init(&h->kv, 0);
    buf_init(&h->info, 0);
}

void gguf_head_done(struct gguf_head *h)
{
    buf_done(&h->kv);
    buf_done(&h->info);
}

static void put32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof v);
}

static void put64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof v);
}

static void put_text(struct buf *b, struct str s)
{
    put64(b, s.n);
    buf_str(b, s);
}

static void put_key(struct gguf_head *h, const char *key, uint32_t type)
{
    put_text(&h->kv, str_c(key));
    put32(&h->kv, type);
    h->n_kv++;
}

static void put_array(struct gguf_head *h, const char *key, uint32_t type, uint32_t n)
{
    put_key(h, key, GGUF_ARRAY);
    put32(&h->kv, type);
    put64(&h->kv, n);
}

void gguf_put_u32(struct gguf_head *h, const char *key, uint32_t v)
{
    put_key(h, key, GGUF_U32);
    put32(&h->kv, v);
}

void gguf_put_f32(struct gguf_head *h, const char *key, float v)
{
    put_key(h, key, GGUF_F32);
    buf_add(&h->kv, &v, sizeof v);
}

void gguf_put_bool(struct gguf_head *h, const char *key, bool v)
{
    put_key(h, key, GGUF_BOOL);
    buf_putc(&h->kv, v);
}

void gguf_put_str(struct gguf_head *h, const char *key, struct str v)
{
    put_key(h, key, GGUF_STRING);
    put_text(&h->kv, v);
}

void gguf_put_strs(struct gguf_head *h, const char *key, const struct str *v, uint32_t n)
{
    put_array(h, key, GGUF_STRING, n);
    for (uint32_t i = 0; i < n; i++)
        put_text(&h->kv, v[i]);
}

void gguf_put_i32s(struct gguf_head *h, const char *key, const int32_t *v, uint32_t n)
{
    put_array(h, key, GGUF_I32, n);
    buf_add(&h->kv, v, n * sizeof *v);
}

void gguf_put_bools(struct gguf_head *h, const char *key, const bool *v, uint32_t n)
{
    put_array(h, key, GGUF_BOOL, n);
    for (uint32_t i = 0; i < n; i++)
        buf_putc(&h->kv, v[i]);
}

uint64_t gguf_put_tensor(struct gguf_head *h, const char *name, uint32_t type,
                         uint32_t n_dims, const uint64_t *ne, uint64_t bytes)
{
    uint64_t at = h->data_bytes;
    put_text(&h->info, str_c(name));
    put32(&h->info, n_dims);
    buf_add(&h->info, ne, n_dims * sizeof *ne);
    put32(&h->info, type);
    put64(&h->info, at);
    h->n_tensors++;
    h->data_bytes += (bytes + GGUF_ALIGN - 1) / GGUF_ALIGN * GGUF_ALIGN;
    return at;
}

int gguf_head_finish(const struct gguf_head *h, struct buf *out, struct err *err)
{
    int rc = buf_check(&h->kv, "GGUF metadata", err);
    if (rc == 0)
        rc = buf_check(&h->info, "GGUF tensor list", err);
    if (rc < 0)
        return rc;
    buf_puts(out, "GGUF");
    put32(out, 3);
    put64(out, h->n_tensors);
    put64(out, h->n_kv);
    buf_str(out, buf_view(&h->kv));
    buf_str(out, buf_view(&h->info));
    while (!out->failed && out->len % GGUF_ALIGN != 0)
        buf_putc(out, 0);
    return buf_check(out, "GGUF header", err);
}
