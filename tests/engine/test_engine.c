/*
 * test_engine.c - the face: golden logits from a file, mixed batches, forks, drafts,
 * snapshots, and that a step allocates nothing.
 */
#include "engine/engine.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/mem.h"
#include "engine/model.h"
#include "test.h"

/* t_i = (7 i^2 + 3 i + 1) mod 512: the golden prompt. */
static void tiny_prompt(int32_t *tok, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        tok[i] = (int32_t)((7u * i * i + 3u * i + 1u) % 512u);
}

static char v32[64], glm[64];

static struct engine *open_with(const char *path, struct engine_opts o)
{
    struct engine *e = NULL;
    struct err err = {0};
    o.path = path;
    o.cache_bytes = o.cache_bytes ? o.cache_bytes : 64u << 20;
    o.max_batch = o.max_batch ? o.max_batch : 128;
    o.n_threads = o.n_threads ? o.n_threads : 1;
    ASSERT_OK(engine_open(&e, &o, &err), &err);
    return e;
}

static struct engine_seq *seq_new(struct engine *e)
{
    struct engine_seq *s = NULL;
    struct err err = {0};
    ASSERT_OK(engine_seq_new(&s, e, &err), &err);
    return s;
}

/* Appends; returns the last row's logits. */
static const float *feed(struct engine *e, struct engine_seq *s, const int32_t *tok,
                         uint32_t n)
{
    struct err err = {0};
    struct engine_work w = {.seq = s, .tok = tok, .n = n, .n_logits = 1};
    ASSERT_OK(engine_step(e, &w, 1, &err), &err);
    return w.logits;
}

static int32_t argmax(const float *x)
{
    int32_t best = 0;
    for (int32_t i = 1; i < 512; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static void golden_from_file(void **state)
{
    (void)state;
    int32_t tok[96];
    tiny_prompt(tok, 96);
    for (uint32_t threads = 1; threads <= 2; threads++) {
        struct engine *e = open_with(
            v32, (struct engine_opts){.cache = ENGINE_CACHE_F32, .n_threads = threads});
        struct engine_seq *s = seq_new(e);
        const float *l = feed(e, s, tok, 96);
        assert_int_equal(argmax(l), 236);
        assert_true(fabsf(l[0] + 0.321845f) < 2e-5f && fabsf(l[3] - 0.660294f) < 2e-5f);
        engine_seq_free(s);
        engine_close(e);
    }
}

/* A row's bits do not depend on what shares its batch, nor on threads. */
static void mix_batches(enum engine_cache cache)
{
    int32_t tok[96], other[40];
    float alone[3][512];
    tiny_prompt(tok, 96);
    for (int i = 0; i < 40; i++)
        other[i] = (i * 37 + 5) % 512;
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct engine *e = open_with(
            v32, (struct engine_opts){.n_threads = threads, .cache = cache});
        struct engine_seq *a = seq_new(e), *b = seq_new(e), *c = seq_new(e);
        struct err err = {0};
        feed(e, a, tok, 50);
        feed(e, c, other, 3);
        if (threads == 1) {
            struct engine_seq *a2 = NULL, *c2 = NULL;
            ASSERT_OK(engine_seq_fork(&a2, a, 50, &err), &err);
            ASSERT_OK(engine_seq_fork(&c2, c, 3, &err), &err);
            memcpy(alone[0], feed(e, a2, tok + 50, 1), sizeof alone[0]);
            memcpy(alone[2], feed(e, c2, other + 3, 37), sizeof alone[2]);
            struct engine_seq *b2 = seq_new(e);
            memcpy(alone[1], feed(e, b2, other, 20), sizeof alone[1]);
            engine_seq_free(a2);
            engine_seq_free(b2);
            engine_seq_free(c2);
        }
        struct engine_work w[] = {{.seq = c, .tok = other + 3, .n = 37, .n_logits = 1},
                                  {.seq = a, .tok = tok + 50, .n = 1, .n_logits = 1},
                                  {.seq = b, .tok = other, .n = 20, .n_logits = 1}};
        ASSERT_OK(engine_step(e, w, 3, &err), &err);
        assert_memory_equal(w[1].logits, alone[0], sizeof alone[0]);
        assert_memory_equal(w[2].logits, alone[1], sizeof alone[1]);
        assert_memory_equal(w[0].logits, alone[2], sizeof alone[2]);
        engine_seq_free(a);
        engine_seq_free(b);
        engine_seq_free(c);
        engine_close(e);
    }
}

static void batch_independence(void **state)
{
    (void)state;
    mix_batches(ENGINE_CACHE_F16);
    mix_batches(ENGINE_CACHE_BF16_I8);
}

/* The draft layer's logits after `next`. */
static const float *draft(struct engine *e, struct engine_seq *s, int32_t next)
{
    struct err err = {0};
    struct engine_draft d = {.seq = s, .next = next};
    ASSERT_OK(engine_draft(e, &d, 1, &err), &err);
    return d.logits;
}

/* A fork sees the shared prefix; writes on either side stay there, drafts included. */
static void forks_copy_on_write(void **state)
{
    (void)state;
    enum { NEXT = 9 };
    int32_t tok[96], x = 77, y = 301;
    float want_a[512], want_b[512], draft_a[512], draft_b[512];
    struct err err = {0};
    tiny_prompt(tok, 96);
    struct engine *e = open_with(v32, (struct engine_opts){.mtp = true});
    static const uint32_t at[] = {1, 40, 63, 64, 65, 80};
    for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
        struct engine_seq *a = seq_new(e), *b = NULL, *c = seq_new(e), *d = seq_new(e);
        size_t before, after, limit;
        feed(e, c, tok, at[i]);
        memcpy(want_a, feed(e, c, &x, 1), sizeof want_a);
        memcpy(draft_a, draft(e, c, NEXT), sizeof draft_a);
        feed(e, d, tok, at[i]);
        memcpy(want_b, feed(e, d, &y, 1), sizeof want_b);
        memcpy(draft_b, draft(e, d, NEXT), sizeof draft_b);
        feed(e, a, tok, at[i]);
        engine_cache_usage(e, &before, &limit);
        ASSERT_OK(engine_seq_fork(&b, a, at[i], &err), &err);
        engine_cache_usage(e, &after, &limit);
        assert_int_equal(before, after);
        assert_memory_equal(feed(e, a, &x, 1), want_a, sizeof want_a);
        assert_memory_equal(feed(e, b, &y, 1), want_b, sizeof want_b);
        assert_memory_equal(draft(e, a, NEXT), draft_a, sizeof draft_a);
        assert_memory_equal(draft(e, b, NEXT), draft_b, sizeof draft_b);
        engine_seq_truncate(a, at[i]);
        assert_memory_equal(feed(e, a, &y, 1), want_b, sizeof want_b);
        engine_seq_free(a);
        engine_seq_free(b);
        engine_seq_free(c);
        engine_seq_free(d);
    }
    size_t used, limit;
    engine_cache_usage(e, &used, &limit);
    assert_int_equal(used, 0);
    struct engine_seq *a = seq_new(e), *b = NULL;
    ASSERT_ERR(engine_seq_fork(&b, a, 1, &err), ERR_LIMIT, &err, "0 positions");
    engine_seq_free(a);
    engine_close(e);
}

static void step_allocates_nothing(void **state)
{
    (void)state;
    int32_t tok[96];
    tiny_prompt(tok, 96);
    struct engine *e = open_with(v32, (struct engine_opts){.n_threads = 2, .mtp = true});
    struct engine_seq *s = seq_new(e);
    struct sample_rng rng;
    struct err err = {0};
    sample_seed(&rng, 1);
    uint64_t before = mem_count();
    const float *l = feed(e, s, tok, 96);
    for (int i = 0; i < 50; i++) {
        struct sample_opts o = {.temperature = 1, .top_p = 0.9f, .top_k = 40, .n_top = 5};
        struct sample_result r;
        ASSERT_OK(engine_sample(e, l, &o, &rng, &r, &err), &err);
        struct engine_draft d = {.seq = s, .next = r.id};
        ASSERT_OK(engine_draft(e, &d, 1, &err), &err);
        l = feed(e, s, &r.id, 1);
    }
    assert_int_equal(mem_count(), before);
    engine_seq_free(s);
    engine_close(e);
}

static void bad_work_is_refused(void **state)
{
    (void)state;
    int32_t tok[200] = {0}, bad = 512;
    struct err err = {0};
    struct engine *e = open_with(v32, (struct engine_opts){.n_ctx = 100});
    struct engine_seq *s = seq_new(e);
    struct engine_work w = {.seq = s, .tok = tok, .n = 101};
    ASSERT_ERR(engine_step(e, &w, 1, &err), ERR_LIMIT, &err, "context of 100");
    w = (struct engine_work){.seq = s, .tok = &bad, .n = 1};
    ASSERT_ERR(engine_step(e, &w, 1, &err), ERR_LIMIT, &err, "token id 512");
    struct engine_work twice[] = {{.seq = s, .tok = tok, .n = 1},
                                  {.seq = s, .tok = tok, .n = 1}};
    ASSERT_ERR(engine_step(e, twice, 2, &err), ERR_STATE, &err, "same");
    assert_int_equal(engine_seq_len(s), 0);
    engine_seq_free(s);
    engine_close(e);

    /* Room for two pages: the third position run fails, and nobody has grown. */
    e = open_with(v32,
                  (struct engine_opts){.cache_bytes = 2 * 65536 + 60000, .n_ctx = 256});
    size_t used, limit;
    engine_cache_usage(e, &used, &limit);
    struct engine_seq *a = seq_new(e), *b = seq_new(e);
    struct engine_work full[] = {{.seq = a, .tok = tok, .n = 64},
                                 {.seq = b, .tok = tok, .n = 64}};
    uint32_t pages = 0;
    while (engine_step(e, full, 2, &err) == 0)
        pages += 2;
    assert_int_equal(err.code, ERR_LIMIT);
    assert_non_null(strstr(err.text, "KV cache is full"));
    assert_int_equal(engine_seq_len(a), pages / 2 * 64);
    assert_int_equal(engine_seq_len(b), pages / 2 * 64);
    engine_cache_usage(e, &used, &limit);
    engine_seq_free(a);
    engine_seq_free(b);
    engine_close(e);
    struct engine_opts o = {.path = v32, .n_ctx = 300};
    ASSERT_ERR(engine_open(&e, &o, &err), ERR_LIMIT, &err, "256 positions");
    o = (struct engine_opts){.path = v32, .cache_bytes = 100};
    ASSERT_ERR(engine_open(&e, &o, &err), ERR_LIMIT, &err, "holds no page");
    o = (struct engine_opts){.path = v32, .cache_bytes = (size_t)1 << 50};
    ASSERT_ERR(engine_open(&e, &o, &err), ERR_LIMIT, &err, "exceeds the memory");
}

/* --- drafts
 * -------------------------------------------------------------------------------- */

/* Greedy text of n ids after a prompt, with or without drafts; *kept counts accepted
 * ones. */
static void greedy(struct engine *e, struct engine_seq *s, uint32_t n, bool drafts,
                   int32_t *out, uint32_t *kept)
{
    struct err err = {0};
    struct sample_opts o = {.temperature = 0};
    int32_t tok[8];
    tiny_prompt(tok, 8);
    int32_t id = argmax(feed(e, s, tok, 8));
    *kept = 0;
    out[0] = id;
    for (uint32_t i = 1; i < n;) {
        if (!drafts) {
            out[i++] = id = argmax(feed(e, s, &id, 1));
            continue;
        }
        struct engine_draft d = {.seq = s, .next = id};
        struct sample_result r;
        bool keep;
        ASSERT_OK(engine_draft(e, &d, 1, &err), &err);
        /* The untrained draft layer hardly ever guesses right: help it now and then. */
        int32_t guess = i % 3 ? argmax(d.logits) : -1;
        if (guess < 0) {
            struct engine_seq *peek = NULL;
            ASSERT_OK(engine_seq_fork(&peek, s, engine_seq_len(s), &err), &err);
            guess = argmax(feed(e, peek, &id, 1));
            engine_seq_free(peek);
        }
        int32_t pair[2] = {id, guess};
        struct engine_work w = {.seq = s, .tok = pair, .n = 2, .n_logits = 2};
        ASSERT_OK(engine_step(e, &w, 1, &err), &err);
        ASSERT_OK(
            engine_sample_verify(e, w.logits, NULL, guess, &o, NULL, &keep, &r, &err),
            &err);
        out[i++] = id = r.id;
        if (keep && i < n)
            out[i++] = id = argmax(w.logits + 512);
        *kept += keep;
        if (!keep || i == n)
            engine_seq_truncate(s, engine_seq_len(s) - !keep);
    }
}

/* Same output, and the cache ends up the same byte for byte. */
static void drafts_are_lossless(void **state)
{
    (void)state;
    struct err err = {0};
    for (int kind = 0; kind < 2; kind++) {
        struct engine *e = open_with(kind ? glm : v32, (struct engine_opts){.mtp = true});
        struct engine_seq *a = seq_new(e), *b = seq_new(e);
        int32_t x[100], y[100];
        uint32_t kept;
        struct buf fa, fb;
        greedy(e, a, 100, false, x, &kept);
        greedy(e, b, 100, true, y, &kept);
        assert_memory_equal(x, y, sizeof x);
        assert_true(kept > 10);
        uint32_t len =
            engine_seq_len(a) < engine_seq_len(b) ? engine_seq_len(a) : engine_seq_len(b);
        engine_seq_truncate(a, len - 3);
        engine_seq_truncate(b, len - 3);
        feed(e, a, x, 3); /* brings the last hidden states in step */
        feed(e, b, x, 3);
        ASSERT_OK(engine_seq_save(a, "/tmp/test_engine_a.kv", &err), &err);
        ASSERT_OK(engine_seq_save(b, "/tmp/test_engine_b.kv", &err), &err);
        buf_init(&fa, 0);
        buf_init(&fb, 0);
        ASSERT_OK(io_read_file("/tmp/test_engine_a.kv", &fa, &err), &err);
        ASSERT_OK(io_read_file("/tmp/test_engine_b.kv", &fb, &err), &err);
        assert_int_equal(fa.len, fb.len);
        assert_memory_equal(fa.data, fb.data, fa.len);
        buf_done(&fa);
        buf_done(&fb);
        unlink("/tmp/test_engine_a.kv");
        unlink("/tmp/test_engine_b.kv");
        engine_seq_free(a);
        engine_seq_free(b);
        engine_close(e);
    }
}

static int golden_mtp_row(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    static const float want[6] = {1.004396f, -0.799911f, -2.409204f,
                                  0.836851f, 1.935402f,  1.304718f};
    (void)err;
    ++*(uint32_t *)arg;
    for (int i = 0; pos == 94 && i < 6; i++)
        assert_true(fabsf(logits[i] - want[i]) < 2e-5f);
    if (pos == 94)
        assert_int_equal(argmax(logits), 9);
    return 0;
}

static void golden_mtp(void **state)
{
    (void)state;
    int32_t tok[96];
    struct err err = {0};
    uint32_t rows = 0;
    tiny_prompt(tok, 96);
    struct engine *e =
        open_with(v32, (struct engine_opts){.mtp = true, .cache = ENGINE_CACHE_F32});
    ASSERT_OK(model_mtp_logits(e, tok, 96, golden_mtp_row, &rows, &err), &err);
    assert_int_equal(rows, 95);
    /* The draft layer's cache filled by whole chunks gives the same row. */
    for (uint32_t chunk = 5; chunk <= 95; chunk += 45) {
        struct engine_seq *s = seq_new(e);
        for (uint32_t at = 0; at < 95; at += chunk)
            feed(e, s, tok + at, 95 - at < chunk ? 95 - at : chunk);
        struct engine_draft d = {.seq = s, .next = tok[95]};
        ASSERT_OK(engine_draft(e, &d, 1, &err), &err);
        ASSERT_OK(golden_mtp_row(&rows, 94, d.logits, &err), &err);
        engine_seq_free(s);
    }
    engine_close(e);
    e = open_with(v32, (struct engine_opts){0});
    struct engine_draft d = {0};
    ASSERT_ERR(engine_draft(e, &d, 1, &err), ERR_STATE, &err, "engine_opts.mtp");
    engine_close(e);
}

/* --- snapshots
 * ----------------------------------------------------------------------------- */

static const char *snapshot = "/tmp/test_engine.kv";

static void snapshots_round_trip(void **state)
{
    (void)state;
    int32_t tok[96], next = 7;
    struct err err = {0};
    float want[512];
    tiny_prompt(tok, 96);
    for (int cache = ENGINE_CACHE_F32; cache <= ENGINE_CACHE_BF16_I8; cache++)
        for (uint32_t n = 0; n <= 96; n += 32) {
            struct engine *e =
                open_with(v32, (struct engine_opts){.cache = cache, .mtp = n > 32});
            struct engine_seq *a = seq_new(e), *b = NULL;
            if (n)
                feed(e, a, tok, n);
            ASSERT_OK(engine_seq_save(a, snapshot, &err), &err);
            memcpy(want, feed(e, a, &next, 1), sizeof want);
            ASSERT_OK(engine_seq_load(&b, e, snapshot, &err), &err);
            assert_int_equal(engine_seq_len(b), n);
            assert_memory_equal(engine_seq_tokens(b), tok, n * sizeof *tok);
            assert_memory_equal(feed(e, b, &next, 1), want, sizeof want);
            engine_seq_free(a);
            engine_seq_free(b);
            engine_close(e);
        }
    unlink(snapshot);
}

/* Saves a seq of 70 positions and returns the file. */
static struct buf saved(struct engine *e)
{
    int32_t tok[70];
    struct err err = {0};
    struct engine_seq *s = seq_new(e);
    struct buf b;
    tiny_prompt(tok, 70);
    feed(e, s, tok, 70);
    ASSERT_OK(engine_seq_save(s, snapshot, &err), &err);
    buf_init(&b, 0);
    ASSERT_OK(io_read_file(snapshot, &b, &err), &err);
    engine_seq_free(s);
    return b;
}

static int load_bytes(struct engine *e, const void *p, size_t n, struct err *err)
{
    struct engine_seq *s = NULL;
    struct err e2 = {0};
    ASSERT_OK(io_write_file(snapshot, str_of(p, n), 0600, &e2), &e2);
    int rc = engine_seq_load(&s, e, snapshot, err);
    if (rc == 0)
        engine_seq_free(s);
    else
        assert_null(s);
    return rc;
}

/* Cut anywhere, or any byte changed: refused, and every page given back. */
static void damaged_snapshots_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct engine *e = open_with(v32, (struct engine_opts){.cache = ENGINE_CACHE_FP8});
    struct buf b = saved(e);
    size_t used, limit;
    assert_int_equal(load_bytes(e, b.data, b.len, &err), 0);
    for (size_t n = 0; n < b.len; n += n < 200 ? 7 : 997) {
        assert_int_equal(load_bytes(e, b.data, n, &err), -ERR_CORRUPT);
        assert_non_null(strstr(err.text, "ends early"));
    }
    for (size_t i = 0; i < b.len; i += i < 300 ? 1 : 499) {
        b.data[i] ^= 0x10;
        assert_true(load_bytes(e, b.data, b.len, &err) < 0);
        b.data[i] ^= 0x10;
    }
    buf_putc(&b, 'x');
    assert_int_equal(load_bytes(e, b.data, b.len, &err), -ERR_CORRUPT);
    engine_cache_usage(e, &used, &limit);
    assert_int_equal(used, 0);
    engine_close(e);
    buf_done(&b);
    unlink(snapshot);
}

static void foreign_snapshots_are_refused(void **state)
{
    (void)state;
    static const struct engine_opts other[] = {{.cache = ENGINE_CACHE_F32},
                                               {.cache = ENGINE_CACHE_BF16},
                                               {.cache = ENGINE_CACHE_FP8},
                                               {.faithful_fp8 = true},
                                               {.mtp = true},
                                               {.select = 1}};
    struct err err = {0};
    struct engine *e = open_with(v32, (struct engine_opts){0});
    struct buf b = saved(e);
    struct engine_seq *s = NULL;
    engine_close(e);
    for (unsigned i = 0; i < ARRAY_LEN(other); i++) {
        e = open_with(v32, other[i]);
        ASSERT_ERR(engine_seq_load(&s, e, snapshot, &err), ERR_UNSUPPORTED, &err,
                   "another");
        engine_close(e);
    }
    e = open_with(glm, (struct engine_opts){0});
    ASSERT_ERR(engine_seq_load(&s, e, snapshot, &err), ERR_UNSUPPORTED, &err,
               "another model");
    ASSERT_ERR(load_bytes(e, "hello, this is not a snapshot of anything", 41, &err),
               ERR_PARSE, &err, "not a snapshot");
    engine_close(e);
    e = open_with(v32, (struct engine_opts){.n_ctx = 69});
    ASSERT_OK(io_write_file(snapshot, buf_view(&b), 0600, &err), &err);
    ASSERT_ERR(engine_seq_load(&s, e, snapshot, &err), ERR_LIMIT, &err, "context is 69");
    ASSERT_ERR(engine_seq_load(&s, e, "/tmp/no/such/file", &err), ERR_SYS, &err,
               "/tmp/no/such");
    engine_close(e);
    buf_done(&b);
    unlink(snapshot);
}

/* --- memory
 * -------------------------------------------------------------------------------- */

/* Open, step, save, load with the Nth allocation failing, for every N. */
static void every_allocation_may_fail(void **state)
{
    (void)state;
    int32_t tok[20];
    tiny_prompt(tok, 20);
    for (uint64_t n = 1;; n += n < 60 ? 1 : 37) {
        struct engine *e = NULL;
        struct engine_seq *s = NULL, *fork = NULL, *loaded = NULL;
        struct err err = {0};
        struct engine_opts o = {.path = v32,
                                .cache_bytes = 16 << 20,
                                .max_batch = 32,
                                .n_threads = 2,
                                .mtp = true};
        mem_fail_at(n);
        int rc = engine_open(&e, &o, &err);
        if (rc == 0)
            rc = engine_seq_new(&s, e, &err);
        struct engine_work w = {.seq = s, .tok = tok, .n = 20, .n_logits = 1};
        if (rc == 0)
            rc = engine_step(e, &w, 1, &err);
        if (rc == 0)
            rc = engine_seq_fork(&fork, s, 10, &err);
        if (rc == 0)
            rc = engine_seq_save(s, snapshot, &err);
        if (rc == 0)
            rc = engine_seq_load(&loaded, e, snapshot, &err);
        mem_fail_at(0);
        engine_seq_free(s);
        engine_seq_free(fork);
        engine_seq_free(loaded);
        engine_close(e);
        if (rc == 0)
            break;
        assert_true(rc == -ERR_NOMEM);
    }
    unlink(snapshot);
}

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    struct model_make_test o = {.dir = v32, .variant = "tiny-v32"};
    snprintf(v32, sizeof v32, "/tmp/test_engine_v32.XXXXXX");
    snprintf(glm, sizeof glm, "/tmp/test_engine_glm.XXXXXX");
    assert_true(mkdtemp(v32) && mkdtemp(glm));
    ASSERT_OK(model_make_test(&o, &err), &err);
    o = (struct model_make_test){.dir = glm, .variant = "tiny-glm"};
    ASSERT_OK(model_make_test(&o, &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    const char *dir[] = {v32, glm};
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/model.safetensors", dir[i]);
        unlink(path);
        snprintf(path, sizeof path, "%s/config.json", dir[i]);
        unlink(path);
        rmdir(dir[i]);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_from_file),
        cmocka_unit_test(batch_independence),
        cmocka_unit_test(forks_copy_on_write),
        cmocka_unit_test(step_allocates_nothing),
        cmocka_unit_test(bad_work_is_refused),
        cmocka_unit_test(drafts_are_lossless),
        cmocka_unit_test(golden_mtp),
        cmocka_unit_test(snapshots_round_trip),
        cmocka_unit_test(damaged_snapshots_are_refused),
        cmocka_unit_test(foreign_snapshots_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
