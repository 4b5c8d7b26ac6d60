/*
 * gguf.c - walks the header with a cursor that cannot leave the file. Values stay where they
 * are in the mapping; what is kept of them is a pointer, a type and a count.
 */
#include "engine/gguf.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "engine/mapfile.h"
#include "engine/quant/quant.h"

struct gguf {
    struct mapfile *part; /* owned; n_parts, none when parsed from memory */
    uint32_t n_parts;
    uint32_t version;
    struct gguf_kv *kv; /* owned */
    uint64_t n_kv;
    struct tensors tensors;
};

/* The unread rest of the header, and where it began. */
struct cursor {
    const uint8_t *p, *end, *start;
};

/* --- reading -------------------------------------------------------------------------- */

static int short_file(const struct cursor *c, const char *what, struct err *err)
{
    return err_set(err, ERR_CORRUPT, "the file ends at byte %zu inside %s: it is cut short",
                   (size_t)(c->end - c->start), what);
}

static int take(struct cursor *c, void *out, size_t n, const char *what, struct err *err)
{
    if ((size_t)(c->end - c->p) < n)
        return short_file(c, what, err);
    memcpy(out, c->p, n);
    c->p += n;
    return 0;
}

static int take_str(struct cursor *c, struct str *out, uint64_t max, const char *what,
                    struct err *err)
{
    uint64_t n = 0;
    int rc = take(c, &n, sizeof n, what, err);
    if (rc < 0)
        return rc;
    if (n > max)
        return err_set(err, ERR_LIMIT, "%s at byte %zu is %llu bytes long; the cap is %llu",
                       what, (size_t)(c->p - c->start) - 8, (unsigned long long)n,
                       (unsigned long long)max);
    if ((uint64_t)(c->end - c->p) < n)
        return short_file(c, what, err);
    *out = str_of(c->p, (size_t)n);
    c->p += n;
    return 0;
}

/* Bytes of a fixed-size value; 0 for strings and arrays. */
static size_t width(uint32_t type)
{
    static const uint8_t table[] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2,  [GGUF_I16] = 2, [GGUF_U32] = 4,
        [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8,
        [GGUF_F64] = 8,
    };
    return type < ARRAY_LEN(table) ? table[type] : 0;
}

static int skip_values(struct cursor *c, struct gguf_kv *kv, struct err *err)
{
    kv->data = c->p;
    if (kv->type == GGUF_STRING) {
        struct str s;
        int rc = 0;
        for (uint64_t i = 0; rc == 0 && i < kv->n; i++)
            rc = take_str(c, &s, LIMIT_GGUF_STRING, "a string value", err);
        return rc;
    }
    size_t w = width(kv->type);
    if (w == 0)
        return err_set(err, ERR_PARSE, "value type %u is unknown", kv->type);
    if ((uint64_t)(c->end - c->p) / w < kv->n)
        return short_file(c, "a value", err);
    c->p += w * kv->n;
    return 0;
}

static int take_kv(struct cursor *c, struct gguf_kv *kv, struct err *err)
{
    int rc = take_str(c, &kv->key, LIMIT_GGUF_KEY, "a metadata key", err);
    if (rc == 0)
        rc = take(c, &kv->type, 4, "a metadata type", err);
    kv->n = 1;
    kv->is_array = rc == 0 && kv->type == GGUF_ARRAY;
    if (kv->is_array) {
        rc = take(c, &kv->type, 4, "an array type", err);
        if (rc == 0)
            rc = take(c, &kv->n, 8, "an array length", err);
        if (rc == 0 && kv->n > LIMIT_GGUF_ARRAY)
            rc = err_set(err, ERR_LIMIT, "an array of %llu elements; the cap is %u",
                         (unsigned long long)kv->n, LIMIT_GGUF_ARRAY);
    }
    if (rc == 0)
        rc = skip_values(c, kv, err);
    return rc < 0 && kv->key.n ? err_prefix(err, "key '%.*s'", STR_ARG(kv->key)) : rc;
}

/* The linear search is over the 60 keys of a real file, and bounded for a hostile one. */
static int check_keys(const struct gguf_kv *kv, uint64_t n, struct err *err)
{
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < i && k < 512; k++)
            if (str_eq(kv[k].key, kv[i].key))
                return err_set(err, ERR_PARSE, "key '%.*s' is given twice",
                               STR_ARG(kv[i].key));
    return 0;
}

static bool is_plain(struct str key)
{
    for (size_t i = 0; i < key.n; i++)
        if (key.p[i] <= ' ' || key.p[i] > '~')
            return false;
    return key.n > 0;
}

static int take_all_kv(struct cursor *c, uint64_t n, struct gguf_kv **out, struct err *err)
{
    if (n > LIMIT_GGUF_KV)
        return err_set(err, ERR_LIMIT, "%llu metadata keys; the cap is %u",
                       (unsigned long long)n, LIMIT_GGUF_KV);
    /* A key takes at least 13 bytes, so the count cannot size more than the file would. */
    if (n > (uint64_t)(c->end - c->p) / 13)
        return short_file(c, "the metadata", err);
    struct gguf_kv *kv = mem_array((size_t)n, sizeof *kv);
    if (!kv)
        return err_nomem(err);
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        rc = take_kv(c, &kv[i], err);
        if (rc == 0 && !is_plain(kv[i].key))
            rc = err_set(err, ERR_PARSE, "metadata key %llu is not printable ASCII",
                         (unsigned long long)i);
    }
    if (rc == 0)
        rc = check_keys(kv, n, err);
    if (rc < 0) {
        mem_free(kv);
        return rc;
    }
    *out = kv;
    return 0;
}

/* --- tensor infos ---------------------------------------------------------------------- */

/* Bytes of the whole tensor from its type and shape. */
static int measure(struct tensor *x, struct err *err)
{
    const struct quant_traits *t = quant_traits(x->type);
    const char *name = quant_type_name(x->type);
    if (!t || x->type == QUANT_F8_E4M3) {
        if (name && x->type != QUANT_F8_E4M3)
            return err_set(err, ERR_UNSUPPORTED, "it is stored as %s, which this engine does "
                           "not read; convert the file to q8_0 or q4_k", name);
        return err_set(err, ERR_PARSE, "its storage type is number %u, which GGUF does not "
                       "define", x->type);
    }
    uint64_t bytes;
    if (!quant_row_bytes(t, x->ne[0], &bytes))
        return err_set(err, ERR_PARSE, "its rows have %llu elements, not whole %s blocks of %u",
                       (unsigned long long)x->ne[0], t->name, t->block);
    x->row_bytes = (size_t)bytes;
    for (uint32_t d = 1; d < TENSOR_DIMS; d++)
        if (__builtin_mul_overflow(bytes, x->ne[d], &bytes))
            return err_set(err, ERR_PARSE, "its size overflows");
    x->bytes = (size_t)bytes;
    return 0;
}

static int take_info(struct cursor *c, struct tensor *x, struct str *name, uint64_t *offset,
                     struct err *err)
{
    *x = (struct tensor){.ne = {1, 1, 1, 1}};
    int rc = take_str(c, name, TENSOR_NAME_MAX, "a tensor name", err);
    if (rc == 0)
        rc = take(c, &x->n_dims, 4, "a tensor's dimensions", err);
    if (rc == 0 && (x->n_dims == 0 || x->n_dims > TENSOR_DIMS))
        rc = err_set(err, ERR_PARSE, "%u dimensions; 1 to %d are allowed", x->n_dims,
                     TENSOR_DIMS);
    for (uint32_t d = 0; rc == 0 && d < x->n_dims; d++) {
        rc = take(c, &x->ne[d], 8, "a tensor's shape", err);
        if (rc == 0 && x->ne[d] == 0)
            rc = err_set(err, ERR_PARSE, "dimension %u is 0", d);
    }
    if (rc == 0)
        rc = take(c, &x->type, 4, "a tensor's type", err);
    if (rc == 0)
        rc = take(c, offset, 8, "a tensor's offset", err);
    return rc == 0 ? measure(x, err) : rc;
}

/* Infos are read first; where the data begins is known only behind the last one. */
static int take_tensors(struct gguf *g, struct cursor *c, uint64_t n, uint64_t align,
                        struct err *err)
{
    uint32_t first = g->tensors.n;
    if (n > LIMIT_TENSORS || n > (uint64_t)(c->end - c->p) / 25)
        return n > LIMIT_TENSORS ? err_set(err, ERR_LIMIT, "%llu tensors; the cap is %u",
                                           (unsigned long long)n, LIMIT_TENSORS)
                                 : short_file(c, "the list of tensors", err);
    uint64_t *offset = mem_array((size_t)n, sizeof *offset);
    int rc = offset ? 0 : err_nomem(err);
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        struct tensor x;
        struct str name = {0};
        rc = take_info(c, &x, &name, &offset[i], err);
        if (rc == 0)
            rc = tensors_add(&g->tensors, name, &x, err);
        if (rc < 0)
            err_prefix(err, "tensor %llu '%.*s'", (unsigned long long)i, STR_ARG(name));
    }
    uint64_t at = (uint64_t)(c->p - c->start), size = (uint64_t)(c->end - c->start);
    uint64_t base = (at + align - 1) / align * align, done = 0;
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        struct tensor *x = &g->tensors.item[first + i];
        if (offset[i] % align != 0 || offset[i] < done)
            rc = err_set(err, ERR_PARSE, "tensor '%s' at offset %llu overlaps its neighbour "
                         "or is not a multiple of the alignment %llu", x->name,
                         (unsigned long long)offset[i], (unsigned long long)align);
        else if (base > size || offset[i] > size - base || x->bytes > size - base - offset[i])
            rc = err_set(err, ERR_CORRUPT, "tensor '%s' needs bytes up to %llu, the file has "
                         "%llu: it is cut short", x->name,
                         (unsigned long long)(base + offset[i] + x->bytes),
                         (unsigned long long)size);
        if (rc < 0)
            break; /* a place outside the file is not even computed */
        done = offset[i] + x->bytes;
        x->data = c->start + base + offset[i];
    }
    mem_free(offset);
    return rc;
}

/* --- parts ------------------------------------------------------------------------------ */

/* The metadata of the part being read looks like a file of its own. */
static int read_part(struct gguf *g, const uint8_t *p, uint64_t n, struct gguf_kv **kv,
                     uint64_t *n_kv, struct err *err)
{
    struct cursor c = {p, n ? p + n : p, p}; /* an empty part has no address */
    char magic[4];
    uint64_t n_tensors = 0;
    int64_t align = 32;
    int rc = take(&c, magic, 4, "the magic number", err);
    if (rc == 0 && memcmp(magic, "GGUF", 4) != 0)
        rc = err_set(err, ERR_PARSE, "it does not begin with 'GGUF'");
    if (rc == 0)
        rc = take(&c, &g->version, 4, "the version", err);
    if (rc == 0 && g->version != 2 && g->version != 3)
        rc = err_set(err, ERR_UNSUPPORTED, "GGUF version %u; 2 and 3 are read%s", g->version,
                     g->version == 0x03000000 ? " (this one is big-endian)" : "");
    if (rc == 0)
        rc = take(&c, &n_tensors, 8, "the tensor count", err);
    if (rc == 0)
        rc = take(&c, n_kv, 8, "the key count", err);
    if (rc == 0)
        rc = take_all_kv(&c, *n_kv, kv, err);
    if (rc < 0)
        return rc;
    struct gguf view = {.kv = *kv, .n_kv = *n_kv};
    rc = gguf_int(&view, "general.alignment", 1, LIMIT_GGUF_ALIGN, &align, err);
    if (rc == 0 && (align & (align - 1)) != 0)
        rc = err_set(err, ERR_PARSE, "general.alignment %lld is not a power of two",
                     (long long)align);
    return rc < 0 ? rc : take_tensors(g, &c, n_tensors, (uint64_t)align, err);
}

/* "x-00001-of-00003.gguf" with another number in it. */
static int part_path(const char *first, int64_t no, int64_t count, struct buf *out,
                     struct err *err)
{
    char tail[48];
    snprintf(tail, sizeof tail, "-00001-of-%05lld.gguf", (long long)count);
    struct str s = str_c(first);
    if (!str_ends(s, str_c(tail)))
        return err_set(err, ERR_PARSE, "'%s' is part 1 of %lld, so its name must end in '%s'",
                       first, (long long)count, tail);
    buf_str(out, str_sub(s, 0, s.n - strlen(tail)));
    buf_printf(out, "-%05lld-of-%05lld.gguf", (long long)no + 1, (long long)count);
    return buf_check(out, "path", err);
}

static int open_part(struct gguf *g, const char *path, uint32_t i, int64_t count,
                     struct err *err)
{
    struct buf name;
    buf_init(&name, 4096);
    struct gguf_kv *kv = NULL;
    uint64_t n_kv = 0;
    int64_t no = -1;
    int rc = part_path(path, i, count, &name, err);
    if (rc == 0)
        rc = mapfile_open(&g->part[i], buf_cstr(&name), err);
    if (rc == 0) {
        g->n_parts = i + 1;
        rc = read_part(g, g->part[i].p, g->part[i].n, &kv, &n_kv, err);
        struct gguf view = {.kv = kv, .n_kv = n_kv};
        if (rc == 0)
            rc = gguf_int(&view, "split.no", 0, LIMIT_MODEL_PARTS, &no, err);
        if (rc == 0 && no != (int64_t)i)
            rc = err_set(err, ERR_PARSE, "split.no is %lld, expected %u", (long long)no, i);
        if (rc < 0)
            err_prefix(err, "'%s'", buf_cstr(&name));
    }
    mem_free(kv);
    buf_done(&name);
    return rc;
}

static int open_rest(struct gguf *g, const char *path, struct err *err)
{
    int64_t count = 1, no = 0, total = -1;
    int rc = gguf_int(g, "split.count", 0, LIMIT_MODEL_PARTS, &count, err);
    if (rc == 0)
        rc = gguf_int(g, "split.no", 0, LIMIT_MODEL_PARTS, &no, err);
    if (rc == 0)
        rc = gguf_int(g, "split.tensors.count", 0, INT64_MAX, &total, err);
    if (rc < 0 || count <= 1)
        return rc < 0 ? err_prefix(err, "'%s'", path) : 0;
    if (no != 0)
        return err_set(err, ERR_PARSE, "'%s' is part %lld of %lld; open the first one", path,
                       (long long)no + 1, (long long)count);
    struct mapfile *part = mem_resize(g->part, (size_t)count, sizeof *part);
    if (!part)
        return err_nomem(err);
    g->part = part;
    for (uint32_t i = 1; rc == 0 && i < count; i++)
        rc = open_part(g, path, i, count, err);
    if (rc == 0 && total >= 0 && total != (int64_t)g->tensors.n)
        rc = err_set(err, ERR_CORRUPT, "'%s': the parts hold %u tensors, split.tensors.count "
                     "says %lld", path, g->tensors.n, (long long)total);
    return rc;
}

int gguf_open(struct gguf **out, const char *path, struct err *err)
{
    struct gguf *g = mem_zalloc(sizeof *g);
    if (!g)
        return err_nomem(err);
    tensors_init(&g->tensors);
    g->part = mem_array(1, sizeof *g->part);
    int rc = g->part ? mapfile_open(&g->part[0], path, err) : err_nomem(err);
    if (rc == 0) {
        g->n_parts = 1;
        rc = read_part(g, g->part[0].p, g->part[0].n, &g->kv, &g->n_kv, err);
        rc = rc < 0 ? err_prefix(err, "'%s'", path) : open_rest(g, path, err);
    }
    if (rc < 0) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int gguf_parse(struct gguf **out, const uint8_t *p, uint64_t n, struct err *err)
{
    struct gguf *g = mem_zalloc(sizeof *g);
    if (!g)
        return err_nomem(err);
    tensors_init(&g->tensors);
    int rc = read_part(g, p, n, &g->kv, &g->n_kv, err);
    if (rc < 0) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int gguf_check(const struct gguf *g, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < g->n_parts; i++)
        rc = mapfile_check(&g->part[i], err);
    return rc;
}

bool gguf_reads(const struct gguf *g, const struct stat *st)
{
    for (uint32_t i = 0; i < g->n_parts; i++)
        if (mapfile_is(&g->part[i], st))
            return true;
    return false;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; i < g->n_parts; i++)
        mapfile_close(&g->part[i]);
    mem_free(g->part);
    mem_free(g->kv);
    tensors_done(&g->tensors);
    mem_free(g);
}

/* --- metadata ---------------------------------------------------------------------------- */

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

const struct tensors *gguf_tensors(const struct gguf *g)
{
    return &g->tensors;
}

uint64_t gguf_n_kv(const struct gguf *g)
{
    return g->n_kv;
}

const struct gguf_kv *gguf_kv_at(const struct gguf *g, uint64_t i)
{
    return &g->kv[i];
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    struct str want = str_c(key);
    for (uint64_t i = 0; i < g->n_kv; i++)
        if (str_eq(g->kv[i].key, want))
            return &g->kv[i];
    return NULL;
}

bool gguf_int_at(const struct gguf_kv *kv, uint64_t i, int64_t *out)
{
    size_t w = width(kv->type);
    uint64_t u = 0;
    if (i >= kv->n || w == 0 || kv->type == GGUF_F32 || kv->type == GGUF_F64)
        return false;
    memcpy(&u, kv->data + i * w, w);
    bool is_signed = kv->type == GGUF_I8 || kv->type == GGUF_I16 || kv->type == GGUF_I32;
    unsigned unused_bits = 64 - 8 * (unsigned)w;
    if (kv->type == GGUF_U64 && u > INT64_MAX)
        return false;
    *out = is_signed ? (int64_t)(u << unused_bits) >> unused_bits : (int64_t)u;
    if (kv->type == GGUF_BOOL)
        *out = u != 0;
    return true;
}

static int wrong_kind(const char *key, const char *want, struct err *err)
{
    return err_set(err, ERR_PARSE, "metadata key '%s' is not %s", key, want);
}

int gguf_int(const struct gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out,
             struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    int64_t v = 0;
    if (!kv)
        return 0;
    if (kv->is_array || !gguf_int_at(kv, 0, &v))
        return wrong_kind(key, "an integer", err);
    if (v < lo || v > hi)
        return err_set(err, ERR_LIMIT, "metadata key '%s' is %lld, outside %lld to %lld", key,
                       (long long)v, (long long)lo, (long long)hi);
    *out = v;
    return 0;
}

int gguf_num(const struct gguf *g, const char *key, double *out, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    int64_t v = 0;
    if (!kv)
        return 0;
    if (kv->is_array)
        return wrong_kind(key, "a number", err);
    if (kv->type == GGUF_F32) {
        float f;
        memcpy(&f, kv->data, sizeof f);
        *out = (double)f;
    } else if (kv->type == GGUF_F64) {
        memcpy(out, kv->data, sizeof *out);
    } else if (gguf_int_at(kv, 0, &v)) {
        *out = (double)v;
    } else {
        return wrong_kind(key, "a number", err);
    }
    return 0;
}

int gguf_bool(const struct gguf *g, const char *key, bool *out, struct err *err)
{
    int64_t v = *out;
    int rc = gguf_int(g, key, 0, 1, &v, err);
    *out = v != 0;
    return rc;
}

int gguf_str(const struct gguf *g, const char *key, struct str *out, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return 0;
    if (kv->is_array || kv->type != GGUF_STRING)
        return wrong_kind(key, "a string", err);
    return gguf_strings(kv, out, err);
}

int gguf_strings(const struct gguf_kv *kv, struct str *out, struct err *err)
{
    if (kv->type != GGUF_STRING)
        return err_set(err, ERR_PARSE, "metadata key '%.*s' does not hold strings",
                       STR_ARG(kv->key));
    const uint8_t *p = kv->data; /* lengths were checked when the header was read */
    for (uint64_t i = 0; i < kv->n; i++) {
        uint64_t n;
        memcpy(&n, p, sizeof n);
        out[i] = str_of(p + sizeof n, (size_t)n);
        p += sizeof n + n;
    }
    return 0;
}
