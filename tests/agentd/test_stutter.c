/* test_stutter.c - the detector against its definition, and what it must leave alone. */
#include "test.h"

#include <string.h>

#include "agentd/stutter.h"

enum { MOST = 1024, LONG = 6000 };

/* The definition, read from the whole text: the shortest period of the last `most` tokens. */
static uint32_t by_hand(const int32_t *x, uint32_t n, uint32_t most)
{
    for (uint32_t p = 1; most && n >= most && p <= STUTTER_BLOCK && p * STUTTER_TIMES <= most; p++) {
        uint32_t i = n - most + p;
        while (i < n && x[i] == x[i - p])
            i++;
        if (i == n)
            return p;
    }
    return 0;
}

static uint32_t lcg(uint64_t *rng, uint32_t n)
{
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*rng >> 33) % n;
}

/* Runs of random blocks, so that periods begin, end and grow into one another. */
static void agrees_with_the_definition(void **state)
{
    static const uint32_t mosts[] = {0, 1, 15, 16, 17, 64, 100, 300, 1024, 2000};
    static int32_t x[LONG];
    uint64_t rng = 3;
    unsigned found = 0;
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        uint32_t most = mosts[round % ARRAY_LEN(mosts)], n = 0;
        struct stutter s = {0};
        while (n < LONG) {
            uint32_t p = 1 + lcg(&rng, 80), times = 1 + lcg(&rng, 1 + 3 * most / p), from = n;
            for (uint32_t i = 0; i < p && n < LONG; i++)
                x[n++] = (int32_t)lcg(&rng, 3);
            for (uint32_t i = 0; i < p * times && n < LONG && n > from; i++, n++)
                x[n] = x[n - p];
        }
        for (uint32_t i = 0; i < LONG; i++) {
            uint32_t got = stutter_add(&s, x[i], most), want = by_hand(x, i + 1, most);
            if (got != want)
                fail_msg("most %u, token %u: block %u, not %u", most, i, got, want);
            found += got != 0;
        }
    }
    assert_true(found > 1000);
}

static uint32_t first_hit(const char *text, size_t n, uint32_t most)
{
    struct stutter s = {0};
    for (size_t i = 0; i < n; i++)
        if (stutter_add(&s, (unsigned char)text[i], most))
            return (uint32_t)i + 1;
    return 0;
}

/* Each byte a token, which is the worst case: real tokens are longer. */
static void leaves_honest_text_alone(void **state)
{
    static char text[1 << 16];
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 500; i++) /* a dump of zeros, 8 KB */
        n += (size_t)snprintf(text + n, sizeof text - n, "%08x: 0000 0000 0000 0000  ........\n",
                              16 * i);
    assert_int_equal(first_hit(text, n, MOST), 0);
    n = 0;
    for (int i = 0; i < 200; i++) /* a table with its rulers */
        n += (size_t)snprintf(text + n, sizeof text - n, "| %3d | 0.00 | 0.00 | no |\n%s", i,
                              i % 10 ? "" : "|-----|------|------|----|\n");
    assert_int_equal(first_hit(text, n, MOST), 0);
    n = 0;
    for (int i = 0; i < 40; i++) { /* comments boxed with rulers of 120, deep indentation */
        n += (size_t)snprintf(text + n, sizeof text - n, "/*%.*s*/\n%*sx%d = 0;\n", 120,
                              "----------------------------------------------------------------"
                              "----------------------------------------------------------------",
                              200, "", i);
    }
    assert_int_equal(first_hit(text, n, MOST), 0);
    memset(text, '0', 1000); /* a thousand zeros */
    assert_int_equal(first_hit(text, 1000, MOST), 0);
    n = 0;
    for (int i = 0; i < 12; i++) /* a refrain, again and again, but no sixteen times */
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "and then it said once more, with feeling, that it was so; ");
    assert_int_equal(first_hit(text, n, MOST), 0);
}

static void stops_at_the_token(void **state)
{
    static char text[8192];
    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text, "once upon a time", 16);
    assert_int_equal(first_hit(text, sizeof text, MOST), 16 + MOST);
    for (size_t i = 16; i < sizeof text; i++)
        text[i] = "Wait, let me check. "[(i - 16) % 20];
    assert_int_equal(first_hit(text, sizeof text, MOST), 16 + MOST);
    assert_int_equal(first_hit(text, sizeof text, 0), 0);
    for (size_t i = 16; i < sizeof text; i++) /* 65 tokens: longer than what is looked for */
        text[i] = (char)(32 + (i - 16) % 65);
    assert_int_equal(first_hit(text, sizeof text, MOST), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_definition),
        cmocka_unit_test(leaves_honest_text_alone),
        cmocka_unit_test(stops_at_the_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
