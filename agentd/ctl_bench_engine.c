/*
 * ctl_bench_engine.c - `agentctl bench engine`: prefill and decode rate at each depth, and the
 * share of the measured memory bandwidth that decoding reaches. A depth is filled once with
 * real tokens; every run continues from there and is cut off again.
 */
#include "agentd/ctl_bench_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/ctl.h"
#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model.h"

enum { PREFILL_TOKENS = 512, DECODE_TOKENS = 32, ROOF_PASSES = 5, SESSIONS_MAX = 64 };

struct bench {
    struct bench_report *r;
    struct engine *e;
    struct engine_seq *seq, *other[SESSIONS_MAX]; /* other: a batch's sessions */
    const char *path, *peer;
    int32_t *tok; /* owned: random ids, PREFILL_TOKENS of them */
    uint64_t rng;
    bool quiet;
};

/* --- what a token reads ------------------------------------------------------------------- */

static double number(const json_t *numbers, const char *key)
{
    return json_number_value(json_object_get(numbers, key));
}

/* Bytes of the cache that one row at `pos` reads: latents, of 16 bits here, of the positions
 * attended to, and what else a position has, which is index keys, of all, where there are more
 * than are selected. */
static double cache_bytes(const json_t *numbers, double position_bytes, double pos)
{
    double topk = number(numbers, "index_topk");
    bool picks = topk > 0 && pos > topk;
    double latent = 2 * number(numbers, "n_layers") *
                    (number(numbers, "kv_lora_rank") + number(numbers, "qk_rope_head_dim"));
    double index = position_bytes > latent ? position_bytes - latent : 0;
    return latent * (picks ? topk : pos) + (picks ? index * pos : 0);
}

/* --- timing ------------------------------------------------------------------------------- */

static void new_tokens(struct bench *b, uint32_t n)
{
    uint32_t vocab = engine_info(b->e)->n_vocab;
    for (uint32_t i = 0; i < n; i++) {
        b->rng = b->rng * 6364136223846793005u + 1442695040888963407u;
        b->tok[i] = (int32_t)((b->rng >> 33) % vocab);
    }
}

/* n more random tokens, in chunks; only the last row of all wants logits. */
static int extend(struct bench *b, uint32_t n, struct err *err)
{
    uint32_t max = engine_info(b->e)->max_batch, chunk = max < PREFILL_TOKENS ? max
                                                                              : PREFILL_TOKENS;
    int rc = 0;
    for (uint32_t done = 0; rc == 0 && done < n;) {
        uint32_t k = n - done < chunk ? n - done : chunk;
        new_tokens(b, k);
        done += k;
        struct engine_work w = {.seq = b->seq, .tok = b->tok, .n = k, .n_logits = done == n};
        rc = engine_step(b->e, &w, 1, err);
    }
    return rc;
}

/* Tokens per second of n tokens from `depth` on, `step` at a time. */
static int time_run(struct bench *b, uint32_t depth, uint32_t n, uint32_t step, double *rate,
                    struct err *err)
{
    int rc = 0;
    int64_t t = io_mono_ns();
    for (uint32_t i = 0; rc == 0 && i < n; i += step)
        rc = extend(b, step, err);
    *rate = n * 1e9 / (double)(io_mono_ns() - t);
    engine_seq_truncate(b->seq, depth);
    return rc;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, uint32_t n)
{
    qsort(x, n, sizeof *x, compare);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* Tokens per second of all sessions, each a fork of the first `depth` positions. */
static int time_together(struct bench *b, uint32_t depth, double *rate, struct err *err)
{
    struct engine_work w[SESSIONS_MAX];
    uint32_t n = b->r->sessions;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = engine_seq_fork(&b->other[i], b->seq, depth, err);
    int64_t t = io_mono_ns();
    for (uint32_t k = 0; rc == 0 && k < DECODE_TOKENS; k++) {
        new_tokens(b, n);
        for (uint32_t i = 0; i < n; i++)
            w[i] = (struct engine_work){b->other[i], &b->tok[i], 1, 1, NULL};
        rc = engine_step(b->e, w, n, err);
    }
    *rate = n * DECODE_TOKENS * 1e9 / (double)(io_mono_ns() - t);
    for (uint32_t i = 0; i < n; i++) {
        engine_seq_free(b->other[i]);
        b->other[i] = NULL;
    }
    return rc;
}

/* The runs of a depth, ours and the peer's in turn. */
static int measure_runs(struct bench *b, struct bench_row *row, struct err *err)
{
    double prefill[BENCH_RUNS_MAX], decode[BENCH_RUNS_MAX], together[BENCH_RUNS_MAX];
    double peer_prefill[BENCH_RUNS_MAX], peer_decode[BENCH_RUNS_MAX];
    struct bench_peer_run peer;
    uint32_t n = b->r->runs;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        rc = time_run(b, row->depth, PREFILL_TOKENS, PREFILL_TOKENS, &prefill[i], err);
        if (rc == 0)
            rc = time_run(b, row->depth, DECODE_TOKENS, 1, &decode[i], err);
        if (rc == 0 && b->r->sessions)
            rc = time_together(b, row->depth, &together[i], err);
        if (rc < 0 || !b->peer)
            continue;
        rc = bench_peer(b->peer, b->path, b->r, row->depth, &peer, err);
        peer_prefill[i] = peer.prefill;
        peer_decode[i] = peer.decode;
        snprintf(b->r->peer_commit, sizeof b->r->peer_commit, "%s", peer.commit);
    }
    if (rc < 0)
        return rc;
    row->prefill = median(prefill, n);
    row->decode = median(decode, n);
    row->together = b->r->sessions ? median(together, n) : 0;
    row->peer_prefill = b->peer ? median(peer_prefill, n) : 0;
    row->peer_decode = b->peer ? median(peer_decode, n) : 0;
    return 0;
}

static int measure_depth(struct bench *b, struct bench_row *row, struct err *err)
{
    double warm;
    uint32_t len = engine_seq_len(b->seq);
    if (!b->quiet)
        fprintf(stderr, "depth %u\n", row->depth);
    int rc = 0;
    if (len > row->depth)
        engine_seq_truncate(b->seq, row->depth);
    else
        rc = extend(b, row->depth - len, err);
    if (rc == 0)
        rc = time_run(b, row->depth, 1, 1, &warm, err);
    return rc == 0 ? measure_runs(b, row, err) : rc;
}

/* --- the machine -------------------------------------------------------------------------- */

static void cpu_name(char *out, size_t n)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(out, n, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!colon || (!str_starts(str_c(line), STR("model name")) &&
                       !str_starts(str_c(line), STR("CPU part"))))
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, n, "%s", colon[1] == ' ' ? colon + 2 : colon + 1);
        break;
    }
    if (f)
        fclose(f);
}

/* --- the run ------------------------------------------------------------------------------ */

static int read_model(struct bench_report *r, const char *path, json_t **numbers, struct err *err)
{
    json_t *info = NULL;
    int rc = model_info(&info, path, false, NULL, NULL, err);
    if (rc < 0)
        return rc;
    const char *name = json_string_value(json_object_get(info, "name"));
    snprintf(r->model, sizeof r->model, "%s", name ? name : path);
    snprintf(r->arch, sizeof r->arch, "%s", json_string_value(json_object_get(info, "arch")));
    r->weight_bytes = number(json_object_get(info, "bytes_per_token"), "total");
    *numbers = json_incref(json_object_get(info, "numbers"));
    /* Only a batch's last row goes through the head. */
    r->prefill_macs = number(json_object_get(info, "parameters"), "active") -
                      number(*numbers, "vocab_size") * number(*numbers, "dim");
    json_decref(info);
    return 0;
}

/* The roof is the best seen in the whole run: what else runs here can only lower it. */
static int read_memory(struct bench *b, struct err *err)
{
    struct bench_report *r = b->r;
    double rate = 0;
    int rc = model_read_rate(&rate, r->threads, ROOF_PASSES, err);
    r->memory = rate > r->memory ? rate : r->memory;
    if (rc == 0)
        rc = model_file_read_rate(&rate, b->path, r->threads, ROOF_PASSES, err);
    r->file = rate > r->file ? rate : r->file;
    return rc;
}

/* Of one position in all layers, from the page that the first one takes. */
static int position_bytes(struct bench *b, double *out, struct err *err)
{
    enum { PAGE = 64 };
    size_t used, limit;
    int rc = extend(b, 1, err);
    engine_cache_usage(b->e, &used, &limit);
    engine_seq_truncate(b->seq, 0);
    *out = (double)used / PAGE;
    return rc;
}

static int run(struct bench *b, const char *path, uint32_t threads, struct err *err)
{
    struct bench_report *r = b->r;
    json_t *numbers = NULL;
    uint32_t deepest = 0;
    double position = 0;
    int rc = read_model(r, path, &numbers, err);
    for (uint32_t i = 0; i < r->n_rows; i++)
        deepest = r->row[i].depth > deepest ? r->row[i].depth : deepest;
    const struct engine_opts o = {.path = path, .n_threads = threads,
                                  .n_ctx = deepest + PREFILL_TOKENS};
    if (rc == 0)
        rc = engine_open(&b->e, &o, err);
    if (rc == 0) {
        r->threads = engine_info(b->e)->n_threads;
        b->tok = mem_array(PREFILL_TOKENS, sizeof *b->tok);
        rc = b->tok ? read_memory(b, err) : err_nomem(err);
    }
    if (rc == 0)
        rc = model_multiply_rate(&r->int8, &r->f32, r->threads, ROOF_PASSES, err);
    if (rc == 0)
        rc = engine_seq_new(&b->seq, b->e, err);
    if (rc == 0)
        rc = position_bytes(b, &position, err);
    for (uint32_t i = 0; rc == 0 && i < r->n_rows; i++) {
        struct bench_row *row = &r->row[i];
        rc = measure_depth(b, row, err);
        if (rc == 0)
            rc = read_memory(b, err);
        row->bytes = r->weight_bytes +
                     cache_bytes(numbers, position, row->depth + DECODE_TOKENS / 2.0);
    }
    /* Memory is not equally fast everywhere: what counts is where the model lies. */
    for (uint32_t i = 0; i < r->n_rows; i++)
        r->row[i].roofline = (r->file > 0 ? r->file : r->memory) / r->row[i].bytes;
    engine_seq_free(b->seq);
    engine_close(b->e);
    mem_free(b->tok);
    json_decref(numbers);
    return rc;
}

static json_t *row_json(const struct bench_report *r, const struct bench_row *x)
{
    json_t *v = json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "depth", (int)x->depth,
                          "prefill_tokens_per_s", x->prefill, "decode_tokens_per_s", x->decode,
                          "bytes_per_token", x->bytes, "roofline_tokens_per_s", x->roofline,
                          "roofline_share", x->decode / x->roofline, "prefill_int8_share",
                          x->prefill * r->prefill_macs / r->int8);
    if (v && x->together > 0) {
        json_object_set_new(v, "together_tokens_per_s", json_real(x->together));
        json_object_set_new(v, "together_ratio", json_real(x->together / x->decode));
    }
    if (v && x->peer_decode > 0) {
        json_object_set_new(v, "peer_prefill_tokens_per_s", json_real(x->peer_prefill));
        json_object_set_new(v, "peer_decode_tokens_per_s", json_real(x->peer_decode));
        json_object_set_new(v, "prefill_ratio", json_real(x->prefill / x->peer_prefill));
        json_object_set_new(v, "decode_ratio", json_real(x->decode / x->peer_decode));
    }
    return v;
}

static json_t *as_json(const struct bench_report *r)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < r->n_rows; i++)
        json_array_append_new(rows, row_json(r, &r->row[i]));
    json_t *v = json_pack(
        "{s:o, s:s, s:o, s:s, s:s, s:i, s:f, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, "
        "s:o}",
        "model", json_text(str_c(r->model)), "arch", r->arch, "cpu", json_text(str_c(r->cpu)),
        "version", AGENTD_VERSION, "commit", AGENTD_COMMIT, "threads", (int)r->threads, "load",
        r->load, "runs", (int)r->runs, "prefill_tokens", (int)r->prefill_tokens,
        "decode_tokens", (int)r->decode_tokens, "sessions", (int)r->sessions,
        "memory_bytes_per_s", r->memory, "model_bytes_per_s", r->file,
        "int8_macs_per_s", r->int8, "f32_macs_per_s", r->f32,
        "weight_bytes_per_token", r->weight_bytes, "prefill_macs_per_token", r->prefill_macs,
        "rows", rows);
    if (v)
        json_object_set_new(v, "kernels", json_string(model_kernels()));
    if (v && r->peer[0]) {
        json_object_set_new(v, "peer", json_text(str_c(r->peer)));
        json_object_set_new(v, "peer_commit", json_text(str_c(r->peer_commit)));
    }
    return v;
}

/* --- the command -------------------------------------------------------------------------- */

/* "0,512,2048"; false after a sentence. */
static bool read_depths(struct bench_report *r, const char *text)
{
    for (const char *at = text;; at++) {
        char *end;
        unsigned long v = strtoul(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || v > 1u << 24 || (*end && *end != ',') ||
            r->n_rows == BENCH_DEPTHS_MAX) {
            fprintf(stderr, "agentctl: --depths '%s' is not a list such as 0,512,2048 of at "
                    "most %d numbers up to %u\n", text, BENCH_DEPTHS_MAX, 1u << 24);
            return false;
        }
        r->row[r->n_rows++].depth = (uint32_t)v;
        at = end;
        if (!*at)
            return true;
    }
}

static int save(const char *path, const struct bench_report *r,
                void (*write)(const struct bench_report *r, struct buf *out), struct err *err)
{
    struct buf text;
    if (!path)
        return 0;
    buf_init(&text, 0);
    write(r, &text);
    int rc = buf_check(&text, "report", err);
    if (rc == 0)
        rc = io_write_file(path, buf_view(&text), 0644, err);
    buf_done(&text);
    return rc;
}

static int print_report(const struct bench_report *r, bool json, struct err *err)
{
    struct buf text;
    buf_init(&text, 0);
    json_t *v = json ? as_json(r) : NULL;
    int rc = 0;
    if (json)
        rc = v ? json_write_pretty(v, &text, err) : err_nomem(err);
    else
        bench_engine_table(r, &text);
    if (json)
        buf_putc(&text, '\n');
    if (rc == 0)
        rc = buf_check(&text, "report", err);
    if (rc == 0 && fwrite(text.data, 1, text.len, stdout) != text.len)
        rc = err_sys(err, "write to standard output");
    json_decref(v);
    buf_done(&text);
    return rc;
}

int ctl_bench_engine(int argc, char **argv)
{
    const char *depths = "0,512,2048", *csv = NULL, *svg = NULL, *vs = NULL;
    int64_t threads = 0, runs = 5, sessions = 0;
    bool json = false;
    const struct opt opts[] = {
        {"depths", 0, OPT_STR, &depths, "LIST", "tokens before the measured ones (0,512,2048)"},
        {"threads", 't', OPT_INT, &threads, "N", "0 = the cores this process may use (0)"},
        {"runs", 'n', OPT_INT, &runs, "N", "runs whose median counts (5)"},
        {"sessions", 0, OPT_INT, &sessions, "N", "decode N sessions together as well (0)"},
        {"vs", 0, OPT_STR, &vs, "LLAMA-BENCH", "run this llama-bench in turn, print ratios"},
        {"csv", 0, OPT_STR, &csv, "FILE", "write the rows as CSV as well"},
        {"svg", 0, OPT_STR, &svg, "FILE", "draw the rows as well"},
        {"json", 0, OPT_FLAG, &json, NULL, "print one JSON object, and no progress"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl bench engine", .args = "MODEL", .opts = opts,
        .n_opts = ARRAY_LEN(opts), .min_args = 1, .max_args = 1,
        .summary = "Measure how fast a model reads and writes, beside the memory's roof.",
        .more = "Prefill is 512 tokens after each depth, decode 32 tokens one by one, both with\n"
                "random ids. The roof is the measured read bandwidth of memory over the bytes\n"
                "that a token reads: weights and the cache. A model that fits the caches\n"
                "can pass it. The other roof is the rate of int8 multiply-adds in registers\n"
                "over the weights that a prefilled token passes. Exit codes: 0 done,\n"
                "1 failed, 2 usage.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    if (runs < 1 || runs > BENCH_RUNS_MAX || threads < 0 || threads > 1024) {
        fprintf(stderr, "agentctl: --runs goes from 1 to %d, --threads from 0 to 1024\n",
                BENCH_RUNS_MAX);
        return EXIT_USAGE;
    }
    if (sessions < 0 || sessions > SESSIONS_MAX) {
        fprintf(stderr, "agentctl: --sessions goes from 0 to %d\n", SESSIONS_MAX);
        return EXIT_USAGE;
    }
    struct err err = {0};
    struct bench_report r = {.sessions = (uint32_t)sessions,
                             .runs = (uint32_t)runs, .prefill_tokens = PREFILL_TOKENS,
                             .decode_tokens = DECODE_TOKENS};
    if (!read_depths(&r, depths))
        return EXIT_USAGE;
    if (getloadavg(&r.load, 1) != 1)
        r.load = -1;
    cpu_name(r.cpu, sizeof r.cpu);
    snprintf(r.peer, sizeof r.peer, "%s", vs ? vs : "");
    struct bench b = {.r = &r, .rng = 1, .quiet = json, .path = argv[at], .peer = vs};
    int rc = run(&b, argv[at], (uint32_t)threads, &err);
    if (rc == 0)
        rc = save(csv, &r, bench_engine_csv, &err);
    if (rc == 0)
        rc = save(svg, &r, bench_engine_svg, &err);
    if (rc == 0)
        rc = print_report(&r, json, &err);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}
