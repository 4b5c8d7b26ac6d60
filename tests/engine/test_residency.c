/*
 * test_residency.c - a model larger than the memory it may use: the same logits, experts
 * asked for once they are chosen, a hit rate that tells cold from warm; and the refusal of
 * what cannot run at all.
 */
#include "engine/residency.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/model.h"
#include "test.h"

static char path[64];

/* Logits of a prompt under a limit; the figures after it, and after it a second time. */
static void run(uint64_t memory, uint32_t threads, float *logits, struct engine_memory *first,
                struct engine_memory *again)
{
    struct err err = {0};
    struct engine *e = NULL;
    struct engine_seq *s = NULL;
    const int32_t tok[] = {3, 1000, 77, 2000, 5, 6, 7, 8};
    struct engine_opts o = {.path = path, .n_threads = threads, .memory = memory,
                            .n_ctx = 256, .cache_bytes = 64 << 20};
    ASSERT_OK(engine_open(&e, &o, &err), &err);
    for (int round = 0; round < 2; round++) {
        ASSERT_OK(engine_seq_new(&s, e, &err), &err);
        struct engine_work w = {.seq = s, .tok = tok, .n = 8, .n_logits = 1};
        ASSERT_OK(engine_step(e, &w, 1, &err), &err);
        memcpy(logits, w.logits, engine_info(e)->n_vocab * sizeof *logits);
        engine_memory(e, round ? again : first);
        engine_seq_free(s);
    }
    engine_close(e);
}

static void streams_and_says_the_same(void **state)
{
    (void)state;
    static float want[2048], got[2048];
    struct engine_memory m, again;
    run(0, 1, want, &m, &again);
    assert_false(m.streaming);
    assert_int_equal(m.wanted_bytes, 0);
    assert_true(m.core_bytes > 0 && m.expert_bytes > m.core_bytes / 8);
    assert_true(m.weight_bytes >= m.core_bytes + m.expert_bytes);

    uint64_t limit = m.weight_bytes - 1;
    run(limit, 2, got, &m, &again);
    assert_memory_equal(want, got, sizeof want);
    assert_true(m.streaming && m.available == limit);
    assert_true(m.wanted_bytes > 0 && m.present_bytes <= m.wanted_bytes);
    assert_int_equal(again.wanted_bytes, 2 * m.wanted_bytes); /* the same choices */
}

enum { EXPERTS = 8, EACH = 1 << 20 };

/* Experts of a file that is not in memory: asked for, they come, and no others do. */
static void cold_experts_come_when_chosen(void **state)
{
    (void)state;
    struct err err = {0};
    struct residency *r = NULL;
    struct engine_memory m;
    struct statfs fs;
    char name[] = "/tmp/test_residency.XXXXXX";
    int fd = mkstemp(name);
    static uint8_t block[EACH];
    assert_true(fd >= 0 && unlink(name) == 0 && fstatfs(fd, &fs) == 0);
    for (int i = 0; i < EXPERTS * 3; i++)
        assert_int_equal(write(fd, block, EACH), EACH);
    uint8_t *p = mmap(NULL, EXPERTS * 3 * EACH, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED && fsync(fd) == 0);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);

    struct ffn_weights experts[EXPERTS] = {0};
    struct layer_weights layer = {.experts = experts};
    struct weights w = {.hp = {.n_layers = 1, .n_routed_experts = EXPERTS,
                               .n_activated_experts = 2, .moe = {true}},
                        .path = name, .layer = &layer};
    for (int i = 0; i < EXPERTS; i++)
        for (int k = 0; k < 3; k++)
            (&experts[i].gate)[k] =
                (struct tensor){.data = p + (size_t)(i * 3 + k) * EACH, .bytes = EACH};
    ASSERT_OK(residency_open(&r, &w, 7 * EACH, &err), &err);
    assert_true(residency_streams(r));
    const uint32_t pick[] = {5, 2, 5, 2};
    residency_want(r, experts, pick, 4);
    residency_figures(r, &m);
    assert_int_equal(m.expert_bytes, EXPERTS * 3 * EACH);
    assert_int_equal(m.wanted_bytes, 2 * 3 * EACH); /* each once */
    if (fs.f_type != 0x01021994) /* tmpfs has nowhere else to be */
        assert_true(m.present_bytes < m.wanted_bytes / 2);
    uint64_t before = m.present_bytes;
    for (int i = 0; i < 2; i++) /* reading waits for what is on its way */
        for (size_t at = 0; at < 3 * EACH; at += 4096)
            assert_int_equal(p[(size_t)pick[i] * 3 * EACH + at], 0);
    residency_want(r, experts, pick, 4);
    residency_figures(r, &m);
    assert_int_equal(m.present_bytes, before + 2 * 3 * EACH);
    residency_close(r);
    munmap(p, EXPERTS * 3 * EACH);
    close(fd);
}

static void too_big_says_what_it_needs(void **state)
{
    (void)state;
    struct err err = {0};
    struct engine *e = NULL;
    struct engine_opts o = {.path = path, .memory = 1 << 20, .cache_bytes = 64 << 20};
    ASSERT_ERR(engine_open(&e, &o, &err), ERR_LIMIT, &err, "0.001 GB are available");
    assert_non_null(strstr(err.text, "what every token reads"));
    assert_non_null(strstr(err.text, path));
    assert_null(e);
}

static void memory_is_measured(void **state)
{
    (void)state;
    uint64_t n = residency_available();
    assert_true(n > 1 << 20);
    assert_true(n != UINT64_MAX); /* /proc says */
}

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    snprintf(path, sizeof path, "/tmp/test_residency.%d.gguf", (int)getpid());
    struct model_make_random o = {.dst = path, .size = "tiny", .arch = "deepseek32",
                                  .type = "q8_0", .seed = 1};
    ASSERT_OK(model_make_random(&o, &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_and_says_the_same),
        cmocka_unit_test(cold_experts_come_when_chosen),
        cmocka_unit_test(too_big_says_what_it_needs),
        cmocka_unit_test(memory_is_measured),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
