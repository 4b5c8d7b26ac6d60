/* layer.c - names and contents here come from inside: nothing is printed or matched raw. */
#include "agentd/layer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/difftext.h"
#include "base/io.h"
#include "sandbox/changes.h"
#include "tools/envelope.h"

static const char *const kinds[] = {"removed", "added", "changed"};
static const char *const types[] = {"file", "folder", "link", "other"};

/* Length of a UTF-8 character at the start of s that a terminal shows, 0 for anything else. */
static size_t shown(struct str s)
{
    unsigned char c = (unsigned char)s.p[0];
    size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0x20 || c == 0x7f || n > s.n || !utf8_valid(str_sub(s, 0, n)))
        return 0;
    unsigned char next = n > 1 ? (unsigned char)s.p[1] : 0;
    bool control = n == 2 && c == 0xc2 && next < 0xa0;
    /* marks that turn the direction of writing make a name look like another */
    bool turns = n == 3 && c == 0xe2 && (next == 0x80 || next == 0x81);
    return control || turns ? 0 : n;
}

static void spell(struct str name, struct buf *out)
{
    for (size_t i = 0; i < name.n;) {
        size_t n = shown(str_sub(name, i, name.n));
        if (name.p[i] == '\\') {
            buf_puts(out, "\\\\");
            i++;
        } else if (n) {
            buf_add(out, name.p + i, n);
            i += n;
        } else {
            buf_printf(out, "\\%03o", (unsigned)(unsigned char)name.p[i++]);
        }
    }
}

static json_t *spelled(const char *name)
{
    struct buf b;
    buf_init(&b, 0);
    spell(str_c(name), &b);
    json_t *v = json_text(buf_view(&b));
    buf_done(&b);
    return v;
}

static void set_mode(json_t *o, const char *key, mode_t mode)
{
    char text[16];
    snprintf(text, sizeof text, "%04o", (unsigned)mode);
    json_object_set_new(o, key, json_string(text));
}

/* The texts side by side, or why they are not shown. */
static void add_diff(json_t *o, const struct change *c, int layer, int lower, size_t *left)
{
    struct buf old, new, diff, clean;
    struct err err = {0};
    buf_init(&old, DIFFTEXT_BYTES);
    buf_init(&new, DIFFTEXT_BYTES);
    buf_init(&diff, 2 * DIFFTEXT_BYTES);
    buf_init(&clean, 0);
    int rc = 0;
    if (c->kind == CHANGE_CHANGED)
        rc = changes_read(lower, c->path, &old, &err);
    if (rc == 0)
        rc = changes_read(layer, c->path, &new, &err);
    if (rc == -ERR_LIMIT || (rc == 0 && (old.failed || new.failed)))
        json_object_set_new(o, "note", json_string("too long to show"));
    else if (rc < 0)
        json_object_set_new(o, "note", json_text(str_c(err.text)));
    else if (!utf8_valid(buf_view(&old)) || !utf8_valid(buf_view(&new)) ||
             !difftext_fits(buf_view(&old), buf_view(&new)))
        json_object_set_new(o, "note", json_string("binary, or too long to show"));
    else
        difftext(buf_view(&old), buf_view(&new), &diff);
    if (diff.len)
        envelope_clean(&clean, buf_view(&diff));
    if (clean.len && clean.len <= *left) {
        json_object_set_new(o, "diff", json_text(buf_view(&clean)));
        *left -= clean.len;
    } else if (clean.len) {
        json_object_set_new(o, "note", json_string("left out: the list is long enough"));
    }
    buf_done(&old);
    buf_done(&new);
    buf_done(&diff);
    buf_done(&clean);
}

static json_t *change_json(const struct change *c, int layer, int lower, size_t *left)
{
    json_t *o = json_pack("{s:o, s:s, s:s}", "path", spelled(c->path), "change", kinds[c->kind],
                          "type", types[c->type]);
    bool gone = c->kind == CHANGE_REMOVED, file = c->type == CHANGE_FILE;
    if (!o)
        return NULL;
    if (!gone)
        set_mode(o, "mode", c->mode);
    if (c->kind != CHANGE_ADDED)
        set_mode(o, "oldMode", c->old_mode);
    if (file && !gone)
        json_object_set_new(o, "size", json_integer((json_int_t)c->size));
    if (file && c->kind != CHANGE_ADDED)
        json_object_set_new(o, "oldSize", json_integer((json_int_t)c->old_size));
    if (c->kind == CHANGE_CHANGED)
        json_object_set_new(o, "content", json_boolean(c->content));
    if (c->to)
        json_object_set_new(o, "to", spelled(c->to));
    if (c->stale)
        json_object_set_new(o, "stale", json_true());
    if (file && !gone && c->content)
        add_diff(o, c, layer, lower, left);
    return o;
}

static int open_both(struct changes *c, int layer, const char *workspace, int64_t since,
                     int *lower, struct err *err)
{
    *c = (struct changes){0};
    *lower = changes_open_lower(workspace, err);
    if (*lower < 0)
        return *lower;
    int rc = 0;
    if (layer >= 0)
        rc = changes_list(c, layer, *lower, since ? since : changes_born(layer), err);
    if (rc < 0)
        io_close(lower);
    return rc;
}

json_t *layer_list(int layer, const char *workspace, int64_t since, struct err *err)
{
    struct changes c;
    size_t left = LAYER_DIFF_MAX;
    int lower;
    if (open_both(&c, layer, workspace, since, &lower, err) < 0)
        return NULL;
    json_t *list = json_array();
    for (unsigned i = 0; i < c.n; i++)
        json_array_append_new(list, change_json(&c.at[i], layer, lower, &left));
    json_t *o = json_pack("{s:o, s:b}", "changes", list, "cut", (int)c.cut);
    changes_free(&c);
    io_close(&lower);
    if (!o)
        (void)!err_nomem(err);
    return o;
}

struct taking {
    const json_t *paths;
    bool force;
    json_t *applied, *failed;
};

static bool named(const struct taking *t, const struct change *c)
{
    struct buf b;
    size_t i;
    json_t *one;
    bool hit = !t->paths;
    buf_init(&b, 0);
    spell(str_c(c->path), &b);
    json_array_foreach((json_t *)(uintptr_t)t->paths, i, one)
    {
        struct str want = json_view(one), have = buf_view(&b);
        while (want.n > 1 && want.p[want.n - 1] == '/')
            want = str_sub(want, 0, want.n - 1);
        hit |= str_eq(want, have) ||
               (want.n && str_starts(have, want) && have.n > want.n && have.p[want.n] == '/');
        /* the folders that lead to it must be there */
        hit |= c->type == CHANGE_DIR && c->kind == CHANGE_ADDED && str_starts(want, have) &&
               want.n > have.n && want.p[have.n] == '/';
    }
    buf_done(&b);
    return hit;
}

static void told(void *arg, const struct change *c, const char *why)
{
    struct taking *t = arg;
    if (why)
        json_array_append_new(t->failed, json_pack("{s:o, s:s}", "path", spelled(c->path), "why",
                                                   why));
    else
        json_array_append_new(t->applied, spelled(c->path));
}

static bool take(void *arg, const struct change *c)
{
    struct taking *t = arg;
    if (!named(t, c))
        return false;
    if (c->stale && !t->force) {
        told(t, c, "the file below was changed since; force overwrites it");
        return false;
    }
    return true;
}

json_t *layer_apply(int layer, const char *workspace, int64_t since, const json_t *paths,
                    bool force, struct err *err)
{
    struct changes c;
    int lower;
    struct taking t = {.paths = paths, .force = force};
    if (open_both(&c, layer, workspace, since, &lower, err) < 0)
        return NULL;
    t.applied = json_array();
    t.failed = json_array();
    if (c.cut) {
        (void)!err_set(err, ERR_LIMIT, "there are too many changes to take over one by one, or "
                       "folders too deep; copy the folder yourself or drop the changes");
    } else {
        const struct changes_take way = {take, told, &t};
        changes_apply(&c, layer, lower, &way);
    }
    bool cut = c.cut;
    changes_free(&c);
    io_close(&lower);
    if (cut) {
        json_decref(t.applied);
        json_decref(t.failed);
        return NULL;
    }
    return json_pack("{s:o, s:o}", "applied", t.applied, "failed", t.failed);
}
