/*
 * store.c - appending, committing, and what the projections say.
 *
 *   append --> pending (memory) --> commit: one transaction --> publish, in order
 *                 ^                    |
 *                 +---- failed: stays -+
 */
#include "agentd/store.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/blob.h"
#include "agentd/store_schema.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

struct pending {
    struct store_event e; /* views into `bytes_` below */
    struct store_idem idem;
    bool has_idem;
    struct pending *next;
    char bytes_[];
};

struct store {
    struct db *db; /* owned */
    int lock;
    char dir[PATH_MAX - 64], blobs[PATH_MAX - 32];
    char epoch[ID_TEXT];
    struct buf damage;
    struct pending *first, **last; /* owned list */
    size_t pending_bytes;
    int64_t last_gid;
    void (*publish)(void *arg, const struct store_event *e);
    void *publish_arg;
};

static int take_lock(struct store *st, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", st->dir);
    st->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (st->lock < 0)
        return err_sys(err, "open '%s'", path);
    if (flock(st->lock, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, ERR_STATE, "another agentd holds the store '%s'", st->dir);
    return 0;
}

static int read_identity(struct store *st, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, "SELECT value FROM meta WHERE key = 'epoch'", err);
    if (rc == 0)
        rc = db_step(st->db, s, err);
    if (rc == 1) {
        snprintf(st->epoch, sizeof st->epoch, "%.*s", STR_ARG(db_col(s, 0)));
        db_reset(s);
        rc = db_int(st->db, "SELECT coalesce(max(gid), 0) FROM event", &st->last_gid, err);
    } else if (rc == 0) {
        rc = err_set(err, ERR_CORRUPT, "the store has no identity");
    }
    return rc;
}

int store_open(struct store **out, const struct store_opts *o, struct err *err)
{
    struct store *st = mem_zalloc(sizeof *st);
    if (!st)
        return err_nomem(err);
    st->lock = -1;
    st->last = &st->first;
    buf_init(&st->damage, 4096);
    int rc = 0;
    if (snprintf(st->dir, sizeof st->dir, "%s", o->dir) >= (int)sizeof st->dir)
        rc = err_set(err, ERR_LIMIT, "path '%s' is too long", o->dir);
    snprintf(st->blobs, sizeof st->blobs, "%s/blobs", st->dir);
    if (rc == 0)
        rc = io_make_dirs(st->dir, 0700, err);
    if (rc == 0 && !o->allow_network_fs)
        rc = schema_check_fs(st->dir, err);
    if (rc == 0)
        rc = take_lock(st, err);
    if (rc == 0)
        rc = schema_open(&st->db, o, &st->damage, err);
    if (rc == 0)
        rc = read_identity(st, err);
    if (rc < 0) {
        store_close(st);
        return rc;
    }
    *out = st;
    return 0;
}

void store_close(struct store *st)
{
    if (!st)
        return;
    for (struct pending *p = st->first, *next; p; p = next) {
        next = p->next;
        mem_free(p);
    }
    db_close(st->db);
    io_close(&st->lock);
    buf_done(&st->damage);
    mem_free(st);
}

const char *store_epoch(const struct store *st)
{
    return st->epoch;
}

const char *store_dir(const struct store *st)
{
    return st->dir;
}

const char *store_damage(const struct store *st)
{
    return st->damage.len ? buf_cstr(&st->damage) : NULL;
}

/* --- writing -------------------------------------------------------------------------- */

static struct str keep(char **at, struct str s)
{
    struct str copy = {*at, s.n};
    if (s.n)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return copy;
}

int store_append(struct store *st, const struct store_event *e, const struct store_idem *idem,
                 struct err *err)
{
    size_t n = e->session.n + e->turn.n + e->item.n + e->type.n + e->data.n + e->ids.n +
               e->bytes.n;
    if (idem)
        n += idem->scope.n + idem->key.n + idem->body.n + idem->result.n;
    if (n > LIMIT_PENDING_BYTES || st->pending_bytes > LIMIT_PENDING_BYTES - n)
        return err_set(err, ERR_LIMIT,
                       "more than %u bytes wait for the store; it cannot be written",
                       LIMIT_PENDING_BYTES);
    struct pending *p = mem_alloc(sizeof *p + n);
    if (!p)
        return err_nomem(err);
    memset(p, 0, sizeof *p);
    char *at = p->bytes_;
    p->e = (struct store_event){.seq = e->seq, .ts = e->ts};
    p->e.session = keep(&at, e->session);
    p->e.turn = keep(&at, e->turn);
    p->e.item = keep(&at, e->item);
    p->e.type = keep(&at, e->type);
    p->e.data = keep(&at, e->data);
    p->e.ids = keep(&at, e->ids);
    p->e.bytes = keep(&at, e->bytes);
    if (idem) {
        p->has_idem = true;
        p->idem.uid = idem->uid;
        p->idem.scope = keep(&at, idem->scope);
        p->idem.key = keep(&at, idem->key);
        p->idem.body = keep(&at, idem->body);
        p->idem.result = keep(&at, idem->result);
    }
    *st->last = p;
    st->last = &p->next;
    st->pending_bytes += n;
    return 0;
}

bool store_pending(const struct store *st)
{
    return st->first != NULL;
}

void store_on_commit(struct store *st, void (*cb)(void *arg, const struct store_event *e),
                     void *arg)
{
    st->publish = cb;
    st->publish_arg = arg;
}

/* Runs a statement that gives no row. */
static int run(struct store *st, struct db_stmt *s, struct err *err)
{
    int rc = db_step(st->db, s, err);
    if (rc == 1)
        db_reset(s);
    return rc < 0 ? rc : 0;
}

static int insert_event(struct store *st, struct pending *p, struct err *err)
{
    struct db_stmt *s;
    struct str data = p->e.data;
    char name[BLOB_NAME], ref[128];
    if (data.n > STORE_INLINE) {
        int rc = blob_put(st->blobs, data, name, err);
        if (rc < 0)
            return rc;
        snprintf(ref, sizeof ref, "{\"$blob\":\"%s\",\"bytes\":%zu}", name, data.n);
        data = str_c(ref);
    }
    int rc = db_prep(st->db, &s,
                     "INSERT INTO event(session,seq,ts,turn,item,type,data)"
                     " VALUES(?,?,?,?,?,?,?)",
                     err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, p->e.session);
    db_bind_int(s, 2, p->e.seq);
    db_bind_int(s, 3, p->e.ts);
    db_bind_text(s, 4, p->e.turn.n ? p->e.turn : (struct str){0});
    db_bind_text(s, 5, p->e.item.n ? p->e.item : (struct str){0});
    db_bind_text(s, 6, p->e.type);
    db_bind_text(s, 7, data);
    rc = run(st, s, err);
    p->e.gid = db_last_rowid(st->db);
    if (rc < 0 || !p->e.ids.n)
        return rc;
    rc = db_prep(st->db, &s, "INSERT INTO sample VALUES(?,?,?,?)", err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, p->e.session);
    db_bind_int(s, 2, p->e.seq);
    db_bind_blob(s, 3, p->e.ids);
    db_bind_blob(s, 4, p->e.bytes);
    return run(st, s, err);
}

/* What an event means for the projections: one statement each, parameters by number:
 * 1 session, 2 seq, 3 ts, 4 turn, 5 data. */
static const struct {
    const char *type, *sql;
} projections[] = {
    {"session.created",
     "INSERT INTO session VALUES(?1, json_extract(?5,'$.uid'), 0, ?3, ?3, 0, ?5)"},
    {"session.updated", "UPDATE session SET config = json_patch(config, ?5) WHERE id = ?1"},
    {"session.closed", "UPDATE session SET closed = 1 WHERE id = ?1"},
    {"turn.started", "INSERT INTO turn VALUES(?4, ?1, ?2, 0)"},
    {"turn.completed", "UPDATE turn SET last = ?2 WHERE id = ?4"},
    {"turn.failed", "UPDATE turn SET last = ?2 WHERE id = ?4"},
    {"approval.requested",
     "INSERT INTO approval VALUES(json_extract(?5,'$.approvalId'), ?1, ?5, NULL)"},
    {"approval.resolved",
     "UPDATE approval SET outcome = ?5 WHERE id = json_extract(?5,'$.approvalId')"},
};

static int bind_projection(struct store *st, const char *sql, const struct pending *p,
                           struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, sql, err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, p->e.session);
    db_bind_int(s, 2, p->e.seq);
    db_bind_int(s, 3, p->e.ts);
    db_bind_text(s, 4, p->e.turn);
    db_bind_text(s, 5, p->e.data);
    return run(st, s, err);
}

static int project(struct store *st, const struct pending *p, struct err *err)
{
    static const char head[] = "UPDATE session SET head = ?2, updated = ?3"
                               " WHERE id = ?1 AND head = ?2 - 1";
    int rc = 0;
    for (unsigned i = 0; i < ARRAY_LEN(projections); i++)
        if (str_is(p->e.type, projections[i].type))
            rc = bind_projection(st, projections[i].sql, p, err);
    if (rc == 0)
        rc = bind_projection(st, head, p, err);
    if (rc == 0 && db_changes(st->db) != 1)
        rc = err_set(err, ERR_CORRUPT, "event %lld does not follow the head of its session",
                     (long long)p->e.seq);
    return rc;
}

static int insert_idem(struct store *st, const struct pending *p, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, "INSERT OR IGNORE INTO idem VALUES(?,?,?,?,?,?)", err);
    if (rc < 0)
        return rc;
    db_bind_int(s, 1, p->idem.uid);
    db_bind_text(s, 2, p->idem.scope);
    db_bind_text(s, 3, p->idem.key);
    db_bind_text(s, 4, p->idem.body);
    db_bind_text(s, 5, p->idem.result);
    db_bind_int(s, 6, p->e.ts);
    return run(st, s, err);
}

/* Each pending event inside the transaction; a failed COMMIT leaves it open: roll back. */
static int write_all(struct store *st, struct err *err)
{
    int rc = db_exec(st->db, "BEGIN IMMEDIATE", err);
    for (struct pending *p = st->first; rc == 0 && p; p = p->next) {
        rc = insert_event(st, p, err);
        if (rc == 0)
            rc = project(st, p, err);
        if (rc == 0 && p->has_idem)
            rc = insert_idem(st, p, err);
    }
    if (rc == 0)
        rc = db_exec(st->db, "COMMIT", err);
    if (rc < 0 && db_in_transaction(st->db)) {
        struct err ignored;
        (void)!db_exec(st->db, "ROLLBACK", &ignored);
    }
    return rc;
}

int store_commit(struct store *st, struct err *err)
{
    if (!st->first)
        return 0;
    int rc = write_all(st, err);
    if (rc < 0)
        return err_prefix(err, "commit");
    /* A publisher may append: those wait for the next commit. */
    struct pending *p = st->first;
    st->first = NULL;
    st->last = &st->first;
    st->pending_bytes = 0;
    while (p) {
        struct pending *next = p->next;
        st->last_gid = p->e.gid;
        if (st->publish)
            st->publish(st->publish_arg, &p->e);
        mem_free(p);
        p = next;
    }
    return 0;
}

int64_t store_last_gid(const struct store *st)
{
    return st->last_gid;
}

/* --- reading -------------------------------------------------------------------------- */

/* Replaces a reference to a blob by what it holds. */
static int expand(struct store *st, struct str *data, struct buf *room, struct err *err)
{
    if (!str_starts(*data, STR("{\"$blob\":\"")))
        return 0;
    buf_reset(room);
    int rc = blob_get(st->blobs, str_sub(*data, 10, BLOB_NAME - 1), room, err);
    *data = buf_view(room);
    return rc;
}

int store_read(struct store *st, struct str session, int64_t after, bool with_samples,
               bool (*cb)(void *arg, const struct store_event *e), void *arg, struct err *err)
{
    static const char one[] =
        "SELECT e.session,e.seq,e.gid,e.ts,e.turn,e.item,e.type,e.data,s.ids,s.bytes"
        " FROM event e LEFT JOIN sample s ON ?3 AND s.session=e.session AND s.seq=e.seq"
        " WHERE e.session=?1 AND e.seq>?2 ORDER BY e.seq";
    static const char all[] =
        "SELECT e.session,e.seq,e.gid,e.ts,e.turn,e.item,e.type,e.data,s.ids,s.bytes"
        " FROM event e LEFT JOIN sample s ON ?3 AND s.session=e.session AND s.seq=e.seq"
        " WHERE e.gid>?2 ORDER BY e.gid";
    struct db_stmt *s;
    struct buf room;
    int rc = db_prep(st->db, &s, session.n ? one : all, err);
    if (rc < 0)
        return rc;
    buf_init(&room, LIMIT_JSON_BYTES);
    if (session.n)
        db_bind_text(s, 1, session);
    db_bind_int(s, 2, after);
    db_bind_int(s, 3, with_samples);
    bool more = true;
    while (more && (rc = db_step(st->db, s, err)) == 1) {
        struct store_event e = {
            .session = db_col(s, 0), .seq = db_col_int(s, 1), .gid = db_col_int(s, 2),
            .ts = db_col_int(s, 3),  .turn = db_col(s, 4),    .item = db_col(s, 5),
            .type = db_col(s, 6),    .data = db_col(s, 7),    .ids = db_col(s, 8),
            .bytes = db_col(s, 9),
        };
        rc = expand(st, &e.data, &room, err);
        if (rc < 0)
            break;
        more = cb(arg, &e);
    }
    db_reset(s);
    buf_done(&room);
    return rc < 0 ? rc : 0;
}

static void fill_session(struct db_stmt *s, struct store_session *out)
{
    snprintf(out->id, sizeof out->id, "%.*s", STR_ARG(db_col(s, 0)));
    out->uid = db_col_int(s, 1);
    out->head = db_col_int(s, 2);
    out->created = db_col_int(s, 3);
    out->updated = db_col_int(s, 4);
    out->closed = db_col_int(s, 5) != 0;
    out->config = db_col(s, 6);
    out->running = db_col_int(s, 7) != 0;
}

#define SESSION_COLUMNS                                                                  \
    "SELECT id,uid,head,created,updated,closed,config,"                                  \
    " EXISTS(SELECT 1 FROM turn t WHERE t.session=session.id AND t.last=0) FROM session "

int store_session(struct store *st, struct str id, struct store_session *out,
                  struct buf *config, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, SESSION_COLUMNS "WHERE id=?", err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, id);
    rc = db_step(st->db, s, err);
    if (rc == 0)
        return err_set(err, ERR_NOTFOUND, "there is no session '%.*s'", STR_ARG(id));
    if (rc < 0)
        return rc;
    fill_session(s, out);
    buf_str(config, out->config);
    out->config = buf_view(config);
    db_reset(s);
    return buf_check(config, "session", err);
}

int store_sessions(struct store *st, int64_t before, int limit,
                   bool (*cb)(void *arg, const struct store_session *s), void *arg,
                   struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s,
                     SESSION_COLUMNS "WHERE updated < ?1 ORDER BY updated DESC, id LIMIT ?2",
                     err);
    if (rc < 0)
        return rc;
    db_bind_int(s, 1, before ? before : INT64_MAX);
    db_bind_int(s, 2, limit);
    bool more = true;
    while (more && (rc = db_step(st->db, s, err)) == 1) {
        struct store_session row;
        fill_session(s, &row);
        more = cb(arg, &row);
    }
    db_reset(s);
    return rc < 0 ? rc : 0;
}

/* One statement whose only parameter is the session. */
static int run_for(struct store *st, const char *sql, struct str session, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, sql, err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, session);
    return run(st, s, err);
}

/* The blobs in `gone` that no event names any more. */
static void drop_blobs(struct store *st)
{
    struct db_stmt *s;
    struct err ignored;
    if (db_prep(st->db, &s, "SELECT name FROM gone", &ignored) < 0)
        return;
    while (db_step(st->db, s, &ignored) == 1)
        blob_drop(st->blobs, db_col(s, 0));
    db_reset(s);
}

#define BLOB_OF "SELECT substr(data, 11, 64) FROM event WHERE data GLOB '{\"$blob\":\"*'"

int store_session_delete(struct store *st, struct str id, struct err *err)
{
    static const char *const sql[] = {
        "INSERT OR IGNORE INTO gone " BLOB_OF " AND session=?",
        "DELETE FROM sample WHERE session=?",
        "DELETE FROM event WHERE session=?",
        "DELETE FROM turn WHERE session=?",
        "DELETE FROM approval WHERE session=?",
        "DELETE FROM idem WHERE scope=?",
        "DELETE FROM session WHERE id=?",
    };
    int rc = store_commit(st, err);
    if (rc == 0)
        rc = db_exec(st->db,
                     "CREATE TEMP TABLE IF NOT EXISTS gone(name TEXT PRIMARY KEY);"
                     "DELETE FROM gone; BEGIN IMMEDIATE", err);
    for (unsigned i = 0; rc == 0 && i < ARRAY_LEN(sql); i++)
        rc = run_for(st, sql[i], id, err);
    if (rc == 0) /* SQLite searches the log only if there is a row to compare */
        rc = db_exec(st->db, "DELETE FROM gone WHERE name IN (" BLOB_OF ")", err);
    if (rc == 0)
        rc = db_exec(st->db, "COMMIT", err);
    if (rc == 0)
        drop_blobs(st);
    if (rc < 0 && db_in_transaction(st->db)) {
        struct err ignored;
        (void)!db_exec(st->db, "ROLLBACK", &ignored);
    }
    return rc;
}

static void fill_turn(struct db_stmt *s, struct store_turn *out)
{
    snprintf(out->id, sizeof out->id, "%.*s", STR_ARG(db_col(s, 0)));
    snprintf(out->session, sizeof out->session, "%.*s", STR_ARG(db_col(s, 1)));
    out->first = db_col_int(s, 2);
    out->last = db_col_int(s, 3);
}

int store_turn(struct store *st, struct str id, struct store_turn *out, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, "SELECT id,session,first,last FROM turn WHERE id=?", err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, id);
    rc = db_step(st->db, s, err);
    if (rc == 0)
        return err_set(err, ERR_NOTFOUND, "there is no turn '%.*s'", STR_ARG(id));
    if (rc < 0)
        return rc;
    fill_turn(s, out);
    db_reset(s);
    return 0;
}

int store_open_turns(struct store *st, bool (*cb)(void *arg, const struct store_turn *t),
                     void *arg, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s,
                     "SELECT id,session,first,last FROM turn WHERE last=0 ORDER BY id", err);
    if (rc < 0)
        return rc;
    bool more = true;
    while (more && (rc = db_step(st->db, s, err)) == 1) {
        struct store_turn t;
        fill_turn(s, &t);
        more = cb(arg, &t);
    }
    db_reset(s);
    return rc < 0 ? rc : 0;
}

int store_approvals(struct store *st, struct str session, bool only_open,
                    bool (*cb)(void *arg, struct str id, struct str session, struct str data,
                               struct str outcome),
                    void *arg, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s,
                     "SELECT id,session,data,coalesce(outcome,'') FROM approval"
                     " WHERE (?1='' OR session=?1) AND (NOT ?2 OR outcome IS NULL) ORDER BY id",
                     err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, session.n ? session : str_c(""));
    db_bind_int(s, 2, only_open);
    bool more = true;
    while (more && (rc = db_step(st->db, s, err)) == 1)
        more = cb(arg, db_col(s, 0), db_col(s, 1), db_col(s, 2), db_col(s, 3));
    db_reset(s);
    return rc < 0 ? rc : 0;
}

int store_idem(struct store *st, const struct store_idem *key, struct buf *result,
               struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s,
                     "SELECT body,result FROM idem WHERE uid=? AND scope=? AND key=?", err);
    if (rc < 0)
        return rc;
    db_bind_int(s, 1, key->uid);
    db_bind_text(s, 2, key->scope);
    db_bind_text(s, 3, key->key);
    rc = db_step(st->db, s, err);
    if (rc != 1)
        return rc;
    bool same = str_eq(db_col(s, 0), key->body);
    if (same)
        buf_str(result, db_col(s, 1));
    db_reset(s);
    return same ? 1
                : err_set(err, ERR_PARSE,
                          "idempotencyKey '%.*s' was used for a different request",
                          STR_ARG(key->key));
}

int store_note_get(struct store *st, const char *key, struct buf *out, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, "SELECT value FROM meta WHERE key=?", err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, str_c(key));
    rc = db_step(st->db, s, err);
    if (rc != 1)
        return rc < 0 ? rc : err_set(err, ERR_NOTFOUND, "no note '%s'", key);
    buf_str(out, db_col(s, 0));
    db_reset(s);
    return buf_check(out, key, err);
}

int store_note_set(struct store *st, const char *key, struct str value, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(st->db, &s, "INSERT OR REPLACE INTO meta VALUES(?,?)", err);
    if (rc < 0)
        return rc;
    db_bind_text(s, 1, str_c(key));
    db_bind_blob(s, 2, value);
    return run(st, s, err);
}

static int64_t size_of(const struct store *st, const char *name)
{
    char path[PATH_MAX];
    struct stat sb;
    snprintf(path, sizeof path, "%s/%s", st->dir, name);
    return stat(path, &sb) < 0 ? 0 : (int64_t)sb.st_size;
}

void store_sizes(struct store *st, int64_t *db_bytes, int64_t *wal_bytes, int64_t *events)
{
    struct err err;
    *db_bytes = size_of(st, "agentd.db");
    *wal_bytes = size_of(st, "agentd.db-wal");
    *events = 0;
    (void)!db_int(st->db, "SELECT coalesce(sum(head), 0) FROM session", events, &err);
}
