/*
 * chatstream.h - the reply of an OpenAI-compatible server, from bytes to deltas. Knows no
 * network. Everything in it is hostile: sizes are capped, what is not understood is an error
 * with the server's own words, and nothing is delivered twice.
 *
 * Taken as they are met in the field: lines ended by LF or CR LF, comments, events over
 * several data lines, `reasoning` for `reasoning_content`, calls in fragments by index (with
 * gaps, without an index, several calls under one index told apart by id, the name repeated),
 * a usage object before, in or after the last event, an error object in the stream or instead
 * of it, and a whole completion where a stream was asked for.
 */
#ifndef AGENTD_CHATSTREAM_H
#define AGENTD_CHATSTREAM_H

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct chatstream;

struct chatstream_cbs { /* borrowed views; called from inside feed and finish */
    void (*thinking)(void *arg, struct str delta);
    void (*text)(void *arg, struct str delta);
    /* Calls count from 0 without gaps; the name comes once, whole, with the first piece. */
    void (*call)(void *arg, uint32_t i, struct str name, struct str args_delta);
    void *arg;
};

enum chatstream_state {
    CHATSTREAM_OPEN,
    CHATSTREAM_ENDED,  /* the message is whole; usage may still come */
    CHATSTREAM_DONE,   /* nothing more is to be read */
    CHATSTREAM_BROKEN, /* chatstream_problem() says how */
};

struct chatstream_facts {
    bool shown;      /* something was delivered */
    bool length;     /* cut at the server's limit, or at ours */
    bool has_usage;
    uint32_t prompt, cached, completion; /* tokens; without usage: pieces delivered */
};

/* max_pieces: more deltas than that and the message counts as cut at its limit; 0 = any. */
NODISCARD int chatstream_new(struct chatstream **out, const struct chatstream_cbs *cbs,
                             uint32_t max_pieces, struct err *err);
void chatstream_free(struct chatstream *cs);
enum chatstream_state chatstream_feed(struct chatstream *cs, struct str bytes);
/* The connection has ended. `type` is the reply's Content-Type or NULL. */
enum chatstream_state chatstream_finish(struct chatstream *cs, const char *type);
const char *chatstream_problem(const struct chatstream *cs);
struct chatstream_facts chatstream_facts(const struct chatstream *cs);

#endif
