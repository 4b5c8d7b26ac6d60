/*
 * test_sampler.c - greedy ties, truncation, masks, seeds, log-probabilities; and that
 * draws and verified drafts follow the distribution they should.
 */
#include "engine/sampler.h"

#include <math.h>

#include "test.h"

enum { V = 8 };

static struct sampler *open_sampler(uint32_t n_vocab, uint32_t n_ids)
{
    struct sampler *s = NULL;
    struct err e = {0};
    ASSERT_OK(sampler_open(&s, n_vocab, n_ids, &e), &e);
    return s;
}

static int32_t pick(struct sampler *s, const float *l, struct sample_opts o,
                    uint64_t seed)
{
    struct sample_rng rng;
    struct sample_result r;
    struct err e = {0};
    sample_seed(&rng, seed);
    ASSERT_OK(sampler_pick(s, l, &o, &rng, &r, &e), &e);
    return r.id;
}

static void greedy_takes_the_lowest_of_the_best(void **state)
{
    (void)state;
    static const float l[V] = {0, 3, 1, 3, 3, -1, 9, 9};
    struct sampler *s = open_sampler(V, 6); /* ids 6 and 7 are padding of the head */
    assert_int_equal(pick(s, l, (struct sample_opts){0}, 1), 1);
    uint8_t allow = 0x38; /* 3, 4, 5 */
    assert_int_equal(pick(s, l, (struct sample_opts){.allow = &allow}, 1), 3);
    struct sample_rng rng;
    struct sample_result r;
    struct err e = {0};
    allow = 0xc0;
    sample_seed(&rng, 1);
    ASSERT_ERR(sampler_pick(s, l, &(struct sample_opts){.allow = &allow}, &rng, &r, &e),
               ERR_STATE, &e, "allows none");
    sampler_close(s);
}

/* How often each id is drawn. */
static void count(struct sampler *s, const float *l, struct sample_opts o, uint32_t n,
                  double *share)
{
    struct sample_rng rng;
    struct sample_result r;
    struct err e = {0};
    sample_seed(&rng, 5);
    memset(share, 0, V * sizeof *share);
    for (uint32_t i = 0; i < n; i++) {
        ASSERT_OK(sampler_pick(s, l, &o, &rng, &r, &e), &e);
        share[r.id] += 1.0 / n;
    }
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    static const float p[V] = {0.4f, 0.25f, 0.15f, 0.1f, 0.05f, 0.03f, 0.01f, 0.01f};
    float l[V];
    double share[V];
    struct sampler *s = open_sampler(V, V);
    for (int i = 0; i < V; i++)
        l[i] = logf(p[i]) + 3;
    count(s, l, (struct sample_opts){.temperature = 1}, 100000, share);
    for (int i = 0; i < V; i++)
        assert_true(fabs(share[i] - (double)p[i]) < 0.006);
    /* 0.4 + 0.25 < 0.7 <= 0.4 + 0.25 + 0.15 */
    count(s, l, (struct sample_opts){.temperature = 1, .top_p = 0.7f}, 100000, share);
    assert_true(fabs(share[0] - 0.5) < 0.006 && fabs(share[2] - 0.1875) < 0.006);
    for (int i = 3; i < V; i++)
        assert_true(share[i] == 0);
    count(s, l, (struct sample_opts){.temperature = 1, .top_k = 2}, 100000, share);
    assert_true(fabs(share[0] - 0.4 / 0.65) < 0.006 && share[2] == 0);
    count(s, l, (struct sample_opts){.temperature = 1, .min_p = 0.3f}, 100000, share);
    assert_true(share[2] > 0 && share[3] == 0); /* 0.1 < 0.3 * 0.4 */
    count(s, l, (struct sample_opts){.temperature = 0.5f}, 100000, share);
    double sum = 0;
    for (int i = 0; i < V; i++)
        sum += (double)(p[i] * p[i]);
    assert_true(fabs(share[1] - 0.0625 / sum) < 0.006);
    /* At least one id stays, whatever is asked. */
    count(s, l, (struct sample_opts){.temperature = 1, .top_p = 1e-6f}, 100, share);
    assert_true(share[0] > 0.999);
    sampler_close(s);
}

static void seeds_repeat(void **state)
{
    (void)state;
    float l[V] = {0};
    struct sampler *s = open_sampler(V, V);
    int differ = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        int32_t a = pick(s, l, (struct sample_opts){.temperature = 1}, seed);
        assert_int_equal(a, pick(s, l, (struct sample_opts){.temperature = 1}, seed));
        differ += a != pick(s, l, (struct sample_opts){.temperature = 1}, seed + 1);
    }
    assert_true(differ > 30);
    sampler_close(s);
}

static void logprobs_are_of_the_whole(void **state)
{
    (void)state;
    static const float l[V] = {1, 2, 3, 3, 0, -1, 50, 60};
    struct sampler *s = open_sampler(V, 6);
    struct sample_rng rng;
    struct sample_result r;
    struct err e = {0};
    double sum = 0;
    uint8_t allow = 0x02;
    for (int i = 0; i < 6; i++)
        sum += exp((double)l[i]);
    sample_seed(&rng, 1);
    ASSERT_OK(sampler_pick(
                  s, l,
                  &(struct sample_opts){.temperature = 0.3f, .allow = &allow, .n_top = 4},
                  &rng, &r, &e),
              &e);
    assert_int_equal(r.id, 1);
    assert_true(fabs((double)r.logprob - (2 - log(sum))) < 1e-5);
    assert_int_equal(r.n_top, 4);
    static const int32_t want[] = {2, 3, 1, 0};
    assert_memory_equal(r.top_id, want, sizeof want);
    assert_true(fabs((double)r.top_logprob[3] - (1 - log(sum))) < 1e-5);
    sampler_close(s);
}

/* Whatever the draft's distribution, kept and replaced tokens together follow the
 * model's. */
static void verified_drafts_follow_the_model(void **state)
{
    (void)state;
    static const float p[V] = {0.4f, 0.25f, 0.15f, 0.1f, 0.05f, 0.03f, 0.01f, 0.01f};
    static const float q[V] = {0.05f, 0.5f, 0.05f, 0.1f, 0.2f, 0.05f, 0.04f, 0.01f};
    float lp[V], lq[V];
    struct sampler *s = open_sampler(V, V);
    struct err e = {0};
    for (int i = 0; i < V; i++) {
        lp[i] = logf(p[i]);
        lq[i] = logf(q[i]);
    }
    for (int greedy_draft = 0; greedy_draft < 2; greedy_draft++)
        for (int top_p = 0; top_p < 2; top_p++) {
            struct sample_opts o = {.temperature = 1, .top_p = top_p ? 0.7f : 1};
            struct sample_rng rng;
            double share[V] = {0};
            enum { ROUNDS = 100000 };
            uint32_t n_kept = 0;
            sample_seed(&rng, 9);
            for (uint32_t i = 0; i < ROUNDS; i++) {
                struct sample_result r = {.id = 1};
                bool kept;
                if (!greedy_draft)
                    ASSERT_OK(sampler_pick(s, lq, &o, &rng, &r, &e), &e);
                ASSERT_OK(sampler_verify(s, lp, greedy_draft ? NULL : lq, r.id, &o, &rng,
                                         &kept, &r, &e),
                          &e);
                share[r.id] += 1.0 / ROUNDS;
                n_kept += kept;
            }
            assert_true(n_kept > ROUNDS / 10 && n_kept < ROUNDS);
            for (int i = 0; i < V; i++) {
                double want = !top_p ? (double)p[i] : i < 3 ? (double)p[i] / 0.8 : 0;
                if (fabs(share[i] - want) > 0.007)
                    fail_msg("id %d: %.4f of the draws, not %.4f", i, share[i], want);
            }
        }
    sampler_close(s);
}

static void greedy_verification(void **state)
{
    (void)state;
    static const float l[V] = {0, 3, 1, 3};
    struct sampler *s = open_sampler(V, V);
    struct sample_result r;
    struct err e = {0};
    bool kept;
    struct sample_opts o = {0};
    ASSERT_OK(sampler_verify(s, l, NULL, 1, &o, NULL, &kept, &r, &e), &e);
    assert_true(kept && r.id == 1);
    ASSERT_OK(sampler_verify(s, l, NULL, 3, &o, NULL, &kept, &r, &e), &e);
    assert_true(!kept && r.id == 1);
    ASSERT_ERR(sampler_verify(s, l, NULL, V, &o, NULL, &kept, &r, &e), ERR_LIMIT, &e,
               "8");
    sampler_close(s);
}

/* Whatever the options, an allowed id below n_ids comes out, or a sentence. */
static void odd_options_still_draw(void **state)
{
    (void)state;
    static const float odd[] = {-1, 0, 1e-30f, 0.5f, 1, 1.5f, 1e30f, INFINITY, NAN};
    float l[V] = {-1e30f, 3, -INFINITY, 2, 88, 88, 1e9f, 0};
    struct sampler *s = open_sampler(V, 6);
    for (unsigned t = 0; t < ARRAY_LEN(odd); t++)
        for (unsigned p = 0; p < ARRAY_LEN(odd); p++)
            for (unsigned m = 0; m < ARRAY_LEN(odd); m++)
                for (uint32_t k = 0; k < 9; k += 4)
                    for (unsigned mask = 0; mask < 64; mask += 9) {
                        uint8_t allow = (uint8_t)(mask | 0xc2);
                        struct sample_opts o = {.temperature = odd[t], .top_p = odd[p],
                                                .min_p = odd[m], .top_k = k,
                                                .allow = mask ? &allow : NULL};
                        int32_t id = pick(s, l, o, t + p + m);
                        assert_true(id >= 0 && id < 6 && (!mask || allow >> id & 1));
                    }
    static const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++)
        for (int t = 0; t < 2; t++) {
            struct sample_rng rng;
            struct sample_result r;
            struct err e = {0};
            struct sample_opts o = {.temperature = (float)t};
            sample_seed(&rng, 1);
            l[3] = bad[i];
            ASSERT_ERR(sampler_pick(s, l, &o, &rng, &r, &e), ERR_CORRUPT, &e, "token 3");
        }
    sampler_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_of_the_best),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(seeds_repeat),
        cmocka_unit_test(logprobs_are_of_the_whole),
        cmocka_unit_test(verified_drafts_follow_the_model),
        cmocka_unit_test(greedy_verification),
        cmocka_unit_test(odd_options_still_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
