/* opt.h - Muon for matrices, AdamW for the rest, balance rule for the router bias. */
#ifndef TRAIN_OPT_H
#define TRAIN_OPT_H

#include "model.h"

struct opt {
    float *m, *v; /* first moment (all), second moment (Adam only), like model.w */
    float *nowd;
};
struct opt_step {
    float lr_muon, lr_adam, wd, bias_rate;
    long t;     /* 1-based */
    int mtp;    /* MTP layer has gradients in this step */
    int index;  /* indexer has gradients in this step */
};
void opt_init(struct opt *o, const struct model *m);
/* One parameter: gradients g0 + g1 (g1 may be NULL) are consumed and zeroed. */
void opt_param(struct opt *o, struct model *m, int i, float *g0, float *g1,
               const struct opt_step *s);
void opt_bias(struct model *m, int l, const long load[E], float rate);
#endif
