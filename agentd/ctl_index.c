/* ctl_index.c - agentctl index: the local search index, from the command line. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_index.h"
#include "agentd/ctl_view.h"
#include "base/io.h"
#include "base/json.h"
#include "tools/index.h"

enum { PATH_CAP = 4096 };

static const char more[] =
    "The index is one SQLite file ($XDG_DATA_HOME/agentd/index.db, or ~/.local/share/...).\n"
    "Text, Markdown and HTML are taken in, and PDF where pdftotext (poppler-utils) is\n"
    "installed; hidden files, links and data are left out. Adding a folder again reads only\n"
    "what changed. Documents are read in a cell that sees them and nothing else. Ctrl-C keeps\n"
    "what was read so far.\n"
    "Exit status: 0; 1 when an error left the index as it was, or it was interrupted; 2 usage.";

/* Where the index lies unless --db says otherwise; makes its folder when `make`. */
static int default_path(char out[PATH_CAP], bool make, struct err *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char dir[PATH_CAP - 16];
    int n;
    if (data && data[0] == '/')
        n = snprintf(dir, sizeof dir, "%s/agentd", data);
    else if (home && home[0] == '/')
        n = snprintf(dir, sizeof dir, "%s/.local/share/agentd", home);
    else
        return err_set(err, ERR_STATE, "HOME is not set; name the index with --db FILE");
    if (n < 0 || (size_t)n >= sizeof dir)
        return err_set(err, ERR_LIMIT, "the path of the index is too long");
    snprintf(out, PATH_CAP, "%s/index.db", dir);
    return make ? io_make_dirs(dir, 0700, err) : 0;
}

static int open_index(struct index **x, const char *db, bool write, struct err *err)
{
    char path[PATH_CAP];
    if (!db) {
        int rc = default_path(path, write, err);
        if (rc < 0)
            return rc;
        db = path;
    }
    int rc = index_open(x, db, write, err);
    if (rc == -ERR_NOTFOUND && !write)
        return err_set(err, ERR_NOTFOUND, "there is no index at '%s' yet; make one with "
                       "'agentctl index add DIR'", db);
    return rc;
}

/* The end of a command: an error names the index it is about. */
static int finish(const char *db, int rc, struct err *err)
{
    if (rc == 0)
        return EXIT_OK;
    if (db && !strstr(err->text, db))
        (void)err_prefix(err, "search index '%s'", db);
    return ctl_fail(err);
}

struct progress {
    bool show, terminal;
    int64_t last_ns;
};

/* A line that is written over, or on anything but a terminal a line every two seconds. */
static bool show_progress(void *arg, uint64_t seen, uint64_t total, const char *path)
{
    struct progress *p = arg;
    int64_t now = io_mono_ns();
    if (!p->show || (now - p->last_ns < (p->terminal ? 100000000 : 2000000000) && seen != total))
        return true;
    p->last_ns = now;
    if (p->terminal)
        fprintf(stderr, "\r%llu of %llu files  %-50.50s%s", (unsigned long long)seen,
                (unsigned long long)total, path, seen == total ? "\n" : "");
    else
        fprintf(stderr, "%llu of %llu files\n", (unsigned long long)seen,
                (unsigned long long)total);
    return true;
}

/*
 * One writer at a time: a cell works on a copy that replaces the index, so a second writer's
 * work would be lost. The lock is on the index's folder, and leaves nothing behind.
 */
static int lock_index(const char *db, int *lock, struct err *err)
{
    char dir[PATH_CAP];
    const char *slash = strrchr(db, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - db) + 1 : 1, slash ? db : ".");
    *lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0)
        return err_sys(err, "the index's folder '%s'", dir);
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    fprintf(stderr, "agentctl: another 'agentctl index' writes in '%s'; waiting for its end\n",
            dir);
    while (flock(*lock, LOCK_EX) < 0)
        if (errno != EINTR)
            return err_sys(err, "lock '%s'", dir);
    return 0;
}

/* One value a line; takes it. */
static void print_json(json_t *o)
{
    view_json(o);
    json_decref(o);
}

static void print_stats(const char *folder, const struct index_stats *s, double seconds,
                        bool json)
{
    typedef unsigned long long u;
    if (json)
        print_json(json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "folder",
                             json_text(str_c(folder)), "added", (json_int_t)s->added,
                             "updated", (json_int_t)s->updated, "unchanged",
                             (json_int_t)s->unchanged, "removed", (json_int_t)s->removed,
                             "skipped", (json_int_t)s->skipped, "bytes", (json_int_t)s->bytes,
                             "total", (json_int_t)s->total, "seconds", seconds));
    else
        printf("%s: %llu added, %llu updated, %llu unchanged, %llu removed, %llu skipped "
               "(not text); %.1f MB of text in %.1f s; %llu documents in the index\n",
               folder, (u)s->added, (u)s->updated, (u)s->unchanged, (u)s->removed,
               (u)s->skipped, (double)s->bytes / 1e6, seconds, (u)s->total);
}

/* Reads the documents in this process: for hosts without the sandbox, at their own risk. */
static int add_here(const char *db, const char *folder, const char *name, struct progress *p,
                    struct index_stats *stats, struct err *err)
{
    struct index *x = NULL;
    int rc = index_open(&x, db, true, err);
    if (rc == 0)
        rc = index_add(x, folder, name, NULL, show_progress, p, stats, err);
    index_close(x);
    if (rc == -ERR_CORRUPT && !strstr(err->text, db))
        return err_prefix(err, "search index '%s'", db);
    return rc;
}

static int add(int argc, char **argv)
{
    const char *db = NULL, *name = NULL, *sandbox = "on";
    bool json = false, quiet = false;
    const struct opt opts[] = {
        {"db", 'd', OPT_STR, &db, "FILE", "Use this index."},
        {"name", 'n', OPT_STR, &name, "NAME", "Prefix of the documents' names."},
        {"sandbox", 0, OPT_WORD, &sandbox, "on|off", "off reads the documents unconfined."},
        {"quiet", 'q', OPT_FLAG, &quiet, NULL, "Print no progress."},
        {"json", 'j', OPT_FLAG, &json, NULL, "Print the outcome as JSON, a line a folder."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl index add",
        .args = "DIR...",
        .summary = "Add folders of documents to the search index, or bring them up to date.",
        .more = more,
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = -1,
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    char path[PATH_CAP];
    struct progress p = {.show = !quiet, .terminal = isatty(STDERR_FILENO),
                         .last_ns = io_mono_ns()};
    bool off = strcmp(sandbox, "off") == 0, stopped = false;
    int lock = -1;
    int rc = db ? 0 : default_path(path, true, &err);
    if (rc == 0)
        rc = lock_index(db ? db : path, &lock, &err);
    for (int i = at; rc == 0 && i < argc && !stopped; i++) {
        struct index_stats stats;
        int64_t began = io_mono_ns();
        rc = off ? add_here(db ? db : path, argv[i], name, &p, &stats, &err)
                 : ctl_index_cell(db ? db : path, argv[i], name, show_progress, &p, &stats, &err);
        if (rc == 0)
            print_stats(argv[i], &stats, (double)(io_mono_ns() - began) / 1e9, json);
        stopped = rc == 0 && stats.stopped;
    }
    io_close(&lock);
    if (stopped)
        fprintf(stderr, "agentctl: interrupted; what was read is kept, the same command goes on "
                        "from there\n");
    return rc < 0 ? ctl_fail(&err) : stopped ? EXIT_FAIL : EXIT_OK;
}

static int drop(int argc, char **argv)
{
    const char *db = NULL;
    bool json = false;
    const struct opt opts[] = {
        {"db", 'd', OPT_STR, &db, "FILE", "Use this index."},
        {"json", 'j', OPT_FLAG, &json, NULL, "A JSON object."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl index remove",
        .args = "NAME",
        .summary = "Take a folder's documents out of the search index.",
        .more = more,
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    struct index *x = NULL;
    uint64_t n = 0;
    char path[PATH_CAP];
    int lock = -1, rc = db ? 0 : default_path(path, false, &err);
    if (rc == 0)
        rc = open_index(&x, db, false, &err);
    index_close(x);
    x = NULL;
    if (rc == 0)
        rc = lock_index(db ? db : path, &lock, &err);
    if (rc == 0)
        rc = open_index(&x, db, true, &err);
    if (rc == 0)
        rc = index_remove(x, argv[at], &n, &err);
    index_close(x);
    io_close(&lock);
    if (rc < 0)
        return ctl_fail(&err);
    if (json)
        print_json(json_pack("{s:o, s:I}", "name", json_text(str_c(argv[at])), "removed",
                             (json_int_t)n));
    else
        printf("%llu documents removed\n", (unsigned long long)n);
    return EXIT_OK;
}

static void print_root(void *arg, const char *name, const char *folder, uint64_t docs,
                       uint64_t bytes)
{
    const bool *json = arg;
    if (*json)
        print_json(json_pack("{s:o, s:o, s:I, s:I}", "name", json_text(str_c(name)), "folder",
                             json_text(str_c(folder)), "documents", (json_int_t)docs, "bytes",
                             (json_int_t)bytes));
    else
        printf("%-24s %8llu %9.1f  %s\n", name, (unsigned long long)docs, (double)bytes / 1e6,
               folder);
}

static int list(int argc, char **argv)
{
    const char *db = NULL;
    bool json = false;
    const struct opt opts[] = {
        {"db", 'd', OPT_STR, &db, "FILE", "Use this index."},
        {"json", 'j', OPT_FLAG, &json, NULL, "A JSON object a line."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl index list",
        .summary = "List the folders in the search index.",
        .more = more,
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
    };
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    struct err err = {0};
    struct index *x = NULL;
    int rc = open_index(&x, db, false, &err);
    if (rc == 0 && !json)
        printf("%-24s %8s %9s  %s\n", "NAME", "DOCS", "TEXT MB", "FOLDER");
    if (rc == 0)
        rc = index_list(x, print_root, &json, &err);
    index_close(x);
    return finish(db, rc, &err);
}

struct hits {
    unsigned n;
    bool json;
};

static void print_hit(void *arg, const struct index_hit *h)
{
    struct hits *hits = arg;
    hits->n++;
    if (hits->json)
        print_json(json_pack("{s:o, s:o, s:o, s:f}", "url", json_text(h->url), "title",
                             json_text(h->title), "snippet", json_text(h->snippet), "score",
                             h->score));
    else
        printf("%2u. %.*s (%.*s)\n    %.*s\n", hits->n, STR_ARG(h->title), STR_ARG(h->url),
               STR_ARG(h->snippet));
}

static int search(int argc, char **argv)
{
    const char *db = NULL;
    struct hits hits = {0};
    int64_t n = 10;
    const struct opt opts[] = {
        {"db", 'd', OPT_STR, &db, "FILE", "Use this index, or search this folder unindexed."},
        {"number", 'n', OPT_INT, &n, "N", "Most results (10)."},
        {"json", 'j', OPT_FLAG, &hits.json, NULL, "A JSON object a line."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl index search",
        .args = "WORDS...",
        .summary = "Search the index as the search tool does.",
        .more = more,
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = -1,
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    struct index *x = NULL;
    struct buf query;
    if (n < 1 || n > 1000) {
        fputs("agentctl index search: --number goes from 1 to 1000\n", stderr);
        return EXIT_USAGE;
    }
    buf_init(&query, 1 << 16);
    for (int i = at; i < argc; i++)
        buf_printf(&query, "%s%s", i > at ? " " : "", argv[i]);
    int rc = open_index(&x, db, false, &err);
    if (rc == 0)
        rc = index_search(x, buf_view(&query), (unsigned)n, print_hit, &hits, &err);
    index_close(x);
    buf_done(&query);
    if (rc == 0 && hits.n == 0 && !hits.json)
        puts("nothing found");
    return finish(db, rc, &err);
}

int ctl_index(int argc, char **argv)
{
    static const struct ctl_command table[] = {
        {"add", add, "Add folders, or bring them up to date."},
        {"list", list, "List the folders in the index."},
        {"remove", drop, "Take a folder out."},
        {"search", search, "Search as the search tool does."},
        {"bench", ctl_index_bench, "Measure building and searching on made-up documents."},
    };
    return ctl_dispatch("agentctl index", table, ARRAY_LEN(table), argc, argv);
}
