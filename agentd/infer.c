/*
 * infer.c - the main thread's side of an engine: the queues, the delivery of what comes
 * back, and the start and end of the engine's thread.
 */
#include "agentd/infer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agentd/infer_core.h"
#include "agentd/log.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

struct infer {
    struct infer_core core;
    pthread_t thread;
    bool started;
    unsigned n_jobs; /* given out and not done */
    void (*on_state)(void *arg);
    void *arg;
    int seen_state;
};

void tokens_add(struct tokens *t, const int32_t *id, uint32_t n)
{
    if (t->failed)
        return;
    if (t->n + n > t->cap) {
        uint32_t cap = t->cap ? t->cap : 256;
        while (cap < t->n + n)
            cap *= 2;
        int32_t *p = mem_resize(t->id, cap, sizeof *p);
        if (!p) {
            t->failed = true;
            return;
        }
        t->id = p;
        t->cap = cap;
    }
    if (n)
        memcpy(t->id + t->n, id, n * sizeof *id);
    t->n += n;
}

void tokens_reset(struct tokens *t)
{
    t->n = 0;
    t->failed = false;
}

void tokens_done(struct tokens *t)
{
    mem_free(t->id);
    *t = (struct tokens){0};
}

/* --- the engine's thread ---------------------------------------------------------------- */

bool core_take(struct infer_core *c, struct infer_job **jobs, bool wait, int64_t until)
{
    pthread_mutex_lock(&c->lock);
    while (wait && !c->stop && !c->jobs && !c->n_forget && !c->poked) {
        if (!until) {
            pthread_cond_wait(&c->wake, &c->lock);
        } else {
            struct timespec t = {until / 1000000000, until % 1000000000};
            if (pthread_cond_timedwait(&c->wake, &c->lock, &t) != 0)
                break;
        }
    }
    c->poked = false;
    *jobs = c->jobs;
    c->jobs = NULL;
    c->jobs_end = &c->jobs;
    bool go = !c->stop;
    pthread_mutex_unlock(&c->lock);
    return go;
}

bool core_take_forget(struct infer_core *c, char out[ID_TEXT])
{
    pthread_mutex_lock(&c->lock);
    bool any = c->n_forget > 0;
    if (any)
        memcpy(out, c->forget[--c->n_forget], ID_TEXT);
    pthread_mutex_unlock(&c->lock);
    return any;
}

void core_state(struct infer_core *c, enum infer_state state)
{
    atomic_store(&c->state, (int)state);
    ev_wake_send(c->to_main);
}

static void push(struct infer_core *c, struct infer_note *n)
{
    pthread_mutex_lock(&c->lock);
    bool first = !c->notes;
    *c->notes_end = n;
    c->notes_end = &n->next;
    pthread_mutex_unlock(&c->lock);
    if (first)
        ev_wake_send(c->to_main);
}

void core_post(struct infer_core *c, struct infer_job *j, enum infer_note_kind kind, uint32_t a,
               uint32_t b, const int32_t *ids, uint32_t n_ids, struct str name, struct str text)
{
    size_t bytes = n_ids * sizeof *ids + name.n + text.n;
    struct infer_note *n = mem_alloc(sizeof *n + bytes);
    if (!n) {
        /* Without memory for a message the generation cannot be told truthfully. */
        atomic_store(&j->cancel, true);
        return;
    }
    memset(n, 0, sizeof *n);
    n->kind = kind;
    n->job = j;
    n->a = a;
    n->b = b;
    n->n_ids = n_ids;
    n->n_name = (uint32_t)name.n;
    n->n_text = (uint32_t)text.n;
    char *at = (char *)n->ids;
    if (n_ids)
        memcpy(at, ids, n_ids * sizeof *ids);
    at += n_ids * sizeof *ids;
    if (name.n)
        memcpy(at, name.p, name.n);
    if (text.n)
        memcpy(at + name.n, text.p, text.n);
    push(c, n);
}

void core_finish(struct infer_core *c, struct infer_job *j, enum infer_end end,
                 const char *error, bool retryable)
{
    struct infer_note *n = NULL;
    while (!(n = mem_zalloc(sizeof *n)))
        nanosleep(&(struct timespec){0, 10000000}, NULL); /* a job must not end in silence */
    n->kind = NOTE_DONE;
    n->job = j;
    n->result = j->result;
    n->result.end = end;
    n->result.retryable = retryable;
    snprintf(n->error, sizeof n->error, "%s", error ? error : "");
    n->result.error = n->error;
    push(c, n);
}

void core_load(struct infer_core *c, const struct infer_load *l)
{
    pthread_mutex_lock(&c->lock);
    c->load = *l;
    pthread_mutex_unlock(&c->lock);
}

static void *thread_main(void *arg)
{
    struct infer_core *c = arg;
    if (c->model)
        infer_sched_run(c);
    else
        infer_remote_run(c);
    return NULL;
}

struct infer_grammar *infer_grammar_new(const struct str *tools, uint32_t n)
{
    struct err err;
    struct infer_grammar *g = n ? mem_zalloc(sizeof *g) : NULL;
    if (g && grammar_new(&g->g, tools, n, &err) < 0) {
        LOGW("infer", "calls are not held to their schemas error=\"%s\"", err.text);
        mem_free(g);
        g = NULL;
    }
    if (g)
        atomic_store(&g->refs, 1);
    return g;
}

void infer_grammar_unref(struct infer_grammar *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1)
        return;
    grammar_free(g->g);
    mem_free(g);
}

unsigned infer_grammar_types(const struct infer_grammar *g, struct str tool, struct str key)
{
    return g ? grammar_types(g->g, tool, key) : 0;
}

/* --- the main thread -------------------------------------------------------------------- */

static void job_free(struct infer_job *j)
{
    tokens_done(&j->prompt);
    infer_grammar_unref(j->grammar);
    mem_free(j->body);
    mem_free(j);
}

static void deliver(struct infer *inf, struct infer_note *n)
{
    struct infer_job *j = n->job;
    const struct infer_cbs *cb = &j->cbs;
    struct str name = str_of((char *)(n->ids + n->n_ids), n->n_name);
    struct str text = str_of(name.p + name.n, n->n_text);
    if (n->kind == NOTE_DONE) {
        inf->n_jobs--;
        j->done = true;
        if (!j->abandoned && cb->done)
            cb->done(cb->arg, &n->result);
        job_free(j);
        return;
    }
    if (j->abandoned)
        return;
    if (n->kind == NOTE_BEGIN && cb->begin)
        cb->begin(cb->arg, n->a, n->b);
    else if (n->kind == NOTE_PREFILL && cb->prefill)
        cb->prefill(cb->arg, n->a, n->b);
    else if (n->kind == NOTE_TOKENS && cb->tokens)
        cb->tokens(cb->arg, n->ids, n->n_ids);
    else if (n->kind == NOTE_THINKING && cb->thinking)
        cb->thinking(cb->arg, text);
    else if (n->kind == NOTE_TEXT && cb->text)
        cb->text(cb->arg, text);
    else if (n->kind == NOTE_CALL && cb->call)
        cb->call(cb->arg, n->a, name, text);
}

static void on_wake(void *arg)
{
    struct infer *inf = arg;
    struct infer_core *c = &inf->core;
    int state = atomic_load(&c->state);
    if (state != inf->seen_state) {
        inf->seen_state = state;
        if (inf->on_state)
            inf->on_state(inf->arg);
    }
    pthread_mutex_lock(&c->lock);
    struct infer_note *n = c->notes;
    c->notes = NULL;
    c->notes_end = &c->notes;
    pthread_mutex_unlock(&c->lock);
    while (n) {
        struct infer_note *next = n->next;
        deliver(inf, n);
        mem_free(n);
        n = next;
    }
}

static int parse_spec(struct infer_core *c, const char *spec, struct err *err)
{
    static const struct infer_model *const models[] = {&infer_native, &infer_script};
    struct str rest = str_c(spec), kind = {0};
    str_split(&rest, ':', &kind);
    if (!rest.n)
        return err_set(err, ERR_PARSE,
                       "engine '%s' must be native:PATH, script:FILE or remote:URL", spec);
    c->where = mem_strdup(rest);
    if (!c->where)
        return err_nomem(err);
    for (unsigned i = 0; i < ARRAY_LEN(models); i++)
        if (str_is(kind, models[i]->kind)) {
            c->model = models[i];
            return 0;
        }
    if (!str_is(kind, "remote"))
        return err_set(err, ERR_PARSE,
                       "engine kind '%.*s' is none of native, script, remote", STR_ARG(kind));
    return infer_remote_check(c->where, err);
}

static char *own(const char *s)
{
    return s ? mem_strdup(str_c(s)) : NULL;
}

int infer_open(struct infer **out, struct ev *ev, const struct infer_opts *o,
               void (*on_state)(void *arg), void *arg, struct err *err)
{
    struct infer *inf = mem_zalloc(sizeof *inf);
    if (!inf)
        return err_nomem(err);
    struct infer_core *c = &inf->core;
    c->o = *o;
    c->o.spec = NULL;
    c->o.kv_dir = own(o->kv_dir);
    c->o.model = own(o->model);
    c->o.key_file = own(o->key_file);
    c->jobs_end = &c->jobs;
    c->notes_end = &c->notes;
    inf->on_state = on_state;
    inf->arg = arg;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = parse_spec(c, o->spec, err);
    if (rc == 0)
        rc = ev_wake_new(&c->to_main, ev, on_wake, inf, err);
    if (rc == 0 && pthread_create(&inf->thread, NULL, thread_main, c) != 0)
        rc = err_set(err, ERR_SYS, "the engine's thread cannot be started");
    if (rc < 0) {
        infer_close(inf);
        return rc;
    }
    inf->started = true;
    *out = inf;
    return 0;
}

void infer_close(struct infer *inf)
{
    if (!inf)
        return;
    struct infer_core *c = &inf->core;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    if (inf->started)
        pthread_join(inf->thread, NULL);
    inf->on_state = NULL;
    on_wake(inf);
    if (c->self)
        c->model->close(c->self); /* callbacks above still asked for token bytes */
    ev_wake_free(c->to_main);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake);
    mem_free((void *)(uintptr_t)c->o.kv_dir);
    mem_free((void *)(uintptr_t)c->o.model);
    mem_free((void *)(uintptr_t)c->o.key_file);
    mem_free(c->where);
    mem_free(c->forget);
    mem_free(inf);
}

enum infer_state infer_state(const struct infer *inf)
{
    return (enum infer_state)atomic_load(&inf->core.state);
}

const char *infer_problem(const struct infer *inf)
{
    return infer_state(inf) == INFER_DEAD ? inf->core.problem : "";
}

double infer_progress(const struct infer *inf)
{
    return atomic_load(&inf->core.progress);
}

const struct infer_info *infer_info(const struct infer *inf)
{
    return &inf->core.info;
}

int infer_tokenize(struct infer *inf, struct str text, bool special, struct tokens *out,
                   struct err *err)
{
    struct infer_core *c = &inf->core;
    int rc = c->model->tokenize(c->self, text, special, out, err);
    return rc == 0 && out->failed ? err_nomem(err) : rc;
}

struct str infer_token_bytes(struct infer *inf, int32_t id)
{
    return inf->core.model->bytes(inf->core.self, id);
}

bool infer_token_special(struct infer *inf, int32_t id)
{
    return inf->core.model->special(inf->core.self, id);
}

int infer_start(struct infer_job **out, struct infer *inf, const struct infer_request *r,
                const struct infer_cbs *cbs, struct err *err)
{
    struct infer_core *c = &inf->core;
    if (c->stop) /* infer_close() hands out what is done, and a callback asks for more */
        return err_set(err, ERR_STATE, "the engine is closing");
    if (infer_state(inf) != INFER_READY)
        return err_set(err, ERR_STATE, "%s",
                       infer_state(inf) == INFER_DEAD ? c->problem : "the engine is loading");
    if (inf->n_jobs >= LIMIT_GENERATIONS)
        return err_set(err, ERR_LIMIT, "%u generations wait already", inf->n_jobs);
    struct infer_job *j = mem_zalloc(sizeof *j);
    if (!j)
        return err_nomem(err);
    j->inf = inf;
    j->cbs = *cbs;
    snprintf(j->session, sizeof j->session, "%s", r->session);
    tokens_add(&j->prompt, r->ids, r->n_ids);
    j->sampling = r->sampling;
    j->max_tokens = r->max_tokens;
    j->think_max = r->think_max;
    j->repeat_max = r->repeat_max;
    j->idle = r->idle;
    j->save = r->save;
    j->peek = r->peek;
    j->thinking = r->thinking;
    j->grammar = r->grammar;
    if (j->grammar)
        atomic_fetch_add(&j->grammar->refs, 1);
    j->queued_ns = io_mono_ns();
    int rc = j->prompt.failed ? err_nomem(err) : 0;
    if (rc == 0 && !c->model)
        rc = infer_remote_body(&c->o, r, &j->body, err);
    if (rc < 0) {
        job_free(j);
        return rc;
    }
    inf->n_jobs++;
    pthread_mutex_lock(&c->lock);
    *c->jobs_end = j;
    c->jobs_end = &j->next;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    *out = j;
    return 0;
}

void infer_cancel(struct infer_job *job)
{
    struct infer_core *c = &job->inf->core;
    atomic_store(&job->cancel, true);
    pthread_mutex_lock(&c->lock);
    c->poked = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

void infer_abandon(struct infer_job *job)
{
    job->abandoned = true;
    infer_cancel(job);
}

void infer_forget(struct infer *inf, const char *session)
{
    struct infer_core *c = &inf->core;
    pthread_mutex_lock(&c->lock);
    if (c->n_forget == c->cap_forget) {
        uint32_t cap = c->cap_forget ? 2 * c->cap_forget : 16;
        void *p = mem_resize(c->forget, cap, sizeof *c->forget);
        if (p) {
            c->forget = p;
            c->cap_forget = cap;
        }
    }
    if (c->n_forget < c->cap_forget)
        snprintf(c->forget[c->n_forget++], ID_TEXT, "%s", session);
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

void infer_load(struct infer *inf, struct infer_load *out)
{
    pthread_mutex_lock(&inf->core.lock);
    *out = inf->core.load;
    pthread_mutex_unlock(&inf->core.lock);
}
