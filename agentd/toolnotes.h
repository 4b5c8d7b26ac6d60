/*
 * toolnotes.h - the tools that run no code: plan, memory, finish. Plain files and pure
 * functions, in the daemon.
 */
#ifndef AGENTD_TOOLNOTES_H
#define AGENTD_TOOLNOTES_H

#include "tools/toolbox.h"

/* Lines that the model has been shown, per cursor; for citations. */
struct toolnotes_shown {
    uint32_t *range; /* owned: first and last line of cursor i at 2i and 2i+1 */
    uint32_t n;
};
/* Reads the head of a search, open or find result. */
void toolnotes_note_page(struct toolnotes_shown *s, struct str text);
void toolnotes_shown_done(struct toolnotes_shown *s);

struct toolnotes_dirs {
    const char *session;   /* notes of scope session; NULL = refused */
    const char *workspace; /* notes of scope workspace; NULL = refused */
};
void toolnotes_memory(const struct toolnotes_dirs *dirs, const json_t *args, struct answer *a);
/* The plan (or NULL) and the session's notes (dirs NULL: none), as lines; see toolrun_remind. */
void toolnotes_remind(const struct toolnotes_dirs *dirs, const json_t *plan, bool bodies,
                      size_t most, struct buf *out);
/* Replaces *plan (owned) by the new one and says how far it is. */
void toolnotes_plan(json_t **plan, const json_t *args, struct answer *a);
/*
 * Checks the citations 【cursor†Lx-Ly】 of an answer: each must name lines that were shown.
 * TOOL_OK when all do; otherwise the answer's text says which do not.
 */
void toolnotes_finish(const struct toolnotes_shown *shown, const json_t *args,
                      struct answer *a);

#endif
