/*
 * test_engine.c - the face: golden logits from a file, mixed batches, forks, drafts,
 * snapshots, and that a step allocates nothing.
 */
#include "engine/engine.h"

#include <math.h>

#include "engine/model.h"
#include "test.h"
#include "tinyfile.h"

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
static const float *feed(struct engine *e, struct engine_seq *s, const int32_t *tok, uint32_t n)
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
        struct engine *e = open_with(v32, (struct engine_opts){.cache = ENGINE_CACHE_F32,
                                                               .n_threads = threads});
        struct engine_seq *s = seq_new(e);
        const float *l = feed(e, s, tok, 96);
        assert_int_equal(argmax(l), 236);
        assert_true(fabsf(l[0] + 0.321845f) < 2e-5f && fabsf(l[3] - 0.660294f) < 2e-5f);
        engine_seq_free(s);
        engine_close(e);
    }
}

/* A row's bits do not depend on what shares its batch, nor on threads. */
static void batch_independence(void **state)
{
    (void)state;
    int32_t tok[96], other[40];
    float alone[3][512];
    tiny_prompt(tok, 96);
    for (int i = 0; i < 40; i++)
        other[i] = (i * 37 + 5) % 512;
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct engine *e = open_with(v32, (struct engine_opts){.n_threads = threads});
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

/* A fork sees the shared prefix; writes on either side stay there. */
static void forks_copy_on_write(void **state)
{
    (void)state;
    int32_t tok[96];
    float want_a[512], want_b[512];
    struct err err = {0};
    tiny_prompt(tok, 96);
    struct engine *e = open_with(v32, (struct engine_opts){0});
    static const uint32_t at[] = {1, 40, 63, 64, 65, 80};
    for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
        struct engine_seq *a = seq_new(e), *b = NULL, *c = seq_new(e), *d = seq_new(e);
        int32_t x = 77, y = 301;
        feed(e, c, tok, at[i]);
        memcpy(want_a, feed(e, c, &x, 1), sizeof want_a);
        feed(e, d, tok, at[i]);
        memcpy(want_b, feed(e, d, &y, 1), sizeof want_b);
        feed(e, a, tok, at[i]);
        size_t before, after, limit;
        engine_cache_usage(e, &before, &limit);
        ASSERT_OK(engine_seq_fork(&b, a, at[i], &err), &err);
        engine_cache_usage(e, &after, &limit);
        assert_int_equal(before, after);
        assert_memory_equal(feed(e, a, &x, 1), want_a, sizeof want_a);
        assert_memory_equal(feed(e, b, &y, 1), want_b, sizeof want_b);
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
    struct engine_work twice[] = {{.seq = s, .tok = tok, .n = 1}, {.seq = s, .tok = tok, .n = 1}};
    ASSERT_ERR(engine_step(e, twice, 2, &err), ERR_STATE, &err, "same");
    assert_int_equal(engine_seq_len(s), 0);
    engine_seq_free(s);
    engine_close(e);

    /* Room for two pages: the third position run fails, and nobody has grown. */
    e = open_with(v32, (struct engine_opts){.cache_bytes = 2 * 65536 + 60000, .n_ctx = 256});
    size_t used, limit;
    engine_cache_usage(e, &used, &limit);
    struct engine_seq *a = seq_new(e), *b = seq_new(e);
    struct engine_work full[] = {{.seq = a, .tok = tok, .n = 64}, {.seq = b, .tok = tok, .n = 64}};
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
}

static int setup(void **state)
{
    (void)state;
    snprintf(v32, sizeof v32, "/tmp/test_engine_v32.XXXXXX");
    snprintf(glm, sizeof glm, "/tmp/test_engine_glm.XXXXXX");
    tinyfile_write(TESTMODEL_V32, v32);
    tinyfile_write(TESTMODEL_GLM, glm);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tinyfile_remove(v32);
    tinyfile_remove(glm);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_from_file),      cmocka_unit_test(batch_independence),
        cmocka_unit_test(forks_copy_on_write),   cmocka_unit_test(step_allocates_nothing),
        cmocka_unit_test(bad_work_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
