/*
 * kvfile.c - a seq in a file: its tokens and its cached rows, tied to the model.
 *
 *   header   magic, version, fingerprint, counts
 *   chunks   the tokens, the last hidden states, then one per page: every layer's latent
 *            rows and its index keys (standing), only as many positions as the seq has
 *   trailer  XXH3-128 chained over the header and all chunk heads
 *
 * A chunk head holds the hash of its stored bytes, so that every byte of the file is
 * under a hash, and nothing is decoded before its hash agrees. Chunks are stored as byte
 * planes through zstd where that is smaller. All integers are little-endian. The same seq
 * always makes the same bytes. The file appears under its name whole or not at all.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include "base/io.h"
#include "base/mem.h"
#include "engine/engine_impl.h"
#include "engine/kernel/planes.h"

enum { VERSION = 2, CODEC_RAW = 0, CODEC_PLANES = 1 };
enum { CHUNK_TOKENS = 1, CHUNK_HIDDEN, CHUNK_PAGE };

struct header {
    char magic[8];
    uint32_t version, n_tokens, n_hidden, page_rows;
    uint8_t fingerprint[16];
};
struct chunk {
    uint32_t kind, codec;
    uint64_t bytes, stored;
    uint64_t hash; /* of the stored bytes */
};
_Static_assert(sizeof(struct header) == 40 && sizeof(struct chunk) == 32, "file layout");

static const char magic[8] = {'A', 'G', 'T', 'D', 'K', 'V', '\r', '\n'};

/* Chunks are packed and unpacked on all threads, written and read in order. */
enum { SLOTS_MAX = 32 };
struct slot {
    struct chunk head;
    uint8_t *raw, *planes, *packed; /* owned; one chunk in its three forms */
    ZSTD_CCtx *pack;                /* owned; the one that is needed */
    ZSTD_DCtx *unpack;
    const char *wrong; /* reading: what does not fit */
};

/* One file being written or read. */
struct file {
    struct engine_seq *s;
    int fd;
    const char *path;
    struct hash128 chain;
    bool storing;
    size_t room, size; /* of a chunk in bytes; of its elements */
    struct slot slot[SLOTS_MAX];
    uint32_t n_slots, first_page; /* slot i holds page first_page + i */
    /* Writing: the slots are two halves; one is packed while the other is written. */
    struct slot *packing, *packed;
    uint32_t n_packed;
    int rc; /* of writing, with the sentence in err */
    struct err err;
};

static size_t element_bytes(const struct engine *e)
{
    enum engine_cache t = kvcache_type(e->kv);
    return t == ENGINE_CACHE_F32 ? 4 : t == ENGINE_CACHE_FP8 ? 1 : 2;
}

/*
 * Planes of floats hold no strings, but now and then a few equal bytes by chance. All that
 * helps is their entropy: looking for strings hardly at all makes the file smaller, and in a
 * sixth of the time.
 */
static ZSTD_CCtx *packer(void)
{
    static const struct {
        ZSTD_cParameter name;
        int value;
    } set[] = {{ZSTD_c_compressionLevel, 1}, {ZSTD_c_minMatch, 7}, {ZSTD_c_hashLog, 6}};
    ZSTD_CCtx *c = ZSTD_createCCtx();
    for (unsigned i = 0; c && i < ARRAY_LEN(set); i++) {
        size_t rc = ZSTD_CCtx_setParameter(c, set[i].name, set[i].value);
        assert(!ZSTD_isError(rc));
        (void)rc;
    }
    return c;
}

static int file_init(struct file *f, struct engine_seq *s, const char *path, bool storing,
                     struct err *err)
{
    const struct engine *e = s->e;
    *f = (struct file){.s = s, .fd = -1, .path = path, .storing = storing};
    size_t page = kvcache_row_bytes(e->kv) * KV_PAGE;
    size_t tokens = (size_t)e->info.n_ctx * sizeof(int32_t);
    size_t hidden = (size_t)HIDDEN_KEPT * e->w->hp.dim * sizeof(float);
    f->room = page > tokens ? page : tokens;
    f->room = f->room > hidden ? f->room : hidden;
    uint32_t n = 4 * pool_threads(e->pool);
    n = n < SLOTS_MAX ? n : SLOTS_MAX;
    for (; f->n_slots < n; f->n_slots++) {
        struct slot *x = &f->slot[f->n_slots];
        x->raw = mem_alloc(f->room);
        x->planes = mem_alloc(f->room);
        x->packed = mem_alloc(ZSTD_compressBound(f->room));
        if (storing)
            x->pack = packer();
        else
            x->unpack = ZSTD_createDCtx();
        if (!x->raw || !x->planes || !x->packed || (!x->pack && !x->unpack)) {
            f->n_slots++;
            return err_nomem(err);
        }
    }
    return 0;
}

static void file_done(struct file *f)
{
    io_close(&f->fd);
    for (uint32_t i = 0; i < f->n_slots; i++) {
        struct slot *x = &f->slot[i];
        mem_free(x->raw);
        mem_free(x->planes);
        mem_free(x->packed);
        ZSTD_freeCCtx(x->pack);
        ZSTD_freeDCtx(x->unpack);
    }
}

/* --- pages
 * --------------------------------------------------------------------------------- */

struct copy {
    const struct file *f;
    uint8_t *at;
    uint32_t page;
};

/* Copies one block of a page into or out of the chunk. */
static int copy_block(void *arg, const struct kv_block *b, struct err *err)
{
    struct copy *c = arg;
    const struct engine_seq *s = c->f->s;
    bool storing = c->f->storing;
    size_t n = b->element * b->n_rows;
    (void)err;
    /* The draft layer's last entry waits for a token that is not there yet. */
    bool blank = storing && b->layer == s->e->w->hp.n_layers &&
                 c->page * KV_PAGE + b->n_rows == s->kv.len;
    for (uint32_t i = 0; i < b->n_runs; i++, c->at += n) {
        uint8_t *block = b->base + i * b->stride;
        memcpy(storing ? c->at : block, storing ? block : c->at, n);
        if (blank)
            memset(c->at + n - b->element, 0, b->element);
    }
    return 0;
}

static uint32_t page_rows(const struct engine_seq *s, uint32_t page)
{
    uint32_t left = s->kv.len - page * KV_PAGE;
    return left < KV_PAGE ? left : KV_PAGE;
}

/* Between a page's rows and the raw bytes of a slot. */
static void copy_page(const struct file *f, struct slot *x, uint32_t page)
{
    struct copy c = {f, x->raw, page};
    struct err err;
    int rc = kvseq_each_block(&f->s->kv, page, page_rows(f->s, page), copy_block, &c, &err);
    assert(rc == 0); /* copying cannot fail */
    (void)rc;
}

/* --- writing
 * ------------------------------------------------------------------------------- */

/* raw, head.kind and head.bytes are set; makes the rest of the slot. */
static void pack_slot(struct slot *x, size_t size)
{
    size_t n = (size_t)x->head.bytes, room = ZSTD_compressBound(n);
    const uint8_t *from = x->raw;
    if (size > 1) {
        planes_split(x->planes, x->raw, n, size);
        from = x->planes;
    }
    size_t packed = ZSTD_compress2(x->pack, x->packed, room, from, n);
    bool smaller = !ZSTD_isError(packed) && packed < n;
    x->head.codec = smaller ? CODEC_PLANES : CODEC_RAW;
    x->head.stored = smaller ? packed : n;
    x->head.hash = hash64(smaller ? x->packed : x->raw, (size_t)x->head.stored);
}

static int put_slot(struct file *f, const struct slot *x, struct err *err)
{
    f->chain = hash128_more(f->chain, &x->head, sizeof x->head);
    int rc = io_write_full(f->fd, &x->head, sizeof x->head, err);
    const uint8_t *bytes = x->head.codec == CODEC_RAW ? x->raw : x->packed;
    return rc < 0 ? rc : io_write_full(f->fd, bytes, (size_t)x->head.stored, err);
}

static int put_chunk(struct file *f, uint32_t kind, const void *p, size_t n, size_t size,
                     struct err *err)
{
    struct slot *x = &f->slot[0];
    x->head = (struct chunk){.kind = kind, .bytes = n};
    memcpy(x->raw, p, n);
    pack_slot(x, size);
    return put_slot(f, x, err);
}

static void pack_page(struct file *f, struct slot *x, uint32_t page)
{
    size_t row = kvcache_row_bytes(f->s->e->kv);
    x->head = (struct chunk){.kind = CHUNK_PAGE, .bytes = page_rows(f->s, page) * row};
    copy_page(f, x, page);
    pack_slot(x, f->size);
}

static void write_packed(struct file *f)
{
    for (uint32_t i = 0; f->rc == 0 && i < f->n_packed; i++)
        f->rc = put_slot(f, &f->packed[i], &f->err);
}

/* Item 0 is the writing of what was packed before, the others are pages. */
static void pack_pages(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct file *f = arg;
    for (uint64_t i = first; i < last; i++)
        if (i == 0)
            write_packed(f);
        else
            pack_page(f, &f->packing[i - 1], f->first_page + (uint32_t)i - 1);
}

/* How many pages go in the round that begins at f->first_page, of `most`. */
static uint32_t round_pages(const struct file *f, uint32_t most)
{
    uint32_t left = (f->s->kv.len + KV_PAGE - 1) / KV_PAGE - f->first_page;
    return left < most ? left : most;
}

static int write_pages(struct file *f, struct err *err)
{
    uint32_t n, half = f->n_slots / 2;
    f->packing = f->slot;
    f->packed = f->slot + half;
    for (f->first_page = 0; f->rc == 0 && (n = round_pages(f, half)) > 0; f->first_page += n) {
        pool_run(f->s->e->pool, pack_pages, f, n + 1, 1);
        struct slot *full = f->packing;
        f->packing = f->packed;
        f->packed = full;
        f->n_packed = n;
    }
    write_packed(f);
    if (f->rc < 0)
        *err = f->err;
    return f->rc;
}

static int write_seq(struct file *f, struct err *err)
{
    struct engine_seq *s = f->s;
    struct header h = {.version = VERSION,
                       .n_tokens = s->kv.len,
                       .n_hidden = s->n_hidden,
                       .page_rows = KV_PAGE};
    memcpy(h.magic, magic, sizeof h.magic);
    memcpy(h.fingerprint, &s->e->fingerprint, sizeof h.fingerprint);
    f->chain = hash128(&h, sizeof h);
    f->size = element_bytes(s->e);
    int rc = io_write_full(f->fd, &h, sizeof h, err);
    if (rc == 0)
        rc = put_chunk(f, CHUNK_TOKENS, s->tok, s->kv.len * sizeof *s->tok, sizeof *s->tok,
                       err);
    if (rc == 0)
        rc = put_chunk(f, CHUNK_HIDDEN, s->hidden,
                       (size_t)s->n_hidden * s->e->w->hp.dim * sizeof(float), sizeof(float),
                       err);
    if (rc == 0)
        rc = write_pages(f, err);
    return rc < 0 ? rc : io_write_full(f->fd, &f->chain, sizeof f->chain, err);
}

/* Makes the rename itself survive a power cut. */
static int sync_folder(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    char folder[4096];
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1,
             slash ? path : ".");
    int fd = open(folder[0] ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? err_sys(err, "sync folder '%s'", folder) : 0;
    io_close(&fd);
    return rc;
}

int engine_seq_save(struct engine_seq *s, const char *path, struct err *err)
{
    struct file f;
    char temp[4096];
    if (snprintf(temp, sizeof temp, "%s.%d.tmp", path, (int)getpid()) >= (int)sizeof temp)
        return err_set(err, ERR_LIMIT, "the path '%.100s...' is too long", path);
    int rc = file_init(&f, s, path, true, err);
    if (rc == 0) {
        f.fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        rc = f.fd < 0 ? err_sys(err, "create '%s'", temp) : write_seq(&f, err);
    }
    if (rc == 0 && fsync(f.fd) < 0)
        rc = err_sys(err, "sync '%s'", temp);
    if (rc == 0 && rename(temp, path) < 0)
        rc = err_sys(err, "rename '%s' to '%s'", temp, path);
    if (rc == 0)
        rc = sync_folder(path, err);
    else if (f.fd >= 0)
        unlink(temp);
    file_done(&f);
    return rc;
}

/* --- reading
 * ------------------------------------------------------------------------------- */

static int damaged(const struct file *f, const char *what, struct err *err)
{
    return err_set(err, ERR_CORRUPT, "snapshot '%s' is damaged: %s; delete it", f->path,
                   what);
}

/* Hashes are not checked when fuzzing: the fuzzer could never get past one. */
static bool agrees(const void *a, const void *b, size_t n)
{
#ifdef AGENTD_FUZZ
    (void)a, (void)b, (void)n;
    return true;
#else
    return memcmp(a, b, n) == 0;
#endif
}

static int read_bytes(struct file *f, void *p, size_t n, struct err *err)
{
    int rc = io_read_full(f->fd, p, n, err);
    return rc == -ERR_CORRUPT ? damaged(f, "the file ends early", err) : rc;
}

/* Reads a chunk of exactly n bytes of this kind, as it is stored. */
static int get_slot(struct file *f, struct slot *x, uint32_t kind, size_t n, struct err *err)
{
    struct chunk *c = &x->head;
    int rc = read_bytes(f, c, sizeof *c, err);
    if (rc < 0)
        return rc;
    if (c->kind != kind || c->bytes != n || c->stored > n ||
        (c->codec == CODEC_RAW ? c->stored != n : c->codec != CODEC_PLANES))
        return damaged(f, "a part has an impossible head", err);
    f->chain = hash128_more(f->chain, c, sizeof *c);
    return read_bytes(f, c->codec == CODEC_RAW ? x->raw : x->packed, (size_t)c->stored, err);
}

/* Makes x->raw; x->wrong says why not. */
static void unpack_slot(struct slot *x, size_t size)
{
    size_t n = (size_t)x->head.bytes, stored = (size_t)x->head.stored;
    bool raw = x->head.codec == CODEC_RAW;
    uint64_t hash = hash64(raw ? x->raw : x->packed, stored);
    x->wrong = NULL;
    if (!agrees(&hash, &x->head.hash, sizeof hash)) {
        x->wrong = "a checksum does not agree";
        return;
    }
    if (raw)
        return;
    uint8_t *to = size > 1 ? x->planes : x->raw;
    size_t got = ZSTD_decompressDCtx(x->unpack, to, n, x->packed, stored);
    if (ZSTD_isError(got) || got != n)
        x->wrong = "a part does not unpack";
    else if (size > 1)
        planes_join(x->raw, x->planes, n, size);
}

static int get_chunk(struct file *f, uint32_t kind, void *p, size_t n, size_t size,
                     struct err *err)
{
    struct slot *x = &f->slot[0];
    int rc = get_slot(f, x, kind, n, err);
    if (rc < 0)
        return rc;
    unpack_slot(x, size);
    if (x->wrong)
        return damaged(f, x->wrong, err);
    memcpy(p, x->raw, n);
    return 0;
}

static void unpack_pages(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct file *f = arg;
    for (uint64_t i = first; i < last; i++) {
        unpack_slot(&f->slot[i], f->size);
        if (!f->slot[i].wrong)
            copy_page(f, &f->slot[i], f->first_page + (uint32_t)i);
    }
}

static int read_header(struct file *f, struct header *h, struct err *err)
{
    const struct engine *e = f->s->e;
    int rc = read_bytes(f, h, sizeof *h, err);
    if (rc < 0)
        return rc;
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return err_set(err, ERR_PARSE, "'%s' is not a snapshot of a seq", f->path);
    if (h->version != VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "snapshot '%s' has version %u; this program reads %d", f->path,
                       h->version, VERSION);
    if (memcmp(h->fingerprint, &e->fingerprint, sizeof h->fingerprint) != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "snapshot '%s' belongs to another model or cache format than '%s'",
                       f->path, e->w->path);
    if (h->n_tokens > e->info.n_ctx)
        return err_set(err, ERR_LIMIT,
                       "snapshot '%s' has %u positions; the context is %u", f->path,
                       h->n_tokens, e->info.n_ctx);
    if (h->page_rows != KV_PAGE || h->n_hidden > HIDDEN_KEPT || h->n_hidden > h->n_tokens)
        return damaged(f, "the header contradicts itself", err);
    f->chain = hash128(h, sizeof *h);
    return 0;
}

static int read_tokens(struct file *f, const struct header *h, struct err *err)
{
    struct engine_seq *s = f->s;
    size_t n = h->n_tokens * sizeof *s->tok;
    int rc = get_chunk(f, CHUNK_TOKENS, s->tok, n, sizeof *s->tok, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < h->n_tokens; i++)
        if (s->tok[i] < 0 || (uint32_t)s->tok[i] >= s->e->info.n_vocab)
            return damaged(f, "a token is not in the vocabulary", err);
    n = (size_t)h->n_hidden * s->e->w->hp.dim * sizeof(float);
    rc = get_chunk(f, CHUNK_HIDDEN, s->hidden, n, sizeof(float), err);
    if (rc < 0)
        return rc;
    s->n_hidden = h->n_hidden;
    return 0;
}

static int read_seq(struct file *f, struct err *err)
{
    struct engine_seq *s = f->s;
    struct header h;
    struct hash128 chain;
    char extra;
    int rc = read_header(f, &h, err);
    if (rc == 0)
        rc = read_tokens(f, &h, err);
    if (rc == 0)
        rc = kvseq_reserve(&s->kv, 0, h.n_tokens, err);
    if (rc < 0)
        return rc;
    s->kv.len = h.n_tokens;
    s->mtp_len = s->e->mtp && h.n_tokens ? h.n_tokens - 1 : 0;
    f->size = element_bytes(s->e);
    size_t row = kvcache_row_bytes(s->e->kv);
    uint32_t n;
    for (f->first_page = 0; (n = round_pages(f, f->n_slots)) > 0; f->first_page += n) {
        for (uint32_t i = 0; rc == 0 && i < n; i++)
            rc = get_slot(f, &f->slot[i], CHUNK_PAGE,
                          page_rows(s, f->first_page + i) * row, err);
        if (rc < 0)
            return rc;
        pool_run(s->e->pool, unpack_pages, f, n, 1);
        for (uint32_t i = 0; i < n; i++)
            if (f->slot[i].wrong)
                return damaged(f, f->slot[i].wrong, err);
    }
    rc = read_bytes(f, &chain, sizeof chain, err);
    if (rc < 0)
        return rc;
    if (!agrees(&chain, &f->chain, sizeof chain))
        return damaged(f, "the parts are not of one file", err);
    if (read(f->fd, &extra, 1) != 0)
        return damaged(f, "bytes follow its end", err);
    return 0;
}

int engine_seq_load(struct engine_seq **out, struct engine *e, const char *path,
                    struct err *err)
{
    struct engine_seq *s = NULL;
    struct file f = {.fd = -1};
    int rc = engine_seq_new(&s, e, err);
    if (rc == 0)
        rc = file_init(&f, s, path, false, err);
    if (rc == 0) {
        f.fd = open(path, O_RDONLY | O_CLOEXEC);
        rc = f.fd < 0 ? err_sys(err, "open '%s'", path) : read_seq(&f, err);
    }
    file_done(&f);
    if (rc < 0) {
        engine_seq_free(s);
        return rc;
    }
    *out = s;
    return 0;
}
