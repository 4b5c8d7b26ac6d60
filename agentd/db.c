/* db.c - SQLite behind db.h. */
#include "agentd/db.h"

#include <sqlite3.h>

#include "base/mem.h"

enum { MAX_STMTS = 64, BUSY_MS = 100 };

struct db_stmt {
    sqlite3_stmt *st; /* owned */
    const char *sql;  /* a literal: its address is the key */
};

struct db {
    sqlite3 *h; /* owned */
    struct db_stmt stmt[MAX_STMTS];
    unsigned n_stmts;
};

static int fail(struct db *db, int rc, const char *what, struct err *err)
{
    int code = ERR_SYS;
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        code = ERR_TIMEOUT;
        break;
    case SQLITE_FULL:
        code = ERR_LIMIT;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        code = ERR_CORRUPT;
        break;
    case SQLITE_NOMEM:
        code = ERR_NOMEM;
        break;
    default:
        break;
    }
    return err_set(err, (enum err_code)code, "%s: %s", what,
                   db->h ? sqlite3_errmsg(db->h) : sqlite3_errstr(rc));
}

int db_open(struct db **out, const char *path, bool create, struct err *err)
{
    struct db *db = mem_zalloc(sizeof *db);
    if (!db)
        return err_nomem(err);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    int rc = sqlite3_open_v2(path, &db->h, flags | (create ? SQLITE_OPEN_CREATE : 0), NULL);
    if (rc != SQLITE_OK) {
        rc = fail(db, rc, path, err);
        db_close(db);
        return rc;
    }
    sqlite3_busy_timeout(db->h, BUSY_MS);
    *out = db;
    return 0;
}

void db_close(struct db *db)
{
    if (!db)
        return;
    for (unsigned i = 0; i < db->n_stmts; i++)
        sqlite3_finalize(db->stmt[i].st);
    sqlite3_close(db->h);
    mem_free(db);
}

int db_exec(struct db *db, const char *sql, struct err *err)
{
    int rc = sqlite3_exec(db->h, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail(db, rc, "store", err);
}

int db_int(struct db *db, const char *sql, int64_t *out, struct err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db->h, sql, -1, &st, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(st, 0);
    int failed = rc == SQLITE_ROW    ? 0
                 : rc == SQLITE_DONE ? err_set(err, ERR_NOTFOUND, "store: no row: %s", sql)
                                     : fail(db, rc, "store", err);
    sqlite3_finalize(st);
    return failed;
}

int db_prep(struct db *db, struct db_stmt **out, const char *sql, struct err *err)
{
    for (unsigned i = 0; i < db->n_stmts; i++)
        if (db->stmt[i].sql == sql) {
            *out = &db->stmt[i];
            return 0;
        }
    if (db->n_stmts == MAX_STMTS)
        return err_set(err, ERR_STATE, "store: more than %d statements", MAX_STMTS);
    struct db_stmt *s = &db->stmt[db->n_stmts];
    int rc = sqlite3_prepare_v3(db->h, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->st, NULL);
    if (rc != SQLITE_OK)
        return fail(db, rc, "store", err);
    s->sql = sql;
    db->n_stmts++;
    *out = s;
    return 0;
}

/* A failed bind (out of memory) leaves NULL, which the NOT NULL columns then refuse. */
void db_bind_int(struct db_stmt *s, int at, int64_t v)
{
    sqlite3_bind_int64(s->st, at, v);
}

void db_bind_text(struct db_stmt *s, int at, struct str v)
{
    if (v.p)
        sqlite3_bind_text64(s->st, at, v.p, v.n, SQLITE_STATIC, SQLITE_UTF8);
    else
        sqlite3_bind_null(s->st, at);
}

void db_bind_blob(struct db_stmt *s, int at, struct str v)
{
    if (v.p)
        sqlite3_bind_blob64(s->st, at, v.p, v.n, SQLITE_STATIC);
    else
        sqlite3_bind_null(s->st, at);
}

int db_step(struct db *db, struct db_stmt *s, struct err *err)
{
    int rc = sqlite3_step(s->st);
    if (rc == SQLITE_ROW)
        return 1;
    int failed = rc == SQLITE_DONE ? 0 : fail(db, rc, "store", err);
    db_reset(s);
    return failed;
}

void db_reset(struct db_stmt *s)
{
    sqlite3_reset(s->st);
    sqlite3_clear_bindings(s->st);
}

int64_t db_col_int(struct db_stmt *s, int at)
{
    return sqlite3_column_int64(s->st, at);
}

struct str db_col(struct db_stmt *s, int at)
{
    const void *p = sqlite3_column_blob(s->st, at);
    return str_of(p ? p : "", (size_t)sqlite3_column_bytes(s->st, at));
}

int64_t db_changes(struct db *db)
{
    return sqlite3_changes64(db->h);
}

int64_t db_last_rowid(struct db *db)
{
    return sqlite3_last_insert_rowid(db->h);
}

bool db_in_transaction(struct db *db)
{
    return !sqlite3_get_autocommit(db->h);
}

int db_backup(struct db *db, const char *path, struct err *err)
{
    struct db *to = NULL;
    int rc = db_open(&to, path, true, err);
    if (rc < 0)
        return rc;
    sqlite3_backup *b = sqlite3_backup_init(to->h, "main", db->h, "main");
    int brc = b ? sqlite3_backup_step(b, -1) : SQLITE_ERROR;
    if (b)
        sqlite3_backup_finish(b);
    if (brc != SQLITE_DONE)
        rc = fail(to, brc, "backup", err);
    db_close(to);
    return rc;
}
