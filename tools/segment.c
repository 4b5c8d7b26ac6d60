/* segment.c - a table of ranges (Unicode blocks) and one pass over the text. */
#include "tools/segment.h"

static const struct {
    uint32_t first, last;
} singles[] = {
    {0x0e00, 0x0eff},   /* Thai, Lao */
    {0x1000, 0x109f},   /* Myanmar */
    {0x1100, 0x11ff},   /* Hangul letters */
    {0x1780, 0x17ff},   /* Khmer */
    {0x2e80, 0x2fdf},   /* radicals */
    {0x3005, 0x3007},   /* iteration marks, zero */
    {0x3041, 0x30ff},   /* Hiragana, Katakana */
    {0x3105, 0x31ff},   /* Bopomofo, Hangul and Katakana extensions */
    {0x3400, 0x4dbf},   /* Han, extension A */
    {0x4e00, 0x9fff},   /* Han */
    {0xa960, 0xa97f},   /* Hangul extension A */
    {0xac00, 0xd7ff},   /* Hangul syllables */
    {0xf900, 0xfaff},   /* Han, compatibility */
    {0xff66, 0xffdc},   /* half-width Katakana and Hangul */
    {0x20000, 0x3ffff}, /* Han, the other extensions */
};

bool segment_is_single(uint32_t cp)
{
    for (unsigned i = 0; cp >= singles[0].first && i < ARRAY_LEN(singles); i++)
        if (cp <= singles[i].last)
            return cp >= singles[i].first;
    return false;
}

bool segment_at(struct str s, size_t at)
{
    uint32_t cp;
    /* Nothing below U+0800 is among them: two bytes of a test for most text. */
    return at < s.n && (unsigned char)s.p[at] >= 0xe0 && utf8_decode(s, at, &cp) &&
           segment_is_single(cp);
}

void segment_text(struct str s, struct buf *out)
{
    size_t from = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        if ((unsigned char)s.p[i] < 0xe0) {
            i++;
            continue;
        }
        size_t n = utf8_decode(s, i, &cp);
        if (n && segment_is_single(cp)) {
            buf_str(out, str_sub(s, from, i - from));
            buf_putc(out, ' ');
            buf_str(out, str_sub(s, i, n));
            buf_putc(out, ' ');
            from = i + n;
        }
        i += n ? n : 1;
    }
    buf_str(out, str_sub(s, from, s.n));
}
