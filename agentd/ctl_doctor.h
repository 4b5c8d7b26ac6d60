/* ctl_doctor.h - findings of `agentctl doctor`, shared by its two examinations. */
#ifndef AGENTD_CTL_DOCTOR_H
#define AGENTD_CTL_DOCTOR_H

#include <stdbool.h>

#include "sandbox/level.h"

enum { DOCTOR_FINDINGS = 20 };

struct finding {
    const char *name;
    bool good;
    char text[600];
    char remedy[400]; /* "" = none needed or known */
};

struct doctor {
    struct finding finding[DOCTOR_FINDINGS];
    unsigned n;
    enum sandbox_level level;
};

/* A new finding; the last place takes all that is too much. Borrowed from `d`. */
struct finding *doctor_note(struct doctor *d, const char *name, bool good);

/* Where sessions are kept: there, writable, on a disk with room and working locks. NULL =
 * where a daemon without configuration keeps them. False when a daemon could not use it. */
bool doctor_look_at_store(struct doctor *d, const char *dir);
/* Whether large allocations get huge pages here, found by making one, and what may be pinned. */
void doctor_look_at_memory(struct doctor *d);
/* Whether matrices have fast instructions here. */
void doctor_look_at_processor(struct doctor *d);
/* What the model is and whether its memory is there. False when it cannot be loaded. */
bool doctor_look_at_model(struct doctor *d, const char *path);

#endif
