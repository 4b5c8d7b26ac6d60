/* bpe.c - byte-pair merging with a heap, so that a megabyte of one letter stays cheap. */
#include "engine/bpe.h"

#include "base/mem.h"

/* A symbol of the piece; dead ones have id -1. */
struct bpe_link {
    int32_t id;
    uint32_t prev, next; /* NONE at the ends */
};

/* A pair that could merge, as it was when it was pushed. */
struct bpe_cand {
    uint32_t rank, at; /* position of the left symbol */
    int32_t left, right, merged;
};

static const uint32_t NONE = UINT32_MAX;

static uint32_t hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

int bpe_init(struct bpe *b, uint32_t n_merges, struct err *err)
{
    *b = (struct bpe){0};
    uint64_t n = 16;
    while (n < (uint64_t)n_merges * 2)
        n *= 2;
    b->slot = n <= UINT32_MAX ? mem_array(n, sizeof *b->slot) : NULL;
    if (!b->slot)
        return err_nomem(err);
    b->mask = (uint32_t)(n - 1);
    for (uint64_t i = 0; i < n; i++)
        b->slot[i].left = -1;
    return 0;
}

void bpe_done(struct bpe *b)
{
    mem_free(b->slot);
    mem_free(b->link);
    mem_free(b->heap);
    *b = (struct bpe){0};
}

/* The slot that holds the pair, or the empty one where it belongs. */
static struct bpe_merge *find(const struct bpe *b, int32_t left, int32_t right)
{
    for (uint32_t i = hash(left, right) & b->mask;; i = (i + 1) & b->mask) {
        struct bpe_merge *m = &b->slot[i];
        if (m->left < 0 || (m->left == left && m->right == right))
            return m;
    }
}

void bpe_add(struct bpe *b, struct bpe_merge m)
{
    struct bpe_merge *slot = find(b, m.left, m.right);
    if (slot->left < 0)
        *slot = m;
}

static bool before(const struct bpe_cand *a, const struct bpe_cand *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void sift_up(struct bpe_cand *h, size_t i)
{
    for (; i > 0 && before(&h[i], &h[(i - 1) / 2]); i = (i - 1) / 2) {
        struct bpe_cand t = h[i];
        h[i] = h[(i - 1) / 2];
        h[(i - 1) / 2] = t;
    }
}

static void sift_down(struct bpe_cand *h, size_t n)
{
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t c = 2 * i + 1; c <= 2 * i + 2 && c < n; c++)
            if (before(&h[c], &h[least]))
                least = c;
        if (least == i)
            return;
        struct bpe_cand t = h[i];
        h[i] = h[least];
        h[least] = t;
        i = least;
    }
}

/* Pushes the pair that starts at `at`, if it can merge. The heap has room: a piece of n
 * symbols pushes n-1 pairs at first and at most two for each of its n-1 merges. */
static void push(struct bpe *b, size_t *n_heap, uint32_t at)
{
    const struct bpe_link *l = &b->link[at];
    if (l->next == NONE)
        return;
    int32_t right = b->link[l->next].id;
    const struct bpe_merge *m = find(b, l->id, right);
    if (m->left < 0)
        return;
    b->heap[*n_heap] = (struct bpe_cand){m->rank, at, l->id, right, m->merged};
    sift_up(b->heap, (*n_heap)++);
}

static int make_room(struct bpe *b, size_t n, struct err *err)
{
    if (n > b->cap_link) {
        void *p = mem_resize(b->link, n, sizeof *b->link);
        if (!p)
            return err_nomem(err);
        b->link = p;
        b->cap_link = n;
    }
    if (n * 3 > b->cap_heap) {
        void *p = mem_resize(b->heap, n * 3, sizeof *b->heap);
        if (!p)
            return err_nomem(err);
        b->heap = p;
        b->cap_heap = n * 3;
    }
    return 0;
}

int bpe_apply(struct bpe *b, int32_t *id, size_t n, size_t *n_out, struct err *err)
{
    *n_out = n;
    if (n < 2)
        return 0;
    if (n >= NONE / 3)
        return err_set(err, ERR_LIMIT, "a piece of %zu bytes is too long to tokenise", n);
    int rc = make_room(b, n, err);
    if (rc < 0)
        return rc;
    size_t n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        b->link[i] = (struct bpe_link){id[i], i ? i - 1 : NONE, i + 1 < n ? i + 1 : NONE};
    for (uint32_t i = 0; i + 1 < n; i++)
        push(b, &n_heap, i);
    while (n_heap) {
        struct bpe_cand c = b->heap[0];
        b->heap[0] = b->heap[--n_heap];
        sift_down(b->heap, n_heap);
        struct bpe_link *l = &b->link[c.at];
        if (l->id != c.left || l->next == NONE || b->link[l->next].id != c.right)
            continue; /* one of the two has merged elsewhere since */
        struct bpe_link *r = &b->link[l->next];
        l->id = c.merged;
        r->id = -1;
        l->next = r->next;
        if (l->next != NONE)
            b->link[l->next].prev = c.at;
        push(b, &n_heap, c.at);
        if (l->prev != NONE)
            push(b, &n_heap, l->prev);
    }
    size_t m = 0;
    for (uint32_t i = 0; i != NONE; i = b->link[i].next)
        id[m++] = b->link[i].id;
    *n_out = m;
    return 0;
}
