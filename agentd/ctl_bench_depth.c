/*
 * ctl_bench_depth.c - `agentctl bench depth`: what length costs. Decode rate at each depth
 * with sparse selection, the same from a cache of f16 alone, and dense, each as a share of its
 * own rate at the first depth; and how fast a timeline is saved, loaded, forked and cut. Depths
 * are filled with noise: measuring 128k positions must not take computing them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_bench_depth.h"
#include "base/io.h"
#include "base/json.h"
#include "engine/model.h"

enum { TOKENS = 16, PREFILL = 256 };

static const struct way {
    const char *name;
    enum engine_cache cache;
    enum engine_select select;
} ways[DEPTH_WAYS] = {
    {"sparse", ENGINE_CACHE_AUTO, ENGINE_SELECT_INDEXER},
    {"sparse, all f16", ENGINE_CACHE_F16, ENGINE_SELECT_INDEXER},
    {"dense", ENGINE_CACHE_AUTO, ENGINE_SELECT_DENSE},
};

const char *depth_way_name(unsigned way)
{
    return ways[way].name;
}

struct measure {
    struct depth_report *r;
    struct engine *e;
    struct engine_seq *s;
    uint64_t rng;
    bool quiet;
};

static double since(int64_t t)
{
    return (double)(io_mono_ns() - t) / 1e9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, uint32_t n)
{
    qsort(x, n, sizeof *x, compare);
    return x[n / 2];
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* n random tokens, `step` at a time, then cut off again. *cpu, seconds of all threads for one
 * token, falls to what this run took if that is less. */
static int run_tokens(struct measure *m, uint32_t n, uint32_t step, double *rate, double *cpu,
                      struct err *err)
{
    int32_t tok[PREFILL];
    uint32_t depth = engine_seq_len(m->s), vocab = engine_info(m->e)->n_vocab;
    int rc = 0;
    int64_t t = io_mono_ns();
    double busy = cpu_seconds();
    for (uint32_t at = 0; rc == 0 && at < n; at += step) {
        for (uint32_t i = 0; i < step; i++) {
            m->rng = m->rng * 6364136223846793005u + 1442695040888963407u;
            tok[i] = (int32_t)((m->rng >> 33) % vocab);
        }
        struct engine_work w = {.seq = m->s, .tok = tok, .n = step, .n_logits = 1};
        rc = engine_step(m->e, &w, 1, err);
    }
    *rate = n / since(t);
    busy = (cpu_seconds() - busy) / n;
    *cpu = *cpu == 0 || busy < *cpu ? busy : *cpu;
    engine_seq_truncate(m->s, depth);
    return rc;
}

static int one_depth(struct measure *m, unsigned way, struct depth_row *row, struct err *err)
{
    double decode[DEPTH_RUNS_MAX], prefill, warm, cpu = 0;
    uint32_t len = engine_seq_len(m->s), n = m->r->runs;
    if (!m->quiet)
        fprintf(stderr, "%s, depth %u\n", ways[way].name, row->depth);
    int rc = model_fill_noise(m->s, row->depth - len, 1, err);
    if (rc == 0)
        rc = run_tokens(m, 2, 1, &warm, &cpu, err);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = run_tokens(m, TOKENS, 1, &decode[i], &row->cpu[way], err);
    if (rc < 0)
        return rc;
    row->decode[way] = median(decode, n);
    if (!m->r->prefill_too)
        return 0;
    rc = run_tokens(m, PREFILL, PREFILL, &prefill, &cpu, err);
    row->prefill[way] = prefill;
    return rc;
}

/* Saving, loading, forking and cutting what is there, once each; the best of the runs. */
static int snapshots(struct measure *m, struct err *err)
{
    struct depth_report *r = m->r;
    const char *tmp = getenv("TMPDIR");
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/agentctl-bench-%d.kv", tmp ? tmp : "/tmp", (int)getpid());
    uint32_t n = engine_seq_len(m->s), cut = n / 2;
    size_t used, limit;
    engine_cache_usage(m->e, &used, &limit);
    r->snap = (struct depth_snap){.depth = n, .bytes = (double)used};
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < r->runs; i++) {
        struct engine_seq *s = NULL;
        double took[4];
        int64_t t = io_mono_ns();
        rc = engine_seq_save(m->s, path, err);
        took[0] = since(t);
        if (rc == 0 && stat(path, &st) == 0)
            r->snap.file = (double)st.st_size;
        t = io_mono_ns();
        if (rc == 0)
            rc = engine_seq_load(&s, m->e, path, err);
        took[1] = since(t);
        engine_seq_free(s);
        s = NULL;
        t = io_mono_ns();
        if (rc == 0)
            rc = engine_seq_fork(&s, m->s, n, err);
        took[2] = since(t);
        t = io_mono_ns();
        if (rc == 0)
            engine_seq_truncate(s, cut);
        took[3] = since(t);
        engine_seq_free(s);
        double *best[] = {&r->snap.save, &r->snap.load, &r->snap.fork, &r->snap.cut};
        for (int k = 0; rc == 0 && k < 4; k++)
            *best[k] = i == 0 || took[k] < *best[k] ? took[k] : *best[k];
    }
    unlink(path);
    return rc;
}

static int one_way(struct measure *m, const char *path, unsigned way, uint32_t threads,
                   struct err *err)
{
    struct depth_report *r = m->r;
    uint32_t deepest = r->row[r->n_rows - 1].depth;
    struct engine_opts o = {.path = path, .n_threads = threads,
                            .n_ctx = deepest + PREFILL + TOKENS, .max_batch = PREFILL,
                            .cache = ways[way].cache, .select = ways[way].select,
                            .cache_bytes = r->cache_bytes};
    int rc = engine_open(&m->e, &o, err);
    if (rc == 0)
        rc = engine_seq_new(&m->s, m->e, err);
    if (rc == 0) {
        const struct engine_info *i = engine_info(m->e);
        snprintf(r->model, sizeof r->model, "%s", i->name && *i->name ? i->name : i->arch);
        r->threads = i->n_threads;
    }
    for (uint32_t i = 0; rc == 0 && i < r->n_rows; i++) {
        rc = one_depth(m, way, &r->row[i], err);
        if (rc == 0 && way == 0 && r->row[i].depth == r->snap_depth)
            rc = snapshots(m, err);
    }
    engine_seq_free(m->s);
    engine_close(m->e);
    m->s = NULL;
    m->e = NULL;
    return rc;
}

static int compare_rows(const void *a, const void *b)
{
    const struct depth_row *x = a, *y = b;
    return (x->depth > y->depth) - (x->depth < y->depth);
}

/* "2048,16384", sorted; false after a sentence. */
static bool read_depths(struct depth_report *r, const char *text)
{
    for (const char *at = text;; at++) {
        char *end;
        unsigned long v = strtoul(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || v < 1 || v > 1u << 24 ||
            (*end && *end != ',') || r->n_rows == DEPTH_ROWS_MAX) {
            fprintf(stderr, "agentctl: --depths '%s' is not a list such as 2048,16384 of at "
                    "most %d numbers from 1 to %u\n", text, DEPTH_ROWS_MAX, 1u << 24);
            return false;
        }
        r->row[r->n_rows++].depth = (uint32_t)v;
        at = end;
        if (!*at)
            break;
    }
    qsort(r->row, r->n_rows, sizeof r->row[0], compare_rows);
    for (uint32_t i = 0; i < r->n_rows; i++)
        if (r->row[i].depth <= 16384)
            r->snap_depth = r->row[i].depth;
    return true;
}

static int write_out(const char *path, const struct depth_report *r,
                     void (*fn)(const struct depth_report *r, struct buf *out), struct err *err)
{
    struct buf text;
    buf_init(&text, 0);
    fn(r, &text);
    int rc = buf_check(&text, "report", err);
    if (rc == 0 && path)
        rc = io_write_file(path, buf_view(&text), 0644, err);
    else if (rc == 0 && fwrite(text.data, 1, text.len, stdout) != text.len)
        rc = err_sys(err, "write to standard output");
    buf_done(&text);
    return rc;
}

int ctl_bench_depth(int argc, char **argv)
{
    const char *depths = "2048,4096,8192,16384,32768", *csv = NULL, *svg = NULL;
    int64_t threads = 0, runs = 5;
    bool json = false, prefill = false;
    const struct opt opts[] = {
        {"depths", 0, OPT_STR, &depths, "LIST", "positions before (2048,4096,...,32768)"},
        {"threads", 't', OPT_INT, &threads, "N", "0 = the cores this process may use (0)"},
        {"runs", 'n', OPT_INT, &runs, "N", "runs whose median counts (5)"},
        {"prefill", 0, OPT_FLAG, &prefill, NULL, "also read 256 tokens at each depth, once"},
        {"csv", 0, OPT_STR, &csv, "FILE", "write the rows as CSV as well"},
        {"svg", 0, OPT_STR, &svg, "FILE", "draw the rows as well"},
        {"json", 0, OPT_FLAG, &json, NULL, "print one JSON object, and no progress"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl bench depth", .args = "MODEL", .opts = opts,
        .n_opts = ARRAY_LEN(opts), .min_args = 1, .max_args = 1,
        .summary = "Measure what the length of a context costs, sparse and dense.",
        .more = "Decodes 16 tokens after each depth: with the model's own selection, the same\n"
                "from a cache of f16, and dense. The cache is filled with noise, not computed.\n"
                "Then saves, loads, forks and cuts the deepest timeline up to 16384. Exit codes:\n"
                "0 done, 1 failed, 2 usage.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    static struct depth_report r;
    r = (struct depth_report){.runs = (uint32_t)runs, .prefill_too = prefill};
    if (runs < 1 || runs > DEPTH_RUNS_MAX || threads < 0 || threads > 1024) {
        fprintf(stderr, "agentctl: --runs goes from 1 to %d, --threads from 0 to 1024\n",
                DEPTH_RUNS_MAX);
        return EXIT_USAGE;
    }
    if (!read_depths(&r, depths))
        return EXIT_USAGE;
    if (getloadavg(&r.load, 1) != 1)
        r.load = -1;
    struct measure m = {.r = &r, .rng = 1, .quiet = json};
    int rc = 0;
    for (unsigned w = 0; rc == 0 && w < DEPTH_WAYS; w++)
        rc = one_way(&m, argv[at], w, (uint32_t)threads, &err);
    if (rc == 0 && csv)
        rc = write_out(csv, &r, depth_csv, &err);
    if (rc == 0 && svg)
        rc = write_out(svg, &r, depth_svg, &err);
    if (rc == 0)
        rc = write_out(NULL, &r, json ? depth_json : depth_table, &err);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}
