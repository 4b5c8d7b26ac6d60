/* editor.h - str_replace_editor: what it remembers of the files that the model has seen. */
#ifndef TOOLS_EDITOR_H
#define TOOLS_EDITOR_H

#include <stdint.h>

#include "base/str.h"

enum { VIEWS_MAX = 128 };

/* A fixed ring: the oldest view is forgotten, which only means no staleness check for it. */
struct views {
    struct view {
        char *path; /* owned */
        uint64_t hash;
    } at[VIEWS_MAX];
    unsigned next;
};
void views_clear(struct views *v);
/* Remembers that the model knows this content of this path. */
void views_set(struct views *v, const char *path, struct str content);
/* False only when the path was seen with other content. */
bool views_fresh(const struct views *v, const char *path, struct str content);

#endif
