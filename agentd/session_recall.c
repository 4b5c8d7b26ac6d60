/*
 * session_recall.c - the recall tool: what this session has said, done and seen, also where
 * it has left the context, and where agent.recall allows it, what earlier sessions of the
 * same person in the same folder have. Read from the log; reasoning is left out, as the
 * model's own rule drops it between turns.
 *
 * An event of this session has its seq as its number; one of another has its place in the
 * whole log behind ELSEWHERE, so that one number is enough to read it.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agentd/loop.h"
#include "agentd/toolrun.h"
#include "base/limits.h"
#include "base/mem.h"

enum { WORDS_MAX = 12, HITS_MAX = 50, EXCERPT = 240, WHOLE_HEAD = 4096, WHOLE_TAIL = 1024 };
enum { SESSIONS_MAX = 100 };
static const int64_t ELSEWHERE = 1000000000;
/* What one search of earlier sessions reads at most: the daemon waits for it. */
static const uint64_t SCAN_BYTES = 32u << 20;

struct hit {
    int64_t seq;
    char *line; /* owned */
};

struct recall {
    struct str word[WORDS_MAX];
    unsigned n_words;
    int64_t seq; /* > 0: read this one */
    struct hit hit[HITS_MAX]; /* a ring: the newest stay */
    unsigned limit;
    uint64_t found, scanned; /* hits; bytes of events read */
    const char *of; /* NULL = this session, else the id of the one being read */
    struct buf *out;
};

static size_t find_word(struct str s, struct str word)
{
    for (size_t i = 0; i + word.n <= s.n; i++)
        if (strncasecmp(s.p + i, word.p, word.n) == 0)
            return i;
    return STR_NONE;
}

/* The text of an event that recall shows, and what it is called; empty for others. */
static struct str text_of(const json_t *data, char label[64])
{
    struct str kind = json_view(json_object_get(data, "kind"));
    struct str name = json_view(json_object_get(data, "name"));
    name = str_sub(name, 0, 40);
    if (str_is(kind, "call")) {
        snprintf(label, 64, "call of %.*s", STR_ARG(name));
        return json_view(json_object_get(data, "arguments"));
    }
    if (str_is(kind, "result"))
        snprintf(label, 64, "result of %.*s", STR_ARG(name));
    else if (str_is(kind, "user") || str_is(kind, "text"))
        snprintf(label, 64, "%s", str_is(kind, "user") ? "user" : "answer");
    else
        return (struct str){0};
    return json_view(json_object_get(data, "text"));
}

static void show_whole(struct recall *r, int64_t seq, const char *label, struct str text)
{
    struct keep k;
    struct err ignored = {0};
    uint64_t cut;
    if (keep_init(&k, WHOLE_HEAD, WHOLE_TAIL, &ignored) < 0)
        return;
    keep_feed(&k, text.p, text.n);
    buf_printf(r->out, "[%lld] %s\n", (long long)seq, label);
    keep_text(&k, r->out, &cut);
    keep_done(&k);
    r->found = 1;
}

static void note_hit(struct recall *r, int64_t seq, const char *label, struct str text)
{
    size_t at = find_word(text, r->word[0]);
    size_t from = at == STR_NONE || at < 60 ? 0 : at - 60;
    struct hit *h = &r->hit[r->found++ % r->limit];
    struct buf b;
    while (from && ((unsigned char)text.p[from] & 0xc0) == 0x80)
        from--;
    struct str cut = str_sub(text, from, EXCERPT);
    cut = str_sub(cut, 0, utf8_complete(cut));
    buf_init(&b, 0);
    buf_printf(&b, "[%lld] ", (long long)seq);
    if (r->of)
        buf_printf(&b, "session %s, ", r->of);
    buf_printf(&b, "%s: %s", label, from ? "... " : "");
    for (size_t i = 0; i < cut.n; i++)
        buf_putc(&b, cut.p[i] == '\n' || cut.p[i] == '\t' ? ' ' : cut.p[i]);
    buf_puts(&b, from + cut.n < text.n ? " ...\n" : "\n");
    mem_free(h->line);
    h->seq = seq;
    h->line = buf_take(&b);
    buf_done(&b);
}

static bool on_event(void *arg, const struct store_event *e)
{
    struct recall *r = arg;
    struct err ignored = {0};
    int64_t number = r->of ? ELSEWHERE + e->gid : e->seq;
    char label[64];
    json_t *data = NULL;
    r->scanned += e->data.n;
    if (!str_is(e->type, "item.completed") || json_read(&data, e->data, &ignored) < 0)
        return !r->of || r->scanned < SCAN_BYTES;
    struct str text = text_of(data, label);
    bool all = text.n > 0;
    for (unsigned i = 0; all && i < r->n_words; i++)
        all = find_word(text, r->word[i]) != STR_NONE;
    if (all)
        note_hit(r, number, label, text);
    json_decref(data);
    return !r->of || r->scanned < SCAN_BYTES;
}

/* The one event that is to be shown whole; only of sessions that may be read. */
struct whole {
    struct recall *r;
    struct session *s;
};

static bool may_read(const struct session *s, const struct store_session *row)
{
    struct err ignored;
    json_t *config = NULL;
    bool same = row->uid == s->uid && json_read(&config, row->config, &ignored) == 0 &&
                str_is(json_view(json_object_get(config, "cwd")), s->cwd);
    json_decref(config);
    return same;
}

static bool show_event(void *arg, const struct store_event *e)
{
    struct whole *w = arg;
    struct err ignored;
    struct store_session row;
    struct buf config;
    char label[64];
    json_t *data = NULL;
    int64_t number = w->r->seq > ELSEWHERE ? ELSEWHERE + e->gid : e->seq;
    buf_init(&config, LIMIT_JSON_BYTES);
    bool mine = str_is(e->session, w->s->id);
    if (!mine && w->s->d->config.recall == CONFIG_RECALL_WORKSPACE)
        mine = store_session(w->s->d->store, e->session, &row, &config, &ignored) == 0 &&
               may_read(w->s, &row);
    if (mine && number == w->r->seq && str_is(e->type, "item.completed") &&
        json_read(&data, e->data, &ignored) == 0) {
        struct str text = text_of(data, label);
        if (text.n)
            show_whole(w->r, number, label, text);
    }
    json_decref(data);
    buf_done(&config);
    return false;
}

/* --- earlier sessions ------------------------------------------------------------------- */

struct earlier {
    struct session *s;
    char id[SESSIONS_MAX][ID_TEXT]; /* the newest first */
    unsigned n;
};

static bool note_session(void *arg, const struct store_session *row)
{
    struct earlier *e = arg;
    if (strcmp(row->id, e->s->id) != 0 && may_read(e->s, row))
        snprintf(e->id[e->n++], ID_TEXT, "%s", row->id);
    return e->n < SESSIONS_MAX;
}

/* Until as many hits are there as were asked for. */
static int search_earlier(struct session *s, struct recall *r, struct err *err)
{
    struct earlier *e = mem_zalloc(sizeof *e);
    if (!e)
        return err_nomem(err);
    e->s = s;
    int rc = store_sessions(s->d->store, 0, 10000, note_session, e, err);
    for (unsigned i = 0; rc == 0 && i < e->n && r->found < r->limit && r->scanned < SCAN_BYTES;
         i++) {
        r->of = e->id[i];
        rc = store_read(s->d->store, str_c(e->id[i]), 0, false, on_event, r, err);
    }
    mem_free(e);
    return rc;
}

static void split_words(struct recall *r, struct str query)
{
    struct str word;
    while (r->n_words < WORDS_MAX && str_split(&query, ' ', &word))
        if ((word = str_trim(word)).n)
            r->word[r->n_words++] = word;
}

static void print_hits(const struct session *s, struct recall *r)
{
    uint64_t shown = r->found < r->limit ? r->found : r->limit;
    for (uint64_t i = r->found - shown; i < r->found; i++)
        if (r->hit[i % r->limit].line)
            buf_puts(r->out, r->hit[i % r->limit].line);
    if (r->found == 0)
        buf_puts(r->out, s->d->config.recall == CONFIG_RECALL_WORKSPACE
                             ? "Nothing in this session or earlier ones of this workspace says "
                               "that."
                             : "Nothing in this session says that.");
    else
        envelope_status(r->out, "%llu of %llu; recall with seq reads one whole",
                        (unsigned long long)shown, (unsigned long long)r->found);
}

static enum tool_status run(struct session *s, const json_t *args, struct buf *out)
{
    struct err err = {0};
    const json_t *seq = json_object_get(args, "seq"), *limit = json_object_get(args, "limit");
    struct recall r = {.out = out, .limit = 10};
    split_words(&r, json_view(json_object_get(args, "query")));
    r.seq = json_is_integer(seq) ? json_integer_value(seq) : 0;
    if (json_is_integer(limit))
        r.limit = (unsigned)json_integer_value(limit); /* 1 to 50 by the schema */
    if (r.n_words == 0 && r.seq <= 0) {
        buf_puts(out, "recall needs a query, or the seq of an event\n[invalid arguments]");
        return TOOL_INVALID;
    }
    int rc;
    if (r.seq) {
        bool elsewhere = r.seq > ELSEWHERE;
        struct whole w = {&r, s};
        rc = store_read(s->d->store, elsewhere ? (struct str){0} : str_c(s->id),
                        r.seq - (elsewhere ? ELSEWHERE : 0) - 1, false, show_event, &w, &err);
    } else {
        rc = store_read(s->d->store, str_c(s->id), 0, false, on_event, &r, &err);
        if (rc == 0 && s->d->config.recall == CONFIG_RECALL_WORKSPACE && *s->cwd)
            rc = search_earlier(s, &r, &err);
    }
    if (rc < 0)
        buf_printf(out, "%s\n[error]", err.text);
    else if (r.seq && r.found == 0)
        buf_printf(out, "event %lld holds nothing to read\n[error]", (long long)r.seq);
    else if (!r.seq)
        print_hits(s, &r);
    for (unsigned i = 0; i < HITS_MAX; i++)
        mem_free(r.hit[i].line);
    return rc < 0 || (r.seq && r.found == 0) ? TOOL_FAILED : TOOL_OK;
}

void session_unhook(void *arg, struct toolrun_call *call)
{
    (void)call; /* only delegate answers later, one call at a time */
    loop_delegate_cancel(arg);
}

void session_hook(void *arg, struct toolrun_call *call, const char *tool, const json_t *args)
{
    struct session *s = arg;
    struct buf out;
    if (strcmp(tool, "ask_user") == 0) {
        toolrun_answer(call, TOOL_INVALID,
                       STR("ask_user works within a turn, and its questions need ids that "
                           "differ.\n[invalid arguments]"));
        return;
    }
    if (strcmp(tool, "delegate") == 0) {
        loop_delegate(s, call, args);
        return;
    }
    if (strcmp(tool, "recall") != 0) {
        toolrun_answer(call, TOOL_UNAVAILABLE,
                       STR("This daemon does not offer that tool.\n[unavailable]"));
        return;
    }
    buf_init(&out, 1 << 20);
    enum tool_status status = run(s, args, &out);
    if (out.len && out.data[out.len - 1] == '\n')
        buf_truncate(&out, out.len - 1);
    toolrun_answer(call, status, buf_view(&out));
    buf_done(&out);
}
