/*
 * feed.h - from committed events to subscribers: replay, live, and what happens when a
 * client is slow.
 *
 *   durable events: sent from memory when the subscriber is up to date and has room; else
 *                   only its cursor stays behind and the events are read from the store
 *                   again when it drains. Memory per client is bounded, nothing is lost.
 *   live items:     the text of an unfinished item is kept here once; each subscriber has an
 *                   offset into it, so deltas merge by themselves while a client is slow, and
 *                   a late subscriber gets one snapshot.
 *   tool output:    kept up to FEED_OUTPUT_KEEP; what a slow client missed beyond it is
 *                   reported as event.gap.
 *
 * One thread.
 */
#ifndef AGENTD_FEED_H
#define AGENTD_FEED_H

#include "agentd/ev.h"
#include "agentd/sock.h"
#include "agentd/store.h"

struct feed;
struct feed_item;

enum { FEED_OUTPUT_KEEP = 256 * 1024 };

/* Becomes the store's publisher. */
NODISCARD int feed_new(struct feed **out, struct store *st, struct ev *ev, struct err *err);
void feed_free(struct feed *f);

struct feed_sub_opts {
    struct str session;  /* empty = all */
    int64_t after;       /* last seq the client has; for all sessions a gid; -1 = now */
    const json_t *types; /* array of names, or NULL = every type */
    int64_t coalesce_ns; /* deltas of an item at most this often; 0 = at once */
    bool deltas;         /* the client wants ephemeral events */
};
/* Replaces an earlier subscription of this connection to the same session. The replay
 * begins at the next feed_pump(), so that the reply goes out first. */
NODISCARD int feed_subscribe(struct feed *f, struct conn *c, const struct feed_sub_opts *o,
                             struct err *err);
bool feed_unsubscribe(struct feed *f, struct conn *c, struct str session);
void feed_drop(struct feed *f, struct conn *c); /* the connection is gone */
void feed_pump(struct feed *f, struct conn *c); /* it has room again, or a new subscription */
/* While held, committed events are kept back (subscribers only fall behind); releasing pumps
 * everybody. Lets a reply go before the events of its own commit. Returns what was. */
bool feed_hold(struct feed *f, bool hold);
/* Whether any connection is subscribed to the session (or to all). */
bool feed_watched(const struct feed *f, struct str session);

/* A live item. kind: "reasoning", "text", "call", "output". NULL without memory: the item
 * is then simply not streamed. */
struct feed_item *feed_item_open(struct feed *f, const char *session, const char *turn,
                                 const char *item, const char *kind);
void feed_item_add(struct feed_item *it, struct str text);
/* Before the durable event that repeats the full text is committed. */
void feed_item_close(struct feed_item *it);
struct str feed_item_text(const struct feed_item *it);

/* An ephemeral event without state (progress): dropped where there is no room. */
void feed_notice(struct feed *f, const char *session, const char *turn, const char *type,
                 struct str data);

#endif
