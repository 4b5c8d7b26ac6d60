/*
 * dsml.c - the streaming reader's outside: bytes in, whole characters and marks into the
 * window, deltas out. What they mean is decided in dsml_states.c.
 */
#include "agentd/dsml.h"

#include <string.h>

#include "agentd/dsml_in.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

int dsml_new(struct dsml **out, const struct dsml_opts *o, const struct dsml_events *ev,
             void *arg, struct err *err)
{
    struct dsml *d = mem_zalloc(sizeof(*d));
    if (!d)
        return err_nomem(err);
    d->o = *o;
    d->ev = *ev;
    d->arg = arg;
    d->state = o->thinking ? DSML_STATE_THINKING : DSML_STATE_ANSWER;
    d->think_over = !o->thinking;
    d->last = '\n';
    *out = d;
    return 0;
}

void dsml_free(struct dsml *d)
{
    if (!d)
        return;
    struct buf *all[] = {&d->raw,  &d->window, &d->delta, &d->name,
                         &d->args, &d->keys,   &d->value};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        buf_done(all[i]);
    mem_free(d);
}

/* --- telling -------------------------------------------------------------------------- */

void dsml_flush(struct dsml *d)
{
    void (*tell)(void *, struct str) = d->delta_thinking ? d->ev.thinking : d->ev.text;
    if (d->delta.len && tell)
        tell(d->arg, buf_view(&d->delta));
    buf_truncate(&d->delta, 0);
}

void dsml_spell(struct buf *out, struct str s)
{
    for (size_t i = 0, from = 0; i <= s.n; i++) {
        bool mark = i < s.n && (unsigned char)s.p[i] >= MARK_FIRST;
        if (!mark && i < s.n)
            continue;
        buf_add(out, s.p + from, i - from);
        if (mark)
            buf_str(out, literal_text((enum literal)((unsigned char)s.p[i] - MARK_FIRST)));
        from = i + 1;
    }
}

void dsml_tell(struct dsml *d, size_t n)
{
    bool thinking = d->state == DSML_STATE_THINKING;
    if (d->delta_thinking != thinking)
        dsml_flush(d);
    d->delta_thinking = thinking;
    dsml_spell(&d->delta, str_sub(dsml_rest(d), 0, n));
    d->at += n;
    if (!thinking && n)
        d->last = (char)d->window.data[d->at - 1];
}

void dsml_note(struct dsml *d, const char *sentence)
{
    if (d->n_notes++ < DSML_MAX_NOTES && d->ev.note)
        d->ev.note(d->arg, sentence);
}

void dsml_fault(struct dsml *d, bool call, enum dsml_code code, const char *sentence)
{
    dsml_flush(d);
    d->state = DSML_STATE_FAULT;
    if (d->ev.fault)
        d->ev.fault(d->arg, call ? (int64_t)d->n_started - 1 : -1, code, sentence);
}

struct str dsml_rest(const struct dsml *d)
{
    return str_sub(buf_view(&d->window), d->at, SIZE_MAX);
}

/* --- reading -------------------------------------------------------------------------- */

static void run(struct dsml *d)
{
    while (dsml_step(d))
        continue;
    buf_consume(&d->window, d->at);
    d->at = 0;
}

static void push_mark(struct dsml *d, enum literal which)
{
    run(d); /* what a mark before this one meant must be settled: mark_at serves one */
    buf_putc(&d->window, (char)(MARK_FIRST + which));
    if (which == LIT_DSML)
        d->mark_at = d->raw_at;
}

static bool literal_at(struct str s, enum literal *which)
{
    for (int i = 0; i < LIT_COUNT; i++) {
        if (str_starts(s, literal_text((enum literal)i))) {
            *which = (enum literal)i;
            return true;
        }
    }
    return false;
}

/* Moves one character or mark from the raw bytes to the window: bytes taken, 0 = wait. */
static size_t take_one(struct dsml *d, struct str raw, bool all)
{
    enum literal which;
    unsigned char c = (unsigned char)raw.p[0];
    if (!d->o.tokens && (c == '<' || c == 0xEF)) {
        if (literal_at(raw, &which)) {
            push_mark(d, which);
            return literal_text(which).n;
        }
        if (!all && literal_partial(raw) == raw.n)
            return 0;
    }
    uint32_t cp;
    size_t n = utf8_decode(raw, 0, &cp);
    if (n == 0) {
        if (!all && utf8_complete(raw) == 0)
            return 0;
        buf_puts(&d->window, REPLACEMENT);
        return 1;
    }
    buf_add(&d->window, raw.p, n);
    return n;
}

/* Empties `raw` into the window as far as it is certain; a mark is acted upon at once, so
 * that raw_at is its end when its meaning is decided. */
static void lex(struct dsml *d, bool all)
{
    struct str raw = buf_view(&d->raw);
    size_t used = 0;
    while (used < raw.n && !d->raw.failed) {
        size_t n = take_one(d, str_sub(raw, used, SIZE_MAX), all);
        if (n == 0)
            break;
        used += n;
        d->raw_at += n;
        if (d->window.len && d->window.data[d->window.len - 1] >= MARK_FIRST)
            run(d);
    }
    buf_consume(&d->raw, used);
    run(d);
}

static int check(struct dsml *d, struct err *err)
{
    dsml_flush(d);
    const struct buf *all[] = {&d->raw,  &d->window, &d->delta, &d->name,
                               &d->args, &d->keys,   &d->value};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i]->failed)
            return err_nomem(err);
    }
    return 0;
}

int dsml_feed(struct dsml *d, struct str bytes, bool special, struct err *err)
{
    enum literal which;
    if (d->o.tokens && special && literal_at(bytes, &which)
        && bytes.n == literal_text(which).n) {
        lex(d, true); /* what was held back cannot grow into a character any more */
        push_mark(d, which);
        d->raw_at += bytes.n;
        run(d);
    } else {
        buf_str(&d->raw, bytes);
        lex(d, false);
    }
    return check(d, err);
}

int dsml_finish(struct dsml *d, struct err *err)
{
    lex(d, true);
    d->final = true;
    run(d);
    return check(d, err);
}

bool dsml_ended(const struct dsml *d)
{
    return d->ended;
}

bool dsml_block_closed(const struct dsml *d)
{
    return d->closed;
}

size_t dsml_think_bytes(const struct dsml *d)
{
    return d->think_bytes;
}

uint32_t dsml_n_calls(const struct dsml *d)
{
    return d->n_calls;
}

bool dsml_faulted(const struct dsml *d)
{
    return d->state == DSML_STATE_FAULT;
}
