/* test_envelope.c - kept output, cleaning and status lines, byte for byte. */
#include "test.h"

#include "tools/envelope.h"

static char *fed(const char *text, size_t n, uint32_t head, uint32_t tail, size_t piece,
                 uint64_t *cut)
{
    struct err e = {0};
    struct keep k;
    struct buf b;
    buf_init(&b, 0);
    ASSERT_OK(keep_init(&k, head, tail, &e), &e);
    for (size_t i = 0; i < n; i += piece)
        keep_feed(&k, text + i, i + piece < n ? piece : n - i);
    assert_int_equal(k.total, n);
    keep_text(&k, &b, cut);
    keep_done(&k);
    char *s = buf_take(&b);
    assert_non_null(s);
    return s;
}

static void short_output_is_whole(void **state)
{
    (void)state;
    uint64_t cut;
    for (size_t piece = 1; piece < 16; piece++) {
        char *s = fed("hello brave world", 17, 10, 7, piece, &cut);
        assert_string_equal(s, "hello brave world");
        assert_int_equal(cut, 0);
        free(s);
    }
}

static void long_output_keeps_both_ends(void **state)
{
    (void)state;
    char text[1000];
    uint64_t cut;
    for (unsigned i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 26);
    for (size_t piece = 1; piece <= sizeof text; piece += 37) {
        char *s = fed(text, sizeof text, 8, 5, piece, &cut);
        assert_int_equal(cut, 987);
        assert_string_equal(s, "abcdefgh\n... 987 bytes left out ...\nhijkl");
        free(s);
    }
}

static void cuts_fall_between_characters(void **state)
{
    (void)state;
    uint64_t cut;
    /* 3-byte characters, 8 and 5 are no multiples of 3 */
    char *s = fed("年年年年年年年年", 24, 8, 5, 24, &cut);
    assert_string_equal(s, "年年\n... 15 bytes left out ...\n年");
    assert_int_equal(cut, 15);
    free(s);
}

static void hostile_bytes_are_cleaned(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    envelope_clean(&b, str_of("a\0b\xff" "c\x1b[31md\te\r\nf\x7f\xc2\x9b", 19));
    assert_string_equal(buf_cstr(&b), "a\xE2\x90\x80" "b\xEF\xBF\xBD" "c\xE2\x90\x9B[31md\te\nf"
                        "\xE2\x90\xA1\xEF\xBF\xBD");
    assert_true(utf8_valid(buf_view(&b)));
    buf_done(&b);
}

static void status_lines(void **state)
{
    (void)state;
    struct buf b;
    struct keep k = {.head_max = 4096, .ring_max = 1024, .total = 91233};
    buf_init(&b, 0);
    envelope_status(&b, "exit code: %d", 0);
    assert_string_equal(buf_cstr(&b), "[exit code: 0]");
    buf_reset(&b);
    buf_puts(&b, "text");
    envelope_truncated(&b, &k, 7);
    envelope_status(&b, "exit code: 1");
    assert_string_equal(buf_cstr(&b),
                        "text\n[truncated: kept 4096+1024 of 91233 bytes; full output: spill:7, "
                        "read with open or str_replace_editor view]\n[exit code: 1]");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_output_is_whole),
        cmocka_unit_test(long_output_keeps_both_ends),
        cmocka_unit_test(cuts_fall_between_characters),
        cmocka_unit_test(hostile_bytes_are_cleaned),
        cmocka_unit_test(status_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
