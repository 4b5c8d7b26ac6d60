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
    static const double last[8] = {-0.321845, -0.673572, 1.096172, 0.660294,
                                   -0.251731, 0.859864, -0.401682, 0.719831};
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
                rig_open(&r, TESTMODEL_V32, 1, (struct kvcache_opts){.type = ENGINE_CACHE_F32},
                         (struct forward_opts){.form = form, .masked = masked});
                rig_run(&r, tok, N, chunks[c], logits, NULL);
                check_golden(logits);
                rig_close(&r);
            }
    mem_free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
