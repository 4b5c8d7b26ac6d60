/* toolnotes.c - notes as Markdown files, the plan as a list. */
#include "agentd/toolnotes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

enum { NOTE_MAX = 64 << 10, NOTES_MAX = 200, NAME_MAX_LEN = 64, HITS_MAX = 40 };

/* --- plan --------------------------------------------------------------------------------- */

void toolnotes_plan(json_t **plan, const json_t *args, struct answer *a)
{
    json_t *items = json_object_get(args, "items");
    size_t n = json_array_size(items), done = 0, going = 0;
    for (size_t i = 0; i < n; i++) {
        const char *status = json_string_value(json_object_get(json_array_get(items, i), "status"));
        done += status && strcmp(status, "done") == 0;
        going += status && strcmp(status, "in_progress") == 0;
    }
    json_t *copy = json_deep_copy(items);
    if (!copy) {
        answer_fail(a, TOOL_FAILED, "out of memory");
        return;
    }
    json_decref(*plan);
    *plan = copy;
    buf_printf(&a->text, "Plan kept: %zu step%s, %zu done, %zu in progress.", n, n == 1 ? "" : "s",
               done, going);
}

/* --- memory ------------------------------------------------------------------------------- */

static bool good_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
            return false;
    return s.n > 0 && s.n <= NAME_MAX_LEN;
}

struct notes {
    char *name[NOTES_MAX]; /* owned, without ".md" */
    unsigned n;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_notes(const char *dir, struct notes *l)
{
    DIR *d = opendir(dir);
    *l = (struct notes){.n = 0};
    for (struct dirent *e; d && l->n < NOTES_MAX && (e = readdir(d));) {
        struct str name = str_c(e->d_name);
        if (!str_ends(name, STR(".md")) || !good_name(str_sub(name, 0, name.n - 3)))
            continue;
        l->name[l->n] = mem_strdup(str_sub(name, 0, name.n - 3));
        if (!l->name[l->n])
            break;
        l->n++;
    }
    if (d)
        closedir(d);
    qsort(l->name, l->n, sizeof l->name[0], by_name);
}

static void notes_done(struct notes *l)
{
    for (unsigned i = 0; i < l->n; i++)
        mem_free(l->name[i]);
}

static int read_note(const char *dir, const char *name, struct buf *out, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s.md", dir, name);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, ERR_NOTFOUND, "there is no note '%s'", name);
    buf_init(out, NOTE_MAX);
    int rc = io_read_all(fd, out, err);
    close(fd);
    return rc;
}

static void show_list(const char *dir, struct answer *a)
{
    struct notes l;
    list_notes(dir, &l);
    for (unsigned i = 0; i < l.n; i++) {
        struct err ignored = {0};
        struct buf b;
        buf_init(&b, 0);
        if (read_note(dir, l.name[i], &b, &ignored) == 0)
            buf_printf(&a->text, "%s (%zu bytes)\n", l.name[i], b.len);
        buf_done(&b);
    }
    if (a->text.len == 0)
        buf_puts(&a->text, "There are no notes.");
    notes_done(&l);
}

static bool contains(struct str line, struct str want)
{
    for (size_t i = 0; i + want.n <= line.n; i++)
        if (strncasecmp(line.p + i, want.p, want.n) == 0)
            return true;
    return false;
}

static void search_notes(const char *dir, struct str want, struct answer *a)
{
    struct notes l;
    unsigned hits = 0;
    list_notes(dir, &l);
    for (unsigned i = 0; i < l.n && hits < HITS_MAX; i++) {
        struct err ignored = {0};
        struct buf b;
        unsigned number = 0;
        buf_init(&b, 0);
        struct str rest = {0}, line;
        if (read_note(dir, l.name[i], &b, &ignored) == 0)
            rest = buf_view(&b);
        while (rest.n && hits < HITS_MAX && str_split(&rest, '\n', &line)) {
            number++;
            if (!contains(line, want))
                continue;
            hits++;
            buf_printf(&a->text, "%s:%u: ", l.name[i], number);
            envelope_clean(&a->text, str_sub(line, 0, utf8_complete(str_sub(line, 0, 300))));
            buf_putc(&a->text, '\n');
        }
        buf_done(&b);
    }
    if (hits == 0)
        buf_puts(&a->text, "No note says that.");
    notes_done(&l);
}

static void write_note(const char *dir, const char *name, struct str text, bool append,
                       struct answer *a)
{
    struct err err = {0};
    struct buf b;
    struct notes l;
    char path[PATH_MAX];
    buf_init(&b, NOTE_MAX);
    bool there = read_note(dir, name, &b, &err) == 0;
    if (!append)
        buf_reset(&b);
    else if (b.len)
        envelope_newline(&b);
    buf_str(&b, text);
    list_notes(dir, &l);
    snprintf(path, sizeof path, "%s/%s.md", dir, name);
    if (b.failed)
        answer_fail(a, TOOL_FAILED, "a note holds at most %d bytes; write a shorter one",
                    NOTE_MAX);
    else if (!there && l.n == NOTES_MAX)
        answer_fail(a, TOOL_FAILED, "there are %d notes, the most there can be; delete one",
                    NOTES_MAX);
    else if (io_make_dirs(dir, 0700, &err) < 0 ||
             io_write_file(path, buf_view(&b), 0600, &err) < 0)
        answer_fail(a, TOOL_FAILED, "%s", err.text);
    else
        buf_printf(&a->text, "Note '%s' holds %zu bytes.", name, b.len);
    notes_done(&l);
    buf_done(&b);
}

void toolnotes_memory(const struct toolnotes_dirs *dirs, const json_t *args, struct answer *a)
{
    struct str action = json_view(json_object_get(args, "action"));
    struct str name = json_view(json_object_get(args, "name"));
    struct str text = json_view(json_object_get(args, "text"));
    bool shared = str_is(json_view(json_object_get(args, "scope")), "workspace");
    const char *dir = shared ? dirs->workspace : dirs->session;
    bool named = !str_is(action, "list") && !str_is(action, "search");
    char file[NAME_MAX_LEN + 1], path[PATH_MAX];
    struct err err = {0};
    if (!dir) {
        answer_fail(a, TOOL_UNAVAILABLE, "notes of scope %s are not kept here",
                    shared ? "workspace" : "session");
        return;
    }
    if (named && !good_name(name)) {
        answer_fail(a, TOOL_INVALID, "%.*s needs a name of 1 to %d letters, digits, - and _",
                    STR_ARG(action), NAME_MAX_LEN);
        return;
    }
    snprintf(file, sizeof file, "%.*s", STR_ARG(name));
    snprintf(path, sizeof path, "%s/%s.md", dir, file);
    if (str_is(action, "list")) {
        show_list(dir, a);
    } else if (str_is(action, "search")) {
        if (text.n == 0)
            answer_fail(a, TOOL_INVALID, "search needs text");
        else
            search_notes(dir, text, a);
    } else if (str_is(action, "read")) {
        struct buf b;
        buf_init(&b, 0);
        if (read_note(dir, file, &b, &err) < 0)
            answer_fail(a, TOOL_FAILED, "%s", err.text);
        else
            envelope_clean(&a->text, buf_view(&b));
        buf_done(&b);
    } else if (str_is(action, "delete")) {
        if (unlink(path) < 0)
            answer_fail(a, TOOL_FAILED, "there is no note '%s'", file);
        else
            buf_printf(&a->text, "Note '%s' is deleted.", file);
    } else if (!json_is_string(json_object_get(args, "text"))) {
        answer_fail(a, TOOL_INVALID, "%.*s needs text", STR_ARG(action));
    } else {
        write_note(dir, file, text, str_is(action, "append"), a);
    }
}

/* --- after a context reset ------------------------------------------------------------------ */

static void remind_plan(const json_t *plan, struct buf *out)
{
    size_t i;
    json_t *item;
    if (json_array_size(plan))
        buf_puts(out, "Your plan:\n");
    json_array_foreach((json_t *)(uintptr_t)plan, i, item)
    {
        buf_printf(out, "- [%s] ", json_string_value(json_object_get(item, "status")));
        envelope_clean(out, json_view(json_object_get(item, "content")));
        buf_putc(out, '\n');
    }
}

static void remind_notes(const char *dir, const char *what, bool bodies, struct buf *out)
{
    struct notes l;
    list_notes(dir, &l);
    for (unsigned i = 0; i < l.n; i++) {
        struct err ignored = {0};
        struct buf b;
        if (i == 0)
            buf_printf(out, "Your notes%s (memory reads them):\n", what);
        buf_init(&b, 0);
        if (read_note(dir, l.name[i], &b, &ignored) == 0)
            buf_printf(out, "- %s (%zu bytes)\n", l.name[i], b.len);
        if (bodies && b.len) {
            envelope_clean(out, buf_view(&b));
            envelope_newline(out);
        }
        buf_done(&b);
    }
    notes_done(&l);
}

void toolnotes_remind(const struct toolnotes_dirs *dirs, const json_t *plan, bool bodies,
                      size_t most, struct buf *out)
{
    struct buf all;
    buf_init(&all, 0);
    remind_plan(plan, &all);
    if (dirs && dirs->session)
        remind_notes(dirs->session, "", bodies, &all);
    if (dirs && dirs->workspace)
        remind_notes(dirs->workspace, " of this workspace", false, &all);
    struct str shown = str_sub(buf_view(&all), 0, most);
    shown = str_sub(shown, 0, utf8_complete(shown));
    buf_str(out, shown);
    if (shown.n < all.len)
        buf_printf(out, "\n... %zu bytes left out; read the rest with memory\n", all.len - shown.n);
    buf_done(&all);
}
