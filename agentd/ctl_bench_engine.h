/* ctl_bench_engine.h - the figures of one `agentctl bench engine`, and how they are drawn. */
#ifndef AGENTD_CTL_BENCH_ENGINE_H
#define AGENTD_CTL_BENCH_ENGINE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum { BENCH_DEPTHS_MAX = 32, BENCH_RUNS_MAX = 101 };

struct bench_row {
    uint32_t depth;
    double prefill, decode; /* tokens/s, medians */
    double together;        /* tokens/s of all sessions of a batch; 0 = not measured */
    double peer_prefill, peer_decode; /* the other engine's medians; 0 = none */
    double bytes;           /* read by one decoded token: weights and cache */
    double roofline;        /* tokens/s if reading were all: bandwidth over bytes */
};

struct bench_report {
    char model[256], arch[32], cpu[128];
    uint32_t threads, runs, prefill_tokens, decode_tokens;
    uint32_t sessions;      /* decoding together in a row's `together` */
    double load;            /* runnable processes, mean of the last minute, at the start */
    double memory, file;    /* bytes/s: fresh memory, the model's pages (0 = not measured) */
    double int8, f32;       /* multiply-adds/s in registers */
    double prefill_macs;    /* of weights with one prefilled token */
    char peer[256], peer_commit[64];
    double weight_bytes;    /* read by one token, without the cache */
    struct bench_row row[BENCH_DEPTHS_MAX];
    uint32_t n_rows;
};

/* One run of a llama-bench at `path` on the same file; -ERR_* with what it lacked. */
struct bench_peer_run {
    double prefill, decode; /* tokens/s */
    char commit[64];
};
int bench_peer(const char *peer, const char *model, const struct bench_report *r,
               uint32_t depth, struct bench_peer_run *out, struct err *err);

void bench_engine_csv(const struct bench_report *r, struct buf *out);
void bench_engine_svg(const struct bench_report *r, struct buf *out);
void bench_engine_table(const struct bench_report *r, struct buf *out);

#endif
