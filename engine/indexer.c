/*
 * indexer.c - which positions a query attends to: index scores and their exact top-k.
 *
 *   I[s] = sum_j w[j] * relu(q[j] . k[s])              DeepSeek-V3.2-Exp report, eq. 1
 *
 * One set per query, shared by all attention heads. A query that sees no more than
 * index_topk positions attends to all of them, without scores.
 */
#include <math.h>
#include <string.h>

#include "engine/forward.h"
#include "engine/quant/half.h"

void layer_norm(float *out, const float *x, const float *w, const float *b, uint32_t n)
{
    float mean = 0, var = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += x[i];
    mean /= (float)n;
    for (uint32_t i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(var / (float)n + 1e-6f);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * w[i] + b[i];
}

float indexer_round(int8_t *out, const float *q, uint32_t n)
{
    float most = 1e-10f;
    for (uint32_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(q[i]));
    for (uint32_t i = 0; i < n; i++)
        out[i] = (int8_t)round_to(q[i] * (127.0f / most), -127, 127);
    return most / 127.0f;
}

/* Order-preserving integer of a score; -0 and +0 are the same. */
static uint32_t rank_key(float x)
{
    return attn_key(float_bits(x + 0.0f));
}

/*
 * The k-th largest key, found 11, 11 and 10 bits at a time: after each pass `prefix`
 * holds the bits known so far and `left` how many of the k lie within that prefix.
 */
static uint32_t kth_key(const float *scores, uint32_t n, uint32_t k, uint32_t *left)
{
    static const struct {
        uint32_t shift, bits;
    } pass[] = {{21, 11}, {10, 11}, {0, 10}};
    uint32_t prefix = 0, want = k;
    for (unsigned p = 0; p < ARRAY_LEN(pass); p++) {
        uint32_t shift = pass[p].shift, top = shift + pass[p].bits;
        uint32_t count[2048] = {0}, mask = (1u << pass[p].bits) - 1;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t key = rank_key(scores[i]);
            if (top == 32 || key >> top == prefix >> top)
                count[key >> shift & mask]++;
        }
        uint32_t b = mask;
        while (count[b] < want)
            want -= count[b--];
        prefix |= b << shift;
    }
    *left = want;
    return prefix;
}

void indexer_topk(const float *scores, uint32_t n, uint32_t k, uint32_t *out)
{
    uint32_t ties, at = 0;
    uint32_t least = kth_key(scores, n, k, &ties);
    for (uint32_t i = 0; i < n && at < k; i++) {
        uint32_t key = rank_key(scores[i]);
        if (key > least || (key == least && ties)) {
            ties -= key == least;
            out[at++] = i;
        }
    }
}

/*
 * The twin of indexer_topk: one histogram of the top 11 bits finds the bin of the k-th
 * key, the few scores of that bin are ranked exactly, and one pass collects. Four counters
 * for each bin, because neighbours mostly hit the same.
 */
void indexer_pick(const struct attn_ops *ops, const float *scores, uint32_t n, uint32_t k,
                  uint32_t *out, float *work)
{
    enum { BITS = 11, SHIFT = 32 - BITS, BINS = 1 << BITS };
    uint32_t count[4][BINS] = {{0}}, i = 0, want = k, b = BINS;
    for (; i + 4 <= n; i += 4)
        for (uint32_t j = 0; j < 4; j++)
            count[j][rank_key(scores[i + j]) >> SHIFT]++;
    for (; i < n; i++)
        count[0][rank_key(scores[i]) >> SHIFT]++;
    for (;;) {
        b--;
        uint32_t all = count[0][b] + count[1][b] + count[2][b] + count[3][b];
        if (all >= want) {
            i = all;
            break;
        }
        want -= all;
    }
    uint32_t least, ties;
    if (i <= INDEXER_WORK) {
        uint32_t m = ops->within(work, scores, n, b << SHIFT, (b << SHIFT) + ((1u << SHIFT) - 1));
        least = kth_key(work, m, want, &ties);
    } else {
        least = kth_key(scores, n, k, &ties);
    }
    ops->above(out, scores, n, least, ties);
}

/* --- scores
 * ------------------------------------------------------------------------------ */

/* A stretch of the rows whose scores are being made, all in one run. */
struct segment {
    const struct forward_run *run;
    uint32_t row, n, tiles; /* first row of the batch, rows, pages up to the last query */
    uint32_t first_task;
};

struct score_job {
    struct forward *f;
    uint32_t layer, row; /* first row of the group */
    struct segment seg[SCORE_ROWS];
    uint32_t n_segs, n_rows;
};

bool indexer_scores_row(const struct forward *f, uint32_t row)
{
    return f->watch || (f->o.select == ENGINE_SELECT_INDEXER &&
                        f->row_pos[row] + 1 > f->hp->index_topk);
}

/* One row against one page, its keys as floats or where they lie. */
static void score_page(const struct score_job *j, const struct segment *s, uint32_t row,
                       uint32_t page, const float *keys, const struct attn_next *next)
{
    const struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    size_t width = (size_t)hp->index_n_heads * hp->index_head_dim;
    float *out = f->scores + (row - j->row) * f->score_ld + (size_t)page * KV_PAGE;
    const float *w = f->iw + (size_t)row * hp->index_n_heads, *scale;
    if (!f->index_i8) {
        f->attn->index(out, f->iq + row * width, w, hp->index_n_heads, keys,
                       hp->index_head_dim, next);
        return;
    }
    const uint8_t *k = kvseq_index_i8(s->run->seq, j->layer, page, &scale);
    f->attn->index_i8(out, f->iq8 + row * width, w, hp->index_n_heads, k, scale,
                      hp->index_head_dim, next);
}

static void score_tiles(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct score_job *j = arg;
    struct forward *f = j->f;
    float *keys = f->thread + thread * f->thread_floats;
    for (uint64_t t = first; t < last; t++) {
        const struct segment *s = j->seg;
        while (t >= s->first_task + s->tiles)
            s++;
        uint32_t page = (uint32_t)(t - s->first_task), from = page * KV_PAGE;
        if (!f->index_i8)
            kvseq_get_index(s->run->seq, j->layer, page, keys);
        struct attn_next ahead, *next = NULL;
        if (page + 1 < s->tiles && t + 1 < last) {
            next = &ahead;
            kvseq_next_index(s->run->seq, j->layer, page + 1, next);
        }
        for (uint32_t i = 0; i < s->n; i++) {
            uint32_t row = s->row + i;
            if (indexer_scores_row(f, row) && f->row_pos[row] >= from) {
                score_page(j, s, row, page, keys, next);
                next = NULL;
            }
        }
    }
}

static void pick_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct score_job *j = arg;
    struct forward *f = j->f;
    uint32_t k = f->hp->index_topk;
    for (uint64_t i = first; i < last; i++) {
        uint32_t row = j->row + (uint32_t)i, n = f->row_pos[row] + 1;
        f->n_set[row] = n > k ? k : SET_ALL;
        if (n > k)
            indexer_pick(f->attn, f->scores + i * f->score_ld, n, k, f->set + (size_t)row * k,
                         f->thread + thread * f->thread_floats);
    }
}

/* The last index_topk positions: for measurements only. */
static void pick_recent(struct forward *f)
{
    uint32_t k = f->hp->index_topk;
    for (uint32_t row = 0; row < f->n_rows; row++) {
        uint32_t n = f->row_pos[row] + 1;
        f->n_set[row] = n > k ? k : SET_ALL;
        for (uint32_t i = 0; n > k && i < k; i++)
            f->set[(size_t)row * k + i] = n - k + i;
    }
}

static void tell(struct forward *f, const struct score_job *j)
{
    uint32_t k = f->hp->index_topk;
    for (uint32_t i = 0; i < j->n_rows; i++) {
        uint32_t row = j->row + i, n = f->row_pos[row] + 1;
        uint32_t *set = f->set + (size_t)row * k;
        for (uint32_t s = 0; n <= k && s < n; s++)
            set[s] = s;
        struct model_selected out = {.layer = j->layer,
                                     .pos = n - 1,
                                     .set = set,
                                     .n_set = n > k ? k : n,
                                     .scores = f->scores + (size_t)i * f->score_ld};
        f->watch(f->watch_arg, &out);
    }
}

static void build_segments(struct forward *f, struct score_job *j)
{
    uint32_t tasks = 0;
    j->n_segs = 0;
    for (uint32_t i = 0; i < j->n_rows;) {
        const struct forward_run *run = &f->run[f->row_run[j->row + i]];
        uint32_t row = j->row + i, n = run->first + run->n - row;
        n = n < j->n_rows - i ? n : j->n_rows - i;
        struct segment *s = &j->seg[j->n_segs++];
        uint32_t end = f->row_pos[row] + n; /* positions that the last query sees */
        bool any = indexer_scores_row(f, row + n - 1);
        *s = (struct segment){.run = run,
                              .row = row,
                              .n = n,
                              .first_task = tasks,
                              .tiles = any ? (end + KV_PAGE - 1) / KV_PAGE : 0};
        tasks += s->tiles;
        i += n;
    }
}

void indexer_select(struct forward *f, uint32_t layer)
{
    if (f->o.select == ENGINE_SELECT_DENSE) {
        for (uint32_t row = 0; row < f->n_rows; row++)
            f->n_set[row] = SET_ALL;
        return;
    }
    if (f->o.select == ENGINE_SELECT_RECENT) {
        pick_recent(f);
        return;
    }
    for (uint32_t row = 0; row < f->n_rows; row += SCORE_ROWS) {
        struct score_job j = {.f = f, .layer = layer, .row = row};
        j.n_rows = f->n_rows - row < SCORE_ROWS ? f->n_rows - row : SCORE_ROWS;
        build_segments(f, &j);
        const struct segment *last = &j.seg[j.n_segs - 1];
        uint32_t tasks = last->first_task + last->tiles;
        pool_run(f->pool, score_tiles, &j, tasks, tasks / (4 * pool_threads(f->pool)) + 1);
        pool_run(f->pool, pick_rows, &j, j.n_rows, 1);
        if (f->watch)
            tell(f, &j);
    }
}
