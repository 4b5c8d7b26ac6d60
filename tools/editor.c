/*
 * editor.c - str_replace_editor: view, create, str_replace, insert below the workspace.
 *
 * An edit needs the file to be what the model last saw; otherwise it is refused and the
 * present text is shown. Every overwritten text is handed out with the answer for undo.
 */
#include "tools/editor.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "tools/toolbox_impl.h"

enum { CONTEXT = 3, ENTRIES_MAX = 500 };

static uint64_t hash_of(struct str s)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    return h ^ s.n;
}

void views_clear(struct views *v)
{
    for (unsigned i = 0; i < VIEWS_MAX; i++)
        mem_free(v->at[i].path);
    *v = (struct views){0};
}

static struct view *views_get(const struct views *v, const char *path)
{
    for (unsigned i = 0; i < VIEWS_MAX; i++)
        if (v->at[i].path && strcmp(v->at[i].path, path) == 0)
            return (struct view *)(uintptr_t)&v->at[i];
    return NULL;
}

void views_set(struct views *v, const char *path, struct str content)
{
    struct view *e = views_get(v, path);
    if (!e) {
        e = &v->at[v->next++ % VIEWS_MAX];
        mem_free(e->path);
        e->path = mem_strdup(str_c(path));
    }
    e->hash = hash_of(content);
}

bool views_fresh(const struct views *v, const char *path, struct str content)
{
    const struct view *e = views_get(v, path);
    return !e || e->hash == hash_of(content);
}

static size_t count_lines(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '\n';
    return n + (s.n && s.p[s.n - 1] != '\n');
}

/* Offset of line `line` (1-based); the end of the text when there are fewer. */
static size_t line_start(struct str s, size_t line)
{
    size_t at = 0;
    for (size_t i = 1; i < line; i++) {
        size_t nl = str_find(s, STR("\n"), at);
        if (nl == STR_NONE)
            return s.n;
        at = nl + 1;
    }
    return at;
}

/*
 * Lines first..last as "     1\ttext", within `budget` bytes; returns the last line shown.
 * A single line longer than the budget is cut.
 */
static size_t number_lines(struct buf *out, struct str s, size_t first, size_t last,
                           size_t budget)
{
    size_t at = line_start(s, first), line = first, used = 0;
    for (; line <= last && at < s.n; line++) {
        size_t nl = str_find(s, STR("\n"), at);
        size_t n = (nl == STR_NONE ? s.n : nl) - at;
        if (used && used + n + 8 > budget)
            break;
        struct str text = str_sub(s, at, n);
        if (n > budget)
            text = str_sub(text, 0, utf8_complete(str_sub(text, 0, budget)));
        buf_printf(out, "%6zu\t", line);
        envelope_clean(out, text);
        buf_puts(out, text.n < n ? " ... line cut ...\n" : "\n");
        used += n + 8;
        at += n + 1;
    }
    return line - 1;
}

/* Reads a text file; data files are refused. */
static int read_text(const struct wsfs_at *at, struct buf *b, struct err *err)
{
    int rc = wsfs_read(at, b, LIMIT_EDIT_BYTES, err);
    if (rc == 0 && (b->len && memchr(b->data, '\0', b->len)))
        return err_set(err, ERR_UNSUPPORTED, "'%s' is not a text file", at->shown);
    if (rc == 0 && !utf8_valid(buf_view(b)))
        return err_set(err, ERR_UNSUPPORTED, "'%s' is not UTF-8 text; use bash to convert it",
                       at->shown);
    return rc;
}

static void keep_undo(struct answer *a, const struct wsfs_at *at, bool existed,
                      struct str content)
{
    a->undo = json_pack("{s:s, s:b, s:o?}", "path", at->shown, "existed", existed, "content",
                        existed ? json_text(content) : NULL);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct listing {
    char *name[ENTRIES_MAX]; /* owned; folders end with '/' */
    unsigned n;
    bool more;
};

/* Adds the visible entries of an open folder; takes fd. */
static void list_folder(struct listing *l, int fd, const char *prefix, unsigned depth)
{
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        char path[sizeof ((struct wsfs_at *)0)->shown];
        if (e->d_name[0] == '.' ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (l->n == ENTRIES_MAX) {
            l->more = true;
            break;
        }
        bool folder = S_ISDIR(st.st_mode);
        if (snprintf(path, sizeof path, "%s%s%s", prefix, e->d_name, folder ? "/" : "") >=
            (int)sizeof path)
            continue;
        l->name[l->n] = mem_strdup(str_c(path));
        if (!l->name[l->n])
            break;
        l->n++;
        int sub = folder && depth > 1 ? openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY |
                                               O_NOFOLLOW | O_CLOEXEC) : -1;
        if (sub >= 0)
            list_folder(l, sub, path, depth - 1);
    }
    closedir(d);
}

static void view_folder(const struct wsfs_at *at, struct answer *a)
{
    struct listing l = {0};
    int fd = openat(at->dir, at->name[0] ? at->name : ".",
                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        answer_fail(a, TOOL_FAILED, "'%s' cannot be opened", at->shown);
        return;
    }
    char prefix[sizeof at->shown + 1] = "";
    if (strcmp(at->shown, ".") != 0)
        snprintf(prefix, sizeof prefix, "%s/", at->shown);
    list_folder(&l, fd, prefix, 2);
    qsort(l.name, l.n, sizeof l.name[0], by_name);
    for (unsigned i = 0; i < l.n; i++) {
        envelope_clean(&a->text, str_c(l.name[i]));
        buf_putc(&a->text, '\n');
        mem_free(l.name[i]);
    }
    if (l.n == 0)
        buf_printf(&a->text, "'%s' is empty.\n", at->shown);
    if (l.more)
        envelope_status(&a->text, "more than %d entries; view a folder below", ENTRIES_MAX);
}

static bool view_range(const json_t *args, size_t lines, size_t *first, size_t *last,
                       struct answer *a)
{
    json_t *range = json_object_get(args, "view_range");
    *first = 1;
    *last = lines;
    if (!json_is_array(range))
        return true;
    json_int_t lo = json_integer_value(json_array_get(range, 0));
    json_int_t hi = json_integer_value(json_array_get(range, 1));
    if (lo < 1 || (hi != -1 && hi < lo) || (size_t)lo > (lines ? lines : 1)) {
        answer_fail(a, TOOL_FAILED,
                    "view_range [%lld, %lld] does not fit: the file has %zu lines; use "
                    "[first, last] with 1 <= first <= last, last -1 for the end",
                    (long long)lo, (long long)hi, lines);
        return false;
    }
    *first = (size_t)lo;
    if (hi != -1 && (size_t)hi < lines)
        *last = (size_t)hi;
    return true;
}

static void view_text(const json_t *args, struct str s, const struct tool_limits *limits,
                      struct answer *a)
{
    size_t first, last, lines = count_lines(s);
    if (!view_range(args, lines, &first, &last, a))
        return;
    if (lines == 0) {
        buf_puts(&a->text, "The file is empty.");
        return;
    }
    size_t shown = number_lines(&a->text, s, first, last, limits->head + limits->tail);
    a->output_bytes = s.n;
    if (shown < last || first > 1 || last < lines)
        envelope_status(&a->text, "lines %zu-%zu of %zu; view_range shows others", first, shown,
                        lines);
}

static void show_edit(struct answer *a, const struct wsfs_at *at, struct str now, size_t from,
                      size_t lines, const struct tool_limits *limits)
{
    size_t total = count_lines(now);
    size_t first = from > CONTEXT ? from - CONTEXT : 1;
    size_t last = from + lines + CONTEXT - 1;
    buf_printf(&a->text, "The file %s has been edited. Here is the result:\n", at->shown);
    number_lines(&a->text, now, first, last < total ? last : total, limits->head);
}

/* True when the edit may go on; otherwise the answer shows the file as it is now. */
static bool check_fresh(struct toolbox *t, const struct wsfs_at *at, struct str now,
                        size_t near, const struct tool_limits *limits, struct answer *a)
{
    if (views_fresh(&t->views, at->shown, now))
        return true;
    size_t first = near > CONTEXT ? near - CONTEXT : 1;
    buf_printf(&a->text, "%s has changed since you last saw it, so it was not edited. It now "
               "reads:\n", at->shown);
    number_lines(&a->text, now, first, count_lines(now), limits->head);
    envelope_status(&a->text, "error");
    a->status = TOOL_FAILED;
    views_set(&t->views, at->shown, now);
    return false;
}

static void finish_edit(struct toolbox *t, struct wsfs_at *at, struct str was, struct str now,
                        size_t from, struct str added, const struct tool_limits *limits,
                        struct answer *a)
{
    struct err err = {0};
    if (wsfs_write(at, now, &err) < 0) {
        answer_fail(a, TOOL_FAILED, "%s", err.text);
        return;
    }
    keep_undo(a, at, true, was);
    views_set(&t->views, at->shown, now);
    size_t lines = count_lines(added);
    show_edit(a, at, now, from, lines ? lines : 1, limits);
}

/* The line in which a text differs from old_str in white space only; 0 when there is none. */
static size_t near_miss(struct str s, struct str old)
{
    size_t nl = str_find(old, STR("\n"), 0), line = 1;
    struct str want = str_trim(str_sub(old, 0, nl == STR_NONE ? old.n : nl)), rest = s, piece;
    if (want.n == 0)
        return 0;
    for (; str_split(&rest, '\n', &piece); line++)
        if (str_eq(str_trim(piece), want))
            return line;
    return 0;
}

static void not_unique(struct answer *a, const struct wsfs_at *at, struct str s,
                       struct str old)
{
    struct buf where;
    size_t n = 0, line = 1, from = 0;
    buf_init(&where, 0);
    for (size_t p = str_find(s, old, 0); p != STR_NONE; p = str_find(s, old, p + 1)) {
        for (; from < p; from++)
            line += s.p[from] == '\n';
        if (n++ < 8)
            buf_printf(&where, "%s%zu", n > 1 ? ", " : "", line);
    }
    answer_fail(a, TOOL_FAILED,
                "old_str occurs %zu times in %s, in lines %s%s; add lines around it to make it "
                "unique", n, at->shown, buf_cstr(&where), n > 8 ? ", ..." : "");
    buf_done(&where);
}

/* Whether every line of a text ends in CR LF: what the model writes then does too, since it
 * was shown the lines without. */
static bool has_crlf(struct str s)
{
    size_t lf = 0, crlf = 0;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\n') {
            lf++;
            crlf += i && s.p[i - 1] == '\r';
        }
    return lf && lf == crlf;
}

/* The text, or its copy with CR LF in `b`. */
static struct str as_file(struct str s, bool crlf, struct buf *b)
{
    if (!crlf)
        return s;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\n' && (i == 0 || s.p[i - 1] != '\r'))
            buf_putc(b, '\r');
        buf_putc(b, s.p[i]);
    }
    return buf_view(b);
}

static void replace_text(struct toolbox *t, struct wsfs_at *at, struct str s, struct str old,
                         struct str new, const struct tool_limits *limits, struct answer *a)
{
    size_t p = str_find(s, old, 0);
    size_t line = p == STR_NONE ? 1 : count_lines(str_sub(s, 0, p)) +
                  (p == 0 || s.p[p - 1] == '\n');
    if (!check_fresh(t, at, s, line, limits, a))
        return;
    if (p == STR_NONE) {
        size_t miss = near_miss(s, old);
        if (miss)
            answer_fail(a, TOOL_FAILED, "old_str does not occur in %s; line %zu is like its "
                        "first line but for white space", at->shown, miss);
        else
            answer_fail(a, TOOL_FAILED, "old_str does not occur in %s", at->shown);
        return;
    }
    if (str_find(s, old, p + 1) != STR_NONE) {
        not_unique(a, at, s, old);
        return;
    }
    struct buf now;
    buf_init(&now, 0);
    buf_str(&now, str_sub(s, 0, p));
    buf_str(&now, new);
    buf_str(&now, str_sub(s, p + old.n, s.n));
    if (now.failed)
        answer_fail(a, TOOL_FAILED, "out of memory");
    else
        finish_edit(t, at, s, buf_view(&now), line, new, limits, a);
    buf_done(&now);
}

static void edit_replace(struct toolbox *t, const json_t *args, struct wsfs_at *at,
                         struct str s, const struct tool_limits *limits, struct answer *a)
{
    struct str old = json_view(json_object_get(args, "old_str"));
    struct str new = json_view(json_object_get(args, "new_str"));
    struct buf b[2];
    bool crlf = has_crlf(s);
    if (old.n == 0) {
        answer_fail(a, TOOL_INVALID, "str_replace needs old_str, the text to be replaced");
        return;
    }
    buf_init(&b[0], 0);
    buf_init(&b[1], 0);
    old = as_file(old, crlf, &b[0]);
    new = as_file(new, crlf, &b[1]);
    if (b[0].failed || b[1].failed)
        answer_fail(a, TOOL_FAILED, "out of memory");
    else
        replace_text(t, at, s, old, new, limits, a);
    buf_done(&b[0]);
    buf_done(&b[1]);
}

static void edit_insert(struct toolbox *t, const json_t *args, struct wsfs_at *at,
                        struct str s, const struct tool_limits *limits, struct answer *a)
{
    const json_t *where = json_object_get(args, "insert_line");
    const json_t *what = json_object_get(args, "new_str");
    size_t lines = count_lines(s);
    if (!json_is_integer(where) || !json_is_string(what)) {
        answer_fail(a, TOOL_INVALID, "insert needs insert_line and new_str");
        return;
    }
    json_int_t line = json_integer_value(where);
    if (line < 0 || (size_t)line > lines) {
        answer_fail(a, TOOL_FAILED, "insert_line %lld does not fit: %s has %zu lines",
                    (long long)line, at->shown, lines);
        return;
    }
    if (!check_fresh(t, at, s, (size_t)line + 1, limits, a))
        return;
    size_t p = line_start(s, (size_t)line + 1);
    bool crlf = has_crlf(s), open_end = p == s.n && s.n && s.p[s.n - 1] != '\n';
    struct buf now, b;
    buf_init(&now, 0);
    buf_init(&b, 0);
    struct str new = as_file(json_view(what), crlf, &b), nl = crlf ? STR("\r\n") : STR("\n");
    buf_str(&now, str_sub(s, 0, p));
    if (open_end)
        buf_str(&now, nl);
    buf_str(&now, new);
    /* A file that ends without a newline goes on doing so. */
    if (new.n && new.p[new.n - 1] != '\n' && !open_end)
        buf_str(&now, nl);
    buf_str(&now, str_sub(s, p, s.n));
    if (now.failed || b.failed)
        answer_fail(a, TOOL_FAILED, "out of memory");
    else
        finish_edit(t, at, s, buf_view(&now), (size_t)line + 1, new, limits, a);
    buf_done(&now);
    buf_done(&b);
}

static void edit_create(struct toolbox *t, const json_t *args, struct wsfs_at *at,
                        const struct tool_limits *limits, struct answer *a)
{
    const json_t *text = json_object_get(args, "file_text");
    struct err err = {0};
    struct buf was;
    bool existed = at->exists;
    buf_init(&was, 0);
    if (!json_is_string(text)) {
        answer_fail(a, TOOL_INVALID, "create needs file_text, the content of the file");
    } else if (at->name[0] == '\0' || (existed && S_ISDIR(at->st.st_mode))) {
        answer_fail(a, TOOL_FAILED, "'%s' is a folder", at->shown);
    } else if (existed && wsfs_read(at, &was, LIMIT_EDIT_BYTES, &err) < 0) {
        answer_fail(a, TOOL_FAILED, "%s", err.text);
    } else if (existed && utf8_valid(buf_view(&was)) &&
               !check_fresh(t, at, buf_view(&was), 1, limits, a)) {
        /* said there */
    } else if (wsfs_write(at, json_view(text), &err) < 0) {
        answer_fail(a, TOOL_FAILED, "%s", err.text);
    } else {
        if (utf8_valid(buf_view(&was)) && !(was.len && memchr(was.data, 0, was.len)))
            keep_undo(a, at, existed, buf_view(&was));
        views_set(&t->views, at->shown, json_view(text));
        buf_printf(&a->text, existed ? "The file %s has been overwritten."
                                     : "The file %s has been created.", at->shown);
    }
    buf_done(&was);
}

/* spill:N instead of a path shows a kept output. */
static void view_spill(struct toolbox *t, const struct toolbox_request *r, struct str path,
                       struct answer *a)
{
    struct err err = {0};
    struct buf raw, text;
    buf_init(&raw, 0);
    buf_init(&text, 0);
    if (toolbox_read_spill(t, path, &raw, &err) < 0) {
        answer_fail(a, TOOL_FAILED, "%s", err.text);
    } else {
        envelope_clean(&text, buf_view(&raw));
        view_text(r->args, buf_view(&text), r->limits, a);
    }
    buf_done(&raw);
    buf_done(&text);
}

static void edit_text(struct toolbox *t, const struct toolbox_request *r, struct str command,
                      struct wsfs_at *at, struct answer *a)
{
    struct err err = {0};
    struct buf b;
    buf_init(&b, 0);
    if (!at->exists)
        answer_fail(a, TOOL_FAILED, "'%s' does not exist", at->shown);
    else if (S_ISDIR(at->st.st_mode))
        answer_fail(a, TOOL_FAILED, "'%s' is a folder", at->shown);
    else if (read_text(at, &b, &err) < 0)
        answer_fail(a, TOOL_FAILED, "%s", err.text);
    else if (str_is(command, "view")) {
        view_text(r->args, buf_view(&b), r->limits, a);
        views_set(&t->views, at->shown, buf_view(&b));
    } else if (str_is(command, "str_replace"))
        edit_replace(t, r->args, at, buf_view(&b), r->limits, a);
    else
        edit_insert(t, r->args, at, buf_view(&b), r->limits, a);
    buf_done(&b);
}

void tool_editor(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct str command = json_view(json_object_get(r->args, "command"));
    struct str path = json_view(json_object_get(r->args, "path"));
    struct wsfs_at at = {.dir = -1};
    struct err err = {0};
    if (str_starts(path, STR("spill:")) && str_is(command, "view")) {
        view_spill(t, r, path, a);
        return;
    }
    if (wsfs_find(&t->fs, path, str_is(command, "create"), &at, &err) < 0)
        answer_fail(a, TOOL_FAILED, "%s", err.text);
    else if (str_is(command, "create"))
        edit_create(t, r->args, &at, r->limits, a);
    else if (str_is(command, "view") && at.exists && S_ISDIR(at.st.st_mode))
        view_folder(&at, a);
    else
        edit_text(t, r, command, &at, a);
    wsfs_at_done(&at);
}
