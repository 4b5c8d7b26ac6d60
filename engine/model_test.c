/*
 * model_test.c - writes a deterministic test model as a checkpoint folder: config.json and
 * safetensors, one file or shards with an index, BF16 and F32 or e4m3 with scales.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "engine/model.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"
#include "engine/tensor.h"
#include "engine/testmodel.h"

enum { MAX_SHARDS = 99 };

struct shard {
    json_t *header;  /* owned */
    struct buf data;
};

/* --- tensors ------------------------------------------------------------------------------- */

static int describe(struct shard *s, const char *name, const char *dtype, uint32_t n_dims,
                    const uint64_t *shape, size_t bytes, struct err *err)
{
    json_t *dims = json_array();
    for (uint32_t d = 0; d < n_dims; d++)
        json_array_append_new(dims, json_integer((json_int_t)shape[d]));
    json_t *o = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", dims,
                          "data_offsets", (json_int_t)s->data.len,
                          (json_int_t)(s->data.len + bytes));
    return o && json_object_set_new(s->header, name, o) == 0 ? 0 : err_nomem(err);
}

static int add_floats(struct shard *s, const struct testmodel_tensor *t, const float *x,
                      struct err *err)
{
    size_t n = (size_t)(t->shape[0] * (t->n_dims == 2 ? t->shape[1] : 1));
    const struct quant_traits *q = t->f32 ? &quant_f32 : &quant_bf16;
    int rc = describe(s, t->name, t->f32 ? "F32" : "BF16", t->n_dims, t->shape, n * q->bytes,
                      err);
    uint8_t *to = rc == 0 ? buf_room(&s->data, n * q->bytes) : NULL;
    if (to) {
        q->quantize(to, x, n);
        s->data.len += n * q->bytes;
    }
    return rc;
}

/* Each block of 128x128 is divided by its largest magnitude / 448, made a power of two. */
static int add_fp8(struct shard *s, const struct testmodel_tensor *t, const float *x,
                   struct err *err)
{
    uint64_t rows = t->shape[0], cols = t->shape[1], b = TENSOR_F8_BLOCK;
    uint64_t grid[2] = {(rows + b - 1) / b, (cols + b - 1) / b};
    size_t n_scales = (size_t)(grid[0] * grid[1]);
    char name[128];
    float *scale = mem_array(n_scales, sizeof *scale);
    if (!scale)
        return err_nomem(err);
    for (uint64_t i = 0; i < rows * cols; i++) {
        float *amax = &scale[i / cols / b * grid[1] + i % cols / b];
        *amax = fmaxf(*amax, fabsf(x[i]));
    }
    for (size_t i = 0; i < n_scales; i++)
        scale[i] = exp2f(ceilf(log2f(fmaxf(scale[i], 1e-4f) / 448)));
    snprintf(name, sizeof name, "%s_scale_inv", t->name);
    int rc = describe(s, name, "F32", 2, grid, n_scales * sizeof *scale, err);
    buf_add(&s->data, scale, n_scales * sizeof *scale);
    if (rc == 0)
        rc = describe(s, t->name, "F8_E4M3", 2, t->shape, (size_t)(rows * cols), err);
    for (uint64_t i = 0; i < rows * cols; i++)
        buf_putc(&s->data, (char)quant_f8_encode(
                               x[i] / scale[i / cols / b * grid[1] + i % cols / b]));
    mem_free(scale);
    return rc;
}

/* The projections that real checkpoints keep in e4m3. */
static bool wants_fp8(const char *name)
{
    struct str s = str_c(name);
    return str_ends(s, STR("_proj.weight")) || str_ends(s, STR("_with_mqa.weight")) ||
           str_ends(s, STR("indexer.wq_b.weight")) || str_ends(s, STR("indexer.wk.weight"));
}

static bool is_fp8(const struct model_make_test *o, const struct testmodel_tensor *t)
{
    struct str s = str_c(t->name);
    return o->fp8 && t->n_dims == 2 && wants_fp8(t->name) &&
           !str_ends(s, STR("weights_proj.weight")) && !str_ends(s, STR("eh_proj.weight"));
}

/* --- files --------------------------------------------------------------------------------- */

static int write_file(const char *dir, const char *name, struct str text, struct err *err)
{
    struct buf path;
    buf_init(&path, 4096);
    buf_printf(&path, "%s/%s", dir, name);
    int rc = buf_check(&path, "path", err);
    if (rc == 0)
        rc = io_write_file(buf_cstr(&path), text, 0644, err);
    buf_done(&path);
    return rc;
}

static int write_shard(const char *dir, const char *name, struct shard *s, struct err *err)
{
    struct buf head, file;
    buf_init(&head, 0);
    buf_init(&file, 0);
    int rc = json_write(s->header, &head, err);
    while (rc == 0 && !head.failed && head.len % 8 != 0)
        buf_putc(&head, ' ');
    uint64_t n = head.len;
    buf_add(&file, &n, sizeof n);
    buf_str(&file, buf_view(&head));
    buf_str(&file, buf_view(&s->data));
    if (rc == 0)
        rc = buf_check(&file, "test model", err);
    if (rc == 0)
        rc = write_file(dir, name, buf_view(&file), err);
    buf_done(&head);
    buf_done(&file);
    return rc;
}

static int write_index(const char *dir, json_t *map, uint64_t total, struct err *err)
{
    struct buf text;
    buf_init(&text, 0);
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total,
                              "weight_map", map);
    int rc = index ? json_write_pretty(index, &text, err) : err_nomem(err);
    if (rc == 0)
        rc = write_file(dir, "model.safetensors.index.json", buf_view(&text), err);
    json_decref(index);
    buf_done(&text);
    return rc;
}

static int find_variant(const char *name, enum testmodel_kind *out, struct err *err)
{
    for (int k = 0; k < TESTMODEL_KINDS; k++)
        if (strcmp(name, testmodel_name((enum testmodel_kind)k)) == 0) {
            *out = (enum testmodel_kind)k;
            return 0;
        }
    return err_set(err, ERR_NOTFOUND, "variant '%s' is unknown; there are tiny-v32, tiny-glm, "
                   "tiny-dense and tiny-softmax", name);
}

/* Tensors first..last-1 of the variant into one file. */
static int make_shard(const struct model_make_test *o, enum testmodel_kind kind, uint32_t first,
                      uint32_t last, const char *file, json_t *map, uint64_t *total,
                      struct err *err)
{
    struct shard s = {.header = json_object()};
    buf_init(&s.data, 0);
    int rc = s.header ? 0 : err_nomem(err);
    for (uint32_t i = first; rc == 0 && i < last; i++) {
        struct testmodel_tensor t;
        testmodel_tensor(kind, i, &t);
        size_t n = (size_t)(t.shape[0] * (t.n_dims == 2 ? t.shape[1] : 1));
        float *x = mem_array(n, sizeof *x);
        rc = x ? 0 : err_nomem(err);
        if (rc == 0) {
            testmodel_fill(&t, x);
            rc = is_fp8(o, &t) ? add_fp8(&s, &t, x, err) : add_floats(&s, &t, x, err);
        }
        mem_free(x);
    }
    const char *name;
    json_t *v;
    json_object_foreach(s.header, name, v)
        json_object_set_new(map, name, json_string(file));
    *total += s.data.len;
    if (rc == 0)
        rc = write_shard(o->dir, file, &s, err);
    json_decref(s.header);
    buf_done(&s.data);
    return rc;
}

int model_make_test(const struct model_make_test *o, struct err *err)
{
    enum testmodel_kind kind = TESTMODEL_V32;
    unsigned n_shards = o->n_shards > 1 ? o->n_shards : 1;
    int rc = o->variant ? find_variant(o->variant, &kind, err) : 0;
    if (rc == 0 && n_shards > MAX_SHARDS)
        rc = err_set(err, ERR_LIMIT, "%u shards; at most %d are written", n_shards, MAX_SHARDS);
    if (rc == 0)
        rc = io_make_dirs(o->dir, 0755, err);
    if (rc == 0)
        rc = write_file(o->dir, "config.json", str_c(testmodel_config(kind)), err);
    json_t *map = json_object();
    uint64_t total = 0;
    if (rc == 0 && !map)
        rc = err_nomem(err);
    uint32_t n = testmodel_n_tensors(kind);
    for (unsigned i = 0; rc == 0 && i < n_shards; i++) {
        char file[64] = "model.safetensors";
        if (n_shards > 1)
            snprintf(file, sizeof file, "model-%05u-of-%05u.safetensors", i + 1, n_shards);
        rc = make_shard(o, kind, n * i / n_shards, n * (i + 1) / n_shards, file, map, &total,
                        err);
    }
    if (rc == 0 && n_shards > 1)
        rc = write_index(o->dir, map, total, err);
    json_decref(map);
    return rc;
}
