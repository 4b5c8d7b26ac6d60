/*
 * speculate.c - generation that drafts with the MTP layer while that pays.
 *
 * The draft is the layer's likeliest token. Every token is drawn from the main model's own
 * logits, in order, with the caller's generator: a draft that equals the draw saves a step,
 * another costs one. So the text is the same, token by token and draw by draw, whichever
 * way each step went; nothing that is timed can be seen in it.
 */
#include "engine/speculate.h"

#include <string.h>

#include "base/io.h"
#include "engine/engine_impl.h"

/* A trial goes the other way for a few steps: rarely, since it may cost. */
enum { FIRST_PLAIN = 4, TRIAL_EVERY = 256, TRIAL_PAIRS = 8, TRIAL_PLAIN = 2 };

/* --- the choice --------------------------------------------------------------------------- */

bool pace_drafts(const struct pace *p)
{
    if (p->n_plain < FIRST_PLAIN)
        return false;
    if (p->n_pairs < TRIAL_PAIRS)
        return true;
    return p->drafting != (p->trial > 0);
}

static void average(double *mean, double x, uint64_t n, double weight)
{
    double w = 1.0 / (double)n;
    *mean += (x - *mean) * (w > weight ? w : weight);
}

static void choose(struct pace *p)
{
    if (p->n_plain < FIRST_PLAIN || p->n_pairs < TRIAL_PAIRS)
        return;
    /* The present way keeps a small advantage: it must not flicker. */
    double gain = (1 + p->kept) * p->plain / p->pair;
    if (p->trial > 0) {
        if (--p->trial > 0)
            return;
    } else if (p->until_trial > 0 && --p->until_trial == 0) {
        p->trial = p->drafting ? TRIAL_PLAIN : TRIAL_PAIRS;
        return;
    }
    p->drafting = gain > (p->drafting ? 0.97 : 1.05);
    if (p->until_trial == 0)
        p->until_trial = TRIAL_EVERY;
}

/* One slow step, when the machine was busy elsewhere, must not turn the choice. */
static double tamed(double mean, double x, uint64_t n)
{
    return n > FIRST_PLAIN && x > 1.5 * mean ? 1.5 * mean : x;
}

void pace_plain(struct pace *p, double seconds)
{
    p->n_plain++;
    average(&p->plain, tamed(p->plain, seconds, p->n_plain), p->n_plain, 1.0 / 16);
    choose(p);
}

void pace_pair(struct pace *p, double seconds, bool kept)
{
    p->n_pairs++;
    p->n_kept += kept;
    average(&p->pair, tamed(p->pair, seconds, p->n_pairs), p->n_pairs, 1.0 / 16);
    average(&p->kept, kept, p->n_pairs, 1.0 / 64);
    choose(p);
}

/* --- the steps ---------------------------------------------------------------------------- */

static double seconds_since(int64_t t)
{
    return (double)(io_mono_ns() - t) / 1e9;
}

static int speak_plain(struct engine *e, struct engine_speech *p, struct err *err)
{
    int64_t t = io_mono_ns();
    struct engine_work w = {.seq = p->seq, .tok = &p->last, .n = 1, .n_logits = 1};
    int rc = engine_step(e, &w, 1, err);
    if (rc == 0)
        rc = engine_sample(e, w.logits, p->opts, p->rng, &p->out[0], err);
    if (rc < 0)
        return rc;
    p->n = 1;
    pace_plain(&e->pace, seconds_since(t));
    return 0;
}

static int32_t likeliest(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

static int speak_pair(struct engine *e, struct engine_speech *p, struct err *err)
{
    int64_t t = io_mono_ns();
    struct engine_draft d = {.seq = p->seq, .next = p->last};
    int rc = engine_draft(e, &d, 1, err);
    if (rc < 0)
        return rc;
    int32_t pair[2] = {p->last, likeliest(d.logits, e->info.n_vocab)};
    struct engine_work w = {.seq = p->seq, .tok = pair, .n = 2, .n_logits = 2};
    rc = engine_step(e, &w, 1, err);
    if (rc < 0)
        return rc;
    rc = engine_sample(e, w.logits, p->opts, p->rng, &p->out[0], err);
    bool kept = rc == 0 && p->out[0].id == pair[1];
    if (kept && p->out[0].id != p->stop)
        rc = engine_sample(e, w.logits + e->info.n_vocab, p->opts, p->rng, &p->out[1], err);
    if (!kept || rc < 0 || p->out[0].id == p->stop)
        engine_seq_truncate(p->seq, engine_seq_len(p->seq) - 1);
    if (rc < 0)
        return rc;
    p->n = kept && p->out[0].id != p->stop ? 2 : 1;
    pace_pair(&e->pace, seconds_since(t), kept);
    return 0;
}

int engine_speak(struct engine *e, struct engine_speech *p, struct err *err)
{
    uint32_t len = engine_seq_len(p->seq);
    bool can = e->mtp && len > 0 && len + 2 <= e->info.n_ctx && e->max_batch >= 2;
    bool want = e->drafts == ENGINE_DRAFTS_ALWAYS ||
                (e->drafts == ENGINE_DRAFTS_AUTO && pace_drafts(&e->pace));
    return can && want ? speak_pair(e, p, err) : speak_plain(e, p, err);
}

void engine_pace(const struct engine *e, struct engine_pace *out)
{
    const struct pace *p = &e->pace;
    *out = (struct engine_pace){.plain_seconds = p->plain,
                                .pair_seconds = p->pair,
                                .kept_share = p->kept,
                                .n_plain = p->n_plain,
                                .n_pairs = p->n_pairs,
                                .n_kept = p->n_kept,
                                .drafting = e->mtp && pace_drafts(p)};
}
