/* feed.c - subscriptions and live items. */
#include "agentd/feed.h"

#include <inttypes.h>
#include <string.h>

#include "agentd/log.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

struct offset { /* how much of a live item a subscriber has seen */
    const struct feed_item *item; /* borrowed: removed when the item closes */
    size_t sent;
    struct offset *next;
};

struct sub {
    struct conn *conn; /* borrowed: dropped with it */
    char session[ID_TEXT]; /* empty = all */
    int64_t cursor;        /* seq, or gid for all sessions */
    bool live;             /* replay.done was sent */
    bool deltas;
    json_t *types;         /* owned, or NULL */
    int64_t coalesce_ns, quiet_until;
    struct offset *offsets; /* owned list */
    struct sub *next;
};

struct feed_item {
    struct feed *feed;
    char session[ID_TEXT], turn[ID_TEXT], id[ID_TEXT];
    const char *kind;
    struct buf text; /* all of it, or for outputs the last FEED_OUTPUT_KEEP bytes */
    size_t base;     /* offset of text's first byte */
    struct feed_item *next;
};

struct feed {
    struct store *st;
    struct ev_timer *timer; /* owned; for coalesced deltas */
    struct sub *subs;       /* owned list */
    struct feed_item *items;
    struct buf line; /* scratch */
    bool hold;
};

static void tick(void *arg);
static void publish(void *arg, const struct store_event *e);

int feed_new(struct feed **out, struct store *st, struct ev *ev, struct err *err)
{
    struct feed *f = mem_zalloc(sizeof *f);
    if (!f)
        return err_nomem(err);
    f->st = st;
    buf_init(&f->line, 0);
    int rc = ev_timer_new(&f->timer, ev, tick, f, err);
    if (rc < 0) {
        mem_free(f);
        return rc;
    }
    store_on_commit(st, publish, f);
    *out = f;
    return 0;
}

static void sub_free(struct sub *s)
{
    for (struct offset *o = s->offsets, *next; o; o = next) {
        next = o->next;
        mem_free(o);
    }
    json_decref(s->types);
    mem_free(s);
}

void feed_free(struct feed *f)
{
    if (!f)
        return;
    store_on_commit(f->st, NULL, NULL);
    while (f->items)
        feed_item_close(f->items);
    for (struct sub *s = f->subs, *next; s; s = next) {
        next = s->next;
        sub_free(s);
    }
    ev_timer_free(f->timer);
    buf_done(&f->line);
    mem_free(f);
}

/* --- lines ---------------------------------------------------------------------------- */

static void event_line(struct buf *b, const struct store_event *e)
{
    buf_printf(b, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"sessionId\":\"%.*s\"",
               STR_ARG(e->session));
    buf_printf(b, ",\"seq\":%" PRId64 ",\"ts\":%" PRId64, e->seq, e->ts);
    if (e->turn.n)
        buf_printf(b, ",\"turnId\":\"%.*s\"", STR_ARG(e->turn));
    if (e->item.n)
        buf_printf(b, ",\"itemId\":\"%.*s\"", STR_ARG(e->item));
    buf_printf(b, ",\"type\":\"%.*s\",\"data\":", STR_ARG(e->type));
    buf_str(b, e->data);
    buf_puts(b, "}}");
}

static void ephemeral_head(struct buf *b, const char *session, const char *turn,
                           const char *item, const char *type)
{
    buf_printf(b, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"sessionId\":\"%s\"",
               session);
    buf_printf(b, ",\"ts\":%" PRId64, io_wall_ms());
    if (turn && *turn)
        buf_printf(b, ",\"turnId\":\"%s\"", turn);
    if (item)
        buf_printf(b, ",\"itemId\":\"%s\"", item);
    buf_printf(b, ",\"type\":\"%s\",\"data\":", type);
}

static void json_bytes(struct buf *b, struct str text)
{
    struct err err;
    json_t *v = json_text(text);
    if (!v || json_write(v, b, &err) < 0)
        buf_puts(b, "\"\"");
    json_decref(v);
}

/* --- durable -------------------------------------------------------------------------- */

static bool wants(const struct sub *s, struct str type)
{
    size_t i;
    json_t *name;
    if (!s->types)
        return true;
    json_array_foreach(s->types, i, name)
        if (str_eq(json_view(name), type))
            return true;
    return false;
}

static bool matches(const struct sub *s, struct str session)
{
    return !s->session[0] || str_is(session, s->session);
}

static int64_t place(const struct sub *s, const struct store_event *e)
{
    return s->session[0] ? e->seq : e->gid;
}

static void publish(void *arg, const struct store_event *e)
{
    struct feed *f = arg;
    buf_reset(&f->line);
    for (struct sub *s = f->subs; s && !f->hold; s = s->next) {
        if (!s->live || !matches(s, e->session))
            continue;
        bool next = s->session[0] ? s->cursor == e->seq - 1 : s->cursor < e->gid;
        if (!next || !conn_room(s->conn))
            continue; /* behind: the pump reads the store when there is room */
        s->cursor = place(s, e);
        if (!wants(s, e->type))
            continue;
        if (!f->line.len)
            event_line(&f->line, e);
        conn_send(s->conn, buf_view(&f->line));
    }
}

struct replay {
    struct feed *f;
    struct sub *s;
};

static bool replay_one(void *arg, const struct store_event *e)
{
    struct replay *r = arg;
    if (!conn_room(r->s->conn))
        return false;
    r->s->cursor = place(r->s, e);
    if (wants(r->s, e->type)) {
        buf_reset(&r->f->line);
        event_line(&r->f->line, e);
        conn_send(r->s->conn, buf_view(&r->f->line));
    }
    return true;
}

/* --- live items ----------------------------------------------------------------------- */

static struct offset *offset_of(struct sub *s, const struct feed_item *it)
{
    for (struct offset *o = s->offsets; o; o = o->next)
        if (o->item == it)
            return o;
    struct offset *o = mem_zalloc(sizeof *o);
    if (o) {
        o->item = it;
        o->next = s->offsets;
        s->offsets = o;
    }
    return o;
}

static size_t end_of(const struct feed_item *it)
{
    return it->base + it->text.len;
}

static void send_gap(struct feed *f, struct sub *s, const struct feed_item *it, size_t from,
                     size_t to)
{
    buf_reset(&f->line);
    ephemeral_head(&f->line, it->session, it->turn, it->id, "event.gap");
    buf_printf(&f->line, "{\"itemId\":\"%s\",\"from\":%zu,\"to\":%zu}}}", it->id, from, to);
    conn_send(s->conn, buf_view(&f->line));
}

/* Everything of the item that this subscriber lacks, as one delta. */
static void send_delta(struct feed *f, struct sub *s, const struct feed_item *it, bool last)
{
    struct offset *o = s->live && s->deltas ? offset_of(s, it) : NULL;
    if (!o || o->sent >= end_of(it) || !conn_roomy(s->conn))
        return;
    if (o->sent < it->base) {
        send_gap(f, s, it, o->sent, it->base);
        o->sent = it->base;
    }
    struct str text = str_sub(buf_view(&it->text), o->sent - it->base, SIZE_MAX);
    if (!last)
        text.n = utf8_complete(text); /* a character may still be on its way */
    if (!text.n)
        return;
    bool output = strcmp(it->kind, "output") == 0;
    buf_reset(&f->line);
    ephemeral_head(&f->line, it->session, it->turn, it->id,
                   output ? "tool.output" : "item.delta");
    if (output)
        buf_printf(&f->line, "{\"stream\":1,\"encoding\":\"utf-8\",\"offset\":%zu,\"data\":",
                   o->sent);
    else
        buf_printf(&f->line, "{\"kind\":\"%s\",\"offset\":%zu,\"text\":", it->kind, o->sent);
    json_bytes(&f->line, text);
    buf_puts(&f->line, "}}}");
    conn_send(s->conn, buf_view(&f->line));
    o->sent += text.n;
    if (s->coalesce_ns)
        s->quiet_until = io_mono_ns() + s->coalesce_ns;
}

static void send_snapshot(struct feed *f, struct sub *s, const struct feed_item *it)
{
    struct offset *o = offset_of(s, it);
    if (!o)
        return;
    struct str text = buf_view(&it->text);
    text.n = utf8_complete(text);
    o->sent = it->base + text.n;
    buf_reset(&f->line);
    ephemeral_head(&f->line, it->session, it->turn, it->id, "item.snapshot");
    buf_printf(&f->line, "{\"kind\":\"%s\",\"offset\":%zu,\"text\":", it->kind, it->base);
    json_bytes(&f->line, text);
    buf_puts(&f->line, "}}}");
    conn_send(s->conn, buf_view(&f->line));
}

/* Up to date with the log for the first time: the unfinished items, then "replay.done". */
static void go_live(struct feed *f, struct sub *s)
{
    s->live = true;
    for (struct feed_item *it = f->items; it && s->deltas; it = it->next)
        if (matches(s, str_c(it->session)))
            send_snapshot(f, s, it);
    buf_reset(&f->line);
    buf_puts(&f->line, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{");
    if (s->session[0])
        buf_printf(&f->line, "\"sessionId\":\"%s\",", s->session);
    buf_printf(&f->line, "\"type\":\"replay.done\",\"data\":{\"seq\":%" PRId64 "}}}", s->cursor);
    conn_send(s->conn, buf_view(&f->line));
}

static void pump_sub(struct feed *f, struct sub *s)
{
    struct err err;
    struct replay r = {f, s};
    if (store_read(f->st, str_c(s->session), s->cursor, false, replay_one, &r, &err) < 0) {
        LOGE("feed", "replay error=\"%s\"", err.text);
        return;
    }
    if (!conn_room(s->conn))
        return;
    if (!s->live)
        go_live(f, s);
    for (struct feed_item *it = f->items; it; it = it->next)
        if (matches(s, str_c(it->session)))
            send_delta(f, s, it, false);
}

void feed_pump(struct feed *f, struct conn *c)
{
    for (struct sub *s = f->subs; s; s = s->next)
        if (s->conn == c)
            pump_sub(f, s);
}

bool feed_hold(struct feed *f, bool hold)
{
    bool was = f->hold;
    f->hold = hold;
    for (struct sub *s = f->subs; was && !hold && s; s = s->next)
        if (s->live)
            pump_sub(f, s);
    return was;
}

static void tick(void *arg)
{
    struct feed *f = arg;
    for (struct sub *s = f->subs; s; s = s->next)
        for (struct feed_item *it = f->items; s->coalesce_ns && it; it = it->next)
            if (matches(s, str_c(it->session)))
                send_delta(f, s, it, false);
}

struct feed_item *feed_item_open(struct feed *f, const char *session, const char *turn,
                                 const char *item, const char *kind)
{
    struct feed_item *it = mem_zalloc(sizeof *it);
    if (!it)
        return NULL;
    it->feed = f;
    memcpy(it->session, session, strnlen(session, ID_TEXT - 1));
    memcpy(it->turn, turn, strnlen(turn, ID_TEXT - 1));
    memcpy(it->id, item, strnlen(item, ID_TEXT - 1));
    it->kind = kind;
    buf_init(&it->text, LIMIT_LINE_BYTES);
    it->next = f->items;
    f->items = it;
    return it;
}

void feed_item_add(struct feed_item *it, struct str text)
{
    if (!it || !text.n)
        return;
    buf_str(&it->text, text);
    if (strcmp(it->kind, "output") == 0 && it->text.len > 2 * FEED_OUTPUT_KEEP) {
        size_t drop = it->text.len - FEED_OUTPUT_KEEP;
        while (drop < it->text.len && (it->text.data[drop] & 0xc0) == 0x80)
            drop++;
        buf_consume(&it->text, drop);
        it->base += drop;
    }
    struct feed *f = it->feed;
    for (struct sub *s = f->subs; s; s = s->next) {
        if (!matches(s, str_c(it->session)))
            continue;
        if (s->coalesce_ns && io_mono_ns() < s->quiet_until)
            ev_timer_start(f->timer, s->coalesce_ns, 0);
        else
            send_delta(f, s, it, false);
    }
}

static void forget_offset(struct sub *s, const struct feed_item *it)
{
    for (struct offset **at = &s->offsets; *at; at = &(*at)->next)
        if ((*at)->item == it) {
            struct offset *o = *at;
            *at = o->next;
            mem_free(o);
            return;
        }
}

void feed_item_close(struct feed_item *it)
{
    if (!it)
        return;
    struct feed *f = it->feed;
    for (struct sub *s = f->subs; s; s = s->next) {
        if (!matches(s, str_c(it->session)))
            continue;
        send_delta(f, s, it, true);
        struct offset *o = s->live && s->deltas && end_of(it) ? offset_of(s, it) : NULL;
        if (o && o->sent < end_of(it) && conn_room(s->conn))
            send_gap(f, s, it, o->sent, end_of(it));
        forget_offset(s, it);
    }
    for (struct feed_item **at = &f->items; *at; at = &(*at)->next)
        if (*at == it) {
            *at = it->next;
            break;
        }
    buf_done(&it->text);
    mem_free(it);
}

struct str feed_item_text(const struct feed_item *it)
{
    return buf_view(&it->text);
}

void feed_notice(struct feed *f, const char *session, const char *turn, const char *type,
                 struct str data)
{
    buf_reset(&f->line);
    ephemeral_head(&f->line, session, turn, NULL, type);
    buf_str(&f->line, data);
    buf_puts(&f->line, "}}");
    for (struct sub *s = f->subs; s; s = s->next)
        if (s->live && s->deltas && matches(s, str_c(session)) && conn_roomy(s->conn))
            conn_send(s->conn, buf_view(&f->line));
}

/* --- subscriptions -------------------------------------------------------------------- */

int feed_subscribe(struct feed *f, struct conn *c, const struct feed_sub_opts *o,
                   struct err *err)
{
    unsigned n = 0;
    feed_unsubscribe(f, c, o->session);
    for (struct sub *s = f->subs; s; s = s->next)
        n += s->conn == c;
    if (n >= LIMIT_SUBSCRIPTIONS)
        return err_set(err, ERR_LIMIT, "more than %d subscriptions", LIMIT_SUBSCRIPTIONS);
    struct sub *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    s->conn = c;
    if (o->session.n)
        memcpy(s->session, o->session.p,
               o->session.n < ID_TEXT - 1 ? o->session.n : ID_TEXT - 1);
    s->cursor = o->after < 0 ? store_last_gid(f->st) : o->after;
    s->deltas = o->deltas;
    s->coalesce_ns = o->coalesce_ns;
    s->types = o->types ? json_deep_copy(o->types) : NULL;
    s->next = f->subs;
    f->subs = s;
    return 0;
}

static void drop(struct feed *f, struct conn *c, const char *session, bool *found)
{
    for (struct sub **at = &f->subs; *at;) {
        struct sub *s = *at;
        if (s->conn == c && (!session || strcmp(s->session, session) == 0)) {
            *at = s->next;
            sub_free(s);
            *found = true;
        } else {
            at = &s->next;
        }
    }
}

bool feed_unsubscribe(struct feed *f, struct conn *c, struct str session)
{
    char id[ID_TEXT] = "";
    bool found = false;
    if (session.n)
        memcpy(id, session.p, session.n < ID_TEXT - 1 ? session.n : ID_TEXT - 1);
    drop(f, c, id, &found);
    return found;
}

void feed_drop(struct feed *f, struct conn *c)
{
    bool found = false;
    drop(f, c, NULL, &found);
}

bool feed_watched(const struct feed *f, struct str session)
{
    for (const struct sub *s = f->subs; s; s = s->next)
        if (matches(s, session))
            return true;
    return false;
}
