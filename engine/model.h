/*
 * model.h - looking into a model without serving it: what `agentctl model` needs beyond
 * engine.h. Together the two are all that the client may include of the engine.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"

/* --- looking at a forward pass ---------------------------------------------------------- */

/* One query's selection in one layer, as it is made. Arrays live for the call. */
struct model_selected {
    uint32_t layer, pos;
    const uint32_t *set; /* n_set ascending positions */
    uint32_t n_set;
    const float *scores; /* of positions 0..pos */
};
typedef void model_selected_fn(void *arg, const struct model_selected *s);
/* Calls fn for every row and indexed layer of every later step; NULL switches it off. While
 * it is on, scores are computed even where all positions would be selected anyway. */
void model_watch_selection(struct engine *e, model_selected_fn *fn, void *arg);

/*
 * The MTP layer's logits for rows 0..len-2 of a seq (row i reads position i and token i+1,
 * and predicts token i+2): calls fn for each row in order. Needs engine_opts.mtp.
 */
typedef int model_logits_fn(void *arg, uint32_t pos, const float *logits, struct err *err);
NODISCARD int model_mtp_logits(struct engine *e, const int32_t *tok, uint32_t n,
                               model_logits_fn *fn, void *arg, struct err *err);

#endif
