/* main.c - trains, checks, evaluates and exports the shipped model.
 *
 *   trainer train DATA RUN SCHEDULE [seed]   resumes RUN/ckpt; RUN/mean and the RUN/mean.STEP that
 *                                            the schedule keeps are for export; stops after its
 *                                            last step
 *   trainer eval DATA CKPT SPLIT N [sparse]  losses and exact matches per family, teacher-forced
 *   trainer logits CKPT VOCAB TOPK id...     logits of the last position in plain f32, and MTP's
 *   trainer export CKPT VOCAB TOPK DIR       safetensors and config.json
 *   trainer gradcheck                        analytic against numeric gradients
 *   trainer bench                            tokens per second on random data
 *
 * A schedule is a text file of lines "STEP KEY VALUE", read again when it changes. A key keeps its
 * value until the next line that names it; "lr" is interpolated between its lines.
 */
#include "data.h"
#include "export.h"
#include "opt.h"
#include "simd.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ------------------------------------------------------------------ schedule */

static const char *const keys[] = {"lr",    "lr_muon", "lr_adam",     "wd",           "rows",
                                   "synth", "drill",   "sparse",      "topk",         "index_every",
                                   "index_period",     "mtp_period",  "bias",         "threads",
                                   "save",  "micro", "synth_level", "all", "strip", "synth_vocab", "reopen", "keep4", "boost3",
                                   "boost2", "boost1", "keep"};
enum { K_LR, K_MUON, K_ADAM, K_WD, K_ROWS, K_SYNTH, K_DRILL, K_SPARSE, K_TOPK, K_IEVERY, K_IPERIOD,
       K_MTP, K_BIAS, K_THREADS, K_SAVE, K_MICRO, K_LEVEL, K_ALL, K_STRIP, K_SVOCAB, K_REOPEN, K_KEEP4, K_BOOST3, K_BOOST2, K_BOOST1, K_KEEP, K_N };

struct plan {
    struct { long step; int key; double v; } e[512];
    int n;
    time_t mtime;
};

static int plan_read(struct plan *p, const char *path)
{
    struct stat st;
    if (stat(path, &st) || st.st_mtime == p->mtime)
        return p->n ? 0 : -1;
    FILE *f = fopen(path, "r");
    char line[256], key[64];
    long step;
    double v;
    if (!f)
        return -1;
    p->n = 0;
    p->mtime = st.st_mtime;
    while (fgets(line, sizeof line, f) && p->n < 512) {
        if (line[0] == '#' || sscanf(line, "%ld %63s %lf", &step, key, &v) != 3)
            continue;
        for (int k = 0; k < K_N; k++)
            if (!strcmp(keys[k], key)) {
                p->e[p->n].step = step;
                p->e[p->n].key = k;
                p->e[p->n++].v = v;
            }
    }
    fclose(f);
    return p->n ? 0 : -1;
}

static double plan_get(const struct plan *p, int key, long step)
{
    double v = 0, nv = 0;
    long at = -1, nat = -1;
    for (int i = 0; i < p->n; i++) {
        if (p->e[i].key != key)
            continue;
        if (p->e[i].step <= step && p->e[i].step >= at)
            at = p->e[i].step, v = p->e[i].v;
        if (p->e[i].step > step && (nat < 0 || p->e[i].step < nat))
            nat = p->e[i].step, nv = p->e[i].v;
    }
    if (key == K_LR && nat > 0 && at >= 0)
        v += (nv - v) * (double)(step - at) / (double)(nat - at);
    return v;
}

static long plan_end(const struct plan *p)
{
    long e = 0;
    for (int i = 0; i < p->n; i++)
        if (p->e[i].step > e)
            e = p->e[i].step;
    return e;
}

/* does the schedule say that this step ends a round? */
static int plan_keeps(const struct plan *p, long step)
{
    int keep = 0;
    for (int i = 0; i < p->n; i++)
        if (p->e[i].key == K_KEEP && p->e[i].step == step)
            keep = p->e[i].v > 0;
    return keep;
}

/* ------------------------------------------------------------------ training */

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

enum { NW = 2 }; /* gradient accumulators: fixed, so that sums do not depend on threads */

struct run {
    struct model m;
    struct opt o;
    float *mean; /* running mean of the weights over some 50 steps: what is exported */
    struct worker w[NW];
    struct split drill, train;
    struct plan plan;
    struct opt_step os;
    struct hyper hp;
    uint64_t seed;
    long step;
    int rows, micro, phase, nextp, level, svocab, reopen;
    struct source { double loss; long n, ok; } src[NW][3]; /* synthetic, drill, train */
    double synth, pdrill, all, strip;
    pthread_barrier_t go, done;
};

static int fill(struct run *r, struct worker *w, int micro)
{
    int src = 2;
    w->rng = r->seed ^ ((uint64_t)r->step * 1024 + (uint64_t)micro) * 0xd1342543de82ef95ull;
    double u = (double)rng_below(&w->rng, 1000000) / 1e6;
    int strip = (double)rng_below(&w->rng, 1000000) / 1e6 < r->strip;
    if (u < r->synth || r->train.n <= 0)
        batch_drill(w->b, r->svocab, r->rows, r->level, &w->rng), src = 0;
    else if (u < r->synth + r->pdrill && r->drill.n > 0)
        batch_fill(w->b, &r->drill, r->rows, strip, r->reopen, &w->rng, NULL), src = 1;
    else
        batch_fill(w->b, &r->train, r->rows, strip, r->reopen, &w->rng, NULL);
    /* early on, all of a text is worth predicting, not only the assistant's part */
    if (src && (double)rng_below(&w->rng, 1000000) / 1e6 < r->all)
        for (int t = w->b->prefix; t < w->b->T; t++)
            w->b->loss[t] = 1;
    return src;
}

static void run_micro(struct run *r, int i)
{
    struct worker *w = &r->w[i];
    for (int k = i; k < r->micro; k += NW) {
        w->hp = r->hp;
        int src = fill(r, w, k);
        double loss = w->loss;
        long ok = w->nok;
        int n = 0;
        for (int t = 0; t < w->b->T; t++)
            n += w->b->loss[t];
        /* rows of this micro-batch stand for the step's: equal weight per micro-batch */
        w->inv = 1.0f / ((float)(n ? n : 1) * (float)r->micro);
        worker_run(w, 1);
        struct source *s = &r->src[i][src];
        s->loss += w->loss - loss, s->ok += w->nok - ok, s->n += n;
    }
}

static void run_opt(struct run *r)
{
    int i;
    while ((i = __atomic_fetch_add(&r->nextp, 1, __ATOMIC_RELAXED)) < r->m.np)
        opt_param(&r->o, &r->m, i, r->w[0].g, r->micro > 1 ? r->w[1].g : NULL, &r->os);
}

static void *helper(void *arg)
{
    struct run *r = arg;
    for (;;) {
        pthread_barrier_wait(&r->go);
        if (r->phase == 2)
            return NULL;
        if (r->phase == 0)
            run_micro(r, 1);
        else
            run_opt(r);
        pthread_barrier_wait(&r->done);
    }
}

static void phase(struct run *r, int p, int threads)
{
    r->phase = p;
    if (threads > 1) {
        pthread_barrier_wait(&r->go);
        if (p == 0)
            run_micro(r, 0);
        else
            run_opt(r);
        pthread_barrier_wait(&r->done);
    } else if (p == 0) {
        run_micro(r, 0);
        run_micro(r, 1);
    } else {
        run_opt(r);
    }
}

static void configure(struct run *r)
{
    const struct plan *p = &r->plan;
    long s = r->step;
    double lr = plan_get(p, K_LR, s);
    int ip = (int)plan_get(p, K_IPERIOD, s), mp = (int)plan_get(p, K_MTP, s);
    r->hp.topk = (int)plan_get(p, K_TOPK, s);
    r->hp.sparse = (int)plan_get(p, K_SPARSE, s);
    r->hp.index_every = ip && s % ip == 0 ? (int)plan_get(p, K_IEVERY, s) : 0;
    r->hp.mtp = mp && s % mp == 0;
    r->rows = (int)plan_get(p, K_ROWS, s);
    r->micro = (int)plan_get(p, K_MICRO, s);
    if (r->micro < 1)
        r->micro = NW;
    r->synth = plan_get(p, K_SYNTH, s);
    r->level = (int)plan_get(p, K_LEVEL, s);
    r->pdrill = plan_get(p, K_DRILL, s);
    r->reopen = (int)plan_get(p, K_REOPEN, s);
    double keep4 = plan_get(p, K_KEEP4, s);
    r->train.keep4 = keep4 > 0 ? keep4 : 1;
    r->train.boost[1] = plan_get(p, K_BOOST1, s);
    r->train.boost[2] = plan_get(p, K_BOOST2, s);
    r->train.boost[3] = plan_get(p, K_BOOST3, s);
    r->strip = plan_get(p, K_STRIP, s);
    r->svocab = (int)plan_get(p, K_SVOCAB, s);
    if (r->svocab < 32 || r->svocab > r->m.vocab)
        r->svocab = r->m.vocab;
    r->all = plan_get(p, K_ALL, s);
    r->os.lr_muon = (float)(lr * plan_get(p, K_MUON, s));
    r->os.lr_adam = (float)(lr * plan_get(p, K_ADAM, s));
    r->os.wd = (float)plan_get(p, K_WD, s);
    r->os.bias_rate = (float)(plan_get(p, K_BIAS, s) * (lr < 1 ? lr : 1));
    r->os.t = s + 1;
    r->os.mtp = r->hp.mtp;
    r->os.index = r->hp.index_every > 0;
}

static void balance(struct run *r)
{
    for (int l = ND; l <= NL; l++) {
        long load[E];
        if (l == NL && !r->hp.mtp)
            continue;
        for (int e = 0; e < E; e++)
            load[e] = r->w[0].load[l][e] + r->w[1].load[l][e];
        opt_bias(&r->m, l, load, r->os.bias_rate);
    }
    for (int i = 0; i < NW; i++)
        memset(r->w[i].load, 0, sizeof r->w[i].load);
}

struct stat_sum { double loss, mtp, idx, rec; long n, nm, ni, nr, ok, okm; };

static void take(struct stat_sum *s, struct worker *w)
{
    s->loss += w->loss, s->mtp += w->mtp_loss, s->idx += w->index_loss, s->rec += w->recall;
    s->n += w->ntok, s->nm += w->nmtp, s->ni += w->nindex, s->nr += w->nrecall;
    s->ok += w->nok, s->okm += w->nmtpok;
    w->loss = w->mtp_loss = w->index_loss = w->recall = 0;
    w->ntok = w->nmtp = w->nindex = w->nrecall = w->nok = w->nmtpok = 0;
}

/* left: seconds to the last step at the speed of the last twenty */
static void report(struct run *r, struct stat_sum *s, double rate, double opt_share, double left)
{
#define PER(a, n) ((n) ? (double)(a) / (double)(n) : 0.0)
    printf("step %ld", r->step);
    for (int k = 0; k < 3; k++) {
        struct source *a = &r->src[0][k], *b = &r->src[1][k];
        long n = a->n + b->n;
        if (n)
            printf(" %s %.4f acc %.4f |", (const char *[]){"synth", "drill", "train"}[k],
                   PER(a->loss + b->loss, n), PER(a->ok + b->ok, n));
    }
    memset(r->src, 0, sizeof r->src);
    printf(" idx %.3f rec %.3f | mtp %.3f acc %.3f | rows %.0f/s "
           "opt %.0f%% lr %.4f | %.0f %%, %d:%02d left\n",
           PER(s->idx, s->ni), PER(s->rec, s->nr),
           PER(s->mtp, s->nm), PER(s->okm, s->nm), rate, 100 * opt_share, (double)r->os.lr_muon,
           100.0 * (double)r->step / (double)plan_end(&r->plan), (int)(left / 3600),
           (int)(left / 60) % 60);
    fflush(stdout);
    memset(s, 0, sizeof *s);
}

static int vocab_of(const char *dir)
{
    char path[512], buf[512] = "";
    snprintf(path, sizeof path, "%s/meta.json", dir);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    size_t n = fread(buf, 1, sizeof buf - 1, f);
    fclose(f);
    buf[n] = 0;
    char *p = strstr(buf, "\"vocab\":");
    int v = p ? atoi(p + 8) : -1;
    return v > 0 ? (v + 31) / 32 * 32 : -1;
}

static void reload(struct run *r, const char *dir)
{
    struct split d, t;
    struct stat st;
    char path[512];
    snprintf(path, sizeof path, "%s/train.off", dir);
    if (stat(path, &st) == 0 && (size_t)st.st_size == r->train.bytes)
        return;
    if (!split_open(&t, dir, "train")) {
        split_close(&r->train);
        r->train = t;
    }
    if (!split_open(&d, dir, "drill")) {
        split_close(&r->drill);
        r->drill = d;
    }
    printf("data: %d train, %d drill, prefix %d\n", r->train.n, r->drill.n, r->train.prefix);
}

static int cmd_train(const char *data, const char *dir, const char *sched, uint64_t seed)
{
    static struct run r;
    char ckpt[512], mean[512];
    int vocab = vocab_of(data);
    if (vocab < 0 || plan_read(&r.plan, sched)) {
        fprintf(stderr, "need %s/meta.json with \"vocab\" and a schedule %s\n", data, sched);
        return 1;
    }
    mkdir(dir, 0777);
    snprintf(ckpt, sizeof ckpt, "%s/ckpt", dir);
    snprintf(mean, sizeof mean, "%s/mean", dir);
    model_init(&r.m, vocab, seed);
    r.mean = falloc(r.m.n);
    float *fresh = r.m.w;
    r.m.w = r.mean;
    long at = ckpt_load(mean, &r.m, NULL);
    r.m.w = fresh;
    opt_init(&r.o, &r.m);
    r.seed = seed * 0x9e3779b97f4a7c15ull;
    r.step = ckpt_load(ckpt, &r.m, &r.o);
    printf("%s; %zu parameters, vocabulary %d, %s %ld\n", SIMD_NAME, r.m.n, vocab,
           r.step < 0 ? "new run" : "resumed at", r.step < 0 ? 0 : r.step);
    if (r.step < 0 || at != r.step)
        memcpy(r.mean, r.m.w, r.m.n * sizeof(float));
    if (r.step < 0)
        r.step = 0;
    reload(&r, data);
    for (int i = 0; i < NW; i++)
        worker_init(&r.w[i], &r.m);
    pthread_barrier_init(&r.go, NULL, 2);
    pthread_barrier_init(&r.done, NULL, 2);
    pthread_t th;
    pthread_create(&th, NULL, helper, &r);
    struct stat_sum sum = {0};
    double t0 = now(), saved = now(), opt_time = 0, rows = 0;
    signal(SIGINT, on_signal); /* save, then stop */
    signal(SIGTERM, on_signal);
    while (r.step < plan_end(&r.plan) && !stop) {
        configure(&r);
        int threads = (int)plan_get(&r.plan, K_THREADS, r.step);
        phase(&r, 0, threads);
        double t1 = now();
        r.nextp = 0;
        phase(&r, 1, threads);
        balance(&r);
        for (size_t i = 0; i < r.m.n; i++)
            r.mean[i] += 0.02f * (r.m.w[i] - r.mean[i]);
        opt_time += now() - t1;
        for (int i = 0; i < NW; i++) {
            rows += i < r.micro ? r.w[i].b->T : 0;
            take(&sum, &r.w[i]);
        }
        r.step++;
        if (r.step % 20 == 0) {
            double t = now() - t0;
            report(&r, &sum, rows / t, opt_time / t, t / 20 * (double)(plan_end(&r.plan) - r.step));
            t0 = now(), opt_time = rows = 0;
            plan_read(&r.plan, sched);
            if (r.step % 200 == 0)
                reload(&r, data);
        }
        if (plan_keeps(&r.plan, r.step)) { /* the mean of these is what ships */
            char kept[560];
            snprintf(kept, sizeof kept, "%s.%ld", mean, r.step);
            ckpt_save_mean(kept, &r.m, r.mean, r.step);
        }
        double every = plan_get(&r.plan, K_SAVE, r.step);
        if (now() - saved > (every > 0 ? every : 180)) {
            ckpt_save(ckpt, &r.m, &r.o, r.step);
            ckpt_save_mean(mean, &r.m, r.mean, r.step);
            saved = now();
        }
    }
    ckpt_save(ckpt, &r.m, &r.o, r.step);
    ckpt_save_mean(mean, &r.m, r.mean, r.step);
    r.phase = 2;
    pthread_barrier_wait(&r.go);
    pthread_join(th, NULL);
    return 0;
}

/* ------------------------------------------------------------------ evaluation */

struct score { long seq, seq_ok, span, span_ok, tok, tok_ok; double loss; };

static void score_batch(struct worker *w, struct score *sc)
{
    struct batch *b = w->b;
    for (int g = b->prefix ? 1 : 0; g < b->nseg; g++) {
        struct score *s = &sc[b->fam[g] & 7];
        int all = 1, in = 0, span = 1;
        s->seq++;
        for (int t = b->seg[g]; t <= b->seg[g + 1]; t++) {
            int on = t < b->seg[g + 1] && b->loss[t];
            if (on && !in)
                span = 1;
            if (on) {
                s->tok++, s->tok_ok += w->rowok[t], s->loss += (double)w->rowloss[t];
                span &= w->rowok[t];
                all &= w->rowok[t];
            }
            if (!on && in)
                s->span++, s->span_ok += span;
            in = on;
        }
        s->seq_ok += all;
    }
}

static int cmd_eval(const char *data, const char *ckpt, const char *split, int n, int topk)
{
    static struct model m;
    static struct worker w;
    struct split s;
    struct score sc[8] = {{0}};
    int at = 0, vocab = vocab_of(data);
    if (vocab < 0 || split_open(&s, data, split))
        return 1;
    model_init(&m, vocab, 1);
    long step = ckpt_load(ckpt, &m, NULL);
    if (step < 0)
        return 1;
    worker_init(&w, &m);
    w.hp = (struct hyper){.vocab = vocab, .topk = topk, .sparse = topk > 0, .mtp = 1};
    while (at < s.n && at < n) {
        batch_fill(w.b, &s, 4096, 0, 0, &w.rng, &at);
        if (w.b->nseg == 0)
            break;
        worker_run(&w, 0);
        score_batch(&w, sc);
    }
    printf("%s of step %ld, %d sequences, %s, mtp accuracy %.3f\n", split, step, at,
           topk ? "sparse" : "dense", w.nmtp ? (double)w.nmtpok / (double)w.nmtp : 0.0);
    for (int f = 0; f < 8; f++)
        if (sc[f].seq)
            printf("family %d: %ld sequences %.3f exact, %ld spans %.3f exact, token %.4f, loss "
                   "%.4f\n",
                   f, sc[f].seq, PER(sc[f].seq_ok, sc[f].seq), sc[f].span,
                   PER(sc[f].span_ok, sc[f].span), PER(sc[f].tok_ok, sc[f].tok),
                   PER(sc[f].loss, sc[f].tok));
    return 0;
}

static int cmd_logits(const char *ckpt, int vocab, int topk, int n, char **ids)
{
    static struct model m;
    static struct worker w;
    model_init(&m, vocab, 1);
    if (strcmp(ckpt, "-") && ckpt_load(ckpt, &m, NULL) < 0)
        return 1;
    worker_init(&w, &m);
    gemm_exact = 1;
    w.hp = (struct hyper){.vocab = vocab, .topk = topk, .sparse = topk > 0, .mtp = 1};
    w.b->T = n, w.b->nseg = 1, w.b->seg[1] = n;
    for (int i = 0; i < n; i++) {
        w.b->tok[i] = (uint16_t)atoi(ids[i]);
        w.b->nxt[i] = (uint16_t)atoi(ids[i + 1 < n ? i + 1 : i]);
        w.b->pos[i] = i;
    }
    worker_run(&w, 0);
    for (int k = 0; k < 2; k++) { /* main at n - 1; MTP at n - 2 */
        int row = k ? n - 2 : n - 1;
        if (row < 0)
            break;
        gemm_nt(1, vocab, D, (k ? w.mh : w.hfin) + (size_t)row * D, D, m.w + m.head, D, w.logits,
                vocab, 0);
        printf("%s", k ? "mtp" : "main");
        for (int v = 0; v < vocab; v++)
            printf(" %.6f", (double)w.logits[v]);
        printf("\n");
    }
    return 0;
}

static int cmd_export(const char *ckpt, int vocab, int topk, const char *dir)
{
    static struct model m;
    model_init(&m, vocab, 1);
    if (strcmp(ckpt, "-") && ckpt_load(ckpt, &m, NULL) < 0)
        return 1;
    mkdir(dir, 0777);
    return export_dir(dir, &m, topk) ? 1 : 0;
}

/* ------------------------------------------------------------------ checks */

/* inner layers are copies of layer 1, most experts of expert 0 */
static int skip_in_check(const char *name)
{
    int l = -1, e = -1;
    sscanf(name, "model.layers.%d", &l);
    const char *x = strstr(name, "experts.");
    if (x)
        sscanf(x, "experts.%d", &e);
    return (l > 1 && l < NL) || e > 0;
}

static double loss_now(struct worker *w)
{
    w->loss = w->mtp_loss = 0;
    w->rng = 5;
    worker_run(w, 0);
    return w->loss + w->mtp_loss;
}

static double index_now(struct worker *w)
{
    w->index_loss = 0;
    w->rng = 5;
    worker_run(w, 1);
    return w->index_loss;
}

/* the indexer's own loss; experts, selections and targets stand still */
static int check_indexer(struct model *m, struct worker *w)
{
    int bad = 0;
    float *g = falloc(m->n);
    w->hp.index_every = 1;
    memset(w->g, 0, m->n * 4);
    index_now(w);
    memcpy(g, w->g, m->n * 4);
    for (int i = 0; i < m->np; i++) {
        struct param *p = &m->p[i];
        size_t n = (size_t)(p->rows ? p->rows : 1) * (size_t)p->cols;
        double gg = 0, lo[2];
        if (!strstr(p->name, "indexer") || skip_in_check(p->name))
            continue;
        for (size_t j = 0; j < n; j++)
            gg += (double)g[p->off + j] * (double)g[p->off + j];
        double eps = 2e-3 / sqrt(gg + 1e-30);
        float *save = malloc(n * 4);
        memcpy(save, m->w + p->off, n * 4);
        for (int k = 0; k < 2; k++) {
            for (size_t j = 0; j < n; j++)
                m->w[p->off + j] = save[j] + (float)((k ? eps : -eps) * (double)g[p->off + j]);
            lo[k] = index_now(w);
        }
        memcpy(m->w + p->off, save, n * 4);
        free(save);
        double num = (lo[1] - lo[0]) / (2 * eps), err = fabs(num - gg) / gg;
        if (!(err < 0.03)) {
            printf("BAD %s analytic %.6g numeric %.6g\n", p->name, gg, num);
            bad++;
        }
    }
    return bad;
}

static int cmd_gradcheck(void)
{
    static struct model m;
    static struct worker w;
    int vocab = 64, bad = 0;
    uint64_t rng = 7;
    model_init(&m, vocab, 3);
    for (int i = 0; i < m.np; i++) { /* norms away from one, biases away from zero */
        struct param *p = &m.p[i];
        for (int j = 0; !p->rows && j < p->cols; j++)
            m.w[p->off + (size_t)j] += 0.2f * ((float)rng_below(&rng, 1000) / 500.0f - 1);
    }
    worker_init(&w, &m);
    gemm_exact = 1;
    w.hp = (struct hyper){.vocab = vocab, .topk = 24, .sparse = 1, .mtp = 1};
    w.inv = 1.0f;
    struct batch *b = w.b;
    int len[3] = {20, 31, 26};
    b->prefix = len[0];
    for (int g = 0; g < 3; g++) {
        b->seg[b->nseg++] = b->T;
        for (int i = 0; i < len[g]; i++, b->T++) {
            b->tok[b->T] = (uint16_t)rng_below(&rng, 64);
            b->pos[b->T] = i + (g ? len[0] : 0);
            b->loss[b->T] = g > 0 && i + 1 < len[g];
        }
    }
    b->seg[b->nseg] = b->T;
    for (int i = 0; i < b->T; i++)
        b->nxt[i] = i + 1 < b->T ? b->tok[i + 1] : 0;
    worker_run(&w, 1);
    w.hp.frozen = 1;
    for (int i = 0; i < m.np; i++) {
        struct param *p = &m.p[i];
        size_t n = (size_t)(p->rows ? p->rows : 1) * (size_t)p->cols;
        if (p->kind == P_BIAS || strstr(p->name, "indexer") || skip_in_check(p->name))
            continue;
        /* along the gradient itself: d loss = |g|^2 eps, the check with the best signal */
        double gg = 0, mtp = p->off >= m.l[NL].enorm && p->off < m.norm;
        for (size_t j = 0; j < n; j++)
            gg += (double)w.g[p->off + j] * (double)w.g[p->off + j];
        if (gg == 0) {
            if (!strstr(p->name, "experts"))
                printf("zero %s\n", p->name);
            continue;
        }
        double eps = 2e-3 / sqrt(gg), lo[2];
        float *save = malloc(n * 4);
        memcpy(save, m.w + p->off, n * 4);
        for (int k = 0; k < 2; k++) {
            for (size_t j = 0; j < n; j++)
                m.w[p->off + j] = save[j] + (float)((k ? eps : -eps) * (double)w.g[p->off + j]);
            double l = loss_now(&w);
            lo[k] = mtp ? w.mtp_loss : w.loss;
            (void)l;
        }
        memcpy(m.w + p->off, save, n * 4);
        free(save);
        double num = (lo[1] - lo[0]) / (2 * eps), err = fabs(num - gg) / gg;
        if (err > 0.02) {
            printf("BAD %s analytic %.6g numeric %.6g\n", p->name, gg, num);
            bad++;
        }
    }
    bad += check_indexer(&m, &w);
    printf("gradcheck: %d bad\n", bad);
    return bad != 0;
}

static int cmd_bench(int T, int seglen, int prefix)
{
    static struct model m;
    static struct worker w;
    model_init(&m, 2560, 1);
    worker_init(&w, &m);
    struct batch *b = w.b;
    uint64_t rng = 1;
    b->prefix = prefix;
    for (int g = 0; b->T < T; g++) {
        int len = g == 0 && prefix ? prefix : seglen;
        if (b->T + len > T)
            break;
        b->seg[b->nseg++] = b->T;
        for (int i = 0; i < len; i++, b->T++) {
            b->tok[b->T] = (uint16_t)rng_below(&rng, 2560);
            b->pos[b->T] = i + (g ? prefix : 0);
            b->loss[b->T] = i % 4 == 0;
        }
    }
    b->seg[b->nseg] = b->T;
    w.inv = 1e-3f;
    for (int mode = 0; mode < 4; mode++) {
        w.hp = (struct hyper){.vocab = 2560, .topk = 256, .sparse = mode >= 2,
                              .index_every = mode == 1 || mode == 3 ? 4 : 0};
        double t0 = now();
        worker_run(&w, 0);
        double t1 = now();
        worker_run(&w, 1);
        double t2 = now();
        printf("%s%s: forward %.0f rows/s, both %.0f rows/s\n", mode >= 2 ? "sparse" : "dense",
               mode & 1 ? " + index" : "", b->T / (t1 - t0), b->T / (t2 - t1));
    }
    struct opt o;
    opt_init(&o, &m);
    struct opt_step s = {0.01f, 0.001f, 0, 0, 1, 0, 1};
    double t0 = now();
    for (int i = 0; i < m.np; i++)
        opt_param(&o, &m, i, w.g, NULL, &s);
    printf("optimizer %.3f s, %zu parameters\n", now() - t0, m.n);
    return 0;
}

int main(int c, char **v)
{
    const char *cmd = c > 1 ? v[1] : "";
    if (!strcmp(cmd, "train") && c >= 5)
        return cmd_train(v[2], v[3], v[4], c > 5 ? strtoull(v[5], NULL, 10) : 1);
    if (!strcmp(cmd, "eval") && c >= 6)
        return cmd_eval(v[2], v[3], v[4], atoi(v[5]), c > 6 ? atoi(v[6]) : 0);
    if (!strcmp(cmd, "logits") && c >= 6)
        return cmd_logits(v[2], atoi(v[3]), atoi(v[4]), c - 5, v + 5);
    if (!strcmp(cmd, "export") && c >= 6)
        return cmd_export(v[2], atoi(v[3]), atoi(v[4]), v[5]);
    if (!strcmp(cmd, "gradcheck"))
        return cmd_gradcheck();
    if (!strcmp(cmd, "bench"))
        return cmd_bench(c > 2 ? atoi(v[2]) : 4096, c > 3 ? atoi(v[3]) : 500,
                         c > 4 ? atoi(v[4]) : 500);
    fprintf(stderr, "usage: trainer train|eval|logits|export|gradcheck|bench ... (see main.c)\n");
    return 2;
}
