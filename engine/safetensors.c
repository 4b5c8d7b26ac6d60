/*
 * safetensors.c - 8 bytes of length, a JSON header, data. The header is parsed by the strict
 * JSON reader; offsets are sorted to see overlaps; nothing else of the file is touched.
 */
#include "engine/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "engine/mapfile.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

struct safetensors {
    struct mapfile *part; /* owned */
    uint32_t n_parts;
    struct tensors tensors;
    struct arena scales;
};

static const struct dtype {
    const char *name;
    uint32_t type, bytes;
} dtypes[] = {
    {"F32", QUANT_F32, 4},          {"BF16", QUANT_BF16, 2},  {"F16", QUANT_F16, 2},
    {"F8_E4M3", QUANT_F8_E4M3, 1},  {"F8_E8M0", QUANT_F8_E8M0, 1},
    {"F8_E5M2", QUANT_OTHER, 1},    {"F64", QUANT_OTHER, 8},  {"I8", QUANT_OTHER, 1},
    {"U8", QUANT_OTHER, 1},         {"BOOL", QUANT_OTHER, 1}, {"I16", QUANT_OTHER, 2},
    {"U16", QUANT_OTHER, 2},        {"I32", QUANT_OTHER, 4},  {"U32", QUANT_OTHER, 4},
    {"I64", QUANT_OTHER, 8},        {"U64", QUANT_OTHER, 8},
};

struct span {
    uint64_t begin, end;
};

/* --- one header --------------------------------------------------------------------------- */

static const struct dtype *find_dtype(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++)
        if (str_is(name, dtypes[i].name))
            return &dtypes[i];
    return NULL;
}

/* The shape, last dimension first, and the number of elements; n_dims may exceed
 * TENSOR_DIMS. */
static int read_shape(const json_t *shape, struct tensor *x, uint64_t *count, struct err *err)
{
    size_t n = json_array_size(shape);
    *count = 1;
    if (!json_is_array(shape) || n > 16)
        return err_set(err, ERR_PARSE, "'shape' must be a list of at most 16 numbers");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(shape, n - 1 - i);
        json_int_t d = json_integer_value(v);
        if (!json_is_integer(v) || d < 0)
            return err_set(err, ERR_PARSE, "'shape' holds something that is no size");
        if (__builtin_mul_overflow(*count, (uint64_t)d, count))
            return err_set(err, ERR_PARSE, "its size overflows");
        if (i < TENSOR_DIMS)
            x->ne[i] = (uint64_t)d;
    }
    x->n_dims = n ? (uint32_t)n : 1;
    return 0;
}

static int read_span(const json_t *v, uint64_t size, struct span *out, struct err *err)
{
    const json_t *b = json_array_get(v, 0), *e = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return err_set(err, ERR_PARSE, "'data_offsets' must be [begin, end]");
    json_int_t from = json_integer_value(b), to = json_integer_value(e);
    if (from < 0 || to < from)
        return err_set(err, ERR_PARSE, "data_offsets [%lld, %lld] run backwards",
                       (long long)from, (long long)to);
    if ((uint64_t)to > size)
        return err_set(err, ERR_CORRUPT, "data_offsets end at %lld, the file holds %llu bytes "
                       "of data: it is cut short", (long long)to, (unsigned long long)size);
    *out = (struct span){(uint64_t)from, (uint64_t)to};
    return 0;
}

static int read_entry(struct tensors *out, struct str name, const json_t *o,
                      const uint8_t *data, uint64_t size, struct span *span, struct err *err)
{
    struct tensor x = {.ne = {1, 1, 1, 1}};
    struct str type = {0};
    uint64_t count, bytes;
    int rc = json_need_str(o, "dtype", &type, err);
    if (rc < 0)
        return rc;
    const struct dtype *d = find_dtype(type);
    if (!d)
        return err_set(err, ERR_UNSUPPORTED, "dtype '%.*s' is unknown", STR_ARG(type));
    rc = read_shape(json_object_get(o, "shape"), &x, &count, err);
    if (rc == 0)
        rc = read_span(json_object_get(o, "data_offsets"), size, span, err);
    if (rc < 0)
        return rc;
    if (__builtin_mul_overflow(count, (uint64_t)d->bytes, &bytes) ||
        bytes != span->end - span->begin)
        return err_set(err, ERR_PARSE, "%llu elements of %s need %llu bytes, data_offsets give "
                       "%llu", (unsigned long long)count, d->name,
                       (unsigned long long)count * d->bytes,
                       (unsigned long long)(span->end - span->begin));
    x.type = d->type;
    x.data = data + span->begin;
    x.bytes = (size_t)bytes;
    x.row_bytes = (size_t)(x.ne[0] * d->bytes);
    if (count == 0 || x.n_dims > TENSOR_DIMS) {
        x.type = QUANT_OTHER; /* listed, and of no use to any layer of ours */
        x.n_dims = 1;
    }
    return tensors_add(out, name, &x, err);
}

static int by_begin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int check_overlap(struct span *span, size_t n, struct err *err)
{
    qsort(span, n, sizeof *span, by_begin);
    for (size_t i = 1; i < n; i++)
        if (span[i].begin < span[i - 1].end)
            return err_set(err, ERR_PARSE, "two tensors share the bytes at data offset %llu",
                           (unsigned long long)span[i].begin);
    return 0;
}

static int read_header(struct tensors *out, json_t *root, const uint8_t *data, uint64_t size,
                       struct err *err)
{
    if (!json_is_object(root))
        return err_set(err, ERR_PARSE, "the header is not a JSON object");
    struct span *span = mem_array(json_object_size(root), sizeof *span);
    if (!span)
        return err_nomem(err);
    int rc = 0;
    size_t n = 0;
    const char *name;
    json_t *o;
    json_object_foreach(root, name, o)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        rc = read_entry(out, str_c(name), o, data, size, &span[n++], err);
        if (rc < 0) {
            err_prefix(err, "tensor '%.*s'", TENSOR_NAME_MAX, name);
            break;
        }
    }
    if (rc == 0)
        rc = check_overlap(span, n, err);
    mem_free(span);
    return rc;
}

int safetensors_parse(struct tensors *out, const uint8_t *p, uint64_t n, struct err *err)
{
    uint64_t len = 0;
    if (n < sizeof len)
        return err_set(err, ERR_CORRUPT, "%llu bytes are too few for a safetensors file",
                       (unsigned long long)n);
    memcpy(&len, p, sizeof len);
    if (len > LIMIT_JSON_BYTES)
        return err_set(err, ERR_LIMIT, "the header claims %llu bytes; the cap is %u",
                       (unsigned long long)len, LIMIT_JSON_BYTES);
    if (len > n - sizeof len)
        return err_set(err, ERR_CORRUPT, "the header claims %llu bytes, the file has %llu: it "
                       "is cut short or no safetensors file", (unsigned long long)len,
                       (unsigned long long)n);
    json_t *root = NULL;
    int rc = json_read(&root, str_of(p + sizeof len, (size_t)len), err);
    if (rc < 0)
        return err_prefix(err, "header");
    rc = read_header(out, root, p + sizeof len + len, n - sizeof len - len, err);
    json_decref(root);
    return rc;
}

/* --- scales ------------------------------------------------------------------------------- */

/* 2^(b-127); 255 is NaN, 0 the subnormal 2^-127. */
static float e8m0(uint8_t b)
{
    return b == 255 ? NAN : bits_float(b ? (uint32_t)b << 23 : 0x400000u);
}

static int decode_scales(struct tensor *x, const struct tensor *s, struct arena *arena,
                         struct err *err)
{
    size_t n = (size_t)(s->ne[0] * s->ne[1]);
    if (s->type == QUANT_F32 && (uintptr_t)s->data % sizeof(float) == 0) {
        x->scale = s->data;
        return 0;
    }
    float *f = arena_alloc(arena, n * sizeof *f);
    if (!f)
        return err_nomem(err);
    const struct quant_traits *t = quant_traits(s->type);
    if (s->type == QUANT_F8_E8M0)
        for (size_t i = 0; i < n; i++)
            f[i] = e8m0(((const uint8_t *)s->data)[i]);
    else if (t && s->type != QUANT_F8_E4M3)
        t->dequantize(f, s->data, n);
    else
        return err_set(err, ERR_UNSUPPORTED, "scales '%s' are stored as %s; f32, bf16, f16 "
                       "and f8_e8m0 are read", s->name, quant_type_name(s->type));
    x->scale = f;
    return 0;
}

int safetensors_attach_scales(struct tensors *t, struct arena *arena, struct err *err)
{
    char name[TENSOR_NAME_MAX + 16];
    for (uint32_t i = 0; i < t->n; i++) {
        struct tensor *x = &t->item[i];
        if (x->type != QUANT_F8_E4M3)
            continue;
        snprintf(name, sizeof name, "%s_scale_inv", x->name);
        const struct tensor *s = tensors_find(t, name);
        if (!s)
            return err_set(err, ERR_NOTFOUND, "tensor '%s' is f8_e4m3, but its scales '%s' are "
                           "missing", x->name, name);
        uint64_t cols = (x->ne[0] + TENSOR_F8_BLOCK - 1) / TENSOR_F8_BLOCK;
        uint64_t rows = (x->ne[1] + TENSOR_F8_BLOCK - 1) / TENSOR_F8_BLOCK;
        if (x->n_dims != 2 || s->n_dims != 2 || s->ne[0] != cols || s->ne[1] != rows)
            return err_set(err, ERR_PARSE, "scales '%s' have the shape [%llu, %llu], expected "
                           "[%llu, %llu]", name, (unsigned long long)s->ne[1],
                           (unsigned long long)s->ne[0], (unsigned long long)rows,
                           (unsigned long long)cols);
        x->scale_cols = (uint32_t)cols;
        int rc = decode_scales(x, s, arena, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- a folder ----------------------------------------------------------------------------- */

static int join(struct buf *b, const char *folder, const char *name, struct err *err)
{
    buf_reset(b);
    buf_printf(b, "%s/%s", folder, name);
    return buf_check(b, "path", err);
}

static int open_part(struct safetensors *s, const char *folder, const char *name,
                     struct err *err)
{
    struct buf path;
    buf_init(&path, 4096);
    struct mapfile *p = NULL;
    int rc = join(&path, folder, name, err);
    if (rc == 0 && s->n_parts == LIMIT_MODEL_PARTS)
        rc = err_set(err, ERR_LIMIT, "more than %u shards", LIMIT_MODEL_PARTS);
    if (rc == 0) {
        p = mem_resize(s->part, s->n_parts + 1, sizeof *p);
        rc = p ? 0 : err_nomem(err);
    }
    if (rc == 0) {
        s->part = p;
        p += s->n_parts;
        rc = mapfile_open(p, buf_cstr(&path), err);
    }
    if (rc == 0) {
        s->n_parts++;
        rc = safetensors_parse(&s->tensors, p->p, p->n, err);
        if (rc < 0)
            err_prefix(err, "'%s'", buf_cstr(&path));
    }
    buf_done(&path);
    return rc;
}

static bool is_open(const struct safetensors *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const char *slash = strrchr(s->part[i].path, '/');
        if (slash && strcmp(slash + 1, name) == 0)
            return true;
    }
    return false;
}

/* Opens each shard when its name first comes up; then every name must be where it says. */
static int open_shards(struct safetensors *s, const char *folder, json_t *map, struct err *err)
{
    const char *name;
    json_t *v;
    int rc = 0;
    if (!json_is_object(map))
        return err_set(err, ERR_PARSE, "'weight_map' is missing");
    json_object_foreach(map, name, v)
    {
        const char *shard = json_string_value(v);
        if (!shard || !*shard || strchr(shard, '/'))
            return err_set(err, ERR_PARSE, "weight_map['%.*s'] is not the name of a file in "
                           "this folder", TENSOR_NAME_MAX, name);
        if (!is_open(s, shard))
            rc = open_part(s, folder, shard, err);
        if (rc < 0)
            return rc;
    }
    json_object_foreach(map, name, v)
    {
        const struct tensor *x = tensors_find(&s->tensors, name);
        if (!x)
            return err_set(err, ERR_NOTFOUND, "tensor '%s' is listed, but no shard holds it",
                           name);
        for (uint32_t i = 0; i < s->n_parts; i++) {
            const struct mapfile *p = &s->part[i];
            const uint8_t *at = x->data;
            bool here = at >= p->p && at < p->p + p->n;
            const char *slash = strrchr(p->path, '/');
            if (here && strcmp(slash + 1, json_string_value(v)) != 0)
                return err_set(err, ERR_PARSE, "tensor '%s' is in '%s', the index says '%s'",
                               name, slash + 1, json_string_value(v));
        }
    }
    return 0;
}

static int open_all(struct safetensors *s, const char *folder, struct err *err)
{
    struct buf path, text;
    json_t *root = NULL;
    buf_init(&path, 4096);
    buf_init(&text, LIMIT_JSON_BYTES);
    int rc = join(&path, folder, "model.safetensors.index.json", err);
    if (rc == 0 && access(buf_cstr(&path), F_OK) < 0 && errno == ENOENT) {
        rc = open_part(s, folder, "model.safetensors", err);
    } else if (rc == 0) {
        rc = io_read_regular(buf_cstr(&path), &text, err);
        bool read = rc == 0;
        if (rc == 0)
            rc = json_read(&root, buf_view(&text), err);
        if (rc == 0)
            rc = open_shards(s, folder, json_object_get(root, "weight_map"), err);
        if (rc < 0 && read && err->code != ERR_SYS)
            err_prefix(err, "'%s'", buf_cstr(&path));
    }
    json_decref(root);
    buf_done(&text);
    buf_done(&path);
    return rc;
}

int safetensors_open(struct safetensors **out, const char *folder, struct err *err)
{
    struct safetensors *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    tensors_init(&s->tensors);
    arena_init(&s->scales, 0);
    int rc = open_all(s, folder, err);
    if (rc == 0) {
        rc = safetensors_attach_scales(&s->tensors, &s->scales, err);
        if (rc < 0)
            err_prefix(err, "'%s'", folder);
    }
    if (rc < 0) {
        safetensors_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

int safetensors_check(const struct safetensors *s, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < s->n_parts; i++)
        rc = mapfile_check(&s->part[i], err);
    return rc;
}

bool safetensors_reads(const struct safetensors *s, const struct stat *st)
{
    for (uint32_t i = 0; i < s->n_parts; i++)
        if (mapfile_is(&s->part[i], st))
            return true;
    return false;
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_parts; i++)
        mapfile_close(&s->part[i]);
    mem_free(s->part);
    tensors_done(&s->tensors);
    arena_done(&s->scales);
    mem_free(s);
}

const struct tensors *safetensors_tensors(const struct safetensors *s)
{
    return &s->tensors;
}
