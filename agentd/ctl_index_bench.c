/*
 * ctl_index_bench.c - agentctl index bench: makes documents of random words (few of them
 * common, as in language), indexes them and asks questions. Same seed, same documents.
 */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "base/io.h"
#include "base/mem.h"
#include "tools/index.h"

enum { VOCABULARY = 20000, WORDS_PER_DOC = 400, PER_FOLDER = 500 };

static uint32_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* Word number i: a few syllables, always the same. */
static void word(uint32_t i, char out[16])
{
    static const char *const syllables[] = {"ba", "ce", "di", "fo", "gu", "la", "me", "ni",
                                            "po", "ru", "sa", "te", "vi", "zo", "ka", "ly"};
    size_t n = 0;
    i += 17;
    while (i && n < 12) {
        memcpy(out + n, syllables[i % 16], 2);
        n += 2;
        i /= 16;
    }
    out[n] = '\0';
}

/* Rank r with a chance of about 1/r. */
static uint32_t pick(uint64_t *seed)
{
    double u = (next(seed) % 1000000 + 1) / 1e6;
    return (uint32_t)pow(VOCABULARY, u) - 1;
}

static int write_doc(const char *dir, unsigned i, uint64_t *seed, struct err *err)
{
    struct buf b;
    char path[700], w[16];
    buf_init(&b, 0);
    buf_printf(&b, "# Document %u\n\n", i);
    for (unsigned k = 0; k < WORDS_PER_DOC; k++) {
        word(pick(seed), w);
        buf_printf(&b, "%s%s", w, k % 80 == 79 ? ".\n\n" : k % 13 == 12 ? ".\n" : " ");
    }
    snprintf(path, sizeof path, "%.500s/%03u", dir, i / PER_FOLDER);
    if (i % PER_FOLDER == 0)
        mkdir(path, 0700);
    snprintf(path, sizeof path, "%.500s/%03u/%05u.md", dir, i / PER_FOLDER, i);
    FILE *f = fopen(path, "we");
    int rc = f ? 0 : err_sys(err, "create '%s'", path);
    if (f && (fwrite(b.data, 1, b.len, f) != b.len) + fclose(f) != 0)
        rc = err_sys(err, "write '%s'", path);
    buf_done(&b);
    return rc;
}

static void count_hit(void *arg, const struct index_hit *h)
{
    (void)h;
    ++*(unsigned *)arg;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int ask(struct index *x, unsigned n, uint64_t seed, double *ms, unsigned *hits,
               struct err *err)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < n; i++) {
        char w[3][16], query[64];
        for (unsigned k = 0; k < 3; k++)
            word(pick(&seed), w[k]);
        snprintf(query, sizeof query, "%s %s %s", w[0], w[1], w[2]);
        int64_t began = io_mono_ns();
        rc = index_search(x, str_c(query), 10, count_hit, hits, err);
        ms[i] = (double)(io_mono_ns() - began) / 1e6;
    }
    qsort(ms, n, sizeof *ms, compare);
    return rc;
}

static void remove_tree(const char *dir, unsigned docs)
{
    char path[600];
    for (unsigned i = 0; i < docs; i++) {
        snprintf(path, sizeof path, "%s/docs/%03u/%05u.md", dir, i / PER_FOLDER, i);
        unlink(path);
    }
    for (unsigned i = 0; i <= docs / PER_FOLDER; i++) {
        snprintf(path, sizeof path, "%s/docs/%03u", dir, i);
        rmdir(path);
    }
    snprintf(path, sizeof path, "%s/docs", dir);
    rmdir(path);
    snprintf(path, sizeof path, "%s/index.db", dir);
    unlink(path);
    rmdir(dir);
}

static bool no_tick(void *arg, uint64_t seen, uint64_t total, const char *path)
{
    (void)arg, (void)path;
    if (isatty(STDERR_FILENO) && (seen % 200 == 0 || seen == total))
        fprintf(stderr, "\r%llu of %llu files%s", (unsigned long long)seen,
                (unsigned long long)total, seen == total ? "\n" : "");
    return true;
}

static int bench(const char *dir, unsigned docs, unsigned queries, struct err *err)
{
    char path[600], db[600];
    struct index *x = NULL;
    struct index_stats stats = {0};
    struct stat st = {0};
    uint64_t seed = 1;
    unsigned hits = 0;
    double *ms = mem_array(queries, sizeof *ms);
    snprintf(path, sizeof path, "%s/docs", dir);
    snprintf(db, sizeof db, "%s/index.db", dir);
    int rc = ms ? 0 : err_nomem(err);
    if (rc == 0 && mkdir(path, 0700) < 0)
        rc = err_sys(err, "mkdir '%s'", path);
    for (unsigned i = 0; rc == 0 && i < docs; i++)
        rc = write_doc(path, i, &seed, err);
    if (rc == 0)
        rc = index_open(&x, db, true, err);
    int64_t began = io_mono_ns();
    if (rc == 0)
        rc = index_add(x, path, NULL, NULL, no_tick, NULL, &stats, err);
    double build = (double)(io_mono_ns() - began) / 1e9;
    began = io_mono_ns();
    if (rc == 0)
        rc = index_add(x, path, NULL, NULL, NULL, NULL, &stats, err);
    double again = (double)(io_mono_ns() - began) / 1e9;
    if (rc == 0)
        rc = ask(x, queries, 99, ms, &hits, err);
    stat(db, &st);
    if (rc == 0)
        printf("{\"documents\": %llu, \"build_s\": %.2f, \"unchanged_s\": %.2f, \"index_mb\": "
               "%.1f, \"queries\": %u, \"hits\": %u, \"p50_ms\": %.2f, \"p99_ms\": %.2f}\n",
               (unsigned long long)stats.total, build, again, (double)st.st_size / 1e6, queries,
               hits, ms[queries / 2], ms[queries * 99 / 100]);
    index_close(x);
    mem_free(ms);
    return rc;
}

int ctl_index_bench(int argc, char **argv)
{
    bool json = false;
    int64_t docs = 10000, queries = 500;
    const struct opt opts[] = {
        {"docs", 0, OPT_INT, &docs, "N", "Documents to make (10000)."},
        {"queries", 0, OPT_INT, &queries, "N", "Questions of three words to ask (500)."},
        {"json", 'j', OPT_FLAG, &json, NULL, "Accepted; the output is JSON in any case."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl index bench",
        .summary = "Index made-up documents and search them; prints figures as JSON.",
        .more = "Works in a temporary folder, about 6 KB a document, and removes it.\n"
                "Exit status: 0; 1 on an error; 2 usage.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
    };
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    if (docs < 1 || docs > 100000 || queries < 1 || queries > 100000) {
        fprintf(stderr, "agentctl: --docs and --queries go from 1 to 100000\n");
        return EXIT_USAGE;
    }
    struct err err = {0};
    char dir[] = "/tmp/agentd-bench.XXXXXX";
    if (!mkdtemp(dir)) {
        err_sys(&err, "temporary folder");
        return ctl_fail(&err);
    }
    int rc = bench(dir, (unsigned)docs, (unsigned)queries, &err);
    remove_tree(dir, (unsigned)docs);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}
