/*
 * difftext.c - the shortest edit script, found greedily along diagonals, and its hunks.
 *
 * v[k] is the furthest x on diagonal k = x - y that d edits reach; the v of each d is kept, so
 * that the way back can be walked.           Myers 1986, "An O(ND) Difference Algorithm"
 */
#include "agentd/difftext.h"

#include <string.h>

#include "base/mem.h"

enum { CONTEXT = 3 };

struct side {
    struct str line[DIFFTEXT_LINES];
    unsigned n;
    bool open; /* the last line has no newline */
};

struct pair {
    struct side a, b;
    bool gone[DIFFTEXT_LINES], come[DIFFTEXT_LINES];
    int *trace[DIFFTEXT_EDITS + 1]; /* owned; each 2d + 1 wide */
};

static bool split(struct side *s, struct str text)
{
    struct str line;
    s->open = text.n && text.p[text.n - 1] != '\n';
    while (text.n && str_split(&text, '\n', &line)) {
        if (s->n == DIFFTEXT_LINES)
            return false;
        s->line[s->n++] = line;
    }
    return true;
}

static unsigned count(struct str s)
{
    unsigned n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '\n';
    return n + 1;
}

bool difftext_fits(struct str a, struct str b)
{
    return a.n <= DIFFTEXT_BYTES && b.n <= DIFFTEXT_BYTES && (!a.n || !memchr(a.p, 0, a.n)) &&
           (!b.n || !memchr(b.p, 0, b.n)) && count(a) <= DIFFTEXT_LINES &&
           count(b) <= DIFFTEXT_LINES;
}

/* The last line of a text without a newline at its end equals only its like. */
static bool equal(const struct pair *p, unsigned x, unsigned y)
{
    bool last_a = p->a.open && x + 1 == p->a.n, last_b = p->b.open && y + 1 == p->b.n;
    return last_a == last_b && str_eq(p->a.line[x], p->b.line[y]);
}

static int reach(const int *v, int d, int k)
{
    return v && k >= -d && k <= d ? v[k + d] : -1;
}

/* Fills the traces; the number of edits, or -1 when they are too many. */
static int search(struct pair *p)
{
    int n = (int)p->a.n, m = (int)p->b.n;
    for (int d = 0; d <= DIFFTEXT_EDITS; d++) {
        int *v = p->trace[d] = mem_array((size_t)(2 * d + 1), sizeof *v);
        const int *last = d ? p->trace[d - 1] : NULL;
        if (!v)
            return -1;
        for (int k = -d; k <= d; k++) {
            int down = reach(last, d - 1, k + 1), right = reach(last, d - 1, k - 1) + 1;
            int x = d == 0 ? 0 : k == -d || (k != d && right - 1 < down) ? down : right;
            if (x < 0 || x - k < 0)
                x = k > 0 ? k : 0; /* off the edge: nothing is reached from here */
            while (x < n && x - k < m && x - k >= 0 && equal(p, (unsigned)x, (unsigned)(x - k)))
                x++;
            v[k + d] = x;
            if (x >= n && x - k >= m)
                return d;
        }
    }
    return -1;
}

static void walk_back(struct pair *p, int d)
{
    int x = (int)p->a.n, y = (int)p->b.n;
    for (; d > 0; d--) {
        int k = x - y;
        const int *last = p->trace[d - 1];
        int down = reach(last, d - 1, k + 1), right = reach(last, d - 1, k - 1) + 1;
        bool insert = k == -d || (k != d && right - 1 < down);
        int px = insert ? down : right - 1, py = insert ? px - (k + 1) : px - (k - 1);
        if (insert && py >= 0 && py < (int)p->b.n)
            p->come[py] = true;
        else if (!insert && px >= 0 && px < (int)p->a.n)
            p->gone[px] = true;
        x = px;
        y = py;
    }
}

static void put(struct buf *out, char mark, const struct side *s, unsigned i)
{
    buf_putc(out, mark);
    buf_str(out, s->line[i]);
    buf_putc(out, '\n');
    if (s->open && i + 1 == s->n)
        buf_puts(out, "\\ No newline at end of file\n");
}

static void head(struct buf *out, char mark, unsigned from, unsigned n)
{
    buf_printf(out, "%c%u", mark, n ? from + 1 : from);
    if (n != 1)
        buf_printf(out, ",%u", n);
    buf_putc(out, ' ');
}

/* One hunk from line x of the old and y of the new on; where it ends. */
static void hunk(const struct pair *p, unsigned *px, unsigned *py, struct buf *out)
{
    unsigned x = *px, y = *py, quiet = 0, ex = x, ey = y;
    while ((ex < p->a.n || ey < p->b.n) && quiet <= 2 * CONTEXT) {
        if (ex < p->a.n && p->gone[ex]) {
            ex++;
            quiet = 0;
        } else if (ey < p->b.n && p->come[ey]) {
            ey++;
            quiet = 0;
        } else {
            ex++;
            ey++;
            quiet++;
        }
    }
    unsigned back = quiet > CONTEXT ? quiet - CONTEXT : 0;
    ex -= back;
    ey -= back;
    buf_puts(out, "@@ ");
    head(out, '-', x, ex - x);
    head(out, '+', y, ey - y);
    buf_puts(out, "@@\n");
    while (x < ex || y < ey) {
        if (x < ex && p->gone[x])
            put(out, '-', &p->a, x++);
        else if (y < ey && p->come[y])
            put(out, '+', &p->b, y++);
        else {
            put(out, ' ', &p->a, x++);
            y++;
        }
    }
    *px = x;
    *py = y;
}

void difftext(struct str old, struct str new, struct buf *out)
{
    struct pair *p = mem_zalloc(sizeof *p);
    if (!p || !split(&p->a, old) || !split(&p->b, new)) {
        mem_free(p);
        return;
    }
    int d = search(p);
    if (d >= 0) {
        walk_back(p, d);
    } else {
        memset(p->gone, true, p->a.n);
        memset(p->come, true, p->b.n);
    }
    for (unsigned x = 0, y = 0; x < p->a.n || y < p->b.n;) {
        unsigned skip = 0; /* lines alike before the next edit */
        while (x + skip < p->a.n && y + skip < p->b.n && !p->gone[x + skip] && !p->come[y + skip])
            skip++;
        bool edit = (x + skip < p->a.n && p->gone[x + skip]) ||
                    (y + skip < p->b.n && p->come[y + skip]);
        if (!edit)
            break;
        unsigned lead = skip > CONTEXT ? skip - CONTEXT : 0;
        x += lead;
        y += lead;
        hunk(p, &x, &y, out);
    }
    for (unsigned i = 0; i < ARRAY_LEN(p->trace); i++)
        mem_free(p->trace[i]);
    mem_free(p);
}
