/* ctl_bench_depth.h - the figures of one `agentctl bench depth`, and how they are drawn. */
#ifndef AGENTD_CTL_BENCH_DEPTH_H
#define AGENTD_CTL_BENCH_DEPTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { DEPTH_WAYS = 3, DEPTH_ROWS_MAX = 24, DEPTH_RUNS_MAX = 101 };

struct depth_row {
    uint32_t depth;
    double decode[DEPTH_WAYS], prefill[DEPTH_WAYS]; /* tokens/s */
    double cpu[DEPTH_WAYS]; /* seconds of all threads for one decoded token, at best */
};

/* A timeline of `depth` positions: seconds that each act took, at best. */
struct depth_snap {
    uint32_t depth;
    double bytes, file; /* in the cache, on disk */
    double save, load, fork, cut;
};

struct depth_report {
    char model[256];
    uint32_t threads, runs, n_rows, snap_depth;
    size_t cache_bytes;
    bool prefill_too;
    double load; /* runnable processes, mean of the last minute, at the start */
    struct depth_row row[DEPTH_ROWS_MAX];
    struct depth_snap snap;
};

const char *depth_way_name(unsigned way);
void depth_table(const struct depth_report *r, struct buf *out);
void depth_csv(const struct depth_report *r, struct buf *out);
void depth_svg(const struct depth_report *r, struct buf *out);
void depth_json(const struct depth_report *r, struct buf *out);

#endif
