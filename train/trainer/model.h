/* model.h - the shipped model's shape, its parameters, and one worker's activations.
 *
 * The architecture is DeepSeek-V3.2 in small, part for part: MLA with q-LoRA, lightning indexer,
 * dense first layer, routed experts with selection bias and groups, shared expert, MTP layer.
 * Sizes are constants so that the compiler sees them; what a run may change is in struct hyper.
 */
#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include "gemm.h"

#include <stddef.h>
#include <stdint.h>

enum {
    D = 256,            /* hidden size */
    NL = 6,             /* main layers; the MTP layer is number NL */
    ND = 1,             /* leading dense layers */
    NH = 6,             /* attention heads */
    RQ = 128,           /* query LoRA rank */
    RKV = 128,          /* latent rank */
    DN = 32, DR = 16, DV = 32, DQK = DN + DR,
    HI = 4, DI = 32,    /* indexer heads and their width */
    E = 16, EK = 2, NG = 4, GK = 2, PG = E / NG,
    FM = 128,           /* expert width */
    FD = 384,           /* dense width */
    QKVA = RQ + RKV + DR,
    QB = NH * DQK, KVB = NH * (DN + DV), OB = NH * DV,
    TMAX = 8192,        /* rows of one packed batch */
    CTX = 2560,         /* longest sequence */
    QBLK = 48,          /* queries per attention block */
    SEGMAX = 256
};

extern const float route_scale;

struct hyper {
    int vocab, topk;
    int sparse;      /* select topk keys; 0 = dense attention */
    int index_every; /* train the indexer on one of so many query blocks; 0 = never */
    int mtp;         /* run and train the MTP layer */
    int frozen;      /* keep the last pass's experts and selections (gradient check) */
};

enum kind { P_MUON, P_ADAM, P_BIAS };

struct param {
    char name[96];
    size_t off;
    int rows, cols; /* rows == 0: a vector of cols */
    enum kind kind;
};

/* Offsets of one layer's parameters in the flat array. Matrices that share their input follow
 * one another, so that one product does both: q_a and kv_a, gate and up. */
struct layer {
    size_t ln1, ln2, qa, qan, kvan, qb, kvb, o, iqb, ik, iw, ikn, ikb;
    size_t gate, bias, ex[E], exd[E], sh, shd, ff, ffd;
    size_t enorm, hnorm, eh, shn; /* MTP only */
    int moe;
};

struct model {
    struct param *p;
    int np, capp;
    size_t n; /* floats in all */
    struct layer l[NL + 1];
    size_t embed, norm, head;
    int vocab;
    float *w;
    float rope_cos[CTX][DR / 2], rope_sin[CTX][DR / 2];
};

void model_init(struct model *m, int vocab, uint64_t seed);

/* Sequences packed behind one shared prefix: segment 0 is the prefix when prefix > 0. */
struct batch {
    int T, nseg, prefix;
    int seg[SEGMAX + 1]; /* first row of each segment, and the end */
    uint16_t tok[TMAX], nxt[TMAX];
    int pos[TMAX];
    uint8_t loss[TMAX];  /* 1: row predicts nxt and is trained */
    uint8_t fam[SEGMAX];
};

struct acts {
    float *x, *a, *qkva, *qr, *c, *kp, *q, *kv, *o, *x1, *b, *lse, *delta;
    float *iq, *ikr, *ik, *iw;
    uint16_t *sel; /* [T][CTX / 16] selected keys, valid where n > topk */
    float *r1, *r2, *rq, *rkv, *rik, *mik;
    float *s, *wt;       /* router sigmoid [T][E], weights [T][EK] */
    int8_t *ei;          /* chosen experts [T][EK] */
    int *rows, *slot, cnt[E + 1]; /* rows by expert, their slot, offsets */
    float *h, *g;        /* [2T][2FM] pre-activations, [2T][FM] silu(gate)*up*w */
    float *hs, *gs;      /* shared or dense: [T][2*max], [T][max] */
};

struct worker {
    const struct model *m;
    struct hyper hp;
    struct batch *b;
    float *g;        /* gradients, like m->w */
    struct acts l[NL + 1];
    float *hfin, *rfin, *dx, *da, *t1, *t2, *t3, *t4, *xg, *dq, *dkv, *dqkva, *dkp;
    float *logits, *mx, *me, *mh, *mr1, *mr2, *dfin;
    float *rowloss; uint8_t *rowok;
    /* attention scratch */
    float *K, *V, *Kp, *dK, *dV, *S, *dP, *PB, *IS, *ID, *IK, *dIK;
    struct bpack pk, pv, pkn, pvn, pik, pikn;
    double loss, mtp_loss, index_loss, recall;
    long ntok, nmtp, nindex, nrecall, nok, nmtpok;
    long load[NL + 1][E];
    uint64_t rng;
    float inv; /* 1 / loss rows of the whole step */
};

void worker_init(struct worker *w, const struct model *m);
/* Loss sums of w->b; with backward also adds gradients of inv * loss to w->g. */
void worker_run(struct worker *w, int backward);

/* layers, attention, experts: see layers.c, attn.c, moe.c */
void rms_fwd(int T, int n, const float *x, int ldx, const float *w, float *y, int ldy, float *r);
void rms_bwd(int T, int n, const float *x, int ldx, const float *w, const float *r,
             const float *dy, int lddy, float *dx, int lddx, int acc, float *dw);
void attn_fwd(struct worker *w, int l);
void attn_bwd(struct worker *w, int l, const float *dout);
void ffn_fwd(struct worker *w, int l, float *out);
void ffn_bwd(struct worker *w, int l, const float *dout, float *db);
void rope(const struct model *m, float *x, int pos, int halves, int inverse);

float *falloc(size_t n);
static inline uint64_t rng_next(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static inline uint32_t rng_below(uint64_t *s, uint32_t n)
{
    return (uint32_t)((rng_next(s) >> 32) * n >> 32);
}
#endif
