/*
 * index.c - the database: one row a document, one contentless FTS5 table beside it.
 *
 * doc.body is the page's text with its link marks, doc.link its link URLs; the text that
 * FTS5 saw is that body without marks, so it can always be derived again to be deleted.
 */
#include "tools/index.h"

#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "base/mem.h"
#include "tools/index_walk.h"
#include "tools/segment.h"
#include "tools/snippet.h"

struct index {
    sqlite3 *db;
    sqlite3_stmt *find; /* prepared once: search */
    bool folder;        /* in memory, made from a folder */
};

static const char schema_sql[] =
    "PRAGMA application_id = 1634168425;" /* "agdi" */
    "CREATE TABLE IF NOT EXISTS root(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL,"
    "  folder TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS doc(id INTEGER PRIMARY KEY, root INTEGER NOT NULL,"
    "  url TEXT UNIQUE NOT NULL, mtime INTEGER NOT NULL, size INTEGER NOT NULL,"
    "  mark INTEGER NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL, link TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS doc_root ON doc(root);"
    "CREATE VIRTUAL TABLE IF NOT EXISTS fts USING fts5(title, body, content='',"
    "  tokenize='porter unicode61 remove_diacritics 2');";

/* How words are cut; an index made otherwise gets its FTS table anew (segment.h came with 2). */
enum { APPLICATION = 1634168425, WORDS_VERSION = 2 };

static int sql_error(struct index *x, const char *what, struct err *err)
{
    int code = sqlite3_errcode(x->db);
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
        return err_set(err, ERR_CORRUPT, "%s: the file is damaged, or never was a search index; "
                       "if it was, delete it and add its folders again with "
                       "'agentctl index add'", what);
    return err_set(err, code == SQLITE_FULL ? ERR_LIMIT : ERR_STATE, "%s: %s", what,
                   sqlite3_errmsg(x->db));
}

static int run_sql(struct index *x, const char *sql, struct err *err)
{
    return sqlite3_exec(x->db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? 0 : sql_error(x, "SQLite", err);
}

static int prepare(struct index *x, const char *sql, sqlite3_stmt **st, struct err *err)
{
    return sqlite3_prepare_v2(x->db, sql, -1, st, NULL) == SQLITE_OK
               ? 0 : sql_error(x, "SQLite", err);
}

static void bind_str(sqlite3_stmt *st, int i, struct str s)
{
    sqlite3_bind_text64(st, i, s.p, s.n, SQLITE_STATIC, SQLITE_UTF8);
}

static struct str column(sqlite3_stmt *st, int i)
{
    const void *p = sqlite3_column_text(st, i);
    return str_of(p, (size_t)sqlite3_column_bytes(st, i));
}

/* Runs a statement that returns no row; resets it for the next use. */
static int step_done(struct index *x, sqlite3_stmt *st, struct err *err)
{
    int rc = sqlite3_step(st) == SQLITE_DONE ? 0 : sql_error(x, "SQLite", err);
    sqlite3_reset(st);
    return rc;
}

static int get_number(struct index *x, const char *sql, int64_t *out, struct err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = prepare(x, sql, &st, err);
    if (rc == 0 && sqlite3_step(st) == SQLITE_ROW)
        *out = sqlite3_column_int64(st, 0);
    else if (rc == 0)
        rc = sql_error(x, "SQLite", err);
    sqlite3_finalize(st);
    return rc;
}

/* Nobody's database but ours is searched, or written to. */
static int check_ours(struct index *x, bool *empty, struct err *err)
{
    int64_t id = 0, tables = 0;
    int rc = get_number(x, "PRAGMA application_id", &id, err);
    if (rc == 0)
        rc = get_number(x, "SELECT count(*) FROM sqlite_schema", &tables, err);
    if (rc < 0)
        return rc;
    *empty = tables == 0;
    if (id != APPLICATION && tables)
        return err_set(err, ERR_CORRUPT, "this file is a database of something else");
    return 0;
}

static int redo_words(struct index *x, struct err *err);

static int prepare_db(struct index *x, bool write, struct err *err)
{
    int64_t version = 0;
    bool empty = false;
    int rc = check_ours(x, &empty, err);
    if (rc == 0 && !write && empty)
        return err_set(err, ERR_NOTFOUND, "the file is empty");
    if (rc == 0 && write)
        rc = run_sql(x, schema_sql, err);
    if (rc == 0 && write)
        rc = get_number(x, "PRAGMA user_version", &version, err);
    if (rc == 0 && write && version < WORDS_VERSION)
        rc = redo_words(x, err);
    return rc;
}

static int open_db(struct index *x, const char *path, bool write, struct err *err)
{
    int flags = write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    if (sqlite3_open_v2(path, &x->db, flags | SQLITE_OPEN_NOFOLLOW, NULL) != SQLITE_OK)
        return err_set(err, ERR_NOTFOUND, "search index '%s': %s", path,
                       x->db ? sqlite3_errmsg(x->db) : "out of memory");
    sqlite3_busy_timeout(x->db, 5000);
    sqlite3_db_config(x->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(x->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    int rc = prepare_db(x, write, err);
    return rc < 0 && path[0] != ':' ? err_prefix(err, "search index '%s'", path) : rc;
}

int index_open(struct index **out, const char *path, bool write, struct err *err)
{
    struct stat st;
    struct index *x = mem_zalloc(sizeof *x);
    if (!x)
        return err_nomem(err);
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    int rc = open_db(x, folder ? ":memory:" : path, folder || write, err);
    if (rc == 0 && folder) {
        struct index_stats stats;
        rc = index_add(x, path, "", NULL, NULL, NULL, &stats, err);
        x->folder = true;
    }
    if (rc < 0) {
        index_close(x);
        return rc;
    }
    *out = x;
    return 0;
}

int index_refresh(struct index *x, const char *path, struct err *err)
{
    struct index_stats stats;
    return x->folder ? index_add(x, path, "", NULL, NULL, NULL, &stats, err) : 0;
}

void index_close(struct index *x)
{
    if (!x)
        return;
    sqlite3_finalize(x->find);
    sqlite3_close(x->db);
    mem_free(x);
}

/* --- adding ----------------------------------------------------------------------------- */

struct adder {
    struct index *x;
    sqlite3_stmt *look, *insert, *update, *mark, *fts_add, *fts_del, *old;
    const char *shown;   /* recorded as the folder; NULL = the real path */
    int64_t root, round; /* round: documents not seen in it have gone */
    struct index_stats *stats;
    struct err *err;
};

static int adder_open(struct adder *a)
{
    const struct {
        sqlite3_stmt **st;
        const char *sql;
    } rows[] = {
        {&a->look, "SELECT id, mtime, size FROM doc WHERE url = ?1"},
        {&a->insert, "INSERT INTO doc(root, url, mtime, size, mark, title, body, link)"
                     " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"},
        {&a->update, "UPDATE doc SET root = ?1, url = ?2, mtime = ?3, size = ?4, mark = ?5,"
                     " title = ?6, body = ?7, link = ?8 WHERE id = ?9"},
        {&a->mark, "UPDATE doc SET mark = ?1 WHERE id = ?2"},
        {&a->fts_add, "INSERT INTO fts(rowid, title, body) VALUES(?1, ?2, ?3)"},
        {&a->fts_del, "INSERT INTO fts(fts, rowid, title, body) VALUES('delete', ?1, ?2, ?3)"},
        {&a->old, "SELECT title, body FROM doc WHERE id = ?1"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        int rc = prepare(a->x, rows[i].sql, rows[i].st, a->err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void adder_close(struct adder *a)
{
    sqlite3_stmt *all[] = {a->look, a->insert, a->update, a->mark, a->fts_add, a->fts_del, a->old};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        sqlite3_finalize(all[i]);
}

static int fts_write(struct adder *a, sqlite3_stmt *st, int64_t id, struct str title,
                     struct str body)
{
    struct buf plain, words[2];
    buf_init(&plain, 0);
    buf_init(&words[0], 0);
    buf_init(&words[1], 0);
    snippet_plain(body, &plain);
    segment_text(title, &words[0]);
    segment_text(buf_view(&plain), &words[1]);
    int rc = buf_check(&plain, "document", a->err);
    for (int i = 0; rc == 0 && i < 2; i++) {
        rc = buf_check(&words[i], "document", a->err);
        bind_str(st, 2 + i, buf_view(&words[i]));
    }
    sqlite3_bind_int64(st, 1, id);
    if (rc == 0)
        rc = step_done(a->x, st, a->err);
    sqlite3_clear_bindings(st);
    buf_done(&plain);
    buf_done(&words[0]);
    buf_done(&words[1]);
    return rc;
}

/* Takes a document's words out of the FTS table. */
static int forget_words(struct adder *a, int64_t id)
{
    sqlite3_bind_int64(a->old, 1, id);
    int rc = 0;
    if (sqlite3_step(a->old) == SQLITE_ROW)
        rc = fts_write(a, a->fts_del, id, column(a->old, 0), column(a->old, 1));
    sqlite3_reset(a->old);
    return rc;
}

/* Makes the FTS table anew from the documents. */
static int redo_words(struct index *x, struct err *err)
{
    struct adder a = {.x = x, .err = err};
    struct err ignored = {0};
    sqlite3_stmt *st = NULL;
    int rc = run_sql(x, "BEGIN IMMEDIATE; DROP TABLE fts;", err);
    if (rc == 0)
        rc = run_sql(x, schema_sql, err);
    if (rc == 0)
        rc = adder_open(&a);
    if (rc == 0)
        rc = prepare(x, "SELECT id, title, body FROM doc", &st, err);
    while (rc == 0 && sqlite3_step(st) == SQLITE_ROW)
        rc = fts_write(&a, a.fts_add, sqlite3_column_int64(st, 0), column(st, 1), column(st, 2));
    sqlite3_finalize(st);
    adder_close(&a);
    if (rc == 0)
        return run_sql(x, "PRAGMA user_version = 2; COMMIT", err);
    return run_sql(x, "ROLLBACK", &ignored) < 0 ? -err->code : rc;
}

static int store_doc(struct adder *a, int64_t id, const struct walk_file *f, struct str url,
                     const struct page *p)
{
    struct buf links;
    sqlite3_stmt *st = id ? a->update : a->insert;
    int rc = id ? forget_words(a, id) : 0;
    if (rc < 0)
        return rc;
    buf_init(&links, 0);
    for (uint32_t i = 0; i < p->n_links; i++)
        buf_printf(&links, "%s\n", p->link[i].url);
    sqlite3_bind_int64(st, 1, a->root);
    bind_str(st, 2, url);
    sqlite3_bind_int64(st, 3, f->mtime_ns);
    sqlite3_bind_int64(st, 4, (int64_t)f->size);
    sqlite3_bind_int64(st, 5, a->round);
    bind_str(st, 6, p->title[0] ? str_c(p->title) : url);
    bind_str(st, 7, buf_view(&p->text));
    bind_str(st, 8, buf_view(&links));
    if (id)
        sqlite3_bind_int64(st, 9, id);
    rc = buf_check(&links, "links", a->err);
    if (rc == 0)
        rc = step_done(a->x, st, a->err);
    buf_done(&links);
    if (rc == 0)
        rc = fts_write(a, a->fts_add, id ? id : sqlite3_last_insert_rowid(a->x->db),
                       p->title[0] ? str_c(p->title) : url, buf_view(&p->text));
    a->stats->bytes += p->text.len;
    return rc;
}

static int add_one(struct adder *a, const char *folder, const char *name,
                   const struct walk_file *f)
{
    char url[PATH_MAX * 2];
    int64_t id = 0;
    bool same = false;
    snprintf(url, sizeof url, "%s%s%s", name, name[0] ? "/" : "", f->path);
    bind_str(a->look, 1, str_c(url));
    if (sqlite3_step(a->look) == SQLITE_ROW) {
        id = sqlite3_column_int64(a->look, 0);
        same = sqlite3_column_int64(a->look, 1) == f->mtime_ns &&
               sqlite3_column_int64(a->look, 2) == (int64_t)f->size;
    }
    sqlite3_reset(a->look);
    if (same) {
        a->stats->unchanged++;
        sqlite3_bind_int64(a->mark, 1, a->round);
        sqlite3_bind_int64(a->mark, 2, id);
        return step_done(a->x, a->mark, a->err);
    }
    struct page *p = NULL;
    int rc = walk_read(folder, f->path, str_c(url), &p, a->err);
    if (rc == -ERR_UNSUPPORTED || rc == -ERR_LIMIT || rc == -ERR_PARSE) {
        a->stats->skipped++;
        return 0;
    }
    if (rc == 0)
        rc = store_doc(a, id, f, str_c(url), p);
    page_free(p);
    if (id)
        a->stats->updated++;
    else
        a->stats->added++;
    return rc;
}

/* Documents of this root that the round did not meet. */
static int drop_missing(struct adder *a, uint64_t *removed)
{
    sqlite3_stmt *st = NULL, *del = NULL;
    int rc = prepare(a->x, "SELECT id FROM doc WHERE root = ?1 AND mark <> ?2", &st, a->err);
    if (rc == 0)
        rc = prepare(a->x, "DELETE FROM doc WHERE id = ?1", &del, a->err);
    if (rc == 0) {
        sqlite3_bind_int64(st, 1, a->root);
        sqlite3_bind_int64(st, 2, a->round);
    }
    while (rc == 0 && sqlite3_step(st) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(st, 0);
        rc = forget_words(a, id);
        sqlite3_bind_int64(del, 1, id);
        if (rc == 0)
            rc = step_done(a->x, del, a->err);
        ++*removed;
    }
    sqlite3_finalize(st);
    sqlite3_finalize(del);
    return rc;
}

/* A name belongs to one folder: another's documents would be taken for removed. */
static int check_root(struct adder *a, const char *name, const char *folder)
{
    sqlite3_stmt *st = NULL;
    int rc = prepare(a->x, "SELECT folder FROM root WHERE name = ?1 AND folder <> ?2", &st, a->err);
    if (rc < 0)
        return rc;
    bind_str(st, 1, str_c(name));
    bind_str(st, 2, str_c(folder));
    if (sqlite3_step(st) == SQLITE_ROW) {
        struct str other = column(st, 0);
        rc = err_set(a->err, ERR_STATE, "the index has '%.*s' under the name '%s' already; give "
                     "this folder another with --name, or take that one out with 'agentctl index "
                     "remove %s'", STR_ARG(str_sub(other, 0, 150)), name, name);
    }
    sqlite3_finalize(st);
    return rc;
}

static int find_root(struct adder *a, const char *name, const char *folder)
{
    sqlite3_stmt *st = NULL;
    int rc = check_root(a, name, a->shown ? a->shown : folder);
    if (rc == 0)
        rc = prepare(a->x, "INSERT INTO root(name, folder) VALUES(?1, ?2) ON CONFLICT(name)"
                     " DO UPDATE SET folder = ?2 RETURNING id,"
                     " (SELECT ifnull(max(mark), 0) + 1 FROM doc)", &st, a->err);
    if (rc < 0)
        return rc;
    bind_str(st, 1, str_c(name));
    bind_str(st, 2, str_c(a->shown ? a->shown : folder));
    if (sqlite3_step(st) == SQLITE_ROW) {
        a->root = sqlite3_column_int64(st, 0);
        a->round = sqlite3_column_int64(st, 1);
    } else {
        rc = sql_error(a->x, "SQLite", a->err);
    }
    sqlite3_finalize(st);
    return rc;
}

static int count_docs(struct index *x, uint64_t *n, struct err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = prepare(x, "SELECT count(*) FROM doc", &st, err);
    if (rc == 0 && sqlite3_step(st) == SQLITE_ROW)
        *n = (uint64_t)sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return rc;
}

static int add_all(struct adder *a, const char *folder, const char *name,
                   const struct walk_list *l, index_progress tick, void *arg)
{
    int rc = find_root(a, name, folder);
    if (rc == 0)
        rc = adder_open(a);
    for (uint32_t i = 0; rc == 0 && i < l->n && !a->stats->stopped; i++) {
        if (tick && !tick(arg, i, l->n, l->file[i].path))
            a->stats->stopped = true;
        else
            rc = add_one(a, folder, name, &l->file[i]);
    }
    if (rc == 0 && !a->stats->stopped)
        rc = drop_missing(a, &a->stats->removed);
    adder_close(a);
    return rc;
}

int index_add(struct index *x, const char *folder, const char *name, const char *shown,
              index_progress tick, void *arg, struct index_stats *stats, struct err *err)
{
    char real[PATH_MAX];
    struct walk_list l;
    struct adder a = {.x = x, .stats = stats, .err = err, .shown = shown};
    *stats = (struct index_stats){0};
    if (!realpath(folder, real))
        return err_sys(err, "folder '%s'", folder);
    if (!name)
        name = strrchr(real, '/') + 1;
    int rc = walk_list_make(&l, real, err);
    if (rc < 0)
        return rc;
    if (name[0] == '\0' && l.bytes > LIMIT_INDEX_MEMORY_BYTES)
        rc = err_set(err, ERR_LIMIT, "'%s' holds %llu MB, too much to search unindexed; run "
                     "agentctl index add", real, (unsigned long long)(l.bytes >> 20));
    if (rc == 0)
        rc = run_sql(x, "BEGIN IMMEDIATE", err);
    if (rc == 0) {
        rc = add_all(&a, real, name, &l, tick, arg);
        struct err ignored = {0};
        if (rc == 0)
            rc = run_sql(x, "COMMIT", err);
        else if (run_sql(x, "ROLLBACK", &ignored) < 0)
            rc = -err->code;
    }
    if (rc == 0 && tick && !stats->stopped)
        (void)tick(arg, l.n, l.n, "");
    walk_list_done(&l);
    return rc == 0 ? count_docs(x, &stats->total, err) : rc;
}

int index_remove(struct index *x, const char *name, uint64_t *removed, struct err *err)
{
    struct index_stats stats = {0};
    struct adder a = {.x = x, .stats = &stats, .err = err};
    sqlite3_stmt *st = NULL;
    *removed = 0;
    int rc = prepare(x, "SELECT id FROM root WHERE name = ?1", &st, err);
    if (rc < 0)
        return rc;
    bind_str(st, 1, str_c(name));
    bool there = sqlite3_step(st) == SQLITE_ROW;
    a.root = there ? sqlite3_column_int64(st, 0) : 0;
    a.round = -1; /* no document has this mark: all go */
    sqlite3_finalize(st);
    if (!there)
        return err_set(err, ERR_NOTFOUND, "the index has no folder named '%s'", name);
    rc = run_sql(x, "BEGIN IMMEDIATE", err);
    if (rc == 0)
        rc = adder_open(&a);
    if (rc == 0)
        rc = drop_missing(&a, removed);
    adder_close(&a);
    if (rc == 0) {
        rc = prepare(x, "DELETE FROM root WHERE id = ?1", &st, err);
        if (rc == 0) {
            sqlite3_bind_int64(st, 1, a.root);
            rc = step_done(x, st, err);
            sqlite3_finalize(st);
        }
    }
    struct err ignored = {0};
    if (rc == 0)
        return run_sql(x, "COMMIT", err);
    return run_sql(x, "ROLLBACK", &ignored) < 0 ? -err->code : rc;
}

/* --- searching -------------------------------------------------------------------------- */

struct finder {
    struct index *x;
    const struct snippet_query *q;
    unsigned left;
    int64_t seen[64];
    unsigned n_seen;
    void (*hit)(void *arg, const struct index_hit *h);
    void *arg;
};

static bool seen_before(const struct finder *f, int64_t id)
{
    for (unsigned i = 0; i < f->n_seen; i++)
        if (f->seen[i] == id)
            return true;
    return false;
}

static int run_query(struct finder *f, struct str match, struct err *err)
{
    struct index *x = f->x;
    int rc = 0;
    if (!x->find)
        rc = prepare(x, "SELECT d.id, d.url, d.title, d.body, r.rank FROM (SELECT rowid,"
                     " bm25(fts, 4.0, 1.0) AS rank FROM fts WHERE fts MATCH ?1"
                     " ORDER BY rank, rowid LIMIT ?2) r JOIN doc d ON d.id = r.rowid"
                     " ORDER BY r.rank, d.id", &x->find, err);
    if (rc < 0)
        return rc;
    bind_str(x->find, 1, match);
    sqlite3_bind_int64(x->find, 2, f->left + f->n_seen);
    int step;
    while (f->left && (step = sqlite3_step(x->find)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(x->find, 0);
        struct buf text;
        if (seen_before(f, id))
            continue;
        if (f->n_seen < ARRAY_LEN(f->seen))
            f->seen[f->n_seen++] = id;
        buf_init(&text, 0);
        snippet_make(f->q, column(x->find, 3), &text);
        const struct index_hit h = {column(x->find, 1), column(x->find, 2), buf_view(&text),
                                    -sqlite3_column_double(x->find, 4)};
        f->hit(f->arg, &h);
        f->left--;
        buf_done(&text);
    }
    if (f->left && step != SQLITE_DONE)
        rc = sql_error(x, "search", err);
    sqlite3_reset(x->find);
    sqlite3_clear_bindings(x->find);
    return rc;
}

int index_search(struct index *x, struct str query, unsigned n,
                 void (*hit)(void *arg, const struct index_hit *h), void *arg, struct err *err)
{
    struct snippet_query q;
    struct buf match;
    struct finder f = {.x = x, .q = &q, .left = n < 64 ? n : 64, .hit = hit, .arg = arg};
    snippet_parse(&q, query);
    if (q.n == 0)
        return 0;
    buf_init(&match, 0);
    snippet_match(&q, "AND", &match);
    int rc = run_query(&f, buf_view(&match), err);
    if (rc == 0 && f.left && q.n > 1) {
        buf_reset(&match);
        snippet_match(&q, "OR", &match);
        rc = run_query(&f, buf_view(&match), err);
    }
    buf_done(&match);
    return rc;
}

int index_page(struct index *x, struct str url, struct page **out, struct err *err)
{
    sqlite3_stmt *st = NULL;
    struct page *p = NULL;
    int rc = prepare(x, "SELECT title, body, link FROM doc WHERE url = ?1", &st, err);
    if (rc < 0)
        return rc;
    bind_str(st, 1, url);
    if (sqlite3_step(st) != SQLITE_ROW) {
        rc = err_set(err, ERR_NOTFOUND, "the index has no document '%.*s'",
                     STR_ARG(str_sub(url, 0, 200)));
    } else {
        rc = page_new(&p, column(st, 0), url, err);
        struct str rest = column(st, 2), link;
        while (rc == 0 && rest.n && str_split(&rest, '\n', &link))
            if (link.n && page_add_link(p, link, -1, -1) < 0)
                rc = err_nomem(err);
        if (rc == 0) {
            buf_printf(&p->text, "\nURL: %s\n", p->url);
            buf_str(&p->text, column(st, 1));
            rc = page_wrap(p, err);
        }
    }
    sqlite3_finalize(st);
    if (rc < 0) {
        page_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

int index_list(struct index *x,
               void (*row)(void *arg, const char *name, const char *folder, uint64_t docs,
                           uint64_t bytes),
               void *arg, struct err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = prepare(x, "SELECT r.name, r.folder, count(d.id), ifnull(sum(length(d.body)), 0)"
                     " FROM root r LEFT JOIN doc d ON d.root = r.id GROUP BY r.id"
                     " ORDER BY r.name", &st, err);
    while (rc == 0 && sqlite3_step(st) == SQLITE_ROW)
        row(arg, (const char *)sqlite3_column_text(st, 0),
            (const char *)sqlite3_column_text(st, 1), (uint64_t)sqlite3_column_int64(st, 2),
            (uint64_t)sqlite3_column_int64(st, 3));
    sqlite3_finalize(st);
    return rc;
}
