/*
 * int8_panel.h - the walk over panels and rows that the vector forms of int8.h share. The
 * including file has defined
 *
 *   ROWS, TILE, BLOCKS    rows of a panel, rows of activations at a time, blocks of a chunk
 *   struct chunk          what BLOCKS blocks of 32 of a panel unpack to
 *   unpack_chunk()        stored bytes to a chunk
 *   chunk_times()         a chunk times n packed rows onto ROWS floats each, kind and n known
 *                         when compiled
 *   panel_times()         a whole panel times few rows, false for types without such a way
 *   TIMES_LOG             3 or 4: chunk_times() is wanted for 1, 2, 4 (and 8) rows
 *   INT8_MATMUL           the name of the result
 */

#define TIMES(kind, n)                                                                     \
    static void times_##kind##_##n(const struct chunk *c, unsigned nb,                     \
                                   const uint8_t *const *x, const struct offsets *o,     \
                                   float *acc)                                            \
    {                                                                                      \
        chunk_times(kind, n, c, nb, x, o, acc);                                            \
    }
#if TIMES_LOG == 4
#define TIMES_ALL(kind) TIMES(kind, 1) TIMES(kind, 2) TIMES(kind, 4) TIMES(kind, 8)
#define TIMES_ROW(kind) {times_##kind##_1, times_##kind##_2, times_##kind##_4, times_##kind##_8}
#else
#define TIMES_ALL(kind) TIMES(kind, 1) TIMES(kind, 2) TIMES(kind, 4)
#define TIMES_ROW(kind) {times_##kind##_1, times_##kind##_2, times_##kind##_4}
#endif
TIMES_ALL(CODES_PLAIN)
TIMES_ALL(CODES_MIN)
TIMES_ALL(CODES_HALVES)
TIMES_ALL(CODES_HALVES_MIN)

typedef void times_fn(const struct chunk *c, unsigned nb, const uint8_t *const *x,
                      const struct offsets *o, float *acc);
static times_fn *const times[][TIMES_LOG] = {
    [CODES_PLAIN] = TIMES_ROW(CODES_PLAIN),
    [CODES_MIN] = TIMES_ROW(CODES_MIN),
    [CODES_HALVES] = TIMES_ROW(CODES_HALVES),
    [CODES_HALVES_MIN] = TIMES_ROW(CODES_HALVES_MIN),
};

/* Any n up to TILE, in powers of two. */
INLINE void times_few(enum int8_kind kind, uint32_t n, const struct chunk *c, unsigned nb,
                      const uint8_t *const *x, const struct offsets *o, float *acc)
{
    for (int p = TIMES_LOG - 1; p >= 0; p--)
        if (n & 1u << p) {
            times[kind][p](c, nb, x, o, acc);
            x += 1 << p;
            acc += ROWS << p;
        }
}

/* What one call works on. */
struct job {
    const struct int8_format *f;
    uint64_t cols, blocks; /* of 32 */
    const struct acts *x;
    float *y;
    size_t ldy;
};

static void rows_of(const struct job *j, uint32_t first, uint32_t n, const uint8_t **x)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = first + i;
        x[i] = j->x->packed + (j->x->pick ? j->x->pick[at] : at) * j->x->ldp;
    }
}

INLINE unsigned blocks_from(const struct job *j, uint64_t block)
{
    return j->blocks - block < BLOCKS ? (unsigned)(j->blocks - block) : BLOCKS;
}

/* The panel's chunk that begins with block `block`. */
INLINE void unpack_at(const struct job *j, struct chunk *c, struct source *w, uint64_t block)
{
    struct source from = *w;
    from.p += block * INT8_BLOCK / j->f->block * j->f->bytes;
    unpack_chunk(c, j->f, &from, blocks_from(j, block));
    w->ahead = from.ahead;
}

/* Which rows of a panel are wanted. */
struct keep {
    uint32_t skip, n;
};

INLINE void store(const struct job *j, uint32_t first, uint32_t n, float (*acc)[ROWS],
                  struct keep keep, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float *to = y + (first + i) * j->ldy;
        if (keep.n == ROWS)
            memcpy(to, acc[i], sizeof acc[i]);
        else
            memcpy(to, acc[i] + keep.skip, keep.n * sizeof *to);
    }
}

/* At most TILE rows: unpacked and used chunk by chunk. */
static void panel_few(const struct job *j, struct source w, uint32_t n, struct keep keep,
                      float *y, struct chunk *c)
{
    const uint8_t *x[TILE];
    _Alignas(64) float acc[TILE][ROWS] = {{0}};
    rows_of(j, 0, n, x);
    bool done = panel_times(j->f, w, x, n, j->cols, acc);
    for (uint64_t b = 0; !done && b < j->blocks; b += BLOCKS) {
        struct offsets o = offsets_at(j->cols, b);
        unpack_at(j, c, &w, b);
        times_few(j->f->kind, n, c, blocks_from(j, b), x, &o, acc[0]);
    }
    store(j, 0, n, acc, keep, y);
}

/* Many rows: the whole panel is unpacked once. */
static void panel_many(const struct job *j, struct source w, uint32_t n, struct keep keep,
                       float *y, struct chunk *c)
{
    for (uint64_t b = 0; b < j->blocks; b += BLOCKS)
        unpack_at(j, &c[b / BLOCKS], &w, b);
    for (uint32_t i = 0; i < n; i += TILE) {
        uint32_t m = n - i < TILE ? n - i : TILE;
        const uint8_t *x[TILE];
        _Alignas(64) float acc[TILE][ROWS] = {{0}};
        rows_of(j, i, m, x);
        for (uint64_t b = 0; b < j->blocks; b += BLOCKS) {
            struct offsets o = offsets_at(j->cols, b);
            times_few(j->f->kind, m, &c[b / BLOCKS], blocks_from(j, b), x, &o, acc[0]);
        }
        store(j, i, m, acc, keep, y);
    }
}

void INT8_MATMUL(const struct tensor *w, uint64_t first, uint64_t last, const struct acts *x,
                 uint32_t n, float *y, size_t ldy, void *work)
{
    uint64_t rows = tensor_n_rows(w);
    if (rows < ROWS) {
        int8_matmul(w, first, last, x, n, y, ldy, work);
        return;
    }
    struct job j = {.f = int8_format(w->type),
                    .cols = w->ne[0],
                    .blocks = w->ne[0] / INT8_BLOCK,
                    .x = x,
                    .y = y,
                    .ldy = ldy};
    /* Rows to the panel asked for meanwhile: far enough for memory to answer in time. */
    uint64_t ahead = AHEAD / w->row_bytes / ROWS * ROWS;
    ahead = ahead ? ahead : ROWS;
    for (uint64_t r = first; r < last; r += ROWS) {
        /* The last panel of a matrix is its last ROWS rows; some are thrown away. */
        uint64_t from = r + ROWS <= rows ? r : rows - ROWS;
        uint64_t end = last - r < ROWS ? last : r + ROWS;
        struct keep keep = {(uint32_t)(r - from), (uint32_t)(end - r)};
        uint64_t at = from + ahead;
        struct source panel = {tensor_row(w, from), w->row_bytes, tensor_row(w, at)};
        if (at >= last && x->next)
            panel.ahead = (const uint8_t *)x->next + (at - last) * w->row_bytes;
        (n <= TILE ? panel_few : panel_many)(&j, panel, n, keep, y + (r - first), work);
    }
}
