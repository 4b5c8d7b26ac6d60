/*
 * store_schema.c - the database's shape and how an older or damaged one becomes it.
 *
 * Steps are applied in order, each in its own transaction together with user_version, so a
 * kill in the middle leaves the version before. A step is never edited once released; a
 * change is a new step.
 */
#include "agentd/store_schema.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agentd/crash.h"
#include "agentd/log.h"
#include "base/io.h"

static const char *const steps[STORE_SCHEMA] = {
    /* 1: the log and its projections */
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE event(gid INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL,"
    "  seq INTEGER NOT NULL, ts INTEGER NOT NULL, turn TEXT, item TEXT,"
    "  type TEXT NOT NULL, data TEXT NOT NULL, UNIQUE(session, seq));"
    "CREATE TABLE sample(session TEXT NOT NULL, seq INTEGER NOT NULL, ids BLOB NOT NULL,"
    "  bytes BLOB NOT NULL, PRIMARY KEY(session, seq));"
    "CREATE TABLE session(id TEXT PRIMARY KEY, uid INTEGER NOT NULL, head INTEGER NOT NULL,"
    "  created INTEGER NOT NULL, updated INTEGER NOT NULL, closed INTEGER NOT NULL,"
    "  config TEXT NOT NULL);"
    "CREATE INDEX session_updated ON session(updated);"
    "CREATE TABLE turn(id TEXT PRIMARY KEY, session TEXT NOT NULL, first INTEGER NOT NULL,"
    "  last INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX turn_open ON turn(session) WHERE last = 0;"
    "CREATE TABLE idem(uid INTEGER NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL,"
    "  body TEXT NOT NULL, result TEXT NOT NULL, ts INTEGER NOT NULL,"
    "  PRIMARY KEY(uid, scope, key));",
    /* 2: approvals answered from anywhere */
    "CREATE TABLE approval(id TEXT PRIMARY KEY, session TEXT NOT NULL, data TEXT NOT NULL,"
    "  outcome TEXT);"
    "CREATE INDEX approval_open ON approval(session) WHERE outcome IS NULL;"
    "INSERT OR IGNORE INTO approval SELECT json_extract(data,'$.approvalId'), session, data,"
    "  (SELECT r.data FROM event r WHERE r.session = e.session AND"
    "   r.type = 'approval.resolved' AND"
    "   json_extract(r.data,'$.approvalId') = json_extract(e.data,'$.approvalId'))"
    "  FROM event e WHERE type = 'approval.requested';",
};

int schema_check_fs(const char *dir, struct err *err)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } network[] = {
        {0x6969, "NFS"},       {0x517b, "SMB"},      {0xff534d42, "CIFS"}, {0xfe534d42, "SMB2"},
        {0x5346414f, "AFS"},   {0x00c36400, "Ceph"}, {0x73757245, "Coda"}, {0x01021997, "9P"},
        {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"},
    };
    struct statfs fs;
    if (statfs(dir, &fs) < 0)
        return err_sys(err, "statfs '%s'", dir);
    for (unsigned i = 0; i < ARRAY_LEN(network); i++)
        if (((unsigned long)fs.f_type & 0xffffffff) == network[i].magic)
            return err_set(err, ERR_UNSUPPORTED,
                           "the store '%s' lies on %s, where SQLite's locks are not safe; "
                           "put it on a local disk (store.dir), or set "
                           "store.allow_network_fs: true",
                           dir, network[i].name);
    return 0;
}

/* A note in meta, so that a client can tell one database from another. */
static int new_epoch(struct db *db, struct err *err)
{
    char sql[160], id[ID_TEXT];
    id_new(id);
    snprintf(sql, sizeof sql, "INSERT OR IGNORE INTO meta VALUES('epoch', '%s')", id);
    return db_exec(db, sql, err);
}

static int migrate(struct db *db, struct err *err)
{
    int64_t version;
    int rc = db_int(db, "PRAGMA user_version", &version, err);
    if (rc == 0 && (version < 0 || version > STORE_SCHEMA))
        return err_set(err, ERR_UNSUPPORTED,
                       "the store has schema %lld, this agentd knows up to %d; run a newer "
                       "agentd",
                       (long long)version, STORE_SCHEMA);
    for (int64_t v = version; rc == 0 && v < STORE_SCHEMA; v++) {
        char sql[64];
        snprintf(sql, sizeof sql, "PRAGMA user_version = %lld", (long long)v + 1);
        rc = db_exec(db, "BEGIN IMMEDIATE", err);
        if (rc == 0)
            rc = db_exec(db, steps[v], err);
        crash_here(CRASH_DURING_MIGRATION);
        if (rc == 0)
            rc = db_exec(db, sql, err);
        if (rc == 0 && v == 0)
            rc = new_epoch(db, err);
        if (rc == 0)
            rc = db_exec(db, "COMMIT", err);
        if (rc < 0 && db_in_transaction(db)) {
            struct err ignored;
            (void)!db_exec(db, "ROLLBACK", &ignored);
        }
    }
    return rc;
}

static int settings(struct db *db, const struct store_opts *o, struct err *err)
{
    char sql[96];
    int64_t page = 4096;
    int rc = db_exec(db,
                     "PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON;"
                     "PRAGMA journal_size_limit=16777216; PRAGMA wal_autocheckpoint=1000;",
                     err);
    if (rc == 0)
        rc = db_exec(db, o->sync_full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL",
                     err);
    if (rc == 0 && o->max_bytes)
        rc = db_int(db, "PRAGMA page_size", &page, err);
    if (rc == 0 && o->max_bytes) {
        snprintf(sql, sizeof sql, "PRAGMA max_page_count=%lld",
                 (long long)(o->max_bytes / (page ? page : 4096)));
        rc = db_exec(db, sql, err);
    }
    return rc;
}

static int quick_check(struct db *db, struct err *err)
{
    struct db_stmt *s;
    int rc = db_prep(db, &s, "PRAGMA quick_check(1)", err);
    if (rc < 0)
        return rc;
    rc = db_step(db, s, err);
    if (rc == 1 && !str_is(db_col(s, 0), "ok"))
        rc = err_set(err, ERR_CORRUPT, "%.*s", STR_ARG(db_col(s, 0)));
    db_reset(s);
    return rc < 0 ? rc : 0;
}

static int open_checked(struct db **out, const char *path, const struct store_opts *o,
                        struct err *err)
{
    struct db *db = NULL;
    int rc = db_open(&db, path, true, err);
    if (rc == 0)
        rc = settings(db, o, err);
    if (rc == 0)
        rc = quick_check(db, err);
    if (rc == 0)
        rc = migrate(db, err);
    if (rc < 0) {
        db_close(db);
        return err_prefix(err, "'%s'", path);
    }
    *out = db;
    return 0;
}

static int quarantine(const char *dir, const char *path, char moved[PATH_MAX], struct err *err)
{
    char folder[PATH_MAX - 64];
    snprintf(folder, sizeof folder, "%.3900s/quarantine", dir);
    int rc = io_make_dirs(folder, 0700, err);
    if (rc < 0)
        return rc;
    snprintf(moved, PATH_MAX, "%s/agentd.%lld.db", folder, (long long)io_wall_ms());
    if (rename(path, moved) < 0)
        return err_sys(err, "move '%s' to '%s'", path, moved);
    static const char *const tails[] = {"-wal", "-shm"};
    for (unsigned i = 0; i < ARRAY_LEN(tails); i++) {
        char from[PATH_MAX], to[PATH_MAX];
        snprintf(from, sizeof from, "%.4080s%s", path, tails[i]);
        snprintf(to, sizeof to, "%.4080s%s", moved, tails[i]);
        if (rename(from, to) < 0 && access(from, F_OK) == 0)
            return err_sys(err, "move '%s'", from);
    }
    return 0;
}

/* Copies what the damaged file still yields: whole tables first, and of the log of each
 * session the unbroken beginning. Failures are counted, not fatal. */
static void salvage(struct db *db, const char *moved, struct buf *damage)
{
    static const char *const copies[] = {
        "INSERT OR IGNORE INTO event SELECT * FROM bad.event ORDER BY gid",
        "INSERT OR IGNORE INTO sample SELECT * FROM bad.sample",
        "INSERT OR IGNORE INTO session SELECT * FROM bad.session",
        "INSERT OR IGNORE INTO turn SELECT * FROM bad.turn",
        "INSERT OR IGNORE INTO approval SELECT * FROM bad.approval",
        /* keep per session only the unbroken beginning of its log */
        "DELETE FROM event WHERE gid IN (SELECT gid FROM (SELECT gid, seq,"
        " row_number() OVER (PARTITION BY session ORDER BY seq) AS n FROM event)"
        " WHERE seq <> n)",
        "UPDATE session SET head = (SELECT coalesce(max(seq), 0) FROM event"
        " WHERE event.session = session.id)",
        "DELETE FROM session WHERE head = 0",
    };
    struct err err;
    char sql[PATH_MAX + 32];
    int64_t kept = 0;
    snprintf(sql, sizeof sql, "ATTACH '%s' AS bad", moved);
    unsigned failed = 0;
    if (strchr(moved, '\'') || db_exec(db, sql, &err) < 0) {
        failed = ARRAY_LEN(copies);
    } else {
        for (unsigned i = 0; i < ARRAY_LEN(copies); i++)
            failed += db_exec(db, copies[i], &err) < 0;
        (void)!db_exec(db, "DETACH bad", &err);
    }
    (void)!db_int(db, "SELECT count(*) FROM event", &kept, &err);
    buf_printf(damage, "; %lld events were copied into a new one%s", (long long)kept,
               failed ? ", some tables could not be read" : "");
}

int schema_open(struct db **out, const struct store_opts *o, struct buf *damage,
                struct err *err)
{
    char path[PATH_MAX - 16], moved[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/agentd.db", o->dir) >= (int)sizeof path)
        return err_set(err, ERR_LIMIT, "path '%s' is too long", o->dir);
    int rc = open_checked(out, path, o, err);
    if (rc != -ERR_CORRUPT)
        return rc;
    buf_printf(damage, "the database was damaged (%s)", err->text);
    rc = quarantine(o->dir, path, moved, err);
    if (rc < 0)
        return rc;
    buf_printf(damage, " and moved to '%s'", moved);
    rc = open_checked(out, path, o, err);
    if (rc == 0)
        salvage(*out, moved, damage);
    buf_printf(damage, "; `sqlite3 '%s' .recover` shows what else the old file yields; delete it "
                       "when nothing is missed", moved);
    return rc;
}
