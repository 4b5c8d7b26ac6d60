/*
 * store.h - the log: per session an append-only list of events with contiguous seq from 1,
 * in SQLite (WAL). Whatever the model saw can be derived from it.
 *
 * store_append() assigns seq and keeps the event in memory; store_commit() writes all
 * pending events in one transaction and then hands each to the publisher: nothing is
 * visible outside before it is on disk. When the disk is full or the database locked, the
 * commit fails, the pending events stay, and a later commit writes them: nothing promised
 * is lost, nothing new is promised. Event data above STORE_INLINE bytes lies in
 * content-addressed files beside the database.
 *
 * The tables `turn`, `approval` and the session row are projections of the events, written
 * in the same transaction. One thread.
 */
#ifndef AGENTD_STORE_H
#define AGENTD_STORE_H

#include "agentd/id.h"
#include "base/buf.h"
#include "base/json.h"

struct store;

enum { STORE_INLINE = 65536, STORE_SCHEMA = 2 };

struct store_opts {
    const char *dir;        /* created with mode 0700 */
    bool sync_full;         /* fsync each commit: survives a power cut, not only a kill */
    bool allow_network_fs;  /* SQLite's locks are not safe there; off refuses */
    int64_t max_bytes;      /* of the database file; 0 = no cap */
};

/* -ERR_STATE: another daemon holds this folder. A damaged database is moved aside into
 * quarantine/ and what can be read is copied into a new one (with a new epoch). */
NODISCARD int store_open(struct store **out, const struct store_opts *o, struct err *err);
void store_close(struct store *st);
const char *store_epoch(const struct store *st); /* identity of the database */
const char *store_dir(const struct store *st);
/* A sentence about damage found at open, or NULL. */
const char *store_damage(const struct store *st);

/* One event. Views are borrowed; in callbacks they live until the callback returns. */
struct store_event {
    struct str session;
    int64_t seq, gid, ts; /* gid: order over all sessions; ts: ms since 1970 */
    struct str turn, item; /* empty = none */
    struct str type;
    struct str data;     /* one JSON object as text */
    struct str ids;      /* sampled token ids, int32 little-endian; empty = none */
    struct str bytes;    /* the sampled bytes they stand for */
};

/* An answer to remember for a retried request. */
struct store_idem {
    int64_t uid;
    struct str scope, key, body, result; /* body: canonical text of the request */
};

/* Copies. seq must be the session's head + 1 counting what is pending. idem may be NULL. */
NODISCARD int store_append(struct store *st, const struct store_event *e,
                           const struct store_idem *idem, struct err *err);
bool store_pending(const struct store *st);
NODISCARD int store_commit(struct store *st, struct err *err);
/* Called for each event after its commit, in order. */
void store_on_commit(struct store *st, void (*cb)(void *arg, const struct store_event *e),
                     void *arg);

/* Committed events with seq > after of one session; or, with an empty session, with
 * gid > after of all. The callback returns false to stop. with_samples loads ids/bytes. */
NODISCARD int store_read(struct store *st, struct str session, int64_t after,
                         bool with_samples, bool (*cb)(void *arg, const struct store_event *e),
                         void *arg, struct err *err);
int64_t store_last_gid(const struct store *st);

struct store_session {
    char id[ID_TEXT];
    int64_t uid, head, created, updated; /* ms since 1970 */
    bool closed;
    bool running;        /* has a turn without an end */
    struct str config;   /* JSON of session.created with all updates applied */
};
NODISCARD int store_session(struct store *st, struct str id, struct store_session *out,
                            struct buf *config, struct err *err);
/* Newest first, from before `before` (0 = the newest). */
NODISCARD int store_sessions(struct store *st, int64_t before, int limit,
                             bool (*cb)(void *arg, const struct store_session *s), void *arg,
                             struct err *err);
NODISCARD int store_session_delete(struct store *st, struct str id, struct err *err);

/* A turn's row: its session, and its end event (0 while it runs). -ERR_NOTFOUND. */
struct store_turn {
    char id[ID_TEXT], session[ID_TEXT];
    int64_t first, last; /* seq of its first and last event; last 0 = no end yet */
};
NODISCARD int store_turn(struct store *st, struct str id, struct store_turn *out,
                         struct err *err);
/* Turns without an end, oldest first. */
NODISCARD int store_open_turns(struct store *st,
                               bool (*cb)(void *arg, const struct store_turn *t), void *arg,
                               struct err *err);
/* Approvals (data JSON as in approval.requested); only_open leaves out answered ones. */
NODISCARD int store_approvals(struct store *st, struct str session, bool only_open,
                              bool (*cb)(void *arg, struct str id, struct str session,
                                         struct str data, struct str outcome),
                              void *arg, struct err *err);
/* 1 = same request seen (result appended), 0 = new, -ERR_PARSE = same key, other body. */
NODISCARD int store_idem(struct store *st, const struct store_idem *key, struct buf *result,
                         struct err *err);

/* Key and text, for small facts that are not events (last boot, KV snapshot index). */
NODISCARD int store_note_get(struct store *st, const char *key, struct buf *out,
                             struct err *err);
NODISCARD int store_note_set(struct store *st, const char *key, struct str value,
                             struct err *err);

/* Sizes for `daemon.status`. */
void store_sizes(struct store *st, int64_t *db_bytes, int64_t *wal_bytes, int64_t *events);

#endif
