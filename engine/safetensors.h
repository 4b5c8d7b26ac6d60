/*
 * safetensors.h - a folder of safetensors files, one or sharded with an index, mapped and
 * checked: every offset, size, dtype and shape agrees with the files before it is used.
 */
#ifndef ENGINE_SAFETENSORS_H
#define ENGINE_SAFETENSORS_H

#include "base/err.h"
#include "engine/tensors.h"

struct stat;

struct safetensors;

/*
 * folder: holds model.safetensors.index.json and the shards it names, or model.safetensors.
 * E4M3 tensors come with the scales of their "_scale_inv" companion attached; a companion of
 * the wrong shape is an error, a missing one too.
 */
NODISCARD int safetensors_open(struct safetensors **out, const char *folder, struct err *err);
/* Are the files still what was opened? See mapfile_check(). */
NODISCARD int safetensors_check(const struct safetensors *s, struct err *err);
/* Is this one of its files? */
bool safetensors_reads(const struct safetensors *s, const struct stat *st);
void safetensors_close(struct safetensors *s);

const struct tensors *safetensors_tensors(const struct safetensors *s);

/* One file's bytes into a list, for fuzzing and tests; data is borrowed from `p`. */
NODISCARD int safetensors_parse(struct tensors *out, const uint8_t *p, uint64_t n,
                                struct err *err);
/* Attaches scales; those that cannot be borrowed are decoded into `arena`. */
NODISCARD int safetensors_attach_scales(struct tensors *t, struct arena *arena,
                                        struct err *err);

#endif
