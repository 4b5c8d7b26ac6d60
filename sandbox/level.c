/* level.c - the levels' names, as policies and records spell them. */
#include "sandbox/level.h"

const char *sandbox_level_name(enum sandbox_level level)
{
    static const char *const names[] = {"none", "landlock", "nolimits", "full"};
    return names[level];
}
