/* model_file.h - what the parts of the model tools share. Private to model_*.c, convert_*.c. */
#ifndef ENGINE_MODEL_FILE_H
#define ENGINE_MODEL_FILE_H

#include "engine/gguf_write.h"
#include "engine/tokenizer.h"
#include "engine/weights.h"

/* deepseek2 files by convention drop the MTP layer, the other architectures keep it. */
bool model_keeps_mtp(const struct weights *w);
/* Architecture, numbers and vocabulary as metadata; t may be NULL. `name` and `source` (a
 * fingerprint that ties a resumed conversion to its source) go in as text. */
NODISCARD int model_put_meta(struct gguf_head *h, const struct weights *w,
                             const struct tokenizer *t, struct err *err);

#endif
