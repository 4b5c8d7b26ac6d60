/* tokenizer_gguf.h - tokenizers out of model files. */
#ifndef ENGINE_TOKENIZER_GGUF_H
#define ENGINE_TOKENIZER_GGUF_H

#include "engine/gguf.h"
#include "engine/tokenizer.h"

/* From tokenizer.ggml.* keys. -ERR_NOTFOUND: the file has no vocabulary; -ERR_UNSUPPORTED:
 * not byte-level BPE, or an unknown pre-tokenizer. */
NODISCARD int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g,
                                  struct err *err);
/* From the folder's tokenizer.json; -ERR_NOTFOUND when it has none. */
NODISCARD int tokenizer_from_folder(struct tokenizer **out, const char *folder,
                                    struct err *err);

#endif
