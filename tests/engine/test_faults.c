/*
 * test_faults.c - proof that the golden numbers can fail: a twin of the forward pass
 * makes each classic mistake in turn, and each leaves its known fingerprint, which is not
 * the engine's. Then the twin, free of faults, judges the engine on the model's
 * relatives.
 */
#include "engine/forward.h"
#include "test.h"
#include "tiny.h"
#include "twin.h"

struct fingerprint {
    const char *what;
    enum twin_fault fault;
    int argmax;
    double log_sum, last0, last1;
    double prefix0, prefix1; /* of the 16-token prefix; 0, 0 = as without the fault */
};

static const struct fingerprint table[] = {
    {"none", TWIN_RIGHT, 236, 6.728762, -0.321845, -0.673572, 0.421970, 2.057456},
    {"index rope in pairs", TWIN_INDEX_PAIRS, 344, 6.744509, -0.360656, -0.290104, 0, 0},
    {"index rope on the last dims", TWIN_INDEX_ROPE_LAST, 361, 6.781682, 0.950818,
     -1.906398, 0, 0},
    {"no relu", TWIN_INDEX_NO_RELU, 341, 6.720416, -0.559511, -1.624230, 0, 0},
    {"k_norm as rmsnorm", TWIN_INDEX_RMSNORM, 105, 6.717806, 0.545506, -1.280353, 0, 0},
    {"k_norm without bias", TWIN_INDEX_NO_BIAS, 236, 6.715175, 0.407065, -1.417283, 0, 0},
    {"head weights ignored", TWIN_INDEX_NO_WEIGHTS, 149, 6.807629, 0.466444, -1.442977, 0,
     0},
    {"dense", TWIN_DENSE, 236, 6.733904, -0.276709, -1.936635, 0, 0},
    {"last 16", TWIN_RECENT, 236, 6.696811, 0.137544, -1.078700, 0, 0},
    {"mla rope in halves", TWIN_MLA_HALVES, 236, 6.765564, -0.273893, -0.641449, 0.037784,
     1.934380},
    {"no yarn", TWIN_NO_YARN, 269, 6.747394, -0.987467, -2.397723, 0.412461, 2.159378},
    {"no softmax correction", TWIN_NO_MSCALE, 236, 6.742141, -0.408556, -1.489709,
     0.888987, 1.722294},
    {"no kv_a norm", TWIN_NO_KV_NORM, 236, 6.723540, 0.145318, -1.155908, -0.198225,
     1.796839},
    {"groups masked with 0", TWIN_GROUPS_ZERO, 236, 6.743708, 0.024870, -0.270769,
     0.552696, 1.553764},
    {"no group limit", TWIN_NO_GROUPS, 236, 6.734320, -0.070639, -0.323957, 0.418234,
     1.357437},
    {"group score = max", TWIN_GROUP_MAX, 236, 6.748261, -0.207778, -0.798580, 0.803134,
     1.634767},
    {"biased weight", TWIN_BIASED_WEIGHT, 236, 6.736822, 0.490042, 0.435581, 0.334869,
     -0.414505},
    {"no normalisation", TWIN_NO_NORM, 236, 6.729735, -0.643196, -0.722815, -0.120458,
     0.458865},
    {"shared expert omitted", TWIN_NO_SHARED, 236, 6.765050, 0.118744, -0.791123,
     0.413448, 1.531462},
};

static void each_fault_leaves_its_fingerprint(void **state)
{
    (void)state;
    int32_t tok[96];
    tiny_prompt(tok, 96);
    struct tiny *t = tiny_open(TESTMODEL_V32);
    assert_int_equal(ARRAY_LEN(table), TWIN_FAULTS);
    for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
        const struct fingerprint *f = &table[i];
        double out[2][TWIN_W], sum = 0;
        bool same = f->prefix0 == 0 && f->prefix1 == 0;
        double p0 = same ? table[0].prefix0 : f->prefix0;
        double p1 = same ? table[0].prefix1 : f->prefix1;
        twin_run(&t->w, tok, 96, f->fault, 15, out);
        int best = 0;
        for (int v = 0; v < 512; v++) {
            best = out[1][v] > out[1][best] ? v : best;
            sum += exp(out[1][v]);
        }
        if (best != f->argmax || fabs(log(sum) - f->log_sum) > 2e-6 ||
            fabs(out[1][0] - f->last0) > 2e-6 || fabs(out[1][1] - f->last1) > 2e-6 ||
            fabs(out[0][0] - p0) > 2e-6 || fabs(out[0][1] - p1) > 2e-6)
            fail_msg("%s: argmax %d lse %.6f logits %.6f %.6f prefix %.6f %.6f", f->what,
                     best, log(sum), out[1][0], out[1][1], out[0][0], out[0][1]);
        /* Ten times the golden tolerance away: no fault hides in it. */
        if (f->fault != TWIN_RIGHT)
            assert_true(fabs(f->last0 - table[0].last0) > 2e-4 ||
                        fabs(f->last1 - table[0].last1) > 2e-4);
    }
    tiny_close(t);
}

/* Compares each selection, as it is made, with the twin's. */
struct judge {
    const struct twin_sets *want;
    uint32_t n_seen, n_wrong;
};

static void judge(void *arg, const struct model_selected *s)
{
    struct judge *j = arg;
    bool same = s->n_set == (uint32_t)j->want->n_set[s->layer][s->pos];
    for (uint32_t i = 0; same && i < s->n_set; i++)
        same = s->set[i] == (uint32_t)j->want->set[s->layer][s->pos][i];
    j->n_seen++;
    j->n_wrong += !same;
}

/* The engine's logits of `at` and of the last position. */
static void engine_run(struct tiny *t, const int32_t *tok, uint32_t n, uint32_t at,
                       float out[2][512], struct judge *watch)
{
    struct err e = {0};
    struct pool *pool = NULL;
    struct kernel *k = NULL;
    struct kvcache *kv = NULL;
    struct forward *f = NULL;
    struct kvseq s;
    struct kvcache_opts c = {.type = ENGINE_CACHE_F32, .bytes = 64 << 20, .n_ctx = 256};
    struct forward_opts o = {.max_rows = n, .n_ctx = 256};
    ASSERT_OK(pool_open(&pool, 2, &e), &e);
    ASSERT_OK(kernel_open(&k, &t->w, pool, n, &e), &e);
    ASSERT_OK(kvcache_open(&kv, &t->w.hp, &c, &e), &e);
    ASSERT_OK(forward_open(&f, &t->w, k, kv, &o, &e), &e);
    ASSERT_OK(kvseq_init(&s, kv, &e), &e);
    f->watch = watch ? judge : NULL;
    f->watch_arg = watch;
    ASSERT_OK(kvseq_reserve(&s, 0, n, &e), &e);
    struct forward_run run = {&s, 0, n, 0};
    ASSERT_OK(forward_main(f, &run, 1, tok, &e), &e);
    forward_head(f, &t->w.head, f->hidden + at * 256, 1, out[0]);
    forward_head(f, &t->w.head, f->hidden + (n - 1) * 256, 1, out[1]);
    kvseq_done(&s);
    forward_close(f);
    kvcache_close(kv);
    kernel_close(k);
    pool_close(pool);
}

/* The largest difference of a logit between engine and twin; want as the twin has it. */
static double compare(struct tiny *t, double want[2][TWIN_W])
{
    int32_t tok[96];
    float got[2][512];
    double worst = 0;
    tiny_prompt(tok, 96);
    twin_run(&t->w, tok, 96, TWIN_RIGHT, 15, want);
    engine_run(t, tok, 96, 15, got, NULL);
    for (int i = 0; i < 2; i++)
        for (int v = 0; v < 512; v++) {
            double off = fabs((double)got[i][v] - want[i][v]);
            worst = off > worst ? off : worst; /* fmax() here makes GCC 12 for aarch64 fall over */
        }
    return worst;
}

static void relatives_agree_with_the_twin(void **state)
{
    (void)state;
    for (int kind = 0; kind < TESTMODEL_KINDS; kind++) {
        struct tiny *t = tiny_open(kind);
        double want[2][TWIN_W], worst = compare(t, want);
        print_message("%s: largest difference of a logit %.2g\n", testmodel_name(kind),
                      worst);
        assert_true(worst < 5e-5);
        tiny_close(t);
    }
}

/* Not samples of the selections: each of them, of every layer and position. */
static void every_selection_is_the_twins(void **state)
{
    (void)state;
    static const enum testmodel_kind kinds[] = {TESTMODEL_V32, TESTMODEL_GLM};
    static const uint32_t layers[] = {4, 3}; /* GLM's third has no indexer */
    int32_t tok[96];
    tiny_prompt(tok, 96);
    for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
        struct tiny *t = tiny_open(kinds[k]);
        struct twin_sets *sets = calloc(1, sizeof *sets);
        assert_non_null(sets);
        double want[2][TWIN_W];
        float got[2][512];
        struct judge j = {.want = sets};
        twin_run_sets(&t->w, tok, 96, TWIN_RIGHT, 15, want, sets);
        engine_run(t, tok, 96, 15, got, &j);
        print_message("%s: %u selections, %u unlike the twin's\n", testmodel_name(kinds[k]),
                      j.n_seen, j.n_wrong);
        assert_int_equal(j.n_seen, layers[k] * 96);
        assert_int_equal(j.n_wrong, 0);
        free(sets);
        tiny_close(t);
    }
}

/* Both rules of scoring a group of experts, under both score functions: V2 takes the best of a
 * group, V3 the sum of its two best. They are different models. */
static void group_scores_by_both_rules(void **state)
{
    (void)state;
    static const enum testmodel_kind kinds[] = {TESTMODEL_SOFTMAX, TESTMODEL_V32};
    for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
        double want[2][2][TWIN_W], apart = 0;
        for (int rule = GROUP_TOP2_SUM; rule <= GROUP_MAX; rule++) {
            struct tiny *t = tiny_open(kinds[k]);
            t->w.hp.group_score = (enum group_score)rule;
            assert_true(compare(t, want[rule]) < 5e-5);
            tiny_close(t);
        }
        for (int v = 0; v < 512; v++)
            apart = fmax(apart, fabs(want[0][1][v] - want[1][1][v]));
        assert_true(apart > 0.05);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_fault_leaves_its_fingerprint),
        cmocka_unit_test(relatives_agree_with_the_twin),
        cmocka_unit_test(every_selection_is_the_twins),
        cmocka_unit_test(group_scores_by_both_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
