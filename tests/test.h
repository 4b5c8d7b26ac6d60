/* test.h - what every unit test includes: cmocka, its prerequisites, and a few checks. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

/* Succeeds, or fails with the sentence that the callee left in `e`. */
#define ASSERT_OK(expr, e)                                                               \
    do {                                                                                 \
        int ok_rc_ = (expr);                                                             \
        if (ok_rc_ < 0)                                                                  \
            fail_msg("%s: %s", #expr, (e)->text);                                        \
    } while (0)

/* Fails with exactly this code, and the sentence mentions `needle`. */
#define ASSERT_ERR(expr, want, e, needle)                                                \
    do {                                                                                 \
        int er_rc_ = (expr);                                                             \
        assert_int_equal(er_rc_, -(want));                                               \
        if (!strstr((e)->text, (needle)))                                                \
            fail_msg("error '%s' does not mention '%s'", (e)->text, (needle));           \
    } while (0)

#endif
