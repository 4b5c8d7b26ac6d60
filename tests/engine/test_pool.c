/*
 * test_pool.c - every item exactly once, for any size, grain and number of threads, in equal
 * runs and in shrinking ones; and how many threads there are: masks, quotas, absurd wishes. */
#include "engine/pool.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(pool_cores(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

static void absurd_counts_become_sane(void **state)
{
    (void)state;
    static const uint32_t asked[] = {0, 1000, UINT32_MAX};
    cpu_set_t set;
    struct err e = {0};
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    for (unsigned i = 0; i < ARRAY_LEN(asked); i++) {
        static struct job j;
        struct pool *p = NULL;
        ASSERT_OK(pool_open(&p, asked[i], &e), &e);
        uint32_t got = pool_threads(p), cores = (uint32_t)CPU_COUNT(&set);
        assert_true(got >= 1 && got <= (cores > 4 ? 2 * cores : 8));
        memset(&j, 0, sizeof j);
        j.n_threads = got;
        pool_run(p, mark, &j, MOST, 1);
        for (uint32_t k = 0; k < MOST; k++)
            assert_int_equal(j.seen[k], 1);
        pool_close(p);
    }
}

static bool put(const char *folder, const char *file, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

/* In a child: a cgroup of half a core, of either version. 99: none may be made here. */
static int count_under_quota(const char *folder, bool v2)
{
    char self[20];
    snprintf(self, sizeof self, "%d", (int)getpid());
    bool set = v2 ? put(folder, "cpu.max", "50000 100000")
                  : put(folder, "cpu.cfs_period_us", "100000") &&
                        put(folder, "cpu.cfs_quota_us", "50000");
    if (!set || !put(folder, "cgroup.procs", self))
        return 99;
    int cores = (int)pool_cores();
    bool wider = v2 ? put(folder, "cpu.max", "150000 100000")
                    : put(folder, "cpu.cfs_quota_us", "150000");
    cpu_set_t mask;
    sched_getaffinity(0, sizeof mask, &mask);
    int want = CPU_COUNT(&mask) < 2 ? 1 : 2;
    return cores == 1 && wider && (int)pool_cores() == want ? 0 : 1;
}

static void quotas_are_counted(void **state)
{
    (void)state;
    static const char *const root[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct",
                                       "/sys/fs/cgroup"};
    int ran = 0;
    for (unsigned i = 0; i < ARRAY_LEN(root); i++) {
        char folder[200];
        int status = 0;
        snprintf(folder, sizeof folder, "%s/agentd-test-%d", root[i], (int)getpid());
        if (mkdir(folder, 0755) < 0)
            continue;
        pid_t pid = fork();
        if (pid == 0)
            _exit(count_under_quota(folder, i == 2));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        rmdir(folder);
        if (WEXITSTATUS(status) == 99)
            continue;
        assert_int_equal(status, 0);
        ran++;
    }
    if (!ran)
        skip(); /* not allowed to make cgroups here */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_once),
        cmocka_unit_test(cores_are_counted),
        cmocka_unit_test(absurd_counts_become_sane),
        cmocka_unit_test(quotas_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
