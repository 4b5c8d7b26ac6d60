/* layer.h - what a session wrote above its copy workspace: as JSON, and taken over. */
#ifndef AGENTD_LAYER_H
#define AGENTD_LAYER_H

#include "base/err.h"
#include "base/json.h"

enum { LAYER_DIFF_MAX = 1 << 20 }; /* bytes of all diffs of one list */

/*
 * New reference: {changes: [{path, change: added|changed|removed, type: file|folder|link|other,
 * mode?, oldMode?, size?, oldSize?, to?, content?, stale?, diff? | note?}], cut}. A path is shown
 * so that it can be typed and told apart: a backslash is doubled, bytes that are not printable
 * UTF-8 are \ooo. `layer` -1: nothing was written yet. since: see changes.h.
 */
json_t *layer_list(int layer, const char *workspace, int64_t since, struct err *err);
/*
 * Takes over what `paths` names, as layer_list() spells it, folders with all below them; all of
 * it when NULL. Stale ones are left unless `force`. New reference: {applied: [path], failed:
 * [{path, why}]}.
 */
json_t *layer_apply(int layer, const char *workspace, int64_t since, const json_t *paths,
                    bool force, struct err *err);

#endif
