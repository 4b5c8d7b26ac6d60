/* model.c - parameter table, initial values, and the pass through all layers and back. */
#include "model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vexp.h"

const float route_scale = 2.0f;

/* Zeroed, page-aligned, and free of cost until touched: rooms are sized for the largest batch. */
float *falloc(size_t n)
{
    void *p = mmap(NULL, n * sizeof(float) + 64, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

static size_t add(struct model *m, enum kind kind, int rows, int cols, const char *fmt, ...)
{
    if (m->np == m->capp) {
        m->capp = m->capp ? m->capp * 2 : 256;
        m->p = realloc(m->p, (size_t)m->capp * sizeof *m->p);
        if (!m->p)
            exit(1);
    }
    struct param *p = &m->p[m->np++];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
    p->kind = kind;
    p->rows = rows;
    p->cols = cols;
    p->off = m->n;
    m->n += (size_t)(rows ? rows : 1) * (size_t)cols; /* all sizes are multiples of 4 */
    return p->off;
}

static void add_layer(struct model *m, int i)
{
    struct layer *l = &m->l[i];
    char s[48];
    snprintf(s, sizeof s, "model.layers.%d.", i);
    l->moe = i >= ND;
    if (i == NL) {
        l->enorm = add(m, P_ADAM, 0, D, "%senorm.weight", s);
        l->hnorm = add(m, P_ADAM, 0, D, "%shnorm.weight", s);
        l->eh = add(m, P_MUON, D, 2 * D, "%seh_proj.weight", s);
        l->shn = add(m, P_ADAM, 0, D, "%sshared_head.norm.weight", s);
    }
    l->ln1 = add(m, P_ADAM, 0, D, "%sinput_layernorm.weight", s);
    l->qa = add(m, P_MUON, RQ, D, "%sself_attn.q_a_proj.weight", s);
    add(m, P_MUON, RKV + DR, D, "%sself_attn.kv_a_proj_with_mqa.weight", s);
    l->qan = add(m, P_ADAM, 0, RQ, "%sself_attn.q_a_layernorm.weight", s);
    l->kvan = add(m, P_ADAM, 0, RKV, "%sself_attn.kv_a_layernorm.weight", s);
    l->qb = add(m, P_MUON, QB, RQ, "%sself_attn.q_b_proj.weight", s);
    l->kvb = add(m, P_MUON, KVB, RKV, "%sself_attn.kv_b_proj.weight", s);
    l->o = add(m, P_MUON, D, OB, "%sself_attn.o_proj.weight", s);
    l->iqb = add(m, P_MUON, HI * DI, RQ, "%sself_attn.indexer.wq_b.weight", s);
    l->ik = add(m, P_MUON, DI, D, "%sself_attn.indexer.wk.weight", s);
    l->iw = add(m, P_ADAM, HI, D, "%sself_attn.indexer.weights_proj.weight", s);
    l->ikn = add(m, P_ADAM, 0, DI, "%sself_attn.indexer.k_norm.weight", s);
    l->ikb = add(m, P_ADAM, 0, DI, "%sself_attn.indexer.k_norm.bias", s);
    l->ln2 = add(m, P_ADAM, 0, D, "%spost_attention_layernorm.weight", s);
    if (!l->moe) {
        l->ff = add(m, P_MUON, FD, D, "%smlp.gate_proj.weight", s);
        add(m, P_MUON, FD, D, "%smlp.up_proj.weight", s);
        l->ffd = add(m, P_MUON, D, FD, "%smlp.down_proj.weight", s);
        return;
    }
    l->gate = add(m, P_ADAM, E, D, "%smlp.gate.weight", s);
    l->bias = add(m, P_BIAS, 0, E, "%smlp.gate.e_score_correction_bias", s);
    for (int e = 0; e < E; e++) {
        l->ex[e] = add(m, P_MUON, FM, D, "%smlp.experts.%d.gate_proj.weight", s, e);
        add(m, P_MUON, FM, D, "%smlp.experts.%d.up_proj.weight", s, e);
        l->exd[e] = add(m, P_MUON, D, FM, "%smlp.experts.%d.down_proj.weight", s, e);
    }
    l->sh = add(m, P_MUON, FM, D, "%smlp.shared_experts.gate_proj.weight", s);
    add(m, P_MUON, FM, D, "%smlp.shared_experts.up_proj.weight", s);
    l->shd = add(m, P_MUON, D, FM, "%smlp.shared_experts.down_proj.weight", s);
}

static float gauss(uint64_t *s)
{
    double u = ((double)(rng_next(s) >> 11) + 1) / 9007199254740993.0;
    double v = (double)(rng_next(s) >> 11) / 9007199254740992.0;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

void model_init(struct model *m, int vocab, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->vocab = vocab;
    m->embed = add(m, P_ADAM, vocab, D, "model.embed_tokens.weight");
    for (int i = 0; i <= NL; i++)
        add_layer(m, i);
    m->norm = add(m, P_ADAM, 0, D, "model.norm.weight");
    m->head = add(m, P_ADAM, vocab, D, "lm_head.weight");
    m->w = falloc(m->n);
    for (int i = 0; i < m->np; i++) {
        struct param *p = &m->p[i];
        float *w = m->w + p->off;
        size_t n = (size_t)(p->rows ? p->rows : 1) * (size_t)p->cols;
        uint64_t s = seed * 1000003u + (uint64_t)i;
        if (!p->rows) {
            float v = strstr(p->name, "bias") ? 0.0f : 1.0f;
            for (size_t j = 0; j < n; j++)
                w[j] = v;
            continue;
        }
        float sd = 1.0f / sqrtf((float)p->cols);
        if (strstr(p->name, "o_proj") || strstr(p->name, "down_proj"))
            sd /= sqrtf(2.0f * NL);
        if (p->off == m->embed)
            sd = 0.5f;
        for (size_t j = 0; j < n; j++)
            w[j] = sd * gauss(&s);
    }
    /* head = embedding at birth: copying a token is then one linear map away */
    for (size_t i = 0; i < (size_t)vocab * D; i++)
        m->w[m->head + i] = m->w[m->embed + i] * 0.06f;
    /* a component common to all tokens: attention by position alone needs something constant */
    uint64_t s = seed * 77 + 5;
    for (int j = 0; j < D; j++) {
        float c = 0.5f * gauss(&s);
        for (int v = 0; v < vocab; v++)
            m->w[m->embed + (size_t)v * D + (size_t)j] += c;
    }
    for (int t = 0; t < CTX; t++)
        for (int i = 0; i < DR / 2; i++) {
            float f = (float)pow(10000.0, -2.0 * i / DR);
            float th = (float)t * f;
            m->rope_cos[t][i] = cosf(th);
            m->rope_sin[t][i] = sinf(th);
        }
}

void worker_init(struct worker *w, const struct model *m)
{
    memset(w, 0, sizeof *w);
    w->m = m;
    w->b = calloc(1, sizeof *w->b);
    w->g = falloc(m->n);
    const size_t T = TMAX;
    for (int i = 0; i <= NL; i++) {
        struct acts *a = &w->l[i];
        int f = i < ND ? FD : FM;
        a->x = falloc(T * D), a->a = falloc(T * D), a->qkva = falloc(T * QKVA);
        a->qr = falloc(T * RQ), a->c = falloc(T * RKV), a->kp = falloc(T * DR);
        a->q = falloc(T * QB), a->kv = falloc(T * KVB), a->o = falloc(T * OB);
        a->x1 = falloc(T * D), a->b = falloc(T * D);
        a->lse = falloc(T * NH), a->delta = falloc(T * NH);
        a->iq = falloc(T * HI * DI), a->ikr = falloc(T * DI), a->ik = falloc(T * DI);
        a->iw = falloc(T * HI), a->rik = falloc(T), a->mik = falloc(T);
        a->sel = (uint16_t *)falloc(T * CTX / 32);
        a->r1 = falloc(T), a->r2 = falloc(T), a->rq = falloc(T), a->rkv = falloc(T);
        a->hs = falloc(T * 2 * (size_t)f), a->gs = falloc(T * (size_t)f);
        if (i < ND)
            continue;
        a->s = falloc(T * E), a->wt = falloc(T * EK), a->ei = (int8_t *)falloc(T * EK);
        a->rows = (int *)falloc(T * EK), a->slot = (int *)falloc(T * EK);
        a->h = falloc(T * EK * 2 * FM), a->g = falloc(T * EK * FM);
    }
    w->hfin = falloc(T * D), w->rfin = falloc(T), w->dx = falloc(T * D), w->da = falloc(T * D);
    w->t1 = falloc(T * EK * 2 * FM), w->t2 = falloc(T * EK * 2 * FM);
    w->t3 = falloc(T * EK * D), w->t4 = falloc(T * EK * D), w->xg = falloc(T * EK * D);
    w->dq = falloc(T * QB), w->dkv = falloc(T * KVB), w->dqkva = falloc(T * QKVA);
    w->dkp = falloc(T * DR);
    w->logits = falloc(512 * (size_t)m->vocab);
    w->mx = falloc(T * 2 * D), w->me = falloc(T * D), w->mh = falloc(T * D);
    w->mr1 = falloc(T), w->mr2 = falloc(T), w->dfin = falloc(T * D);
    w->rowloss = falloc(T), w->rowok = (uint8_t *)falloc(T / 4);
    const size_t C = CTX + 32;
    w->K = falloc(C * DQK), w->V = falloc(C * DV), w->dK = falloc(C * DQK);
    w->dV = falloc(C * DV), w->Kp = falloc(C * DR), w->S = falloc(QBLK * C);
    w->dP = falloc(QBLK * C), w->PB = falloc(QBLK * C), w->IS = falloc(QBLK * C * HI);
    w->ID = falloc(QBLK * C), w->IK = falloc(C * DI), w->dIK = falloc(C * DI);
}

static void block_fwd(struct worker *w, int l, float *out)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    int T = w->b->T;
    rms_fwd(T, D, a->x, D, W + L->ln1, a->a, D, a->r1);
    attn_fwd(w, l);
    gemm_nt(T, D, OB, a->o, OB, W + L->o, OB, a->x1, D, 0);
    for (size_t i = 0; i < (size_t)T * D; i++)
        a->x1[i] += a->x[i];
    rms_fwd(T, D, a->x1, D, W + L->ln2, a->b, D, a->r2);
    memcpy(out, a->x1, (size_t)T * D * sizeof(float));
    ffn_fwd(w, l, out);
}

/* w->dx: gradient of the layer's output in, of its input out */
static void block_bwd(struct worker *w, int l)
{
    struct acts *a = &w->l[l];
    const struct layer *L = &w->m->l[l];
    const float *W = w->m->w;
    int T = w->b->T;
    ffn_bwd(w, l, w->dx, w->da);
    rms_bwd(T, D, a->x1, D, W + L->ln2, a->r2, w->da, D, w->dx, D, 1, w->g + L->ln2);
    gemm_tn(D, OB, T, w->dx, D, a->o, OB, w->g + L->o, OB, 1);
    gemm_nn(T, OB, D, w->dx, D, W + L->o, OB, w->t1, OB, 0);
    attn_bwd(w, l, w->t1); /* leaves d(input_layernorm output) in da */
    rms_bwd(T, D, a->x, D, W + L->ln1, a->r1, w->da, D, w->dx, D, 1, w->g + L->ln1);
}

/* Cross entropy over chosen rows. h: final hidden rows; dh (zeroed by the caller) gets gradients.
 * scale 0: no backward. Counts into *sum, *n, *ok. */
static void head_loss(struct worker *w, const float *h, float *dh, const int *rows,
                      const uint16_t *target, int n, float scale, double *sum, long *ok)
{
    const struct model *m = w->m;
    const int V = m->vocab;
    static _Thread_local float *hr, *dr;
    if (!hr)
        hr = falloc(512 * D), dr = falloc(512 * D);
    for (int i0 = 0; i0 < n; i0 += 512) {
        int c = n - i0 < 512 ? n - i0 : 512;
        for (int i = 0; i < c; i++)
            memcpy(hr + (size_t)i * D, h + (size_t)rows[i0 + i] * D, D * sizeof(float));
        gemm_nt(c, V, D, hr, D, m->w + m->head, D, w->logits, V, 0);
        for (int i = 0; i < c; i++) {
            float *z = w->logits + (size_t)i * V;
            int t = target[i0 + i], best = 0;
            float mx = z[0];
            for (int v = 1; v < V; v++)
                if (z[v] > mx)
                    mx = z[v], best = v;
            float zt = z[t], s = 0;
            for (int v = 0; v < V; v += 16) { /* V is a multiple of 16 */
                v16f p = vexp(v16_sub(v16_load(z + v), v16_set1(mx)));
                s += v16_sum(p);
                v16_store(z + v, p);
            }
            float loss = logf(s) + mx - zt;
            *sum += (double)loss;
            *ok += best == t;
            if (h == w->hfin) {
                w->rowloss[rows[i0 + i]] = loss;
                w->rowok[rows[i0 + i]] = best == t;
            }
            if (scale == 0)
                continue;
            float k = scale / s;
            for (int v = 0; v < V; v++)
                z[v] *= k;
            z[t] -= scale;
        }
        if (scale == 0)
            continue;
        gemm_tn(V, D, c, w->logits, V, hr, D, w->g + m->head, D, 1);
        gemm_nn(c, D, V, w->logits, V, m->w + m->head, D, dr, D, 0);
        for (int i = 0; i < c; i++)
            memcpy(dh + (size_t)rows[i0 + i] * D, dr + (size_t)i * D, D * sizeof(float));
    }
}

/* The MTP layer, trained behind the main model's back: no gradient leaves it. */
static void run_mtp(struct worker *w, int backward)
{
    const struct model *m = w->m;
    const struct layer *L = &m->l[NL];
    struct batch *b = w->b;
    struct acts *a = &w->l[NL];
    int T = b->T, n = 0;
    static _Thread_local int rows[TMAX];
    static _Thread_local uint16_t tg[TMAX];
    for (int i = 0; i + 1 < T; i++)
        if (b->loss[i + 1] && b->pos[i + 1] == b->pos[i] + 1 && b->nxt[i] == b->tok[i + 1])
            rows[n] = i, tg[n++] = b->nxt[i + 1];
    for (int i = 0; i < T; i++)
        memcpy(w->t3 + (size_t)i * D, m->w + m->embed + (size_t)b->nxt[i] * D, D * sizeof(float));
    rms_fwd(T, D, w->t3, D, m->w + L->enorm, w->mx, 2 * D, w->mr1);
    rms_fwd(T, D, w->hfin, D, m->w + L->hnorm, w->mx + D, 2 * D, w->mr2);
    gemm_nt(T, D, 2 * D, w->mx, 2 * D, m->w + L->eh, 2 * D, a->x, D, 0);
    block_fwd(w, NL, w->me);
    rms_fwd(T, D, w->me, D, m->w + L->shn, w->mh, D, w->rfin);
    memset(w->t4, 0, (size_t)T * D * sizeof(float));
    double sum = 0;
    float *headg = NULL;
    if (backward) { /* the shared head takes no gradient from here */
        headg = malloc((size_t)m->vocab * D * sizeof(float));
        if (!headg)
            exit(1);
        memcpy(headg, w->g + m->head, (size_t)m->vocab * D * sizeof(float));
    }
    head_loss(w, w->mh, w->t4, rows, tg, n, backward ? w->inv : 0, &sum, &w->nmtpok);
    w->mtp_loss += sum;
    w->nmtp += n;
    if (!backward)
        return;
    memcpy(w->g + m->head, headg, (size_t)m->vocab * D * sizeof(float));
    free(headg);
    rms_bwd(T, D, w->me, D, m->w + L->shn, w->rfin, w->t4, D, w->dx, D, 0, w->g + L->shn);
    block_bwd(w, NL);
    gemm_tn(D, 2 * D, T, w->dx, D, w->mx, 2 * D, w->g + L->eh, 2 * D, 1);
    gemm_nn(T, 2 * D, D, w->dx, D, m->w + L->eh, 2 * D, w->t1, 2 * D, 0);
    for (int i = 0; i < T; i++)
        memcpy(w->t3 + (size_t)i * D, m->w + m->embed + (size_t)b->nxt[i] * D, D * sizeof(float));
    rms_bwd(T, D, w->t3, D, m->w + L->enorm, w->mr1, w->t1, 2 * D, w->t4, D, 0, w->g + L->enorm);
    rms_bwd(T, D, w->hfin, D, m->w + L->hnorm, w->mr2, w->t1 + D, 2 * D, w->t4, D, 0,
            w->g + L->hnorm);
}

void worker_run(struct worker *w, int backward)
{
    const struct model *m = w->m;
    struct batch *b = w->b;
    int T = b->T, n = 0;
    static _Thread_local int rows[TMAX];
    static _Thread_local uint16_t tg[TMAX];
    for (int i = 0; i < T; i++)
        memcpy(w->l[0].x + (size_t)i * D, m->w + m->embed + (size_t)b->tok[i] * D,
               D * sizeof(float));
    float *last = w->l[NL].x1; /* free until the MTP layer runs */
    for (int l = 0; l < NL; l++)
        block_fwd(w, l, l + 1 < NL ? w->l[l + 1].x : last);
    rms_fwd(T, D, last, D, m->w + m->norm, w->hfin, D, w->rfin);
    for (int i = 0; i < T; i++)
        if (b->loss[i])
            rows[n] = i, tg[n++] = b->nxt[i];
    memset(w->dfin, 0, (size_t)T * D * sizeof(float));
    head_loss(w, w->hfin, w->dfin, rows, tg, n, backward ? w->inv : 0, &w->loss, &w->nok);
    w->ntok += n;
    if (backward) {
        rms_bwd(T, D, last, D, m->w + m->norm, w->rfin, w->dfin, D, w->dx, D, 0, w->g + m->norm);
        for (int l = NL - 1; l >= 0; l--)
            block_bwd(w, l);
        for (int i = 0; i < T; i++) {
            float *g = w->g + m->embed + (size_t)b->tok[i] * D;
            for (int j = 0; j < D; j++)
                g[j] += w->dx[(size_t)i * D + j];
        }
    }
    if (w->hp.mtp)
        run_mtp(w, backward);
}
