/* hparams_read.h - hyperparameters out of the two containers; weights.c calls these. */
#ifndef ENGINE_HPARAMS_READ_H
#define ENGINE_HPARAMS_READ_H

#include "base/json.h"
#include "engine/gguf.h"
#include "engine/hparams.h"

/*
 * From a config.json; `generation` is generation_config.json or NULL. *tied: the head is the
 * embedding. n_mtp_layers is what the config claims; the caller lowers it to what the files
 * hold. -ERR_UNSUPPORTED names the field that makes this a model we do not run.
 */
NODISCARD int hparams_from_config(struct hparams *hp, bool *tied, json_t *config,
                                  json_t *generation, struct err *err);
/* From GGUF metadata and, for incomplete files, from which tensors there are. */
NODISCARD int hparams_from_gguf(struct hparams *hp, const struct gguf *g, struct err *err);
/* The pattern of GLM-5.2: full iff max(l - offset + 1, 0) % freq == 0. */
void hparams_index_pattern(struct hparams *hp, uint32_t freq, uint32_t offset);

/* One more id that ends a text, unless it is there already; -1 and what exceeds the room of the
 * list are left out. */
void hparams_add_end(struct hparams *hp, int64_t id);

#endif
