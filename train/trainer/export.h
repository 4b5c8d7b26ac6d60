/* export.h - checkpoints of a run, and a model directory in the published layout. */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include "opt.h"

int ckpt_save(const char *path, const struct model *m, const struct opt *o, long step);
/* weights only, w in place of m->w */
int ckpt_save_mean(const char *path, const struct model *m, const float *w, long step);
/* o may be NULL (weights only). Returns the step, or -1. */
long ckpt_load(const char *path, struct model *m, struct opt *o);
/* DIR/model.safetensors (f32) and DIR/config.json; tokenizer.json is copied by the caller. */
int export_dir(const char *dir, const struct model *m, int topk);
#endif
