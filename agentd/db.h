/*
 * db.h - SQLite with our errors; the only file that speaks to the library is db.c.
 * One connection, one thread. A statement is prepared once and kept.
 */
#ifndef AGENTD_DB_H
#define AGENTD_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct db;
struct db_stmt;

/*
 * Error codes: -ERR_TIMEOUT another process holds the lock, -ERR_LIMIT the disk (or the
 * size cap) is full, -ERR_CORRUPT the file is damaged or no database, -ERR_SYS the rest.
 */
NODISCARD int db_open(struct db **out, const char *path, bool create, struct err *err);
void db_close(struct db *db);
NODISCARD int db_exec(struct db *db, const char *sql, struct err *err);
/* One integer from a query without parameters. */
NODISCARD int db_int(struct db *db, const char *sql, int64_t *out, struct err *err);

/* Finds or prepares the statement for this literal (compared by address). */
NODISCARD int db_prep(struct db *db, struct db_stmt **out, const char *sql, struct err *err);
/* Parameters count from 1; bytes are borrowed until db_reset(). A NULL view binds NULL. */
void db_bind_int(struct db_stmt *s, int at, int64_t v);
void db_bind_text(struct db_stmt *s, int at, struct str v);
void db_bind_blob(struct db_stmt *s, int at, struct str v);
/* 1 = a row, 0 = done (and reset), negative = failed (and reset). */
NODISCARD int db_step(struct db *db, struct db_stmt *s, struct err *err);
void db_reset(struct db_stmt *s);
int64_t db_col_int(struct db_stmt *s, int at);
struct str db_col(struct db_stmt *s, int at); /* text or blob, borrowed until the next step */
int64_t db_changes(struct db *db);
int64_t db_last_rowid(struct db *db);
bool db_in_transaction(struct db *db);
/* Copies the whole database into a new file, while it is in use. */
NODISCARD int db_backup(struct db *db, const char *path, struct err *err);

#endif
