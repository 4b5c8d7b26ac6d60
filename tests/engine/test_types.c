/*
 * test_types.c - a model stored in each type that files may use, at work: threads, chunks
 * and company in the batch change no bit, and the logits stay near those of the
 * same numbers written out as floats.
 */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "test.h"

enum { N = 96, V = 512, BEFORE = 16 }; /* no selection before position 16 */

static char dir[64], model[96], stored[96], floats[96];

static void convert(const char *src, const char *dst, const char *type)
{
    struct err e = {0};
    struct model_convert o = {.src = src, .dst = dst, .type = type};
    ASSERT_OK(model_convert(&o, &e), &e);
}

static struct engine *open_engine(const char *path, uint32_t threads)
{
    struct engine *e = NULL;
    struct err err = {0};
    struct engine_opts o = {.path = path, .n_threads = threads, .max_batch = 128,
                            .cache_bytes = 32 << 20, .cache = ENGINE_CACHE_F32,
                            .form = ENGINE_FORM_MQA, .mtp = true};
    ASSERT_OK(engine_open(&e, &o, &err), &err);
    return e;
}

static int32_t prompt(uint32_t i)
{
    return (int32_t)((7u * i * i + 3u * i + 1u) % V);
}

/* Logits (N, V) of the golden prompt. */
static float *run(const char *path, uint32_t threads, uint32_t chunk)
{
    struct err err = {0};
    struct engine *e = open_engine(path, threads);
    struct engine_seq *s = NULL;
    float *out = mem_array(N * V, sizeof *out);
    int32_t tok[N];
    for (uint32_t i = 0; i < N; i++)
        tok[i] = prompt(i);
    ASSERT_OK(engine_seq_new(&s, e, &err), &err);
    for (uint32_t at = 0; at < N; at += chunk) {
        uint32_t n = N - at < chunk ? N - at : chunk;
        struct engine_work w = {.seq = s, .tok = tok + at, .n = n, .n_logits = n};
        ASSERT_OK(engine_step(e, &w, 1, &err), &err);
        memcpy(out + (size_t)at * V, w.logits, (size_t)n * V * sizeof *out);
    }
    engine_seq_free(s);
    engine_close(e);
    return out;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median over rows first..last-1 of |a - b| / |b|: a row whose experts or positions were
 * chosen otherwise, near a tie, does not count. */
static double distance(const float *a, const float *b, int first, int last)
{
    double row[N];
    for (int r = first; r < last; r++) {
        double d = 0, s = 0;
        for (int i = r * V; i < (r + 1) * V; i++) {
            d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
            s += (double)b[i] * (double)b[i];
        }
        row[r - first] = sqrt(d / s);
    }
    qsort(row, (size_t)(last - first), sizeof *row, by_size);
    return row[(last - first) / 2];
}

/* Three seqs in one step, each also alone: decode, a chunk that fills a page, a fresh one. */
static void company_changes_no_bit(const char *path)
{
    static const uint32_t past[] = {70, 30, 0}, more[] = {1, 40, 9};
    struct err err = {0};
    for (uint32_t threads = 1; threads <= 2; threads++) {
        struct engine *e = open_engine(path, threads);
        float *alone = mem_array(3 * V, sizeof *alone);
        struct engine_seq *s[3];
        struct engine_work w[3];
        int32_t tok[3][N];
        for (int i = 0; i < 3; i++) {
            struct engine_seq *t = NULL;
            for (uint32_t k = 0; k < N; k++)
                tok[i][k] = prompt(k + (uint32_t)i * 11);
            ASSERT_OK(engine_seq_new(&s[i], e, &err), &err);
            w[i] = (struct engine_work){.seq = s[i], .tok = tok[i], .n = past[i]};
            if (past[i])
                ASSERT_OK(engine_step(e, &w[i], 1, &err), &err);
            ASSERT_OK(engine_seq_fork(&t, s[i], past[i], &err), &err);
            w[i] = (struct engine_work){.seq = t, .tok = tok[i] + past[i], .n = more[i],
                                        .n_logits = 1};
            ASSERT_OK(engine_step(e, &w[i], 1, &err), &err);
            memcpy(alone + i * V, w[i].logits, V * sizeof *alone);
            engine_seq_free(t);
            w[i].seq = s[i];
        }
        ASSERT_OK(engine_step(e, w, 3, &err), &err);
        for (int i = 0; i < 3; i++) {
            assert_memory_equal(w[i].logits, alone + i * V, V * sizeof *alone);
            engine_seq_free(s[i]);
        }
        mem_free(alone);
        engine_close(e);
    }
}

static void each_type_at_work(void **state)
{
    (void)state;
    for (unsigned i = 0; model_type_name(i); i++) {
        const char *type = model_type_name(i);
        convert(model, stored, type);
        convert(stored, floats, "f32");
        float *want = run(floats, 1, N), *one = run(stored, 1, N);
        double near = distance(one, want, 0, BEFORE), all = distance(one, want, BEFORE, N);
        static const uint32_t chunks[] = {1, 7, 16, 17, N};
        for (unsigned c = 0; c < ARRAY_LEN(chunks); c++) {
            float *other = run(stored, 1 + (c + 1) % 2, chunks[c]);
            assert_memory_equal(other, one, N * V * sizeof *one);
            mem_free(other);
        }
        company_changes_no_bit(stored);
        /* Without rounded activations the file and its floats are one model, to the bit. */
        setenv("AGENTD_KERNEL", "exact", 1);
        float *a = run(stored, 2, N), *b = run(floats, 2, N);
        unsetenv("AGENTD_KERNEL");
        assert_memory_equal(a, b, N * V * sizeof *a);
        mem_free(a);
        mem_free(b);
        print_message("%-7s against its floats, median row: %.2g before selection, %.2g after\n",
                      type, near, all);
        assert_true(near < 0.06);
        mem_free(want);
        mem_free(one);
    }
}

static int setup(void **state)
{
    (void)state;
    struct err e = {0};
    snprintf(dir, sizeof dir, "/tmp/test_types.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(model, sizeof model, "%s/m", dir);
    snprintf(stored, sizeof stored, "%s/stored.gguf", dir);
    snprintf(floats, sizeof floats, "%s/floats.gguf", dir);
    struct model_make_test o = {.dir = model, .variant = "tiny-v32"};
    ASSERT_OK(model_make_test(&o, &e), &e);
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    char path[160];
    unlink(stored);
    unlink(floats);
    snprintf(path, sizeof path, "%s/config.json", model);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", model);
    unlink(path);
    return rmdir(model) + rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_at_work),
    };
    return cmocka_run_group_tests(tests, setup, cleanup);
}
