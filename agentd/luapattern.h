/*
 * luapattern.h - how long Lua's pattern matching may take. It backtracks inside one C call,
 * where no step is counted, so what could take long is refused before it starts.
 */
#ifndef AGENTD_LUAPATTERN_H
#define AGENTD_LUAPATTERN_H

#include "base/str.h"

/*
 * An upper bound of the single comparisons: places where a match may start, times for every
 * repeated item one more than its longest run in the text.
 */
double luapattern_cost(struct str text, struct str pattern);

#endif
