/*
 * dsml_states.c - the streaming reader's states (drawn in dsml_in.h). Each step looks at the
 * front of the window and either consumes something or asks for more; what could still become
 * a tag is never told as text. Every deviation from the format ends in one of three ways: a
 * note (harmless, repaired), a call that is provably whole, or a fault.
 */
#include <assert.h>
#include <string.h>

#include "agentd/dsml_in.h"

/* --- tags ----------------------------------------------------------------------------- */

enum tag_kind {
    TAG_NONE,   /* not a tag: text */
    TAG_PART,   /* could become one */
    TAG_BROKEN, /* starts as a tag and is none of ours */
    TAG_BLOCK,
    TAG_END_BLOCK,
    TAG_INVOKE,
    TAG_END_INVOKE,
    TAG_PARAM,
    TAG_END_PARAM,
};

struct tag {
    enum tag_kind kind;
    size_t n;  /* bytes, up to the attributes or behind the '>' */
    bool bare; /* without the DSML token */
    bool odd;  /* not the name that the format gives it */
};

static const struct {
    struct str word;
    enum tag_kind open, close;
    bool attributes, odd;
} words[] = {
    {{"function_calls", 14}, TAG_BLOCK, TAG_END_BLOCK, false, false},
    {{"tool_calls", 10}, TAG_BLOCK, TAG_END_BLOCK, false, true},
    {{"toolcalls", 9}, TAG_BLOCK, TAG_END_BLOCK, false, true},
    {{"tool-calls", 10}, TAG_BLOCK, TAG_END_BLOCK, false, true},
    {{"invoke", 6}, TAG_INVOKE, TAG_END_INVOKE, true, false},
    {{"parameter", 9}, TAG_PARAM, TAG_END_PARAM, true, false},
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_mark(char c)
{
    return (unsigned char)c >= MARK_FIRST;
}

static enum literal mark_of(char c)
{
    return (enum literal)((unsigned char)c - MARK_FIRST);
}

/* The word at s[at..]: sets kind and n; TAG_PART when s ends before that is certain. */
static void read_word(struct str s, size_t at, bool closing, struct tag *tag)
{
    struct str rest = str_sub(s, at, SIZE_MAX);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        struct str w = words[i].word;
        if (rest.n <= w.n) {
            if (str_starts(w, rest))
                tag->kind = TAG_PART;
            continue;
        }
        if (!str_starts(rest, w))
            continue;
        bool attributes = words[i].attributes && !closing;
        if (attributes ? !is_space(rest.p[w.n]) : rest.p[w.n] != '>')
            return;
        tag->kind = closing ? words[i].close : words[i].open;
        tag->odd = words[i].odd;
        tag->n = at + w.n + !attributes;
        return;
    }
}

/* The tag at the front of s, which starts with '<'. bare_too: DSML token or not. */
static struct tag read_tag(const struct dsml *d, struct str s, bool bare_too)
{
    struct tag tag = {TAG_PART, 0, true, false};
    size_t at = s.n > 1 && s.p[1] == '/' ? 2 : 1;
    if (s.n > at) {
        tag.bare = s.p[at] != MARK_DSML[0];
        tag.kind = tag.bare ? TAG_NONE : TAG_BROKEN;
        if (!tag.bare)
            read_word(s, at + 1, at == 2, &tag);
        else if (bare_too)
            read_word(s, at, at == 2, &tag);
    }
    if (tag.kind == TAG_PART && d->final)
        tag.kind = tag.bare ? TAG_NONE : TAG_BROKEN;
    return tag;
}

/* --- the end -------------------------------------------------------------------------- */

/* The call being read may end here, although its closing tag is missing. */
static bool finish_unclosed(struct dsml *d)
{
    if (d->n_keys == 0) {
        dsml_fault(d, true, DSML_CALL_TRUNCATED,
                   "The call was cut off before its first parameter. Write the whole call.");
        return false;
    }
    dsml_note(d, "a call without its closing tag was accepted: every parameter was closed");
    dsml_call_finish(d);
    return true;
}

/* What the end of the text means in this state. */
static void end(struct dsml *d)
{
    switch (d->state) {
    case DSML_STATE_THINKING:
        dsml_fault(d, false, DSML_THINKING_UNTERMINATED,
                   "The text ended inside the reasoning. Close it and answer.");
        return;
    case DSML_STATE_BLOCK:
        if (d->in_block && d->n_started == d->block_from) {
            dsml_fault(d, false, DSML_BLOCK_UNTERMINATED,
                       "The text ended at the start of a block of calls. Write the whole call.");
            return;
        }
        if (d->in_block)
            dsml_note(d, "a block of calls without its closing tag was accepted");
        break;
    case DSML_STATE_INVOKE:
        if (!finish_unclosed(d))
            return;
        break;
    case DSML_STATE_HEAD:
    case DSML_STATE_KEY:
    case DSML_STATE_VALUE:
        dsml_fault(d, d->state != DSML_STATE_HEAD, DSML_CALL_TRUNCATED,
                   "The call was cut off. Write the whole call again, shorter if it was long.");
        return;
    default:
        break;
    }
    dsml_flush(d);
    d->state = DSML_STATE_DONE;
}

/* Whether this mark ends the completion: EOS, and with tokens a start of another message. */
static bool ends_here(const struct dsml *d, char c)
{
    if (!is_mark(c))
        return false;
    enum literal which = mark_of(c);
    bool starts = which == LIT_USER || which == LIT_ASSISTANT || which == LIT_BOS;
    return which == LIT_EOS || (starts && d->o.tokens);
}

static bool end_at_mark(struct dsml *d)
{
    if (mark_of(dsml_rest(d).p[0]) != LIT_EOS)
        dsml_note(d, "the model wrote the start of a message instead of an end");
    d->at++;
    d->ended = true;
    end(d);
    return true;
}

/* Nothing left in the window: wait, or act on the end. No progress in either case. */
static bool starved(struct dsml *d)
{
    if (d->final)
        end(d);
    return false;
}

/* --- reasoning and answer ------------------------------------------------------------- */

static void open_calls(struct dsml *d, struct tag tag, size_t newlines)
{
    if (d->state == DSML_STATE_THINKING) {
        dsml_note(d, "calls began before the reasoning was closed");
        d->think_bytes = d->mark_at - 1 - newlines;
        d->think_over = true;
    }
    if (tag.bare)
        dsml_note(d, "tags without the DSML token were accepted");
    if (tag.odd)
        dsml_note(d, "the block of calls had another name");
    d->at += newlines + tag.n;
    d->bare = tag.bare;
    d->closed = false;
    d->in_block = tag.kind == TAG_BLOCK;
    d->block_from = d->n_started;
    d->state = d->in_block ? DSML_STATE_BLOCK : DSML_STATE_HEAD;
    if (!d->in_block)
        dsml_note(d, "a call without its outer block was accepted");
}

static bool mark_in_text(struct dsml *d, char c)
{
    enum literal which = mark_of(c);
    bool thinking = d->state == DSML_STATE_THINKING;
    if (ends_here(d, c))
        return end_at_mark(d);
    if (which == LIT_ENDTHINK && thinking) {
        d->think_bytes = d->raw_at;
        d->think_over = true;
        d->at++;
        d->state = DSML_STATE_ANSWER;
        d->last = '\n';
    } else if (which == LIT_THINK || which == LIT_ENDTHINK) {
        dsml_note(d, "a tag of the reasoning out of place was dropped");
        d->at++;
    } else if (which == LIT_DSML && !thinking) {
        dsml_fault(d, false, DSML_SPECIAL_TOKEN_IN_TEXT,
                   "The answer contains a marker of the call syntax. Write the call as shown.");
    } else {
        dsml_tell(d, 1);
    }
    return true;
}

/* Newlines, then perhaps a tag: the last two newlines before a block belong to it. */
static bool step_break(struct dsml *d, struct str s)
{
    size_t run = 0;
    while (run < s.n && s.p[run] == '\n')
        run++;
    bool thinking = d->state == DSML_STATE_THINKING;
    size_t spare = run > 2 ? run - 2 : 0;
    struct tag tag = {TAG_NONE, 0, false, false};
    if (run == s.n && !d->final)
        tag.kind = TAG_PART;
    else if (run < s.n && s.p[run] == '<')
        tag = read_tag(d, str_sub(s, run, SIZE_MAX),
                       d->o.tools && !thinking && (run || d->last == '\n'));
    if (tag.kind == TAG_PART || tag.kind == TAG_BLOCK || tag.kind == TAG_INVOKE) {
        dsml_tell(d, spare);
        if (tag.kind != TAG_PART)
            open_calls(d, tag, run - spare);
        return tag.kind != TAG_PART;
    }
    if (tag.kind != TAG_NONE && !tag.bare && !thinking) {
        dsml_fault(d, false, DSML_BLOCK_FORMAT,
                   "A tag of the call syntax stands outside of a block of calls. Write the "
                   "call as shown.");
        return true;
    }
    /* Newlines alone, or with the character that turned out to be text. */
    bool text = run < s.n && s.p[run] == '<';
    dsml_tell(d, run + text);
    return true;
}

static bool step_text(struct dsml *d)
{
    struct str s = dsml_rest(d);
    if (s.n == 0)
        return starved(d);
    size_t i = 0;
    while (i < s.n && s.p[i] != '\n' && s.p[i] != '<' && !is_mark(s.p[i]))
        i++;
    if (i) {
        dsml_tell(d, i);
        return true;
    }
    return is_mark(s.p[0]) ? mark_in_text(d, s.p[0]) : step_break(d, s);
}

/* --- calls ---------------------------------------------------------------------------- */

static struct str skip_space(struct dsml *d)
{
    struct str s = dsml_rest(d);
    size_t i = 0;
    while (i < s.n && is_space(s.p[i]))
        i++;
    d->at += i;
    return str_sub(s, i, SIZE_MAX);
}

/*
 * Between tags: skips white space and reads the tag that stands there (TAG_NONE: something
 * else does). False when the step is over, with what it is to return in *again.
 */
static bool tag_between(struct dsml *d, bool bare_too, struct tag *tag, bool *again)
{
    struct str s = skip_space(d);
    *tag = (struct tag){TAG_NONE, 0, true, false};
    *again = false;
    if (s.n == 0) {
        *again = starved(d);
        return false;
    }
    if (ends_here(d, s.p[0])) {
        *again = end_at_mark(d);
        return false;
    }
    if (s.p[0] == '<')
        *tag = read_tag(d, s, bare_too);
    return tag->kind != TAG_PART;
}

static bool close_block(struct dsml *d, struct tag tag)
{
    d->at += tag.n;
    if (d->n_started == d->block_from) {
        dsml_fault(d, false, DSML_BLOCK_FORMAT,
                   "The block of calls is empty. Write a call, or answer without a block.");
        return true;
    }
    d->closed = true;
    d->state = DSML_STATE_AFTER;
    return true;
}

static bool step_block(struct dsml *d)
{
    struct tag tag;
    bool again;
    if (!tag_between(d, d->bare, &tag, &again))
        return again;
    if (tag.kind == TAG_END_BLOCK)
        return close_block(d, tag);
    if (tag.kind == TAG_INVOKE) {
        d->at += tag.n;
        d->state = DSML_STATE_HEAD;
    } else if (!d->in_block && tag.kind == TAG_NONE) {
        d->state = DSML_STATE_AFTER;
    } else {
        dsml_fault(d, false, DSML_BLOCK_FORMAT,
                   "A block of calls may contain nothing but calls. Write the call as shown.");
    }
    return true;
}

static bool step_after(struct dsml *d)
{
    struct tag tag;
    bool again;
    if (!tag_between(d, false, &tag, &again))
        return again;
    if (tag.kind == TAG_BLOCK || tag.kind == TAG_INVOKE) {
        dsml_note(d, "a second block of calls was accepted");
        open_calls(d, tag, 0);
        return true;
    }
    if (!d->dropped)
        dsml_note(d, "text behind the calls was dropped");
    d->dropped = true;
    d->at++;
    return true;
}

enum { ATTRIBUTE_BYTES = LIMIT_NAME_BYTES + 32 };

/*
 * The attributes of a tag: everything up to `">`, which they end in. True when complete;
 * otherwise *again says whether the step made progress (it faulted) or waits.
 */
static bool read_attributes(struct dsml *d, enum dsml_code broken, struct str *out, bool *again)
{
    struct str s = dsml_rest(d);
    size_t n = str_find(s, STR("\">"), 0);
    /* A quote at the very end may be half of what is looked for: not yet part of a name. */
    size_t seen = n == STR_NONE ? s.n - str_ends(s, STR("\"")) : n, mark = 0;
    size_t judged = seen < ATTRIBUTE_BYTES ? seen : ATTRIBUTE_BYTES;
    bool call = d->state == DSML_STATE_KEY;
    *again = true;
    while (mark < judged && !is_mark(s.p[mark]))
        mark++;
    if (mark < judged && ends_here(d, s.p[mark])) {
        d->at += mark;
        end_at_mark(d);
    } else if (mark < judged) {
        dsml_fault(d, call, broken,
                   call ? "A marker stands inside a parameter tag. Write the call as shown."
                        : "A marker stands inside an invoke tag. Write the call as shown.");
    } else if (seen > ATTRIBUTE_BYTES) {
        dsml_fault(d, call, DSML_TOO_LONG, "A name in a call is too long.");
    } else if (n == STR_NONE) {
        *again = starved(d);
    } else {
        *out = str_sub(s, 0, n);
        while (out->n && is_space(out->p[0]))
            *out = str_sub(*out, 1, SIZE_MAX);
        return true;
    }
    return false;
}

static const struct str name_attribute = {"name=\"", 6};

static bool step_head(struct dsml *d)
{
    struct str s;
    bool again;
    if (!read_attributes(d, DSML_INVOKE_FORMAT, &s, &again))
        return again;
    size_t end_at = (size_t)(s.p + s.n - (const char *)d->window.data) + 2;
    struct str name = str_sub(s, name_attribute.n, SIZE_MAX);
    if (!str_starts(s, name_attribute) || name.n == 0) {
        dsml_fault(d, false, DSML_INVOKE_FORMAT,
                   "The invoke tag must be written with name=\"...\" and nothing else.");
    } else if (d->n_started == LIMIT_CALLS_PER_MESSAGE) {
        dsml_fault(d, false, DSML_TOO_MANY_CALLS, "Too many calls in one message.");
    } else {
        dsml_call_begin(d, name);
        d->at = end_at;
        d->state = DSML_STATE_INVOKE;
    }
    return true;
}

static bool step_invoke(struct dsml *d)
{
    struct tag tag;
    bool again;
    if (!tag_between(d, d->bare, &tag, &again))
        return again;
    switch (tag.kind) {
    case TAG_PARAM:
        d->at += tag.n;
        d->state = DSML_STATE_KEY;
        break;
    case TAG_END_INVOKE:
        d->at += tag.n;
        dsml_call_finish(d);
        d->state = DSML_STATE_BLOCK;
        break;
    case TAG_END_BLOCK:
        if (finish_unclosed(d))
            close_block(d, tag);
        break;
    case TAG_INVOKE:
        if (finish_unclosed(d)) {
            d->at += tag.n;
            d->state = DSML_STATE_HEAD;
        }
        break;
    default:
        dsml_fault(d, true, DSML_INVOKE_FORMAT,
                   "Between the invoke tags there may be nothing but parameter tags, written "
                   "as shown.");
    }
    return true;
}

static bool step_key(struct dsml *d)
{
    struct str s;
    bool again;
    if (!read_attributes(d, DSML_PARAMETER_FORMAT, &s, &again))
        return again;
    size_t end_at = (size_t)(s.p + s.n - (const char *)d->window.data) + 2;
    bool yes = str_ends(s, STR("\" string=\"true")), no = str_ends(s, STR("\" string=\"false"));
    size_t tail = yes ? 14 : 15;
    if (!str_starts(s, name_attribute) || !(yes || no) || s.n < name_attribute.n + tail) {
        dsml_fault(d, true, DSML_PARAMETER_FORMAT,
                   "A parameter tag must be written with name=\"...\" and string=\"true\" or "
                   "string=\"false\".");
        return true;
    }
    struct str key = str_sub(s, name_attribute.n, s.n - name_attribute.n - tail);
    if (dsml_param_begin(d, key, yes)) {
        d->at = end_at;
        d->state = DSML_STATE_VALUE;
    }
    return true;
}

static bool value_text(struct dsml *d, size_t n)
{
    dsml_param_add(d, str_sub(dsml_rest(d), 0, n));
    d->at += n;
    return true;
}

static bool step_value(struct dsml *d)
{
    struct str s = dsml_rest(d);
    if (s.n == 0)
        return starved(d);
    size_t i = 0;
    while (i < s.n && s.p[i] != '<' && !is_mark(s.p[i]))
        i++;
    if (i)
        return value_text(d, i);
    struct tag tag = {TAG_NONE, 0, true, false};
    if (s.p[0] == '<')
        tag = read_tag(d, s, d->bare);
    else if (d->o.tokens && ends_here(d, s.p[0]))
        return end_at_mark(d);
    else if (mark_of(s.p[0]) == LIT_DSML)
        tag = (struct tag){TAG_BROKEN, 0, false, false};
    if (tag.kind == TAG_PART)
        return false;
    /* Spelled out by text, a marker that forms no tag of ours may belong to the value. */
    if (tag.kind == TAG_NONE || (tag.kind == TAG_BROKEN && !d->o.tokens))
        return value_text(d, 1);
    if (tag.kind == TAG_END_PARAM) {
        d->at += tag.n;
        if (dsml_param_end(d))
            d->state = DSML_STATE_INVOKE;
        return true;
    }
    dsml_fault(d, true, DSML_PARAMETER_FORMAT,
               "A parameter value ran into the next tag: its closing tag is missing or wrong.");
    return true;
}

/* --- all together --------------------------------------------------------------------- */

static bool step_ignore(struct dsml *d)
{
    struct str s = dsml_rest(d);
    for (size_t i = 0; i < s.n && !d->ended; i++)
        d->ended = ends_here(d, s.p[i]);
    d->at += s.n;
    return false;
}

bool dsml_step(struct dsml *d)
{
    static bool (*const steps[DSML_N_STATES])(struct dsml *) = {
        [DSML_STATE_THINKING] = step_text, [DSML_STATE_ANSWER] = step_text,
        [DSML_STATE_BLOCK] = step_block,   [DSML_STATE_HEAD] = step_head,
        [DSML_STATE_INVOKE] = step_invoke, [DSML_STATE_KEY] = step_key,
        [DSML_STATE_VALUE] = step_value,   [DSML_STATE_AFTER] = step_after,
        [DSML_STATE_DONE] = step_ignore,   [DSML_STATE_FAULT] = step_ignore,
    };
    assert(d->at <= d->window.len || d->window.failed);
    if (d->window.failed) {
        d->at = d->window.len;
        return false;
    }
    return steps[d->state](d);
}
