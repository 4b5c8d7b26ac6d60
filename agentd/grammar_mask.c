/*
 * grammar_mask.c - from bytes to tokens: a token may come when its bytes lead the automaton
 * from here to somewhere. The tokens are walked in sorted order, so that a prefix shared by
 * many is tried once and a forbidden one rules out all that begin with it; masks of states
 * that return are cached.
 */
#include <stdlib.h>
#include <string.h>

#include "agentd/grammar_in.h"

enum { TOKEN_BYTES = 256, CACHE_SLOTS = 128 };

struct entry {
    struct grammar_state state;
    uint64_t grammar; /* its id */
    bool used;
    uint8_t *mask; /* owned */
};

struct grammar_vocab {
    uint32_t n_vocab;
    size_t mask_bytes;
    struct grammar_tokens tokens;
    int32_t literal[LIT_COUNT]; /* their ids, -1 = none */
    int32_t *sorted;            /* owned; ordinary tokens by their bytes */
    uint16_t *shared;           /* owned; bytes that sorted[i] shares with the one before */
    uint32_t n_sorted;
    uint8_t *ordinary; /* owned; the mask of all ordinary tokens */
    uint8_t *mask;     /* owned; the one handed out for free states */
    struct entry cache[CACHE_SLOTS];
    struct grammar_state path[TOKEN_BYTES + 1]; /* scratch: the state behind each byte */
};

struct grammar_run {
    const struct grammar *g;
    struct grammar_vocab *v;
    struct grammar_state s;
};

static void set_bit(uint8_t *mask, int32_t id)
{
    mask[id / 8] = (uint8_t)(mask[id / 8] | 1u << (id % 8));
}

/* --- the vocabulary ------------------------------------------------------------------- */

static int by_bytes(const void *a, const void *b, void *arg)
{
    const struct grammar_tokens *t = arg;
    struct str x = t->bytes(t->arg, *(const int32_t *)a), y = t->bytes(t->arg, *(const int32_t *)b);
    size_t n = x.n < y.n ? x.n : y.n;
    int d = memcmp(x.p, y.p, n);
    return d ? d : (x.n > y.n) - (x.n < y.n);
}

static void sort_tokens(struct grammar_vocab *v)
{
    struct grammar_tokens *t = &v->tokens;
    for (int32_t id = 0; id < (int32_t)v->n_vocab; id++) {
        struct str s = t->bytes(t->arg, id);
        if (t->special(t->arg, id)) {
            for (int i = 0; i < LIT_COUNT; i++)
                if (str_eq(s, literal_text((enum literal)i)))
                    v->literal[i] = id;
        } else if (s.n && s.n <= TOKEN_BYTES) {
            v->sorted[v->n_sorted++] = id;
            if (!memchr(s.p, 0, s.n)) /* as grammar_step() has it */
                set_bit(v->ordinary, id);
        }
    }
    qsort_r(v->sorted, v->n_sorted, sizeof(*v->sorted), by_bytes, t);
    for (uint32_t i = 1; i < v->n_sorted; i++) {
        struct str a = t->bytes(t->arg, v->sorted[i - 1]), b = t->bytes(t->arg, v->sorted[i]);
        while (v->shared[i] < a.n && v->shared[i] < b.n && a.p[v->shared[i]] == b.p[v->shared[i]])
            v->shared[i]++;
    }
}

int grammar_vocab_new(struct grammar_vocab **out, const struct grammar_tokens *t,
                      struct err *err)
{
    static const enum literal needed[] = {LIT_EOS, LIT_DSML, LIT_ENDTHINK};
    struct grammar_vocab *v = mem_zalloc(sizeof(*v));
    if (!v)
        return err_nomem(err);
    v->n_vocab = t->n_vocab;
    v->mask_bytes = ((size_t)t->n_vocab + 7) / 8;
    v->tokens = *t;
    for (int i = 0; i < LIT_COUNT; i++)
        v->literal[i] = -1;
    v->sorted = mem_array(t->n_vocab, sizeof(*v->sorted));
    v->shared = mem_array(t->n_vocab, sizeof(*v->shared));
    v->ordinary = mem_zalloc(v->mask_bytes);
    v->mask = mem_zalloc(v->mask_bytes);
    int rc = v->sorted && v->shared && v->ordinary && v->mask ? 0 : err_nomem(err);
    if (rc == 0)
        sort_tokens(v);
    for (unsigned i = 0; i < ARRAY_LEN(needed) && rc == 0; i++)
        if (v->literal[needed[i]] < 0)
            rc = err_set(err, ERR_NOTFOUND, "the vocabulary has no special token \"%s\"",
                         literal_text(needed[i]).p);
    if (rc < 0) {
        grammar_vocab_free(v);
        return rc;
    }
    *out = v;
    return 0;
}

void grammar_vocab_free(struct grammar_vocab *v)
{
    if (!v)
        return;
    for (unsigned i = 0; i < CACHE_SLOTS; i++)
        mem_free(v->cache[i].mask);
    mem_free(v->sorted);
    mem_free(v->shared);
    mem_free(v->ordinary);
    mem_free(v->mask);
    mem_free(v);
}

/* --- masks ---------------------------------------------------------------------------- */

static void add_literals(struct grammar_vocab *v, const struct grammar *g,
                         const struct grammar_state *s, uint8_t *mask)
{
    for (int i = 0; i < LIT_COUNT; i++) {
        struct grammar_state next = *s;
        if (v->literal[i] < 0 || !grammar_step(g, &next, SYMBOL_LITERAL + i))
            continue;
        set_bit(mask, v->literal[i]);
        for (uint32_t k = 0; i == LIT_EOS && k < v->tokens.n_ends; k++)
            set_bit(mask, v->tokens.ends[k]);
    }
}

/*
 * path[k] is the state behind the first k bytes of the token before. A token that shares more
 * bytes with it than could be walked fails where that one failed.
 */
static void walk(struct grammar_vocab *v, const struct grammar *g, const struct grammar_state *s,
                 uint8_t *mask)
{
    size_t walked = 0;
    memset(mask, 0, v->mask_bytes);
    v->path[0] = *s;
    for (uint32_t i = 0; i < v->n_sorted; i++) {
        if (v->shared[i] > walked)
            continue;
        struct str t = v->tokens.bytes(v->tokens.arg, v->sorted[i]);
        size_t k = v->shared[i];
        for (; k < t.n; k++) {
            v->path[k + 1] = v->path[k];
            if (!grammar_step(g, &v->path[k + 1], (unsigned char)t.p[k]))
                break;
        }
        walked = k;
        if (k == t.n)
            set_bit(mask, v->sorted[i]);
    }
    add_literals(v, g, s, mask);
}

static const uint8_t *cached(struct grammar_vocab *v, const struct grammar *g,
                             const struct grammar_state *s)
{
    uint64_t h = grammar_hash(g->id, s, sizeof(*s));
    struct entry *e = &v->cache[(h ^ h >> 32) % CACHE_SLOTS];
    if (e->used && e->grammar == g->id && !memcmp(&e->state, s, sizeof(*s)))
        return e->mask;
    if (!e->mask)
        e->mask = mem_alloc(v->mask_bytes);
    if (!e->mask) { /* slower, not wrong */
        walk(v, g, s, v->mask);
        return v->mask;
    }
    walk(v, g, s, e->mask);
    e->state = *s;
    e->grammar = g->id;
    e->used = true;
    return e->mask;
}

const uint8_t *grammar_run_mask(struct grammar_run *r)
{
    struct grammar_vocab *v = r->v;
    if (!grammar_is_free(&r->s))
        return cached(v, r->g, &r->s);
    memcpy(v->mask, v->ordinary, v->mask_bytes);
    add_literals(v, r->g, &r->s, v->mask);
    return v->mask;
}

/* --- runs ----------------------------------------------------------------------------- */

int grammar_run_new(struct grammar_run **out, const struct grammar *g, struct grammar_vocab *v,
                    bool thinking, struct err *err)
{
    struct grammar_run *r = mem_zalloc(sizeof(*r));
    if (!r)
        return err_nomem(err);
    r->g = g;
    r->v = v;
    r->s.place = thinking ? AT_THINKING : AT_ANSWER;
    *out = r;
    return 0;
}

void grammar_run_free(struct grammar_run *r)
{
    mem_free(r);
}

bool grammar_run_accept(struct grammar_run *r, int32_t id)
{
    struct grammar_tokens *t = &r->v->tokens;
    struct grammar_state next = r->s;
    bool ok = id >= 0 && (uint32_t)id < r->v->n_vocab;
    if (ok && t->special(t->arg, id)) {
        int which = 0;
        while (which < LIT_COUNT && r->v->literal[which] != id)
            which++;
        ok = which < LIT_COUNT && grammar_step(r->g, &next, SYMBOL_LITERAL + which);
    } else if (ok) {
        struct str s = t->bytes(t->arg, id);
        ok = s.n > 0;
        for (size_t i = 0; i < s.n && ok; i++)
            ok = grammar_step(r->g, &next, (unsigned char)s.p[i]);
    }
    if (ok)
        r->s = next;
    return ok;
}

bool grammar_run_in_syntax(const struct grammar_run *r)
{
    return !grammar_is_free(&r->s) && r->s.place != AT_JSON;
}

bool grammar_run_ended(const struct grammar_run *r)
{
    return r->s.place == AT_ENDED;
}
