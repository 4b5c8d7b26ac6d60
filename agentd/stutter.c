/* stutter.c - for each period the length of the run that has it, kept from token to token. */
#include "agentd/stutter.h"

uint32_t stutter_add(struct stutter *s, int32_t id, uint32_t most)
{
    uint32_t longest = most / STUTTER_TIMES, found = 0;
    if (longest > STUTTER_BLOCK)
        longest = STUTTER_BLOCK;
    for (uint32_t p = 1; p <= STUTTER_BLOCK && p <= s->n; p++) {
        uint32_t *same = &s->same[p - 1];
        *same = s->last[(s->n - p) % STUTTER_BLOCK] == id ? *same + 1 : 0;
        if (!found && p <= longest && *same + p >= most)
            found = p;
    }
    s->last[s->n++ % STUTTER_BLOCK] = id;
    return found;
}
