/*
 * test_speculate.c - the choice to draft follows costs and acceptance, on invented ones; and
 * the text does not depend on it, on a real engine.
 */
#include "engine/speculate.h"

#include <unistd.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "test.h"

static uint32_t seed = 5;

static double uniform(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (double)(seed >> 8) / 16777216.0;
}

/* Runs n steps on costs 1 (plain) and `pair`, drafts standing with probability `kept`;
 * returns the share of steps that drafted. */
static double drafted(struct pace *p, int n, double pair, double kept)
{
    int pairs = 0;
    for (int i = 0; i < n; i++) {
        double noise = i % 97 == 50 ? 30 : 0.9 + 0.2 * uniform(); /* others run too */
        if (pace_drafts(p)) {
            pairs++;
            pace_pair(p, pair * noise, uniform() < kept);
        } else {
            pace_plain(p, noise);
        }
    }
    return (double)pairs / n;
}

static void drafts_while_it_pays(void **state)
{
    (void)state;
    struct pace p = {0};
    assert_true(drafted(&p, 2000, 1.57, 0.80) > 0.9); /* 1.80 tokens for 1.57 */
    assert_true(drafted(&p, 1000, 1.57, 0.30) < 0.4); /* the text changed: soon off */
    assert_true(drafted(&p, 3000, 1.57, 0.30) < 0.06); /* and trials are rare */
    drafted(&p, 2000, 1.57, 0.95);
    assert_true(drafted(&p, 2000, 1.57, 0.95) > 0.9); /* found again by a trial */
    drafted(&p, 1000, 2.5, 0.95); /* never worth it: two tokens at most */
    assert_true(drafted(&p, 3000, 2.5, 0.95) < 0.06);
    assert_int_equal(p.n_plain + p.n_pairs, 2000 + 1000 + 3000 + 4000 + 4000);
}

/* n ids from a prompt; how the steps went comes back in *pace. */
static void speak(const char *path, enum engine_drafts drafts, bool mtp, float temperature,
                  int32_t stop, int32_t *out, uint32_t n, struct engine_pace *pace)
{
    struct err err = {0};
    struct engine *e = NULL;
    struct engine_seq *s = NULL;
    struct sample_rng rng;
    struct sample_result r;
    struct sample_opts so = {.temperature = temperature, .top_p = 0.95f};
    struct engine_opts o = {.path = path, .mtp = mtp, .drafts = drafts,
                            .cache_bytes = 64u << 20};
    const int32_t prompt[] = {1, 5, 9, 200};
    ASSERT_OK(engine_open(&e, &o, &err), &err);
    ASSERT_OK(engine_seq_new(&s, e, &err), &err);
    sample_seed(&rng, 3);
    struct engine_work w = {.seq = s, .tok = prompt, .n = 4, .n_logits = 1};
    ASSERT_OK(engine_step(e, &w, 1, &err), &err);
    ASSERT_OK(engine_sample(e, w.logits, &so, &rng, &r, &err), &err);
    struct engine_speech p = {.seq = s, .opts = &so, .rng = &rng, .last = r.id, .stop = stop};
    for (uint32_t i = 0; i < n;) {
        uint32_t before = engine_seq_len(s);
        ASSERT_OK(engine_speak(e, &p, &err), &err);
        assert_int_equal(engine_seq_len(s), before + p.n);
        assert_int_equal(engine_seq_tokens(s)[before], p.last);
        for (uint32_t k = 0; k < p.n && i < n; k++)
            out[i++] = p.out[k].id;
        p.last = p.out[p.n - 1].id;
    }
    engine_pace(e, pace);
    engine_seq_free(s);
    engine_close(e);
}

static void text_does_not_depend_on_drafts(void **state)
{
    (void)state;
    enum { N = 200 };
    char dir[] = "/tmp/test_speculate.XXXXXX";
    struct err err = {0};
    struct engine_pace pace;
    int32_t plain[N], other[N];
    assert_non_null(mkdtemp(dir));
    struct model_make_test made = {.dir = dir, .variant = "tiny-v32"};
    ASSERT_OK(model_make_test(&made, &err), &err);
    for (int hot = 0; hot < 3; hot++) {
        float t = (float)hot * 0.7f;
        speak(dir, ENGINE_DRAFTS_AUTO, false, t, -1, plain, N, &pace);
        assert_int_equal(pace.n_pairs, 0);
        speak(dir, ENGINE_DRAFTS_ALWAYS, true, t, -1, other, N, &pace);
        assert_memory_equal(plain, other, sizeof plain);
        assert_int_equal(pace.n_plain, 0);
        speak(dir, ENGINE_DRAFTS_NEVER, true, t, -1, other, N, &pace);
        assert_memory_equal(plain, other, sizeof plain);
        speak(dir, ENGINE_DRAFTS_AUTO, true, t, plain[N / 2], other, N / 2, &pace);
        assert_memory_equal(plain, other, sizeof plain / 2);
        assert_true(pace.n_pairs >= 8 && pace.n_plain >= 4);
    }
    static const char *const file[] = {"model.safetensors", "config.json"};
    for (unsigned i = 0; i < ARRAY_LEN(file); i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/%s", dir, file[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_while_it_pays),
        cmocka_unit_test(text_does_not_depend_on_drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
