/*
 * model_convert.c - writes a GGUF file from any model this engine opens.
 *
 * The work goes to DST.partial. Its header is a function of source and options, so a later
 * call recognises its own unfinished file by the header's bytes and continues behind the last
 * whole tensor. Only a complete, synced file gets the final name.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "engine/convert_plan.h"
#include "engine/model_file.h"
#include "engine/pool.h"
#include "engine/quant/quant.h"

enum { OUT_BUFFER = 4 << 20 };

struct writer {
    const struct model_convert *o;
    struct plan *plan;
    struct buf head;   /* the file's first bytes */
    struct buf out;    /* not yet written */
    struct pool *pool; /* owned */
    float *row;        /* owned: `widest` floats for each thread */
    uint64_t widest;
    char path[PATH_MAX];
    int fd;
    uint64_t done, resumed; /* bytes of data */
};

const char *model_type_name(unsigned i)
{
    unsigned n;
    const struct quant_traits *const *list = quant_list(&n);
    for (unsigned k = 0; k < n; k++)
        if (list[k]->type != QUANT_F8_E4M3 && i-- == 0)
            return list[k]->name;
    return NULL;
}

static int flush(struct writer *w, struct err *err)
{
    int rc = buf_check(&w->out, "output", err);
    if (rc == 0)
        rc = io_write_full(w->fd, w->out.data, w->out.len, err);
    if (rc < 0)
        return err_prefix(err, "'%s'", w->path);
    w->done += w->out.len;
    buf_reset(&w->out);
    if (w->o->progress)
        w->o->progress(w->o->arg, w->done, w->plan->bytes, w->resumed);
    return 0;
}

/* --- rows --------------------------------------------------------------------------------- */

/* Some rows of one tensor, made by all threads into one place. */
struct run {
    struct writer *w;
    const struct out_tensor *t;
    uint64_t first;
    uint8_t *to;
    uint64_t row_bytes;
    uint64_t bad; /* the lowest row with a number that is not finite; UINT64_MAX = none */
};

static bool is_finite_row(const float *x, uint64_t n)
{
    float sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += x[i] * 0.0f;
    return sum == 0.0f;
}

static void make_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct run *r = arg;
    const struct out_tensor *t = r->t;
    const struct quant_traits *q = quant_traits(t->type);
    float *x = r->w->row + thread * r->w->widest;
    for (uint64_t i = first; i < last; i++) {
        uint8_t *to = r->to + i * r->row_bytes;
        const void *raw = plan_raw_row(r->w->plan, t, r->first + i);
        plan_row(r->w->plan, t, r->first + i, x);
        if (!is_finite_row(x, t->ne[0])) {
            uint64_t seen = __atomic_load_n(&r->bad, __ATOMIC_RELAXED);
            while (r->first + i < seen &&
                   !__atomic_compare_exchange_n(&r->bad, &seen, r->first + i, false,
                                                __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                ;
            memset(to, 0, (size_t)r->row_bytes);
        } else if (raw) {
            memcpy(to, raw, (size_t)r->row_bytes);
        } else {
            q->quantize(to, x, (size_t)t->ne[0]);
        }
    }
}

static int blame(struct writer *w, const struct out_tensor *t, uint64_t r, struct err *err)
{
    uint64_t i = 0;
    plan_row(w->plan, t, r, w->row);
    while (i + 1 < t->ne[0] && isfinite(w->row[i]))
        i++;
    return err_set(err, ERR_CORRUPT, "'%s': '%s', row %llu, element %llu is %g, expected a "
                   "finite number: the source is damaged", w->o->src, t->name,
                   (unsigned long long)r, (unsigned long long)i, (double)w->row[i]);
}

static int write_tensor(struct writer *w, const struct out_tensor *t, struct err *err)
{
    static const uint8_t zero[GGUF_ALIGN];
    const struct quant_traits *q = quant_traits(t->type);
    uint64_t rows = t->ne[1] * t->ne[2], row_bytes = t->ne[0] / q->block * q->bytes;
    uint64_t most = OUT_BUFFER / row_bytes + 1;
    int rc = 0;
    for (uint64_t r = 0; rc == 0 && r < rows; r += most) {
        uint64_t n = rows - r < most ? rows - r : most;
        struct run run = {.w = w, .t = t, .first = r, .row_bytes = row_bytes,
                          .to = buf_room(&w->out, (size_t)(n * row_bytes)), .bad = UINT64_MAX};
        if (!run.to)
            return buf_check(&w->out, "output", err);
        if (t->kind == OUT_K_B) /* its scratch holds one head: one thread */
            make_rows(&run, 0, 0, n);
        else
            pool_run(w->pool, make_rows, &run, n, n / 64 + 1);
        if (run.bad != UINT64_MAX)
            return blame(w, t, run.bad, err);
        w->out.len += (size_t)(n * row_bytes);
        if (w->out.len >= OUT_BUFFER)
            rc = flush(w, err);
    }
    if (rc == 0)
        buf_add(&w->out, zero, (GGUF_ALIGN - t->bytes % GGUF_ALIGN) % GGUF_ALIGN);
    return rc;
}

/* --- the partial file ---------------------------------------------------------------------- */

/* True when the unfinished file begins with our header; then *size is what it has. */
static bool is_ours(struct writer *w, uint64_t *size)
{
    struct stat st;
    struct buf head;
    struct err ignored = {0};
    buf_init(&head, 0);
    bool ours = fstat(w->fd, &st) == 0 && (uint64_t)st.st_size >= w->head.len &&
                buf_room(&head, w->head.len) &&
                io_read_full(w->fd, head.data, w->head.len, &ignored) == 0 &&
                memcmp(head.data, w->head.data, w->head.len) == 0;
    buf_done(&head);
    *size = ours ? (uint64_t)st.st_size : 0;
    return ours;
}

/* Leaves the descriptor at the end of the last whole tensor; *first is the next one. */
static int open_partial(struct writer *w, uint32_t *first, struct err *err)
{
    if (snprintf(w->path, sizeof w->path, "%s.partial", w->o->dst) >= (int)sizeof w->path)
        return err_set(err, ERR_LIMIT, "path '%s' is too long", w->o->dst);
    struct stat st;
    if (stat(w->o->dst, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(err, ERR_UNSUPPORTED, "'%s' exists and is not a regular file",
                       w->o->dst);
    if (stat(w->o->dst, &st) == 0 && weights_reads(w->plan->w, &st))
        return err_set(err, ERR_UNSUPPORTED, "'%s' is a file of the model that is converted: "
                       "give another name", w->o->dst);
    w->fd = open(w->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (w->fd < 0)
        return err_sys(err, "create '%s'", w->path);
    if (flock(w->fd, LOCK_EX | LOCK_NB) < 0)
        return err_sys(err, "'%s' is being written by another process", w->path);
    uint64_t size = 0, keep = 0;
    *first = 0;
    if (is_ours(w, &size)) {
        keep = w->head.len;
        for (; *first < w->plan->n; ++*first) {
            const struct out_tensor *t = &w->plan->item[*first];
            uint64_t end = w->head.len + t->offset +
                           (t->bytes + GGUF_ALIGN - 1) / GGUF_ALIGN * GGUF_ALIGN;
            if (end > size)
                break;
            keep = end;
        }
    }
    if (ftruncate(w->fd, (off_t)keep) < 0 || lseek(w->fd, (off_t)keep, SEEK_SET) < 0)
        return err_sys(err, "truncate '%s'", w->path);
    if (keep == 0)
        return io_write_full(w->fd, w->head.data, w->head.len, err);
    w->done = w->resumed = keep - w->head.len;
    return 0;
}

static int publish(struct writer *w, struct err *err)
{
    char dir[PATH_MAX];
    if (fsync(w->fd) < 0)
        return err_sys(err, "sync '%s'", w->path);
    if (rename(w->path, w->o->dst) < 0)
        return err_sys(err, "rename '%s' to '%s'", w->path, w->o->dst);
    snprintf(dir, sizeof dir, "%s", w->o->dst);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir ? 1 : 0] = '\0';
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? err_sys(err, "sync the folder of '%s'", w->o->dst) : 0;
    io_close(&fd);
    return rc;
}

/* --- the whole ----------------------------------------------------------------------------- */

/* Metadata, then infos with their offsets, into w->head. */
static int make_head(struct writer *w, const struct weights *weights, struct err *err)
{
    struct tokenizer *tokenizer = NULL;
    struct gguf_head h;
    gguf_head_init(&h);
    uint64_t widest = 1;
    int rc = weights_tokenizer(&tokenizer, weights, err);
    if (rc == -ERR_NOTFOUND)
        rc = 0; /* a model without vocabulary converts to one without */
    if (rc == 0)
        rc = model_put_meta(&h, weights, tokenizer, err);
    for (uint32_t i = 0; rc == 0 && i < w->plan->n; i++) {
        struct out_tensor *t = &w->plan->item[i];
        t->offset = gguf_put_tensor(&h, t->name, t->type, t->n_dims, t->ne, t->bytes);
        widest = t->ne[0] > widest ? t->ne[0] : widest;
    }
    w->plan->bytes = h.data_bytes;
    if (rc == 0)
        rc = gguf_head_finish(&h, &w->head, err);
    w->widest = widest;
    if (rc == 0)
        rc = pool_open(&w->pool, 0, err);
    if (rc == 0) {
        w->row = mem_array((size_t)widest * pool_threads(w->pool), sizeof *w->row);
        rc = w->row ? 0 : err_nomem(err);
    }
    gguf_head_done(&h);
    tokenizer_free(tokenizer);
    return rc;
}

static int write_all(struct writer *w, struct err *err)
{
    uint32_t first = 0;
    int rc = open_partial(w, &first, err);
    for (uint32_t i = first; rc == 0 && i < w->plan->n; i++)
        rc = write_tensor(w, &w->plan->item[i], err);
    if (rc == 0)
        rc = flush(w, err);
    /* What was read from a source that changed meanwhile must not get the final name. */
    int source = weights_check(w->plan->w, err);
    if (source < 0 && w->fd >= 0 && ftruncate(w->fd, 0) < 0)
        return err_sys(err, "truncate '%s'", w->path);
    return source < 0 ? source : rc < 0 ? rc : publish(w, err);
}

int convert_write(struct plan *p, const struct model_convert *o, struct err *err)
{
    struct writer w = {.o = o, .plan = p, .fd = -1};
    buf_init(&w.head, 0);
    buf_init(&w.out, 0);
    int rc = make_head(&w, p->w, err);
    if (rc == 0)
        rc = write_all(&w, err);
    io_close(&w.fd);
    pool_close(w.pool);
    mem_free(w.row);
    buf_done(&w.head);
    buf_done(&w.out);
    return rc;
}

int model_convert(const struct model_convert *o, struct err *err)
{
    struct weights *weights = NULL;
    struct plan plan = {0};
    int rc = weights_open(&weights, o->src, err);
    if (rc < 0)
        return rc;
    if (o->name)
        weights->name = o->name;
    rc = plan_make(&plan, weights, o, err);
    if (rc == 0)
        rc = convert_write(&plan, o, err);
    plan_done(&plan);
    weights_close(weights);
    return rc;
}
