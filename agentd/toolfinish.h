/* toolfinish.h - the tool finish, and what it must know: which lines the model was shown. */
#ifndef AGENTD_TOOLFINISH_H
#define AGENTD_TOOLFINISH_H

#include "tools/toolbox.h"

/* Lines that the model has been shown, per cursor; for citations. */
struct toolfinish_shown {
    uint32_t *range; /* owned: first and last line of cursor i at 2i and 2i+1 */
    uint32_t n;
};
/* Reads the head of a search, open or find result. */
void toolfinish_note_page(struct toolfinish_shown *s, struct str text);
void toolfinish_shown_done(struct toolfinish_shown *s);

/* Where artifacts are looked for. */
struct toolfinish_where {
    const char *workspace; /* of the host; NULL = only the cell sees it, nothing is looked for */
    int layer;             /* above a copy workspace, or -1 */
};
/*
 * TOOL_OK when the answer is not empty, each citation 【cursor†Lx-Ly】 names lines that were shown
 * and each artifact is in the workspace; otherwise the text says what is not so, and what to do.
 */
void toolfinish(const struct toolfinish_shown *shown, const struct toolfinish_where *w,
                const json_t *args, struct answer *a);

#endif
