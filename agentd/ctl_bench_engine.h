/* ctl_bench_engine.h - the figures of one `agentctl bench engine`, and how they are drawn. */
#ifndef AGENTD_CTL_BENCH_ENGINE_H
#define AGENTD_CTL_BENCH_ENGINE_H

#include <stdint.h>

#include "base/buf.h"

enum { BENCH_DEPTHS_MAX = 32, BENCH_RUNS_MAX = 101 };

struct bench_row {
    uint32_t depth;
    double prefill, decode; /* tokens/s, medians */
    double bytes;           /* read by one decoded token: weights and cache */
    double roofline;        /* tokens/s if reading were all: bandwidth over bytes */
};

struct bench_report {
    char model[256], arch[32], cpu[128];
    uint32_t threads, runs, prefill_tokens, decode_tokens;
    double load;            /* runnable processes, mean of the last minute, at the start */
    double bandwidth;       /* bytes/s */
    double weight_bytes;    /* read by one token, without the cache */
    struct bench_row row[BENCH_DEPTHS_MAX];
    uint32_t n_rows;
};

void bench_engine_csv(const struct bench_report *r, struct buf *out);
void bench_engine_svg(const struct bench_report *r, struct buf *out);
void bench_engine_table(const struct bench_report *r, struct buf *out);

#endif
