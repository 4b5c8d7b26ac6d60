/*
 * test_mapfile.c - weight files that other programs cut or rewrite while they are mapped: the
 * process lives, the step fails with a sentence, and the model opens again once the file is
 * whole.
 */
#include "engine/mapfile.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "test.h"

enum { SIZE = 5 * 4096 + 100 };

static char dir[64], file[128], weights[128];

static void write_bytes(const char *path, size_t n, char c)
{
    struct err e = {0};
    struct buf b;
    buf_init(&b, 0);
    while (b.len < n)
        buf_putc(&b, c);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    ASSERT_OK(io_write_full(fd, b.data, b.len, &e), &e);
    close(fd);
    buf_done(&b);
}

static void *sum(void *arg)
{
    const struct mapfile *m = arg;
    uintptr_t s = 0;
    for (uint64_t i = 0; i < m->n; i++)
        s += m->p[i];
    return (void *)s;
}

/* The whole pages that are left keep their bytes; what is gone reads as zeros. */
static void cut_file_reads_as_zeros(void **state)
{
    (void)state;
    static const off_t cut[] = {0, 4096, 5000, 4 * 4096};
    for (unsigned i = 0; i < ARRAY_LEN(cut); i++) {
        struct err e = {0};
        struct mapfile m;
        pthread_t t;
        void *got;
        write_bytes(file, SIZE, 1);
        ASSERT_OK(mapfile_open(&m, file, &e), &e);
        ASSERT_OK(mapfile_check(&m, &e), &e);
        assert_int_equal((uintptr_t)sum(&m), SIZE);
        assert_int_equal(truncate(file, cut[i]), 0);
        assert_int_equal(pthread_create(&t, NULL, sum, &m), 0);
        assert_int_equal(pthread_join(t, &got), 0);
        assert_int_equal((uintptr_t)got, cut[i]);
        ASSERT_ERR(mapfile_check(&m, &e), ERR_CORRUPT, &e, "expected 20580 bytes, found");
        /* Grown back, it is another file's bytes: the lost mapping stays lost. */
        assert_int_equal(truncate(file, SIZE), 0);
        ASSERT_ERR(mapfile_check(&m, &e), ERR_CORRUPT, &e, file);
        mapfile_close(&m);
    }
}

static void rewritten_file_is_noticed(void **state)
{
    (void)state;
    struct err e = {0};
    struct mapfile m;
    write_bytes(file, SIZE, 1);
    ASSERT_OK(mapfile_open(&m, file, &e), &e);
    struct timespec later[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = m.time.tv_sec + 1}};
    assert_int_equal(utimensat(AT_FDCWD, file, later, 0), 0);
    ASSERT_ERR(mapfile_check(&m, &e), ERR_CORRUPT, &e, "rewritten");
    mapfile_close(&m);

    /* Replaced by rename, the old file lives on under its mapping. */
    ASSERT_OK(mapfile_open(&m, file, &e), &e);
    char other[160];
    snprintf(other, sizeof other, "%s.new", file);
    write_bytes(other, 10, 2);
    assert_int_equal(rename(other, file), 0);
    assert_int_equal((uintptr_t)sum(&m), SIZE);
    ASSERT_OK(mapfile_check(&m, &e), &e);
    mapfile_close(&m);
}

/* A fault that is none of ours ends the process, as it did before. */
static void foreign_faults_still_kill(void **state)
{
    (void)state;
    struct err e = {0};
    struct mapfile m;
    write_bytes(file, SIZE, 1);
    signal(SIGBUS, SIG_DFL); /* not the test harness's, which would go on to the next test */
    ASSERT_OK(mapfile_open(&m, file, &e), &e);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        close(STDERR_FILENO); /* a sanitizer would tell at length */
        volatile char *p = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
        if (truncate(file, 0) == 0)
            (void)p[4096];
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(status != 0);
    mapfile_close(&m);
}

static void make_model(void)
{
    struct err e = {0};
    struct model_make_test o = {.dir = dir, .variant = "tiny-v32"};
    ASSERT_OK(model_make_test(&o, &e), &e);
}

static void steps_fail_and_the_process_lives(void **state)
{
    (void)state;
    int32_t tok[40];
    struct err e = {0};
    for (int i = 0; i < 40; i++)
        tok[i] = (i * 37 + 5) % 512;
    for (uint32_t threads = 1; threads <= 2; threads++)
        for (off_t cut = 0; cut < 8000000; cut += 2000001) {
            struct engine *eng = NULL;
            struct engine_seq *s = NULL;
            struct engine_opts o = {.path = dir, .n_threads = threads, .max_batch = 64,
                                    .cache_bytes = 16 << 20, .mtp = true};
            make_model();
            ASSERT_OK(engine_open(&eng, &o, &e), &e);
            ASSERT_OK(engine_seq_new(&s, eng, &e), &e);
            struct engine_work w = {.seq = s, .tok = tok, .n = 40, .n_logits = 1};
            ASSERT_OK(engine_step(eng, &w, 1, &e), &e);
            assert_int_equal(truncate(weights, cut), 0);
            ASSERT_ERR(engine_step(eng, &w, 1, &e), ERR_CORRUPT, &e, weights);
            assert_int_equal(engine_seq_len(s), 40);
            struct engine_draft d = {.seq = s, .next = 7};
            ASSERT_ERR(engine_draft(eng, &d, 1, &e), ERR_CORRUPT, &e, "found");
            engine_seq_free(s);
            engine_close(eng);
            eng = NULL;
            ASSERT_ERR(engine_open(&eng, &o, &e), ERR_CORRUPT, &e, weights);
        }
    make_model();
    struct engine *eng = NULL;
    struct engine_opts o = {.path = dir, .n_threads = 1, .cache_bytes = 16 << 20};
    ASSERT_OK(engine_open(&eng, &o, &e), &e);
    engine_close(eng);
}

/* Cut at any moment of a run of steps, by another process: no crash at any of them. */
static void cut_in_the_middle_of_steps(void **state)
{
    (void)state;
    int32_t tok[64] = {0};
    struct err e = {0};
    for (unsigned round = 0; round < 12; round++) {
        struct engine *eng = NULL;
        struct engine_seq *s = NULL;
        struct engine_opts o = {.path = dir, .n_threads = 2, .max_batch = 64,
                                .cache_bytes = 16 << 20};
        make_model();
        ASSERT_OK(engine_open(&eng, &o, &e), &e);
        ASSERT_OK(engine_seq_new(&s, eng, &e), &e);
        pid_t child = fork();
        if (child == 0) {
            usleep(round * 700);
            _exit(truncate(weights, round * 600000) != 0);
        }
        int rc = 0;
        while (rc == 0) {
            struct engine_work w = {.seq = s, .tok = tok, .n = 64, .n_logits = 1};
            if (engine_seq_len(s) > 128)
                engine_seq_truncate(s, 0);
            rc = engine_step(eng, &w, 1, &e);
        }
        assert_int_equal(e.code, ERR_CORRUPT);
        assert_non_null(strstr(e.text, "model.safetensors"));
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        engine_seq_free(s);
        engine_close(eng);
    }
}

/* A source that is rewritten while it is converted never gets the final name. */
static void progress_cuts(void *arg, uint64_t done, uint64_t total, uint64_t resumed)
{
    (void)total, (void)resumed;
    if (done)
        assert_int_equal(truncate(arg, 4000000), 0);
}

static void conversion_of_a_cut_source_fails(void **state)
{
    (void)state;
    struct err e = {0};
    char dst[96];
    struct stat st;
    make_model();
    snprintf(dst, sizeof dst, "%s/out.gguf", dir);
    struct model_convert o = {.src = dir, .dst = dst, .type = "f32", .arg = weights,
                              .progress = progress_cuts};
    ASSERT_ERR(model_convert(&o, &e), ERR_CORRUPT, &e, weights);
    assert_true(stat(dst, &st) < 0);
    make_model();
    o.progress = NULL;
    ASSERT_OK(model_convert(&o, &e), &e);
    unlink(dst);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_mapfile.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/file", dir);
    snprintf(weights, sizeof weights, "%s/model.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char config[96];
    snprintf(config, sizeof config, "%s/config.json", dir);
    unlink(config);
    unlink(weights);
    unlink(file);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_file_reads_as_zeros),
        cmocka_unit_test(rewritten_file_is_noticed),
        cmocka_unit_test(foreign_faults_still_kill),
        cmocka_unit_test(steps_fail_and_the_process_lives),
        cmocka_unit_test(cut_in_the_middle_of_steps),
        cmocka_unit_test(conversion_of_a_cut_source_fails),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
