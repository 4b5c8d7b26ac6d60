/* literal.c - the table of literals and the two scans over it; decides nothing else. */
#include "agentd/literal.h"

#include <string.h>

static const struct str texts[LIT_COUNT] = {
    [LIT_BOS] = {LIT_TEXT_BOS, sizeof(LIT_TEXT_BOS) - 1},
    [LIT_EOS] = {LIT_TEXT_EOS, sizeof(LIT_TEXT_EOS) - 1},
    [LIT_USER] = {LIT_TEXT_USER, sizeof(LIT_TEXT_USER) - 1},
    [LIT_ASSISTANT] = {LIT_TEXT_ASSISTANT, sizeof(LIT_TEXT_ASSISTANT) - 1},
    [LIT_DSML] = {LIT_TEXT_DSML, sizeof(LIT_TEXT_DSML) - 1},
    [LIT_THINK] = {LIT_TEXT_THINK, sizeof(LIT_TEXT_THINK) - 1},
    [LIT_ENDTHINK] = {LIT_TEXT_ENDTHINK, sizeof(LIT_TEXT_ENDTHINK) - 1},
};

struct str literal_text(enum literal which)
{
    return texts[which];
}

size_t literal_find(struct str s, size_t from, enum literal *which)
{
    for (size_t at = from; at < s.n; at++) {
        /* Every literal opens with '<' or with the first byte of the bar. */
        if (s.p[at] != '<' && s.p[at] != '\xef')
            continue;
        for (int i = 0; i < LIT_COUNT; i++) {
            if (s.n - at >= texts[i].n && !memcmp(s.p + at, texts[i].p, texts[i].n)) {
                *which = (enum literal)i;
                return at;
            }
        }
    }
    return STR_NONE;
}

size_t literal_partial(struct str s)
{
    size_t longest = texts[LIT_BOS].n - 1;
    for (size_t n = s.n < longest ? s.n : longest; n > 0; n--) {
        for (int i = 0; i < LIT_COUNT; i++) {
            if (n < texts[i].n && !memcmp(s.p + s.n - n, texts[i].p, n))
                return n;
        }
    }
    return 0;
}
