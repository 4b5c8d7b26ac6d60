/* snippet.c - splitting queries, stripping marks, choosing a passage. */
#include "tools/snippet.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "tools/segment.h"

static bool says_nothing(struct str w)
{
    static const char *const words[] = {
        "a", "an", "and", "are", "as", "at", "be", "by", "can", "did", "do", "does", "for", "from",
        "had", "has", "have", "how", "i", "in", "is", "it", "its", "of", "on", "or", "s", "that",
        "the", "this", "to", "was", "were", "what", "when", "where", "which", "who", "whose", "why",
        "will", "with"};
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (w.n == strlen(words[i]) && strncasecmp(w.p, words[i], w.n) == 0)
            return true;
    return false;
}

static bool is_word(unsigned char c)
{
    return isalnum(c) || c >= 0x80 || c == '_';
}

/* Bytes of the run at s[at] of characters that are words of their own, *chars of them; 0. */
static size_t single_run(struct str s, size_t at, size_t *chars)
{
    size_t i = at;
    for (*chars = 0; segment_at(s, i); ++*chars) {
        uint32_t cp;
        i += utf8_decode(s, i, &cp);
    }
    return i - at;
}

/* A short run is one term. Of a long one, likely a sentence, each pair of neighbours is. */
static void add_run(struct snippet_query *q, struct str run, size_t chars)
{
    enum { WHOLE = 3 };
    if (chars <= WHOLE) {
        q->term[q->n++] = run;
        return;
    }
    for (size_t i = 0; q->n < SNIPPET_TERMS;) {
        uint32_t cp;
        size_t first = utf8_decode(run, i, &cp);
        if (i + first >= run.n)
            return;
        size_t second = utf8_decode(run, i + first, &cp);
        q->term[q->n++] = str_sub(run, i, first + second);
        i += first;
    }
}

void snippet_parse(struct snippet_query *q, struct str s)
{
    struct str dull[SNIPPET_TERMS];
    unsigned n_dull = 0;
    *q = (struct snippet_query){.n = 0};
    for (size_t i = 0; i < s.n && q->n < SNIPPET_TERMS;) {
        size_t start = i + 1, chars, run = single_run(s, i, &chars);
        if (run) {
            add_run(q, str_sub(s, i, run), chars);
            i += run;
        } else if (s.p[i] == '"') {
            size_t end = str_find(s, STR("\""), start);
            struct str phrase = str_trim(str_sub(s, start, (end == STR_NONE ? s.n : end) - start));
            bool any = false;
            for (size_t k = 0; k < phrase.n; k++)
                any |= is_word((unsigned char)phrase.p[k]);
            if (any)
                q->term[q->n++] = phrase;
            i = end == STR_NONE ? s.n : end + 1;
        } else if (is_word((unsigned char)s.p[i])) {
            start = i;
            while (i < s.n && is_word((unsigned char)s.p[i]) && !segment_at(s, i))
                i++;
            struct str w = str_sub(s, start, i - start);
            if (!says_nothing(w))
                q->term[q->n++] = w;
            else if (n_dull < SNIPPET_TERMS)
                dull[n_dull++] = w;
        } else {
            i++;
        }
    }
    if (q->n == 0) {
        memcpy(q->term, dull, n_dull * sizeof *dull);
        q->n = n_dull;
    }
}

void snippet_match(const struct snippet_query *q, const char *op, struct buf *out)
{
    for (unsigned i = 0; i < q->n; i++) {
        if (i)
            buf_printf(out, " %s ", op);
        buf_putc(out, '"');
        segment_text(q->term[i], out); /* holds no quote: they end terms */
        buf_putc(out, '"');
    }
}

void snippet_plain(struct str body, struct buf *out)
{
    const struct str open = STR("【"), mid = STR("†"), close = STR("】");
    size_t at = 0;
    for (;;) {
        size_t p = str_find(body, open, at);
        if (p == STR_NONE)
            break;
        size_t digits = p + open.n;
        while (digits < body.n && isdigit((unsigned char)body.p[digits]))
            digits++;
        size_t end = str_find(str_sub(body, 0, digits + 4000), close, digits);
        if (digits == p + open.n || !str_starts(str_sub(body, digits, body.n), mid) ||
            end == STR_NONE) {
            buf_str(out, str_sub(body, at, p + open.n - at));
            at = p + open.n;
            continue;
        }
        size_t text = digits + mid.n;
        size_t host = str_find(str_sub(body, 0, end), mid, text);
        buf_str(out, str_sub(body, at, p - at));
        buf_str(out, str_sub(body, text, (host == STR_NONE ? end : host) - text));
        at = end + close.n;
    }
    buf_str(out, str_sub(body, at, body.n));
}

/* Length of what must agree, so that plurals and endings match as the index's stemmer has it. */
static size_t stem(struct str term)
{
    return term.n > 5 && !segment_at(term, 0) ? term.n - 2 : term.n;
}

/* Whether a term occurs at s[at], at the start of a word. */
static bool matches(struct str s, size_t at, struct str term)
{
    size_t n = stem(term);
    return s.n - at >= n &&
           (at == 0 || !is_word((unsigned char)s.p[at - 1]) || segment_at(term, 0)) &&
           strncasecmp(s.p + at, term.p, n) == 0;
}

/* The start of the window with the most different terms; earlier wins. */
static size_t best_window(const struct snippet_query *q, struct str s)
{
    enum { HITS = 512 };
    size_t at[HITS], best = 0;
    unsigned char which[HITS];
    unsigned n = 0, most = 0;
    for (size_t i = 0; i < s.n && n < HITS; i++) {
        if (!is_word((unsigned char)s.p[i]) ||
            (i && is_word((unsigned char)s.p[i - 1]) && !segment_at(s, i)))
            continue;
        for (unsigned t = 0; t < q->n && n < HITS; t++)
            if (matches(s, i, q->term[t])) {
                at[n] = i;
                which[n++] = (unsigned char)t;
                break;
            }
    }
    for (unsigned i = 0; i < n; i++) {
        uint32_t seen = 0;
        for (unsigned k = i; k < n && at[k] < at[i] + SNIPPET_BYTES - 60; k++)
            seen |= 1u << which[k];
        unsigned count = (unsigned)__builtin_popcount(seen);
        if (count > most) {
            most = count;
            best = at[i];
        }
    }
    return most ? best : 0;
}

/* Back to the start of the sentence or line if it is near, else to the start of a word. */
static size_t nice_start(struct str s, size_t at)
{
    size_t floor = at > 100 ? at - 100 : 0;
    for (size_t i = at; i > floor; i--)
        if (s.p[i - 1] == '\n' || (i > 1 && s.p[i - 1] == ' ' && strchr(".!?", s.p[i - 2])))
            return i;
    if (floor == 0)
        return 0;
    for (size_t i = at > 40 ? at - 40 : 0; i < at; i++)
        if (s.p[i] == ' ')
            return i + 1;
    return at;
}

void snippet_make(const struct snippet_query *q, struct str body, struct buf *out)
{
    struct buf plain;
    buf_init(&plain, 0);
    snippet_plain(body, &plain);
    struct str s = buf_view(&plain);
    size_t start = nice_start(s, best_window(q, s)), end = start;
    while (end < s.n && end - start < SNIPPET_BYTES)
        end++;
    if (end < s.n) { /* back to the end of a word */
        size_t floor = end - 40;
        for (size_t i = end; i > floor; i--)
            if (s.p[i] == ' ' || s.p[i] == '\n') {
                end = i;
                break;
            }
    }
    while (start < end && ((unsigned char)s.p[start] & 0xc0) == 0x80)
        start++;
    struct str cut = str_sub(s, start, end - start);
    cut = str_sub(cut, 0, utf8_complete(cut));
    if (start > 0)
        buf_puts(out, "... ");
    bool blank = true;
    for (size_t i = 0; i < cut.n; i++) {
        bool space = cut.p[i] == ' ' || cut.p[i] == '\n' || cut.p[i] == '\t';
        if (!space)
            buf_putc(out, cut.p[i]);
        else if (!blank)
            buf_putc(out, ' ');
        blank = space;
    }
    if (out->len && out->data[out->len - 1] == ' ')
        buf_truncate(out, out->len - 1);
    if (end < s.n)
        buf_puts(out, " ...");
    buf_done(&plain);
}
