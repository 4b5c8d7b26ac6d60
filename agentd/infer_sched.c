/*
 * infer_sched.c - the engine's thread for token engines: continuous batching.
 *
 *   waiting --admit--> active: prefill chunks --> decode rows --> finished
 *
 * Every step mixes one decode row per generating session with prefill chunks that share
 * what is left of the batch in equal parts, so no session waits for another's long prompt.
 * Idle jobs (the re-prefill after an answer) get rows only in steps that nobody else needs,
 * so a request preempts them within one chunk.
 *
 * KV: each session keeps up to KV_PER_SESSION timelines. A job continues the one that agrees
 * longest with its prompt; a timeline is never cut below what another prompt may want, it
 * is forked instead. When pages run out the one unused for longest goes.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/crash.h"
#include "agentd/infer_core.h"
#include "agentd/literal.h"
#include "agentd/log.h"
#include "base/io.h"
#include "base/mem.h"

enum {
    MAX_KV = 1024,
    KV_PER_SESSION = 2,
    MAX_ROWS = 256,
    SHARE_MIN = 16,      /* tokens that make it worth forking another session's timeline */
    PREFILL_BESIDE = 128, /* prefill rows of a step that also decodes: bounds its latency */
    IDLE_CHUNK = 64,      /* rows of an idle step: what a request may have to wait for */
    SAVE_MIN = 256,       /* a shorter timeline is computed again sooner than it is read */
    SAVE_AFTER_MS = 500,  /* of rest, so that writing a snapshot never meets the next turn */
};

struct kv {
    char session[ID_TEXT];
    void *seq; /* owned */
    struct infer_job *user;
    bool gone;     /* its session was forgotten: dropped with its last use */
    int64_t used_ns;
    int64_t save_at; /* monotonic ns: a snapshot is due; 0 = none */
};

struct sched {
    struct infer_core *core;
    const struct infer_model *m;
    void *self;
    struct kv kv[MAX_KV];
    uint32_t n_kv;
    struct infer_job *active; /* list, oldest first */
    int32_t stop[16], eos, end_think;
    unsigned n_own, n_stop; /* the first n_own are of the format, the rest of the model */
    struct infer_load load;
    struct grammar_vocab *vocab; /* owned; made when first needed */
    bool no_vocab;               /* the model lacks the format's literals */
};

/* --- timelines -------------------------------------------------------------------------- */

static void kv_drop(struct sched *s, uint32_t i)
{
    s->m->seq_free(s->kv[i].seq);
    s->kv[i] = s->kv[--s->n_kv];
}

/* Drops the unused timeline that rested longest (of one session, or of all). */
static bool kv_evict(struct sched *s, const char *session)
{
    uint32_t best = MAX_KV;
    for (uint32_t i = 0; i < s->n_kv; i++)
        if (!s->kv[i].user && (!session || strcmp(s->kv[i].session, session) == 0) &&
            (best == MAX_KV || s->kv[i].used_ns < s->kv[best].used_ns))
            best = i;
    if (best == MAX_KV)
        return false;
    kv_drop(s, best);
    return true;
}

static struct kv *kv_add(struct sched *s, const char *session, void *seq)
{
    unsigned own = 0;
    for (uint32_t i = 0; i < s->n_kv; i++)
        own += strcmp(s->kv[i].session, session) == 0;
    if (own >= KV_PER_SESSION)
        kv_evict(s, session);
    if (s->n_kv == MAX_KV && !kv_evict(s, NULL))
        return NULL;
    struct kv *k = &s->kv[s->n_kv++];
    *k = (struct kv){.seq = seq, .used_ns = io_mono_ns()};
    snprintf(k->session, sizeof k->session, "%s", session);
    return k;
}

static uint32_t common(struct sched *s, const struct kv *k, const struct infer_job *j)
{
    uint32_t n = s->m->seq_len(k->seq), i = 0;
    const int32_t *have = s->m->seq_tokens(k->seq);
    /* a token must be left to compute, or there is nothing to sample from */
    uint32_t most = j->prompt.n - (j->idle || j->peek ? 0 : 1);
    while (i < n && i < most && have[i] == j->prompt.id[i])
        i++;
    return i;
}

static void snapshot_path(const struct sched *s, const char *session, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/%s.kv", s->core->o.kv_dir, session);
}

/* After a restart a session's first job looks for its snapshot. */
static void kv_load(struct sched *s, const char *session)
{
    char path[PATH_MAX];
    struct err err;
    void *seq = NULL;
    if (!s->core->o.kv_dir)
        return;
    for (uint32_t i = 0; i < s->n_kv; i++)
        if (strcmp(s->kv[i].session, session) == 0)
            return;
    snapshot_path(s, session, path);
    if (access(path, R_OK) < 0)
        return;
    if (s->m->seq_load(s->self, &seq, path, &err) < 0) {
        LOGW("infer", "snapshot refused session=%s error=\"%s\"", session, err.text);
        unlink(path);
        return;
    }
    if (!kv_add(s, session, seq))
        s->m->seq_free(seq);
}

static struct kv *kv_best(struct sched *s, const struct infer_job *j, uint32_t *n)
{
    struct kv *best = NULL;
    *n = 0;
    for (uint32_t i = 0; i < s->n_kv; i++) {
        struct kv *k = &s->kv[i];
        uint32_t c = common(s, k, j);
        bool own = strcmp(k->session, j->session) == 0;
        if (c > *n || (c == *n && best && own && strcmp(best->session, j->session) != 0)) {
            best = k;
            *n = c;
        }
    }
    return best;
}

/* Gives the job a timeline that already holds as much of its prompt as any does. */
static int kv_assign(struct sched *s, struct infer_job *j, struct err *err)
{
    uint32_t n;
    void *seq = NULL;
    kv_load(s, j->session);
    struct kv *k = kv_best(s, j, &n);
    bool own = k && strcmp(k->session, j->session) == 0;
    if (own && !k->user && s->m->seq_len(k->seq) == n) {
        k->user = j;
        k->used_ns = io_mono_ns();
        j->seq = k->seq;
        j->at = j->cached = n;
        return 0;
    }
    int rc;
    if (k && (own ? n > 0 : n >= SHARE_MIN)) {
        rc = s->m->seq_fork(k->seq, n, &seq, err);
    } else {
        n = 0;
        rc = s->m->seq_new(s->self, &seq, err);
    }
    if (rc < 0)
        return rc;
    k = kv_add(s, j->session, seq);
    if (!k) {
        s->m->seq_free(seq);
        return err_set(err, ERR_LIMIT, "more than %d KV timelines are in use", MAX_KV);
    }
    k->user = j;
    j->seq = seq;
    j->at = j->cached = n;
    return 0;
}

static void kv_release(struct sched *s, struct infer_job *j)
{
    for (uint32_t i = 0; i < s->n_kv;) {
        struct kv *k = &s->kv[i];
        if (k->user == j) {
            k->user = NULL;
            k->used_ns = io_mono_ns();
        }
        if (k->gone && !k->user)
            kv_drop(s, i);
        else
            i++;
    }
}

static void forget(struct sched *s, const char *session)
{
    char path[PATH_MAX];
    for (uint32_t i = 0; i < s->n_kv;) {
        struct kv *k = &s->kv[i];
        bool its = strcmp(k->session, session) == 0;
        k->gone |= its;
        if (its && !k->user)
            kv_drop(s, i);
        else
            i++;
    }
    if (!s->core->o.kv_dir)
        return;
    snapshot_path(s, session, path);
    unlink(path);
}

static void save(struct sched *s, struct kv *k)
{
    char path[PATH_MAX], tmp[PATH_MAX + 8];
    struct err err;
    k->save_at = 0;
    snapshot_path(s, k->session, path);
    snprintf(tmp, sizeof tmp, "%s.new", path);
    int rc = s->m->seq_save(k->seq, tmp, &err);
    crash_here(CRASH_DURING_SNAPSHOT);
    if (rc < 0 || rename(tmp, path) < 0) {
        LOGW("infer", "snapshot failed session=%s error=\"%s\"", k->session,
             rc < 0 ? err.text : "rename");
        unlink(tmp);
    }
}

static void save_later(struct sched *s, const struct infer_job *j)
{
    for (uint32_t i = 0; i < s->n_kv && s->core->o.kv_dir; i++)
        if (s->kv[i].user == j && !s->kv[i].gone && s->m->seq_len(s->kv[i].seq) >= SAVE_MIN)
            s->kv[i].save_at = io_mono_ns() + (int64_t)SAVE_AFTER_MS * 1000000;
}

/* Writes one snapshot that is due (all of them at the end). Returns when the next will be
 * due; 0 = none waits. */
static int64_t save_due(struct sched *s, bool now_all)
{
    int64_t next = 0, now = io_mono_ns();
    bool saved = false;
    for (uint32_t i = 0; i < s->n_kv; i++) {
        struct kv *k = &s->kv[i];
        if (!k->save_at || k->user)
            continue;
        if (now_all || (!saved && k->save_at <= now)) {
            save(s, k);
            saved = true;
        } else if (!next || k->save_at < next) {
            next = k->save_at;
        }
    }
    return next;
}

/* --- jobs ------------------------------------------------------------------------------- */

static void finish(struct sched *s, struct infer_job *j, enum infer_end end, const char *error,
                   bool retryable)
{
    for (struct infer_job **at = &s->active; *at; at = &(*at)->next)
        if (*at == j) {
            *at = j->next;
            break;
        }
    kv_release(s, j);
    grammar_run_free(j->run);
    j->run = NULL;
    if (j->scratch && s->m->job_done)
        s->m->job_done(j->scratch);
    int64_t now = io_mono_ns();
    j->result.prompt = j->prompt.n;
    j->result.cached = j->cached;
    j->result.completion = j->made;
    j->result.queued_ns = (j->begun ? j->begun_ns : now) - j->queued_ns;
    if (j->begun)
        j->result.prefill_ns = (j->first_ns ? j->first_ns : now) - j->begun_ns;
    if (j->first_ns)
        j->result.decode_ns = now - j->first_ns;
    core_finish(s->core, j, end, error, retryable);
}

/* --- calls held to their schemas -------------------------------------------------------- */

static struct str vocab_bytes(const void *arg, int32_t id)
{
    const struct sched *s = arg;
    return s->m->bytes(s->self, id);
}

static bool vocab_special(const void *arg, int32_t id)
{
    const struct sched *s = arg;
    return s->m->special(s->self, id);
}

/* Without one a reply is simply free: the reader copes with whatever comes. */
static void hold(struct sched *s, struct infer_job *j)
{
    struct err err;
    struct grammar_tokens t = {.n_vocab = s->core->info.n_vocab, .bytes = vocab_bytes,
                               .special = vocab_special, .arg = s,
                               .ends = s->core->info.end, .n_ends = s->core->info.n_ends};
    if (!j->grammar || !s->m->held || s->no_vocab)
        return;
    if (!s->vocab && grammar_vocab_new(&s->vocab, &t, &err) < 0) {
        LOGW("infer", "calls are not held to their schemas error=\"%s\"", err.text);
        s->no_vocab = true;
        return;
    }
    if (grammar_run_new(&j->run, j->grammar->g, s->vocab, j->thinking, &err) < 0)
        LOGW("infer", "a reply is not held to its schemas error=\"%s\"", err.text);
}

static void follow(struct infer_job *j, int32_t id)
{
    if (j->run && (!grammar_run_accept(j->run, id) || grammar_run_ended(j->run))) {
        grammar_run_free(j->run);
        j->run = NULL;
    }
}

/* --- admission ------------------------------------------------------------------------- */

/* Shows what is there without touching it. */
static void peek(struct sched *s, struct infer_job *j)
{
    uint32_t n;
    struct kv *k;
    kv_load(s, j->session);
    k = kv_best(s, j, &n);
    j->cached = n;
    if (k)
        core_post(s->core, j, NOTE_TOKENS, 0, 0, s->m->seq_tokens(k->seq), s->m->seq_len(k->seq),
                  (struct str){0}, (struct str){0});
    finish(s, j, INFER_END_STOP, NULL, false);
}

static void admit(struct sched *s, struct infer_job *j)
{
    struct err err;
    struct infer_job **at = &s->active;
    j->next = NULL;
    while (*at)
        at = &(*at)->next;
    *at = j;
    uint32_t n_ctx = s->core->info.n_ctx;
    if (j->peek) {
        peek(s, j);
        return;
    }
    if (j->prompt.n == 0) {
        finish(s, j, INFER_END_ERROR, "the prompt is empty", false);
        return;
    }
    if (j->prompt.n >= n_ctx) {
        finish(s, j, INFER_END_CONTEXT, "the prompt fills the model's window", false);
        return;
    }
    s->m->seed(j->rng, j->sampling.seed);
    if (kv_assign(s, j, &err) < 0 && !(kv_evict(s, NULL) && kv_assign(s, j, &err) == 0)) {
        finish(s, j, INFER_END_ERROR, err.text, true);
        return;
    }
    hold(s, j);
    j->begun = true;
    j->begun_ns = io_mono_ns();
    s->load.prompt_tokens += j->prompt.n;
    s->load.cached_tokens += j->cached;
    core_post(s->core, j, NOTE_BEGIN, j->prompt.n, j->cached, NULL, 0, (struct str){0},
              (struct str){0});
    if (j->idle && j->at == j->prompt.n) { /* nothing left to do */
        if (j->save)
            save_later(s, j);
        finish(s, j, INFER_END_STOP, NULL, false);
    }
}

/* An end of the model's own becomes the format's: the transcript knows no other. */
static bool is_stop(const struct sched *s, int32_t *id)
{
    for (unsigned i = 0; i < s->n_stop; i++)
        if (s->stop[i] == *id) {
            *id = i < s->n_own || s->eos < 0 ? *id : s->eos;
            return true;
        }
    return false;
}

static void ended(struct sched *s, struct infer_job *j, bool stopped)
{
    if (stopped)
        finish(s, j, INFER_END_STOP, NULL, false);
    else if (j->result.block)
        finish(s, j, INFER_END_REPEAT, NULL, false);
    else if (j->max_tokens && j->made >= j->max_tokens)
        finish(s, j, INFER_END_LENGTH, NULL, false);
}

/* What the model said in this step; the job may end here. */
static void took(struct sched *s, struct infer_job *j, struct infer_row *r)
{
    uint32_t n = r->n_id;
    bool stopped = false;
    memcpy(j->rng, r->rng, sizeof j->rng);
    j->not_before = r->not_before;
    if (!j->first_ns && n)
        j->first_ns = io_mono_ns();
    for (uint32_t i = 0; i < n && !stopped; i++) {
        if (r->id[i] == s->end_think)
            j->closed_think = true;
        if (j->think_max && !j->closed_think && j->made + i + 1 >= j->think_max) {
            r->id[i] = s->end_think;
            j->closed_think = true;
            n = i + 1;
        }
        stopped = is_stop(s, &r->id[i]);
        follow(j, r->id[i]);
        if (!stopped)
            j->result.block = stutter_add(&j->stutter, r->id[i], j->repeat_max);
        if (stopped || j->result.block || (j->max_tokens && j->made + i + 1 >= j->max_tokens))
            n = i + 1;
    }
    j->made += n;
    s->load.completion_tokens += n;
    if (n)
        core_post(s->core, j, NOTE_TOKENS, 0, 0, r->id, n, (struct str){0}, (struct str){0});
    memcpy(j->feed, r->id, n * sizeof *j->feed);
    j->n_feed = n;
    ended(s, j, stopped);
}

static void advanced(struct sched *s, struct infer_job *j, struct infer_row *r)
{
    if (r->error[0]) {
        finish(s, j, INFER_END_ERROR, r->error, r->retryable);
        return;
    }
    if (j->prefilled) {
        took(s, j, r);
        return;
    }
    j->at += r->n;
    if (j->at < j->prompt.n) {
        core_post(s->core, j, NOTE_PREFILL, j->at, j->prompt.n, NULL, 0, (struct str){0},
                  (struct str){0});
        return;
    }
    j->prefilled = true;
    if (!j->idle) {
        took(s, j, r);
        return;
    }
    if (j->save)
        save_later(s, j);
    finish(s, j, INFER_END_STOP, NULL, false);
}

/* --- the step --------------------------------------------------------------------------- */

struct plan {
    struct infer_row row[MAX_ROWS];
    struct infer_job *job[MAX_ROWS];
    uint32_t n;
    int64_t wake; /* the earliest not_before among jobs that were left out; 0 = none */
};

static void plan_add(struct plan *p, struct infer_job *j, const int32_t *tok, uint32_t n,
                     bool sample)
{
    struct infer_row *r = &p->row[p->n];
    p->job[p->n++] = j;
    *r = (struct infer_row){.seq = j->seq, .tok = tok, .n = n, .sample = sample,
                            .n_prompt = j->prompt.n, .sampling = &j->sampling,
                            .run = j->run,
                            .scratch = &j->scratch};
    memcpy(r->rng, j->rng, sizeof r->rng);
}

static void plan_decode(struct sched *s, struct plan *p, int64_t now)
{
    for (struct infer_job *j = s->active; j && p->n < MAX_ROWS; j = j->next) {
        if (!j->prefilled)
            continue;
        if (j->not_before > now) {
            if (!p->wake || j->not_before < p->wake)
                p->wake = j->not_before;
            continue;
        }
        plan_add(p, j, j->feed, j->n_feed, true);
    }
}

static void plan_prefill(struct sched *s, struct plan *p, bool idle)
{
    uint32_t most = s->core->info.max_batch, jobs = 0;
    for (struct infer_job *j = s->active; j; j = j->next)
        jobs += !j->prefilled && j->idle == idle;
    if (!jobs)
        return;
    most -= p->n < most ? p->n : most;
    if (p->n && most > PREFILL_BESIDE)
        most = PREFILL_BESIDE;
    if (idle && most > IDLE_CHUNK)
        most = IDLE_CHUNK;
    uint32_t share = most / jobs ? most / jobs : 1;
    for (struct infer_job *j = s->active; j && p->n < MAX_ROWS && most; j = j->next) {
        if (j->prefilled || j->idle != idle)
            continue;
        uint32_t left = j->prompt.n - j->at, n = left < share ? left : share;
        if (n > most)
            n = most;
        most -= n;
        plan_add(p, j, j->prompt.id + j->at, n, n == left && !idle);
    }
}

static bool window_full(const struct sched *s, const struct plan *p, uint32_t i)
{
    return s->m->seq_len(p->row[i].seq) + p->row[i].n > s->core->info.n_ctx;
}

/* Runs the plan; a full cache costs first unused timelines, then the youngest job. */
static void run_step(struct sched *s, struct plan *p)
{
    struct err err;
    for (uint32_t i = 0; i < p->n; i++)
        if (window_full(s, p, i)) {
            finish(s, p->job[i], INFER_END_CONTEXT, NULL, false);
            return; /* the plan is stale; the next round makes a new one */
        }
    int rc = s->m->step(s->self, p->row, p->n, &err);
    while (rc == -ERR_LIMIT && kv_evict(s, NULL))
        rc = s->m->step(s->self, p->row, p->n, &err);
    s->load.steps++;
    if (rc == -ERR_LIMIT) {
        finish(s, p->job[p->n - 1], INFER_END_ERROR, err.text, true);
    } else if (rc < 0) {
        LOGE("infer", "step failed error=\"%s\"", err.text);
        for (uint32_t i = 0; i < p->n; i++)
            finish(s, p->job[i], INFER_END_ERROR, err.text, false);
        if (rc == -ERR_CORRUPT) {
            snprintf(s->core->problem, sizeof s->core->problem, "%s", err.text);
            core_state(s->core, INFER_DEAD);
        }
    } else {
        for (uint32_t i = 0; i < p->n; i++)
            advanced(s, p->job[i], &p->row[i]);
    }
}

static void cancel_asked(struct sched *s)
{
    for (struct infer_job *j = s->active, *next; j; j = next) {
        next = j->next;
        if (atomic_load(&j->cancel))
            finish(s, j, INFER_END_CANCELLED, NULL, false);
    }
}

static void report(struct sched *s)
{
    s->load.waiting = s->load.running = 0;
    for (struct infer_job *j = s->active; j; j = j->next) {
        s->load.running += j->prefilled;
        s->load.waiting += !j->prefilled;
    }
    s->load.kv_seqs = s->n_kv;
    s->m->cache(s->self, &s->load.kv_used, &s->load.kv_limit);
    if (s->m->weights)
        s->m->weights(s->self, &s->load.weights);
    core_load(s->core, &s->load);
}

static void serve(struct sched *s)
{
    static struct plan p; /* one engine's thread per process; too big for its stack */
    char gone[ID_TEXT];
    struct infer_job *in;
    int64_t until = 0;
    bool rest = true;
    for (;;) {
        bool go = core_take(s->core, &in, rest, until);
        for (struct infer_job *next; in; in = next) {
            next = in->next;
            admit(s, in);
        }
        if (!go) /* these were the last: none is begun while the engine closes */
            break;
        cancel_asked(s);
        while (core_take_forget(s->core, gone))
            forget(s, gone);
        p.n = 0;
        p.wake = 0;
        plan_decode(s, &p, io_mono_ns());
        plan_prefill(s, &p, false);
        if (!p.n)
            plan_prefill(s, &p, true);
        if (p.n)
            run_step(s, &p);
        rest = p.n == 0;
        until = p.wake;
        if (rest) {
            int64_t due = save_due(s, false);
            until = !until || (due && due < until) ? due : until;
        }
        report(s);
    }
    while (s->active)
        finish(s, s->active, INFER_END_CANCELLED, NULL, false);
    while (core_take_forget(s->core, gone))
        forget(s, gone);
    save_due(s, true);
}

static void find_stops(struct sched *s)
{
    static const enum literal stops[] = {LIT_EOS, LIT_BOS, LIT_USER,
                                         LIT_ASSISTANT};
    for (unsigned i = 0; i < ARRAY_LEN(stops); i++) {
        int32_t id = s->m->id_of(s->self, literal_text(stops[i]));
        if (id >= 0)
            s->stop[s->n_stop++] = id;
    }
    s->n_own = s->n_stop;
    for (uint32_t i = 0; i < s->core->info.n_ends; i++)
        if (!is_stop(s, &(int32_t){s->core->info.end[i]}))
            s->stop[s->n_stop++] = s->core->info.end[i];
    s->eos = s->m->id_of(s->self, literal_text(LIT_EOS));
    s->end_think = s->m->id_of(s->self, literal_text(LIT_ENDTHINK));
}

void infer_sched_run(struct infer_core *core)
{
    struct err err;
    struct sched *s = mem_zalloc(sizeof *s);
    int rc = s ? core->model->open(&core->self, core->where, &core->o, &core->progress, &err)
               : err_nomem(&err);
    if (rc == 0) {
        s->core = core;
        s->m = core->model;
        s->self = core->self;
        core->model->info(core->self, &core->info);
        find_stops(s);
        core_state(core, INFER_READY);
        serve(s);
        while (s->n_kv)
            kv_drop(s, s->n_kv - 1);
        grammar_vocab_free(s->vocab);
    } else {
        snprintf(core->problem, sizeof core->problem, "%s", err.text);
        core_state(core, INFER_DEAD);
    }
    mem_free(s);
}
