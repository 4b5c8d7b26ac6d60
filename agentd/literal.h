/*
 * literal.h - the seven literals of the DeepSeek-V3.2 message format. In a vocabulary each is
 * one added token; ids are looked up by these texts and never written down. The bar is U+FF5C,
 * the low line U+2581.
 */
#ifndef AGENTD_LITERAL_H
#define AGENTD_LITERAL_H

#include "base/str.h"

#define LIT_TEXT_BOS "<\xef\xbd\x9c" "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"
#define LIT_TEXT_EOS "<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"
#define LIT_TEXT_USER "<\xef\xbd\x9cUser\xef\xbd\x9c>"
#define LIT_TEXT_ASSISTANT "<\xef\xbd\x9c" "Assistant\xef\xbd\x9c>"
#define LIT_TEXT_DSML "\xef\xbd\x9c" "DSML\xef\xbd\x9c"
#define LIT_TEXT_THINK "<think>"
#define LIT_TEXT_ENDTHINK "</think>"

/* Tags made of the DSML token and ordinary text. */
#define DSML_BLOCK "<" LIT_TEXT_DSML "function_calls>"
#define DSML_END_BLOCK "</" LIT_TEXT_DSML "function_calls>"
#define DSML_INVOKE "<" LIT_TEXT_DSML "invoke"
#define DSML_END_INVOKE "</" LIT_TEXT_DSML "invoke>"
#define DSML_PARAM "<" LIT_TEXT_DSML "parameter"
#define DSML_END_PARAM "</" LIT_TEXT_DSML "parameter>"

enum literal {
    LIT_BOS,
    LIT_EOS,
    LIT_USER,
    LIT_ASSISTANT,
    LIT_DSML,
    LIT_THINK,
    LIT_ENDTHINK,
    LIT_COUNT,
};

/* The text of a literal. */
struct str literal_text(enum literal which);
/*
 * The earliest literal in s at or after `from`: its offset, *which set; STR_NONE when there is
 * none. No literal is a prefix of another, so the first start is the whole answer.
 */
size_t literal_find(struct str s, size_t from, enum literal *which);
/*
 * Length of the longest tail of s that could still grow into a literal: what a streaming
 * reader has to hold back. 0 when nothing can.
 */
size_t literal_partial(struct str s);

#endif
