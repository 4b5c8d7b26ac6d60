/* crash.c - dying on request, at a named place and nowhere else. */
#include "agentd/crash.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"

static const char *const names[CRASH_N] = {
    [CRASH_TURN_COMMITTED] = "turn-committed",
    [CRASH_STEP_COMMITTED] = "step-committed",
    [CRASH_DURING_SAMPLING] = "during-sampling",
    [CRASH_AFTER_SAMPLE] = "after-sample",
    [CRASH_AFTER_INTENT] = "after-intent",
    [CRASH_BEFORE_SPAWN] = "before-spawn",
    [CRASH_DURING_OUTPUT] = "during-output",
    [CRASH_AFTER_EXIT] = "after-exit",
    [CRASH_RESULT_COMMITTED] = "result-committed",
    [CRASH_BEFORE_END] = "before-end",
    [CRASH_DURING_REPLAY] = "during-replay",
    [CRASH_DURING_RECOVERY] = "during-recovery",
    [CRASH_DURING_SNAPSHOT] = "during-snapshot",
    [CRASH_DURING_MIGRATION] = "during-migration",
    [CRASH_DURING_RESET] = "during-reset",
};

/* Written once at start, before the second thread. */
static int armed = -1;
static int64_t passes_left;

int crash_init(struct err *err)
{
    const char *want = getenv("AGENTD_CRASH_AT");
    if (!want || !*want)
        return 0;
    struct str rest = str_c(want), name = {0};
    str_split(&rest, ':', &name);
    passes_left = 1;
    if (rest.n && (!str_to_i64(rest, &passes_left) || passes_left < 1))
        return err_set(err, ERR_PARSE, "AGENTD_CRASH_AT='%s': the count must be 1 or more",
                       want);
    for (int i = 0; i < CRASH_N; i++)
        if (str_is(name, names[i]))
            armed = i;
    if (armed < 0)
        return err_set(err, ERR_NOTFOUND,
                       "AGENTD_CRASH_AT names no crash point: '%s' (agentd --crash-points "
                       "lists them)",
                       want);
    return 0;
}

void crash_here(enum crash_point p)
{
    if ((int)p == armed && --passes_left == 0)
        kill(getpid(), SIGKILL);
}

void crash_list(FILE *to)
{
    for (int i = 0; i < CRASH_N; i++)
        fprintf(to, "%s\n", names[i]);
}
