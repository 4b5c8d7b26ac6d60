/* The arrows between a turn's states: the table against the drawing in loop.h. */
#include "test.h"

#include <string.h>

#include "agentd/loop.h"
#include "base/compiler.h"

/* The drawing once more, an arrow a line. */
static const struct {
    enum turn_state from, to;
} drawn[] = {
    {TURN_IDLE, TURN_PREFILL},   {TURN_IDLE, TURN_ASK},
    {TURN_PREFILL, TURN_DECODE}, {TURN_PREFILL, TURN_DONE},  {TURN_PREFILL, TURN_FAILED},
    {TURN_DECODE, TURN_PREFILL}, {TURN_DECODE, TURN_CALL},   {TURN_DECODE, TURN_DONE},
    {TURN_DECODE, TURN_FAILED},  {TURN_CALL, TURN_ASK},      {TURN_CALL, TURN_PREFILL},
    {TURN_CALL, TURN_DONE},      {TURN_CALL, TURN_FAILED},   {TURN_ASK, TURN_CALL},
    {TURN_ASK, TURN_FAILED},
};

static void test_every_arrow(void **state)
{
    (void)state;
    for (int from = 0; from < TURN_N_STATES; from++)
        for (int to = 0; to < TURN_N_STATES; to++) {
            bool want = from == to;
            for (unsigned i = 0; i < ARRAY_LEN(drawn); i++)
                want |= drawn[i].from == (enum turn_state)from &&
                        drawn[i].to == (enum turn_state)to;
            if (turn_state_may((enum turn_state)from, (enum turn_state)to) != want)
                fail_msg("%s -> %s", turn_state_name((enum turn_state)from),
                         turn_state_name((enum turn_state)to));
        }
}

static void test_every_state_ends(void **state)
{
    (void)state;
    for (int from = 0; from < TURN_DONE; from++) {
        unsigned seen = 1u << from;
        for (int round = 0; round < TURN_N_STATES; round++)
            for (unsigned i = 0; i < ARRAY_LEN(drawn); i++)
                if (seen & 1u << drawn[i].from)
                    seen |= 1u << drawn[i].to;
        assert_true(seen & 1u << TURN_DONE);
        assert_true(seen & 1u << TURN_FAILED);
    }
    for (int to = 0; to < TURN_DONE; to++) {
        assert_false(turn_state_may(TURN_DONE, (enum turn_state)to));
        assert_false(turn_state_may(TURN_FAILED, (enum turn_state)to));
    }
}

static void test_names(void **state)
{
    (void)state;
    for (int a = 0; a < TURN_N_STATES; a++)
        for (int b = 0; b < a; b++)
            assert_string_not_equal(turn_state_name((enum turn_state)a),
                                    turn_state_name((enum turn_state)b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_arrow),
        cmocka_unit_test(test_every_state_ends),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
