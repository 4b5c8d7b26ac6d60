/*
 * residency.c - does the model fit, what is pinned, and reading experts ahead. Experts are
 * asked for with MADV_WILLNEED, all of a layer at once, so that the disk has a queue to work
 * on while the first is computed; mincore() says which were there, for the hit rate. Where
 * the file belongs to somebody else mincore() calls everything present, and the rate is 1.
 */
#include "engine/residency.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/mem.h"

enum { LOOK_PAGES = 2048 };

struct residency {
    const struct weights *w; /* borrowed */
    struct engine_memory m;
    uint64_t least; /* what one token reads */
    uintptr_t page;
    /* Read by other threads than the one that computes. */
    _Atomic uint64_t wanted, present;
};

/* --- how much there is -------------------------------------------------------------------- */

static bool read_text(const char *path, struct buf *b)
{
    struct err err;
    buf_reset(b);
    return io_read_file(path, b, &err) == 0;
}

static uint64_t mem_available(struct buf *b)
{
    uint64_t kib = 0;
    struct str rest, line;
    if (!read_text("/proc/meminfo", b))
        return UINT64_MAX;
    rest = buf_view(b);
    while (str_split(&rest, '\n', &line))
        if (str_starts(line, STR("MemAvailable:")))
            (void)sscanf(line.p, "MemAvailable: %lu", &kib);
    return kib ? kib * 1024 : UINT64_MAX;
}

/* The least limit from a group up to the root of its tree, `file` in every folder. */
static uint64_t least_limit(struct buf *b, const char *root, char *group, const char *file)
{
    char path[700];
    uint64_t least = UINT64_MAX;
    for (;;) {
        unsigned long max;
        char *slash = strrchr(group, '/');
        snprintf(path, sizeof path, "%s%s/%s", root, group, file);
        if (read_text(path, b) && sscanf(buf_cstr(b), "%lu", &max) == 1 && max < least)
            least = max;
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* Of the unified hierarchy, or of the older one's memory controller. What a group holds
 * already does not count against it: it is mostly the file's own pages, which make room. */
static uint64_t group_limit(struct buf *b)
{
    char group[2][512] = {"", ""};
    struct str rest, line;
    if (!read_text("/proc/self/cgroup", b))
        return UINT64_MAX;
    rest = buf_view(b);
    while (str_split(&rest, '\n', &line)) {
        struct str id, names;
        if (!str_split(&line, ':', &id) || !str_split(&line, ':', &names) ||
            line.n >= sizeof group[0])
            continue;
        if (names.n == 0 || str_eq(names, STR("memory")))
            snprintf(group[names.n != 0], sizeof group[0], "%.*s", (int)line.n, line.p);
    }
    uint64_t v2 = least_limit(b, "/sys/fs/cgroup", group[0], "memory.max");
    uint64_t v1 = least_limit(b, "/sys/fs/cgroup/memory", group[1], "memory.limit_in_bytes");
    return v1 < v2 ? v1 : v2;
}

uint64_t residency_available(void)
{
    struct buf b;
    buf_init(&b, 65536);
    uint64_t a = mem_available(&b), g = group_limit(&b);
    buf_done(&b);
    return a < g ? a : g;
}

/* --- what the model wants ----------------------------------------------------------------- */

static uint64_t ffn_bytes(const struct ffn_weights *f)
{
    return f->gate.bytes + f->up.bytes + f->down.bytes;
}

/* Calls fn for the tensors of a layer that every token reads. */
static void each_core(const struct layer_weights *l, void (*fn)(void *arg, const struct tensor *t),
                      void *arg)
{
    const struct tensor *t[] = {
        &l->attn_norm, &l->ffn_norm, &l->q_a, &l->q_a_norm, &l->q_b, &l->q, &l->kv_a,
        &l->kv_a_norm, &l->kv_b, &l->k_b, &l->v_b, &l->o, &l->index_q_b, &l->index_k,
        &l->index_k_norm, &l->index_k_norm_bias, &l->index_proj, &l->mlp.gate, &l->mlp.up,
        &l->mlp.down, &l->router, &l->router_bias, &l->shared.gate, &l->shared.up,
        &l->shared.down};
    for (unsigned i = 0; i < ARRAY_LEN(t); i++)
        if (tensor_exists(t[i]))
            fn(arg, t[i]);
}

static void add_bytes(void *arg, const struct tensor *t)
{
    *(uint64_t *)arg += t->bytes;
}

static void count(struct residency *r)
{
    const struct weights *w = r->w;
    const struct hparams *hp = &w->hp;
    uint64_t used = 0;
    r->m.core_bytes = w->head.bytes;
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        each_core(&w->layer[l], add_bytes, &r->m.core_bytes);
        for (uint32_t e = 0; hp->moe[l] && e < hp->n_routed_experts; e++)
            r->m.expert_bytes += ffn_bytes(&w->layer[l].experts[e]);
        if (hp->moe[l])
            used += ffn_bytes(&w->layer[l].experts[0]) * hp->n_activated_experts;
    }
    r->m.weight_bytes = r->m.core_bytes + r->m.expert_bytes;
    if (w->embed.data != w->head.data)
        r->m.weight_bytes += w->embed.bytes; /* of which a token reads one row */
    r->least = r->m.core_bytes + used;
}

static double gb(uint64_t n)
{
    return (double)n / 1e9;
}

static int check(const struct residency *r, struct err *err)
{
    if (r->least <= r->m.available)
        return 0;
    return err_set(err, ERR_LIMIT,
                   "'%s' needs %.3f GB of memory for what every token reads and %.3f GB for the "
                   "experts of one token; %.3f GB are available (the whole model is %.3f GB): "
                   "free memory, raise the limit, or take a smaller or more strongly quantised "
                   "file",
                   r->w->path, gb(r->m.core_bytes), gb(r->least - r->m.core_bytes),
                   gb(r->m.available), gb(r->m.weight_bytes));
}

/* --- pages -------------------------------------------------------------------------------- */

struct span {
    uint8_t *at;
    size_t n; /* bytes, whole pages */
};

static struct span pages_of(const struct residency *r, const struct tensor *t)
{
    uintptr_t from = (uintptr_t)t->data & ~(r->page - 1);
    uintptr_t to = ((uintptr_t)t->data + t->bytes + r->page - 1) & ~(r->page - 1);
    return (struct span){(uint8_t *)from, to - from};
}

static void pin(void *arg, const struct tensor *t)
{
    struct residency *r = arg;
    struct span s = pages_of(r, t);
    if (mlock(s.at, s.n) == 0)
        r->m.pinned_bytes += s.n;
}

/* What every token reads stays, where the system allows; at most half of memory. */
static void pin_core(struct residency *r)
{
    if (r->m.core_bytes > r->m.available / 2)
        return;
    for (uint32_t l = 0; l < r->w->hp.n_layers; l++)
        each_core(&r->w->layer[l], pin, r);
    pin(r, &r->w->head);
}

/* Bytes of a span that are in memory. */
static uint64_t present(const struct residency *r, struct span s)
{
    unsigned char seen[LOOK_PAGES];
    uint64_t n = 0;
    for (size_t at = 0; at < s.n; at += LOOK_PAGES * r->page) {
        size_t m = s.n - at < LOOK_PAGES * r->page ? s.n - at : LOOK_PAGES * r->page;
        if (mincore(s.at + at, m, seen) < 0)
            return s.n;
        for (size_t i = 0; i < m / r->page; i++)
            n += seen[i] & 1;
    }
    return n * r->page;
}

static void want(struct residency *r, const struct tensor *t)
{
    struct span s = pages_of(r, t);
    uint64_t have = present(r, s);
    if (have < s.n)
        (void)madvise(s.at, s.n, MADV_WILLNEED);
    atomic_fetch_add_explicit(&r->wanted, s.n, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->present, have, memory_order_relaxed);
}

void residency_want(struct residency *r, const struct ffn_weights *experts, const uint32_t *pick,
                    size_t n)
{
    bool asked[HPARAMS_EXPERTS_MAX] = {false};
    for (size_t i = 0; i < n; i++) {
        const struct ffn_weights *f = &experts[pick[i]];
        if (asked[pick[i]])
            continue;
        asked[pick[i]] = true;
        want(r, &f->gate);
        want(r, &f->up);
        want(r, &f->down);
    }
}

bool residency_streams(const struct residency *r)
{
    return r->m.streaming;
}

void residency_figures(const struct residency *r, struct engine_memory *out)
{
    *out = r->m;
    out->wanted_bytes = atomic_load_explicit(&r->wanted, memory_order_relaxed);
    out->present_bytes = atomic_load_explicit(&r->present, memory_order_relaxed);
}

int residency_open(struct residency **out, const struct weights *w, uint64_t memory,
                   struct err *err)
{
    struct residency *r = mem_zalloc(sizeof *r);
    if (!r)
        return err_nomem(err);
    r->w = w;
    r->page = (uintptr_t)sysconf(_SC_PAGESIZE);
    r->m.available = memory ? memory : residency_available();
    count(r);
    int rc = check(r, err);
    if (rc < 0) {
        residency_close(r);
        return rc;
    }
    r->m.streaming = r->m.weight_bytes > r->m.available;
    if (r->m.streaming)
        pin_core(r);
    *out = r;
    return 0;
}

static void unpin(void *arg, const struct tensor *t)
{
    struct span s = pages_of(arg, t);
    (void)munlock(s.at, s.n);
}

void residency_close(struct residency *r)
{
    if (!r)
        return;
    for (uint32_t l = 0; r->m.pinned_bytes && l < r->w->hp.n_layers; l++)
        each_core(&r->w->layer[l], unpin, r);
    if (r->m.pinned_bytes)
        unpin(r, &r->w->head);
    mem_free(r);
}
