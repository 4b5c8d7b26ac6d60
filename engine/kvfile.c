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

enum { VERSION = 2, CODEC_RAW = 0, CODEC_PLANES = 1, ZSTD_LEVEL = 3 };
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

/* One file being written or read. */
struct file {
    struct engine_seq *s;
    int fd;
    const char *path;
    struct hash128 chain;
    uint8_t *raw, *stored; /* owned; one chunk, decoded and as stored */
    size_t room, at;       /* bytes of `raw` in all and used */
    uint32_t page;
    bool storing;
};

static size_t element_bytes(const struct engine *e)
{
    enum engine_cache t = kvcache_type(e->kv);
    return t == ENGINE_CACHE_F32 ? 4 : t == ENGINE_CACHE_FP8 ? 1 : 2;
}

static int file_init(struct file *f, struct engine_seq *s, const char *path,
                     struct err *err)
{
    const struct engine *e = s->e;
    *f = (struct file){.s = s, .fd = -1, .path = path};
    size_t page = kvcache_row_bytes(e->kv) * KV_PAGE;
    size_t tokens = (size_t)e->info.n_ctx * sizeof(int32_t);
    size_t hidden = (size_t)HIDDEN_KEPT * e->w->hp.dim * sizeof(float);
    f->room = page > tokens ? page : tokens;
    f->room = f->room > hidden ? f->room : hidden;
    f->raw = mem_alloc(f->room);
    f->stored = mem_alloc(ZSTD_compressBound(f->room) + f->room);
    return f->raw && f->stored ? 0 : err_nomem(err);
}

static void file_done(struct file *f)
{
    io_close(&f->fd);
    mem_free(f->raw);
    mem_free(f->stored);
}

/* Byte j of every element together: exponents next to exponents compress, mixed bytes do
 * not. */
static void to_planes(uint8_t *out, const uint8_t *in, size_t n, size_t size)
{
    size_t each = n / size;
    for (size_t j = 0; j < size; j++)
        for (size_t i = 0; i < each; i++)
            out[j * each + i] = in[i * size + j];
    memcpy(out + each * size, in + each * size, n - each * size);
}

static void from_planes(uint8_t *out, const uint8_t *in, size_t n, size_t size)
{
    size_t each = n / size;
    for (size_t j = 0; j < size; j++)
        for (size_t i = 0; i < each; i++)
            out[i * size + j] = in[j * each + i];
    memcpy(out + each * size, in + each * size, n - each * size);
}

/* --- writing
 * ------------------------------------------------------------------------------- */

static int put_chunk(struct file *f, uint32_t kind, size_t size, struct err *err)
{
    size_t n = f->at;
    uint8_t *planes = f->stored + ZSTD_compressBound(f->room);
    const uint8_t *bytes = f->raw;
    struct chunk c = {.kind = kind, .codec = CODEC_RAW, .bytes = n, .stored = n};
    to_planes(planes, f->raw, n, size);
    size_t packed =
        ZSTD_compress(f->stored, ZSTD_compressBound(f->room), planes, n, ZSTD_LEVEL);
    if (!ZSTD_isError(packed) && packed < n) {
        c.codec = CODEC_PLANES;
        c.stored = packed;
        bytes = f->stored;
    }
    c.hash = hash64(bytes, (size_t)c.stored);
    f->chain = hash128_more(f->chain, &c, sizeof c);
    f->at = 0;
    int rc = io_write_full(f->fd, &c, sizeof c, err);
    return rc < 0 ? rc : io_write_full(f->fd, bytes, (size_t)c.stored, err);
}

/* Copies one block of a page into or out of the chunk. */
static int copy_block(void *arg, const struct kv_block *b, struct err *err)
{
    struct file *f = arg;
    const struct engine *e = f->s->e;
    size_t n = b->element * b->n_rows;
    (void)err;
    /* The draft layer's last entry waits for a token that is not there yet. */
    bool blank = f->storing && b->layer == e->w->hp.n_layers &&
                 f->page * KV_PAGE + b->n_rows == f->s->kv.len;
    for (uint32_t i = 0; i < b->n_runs; i++, f->at += n) {
        uint8_t *block = b->base + i * b->stride, *raw = f->raw + f->at;
        if (f->storing)
            memcpy(raw, block, n);
        else
            memcpy(block, raw, n);
        if (blank)
            memset(raw + n - b->element, 0, b->element);
    }
    return 0;
}

static uint32_t page_rows(const struct engine_seq *s, uint32_t page)
{
    uint32_t left = s->kv.len - page * KV_PAGE;
    return left < KV_PAGE ? left : KV_PAGE;
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
    f->storing = true;
    int rc = io_write_full(f->fd, &h, sizeof h, err);
    if (rc < 0)
        return rc;
    f->at = s->kv.len * sizeof *s->tok;
    memcpy(f->raw, s->tok, f->at);
    rc = put_chunk(f, CHUNK_TOKENS, sizeof *s->tok, err);
    if (rc < 0)
        return rc;
    f->at = (size_t)s->n_hidden * s->e->w->hp.dim * sizeof(float);
    memcpy(f->raw, s->hidden, f->at);
    rc = put_chunk(f, CHUNK_HIDDEN, sizeof(float), err);
    for (f->page = 0; rc == 0 && f->page * KV_PAGE < s->kv.len; f->page++) {
        rc = kvseq_each_block(&s->kv, f->page, page_rows(s, f->page), copy_block, f, err);
        if (rc == 0)
            rc = put_chunk(f, CHUNK_PAGE, element_bytes(s->e), err);
    }
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
    int rc = file_init(&f, s, path, err);
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

/* Reads a chunk of exactly n bytes of this kind into f->raw. */
static int get_chunk(struct file *f, uint32_t kind, size_t n, size_t size,
                     struct err *err)
{
    struct chunk c;
    int rc = read_bytes(f, &c, sizeof c, err);
    if (rc < 0)
        return rc;
    if (c.kind != kind || c.bytes != n || c.stored > n ||
        (c.codec == CODEC_RAW ? c.stored != n : c.codec != CODEC_PLANES))
        return damaged(f, "a part has an impossible head", err);
    rc = read_bytes(f, f->stored, (size_t)c.stored, err);
    if (rc < 0)
        return rc;
    uint64_t hash = hash64(f->stored, (size_t)c.stored);
    if (!agrees(&hash, &c.hash, sizeof hash))
        return damaged(f, "a checksum does not agree", err);
    f->chain = hash128_more(f->chain, &c, sizeof c);
    f->at = 0;
    if (c.codec == CODEC_RAW) {
        memcpy(f->raw, f->stored, n);
        return 0;
    }
    uint8_t *planes = f->stored + ZSTD_compressBound(f->room);
    size_t got = ZSTD_decompress(planes, n, f->stored, (size_t)c.stored);
    if (ZSTD_isError(got) || got != n)
        return damaged(f, "a part does not unpack", err);
    from_planes(f->raw, planes, n, size);
    return 0;
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
    int rc = get_chunk(f, CHUNK_TOKENS, n, sizeof *s->tok, err);
    if (rc < 0)
        return rc;
    memcpy(s->tok, f->raw, n);
    for (uint32_t i = 0; i < h->n_tokens; i++)
        if (s->tok[i] < 0 || (uint32_t)s->tok[i] >= s->e->info.n_vocab)
            return damaged(f, "a token is not in the vocabulary", err);
    n = (size_t)h->n_hidden * s->e->w->hp.dim * sizeof(float);
    rc = get_chunk(f, CHUNK_HIDDEN, n, sizeof(float), err);
    if (rc < 0)
        return rc;
    memcpy(s->hidden, f->raw, n);
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
    for (f->page = 0; f->page * KV_PAGE < h.n_tokens; f->page++) {
        uint32_t n = page_rows(s, f->page);
        rc = get_chunk(f, CHUNK_PAGE, n * kvcache_row_bytes(s->e->kv),
                       element_bytes(s->e), err);
        if (rc == 0)
            rc = kvseq_each_block(&s->kv, f->page, n, copy_block, f, err);
        if (rc < 0)
            return rc;
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
        rc = file_init(&f, s, path, err);
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
