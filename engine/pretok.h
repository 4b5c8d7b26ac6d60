/*
 * pretok.h - the split of text into pieces that byte-pair merges never cross.
 *
 * A scheme is a sequence of patterns. Each step splits every piece left by the step before:
 * matches become pieces and so do the gaps between them ("Isolated"); look-ahead sees the
 * end of its piece, not the text behind it. The rules and the patterns are facts of the
 * models' tokenizer files; PCRE2, whose header appears in pretok.c alone, executes them.
 */
#ifndef ENGINE_PRETOK_H
#define ENGINE_PRETOK_H

#include "base/err.h"
#include "base/str.h"

struct pretok;

/* scheme: "deepseek-v3", "deepseek-llm", "glm4" or "kimi-k2" (GGUF's names). */
NODISCARD int pretok_new(struct pretok **out, struct str scheme, struct err *err);
void pretok_free(struct pretok *p);

/* Called with each piece, in order; a negative return stops and is passed on. */
typedef int pretok_piece_fn(void *arg, struct str piece, struct err *err);

/*
 * Splits `text` (valid UTF-8) and hands every byte of it to `fn`, in pieces. Time is linear
 * in the text for these patterns; a match limit guards the claim. Any thread, one at a time
 * per pretok.
 */
NODISCARD int pretok_split(struct pretok *p, struct str text, pretok_piece_fn *fn, void *arg,
                           struct err *err);

#endif
