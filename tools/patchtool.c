/*
 * patchtool.c - apply_patch: every section is worked out in memory first; only when all fit
 * are files touched, and if one cannot be written those before it are put back.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "tools/patch.h"
#include "tools/toolbox_impl.h"

struct change {
    const struct patch_file *f;
    struct wsfs_at from, to; /* to: where an update moves, or the same place */
    struct buf before, after;
    bool written, removed;
};

struct work {
    struct toolbox *t;
    struct patch patch;
    struct change change[PATCH_FILES_MAX];
    unsigned n;
};

static int read_before(struct work *w, struct change *c, struct err *err)
{
    if (!c->from.exists)
        return err_set(err, ERR_NOTFOUND, "'%s' does not exist", c->from.shown);
    int rc = wsfs_read(&c->from, &c->before, LIMIT_EDIT_BYTES, err);
    if (rc == 0 && !utf8_valid(buf_view(&c->before)))
        rc = err_set(err, ERR_UNSUPPORTED, "'%s' is not UTF-8 text", c->from.shown);
    if (rc == 0 && !views_fresh(&w->t->views, c->from.shown, buf_view(&c->before)))
        rc = err_set(err, ERR_STATE, "'%s' has changed since you last saw it; view it again",
                     c->from.shown);
    return rc;
}

/* Works out one section without touching anything. */
static int prepare(struct work *w, const struct patch_file *f, struct err *err)
{
    struct change *c = &w->change[w->n++];
    *c = (struct change){.f = f, .from = {.dir = -1}, .to = {.dir = -1}};
    buf_init(&c->before, 0);
    buf_init(&c->after, LIMIT_EDIT_BYTES);
    int rc = wsfs_find(&w->t->fs, f->path, f->kind == PATCH_ADD, &c->from, err);
    if (rc == 0 && f->move.n)
        rc = wsfs_find(&w->t->fs, f->move, true, &c->to, err);
    if (rc == 0 && f->move.n && c->to.exists)
        rc = err_set(err, ERR_STATE, "'%s' exists already", c->to.shown);
    if (rc == 0 && f->kind == PATCH_ADD && c->from.exists)
        rc = err_set(err, ERR_STATE, "'%s' exists already; use *** Update File:", c->from.shown);
    if (rc == 0 && f->kind == PATCH_ADD)
        rc = patch_added(f, &c->after, err);
    else if (rc == 0)
        rc = read_before(w, c, err);
    if (rc == 0 && f->kind == PATCH_UPDATE)
        rc = patch_updated(f, buf_view(&c->before), &c->after, err);
    return rc < 0 ? err_prefix(err, "%.*s", STR_ARG(str_sub(f->path, 0, 200))) : 0;
}

static int commit(struct change *c, struct err *err)
{
    int rc = 0;
    if (c->f->kind != PATCH_DELETE) {
        rc = wsfs_write(c->f->move.n ? &c->to : &c->from, buf_view(&c->after), err);
        c->written = rc == 0;
    }
    if (rc == 0 && (c->f->kind == PATCH_DELETE || c->f->move.n)) {
        rc = wsfs_remove(&c->from, err);
        c->removed = rc == 0;
    }
    return rc;
}

/* Puts back what was there before; what fails now is said nowhere but in the file itself. */
static void undo(struct change *c)
{
    struct err ignored = {0};
    struct wsfs_at *at = c->f->move.n ? &c->to : &c->from;
    int rc = 0;
    if (c->written && (c->f->kind == PATCH_ADD || c->f->move.n))
        rc = wsfs_remove(at, &ignored);
    if (rc == 0 && (c->removed || (c->written && c->f->kind == PATCH_UPDATE && !c->f->move.n))) {
        c->from.exists = !c->removed;
        rc = wsfs_write(&c->from, buf_view(&c->before), &ignored);
    }
}

static void report(struct work *w, struct answer *a)
{
    static const char marks[] = {[PATCH_ADD] = 'A', [PATCH_DELETE] = 'D', [PATCH_UPDATE] = 'M'};
    json_t *files = json_array();
    for (unsigned i = 0; i < w->n; i++) {
        struct change *c = &w->change[i];
        const struct wsfs_at *at = c->f->move.n ? &c->to : &c->from;
        buf_printf(&a->text, "%c %s%s%s\n", marks[c->f->kind], c->from.shown,
                   c->f->move.n ? " -> " : "", c->f->move.n ? c->to.shown : "");
        if (c->f->kind != PATCH_DELETE)
            views_set(&w->t->views, at->shown, buf_view(&c->after));
        bool existed = c->f->kind != PATCH_ADD;
        json_array_append_new(files, json_pack("{s:s, s:b, s:o?}", "path", c->from.shown,
                                               "existed", existed, "content",
                                               existed ? json_text(buf_view(&c->before)) : NULL));
    }
    a->undo = json_pack("{s:o}", "files", files);
}

static int apply(struct work *w, struct str text, struct err *err)
{
    int rc = patch_parse(&w->patch, text, err);
    for (unsigned i = 0; rc == 0 && i < w->patch.n; i++)
        rc = prepare(w, &w->patch.file[i], err);
    for (unsigned i = 0; rc == 0 && i < w->n; i++) {
        rc = commit(&w->change[i], err);
        for (unsigned k = i + 1; rc < 0 && k > 0; k--)
            undo(&w->change[k - 1]);
    }
    return rc;
}

void tool_patch(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct err err = {0};
    struct work *w = mem_zalloc(sizeof *w);
    if (!w) {
        answer_fail(a, TOOL_UNAVAILABLE, "out of memory");
        return;
    }
    w->t = t;
    if (apply(w, json_view(json_object_get(r->args, "patch")), &err) < 0)
        answer_fail(a, TOOL_FAILED, "%s\nNothing was changed.", err.text);
    else
        report(w, a);
    for (unsigned i = 0; i < w->n; i++) {
        wsfs_at_done(&w->change[i].from);
        wsfs_at_done(&w->change[i].to);
        buf_done(&w->change[i].before);
        buf_done(&w->change[i].after);
    }
    mem_free(w);
}
