/* luapattern.c - walks a pattern item by item; never matches anything. */
#include "agentd/luapattern.h"

#include <ctype.h>
#include <string.h>

/* One item that matches a single character: its place in the pattern. */
struct item {
    struct str s; /* "a", ".", "%d" or "[...]" */
    char repeat;  /* * + - ? or 0 */
};

static bool in_class(char letter, unsigned char c)
{
    bool yes;
    switch (tolower((unsigned char)letter)) {
    case 'a': yes = isalpha(c); break;
    case 'c': yes = iscntrl(c); break;
    case 'd': yes = isdigit(c); break;
    case 'g': yes = isgraph(c); break;
    case 'l': yes = islower(c); break;
    case 'p': yes = ispunct(c); break;
    case 's': yes = isspace(c); break;
    case 'u': yes = isupper(c); break;
    case 'w': yes = isalnum(c); break;
    case 'x': yes = isxdigit(c); break;
    default: return (unsigned char)letter == c;
    }
    return isupper((unsigned char)letter) ? !yes : yes;
}

static bool in_set(struct str s, unsigned char c)
{
    size_t i = 1;
    bool not = s.n > 1 && s.p[1] == '^', yes = false;
    for (i += not; i + 1 < s.n; i++) {
        if (s.p[i] == '%' && i + 2 < s.n) {
            yes |= in_class(s.p[++i], c);
        } else if (i + 3 < s.n && s.p[i + 1] == '-') {
            yes |= (unsigned char)s.p[i] <= c && c <= (unsigned char)s.p[i + 2];
            i += 2;
        } else {
            yes |= (unsigned char)s.p[i] == c;
        }
    }
    return yes != not;
}

static bool item_matches(struct str item, unsigned char c)
{
    if (item.p[0] == '.')
        return true;
    if (item.p[0] == '%')
        return item.n < 2 || in_class(item.p[1], c);
    return item.p[0] == '[' ? in_set(item, c) : (unsigned char)item.p[0] == c;
}

/* Bytes of the set at p[at]; a ']' right after the opening is one of its members. */
static size_t set_length(struct str p, size_t at)
{
    size_t i = at + 1;
    if (i < p.n && p.p[i] == '^')
        i++;
    for (bool first = true; i < p.n && (first || p.p[i] != ']'); first = false)
        i += p.p[i] == '%' ? 2 : 1;
    return (i < p.n ? i + 1 : p.n) - at;
}

/* The next item at *at; false at the end. *extra is raised by what is not one character. */
static bool next_item(struct str p, size_t *at, struct str text, struct item *it, double *extra)
{
    while (*at < p.n) {
        size_t i = *at, n = 1;
        char c = p.p[i], next = i + 1 < p.n ? p.p[i + 1] : 0;
        if (c == '(' || c == ')' || (c == '$' && i + 1 == p.n)) {
            ++*at;
            continue;
        }
        if (c == '%' && (next == 'b' || next == 'f' || isdigit((unsigned char)next))) {
            *extra *= next == 'f' ? 1 : (double)text.n + 1; /* it looks over the text once */
            *at += next == 'b' ? 4 : next == 'f' ? 2 + (i + 2 < p.n ? set_length(p, i + 2) : 0) : 2;
            continue;
        }
        if (c == '%')
            n = i + 1 < p.n ? 2 : 1;
        else if (c == '[')
            n = set_length(p, i);
        it->s = str_sub(p, i, n);
        *at = i + n;
        it->repeat = *at < p.n && p.p[*at] && strchr("*+-?", p.p[*at]) ? p.p[*at] : 0;
        *at += it->repeat != 0;
        return true;
    }
    return false;
}

static double count_matching(struct str item, struct str text, bool longest_run, bool invert)
{
    size_t run = 0, best = 0, all = 0;
    for (size_t i = 0; i < text.n; i++) {
        bool yes = item_matches(item, (unsigned char)text.p[i]) != invert;
        all += yes;
        run = yes ? run + 1 : 0;
        best = run > best ? run : best;
    }
    return (double)(longest_run ? best : all);
}

double luapattern_cost(struct str text, struct str pattern)
{
    struct item it, last;
    size_t at = 0, peek;
    double cost = (double)text.n + 1, extra = 1;
    bool anchored = pattern.n && pattern.p[0] == '^', first = true;
    if (anchored) {
        at = 1;
        cost = 1;
    }
    while (next_item(pattern, &at, text, &it, &extra)) {
        if (first && !anchored && (it.repeat == 0 || it.repeat == '+'))
            cost = count_matching(it.s, text, false, false) + 1;
        first = false;
        peek = at;
        if (it.repeat == '?') {
            cost *= 2;
        } else if (it.repeat == '-' && next_item(pattern, &peek, text, &last, &extra) &&
                   last.repeat == 0 && !next_item(pattern, &peek, text, &last, &extra)) {
            cost *= count_matching(last.s, text, true, true) + 1; /* ends at the first of these */
        } else if (it.repeat) {
            cost *= count_matching(it.s, text, true, false) + 1;
        }
    }
    return cost * extra;
}
