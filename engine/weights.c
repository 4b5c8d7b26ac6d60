/*
 * weights.c - opens a model's files, reads its numbers, binds its tensors, and refuses what
 * does not fit with a sentence that names file, tensor, expected and found.
 *
 * Numbers that are not finite: one-dimensional tensors are always looked at, whole files only
 * while they are small (LIMIT_SCAN_BYTES), since a large one must open without being read;
 * weights_scan() does it on request.
 */
#include "engine/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "engine/gguf.h"
#include "engine/hash.h"
#include "engine/hparams_read.h"
#include "engine/quant/quant.h"
#include "engine/safetensors.h"
#include "engine/tokenizer_gguf.h"
#include "engine/weights_bind.h"
#include "engine/weights_list.h"

struct weights_file {
    struct gguf *gguf;         /* owned; one of the two */
    struct safetensors *st;    /* owned */
    char *path, *name;         /* owned; weights.path and .name borrow them */
    struct ffn_weights *experts[HPARAMS_LAYERS_MAX]; /* owned; layers borrow them */
    bool *used;                                      /* owned; see struct binder */
};

/* --- binding ------------------------------------------------------------------------------ */

static bool full_name(const struct binder *b, const char *tail, char name[256])
{
    return snprintf(name, 256, "%s%s%s", b->prefix, b->at, tail) < 256;
}

/* A block-scaled tensor uses its scales as well. */
static void mark(struct binder *b, const struct tensor *x)
{
    char scales[TENSOR_NAME_MAX + 16];
    b->used[x - b->list->item] = true;
    if (!x->scale)
        return;
    snprintf(scales, sizeof scales, "%s_scale_inv", x->name);
    const struct tensor *s = tensors_find(b->list, scales);
    if (s)
        b->used[s - b->list->item] = true;
}

void bind_skip(struct binder *b, const char *tail)
{
    const struct tensor *x = bind_peek(b, tail);
    if (b->rc == 0 && x)
        mark(b, x);
}

const struct tensor *bind_peek(const struct binder *b, const char *tail)
{
    char name[256];
    return full_name(b, tail, name) ? tensors_find(b->list, name) : NULL;
}

static void bind(struct binder *b, struct tensor *to, const char *tail, const uint64_t *ne,
                 uint32_t n_dims)
{
    if (b->rc < 0)
        return;
    char name[256], want[96], got[96];
    full_name(b, tail, name);
    const struct tensor *x = tensors_find(b->list, name);
    if (!x) {
        b->rc = err_set(b->err, ERR_NOTFOUND, "tensor '%s' is missing", name);
        return;
    }
    uint64_t expect[TENSOR_DIMS] = {1, 1, 1, 1};
    memcpy(expect, ne, n_dims * sizeof *ne);
    bool fits = memcmp(expect, x->ne, sizeof expect) == 0;
    if (!fits || (n_dims == 1 && x->n_dims != 1)) {
        tensor_shape(expect, n_dims, want);
        tensor_shape(x->ne, x->n_dims, got);
        b->rc = err_set(b->err, ERR_PARSE, "tensor '%s' has the shape %s, expected %s", name,
                        got, want);
        return;
    }
    bool is_float = x->type == QUANT_F32 || x->type == QUANT_F16 || x->type == QUANT_BF16;
    if (!quant_traits(x->type) || (n_dims == 1 && !is_float)) {
        b->rc = err_set(b->err, ERR_UNSUPPORTED, "tensor '%s' is stored as %s, expected %s",
                        name, quant_type_name(x->type),
                        n_dims == 1 ? "f32, f16 or bf16" : "a type of the table in quant.h");
        return;
    }
    mark(b, x);
    *to = *x;
    to->n_dims = n_dims; /* a file may give trailing ones */
}

void bind_matrix(struct binder *b, struct tensor *to, const char *tail, uint64_t in,
                 uint64_t out)
{
    bind(b, to, tail, (uint64_t[]){in, out}, 2);
}

void bind_vector(struct binder *b, struct tensor *to, const char *tail, uint64_t n)
{
    bind(b, to, tail, &n, 1);
}

void bind_cube(struct binder *b, struct tensor *to, const char *tail, uint64_t ne0,
               uint64_t ne1, uint64_t ne2)
{
    bind(b, to, tail, (uint64_t[]){ne0, ne1, ne2}, 3);
}

void weights_alloc_experts(struct binder *b, uint32_t l)
{
    if (b->rc < 0)
        return;
    struct ffn_weights *e = mem_array(b->w->hp.n_routed_experts, sizeof *e);
    if (!e)
        b->rc = err_nomem(b->err);
    b->w->file->experts[l] = b->w->layer[l].experts = e;
}

/* --- looking at the numbers ---------------------------------------------------------------- */

/* The first element that is no finite number, as an error; rows may be of any type. */
static int scan_tensor(const struct tensor *x, float *row, struct err *err)
{
    const struct quant_traits *t = quant_traits(x->type);
    if (!t)
        return 0;
    for (uint64_t r = 0; r < tensor_n_rows(x); r++) {
        tensor_read_row(x, r, row);
        float sum = 0;
        for (uint64_t i = 0; i < x->ne[0]; i++)
            sum += row[i] * 0.0f; /* 0, or NaN once anything was not finite */
        if (sum == 0.0f)
            continue;
        for (uint64_t i = 0; i < x->ne[0]; i++)
            if (!isfinite(row[i]))
                return err_set(err, ERR_CORRUPT, "tensor '%s' (%s), row %llu, element %llu is "
                               "%g, expected a finite number: the file is damaged", x->name,
                               t->name, (unsigned long long)r, (unsigned long long)i,
                               (double)row[i]);
    }
    return 0;
}

static int scan(const struct tensors *list, bool all,
                void (*progress)(void *arg, double done), void *arg, struct err *err)
{
    uint64_t widest = 1;
    for (uint32_t i = 0; i < list->n; i++)
        if (list->item[i].ne[0] > widest)
            widest = list->item[i].ne[0];
    if (widest > LIMIT_ROW)
        return err_set(err, ERR_LIMIT, "a tensor has rows of %llu elements; the cap is %u",
                       (unsigned long long)widest, LIMIT_ROW);
    float *row = mem_array((size_t)widest, sizeof *row);
    int rc = row ? 0 : err_nomem(err);
    for (uint32_t i = 0; rc == 0 && i < list->n; i++) {
        if (all || list->item[i].n_dims == 1)
            rc = scan_tensor(&list->item[i], row, err);
        if (progress)
            progress(arg, (i + 1.0) / list->n);
    }
    mem_free(row);
    return rc;
}

const struct tensors *weights_tensors(const struct weights *w)
{
    return w->file->gguf ? gguf_tensors(w->file->gguf) : safetensors_tensors(w->file->st);
}

const struct gguf *weights_gguf(const struct weights *w)
{
    return w->file ? w->file->gguf : NULL;
}

uint32_t weights_unused(const struct weights *w, const char **first)
{
    const struct tensors *list = weights_tensors(w);
    uint32_t n = 0;
    for (uint32_t i = 0; i < list->n; i++)
        if (!w->file->used[i] && n++ == 0)
            *first = list->item[i].name;
    return n;
}

int weights_scan(const struct weights *w, void (*progress)(void *arg, double done), void *arg,
                 struct err *err)
{
    int rc = scan(weights_tensors(w), true, progress, arg, err);
    return rc < 0 ? err_prefix(err, "'%s'", w->path) : weights_check(w, err);
}

/* --- fingerprint ---------------------------------------------------------------------------- */

/* The numbers that no shape tells, as text, because a struct has padding. */
static struct hash128 hash_numbers(const struct hparams *hp)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s %u %u %u %u %u %u %d %d %d %a %a %u %d %d %a %a %a "
                     "%a %u %a %a", hp->arch, hp->n_layers, hp->n_mtp_layers, hp->n_ctx,
                     hp->n_activated_experts, hp->n_expert_groups, hp->n_limited_groups,
                     (int)hp->score_func, (int)hp->group_score, hp->norm_topk_prob,
                     (double)hp->route_scale, (double)hp->rms_eps, hp->index_topk,
                     hp->index_rope_pairs, hp->yarn, (double)hp->rope_theta,
                     (double)hp->yarn_factor, (double)hp->yarn_beta_fast,
                     (double)hp->yarn_beta_slow, hp->yarn_orig_ctx, (double)hp->rope_mul,
                     (double)hp->attn_scale);
    struct hash128 h = hash128(text, (size_t)n);
    h = hash128_more(h, hp->moe, sizeof hp->moe);
    return hash128_more(h, hp->index_full, sizeof hp->index_full);
}

/* Numbers, the table of tensors, and the head of at most 64 tensors spread over the file. */
static void take_fingerprint(struct weights *w)
{
    const struct tensors *list = weights_tensors(w);
    struct hash128 h = hash_numbers(&w->hp);
    uint32_t step = list->n / 64 + 1;
    for (uint32_t i = 0; i < list->n; i++) {
        const struct tensor *x = &list->item[i];
        h = hash128_more(h, x->name, strlen(x->name));
        h = hash128_more(h, &x->type, sizeof x->type);
        h = hash128_more(h, x->ne, sizeof x->ne);
        if (i % step == 0)
            h = hash128_more(h, x->data, x->bytes < 4096 ? x->bytes : 4096);
    }
    memcpy(w->fingerprint, h.b, sizeof w->fingerprint);
}

/* --- opening -------------------------------------------------------------------------------- */

static int read_json(const char *folder, const char *file, bool must, json_t **out,
                     struct err *err)
{
    struct buf path, text;
    struct stat st;
    buf_init(&path, 4096);
    buf_init(&text, LIMIT_JSON_BYTES);
    buf_printf(&path, "%s/%s", folder, file);
    int rc = buf_check(&path, "path", err);
    if (rc == 0 && (must || stat(buf_cstr(&path), &st) == 0)) {
        rc = io_read_regular(buf_cstr(&path), &text, err);
        bool read = rc == 0;
        if (rc == 0)
            rc = json_read(out, buf_view(&text), err);
        if (rc == 0 && !json_is_object(*out))
            rc = err_set(err, ERR_PARSE, "it is not a JSON object");
        if (rc < 0 && read)
            err_prefix(err, "'%s'", buf_cstr(&path));
    }
    buf_done(&text);
    buf_done(&path);
    return rc;
}

static int alloc_layers(struct binder *b)
{
    struct weights *w = b->w;
    w->layer = mem_array(w->hp.n_layers + w->hp.n_mtp_layers, sizeof *w->layer);
    b->used = w->file->used = mem_array(b->list->n, sizeof *b->used);
    return w->layer && b->used ? 0 : err_nomem(b->err);
}

/* The config may promise an MTP layer that a derivative has dropped. */
static void drop_missing_mtp(struct binder *b)
{
    struct hparams *hp = &b->w->hp;
    snprintf(b->at, sizeof b->at, "model.layers.%u.", hp->n_layers);
    if (hp->n_mtp_layers && !bind_peek(b, "eh_proj.weight")) {
        hp->n_mtp_layers = 0;
        snprintf(hp->note, sizeof hp->note, "the files hold no MTP layer");
    }
    b->at[0] = '\0';
}

static int open_folder(struct weights *w, struct err *err)
{
    json_t *config = NULL, *generation = NULL;
    bool tied = false;
    int rc = read_json(w->path, "config.json", true, &config, err);
    if (rc == 0)
        rc = read_json(w->path, "generation_config.json", false, &generation, err);
    if (rc == 0) {
        rc = hparams_from_config(&w->hp, &tied, config, generation, err);
        if (rc < 0)
            err_prefix(err, "'%s/config.json'", w->path);
    }
    json_decref(config);
    json_decref(generation);
    if (rc == 0)
        rc = safetensors_open(&w->file->st, w->path, err);
    if (rc < 0)
        return rc;
    struct binder b = {.list = safetensors_tensors(w->file->st), .prefix = "", .w = w,
                       .err = err};
    if (tensors_find(b.list, "language_model.model.embed_tokens.weight"))
        b.prefix = "language_model.";
    drop_missing_mtp(&b);
    b.rc = alloc_layers(&b);
    weights_bind_hf(&b, tied);
    return b.rc < 0 ? err_prefix(err, "'%s'", w->path) : 0;
}

static int open_gguf(struct weights *w, struct err *err)
{
    int rc = gguf_open(&w->file->gguf, w->path, err);
    if (rc < 0)
        return rc;
    struct binder b = {.list = gguf_tensors(w->file->gguf), .prefix = "", .w = w, .err = err};
    b.rc = hparams_from_gguf(&w->hp, w->file->gguf, err);
    if (b.rc == 0)
        b.rc = alloc_layers(&b);
    weights_bind_gguf(&b);
    return b.rc < 0 ? err_prefix(err, "'%s'", w->path) : 0;
}

/* general.name, or the last part of the path. */
static int take_name(struct weights *w, struct err *err)
{
    struct str name = str_c(w->path), given = {0};
    while (name.n > 1 && name.p[name.n - 1] == '/')
        name.n--;
    for (size_t i = name.n; i-- > 0;)
        if (name.p[i] == '/' && i + 1 < name.n) {
            name = str_sub(name, i + 1, name.n);
            break;
        }
    if (w->file->gguf && gguf_str(w->file->gguf, "general.name", &given, err) == 0 &&
        given.n && given.n < 256 && utf8_valid(given))
        name = given;
    w->name = w->file->name = mem_strdup(name);
    return w->name ? 0 : err_nomem(err);
}

int weights_open(struct weights **out, const char *path, struct err *err)
{
    struct weights *w = mem_zalloc(sizeof *w);
    if (w)
        w->file = mem_zalloc(sizeof *w->file);
    if (w && w->file)
        w->path = w->file->path = mem_strdup(str_c(path));
    if (!w || !w->file || !w->path) {
        weights_close(w);
        return err_nomem(err);
    }
    struct stat st;
    int rc = stat(path, &st) < 0 ? err_sys(err, "open '%s'", path)
             : S_ISDIR(st.st_mode) ? open_folder(w, err)
                                   : open_gguf(w, err);
    if (rc == 0)
        rc = take_name(w, err);
    if (rc == 0) {
        uint64_t bytes = 0;
        const struct tensors *list = weights_tensors(w);
        for (uint32_t i = 0; i < list->n; i++)
            bytes += list->item[i].bytes;
        rc = scan(list, bytes <= LIMIT_SCAN_BYTES, NULL, NULL, err);
        if (rc < 0)
            err_prefix(err, "'%s'", path);
    }
    if (rc < 0) {
        weights_close(w);
        return rc;
    }
    take_fingerprint(w);
    rc = weights_check(w, err);
    if (rc < 0) {
        weights_close(w);
        return rc;
    }
    *out = w;
    return 0;
}

int weights_check(const struct weights *w, struct err *err)
{
    if (!w->file)
        return 0; /* made in memory */
    if (w->file->gguf)
        return gguf_check(w->file->gguf, err);
    return w->file->st ? safetensors_check(w->file->st, err) : 0;
}

bool weights_reads(const struct weights *w, const struct stat *st)
{
    const struct weights_file *f = w->file;
    return f && (f->gguf ? gguf_reads(f->gguf, st) : f->st && safetensors_reads(f->st, st));
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    if (w->file) {
        for (uint32_t l = 0; l < HPARAMS_LAYERS_MAX; l++)
            mem_free(w->file->experts[l]);
        gguf_close(w->file->gguf);
        safetensors_close(w->file->st);
        mem_free(w->file->path);
        mem_free(w->file->name);
    }
    mem_free(w->layer);
    if (w->file)
        mem_free(w->file->used);
    mem_free(w->file);
    mem_free(w);
}

int weights_tokenizer(struct tokenizer **out, const struct weights *w, struct err *err)
{
    if (!w->file)
        return err_set(err, ERR_NOTFOUND, "a made model has no tokenizer");
    if (w->file->gguf) {
        int rc = tokenizer_from_gguf(out, w->file->gguf, err);
        return rc < 0 ? err_prefix(err, "'%s'", w->path) : 0;
    }
    return tokenizer_from_folder(out, w->path, err);
}
