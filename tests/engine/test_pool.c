/*
 * test_pool.c - every item exactly once, for any size, grain and number of threads, in equal
 * runs and in shrinking ones. */
#include "engine/pool.h"

#include <stdatomic.h>

#include "test.h"

enum { MOST = 5000 };

struct job {
    _Atomic uint32_t seen[MOST];
    _Atomic uint32_t bad_thread;
    uint32_t n_threads;
};

static void mark(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct job *j = arg;
    if (thread >= j->n_threads)
        atomic_fetch_add(&j->bad_thread, 1);
    for (uint64_t i = first; i < last; i++)
        atomic_fetch_add(&j->seen[i], 1);
}

static void each_item_once(void **state)
{
    (void)state;
    static struct job j;
    struct err e = {0};
    for (uint32_t threads = 1; threads <= 5; threads++) {
        struct pool *p = NULL;
        ASSERT_OK(pool_open(&p, threads, &e), &e);
        assert_int_equal(pool_threads(p), threads);
        for (uint32_t round = 0; round < 3000; round++) {
            uint64_t n = round * 7919u % (round % 100 ? 97 : MOST);
            memset(&j, 0, sizeof j);
            j.n_threads = threads;
            (round % 3 == 2 ? pool_share : pool_run)(p, mark, &j, n, round % 5);
            for (uint64_t i = 0; i < MOST; i++)
                if (j.seen[i] != (i < n))
                    fail_msg("item %llu of %llu ran %u times with %u threads",
                             (unsigned long long)i, (unsigned long long)n, j.seen[i],
                             threads);
            assert_int_equal(j.bad_thread, 0);
        }
        pool_close(p);
    }
    pool_close(NULL);
}

static void cores_are_counted(void **state)
{
    (void)state;
    assert_true(pool_cores() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_once),
        cmocka_unit_test(cores_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
