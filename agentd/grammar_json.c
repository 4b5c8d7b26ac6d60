/*
 * grammar_json.c - the automaton inside a value with string="false": JSON of the schema's types
 * only, with at most one space behind a comma or colon, so that white space cannot go on
 * forever. Numbers are bounded in length for the same reason. What no reader of ours takes is
 * not offered: NUL, integers beyond 64 bits.
 */
#include <string.h>

#include "agentd/grammar_in.h"

static const char *const words[] = {"true", "false", "null"};

/* Where a number is; the value says whether it may end there. */
enum { NUM_MINUS, NUM_ZERO, NUM_INT, NUM_POINT, NUM_FRACTION, NUM_E, NUM_SIGN, NUM_EXPONENT };

static bool number_may_end(uint8_t at)
{
    return at == NUM_ZERO || at == NUM_INT || at == NUM_FRACTION || at == NUM_EXPONENT;
}

static const struct grammar_node *node_of(const struct grammar *g, const struct grammar_state *s)
{
    return &g->node[s->node];
}

static bool go(struct grammar_state *s, uint8_t json, uint8_t sub)
{
    s->json = json;
    s->sub = sub;
    s->lo = s->hi = s->len = 0;
    s->number = 0;
    s->value = 0;
    s->negative = 0;
    return true;
}

void json_begin(struct grammar_state *s, uint16_t node)
{
    s->node = node;
    s->depth = 0;
    go(s, JSON_VALUE, 0);
}

/* A value is complete: back into what contains it. */
static bool leave(struct grammar_state *s)
{
    s->node = s->depth ? s->stack[s->depth - 1].node : 0;
    return go(s, s->depth ? JSON_NEXT : JSON_DONE, 0);
}

static bool push(struct grammar_state *s, bool object)
{
    if (s->depth == GRAMMAR_DEPTH)
        return false;
    s->stack[s->depth++] = (struct grammar_frame){.node = s->node, .object = object};
    return go(s, JSON_FIRST, 0);
}

static bool pop(struct grammar_state *s)
{
    memset(&s->stack[--s->depth], 0, sizeof(s->stack[0]));
    return leave(s);
}

/* At the top only what is no string: a string there has string="true". */
static bool begin_string(struct grammar_state *s)
{
    return s->depth > 0 && go(s, JSON_STRING, 0);
}

/*
 * Whether digits that begin with `value` (not 0) can still become a number within the bounds:
 * for some k, [value * 10^k, value * 10^k + 10^k - 1] meets them.
 */
static bool reachable(const struct grammar_node *n, uint64_t value, bool negative)
{
    if (negative ? n->lo > 0 : n->hi < 0)
        return false;
    uint64_t lo = (uint64_t)(negative ? (n->hi < 0 ? -n->hi : 0) : (n->lo > 0 ? n->lo : 0));
    uint64_t hi = (uint64_t)(negative ? -n->lo : n->hi);
    if (value == 0)
        return lo == 0;
    for (uint64_t k = 1; value <= hi / k; k *= 10)
        if (value * k + (k - 1) >= lo)
            return true;
    return false;
}

static bool in_bounds(const struct grammar_node *n, const struct grammar_state *s)
{
    int64_t v = (int64_t)s->value;
    return !n->bounded || ((s->negative ? -v : v) >= n->lo && (s->negative ? -v : v) <= n->hi);
}

/* The first character of a number. */
static bool begin_number(const struct grammar_node *n, struct grammar_state *s, int c)
{
    go(s, JSON_NUMBER, c == '-' ? NUM_MINUS : c == '0' ? NUM_ZERO : NUM_INT);
    if (!n->bounded)
        return true;
    s->negative = c == '-';
    s->value = c == '-' ? 0 : (uint64_t)(c - '0');
    if (c == '-') /* "-0" is a way to write 0 that nobody needs */
        return n->lo < 0;
    return reachable(n, s->value, false);
}

static bool begin_value(const struct grammar *g, struct grammar_state *s, int c)
{
    const struct grammar_node *n = node_of(g, s);
    if (n->values.n) {
        s->lo = n->values.first;
        s->hi = (uint16_t)(n->values.first + n->values.n);
        s->len = 0;
        s->json = JSON_ENUM;
        return (s->depth > 0 || c != '"') && grammar_narrow(g, s, 0, 0, c);
    }
    bool number = n->types & (DSML_NUMBER | DSML_INTEGER);
    switch (c) {
    case '"':
        return (n->types & DSML_STRING) && begin_string(s);
    case '[':
        return (n->types & DSML_ARRAY) && push(s, false);
    case '{':
        return (n->types & DSML_OBJECT) && push(s, true);
    case 't':
    case 'f':
    case 'n':
        go(s, JSON_WORD, c == 't' ? 0 : c == 'f' ? 1 : 2);
        s->len = 1;
        return n->types & (c == 'n' ? DSML_NULL : DSML_BOOLEAN);
    default:
        return number && (c == '-' || (c >= '0' && c <= '9')) && begin_number(n, s, c);
    }
}

/* -1, or where the number is behind c. */
static int number_next(uint8_t at, int c, bool fraction)
{
    bool digit = c >= '0' && c <= '9';
    switch (at) {
    case NUM_MINUS:
        return c == '0' ? NUM_ZERO : digit ? NUM_INT : -1;
    case NUM_ZERO:
    case NUM_INT:
        if (digit)
            return at == NUM_INT ? NUM_INT : -1;
        return c == '.' && fraction ? NUM_POINT : c == 'e' && fraction ? NUM_E : -1;
    case NUM_POINT:
    case NUM_FRACTION:
        if (digit)
            return NUM_FRACTION;
        return c == 'e' && at == NUM_FRACTION ? NUM_E : -1;
    case NUM_E:
        return c == '-' || c == '+' ? NUM_SIGN : digit ? NUM_EXPONENT : -1;
    default: /* two digits of exponent: always a double */
        return digit ? NUM_EXPONENT : -1;
    }
}

static bool step_next(const struct grammar *g, struct grammar_state *s, int c);

static bool step_number(const struct grammar *g, struct grammar_state *s, int c)
{
    const struct grammar_node *n = node_of(g, s);
    int next = number_next(s->sub, c, n->types & DSML_NUMBER);
    if (next < 0)
        return number_may_end(s->sub) && in_bounds(n, s) && s->depth && leave(s) &&
               step_next(g, s, c);
    if (next == NUM_INT && s->number + 1 >= GRAMMAR_DIGITS)
        return false;
    if (n->bounded) { /* of digits alone */
        s->value = s->value * 10 + (uint64_t)(c - '0');
        if (s->value == 0 || !reachable(n, s->value, s->negative))
            return false;
    }
    /* len counts the digits of the exponent. */
    s->len = (uint16_t)(next == NUM_EXPONENT ? s->len + 1 : 0);
    if (++s->number > GRAMMAR_NUMBER || s->len > 2)
        return false;
    s->sub = (uint8_t)next;
    return true;
}

static bool is_hex(int c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

/* One byte of a string or free key; *closed when it was the quote. sub: 0 text, 1 behind '\\',
 * 2 to 5 before that hex digit, 6 behind \ud, 7 to 9 the same as 3 to 5 with zeros alone so far. */
static bool string_byte(struct grammar_state *s, int c, bool *closed)
{
    *closed = false;
    switch (s->sub) {
    case 0:
        *closed = c == '"';
        s->sub = c == '\\';
        return c >= 0x20;
    case 1:
        s->sub = c == 'u' ? 2 : 0;
        return c && strchr("\"\\/bfnrtu", c);
    case 2: /* a surrogate would begin with d8..df: not offered */
        s->sub = (c | 32) == 'd' ? 6 : c == '0' ? 7 : 3;
        return is_hex(c);
    case 6:
        s->sub = 4;
        return c >= '0' && c <= '7';
    case 7:
    case 8:
        s->sub = (uint8_t)(c == '0' ? s->sub + 1 : s->sub - 3);
        return is_hex(c);
    case 9: /* \u0000 is not offered */
        s->sub = 0;
        return is_hex(c) && c != '0';
    default:
        s->sub = (uint8_t)(s->sub == 5 ? 0 : s->sub + 1);
        return is_hex(c);
    }
}

static bool step_string(struct grammar_state *s, int c)
{
    bool closed;
    bool ok = string_byte(s, c, &closed);
    return ok && closed ? leave(s) : ok;
}

static struct grammar_frame *top(struct grammar_state *s)
{
    return &s->stack[s->depth - 1];
}

static bool keys_left(const struct grammar *g, struct grammar_state *s)
{
    const struct grammar_node *n = &g->node[top(s)->node];
    uint64_t all = n->keys.n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n->keys.n) - 1;
    return !n->closed || (all & ~top(s)->used);
}

/* Behind the quote of a key. An object that names its keys offers those alone. */
static bool begin_key(const struct grammar *g, struct grammar_state *s)
{
    const struct grammar_node *n = &g->node[top(s)->node];
    if (!n->keys.n && !n->closed)
        return go(s, JSON_KEY, 0);
    go(s, JSON_CHOICE, 0);
    s->lo = n->keys.first;
    s->hi = (uint16_t)(n->keys.first + n->keys.n);
    return true;
}

static bool step_choice(const struct grammar *g, struct grammar_state *s, int c)
{
    uint16_t first = g->node[top(s)->node].keys.first;
    int whole = grammar_whole(g, s, first, top(s)->used);
    if (c == '"' && whole >= 0) {
        top(s)->used |= (uint64_t)1 << (whole - first);
        s->node = g->child[whole];
        return go(s, JSON_COLON, 0);
    }
    return c != '"' && c != '\\' && c >= 0x20
           && grammar_narrow(g, s, first, top(s)->used, c);
}

static bool step_key(struct grammar_state *s, int c)
{
    bool closed;
    if (!string_byte(s, c, &closed))
        return false;
    if (closed) {
        s->node = GRAMMAR_ANY;
        go(s, JSON_COLON, 0);
    }
    return true;
}

static bool may_close(const struct grammar *g, struct grammar_state *s)
{
    const struct grammar_node *n = &g->node[top(s)->node];
    return top(s)->object ? (n->required & ~top(s)->used) == 0 : top(s)->items >= n->min_items;
}

static bool room(const struct grammar *g, struct grammar_state *s)
{
    return top(s)->items < g->node[top(s)->node].max_items;
}

static bool element(const struct grammar *g, struct grammar_state *s, int c)
{
    const struct grammar_node *n = &g->node[top(s)->node];
    if (!room(g, s))
        return false;
    if (n->min_items || n->max_items < GRAMMAR_ITEMS) /* else every place is alike */
        top(s)->items++;
    s->node = n->items;
    return begin_value(g, s, c);
}

static bool step_first(const struct grammar *g, struct grammar_state *s, int c)
{
    if (c == (top(s)->object ? '}' : ']'))
        return may_close(g, s) && pop(s);
    if (!top(s)->object)
        return element(g, s, c);
    return c == '"' && keys_left(g, s) && begin_key(g, s);
}

static bool step_next(const struct grammar *g, struct grammar_state *s, int c)
{
    if (c == (top(s)->object ? '}' : ']'))
        return may_close(g, s) && pop(s);
    bool more = top(s)->object ? !g->node[top(s)->node].keys.n || keys_left(g, s) : room(g, s);
    return c == ',' && more && go(s, JSON_COMMA, 0);
}

/* sub 1: the space was written. */
static bool step_comma(const struct grammar *g, struct grammar_state *s, int c)
{
    if (c == ' ' && s->sub == 0) {
        s->sub = 1;
        return true;
    }
    return top(s)->object ? c == '"' && begin_key(g, s) : element(g, s, c);
}

/* sub 0: the colon is due; 1: a space or the value; 2: the value. */
static bool step_colon(const struct grammar *g, struct grammar_state *s, int c)
{
    if (s->sub == 0 || (s->sub == 1 && c == ' ')) {
        bool ok = s->sub == 1 || c == ':';
        s->sub++;
        return ok;
    }
    return begin_value(g, s, c);
}

static bool step_word(struct grammar_state *s, int c)
{
    const char *w = words[s->sub];
    if (w[s->len] != c)
        return false;
    return w[++s->len] ? true : leave(s);
}

static bool step_enum(const struct grammar *g, struct grammar_state *s, int c)
{
    struct grammar_state longer = *s;
    if (grammar_narrow(g, &longer, 0, 0, c)) {
        *s = longer;
        return true;
    }
    return grammar_whole(g, s, 0, 0) >= 0 && s->depth && leave(s) && step_next(g, s, c);
}

bool json_step(const struct grammar *g, struct grammar_state *s, int c)
{
    switch ((enum grammar_json)s->json) {
    case JSON_VALUE:
        return begin_value(g, s, c);
    case JSON_FIRST:
        return step_first(g, s, c);
    case JSON_STRING:
        return step_string(s, c);
    case JSON_KEY:
        return step_key(s, c);
    case JSON_CHOICE:
        return step_choice(g, s, c);
    case JSON_WORD:
        return step_word(s, c);
    case JSON_NUMBER:
        return step_number(g, s, c);
    case JSON_ENUM:
        return step_enum(g, s, c);
    case JSON_COLON:
        return step_colon(g, s, c);
    case JSON_NEXT:
        return step_next(g, s, c);
    case JSON_COMMA:
        return step_comma(g, s, c);
    case JSON_DONE:
        break;
    }
    return false;
}

bool json_complete(const struct grammar *g, const struct grammar_state *s)
{
    if (s->depth)
        return false;
    return s->json == JSON_DONE
           || (s->json == JSON_NUMBER && number_may_end(s->sub) && in_bounds(node_of(g, s), s))
           || (s->json == JSON_ENUM && grammar_whole(g, s, 0, 0) >= 0);
}
