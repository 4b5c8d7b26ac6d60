/*
 * loop_state.c - the turn's states: their names, the arrows between them as a table, and
 * what holds in each. loop.h draws it; tests/agentd/test_loop_state.c holds the two together.
 */
#include <assert.h>

#include "agentd/loop_in.h"
#include "base/io.h"

#define TO(state) (1u << (state))

/* Which states each one may be followed by; itself always. */
static const struct {
    const char *name;
    unsigned next;
} states[TURN_N_STATES] = {
    [TURN_IDLE] = {"idle", TO(TURN_PREFILL) | TO(TURN_ASK)},
    [TURN_PREFILL] = {"prefill", TO(TURN_DECODE) | TO(TURN_DONE) | TO(TURN_FAILED)},
    [TURN_DECODE] = {"decode", TO(TURN_PREFILL) | TO(TURN_CALL) | TO(TURN_DONE) |
                                   TO(TURN_FAILED)},
    [TURN_ASK] = {"ask", TO(TURN_CALL) | TO(TURN_FAILED)},
    [TURN_CALL] = {"call", TO(TURN_ASK) | TO(TURN_PREFILL) | TO(TURN_DONE) | TO(TURN_FAILED)},
    [TURN_DONE] = {"done", 0},
    [TURN_FAILED] = {"failed", 0},
};

const char *turn_state_name(enum turn_state st)
{
    return states[st].name;
}

bool turn_state_may(enum turn_state from, enum turn_state to)
{
    return from == to || states[from].next & TO(to);
}

/* The clock of the turn's budget stands still while a person is waited for. */
static void park(struct turn *t)
{
    t->parked = io_mono_ns();
    ev_timer_stop(t->deadline);
    for (uint32_t i = 0; i < t->n_calls; i++)
        if (t->call[i].state == CALL_ASKING) {
            int64_t left = t->call[i].expires_ms - io_wall_ms();
            ev_timer_start(t->expiry, left > 0 ? left * 1000000 : 0, 0);
        }
}

static void unpark(struct turn *t)
{
    t->parked_ns += io_mono_ns() - t->parked;
    ev_timer_stop(t->expiry);
    turn_arm_deadline(t);
}

void loop_to(struct turn *t, enum turn_state to)
{
    enum turn_state from = t->state;
    assert(turn_state_may(from, to));
    t->state = to;
    if (to == TURN_ASK && from != TURN_ASK)
        park(t);
    if (from == TURN_ASK && to != TURN_ASK)
        unpark(t);
}

void loop_check(const struct turn *t)
{
    unsigned asking = 0, running = 0;
    for (uint32_t i = 0; i < t->n_calls; i++) {
        asking += t->call[i].state == CALL_ASKING;
        running += t->call[i].state == CALL_RUNNING;
    }
    switch (t->state) {
    case TURN_PREFILL:
        assert(!running && !asking);
        break;
    case TURN_DECODE:
        assert(t->job && !running && !asking);
        break;
    case TURN_ASK:
        assert(!t->job && asking);
        break;
    case TURN_CALL:
        assert(!t->job && !asking);
        break;
    case TURN_DONE:
    case TURN_FAILED:
        assert(!t->job && !running && !asking);
        break;
    case TURN_IDLE:
    case TURN_N_STATES:
        break;
    }
}
