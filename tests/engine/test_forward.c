/*
 * test_forward.c - the forward pass against golden numbers: logits, selections, the draft
 * layer; any chunking, either form, any thread count.
 */
#include "engine/forward.h"
#include "test.h"
#include "tiny.h"

enum { N = 96 };

/* A whole model at work, opened from a tiny one. */
struct rig {
    struct tiny *t;
    struct pool *pool;
    struct kernel *k;
    struct kvcache *kv;
    struct forward *f;
    struct kvseq seq;
};

static void rig_open(struct rig *r, enum testmodel_kind kind, uint32_t threads,
                     struct kvcache_opts c, struct forward_opts o)
{
    struct err e = {0};
    r->t = tiny_open(kind);
    c.bytes = c.bytes ? c.bytes : 64u << 20;
    c.n_ctx = o.n_ctx = 256;
    o.max_rows = o.max_rows ? o.max_rows : 128;
    c.mtp = true;
    ASSERT_OK(pool_open(&r->pool, threads, &e), &e);
    ASSERT_OK(kernel_open(&r->k, &r->t->w, r->pool, o.max_rows, &e), &e);
    ASSERT_OK(kvcache_open(&r->kv, &r->t->w.hp, &c, &e), &e);
    ASSERT_OK(forward_open(&r->f, &r->t->w, r->k, r->kv, &o, &e), &e);
    ASSERT_OK(kvseq_init(&r->seq, r->kv, &e), &e);
}

static void rig_close(struct rig *r)
{
    kvseq_done(&r->seq);
    forward_close(r->f);
    kvcache_close(r->kv);
    kernel_close(r->k);
    pool_close(r->pool);
    tiny_close(r->t);
}

/* Logits (n, 512) of a prompt in chunks; hidden (n, 256) where wanted. */
static void rig_run(struct rig *r, const int32_t *tok, uint32_t n, uint32_t chunk,
                    float *logits, float *hidden)
{
    struct err e = {0};
    for (uint32_t at = 0; at < n; at += chunk) {
        uint32_t m = n - at < chunk ? n - at : chunk;
        ASSERT_OK(kvseq_reserve(&r->seq, at, at + m, &e), &e);
        struct forward_run run = {&r->seq, 0, m, at};
        ASSERT_OK(forward_main(r->f, &run, 1, tok + at, &e), &e);
        r->seq.len = at + m;
        forward_head(r->f, &r->t->w.head, r->f->hidden, m, logits + (size_t)at * 512);
        if (hidden)
            memcpy(hidden + (size_t)at * 256, r->f->hidden, m * 256 * sizeof(float));
    }
}

static void expect(const float *got, const double *want, int n, double tol)
{
    for (int i = 0; i < n; i++)
        if (fabs(got[i] - want[i]) > tol)
            fail_msg("[%d] is %.6f, not %.6f", i, (double)got[i], want[i]);
}

static int argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static void check_golden(const float *logits)
{
    static const double last[8] = {-0.321845, -0.673572, 1.096172,  0.660294,
                                   -0.251731, 0.859864,  -0.401682, 0.719831};
    static const double tenth[6] = {-0.275286, 1.212502, 1.462562,
                                    -0.252969, 0.245629, -0.312636};
    const float *l = logits + 95 * 512;
    expect(l, last, 8, 2e-5);
    expect(logits + 10 * 512, tenth, 6, 2e-5);
    assert_int_equal(argmax(l, 512), 236);
    double sum = 0;
    for (int i = 0; i < 512; i++)
        sum += exp((double)l[i]);
    assert_true(fabs(log(sum) - 6.728762) < 2e-5);
}

static const uint32_t chunks[] = {1, 7, 16, 17, 96};

static void golden_logits(void **state)
{
    (void)state;
    int32_t tok[N];
    tiny_prompt(tok, N);
    float *logits = mem_array(N * 512, sizeof *logits);
    for (int form = ENGINE_FORM_AUTO; form <= ENGINE_FORM_MQA; form++)
        for (int masked = 0; masked < 2; masked++)
            for (unsigned c = 0; c < ARRAY_LEN(chunks); c++) {
                struct rig r;
                rig_open(&r, TESTMODEL_V32, 1,
                         (struct kvcache_opts){.type = ENGINE_CACHE_F32},
                         (struct forward_opts){.form = form, .masked = masked});
                rig_run(&r, tok, N, chunks[c], logits, NULL);
                check_golden(logits);
                rig_close(&r);
            }
    mem_free(logits);
}

/* --- selections
 * ---------------------------------------------------------------------------- */

struct watched {
    uint32_t set[5][N][N], n_set[5][N];
    float score[5][N][4];
};

static void watch(void *arg, const struct model_selected *s)
{
    struct watched *w = arg;
    memcpy(w->set[s->layer][s->pos], s->set, s->n_set * sizeof *s->set);
    w->n_set[s->layer][s->pos] = s->n_set;
    for (uint32_t i = 0; i < 4 && i <= s->pos; i++)
        w->score[s->layer][s->pos][i] = s->scores[i];
}

static void run_watched(struct watched *w, enum testmodel_kind kind,
                        struct kvcache_opts c, struct forward_opts o, uint32_t chunk,
                        uint32_t threads, float *logits)
{
    int32_t tok[N];
    struct rig r;
    memset(w, 0, sizeof *w);
    tiny_prompt(tok, N);
    rig_open(&r, kind, threads, c, o);
    r.f->watch = watch;
    r.f->watch_arg = w;
    rig_run(&r, tok, N, chunk, logits, NULL);
    rig_close(&r);
}

static void check_set(const struct watched *w, int layer, int pos, const uint32_t *want,
                      uint32_t n)
{
    assert_int_equal(w->n_set[layer][pos], n);
    assert_memory_equal(w->set[layer][pos], want, n * sizeof *want);
}

static void golden_selections(void **state)
{
    (void)state;
    static const uint32_t a[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 16, 19, 20};
    static const uint32_t b[] = {2,  4,  7,  16, 17, 18, 20, 22,
                                 23, 28, 29, 31, 36, 37, 39, 40};
    static const uint32_t c[] = {17, 30, 32, 42, 46, 47, 48, 56,
                                 58, 60, 62, 67, 76, 77, 81, 83};
    static const double ia[] = {-1.171046, -0.602718, 0.0, -0.400792};
    static const double ic[] = {-0.409782, -0.207385, 0.644749, 0.0};
    struct watched *w = mem_alloc(sizeof *w), *first = mem_alloc(sizeof *w);
    float *logits = mem_array(N * 512, sizeof *logits);
    for (int mode = 0; mode < 6; mode++)
        for (unsigned k = 0; k < ARRAY_LEN(chunks); k++) {
            struct forward_opts o = {.form = mode % 3, .masked = mode >= 3};
            run_watched(w, TESTMODEL_V32, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
                        o, chunks[k], 1 + (uint32_t)mode % 2, logits);
            check_set(w, 0, 20, a, ARRAY_LEN(a));
            check_set(w, 1, 40, b, ARRAY_LEN(b));
            check_set(w, 3, 95, c, ARRAY_LEN(c));
            expect(w->score[0][20], ia, 4, 2e-6);
            expect(w->score[3][95], ic, 4, 2e-5);
            if (mode + k == 0)
                memcpy(first, w, sizeof *w);
            assert_memory_equal(w->set, first->set, sizeof w->set);
        }
    mem_free(w);
    mem_free(first);
    mem_free(logits);
}

/* Layer 2 of the GLM shape has no indexer; it reads what layer 1 chose, and is not
 * reported. */
static void shared_layers_reuse_the_set(void **state)
{
    (void)state;
    struct watched *w = mem_alloc(sizeof *w);
    float *logits = mem_array(N * 512, sizeof *logits);
    run_watched(w, TESTMODEL_GLM, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
                (struct forward_opts){0}, 17, 1, logits);
    assert_int_equal(w->n_set[1][95], 16);
    assert_int_equal(w->n_set[2][95], 0);
    assert_int_equal(w->n_set[3][95], 16);
    mem_free(w);
    mem_free(logits);
}

static void topk_against_sorting(void **state)
{
    (void)state;
    static float score[3000];
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        uint32_t n = 2 + seed % 2998, k = 1 + (seed >> 8) % (n - 1), got[3000], want = 0;
        for (uint32_t i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            /* Few distinct values: ties, both zeros, negatives. */
            int v = (int)(seed >> 24) % (round % 3 ? 9 : 255) - 4;
            score[i] = v == 0 && seed & 1 << 20 ? -0.0f : (float)v * 0.37f;
        }
        indexer_topk(score, n, k, got);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t better = 0;
            for (uint32_t j = 0; j < n; j++)
                better += score[j] > score[i] || (score[j] == score[i] && j < i);
            if (better < k)
                assert_int_equal(got[want++], i);
        }
        assert_int_equal(want, k);
    }
}

/* --- properties
 * ---------------------------------------------------------------------------- */

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    int32_t tok[N];
    float *one = mem_array(N * 512, sizeof *one),
          *many = mem_array(N * 512, sizeof *many);
    tiny_prompt(tok, N);
    for (int kind = 0; kind < TESTMODEL_KINDS; kind++)
        for (uint32_t chunk = 1; chunk <= 96; chunk += 95)
            for (uint32_t threads = 1; threads <= 4; threads++) {
                struct rig r;
                rig_open(&r, kind, threads,
                         (struct kvcache_opts){.type = ENGINE_CACHE_F16},
                         (struct forward_opts){0});
                rig_run(&r, tok, N, chunk, threads == 1 ? one : many, NULL);
                rig_close(&r);
                if (threads > 1)
                    assert_memory_equal(one, many, N * 512 * sizeof *one);
            }
    mem_free(one);
    mem_free(many);
}

/* Runs the prompt with another index_topk; `select` as well. */
static void run_topk(uint32_t topk, enum engine_select select, float *logits)
{
    int32_t tok[N];
    struct rig r;
    struct err e = {0};
    tiny_prompt(tok, N);
    rig_open(&r, TESTMODEL_V32, 1, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
             (struct forward_opts){0});
    forward_close(r.f);
    r.t->w.hp.index_topk = topk;
    ASSERT_OK(forward_open(
                  &r.f, &r.t->w, r.k, r.kv,
                  &(struct forward_opts){.max_rows = 128,
                                         .n_ctx = 256,
                                         .form = ENGINE_FORM_MHA,
                                         .select = select},
                  &e),
              &e);
    rig_run(&r, tok, N, 96, logits, NULL);
    rig_close(&r);
}

static void topk_edges(void **state)
{
    (void)state;
    float *a = mem_array(N * 512, sizeof *a), *b = mem_array(N * 512, sizeof *b);
    run_topk(96, ENGINE_SELECT_INDEXER, a);
    run_topk(96, ENGINE_SELECT_DENSE, b);
    assert_memory_equal(a, b, N * 512 * sizeof *a); /* all selected is exactly dense */
    run_topk(1, ENGINE_SELECT_INDEXER, a);
    for (int i = 0; i < N * 512; i++)
        assert_true(isfinite(a[i]));
    assert_memory_equal(a, b, 512 * sizeof *a); /* position 0 sees itself either way */
    run_topk(16, ENGINE_SELECT_RECENT, a);
    assert_true(fabsf(a[95 * 512] - 0.137544f) <
                2e-5f); /* the fingerprint of "last 16" */
    run_topk(16, ENGINE_SELECT_DENSE, a);
    assert_true(fabsf(a[95 * 512] + 0.276709f) < 2e-5f);
    mem_free(a);
    mem_free(b);
}

static void scaling_index_weights_keeps_sets(void **state)
{
    (void)state;
    int32_t tok[N];
    struct watched *w[2];
    float *logits = mem_array(N * 512, sizeof *logits);
    tiny_prompt(tok, N);
    for (int i = 0; i < 2; i++) {
        struct rig r;
        w[i] = mem_zalloc(sizeof *w[i]);
        rig_open(&r, TESTMODEL_V32, 1, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
                 (struct forward_opts){0});
        for (uint32_t t = 0; i && t < r.t->n; t++)
            if (strstr(r.t->info[t].name, "weights_proj"))
                for (uint64_t j = 0; j < r.t->info[t].shape[0] * 256; j++)
                    r.t->data[t][j] *= 4;
        r.f->watch = watch;
        r.f->watch_arg = w[i];
        rig_run(&r, tok, N, 96, logits, NULL);
        rig_close(&r);
    }
    assert_memory_equal(w[0]->set, w[1]->set, sizeof w[0]->set);
    for (int s = 0; s < 4; s++)
        assert_float_equal(w[0]->score[0][95][s] * 4, w[1]->score[0][95][s], 1e-6);
    mem_free(w[0]);
    mem_free(w[1]);
    mem_free(logits);
}

/* What each storage costs against f32, over all logits of the prompt, printed. */
static void cache_storage_errors(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum engine_cache type;
        bool faithful;
        double most; /* RMS error; logits have an RMS of about 1 */
    } storage[] = {{"f16", ENGINE_CACHE_F16, false, 0.2},
                   {"bf16", ENGINE_CACHE_BF16, false, 0.3},
                   {"fp8", ENGINE_CACHE_FP8, false, 0.5},
                   {"f16, int8 index", ENGINE_CACHE_F16_I8, false, 0.5},
                   {"bf16, int8 index", ENGINE_CACHE_BF16_I8, false, 0.5},
                   {"f32, faithful fp8 latents", ENGINE_CACHE_F32, true, 0.5}};
    int32_t tok[N];
    float *want = mem_array(N * 512, sizeof *want),
          *got = mem_array(N * 512, sizeof *got);
    struct watched *ref = mem_alloc(sizeof *ref), *w = mem_alloc(sizeof *w);
    tiny_prompt(tok, N);
    run_watched(ref, TESTMODEL_V32, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
                (struct forward_opts){0}, 96, 1, want);
    for (unsigned i = 0; i < ARRAY_LEN(storage); i++) {
        struct kvcache_opts c = {.type = storage[i].type,
                                 .faithful_fp8 = storage[i].faithful};
        double sum = 0, max = 0, early = 0;
        uint32_t sets = 0, same = 0;
        run_watched(w, TESTMODEL_V32, c, (struct forward_opts){0}, 96, 1, got);
        for (int j = 0; j < N * 512; j++) {
            double d = fabs((double)got[j] - (double)want[j]);
            sum += d * d;
            max = fmax(max, d);
            if (j < 16 * 512) /* before selection can flip */
                early = fmax(early, d);
        }
        for (int l = 0; l < 4; l++)
            for (int p = 16; p < N; p++, sets++)
                same += memcmp(w->set[l][p], ref->set[l][p], 64) == 0;
        double rms = sqrt(sum / (N * 512));
        print_message(
            "cache %s: RMS error of logits %.3g, largest %.3g (%.3g before position "
            "16), %u of %u selections the same\n",
            storage[i].name, rms, max, early, same, sets);
        assert_true(rms < storage[i].most && rms > 0);
    }
    mem_free(want);
    mem_free(got);
    mem_free(ref);
    mem_free(w);
}

/* Rotating queries and keys by the same orthogonal matrix changes no score. */
static void hadamard_is_orthogonal(void **state)
{
    (void)state;
    float q[128], k[128], back[128];
    double before = 0, after = 0;
    for (int i = 0; i < 128; i++) {
        q[i] = sinf((float)i * 1.7f);
        k[i] = cosf((float)i * 0.3f) + (i == 5 ? 20 : 0);
        before += (double)q[i] * (double)k[i];
    }
    memcpy(back, k, sizeof back);
    hadamard(q, 128);
    hadamard(k, 128);
    for (int i = 0; i < 128; i++)
        after += (double)q[i] * (double)k[i];
    assert_true(fabs(before - after) < 1e-4);
    hadamard(k, 128);
    for (int i = 0; i < 128; i++)
        assert_true(fabsf(k[i] - back[i]) < 1e-5f);
}

/* An unquantised cache may hold rotated index keys or not: the goldens hold either way.
 */
static void rotation_is_a_no_op(void **state)
{
    (void)state;
    int32_t tok[N];
    struct rig r;
    float *logits = mem_array(N * 512, sizeof *logits);
    tiny_prompt(tok, N);
    rig_open(&r, TESTMODEL_V32, 1, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
             (struct forward_opts){0});
    assert_false(r.f->rotate);
    r.f->rotate = true;
    rig_run(&r, tok, N, 17, logits, NULL);
    check_golden(logits);
    rig_close(&r);
    mem_free(logits);
}

/* Buckets by expert add up to what each row would get on its own. */
static void buckets_equal_routing_by_row(void **state)
{
    (void)state;
    struct rig r;
    float x[33 * 256], together[33 * 256] = {0}, alone[256], weight[33 * 3];
    uint32_t pick[33 * 3];
    rig_open(&r, TESTMODEL_V32, 2, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
             (struct forward_opts){0});
    for (int i = 0; i < 33 * 256; i++)
        x[i] = sinf((float)i * 0.37f);
    for (int i = 0; i < 33 * 3; i++) {
        pick[i] = (uint32_t)(i / 3 * 5 + i % 3) % 6 + (uint32_t)(i % 3 == 2);
        weight[i] = 0.2f + (float)(i % 7);
    }
    for (int i = 0; i < 33; i++) /* ascending in each row */
        pick[3 * i] = (uint32_t)i % 3, pick[3 * i + 1] = 3 + (uint32_t)i % 2,
                 pick[3 * i + 2] = 5 + (uint32_t)i % 3;
    struct kernel_moe m = {.experts = r.t->w.layer[1].experts,
                           .all = &r.t->w.layer[1].shared,
                           .n_experts = 8,
                           .n_used = 3,
                           .pick = pick,
                           .weight = weight};
    kernel_moe(r.k, &m, x, 256, 33, together, 256);
    for (int i = 0; i < 33; i++) {
        memset(alone, 0, sizeof alone);
        m.pick = pick + 3 * i;
        m.weight = weight + 3 * i;
        kernel_moe(r.k, &m, x + i * 256, 256, 1, alone, 256);
        assert_memory_equal(alone, together + i * 256, sizeof alone);
    }
    rig_close(&r);
}

static void nan_weights_are_named(void **state)
{
    (void)state;
    int32_t tok[N];
    struct err e = {0};
    struct rig r;
    tiny_prompt(tok, N);
    rig_open(&r, TESTMODEL_V32, 1, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
             (struct forward_opts){0});
    for (uint32_t t = 0; t < r.t->n; t++)
        if (strcmp(r.t->info[t].name, "model.layers.2.self_attn.o_proj.weight") == 0)
            r.t->data[t][777] = NAN;
    ASSERT_OK(kvseq_reserve(&r.seq, 0, N, &e), &e);
    struct forward_run run = {&r.seq, 0, N, 0};
    ASSERT_ERR(forward_main(r.f, &run, 1, tok, &e), ERR_CORRUPT, &e, "not finite");
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_logits),
        cmocka_unit_test(golden_selections),
        cmocka_unit_test(shared_layers_reuse_the_set),
        cmocka_unit_test(topk_against_sorting),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(topk_edges),
        cmocka_unit_test(scaling_index_weights_keeps_sets),
        cmocka_unit_test(cache_storage_errors),
        cmocka_unit_test(hadamard_is_orthogonal),
        cmocka_unit_test(rotation_is_a_no_op),
        cmocka_unit_test(buckets_equal_routing_by_row),
        cmocka_unit_test(nan_weights_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
