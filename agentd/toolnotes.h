/*
 * toolnotes.h - two tools that run no code: plan and memory. Plain files and pure functions,
 * in the daemon.
 */
#ifndef AGENTD_TOOLNOTES_H
#define AGENTD_TOOLNOTES_H

#include "tools/toolbox.h"

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
#endif
