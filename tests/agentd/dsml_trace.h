/*
 * dsml_trace.h - records what the streaming reader tells, checks its promises on the way
 * (order of events, one end per call, deltas that add up, arguments that are an object), and
 * invents completions. Shared by the unit test, the soak and the fuzz target.
 */
#ifndef TESTS_DSML_TRACE_H
#define TESTS_DSML_TRACE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/dsml.h"
#include "agentd/jsontext.h"
#include "agentd/literal.h"
#include "base/limits.h"

#define MUST(cond)                                                                       \
    do {                                                                                 \
        if (!(cond)) {                                                                   \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #cond);   \
            abort();                                                                     \
        }                                                                                \
    } while (0)

enum { TRACE_CALLS = 64 };

/* Valid UTF-8 is the sampler's luck, not the mask's: broken characters become question marks. */
UNUSED static void trace_repair(struct buf *text)
{
    struct buf b;
    uint32_t cp;
    buf_init(&b, 0);
    for (size_t i = 0; i < text->len;) {
        size_t n = utf8_decode(buf_view(text), i, &cp);
        if (n)
            buf_add(&b, text->data + i, n);
        else
            buf_putc(&b, '?');
        i += n ? n : 1;
    }
    buf_done(text);
    *text = b;
}

struct trace {
    struct buf thinking, text, notes, delta;
    struct {
        struct buf name, arguments;
    } call[TRACE_CALLS];
    uint32_t n_started, n_ended;
    bool open, faulted;
    enum dsml_code code;
    int64_t fault_call;
};

UNUSED static void trace_thinking(void *arg, struct str s)
{
    struct trace *t = arg;
    MUST(!t->open && !t->faulted && utf8_valid(s) && s.n);
    buf_str(&t->thinking, s);
}

UNUSED static void trace_text(void *arg, struct str s)
{
    struct trace *t = arg;
    MUST(!t->open && !t->faulted && utf8_valid(s) && s.n);
    buf_str(&t->text, s);
}

UNUSED static void trace_start(void *arg, uint32_t call, struct str name)
{
    struct trace *t = arg;
    MUST(!t->open && !t->faulted && call == t->n_started && call < TRACE_CALLS && name.n);
    t->open = true;
    t->n_started++;
    buf_reset(&t->delta);
    buf_str(&t->call[call].name, name);
}

UNUSED static void trace_delta(void *arg, uint32_t call, struct str s)
{
    struct trace *t = arg;
    MUST(t->open && call + 1 == t->n_started && utf8_valid(s));
    buf_str(&t->delta, s);
}

UNUSED static void trace_end(void *arg, uint32_t call, struct str name, struct str arguments)
{
    struct trace *t = arg;
    struct buf b;
    struct err err;
    MUST(t->open && call + 1 == t->n_started);
    MUST(str_eq(name, buf_view(&t->call[call].name)));
    MUST(str_eq(arguments, buf_view(&t->delta)));
    buf_init(&b, 0);
    MUST(jsontext_rewrite(&b, arguments, &err) == 0);
    MUST(jsontext_kind(buf_view(&b)) == JSONTEXT_OBJECT);
    buf_done(&b);
    buf_str(&t->call[call].arguments, arguments);
    t->open = false;
    t->n_ended++;
}

UNUSED static void trace_fault(void *arg, int64_t call, enum dsml_code code, const char *sentence)
{
    struct trace *t = arg;
    MUST(!t->faulted && sentence[0] && code != DSML_OK);
    MUST(t->open ? call + 1 == t->n_started : call == -1);
    t->open = false;
    t->faulted = true;
    t->code = code;
    t->fault_call = call;
}

UNUSED static void trace_note(void *arg, const char *sentence)
{
    struct trace *t = arg;
    buf_puts(&t->notes, sentence);
    buf_putc(&t->notes, '\n');
}

static const struct dsml_events trace_events = {
    .thinking = trace_thinking, .text = trace_text,   .call_start = trace_start,
    .call_delta = trace_delta,  .call_end = trace_end, .fault = trace_fault,
    .note = trace_note,
};

UNUSED static void trace_done(struct trace *t)
{
    buf_done(&t->thinking);
    buf_done(&t->text);
    buf_done(&t->notes);
    buf_done(&t->delta);
    for (uint32_t i = 0; i < t->n_started; i++) {
        buf_done(&t->call[i].name);
        buf_done(&t->call[i].arguments);
    }
    memset(t, 0, sizeof(*t));
}

/* xorshift64*: the same numbers everywhere. */
UNUSED static uint64_t trace_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

/*
 * Feeds `text` in pieces of at most `most` bytes (0 = at once), cut by `seed`. With
 * opts.tokens every literal is fed as a special token.
 */
UNUSED static void trace_run(struct trace *t, const struct dsml_opts *o, struct str text, size_t most,
                      uint64_t seed)
{
    struct dsml *d = NULL;
    struct err err = {0};
    size_t think;
    memset(t, 0, sizeof(*t));
    MUST(dsml_new(&d, o, &trace_events, t, &err) == 0);
    for (size_t at = 0; at < text.n;) {
        enum literal which = LIT_BOS;
        size_t end = o->tokens ? literal_find(text, at, &which) : STR_NONE;
        size_t n = most ? 1 + trace_random(&seed) % most : text.n;
        bool special = end == at;
        if (special)
            n = literal_text(which).n;
        else if (n > (end < text.n ? end : text.n) - at)
            n = (end < text.n ? end : text.n) - at;
        MUST(dsml_feed(d, str_sub(text, at, n), special, &err) == 0);
        at += n;
    }
    MUST(dsml_finish(d, &err) == 0);
    think = dsml_think_bytes(d);
    MUST(think <= text.n);
    MUST(dsml_n_calls(d) == t->n_ended && dsml_faulted(d) == t->faulted && !t->open);
    MUST(t->n_ended + (t->fault_call >= 0 && t->faulted) == t->n_started);
    dsml_free(d);
}

/* Two traces tell the same story. */
UNUSED static void trace_same(const struct trace *a, const struct trace *b)
{
    MUST(str_eq(buf_view(&a->thinking), buf_view(&b->thinking)));
    MUST(str_eq(buf_view(&a->text), buf_view(&b->text)));
    MUST(str_eq(buf_view(&a->notes), buf_view(&b->notes)));
    MUST(a->n_started == b->n_started && a->n_ended == b->n_ended);
    MUST(a->faulted == b->faulted && a->code == b->code && a->fault_call == b->fault_call);
    for (uint32_t i = 0; i < a->n_started; i++) {
        MUST(str_eq(buf_view(&a->call[i].name), buf_view(&b->call[i].name)));
        MUST(str_eq(buf_view(&a->call[i].arguments), buf_view(&b->call[i].arguments)));
    }
}

/* The streaming reader agrees with the strict one on a text that the latter accepted. */
UNUSED static void trace_agrees(const struct trace *t, const struct dsml_message *m)
{
    MUST(!t->faulted && t->n_ended == m->n_calls);
    MUST(str_eq(buf_view(&t->thinking), m->reasoning));
    MUST(str_eq(buf_view(&t->text), m->content));
    for (uint32_t i = 0; i < m->n_calls; i++) {
        MUST(str_eq(buf_view(&t->call[i].name), m->calls[i].name));
        MUST(str_eq(buf_view(&t->call[i].arguments), m->calls[i].arguments));
    }
}

/*
 * No call without arguments that the text did not spell as one: an empty object is allowed
 * only where an invoke tag is closed with nothing but white space inside.
 */
UNUSED static void trace_no_lost_arguments(const struct trace *t, struct str text)
{
    uint32_t empty = 0, spelled = 0;
    for (uint32_t i = 0; i < t->n_started; i++)
        empty += str_is(buf_view(&t->call[i].arguments), "{}");
    for (size_t at = 0; (at = str_find(text, STR("\">"), at)) != STR_NONE; at += 2) {
        struct str rest = str_sub(text, at + 2, SIZE_MAX);
        while (rest.n && strchr(" \t\r\n", rest.p[0]) && rest.p[0])
            rest = str_sub(rest, 1, SIZE_MAX);
        spelled += str_starts(rest, STR(DSML_END_INVOKE)) || str_starts(rest, STR("</invoke>"));
    }
    MUST(empty <= spelled);
}

#endif
