/* sampler.c - greedy choice, truncated sampling, and the check of a drafted token. */
#include "engine/sampler.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/forward.h"

struct sampler {
    uint32_t n_vocab, n_ids;
    float *prob[2]; /* distributions by id: the model's, and the draft's */
    uint32_t *id;   /* candidates, sorted */
};

int sampler_open(struct sampler **out, uint32_t n_vocab, uint32_t n_ids, struct err *err)
{
    struct sampler *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    s->n_vocab = n_vocab;
    s->n_ids = n_ids < n_vocab ? n_ids : n_vocab;
    s->prob[0] = mem_array(n_vocab, sizeof(float));
    s->prob[1] = mem_array(n_vocab, sizeof(float));
    s->id = mem_array(n_vocab, sizeof *s->id);
    if (!s->prob[0] || !s->prob[1] || !s->id) {
        sampler_close(s);
        return err_nomem(err);
    }
    *out = s;
    return 0;
}

void sampler_close(struct sampler *s)
{
    if (!s)
        return;
    mem_free(s->prob[0]);
    mem_free(s->prob[1]);
    mem_free(s->id);
    mem_free(s);
}

double sample_uniform(struct sample_rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t x = s[1] * 5, out = ((x << 7) | (x >> 57)) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return (double)(out >> 11) * 0x1p-53;
}

static bool allowed(const struct sample_opts *o, uint32_t id)
{
    return !o->allow || (o->allow[id / 8] >> (id % 8) & 1);
}

/* The allowed id with the highest logit, ties to the lowest; -ERR_STATE when none is. A
 * logit that is no number means damaged weights: nothing that follows would be true. */
static int best(const struct sampler *s, const float *logits, const struct sample_opts *o,
                int32_t *id, struct err *err)
{
    *id = -1;
    for (uint32_t i = 0; i < s->n_ids; i++)
        if (isnan(logits[i]) || logits[i] == INFINITY)
            return err_set(err, ERR_CORRUPT,
                           "the logit of token %u is %g, expected a finite number: the head's "
                           "weights are damaged; 'agentctl model info --check' names the tensor",
                           i, (double)logits[i]);
    for (uint32_t i = 0; i < s->n_ids; i++)
        if (allowed(o, i) && logits[i] > -INFINITY &&
            (*id < 0 || logits[i] > logits[*id]))
            *id = (int32_t)i;
    if (*id >= 0)
        return 0;
    return err_set(err, ERR_STATE, "no token can follow: the mask allows none of %u ids",
                   s->n_ids);
}

/* --- truncation
 * --------------------------------------------------------------------------- */

/* All but the k largest become 0; ties to the lower id. */
static void keep_top_k(struct sampler *s, float *p, uint32_t k)
{
    indexer_topk(p, s->n_ids, k, s->id);
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->n_ids; i++) {
        if (at < k && s->id[at] == i)
            at++;
        else
            p[i] = 0;
    }
}

static void sift(uint32_t *id, const float *p, uint32_t root, uint32_t n)
{
    for (;;) {
        uint32_t child = 2 * root + 1;
        if (child >= n)
            return;
            /* A heap with the smallest on top, so that sorting leaves the largest first.
             */
#define BELOW(a, b) (p[a] < p[b] || (p[a] == p[b] && (a) > (b)))
        if (child + 1 < n && BELOW(id[child + 1], id[child]))
            child++;
        if (!BELOW(id[child], id[root]))
            return;
#undef BELOW
        uint32_t t = id[root];
        id[root] = id[child];
        id[child] = t;
        root = child;
    }
}

/* Ids by falling probability, ties to the lower id; in place. */
static void sort_ids(uint32_t *id, const float *p, uint32_t n)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sift(id, p, i, n);
    for (uint32_t end = n; end > 1; end--) {
        uint32_t t = id[0];
        id[0] = id[end - 1];
        id[end - 1] = t;
        sift(id, p, 0, end - 1);
    }
}

/* Keeps the shortest falling prefix whose mass reaches top_p of the whole. */
static void keep_top_p(struct sampler *s, float *p, double top_p)
{
    double sum = 0, mass = 0;
    for (uint32_t i = 0; i < s->n_ids; i++)
        sum += (double)p[i];
    /* All ids below this together weigh less than 1 - top_p: the prefix ends before them.
     */
    double floor = (1 - top_p) * sum / s->n_ids;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_ids; i++)
        if (p[i] > 0 && (double)p[i] >= floor)
            s->id[n++] = i;
    sort_ids(s->id, p, n);
    uint32_t keep = 0;
    while (keep < n && mass < top_p * sum)
        mass += (double)p[s->id[keep++]];
    if (keep == 0)
        keep = 1;
    float least = p[s->id[keep - 1]];
    uint32_t last = s->id[keep - 1];
    for (uint32_t i = 0; i < s->n_ids; i++)
        if (p[i] < least || (p[i] == least && i > last))
            p[i] = 0;
}

/* The distribution of the options over all ids, not normalised; returns its sum. */
static int distribution(struct sampler *s, const float *logits,
                        const struct sample_opts *o, float *p, double *sum,
                        struct err *err)
{
    int32_t top;
    int rc = best(s, logits, o, &top, err);
    if (rc < 0)
        return rc;
    float max = logits[top], t = o->temperature > 1e-5f ? o->temperature : 1e-5f;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_ids; i++) {
        p[i] = allowed(o, i) ? expf((logits[i] - max) / t) : 0;
        n += p[i] > 0;
    }
    if (o->top_k && n > o->top_k)
        keep_top_k(s, p, o->top_k);
    float least = o->min_p < 1 ? o->min_p : 1; /* the best has 1 and always stays */
    for (uint32_t i = 0; least > 0 && i < s->n_ids; i++)
        if (p[i] < least)
            p[i] = 0;
    if (o->top_p > 0 && o->top_p < 1)
        keep_top_p(s, p, (double)o->top_p);
    *sum = 0;
    for (uint32_t i = 0; i < s->n_ids; i++)
        *sum += (double)p[i];
    return 0;
}

static int32_t draw(const struct sampler *s, const float *p, double sum,
                    struct sample_rng *rng)
{
    double at = sample_uniform(rng) * sum;
    int32_t last = -1;
    for (uint32_t i = 0; i < s->n_ids; i++) {
        if (p[i] <= 0)
            continue;
        last = (int32_t)i;
        at -= (double)p[i];
        if (at < 0)
            break;
    }
    return last;
}

/* --- reporting
 * ----------------------------------------------------------------------------- */

static void describe(const struct sampler *s, const float *logits,
                     const struct sample_opts *o, int32_t id, struct sample_result *out)
{
    float max = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < s->n_ids; i++)
        max = logits[i] > max ? logits[i] : max;
    for (uint32_t i = 0; i < s->n_ids; i++)
        sum += exp((double)(logits[i] - max));
    double log_sum = log(sum) + (double)max;
    out->id = id;
    out->logprob = (float)((double)logits[id] - log_sum);
    out->n_top = 0;
    uint32_t want = o->n_top < SAMPLE_TOP_MAX ? o->n_top : SAMPLE_TOP_MAX;
    for (uint32_t i = 0; want && i < s->n_ids; i++) {
        uint32_t at = out->n_top;
        if (at == want && logits[i] <= logits[out->top_id[at - 1]])
            continue;
        at = at < want ? out->n_top++ : want - 1;
        for (; at > 0 && logits[out->top_id[at - 1]] < logits[i]; at--)
            out->top_id[at] = out->top_id[at - 1];
        out->top_id[at] = (int32_t)i;
    }
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top_logprob[i] = (float)((double)logits[out->top_id[i]] - log_sum);
}

int sampler_pick(struct sampler *s, const float *logits, const struct sample_opts *o,
                 struct sample_rng *rng, struct sample_result *out, struct err *err)
{
    int32_t id;
    double sum;
    int rc;
    if (o->temperature <= 0) {
        rc = best(s, logits, o, &id, err);
    } else {
        rc = distribution(s, logits, o, s->prob[0], &sum, err);
        if (rc == 0)
            id = draw(s, s->prob[0], sum, rng);
    }
    if (rc < 0)
        return rc;
    describe(s, logits, o, id, out);
    return 0;
}

int sampler_verify(struct sampler *s, const float *p, const float *q, int32_t draft,
                   const struct sample_opts *o, struct sample_rng *rng, bool *kept,
                   struct sample_result *out, struct err *err)
{
    if (draft < 0 || (uint32_t)draft >= s->n_ids)
        return err_set(err, ERR_LIMIT, "drafted id %d is not below %u", draft, s->n_ids);
    int32_t id = draft;
    int rc = 0;
    if (o->temperature <= 0) {
        rc = best(s, p, o, &id, err);
        if (rc < 0)
            return rc;
        *kept = id == draft;
        describe(s, p, o, id, out);
        return 0;
    }
    double sp, sq = 1;
    float *a = s->prob[0], *b = s->prob[1];
    rc = distribution(s, p, o, a, &sp, err);
    if (rc == 0 && q)
        rc = distribution(s, q, o, b, &sq, err);
    if (rc < 0)
        return rc;
    if (!q) {
        memset(b, 0, s->n_ids * sizeof *b);
        b[draft] = 1;
    }
    double pd = (double)a[draft] / sp, qd = (double)b[draft] / sq;
    *kept = qd > 0 && sample_uniform(rng) * qd < pd;
    if (!*kept) {
        double rest = 0;
        for (uint32_t i = 0; i < s->n_ids; i++) {
            a[i] = (float)fmax((double)a[i] / sp - (double)b[i] / sq, 0);
            rest += (double)a[i];
        }
        *kept = rest <= 0; /* the two are equal, and only rounding said no */
        if (rest > 0)
            id = draw(s, a, rest, rng);
    }
    describe(s, p, o, id, out);
    return 0;
}
