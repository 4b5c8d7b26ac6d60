/* patch.c - sections, then hunks as runs of lines looked for from where the last one ended. */
#include "tools/patch.h"

#include <string.h>

#include "base/mem.h"

static bool take(struct str *line, struct str prefix)
{
    if (!str_starts(*line, prefix))
        return false;
    *line = str_trim(str_sub(*line, prefix.n, line->n));
    return true;
}

static struct str chomp(struct str line)
{
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    return line;
}

static int open_section(struct patch *p, enum patch_kind kind, struct str path, uint32_t line,
                        struct err *err)
{
    if (path.n == 0)
        return err_set(err, ERR_PARSE, "line %u: the file's path is missing", line);
    if (p->n == PATCH_FILES_MAX)
        return err_set(err, ERR_LIMIT, "a patch may touch at most %d files", PATCH_FILES_MAX);
    for (unsigned i = 0; i < p->n; i++)
        if (str_eq(p->file[i].path, path))
            return err_set(err, ERR_PARSE, "line %u: '%.*s' has two sections; put its hunks "
                           "into one", line, STR_ARG(str_sub(path, 0, 200)));
    p->file[p->n++] = (struct patch_file){.kind = kind, .path = path, .line = line + 1};
    return 0;
}

/* A line that starts a section, ends the patch, or belongs to the body: 1, 2, 0 or error. */
static int section_line(struct patch *p, struct str line, uint32_t n, struct err *err)
{
    static const struct {
        const char *mark;
        enum patch_kind kind;
    } marks[] = {{"*** Add File:", PATCH_ADD}, {"*** Delete File:", PATCH_DELETE},
                 {"*** Update File:", PATCH_UPDATE}};
    struct str rest = line;
    if (str_is(str_trim(line), "*** End Patch"))
        return 2;
    for (unsigned i = 0; i < ARRAY_LEN(marks); i++)
        if (take(&rest, str_c(marks[i].mark))) {
            int rc = open_section(p, marks[i].kind, rest, n, err);
            return rc < 0 ? rc : 1;
        }
    if (take(&rest, STR("*** Move to:"))) {
        struct patch_file *f = p->n ? &p->file[p->n - 1] : NULL;
        if (!f || f->kind != PATCH_UPDATE || f->body.n || rest.n == 0)
            return err_set(err, ERR_PARSE, "line %u: '*** Move to:' belongs right after "
                           "'*** Update File:'", n);
        f->move = rest;
        f->line = n + 1;
        return 1;
    }
    if (str_starts(line, STR("*** ")) && !str_is(str_trim(line), "*** End of File"))
        return err_set(err, ERR_PARSE, "line %u: '%.*s' is no section; expected *** Add File:, "
                       "*** Update File:, *** Delete File: or *** End Patch", n,
                       STR_ARG(str_sub(line, 0, 60)));
    return 0;
}

int patch_parse(struct patch *p, struct str text, struct err *err)
{
    struct str rest = text, line;
    uint32_t n = 0;
    bool begun = false, ended = false;
    p->n = 0;
    while (!ended && str_split(&rest, '\n', &line)) {
        n++;
        if (!begun) {
            if (str_trim(line).n == 0)
                continue;
            if (!str_is(str_trim(line), "*** Begin Patch"))
                return err_set(err, ERR_PARSE, "line %u: a patch starts with *** Begin Patch", n);
            begun = true;
            continue;
        }
        int rc = section_line(p, chomp(line), n, err);
        if (rc < 0)
            return rc;
        ended = rc == 2;
        if (rc)
            continue;
        struct patch_file *f = p->n ? &p->file[p->n - 1] : NULL;
        if (!f && str_trim(line).n)
            return err_set(err, ERR_PARSE, "line %u: expected *** Add File:, *** Update File: or "
                           "*** Delete File:", n);
        if (!f)
            continue;
        if (f->kind == PATCH_DELETE && str_trim(line).n)
            return err_set(err, ERR_PARSE, "line %u: a *** Delete File: section has no lines", n);
        if (f->body.n == 0)
            f->body = line;
        f->body.n = (size_t)(line.p + line.n - f->body.p);
        if (line.n == 0 && f->body.n == 0)
            f->body = (struct str){line.p, 0};
    }
    if (!ended)
        return err_set(err, ERR_PARSE, "the patch does not end with *** End Patch");
    if (p->n == 0)
        return err_set(err, ERR_PARSE, "the patch has no sections");
    return 0;
}

int patch_added(const struct patch_file *f, struct buf *out, struct err *err)
{
    struct str rest = f->body, line;
    uint32_t n = f->line;
    while (rest.n && str_split(&rest, '\n', &line)) {
        line = chomp(line);
        if (line.n == 0 && rest.n == 0)
            break;
        if (line.n == 0 || line.p[0] != '+')
            return err_set(err, ERR_PARSE, "line %u: every line of an added file starts with +",
                           n);
        buf_str(out, str_sub(line, 1, line.n));
        buf_putc(out, '\n');
        n++;
    }
    return buf_check(out, "file", err);
}

/* --- hunks -------------------------------------------------------------------------------- */

struct lines {
    struct str *at; /* owned */
    size_t n, cap;
};


static int add_line(struct lines *l, struct str s, struct err *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct str *more = mem_resize(l->at, cap, sizeof *more);
        if (!more)
            return err_nomem(err);
        l->at = more;
        l->cap = cap;
    }
    l->at[l->n++] = s;
    return 0;
}

static int split_lines(struct str text, struct lines *l, struct err *err)
{
    struct str rest = text, line;
    int rc = 0;
    while (rc == 0 && rest.n && str_split(&rest, '\n', &line))
        rc = add_line(l, line, err);
    return rc;
}

enum likeness { EXACT, LINE_ENDS, INDENT, LIKENESSES };

static bool alike(struct str a, struct str b, enum likeness how)
{
    if (how == EXACT)
        return str_eq(a, b);
    if (how == INDENT)
        return str_eq(str_trim(a), str_trim(b));
    while (a.n && strchr(" \t\r", a.p[a.n - 1]))
        a.n--;
    while (b.n && strchr(" \t\r", b.p[b.n - 1]))
        b.n--;
    return str_eq(a, b);
}

/* Where the old lines stand at or after `from`; STR_NONE when nowhere. */
static size_t find_lines(const struct lines *text, const struct lines *old, size_t from,
                         bool at_end)
{
    if (old->n > text->n)
        return STR_NONE;
    size_t last = text->n - old->n;
    for (int how = EXACT; how < LIKENESSES; how++)
        for (size_t i = at_end ? last : from; i <= last; i++) {
            size_t k = 0;
            while (k < old->n && alike(text->at[i + k], old->at[k], (enum likeness)how))
                k++;
            if (k == old->n)
                return i;
        }
    return STR_NONE;
}

struct hunk {
    struct lines old, body; /* what must be there; all lines with their mark */
    bool at_end, any;
    uint32_t line, first; /* in the patch: where we are, where the hunk began */
};

struct apply {
    struct lines text;
    size_t done;   /* lines of text already written */
    size_t search; /* where the next hunk may begin */
    bool crlf;     /* every line of the file ends in CR LF */
    struct buf *out;
    struct hunk h;
    unsigned number;
    struct err *err;
};

static void write_lines(struct apply *a, size_t to)
{
    for (; a->done < to; a->done++) {
        buf_str(a->out, a->text.at[a->done]);
        buf_putc(a->out, '\n');
    }
}

static int not_found(struct apply *a, struct str what, const char *near)
{
    return err_set(a->err, ERR_NOTFOUND, "hunk %u (line %u of the patch) does not fit: the file "
                   "has no such place as%s%.*s%s", a->number,
                   a->h.any ? a->h.first : a->h.line,
                   str_find(what, STR("\n"), 0) == STR_NONE ? " " : ":\n",
                   STR_ARG(str_sub(what, 0, utf8_complete(str_sub(what, 0, 240)))), near);
}

/* Where most of the old lines stand in their order: "\nNearest is line 7:\n<the file's lines>". */
static void nearest(const struct apply *a, struct buf *out)
{
    const struct lines *old = &a->h.old;
    enum { SHOWN = 6 };
    size_t best = 0, at = 0;
    for (size_t i = 0; i < a->text.n; i++) {
        size_t n = 0;
        for (size_t k = 0; k < old->n && i + k < a->text.n; k++)
            n += str_trim(old->at[k]).n && alike(a->text.at[i + k], old->at[k], INDENT);
        if (n > best) {
            best = n;
            at = i;
        }
    }
    if (best == 0)
        return;
    buf_printf(out, "\nNearest is line %zu, which reads:", at + 1);
    for (size_t k = 0; k < old->n && k < SHOWN && at + k < a->text.n; k++) {
        struct str line = str_sub(a->text.at[at + k], 0, 100);
        line = str_sub(line, 0, utf8_complete(line));
        buf_printf(out, "\n%.*s", STR_ARG(line));
    }
}

/* Carries out the hunk collected so far. */
static int flush_hunk(struct apply *a)
{
    struct hunk *h = &a->h;
    if (!h->any)
        return 0;
    a->number++;
    size_t at = h->old.n ? find_lines(&a->text, &h->old, a->search, h->at_end)
                         : (h->at_end || a->search == 0 ? a->text.n : a->search);
    if (at == STR_NONE || at < a->done) {
        struct buf b, near;
        buf_init(&b, 0);
        buf_init(&near, 4096);
        nearest(a, &near);
        for (size_t i = 0; i < h->old.n; i++) {
            if (i)
                buf_putc(&b, '\n');
            buf_str(&b, h->old.at[i]);
        }
        int rc = not_found(a, buf_view(&b), buf_cstr(&near));
        buf_done(&b);
        buf_done(&near);
        return rc;
    }
    write_lines(a, at);
    for (size_t i = 0, of_file = at; i < h->body.n; i++) {
        struct str line = h->body.at[i];
        if (line.n && line.p[0] == '+') {
            buf_str(a->out, str_sub(line, 1, line.n));
            buf_puts(a->out, a->crlf ? "\r\n" : "\n");
            continue;
        }
        if (line.n == 0 || line.p[0] == ' ') { /* context stays as the file has it */
            buf_str(a->out, a->text.at[of_file]);
            buf_putc(a->out, '\n');
        }
        of_file++;
    }
    a->done = at + h->old.n;
    a->search = a->done;
    h->old.n = h->body.n = 0;
    h->any = h->at_end = false;
    return 0;
}

/* "@@ some line": the hunk lies after that line. */
static int seek(struct apply *a, struct str mark)
{
    struct lines one = {.n = 1, .at = &mark};
    while (mark.n >= 2 && str_ends(mark, STR("@@")))
        mark = str_trim(str_sub(mark, 0, mark.n - 2));
    if (mark.n == 0 || (mark.p[0] == '-' && str_find(mark, STR(","), 0) != STR_NONE &&
                        str_find(mark, STR("+"), 0) != STR_NONE))
        return 0; /* line numbers, as in unified diffs, are only hints */
    size_t at = find_lines(&a->text, &one, a->search, false);
    if (at == STR_NONE)
        return not_found(a, mark, "");
    a->search = at + 1;
    return 0;
}

static int body_line(struct apply *a, struct str line)
{
    struct hunk *h = &a->h;
    int rc = 0;
    if (str_starts(line, STR("@@"))) {
        rc = flush_hunk(a);
        return rc < 0 ? rc : seek(a, str_trim(str_sub(line, 2, line.n)));
    }
    if (str_is(str_trim(line), "*** End of File")) {
        h->at_end = true;
        return flush_hunk(a);
    }
    char kind = line.n ? line.p[0] : ' ';
    struct str text = line.n ? str_sub(line, 1, line.n) : line;
    if (kind != ' ' && kind != '-' && kind != '+')
        return err_set(a->err, ERR_PARSE, "line %u: a line of a hunk starts with a blank, - or "
                       "+, not '%.*s'", a->h.line, STR_ARG(str_sub(line, 0, 40)));
    if (!h->any)
        h->first = h->line;
    h->any = true;
    if (kind != '+')
        rc = add_line(&h->old, text, a->err);
    if (rc == 0)
        rc = add_line(&h->body, line, a->err);
    return rc;
}

int patch_updated(const struct patch_file *f, struct str before, struct buf *out,
                  struct err *err)
{
    struct apply a = {.out = out, .err = err, .h = {.line = f->line}};
    struct str rest = f->body, line;
    int rc = split_lines(before, &a.text, err);
    a.crlf = a.text.n > 0;
    for (size_t i = 0; i < a.text.n; i++)
        a.crlf &= str_ends(a.text.at[i], STR("\r"));
    while (rc == 0 && rest.n && str_split(&rest, '\n', &line)) {
        line = chomp(line);
        if (line.n == 0 && rest.n == 0)
            break; /* the newline before the next section */
        rc = body_line(&a, line);
        a.h.line++;
    }
    if (rc == 0)
        rc = flush_hunk(&a);
    if (rc == 0 && a.number == 0 && f->move.n == 0)
        rc = err_set(err, ERR_PARSE, "the section of '%.*s' changes nothing",
                     STR_ARG(str_sub(f->path, 0, 200)));
    if (rc == 0) {
        bool kept_end = a.done < a.text.n; /* the last line is the file's own */
        write_lines(&a, a.text.n);
        if (kept_end && before.p[before.n - 1] != '\n' && out->len)
            buf_truncate(out, out->len - 1);
        rc = buf_check(out, "file", err);
    }
    mem_free(a.text.at);
    mem_free(a.h.old.at);
    mem_free(a.h.body.at);
    return rc;
}
