/*
 * grammar.c - the automaton outside of JSON values: text, tags, names. The tags are the ones
 * that prompt.c writes, byte for byte; of all the shapes that dsml.c forgives none can arise.
 */
#include "agentd/grammar_in.h"

#include <string.h>

#define M "\xfc" /* stands for the DSML token; no byte of UTF-8 text */
enum { MARK = 0xFC };

/* Fixed texts, and where they lead. */
enum { SEQ_BLOCK, SEQ_INVOKE, SEQ_TOOL_END, SEQ_PARAM, SEQ_KEY_END, SEQ_TRUE, SEQ_FALSE,
       SEQ_VALUE_END, SEQ_PARAM_END, SEQ_INVOKE_END, SEQ_EMPTY, SEQ_BLOCK_END, N_SEQS };
static const struct {
    const char *text;
    uint8_t next;
} seqs[N_SEQS] = {
    [SEQ_BLOCK] = {"function_calls>\n<" M "invoke name=\"", AT_TOOL}, /* behind <DSML */
    [SEQ_INVOKE] = {"invoke name=\"", AT_TOOL},
    [SEQ_TOOL_END] = {">\n", AT_PARAMS}, /* behind the quote */
    [SEQ_PARAM] = {"parameter name=\"", AT_KEY},
    [SEQ_KEY_END] = {" string=\"", AT_FLAG},
    [SEQ_TRUE] = {"rue\">", AT_STRING}, /* behind its first letter */
    [SEQ_FALSE] = {"alse\">", AT_JSON},
    [SEQ_VALUE_END] = {"/" M "parameter>\n", AT_PARAMS}, /* behind < */
    [SEQ_PARAM_END] = {"parameter>\n", AT_PARAMS},       /* behind </DSML */
    [SEQ_INVOKE_END] = {M "invoke>\n", AT_BLOCK},        /* behind </ */
    [SEQ_EMPTY] = {"</" M "invoke>\n", AT_BLOCK},        /* behind the empty line */
    [SEQ_BLOCK_END] = {M "function_calls>", AT_END},
};

bool grammar_narrow(const struct grammar *g, struct grammar_state *s, uint16_t first,
                    uint64_t skip, int byte)
{
    uint16_t lo = s->hi, hi = s->lo;
    for (uint16_t i = s->lo; i < s->hi; i++) {
        struct str t = g->text[i];
        bool skipped = i - first < 64 && (skip >> (i - first) & 1);
        if (skipped || t.n <= s->len || (unsigned char)t.p[s->len] != byte)
            continue;
        if (lo == s->hi)
            lo = i;
        hi = (uint16_t)(i + 1);
    }
    if (lo >= hi)
        return false;
    s->lo = lo;
    s->hi = hi;
    s->len++;
    return true;
}

int grammar_whole(const struct grammar *g, const struct grammar_state *s, uint16_t first,
                  uint64_t skip)
{
    /* Sorted, and all in range share what was written: a whole one comes first. */
    for (uint16_t i = s->lo; i < s->hi; i++) {
        bool skipped = i - first < 64 && (skip >> (i - first) & 1);
        if (!skipped && g->text[i].n == s->len)
            return i;
    }
    return -1;
}

static void candidates(struct grammar_state *s, struct grammar_list list)
{
    s->lo = list.first;
    s->hi = (uint16_t)(list.first + list.n);
    s->len = 0;
}

static const struct grammar_node *params_of(const struct grammar *g,
                                            const struct grammar_state *s)
{
    return &g->node[g->child[s->tool]];
}

static const struct grammar_node *value_of(const struct grammar *g,
                                           const struct grammar_state *s)
{
    return &g->node[g->child[s->param]];
}

static void enter(const struct grammar *g, struct grammar_state *s, uint8_t place)
{
    s->place = place;
    s->seq = s->pos = s->tail = 0;
    s->lo = s->hi = s->len = 0;
    switch (place) {
    case AT_TOOL:
        candidates(s, g->tools);
        s->used = 0;
        s->n_calls++;
        break;
    case AT_KEY:
        candidates(s, params_of(g, s)->keys);
        break;
    case AT_STRING:
        if (value_of(g, s)->strings.n) {
            candidates(s, value_of(g, s)->strings);
            s->place = AT_ENUM;
        }
        break;
    case AT_JSON:
        json_begin(s, g->child[s->param]);
        break;
    default:
        break;
    }
}

static bool fixed(struct grammar_state *s, uint8_t seq)
{
    s->place = AT_FIXED;
    s->seq = seq;
    s->pos = s->tail = 0;
    s->lo = s->hi = s->len = 0;
    return true;
}

static bool step_fixed(const struct grammar *g, struct grammar_state *s, int symbol)
{
    const char *text = seqs[s->seq].text;
    int want = (unsigned char)text[s->pos];
    if (symbol != (want == MARK ? SYMBOL_LITERAL + LIT_DSML : want))
        return false;
    if (!text[++s->pos])
        enter(g, s, seqs[s->seq].next);
    return true;
}

static bool step_answer(const struct grammar *g, struct grammar_state *s, int symbol)
{
    if (symbol == SYMBOL_LITERAL + LIT_EOS) {
        enter(g, s, AT_ENDED);
        return true;
    }
    if (symbol == SYMBOL_LITERAL + LIT_DSML)
        return s->tail == 3 && g->tools.n && fixed(s, SEQ_BLOCK);
    if (symbol == '\n')
        s->tail = (uint8_t)(s->tail == 0 || s->tail == 3 ? 1 : 2);
    else
        s->tail = symbol == '<' && s->tail == 2 ? 3 : 0;
    return symbol < SYMBOL_LITERAL;
}

static bool all_given(const struct grammar *g, const struct grammar_state *s)
{
    return (params_of(g, s)->required & ~s->used) == 0;
}

static bool any_left(const struct grammar *g, const struct grammar_state *s)
{
    uint16_t n = params_of(g, s)->keys.n;
    uint64_t all = n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1;
    return (all & ~s->used) != 0;
}

static bool step_params(const struct grammar *g, struct grammar_state *s, int symbol)
{
    if (symbol == '\n')
        return s->used == 0 && all_given(g, s) && fixed(s, SEQ_EMPTY);
    if (symbol != '<' || !(any_left(g, s) || s->used))
        return false;
    enter(g, s, AT_PARAMS_TAG);
    return true;
}

static bool step_params_tag(const struct grammar *g, struct grammar_state *s, int symbol)
{
    if (symbol == SYMBOL_LITERAL + LIT_DSML)
        return any_left(g, s) && fixed(s, SEQ_PARAM);
    return symbol == '/' && s->used && all_given(g, s) && fixed(s, SEQ_INVOKE_END);
}

static bool step_tool(const struct grammar *g, struct grammar_state *s, int symbol)
{
    int whole = grammar_whole(g, s, 0, 0);
    if (symbol == '"' && whole >= 0) {
        s->tool = (uint16_t)whole;
        return fixed(s, SEQ_TOOL_END);
    }
    return grammar_narrow(g, s, 0, 0, symbol);
}

static bool step_key(const struct grammar *g, struct grammar_state *s, int symbol)
{
    uint16_t first = params_of(g, s)->keys.first;
    int whole = grammar_whole(g, s, first, s->used);
    if (symbol == '"' && whole >= 0) {
        s->param = (uint16_t)whole;
        s->used |= (uint64_t)1 << (whole - first);
        return fixed(s, SEQ_KEY_END);
    }
    return grammar_narrow(g, s, first, s->used, symbol);
}

static bool step_flag(const struct grammar *g, struct grammar_state *s, int symbol)
{
    unsigned types = value_of(g, s)->types;
    if (symbol == 't')
        return (types & DSML_STRING) && fixed(s, SEQ_TRUE);
    return symbol == 'f' && (types & ~(unsigned)DSML_STRING) && fixed(s, SEQ_FALSE);
}

static bool step_string(struct grammar_state *s, int symbol)
{
    if (symbol == SYMBOL_LITERAL + LIT_DSML)
        return s->tail == 2 && fixed(s, SEQ_PARAM_END);
    s->tail = symbol == '<' ? 1 : symbol == '/' && s->tail == 1 ? 2 : 0;
    return symbol < SYMBOL_LITERAL;
}

static bool step_enum(const struct grammar *g, struct grammar_state *s, int symbol)
{
    struct grammar_state longer = *s;
    if (grammar_narrow(g, &longer, 0, 0, symbol)) {
        *s = longer;
        return true;
    }
    return symbol == '<' && grammar_whole(g, s, 0, 0) >= 0 && fixed(s, SEQ_VALUE_END);
}

static void forget_json(struct grammar_state *s)
{
    memset(s->stack, 0, sizeof(s->stack));
    s->json = s->sub = s->depth = s->number = 0;
    s->node = 0;
    s->value = 0;
    s->negative = 0;
}

static bool step_json(const struct grammar *g, struct grammar_state *s, int symbol)
{
    if (symbol == '<' && json_complete(g, s)) {
        forget_json(s);
        return fixed(s, SEQ_VALUE_END);
    }
    return symbol < SYMBOL_LITERAL && json_step(g, s, symbol);
}

static bool step_block(const struct grammar *g, struct grammar_state *s, int symbol)
{
    if (symbol != '<')
        return false;
    enter(g, s, AT_BLOCK_TAG);
    return true;
}

static bool step_block_tag(struct grammar_state *s, int symbol)
{
    if (symbol == SYMBOL_LITERAL + LIT_DSML)
        return s->n_calls < LIMIT_CALLS_PER_MESSAGE && fixed(s, SEQ_INVOKE);
    return symbol == '/' && fixed(s, SEQ_BLOCK_END);
}

bool grammar_step(const struct grammar *g, struct grammar_state *s, int symbol)
{
    if (symbol == 0) /* NUL: no argument may hold one, and no text needs it */
        return false;
    switch ((enum grammar_place)s->place) {
    case AT_THINKING:
        if (symbol == SYMBOL_LITERAL + LIT_ENDTHINK)
            enter(g, s, AT_ANSWER);
        return symbol < SYMBOL_LITERAL || symbol == SYMBOL_LITERAL + LIT_ENDTHINK;
    case AT_ANSWER:
        return step_answer(g, s, symbol);
    case AT_FIXED:
        return step_fixed(g, s, symbol);
    case AT_TOOL:
        return step_tool(g, s, symbol);
    case AT_PARAMS:
        return step_params(g, s, symbol);
    case AT_PARAMS_TAG:
        return step_params_tag(g, s, symbol);
    case AT_KEY:
        return step_key(g, s, symbol);
    case AT_FLAG:
        return step_flag(g, s, symbol);
    case AT_STRING:
        return step_string(s, symbol);
    case AT_ENUM:
        return step_enum(g, s, symbol);
    case AT_JSON:
        return step_json(g, s, symbol);
    case AT_BLOCK:
        return step_block(g, s, symbol);
    case AT_BLOCK_TAG:
        return step_block_tag(s, symbol);
    case AT_END:
        if (symbol != SYMBOL_LITERAL + LIT_EOS)
            return false;
        enter(g, s, AT_ENDED);
        return true;
    case AT_ENDED:
        break;
    }
    return false;
}

bool grammar_is_free(const struct grammar_state *s)
{
    return s->place == AT_THINKING || s->place == AT_ANSWER || s->place == AT_STRING;
}
