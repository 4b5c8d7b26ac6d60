/*
 * toolfinish.c - what `finish` looks at before it ends a turn: an answer that says something,
 * citations of lines that were shown, artifacts that are there.
 */
#include "agentd/toolfinish.h"

#include <ctype.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "sandbox/changes.h"

enum { CURSORS_MAX = 4096, NAMED_MAX = 5 };

/* A number at s[at]; advances at. */
static bool number(struct str s, size_t *at, uint32_t *out)
{
    uint64_t v = 0;
    size_t i = *at;
    while (i < s.n && isdigit((unsigned char)s.p[i]) && v < UINT32_MAX)
        v = v * 10 + (uint64_t)(s.p[i++] - '0');
    if (i == *at || v > UINT32_MAX)
        return false;
    *at = i;
    *out = (uint32_t)v;
    return true;
}

static bool literal(struct str s, size_t *at, struct str want)
{
    if (!str_starts(str_sub(s, *at, s.n), want))
        return false;
    *at += want.n;
    return true;
}

void toolfinish_note_page(struct toolfinish_shown *s, struct str text)
{
    size_t at = 0;
    uint32_t cursor, first, last;
    if (!literal(text, &at, STR("[")) || !number(text, &at, &cursor) || cursor >= CURSORS_MAX)
        return;
    at = str_find(text, STR("\n**viewing lines ["), at);
    if (at == STR_NONE || (at += sizeof "\n**viewing lines [" - 1, !number(text, &at, &first)) ||
        !literal(text, &at, STR(" - ")) || !number(text, &at, &last))
        return;
    if (cursor >= s->n) {
        uint32_t *more = mem_resize(s->range, (size_t)(cursor + 1) * 2, sizeof *more);
        if (!more)
            return;
        for (uint32_t i = s->n; i <= cursor; i++) {
            more[2 * i] = 1; /* empty: first after last */
            more[2 * i + 1] = 0;
        }
        s->range = more;
        s->n = cursor + 1;
    }
    s->range[2 * cursor] = first;
    s->range[2 * cursor + 1] = last;
}

void toolfinish_shown_done(struct toolfinish_shown *s)
{
    mem_free(s->range);
    *s = (struct toolfinish_shown){0};
}

/* One citation at s[at] (just after 【): cursor†Lx or cursor†Lx-Ly. */
static bool citation(struct str s, size_t at, uint32_t v[3], size_t *end)
{
    if (!number(s, &at, &v[0]) || !literal(s, &at, STR("†L")) || !number(s, &at, &v[1]))
        return false;
    v[2] = v[1];
    if (literal(s, &at, STR("-"))) {
        (void)literal(s, &at, STR("L"));
        if (!number(s, &at, &v[2]))
            return false;
    }
    if (!literal(s, &at, STR("】")))
        return false;
    *end = at;
    return true;
}

static unsigned bad_citations(const struct toolfinish_shown *shown, struct str s, struct buf *out)
{
    unsigned bad = 0;
    for (size_t at = 0; (at = str_find(s, STR("【"), at)) != STR_NONE;) {
        uint32_t v[3];
        size_t end;
        at += sizeof "【" - 1;
        if (!citation(s, at, v, &end))
            continue;
        struct str text = str_sub(s, at, end - at - (sizeof "】" - 1));
        at = end;
        if (v[0] >= shown->n || shown->range[2 * v[0]] > shown->range[2 * v[0] + 1])
            buf_printf(out, "【%.*s】: no page was shown under cursor %u.\n", STR_ARG(text),
                       v[0]);
        else if (v[1] > v[2] || v[1] < shown->range[2 * v[0]] || v[2] > shown->range[2 * v[0] + 1])
            buf_printf(out, "【%.*s】: cursor %u showed lines %u to %u only.\n",
                       STR_ARG(text), v[0], shown->range[2 * v[0]], shown->range[2 * v[0] + 1]);
        else
            continue;
        bad++;
    }
    return bad;
}

/* A path as the model writes it, relative to the workspace; NULL when it is somewhere else. */
static const char *inside(const char *path, const char *workspace)
{
    const char *const tops[] = {"/workspace", workspace};
    for (unsigned i = 0; path[0] == '/' && i < ARRAY_LEN(tops); i++) {
        size_t n = tops[i] ? strlen(tops[i]) : 0;
        if (n && strncmp(path, tops[i], n) == 0 && (path[n] == '/' || path[n] == '\0'))
            return path + n + strspn(path + n, "/");
    }
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    return path[0] == '/' ? NULL : path;
}

static unsigned bad_artifacts(const struct toolfinish_where *w, const json_t *list,
                              struct buf *out)
{
    struct err ignored = {0};
    size_t i;
    json_t *one;
    unsigned bad = 0;
    int lower = w->workspace ? changes_open_lower(w->workspace, &ignored) : -1;
    if (lower < 0) /* a workspace that only the cell sees */
        return 0;
    json_array_foreach((json_t *)(uintptr_t)list, i, one)
    {
        const char *path = json_string_value(one), *at = inside(path, w->workspace);
        if (at && changes_has(w->layer, lower, at))
            continue;
        if (bad++ < NAMED_MAX)
            buf_printf(out, at ? "artifact '%.200s' does not exist\n"
                               : "artifact '%.200s' is not in the workspace\n", path);
    }
    io_close(&lower);
    return bad;
}

void toolfinish(const struct toolfinish_shown *shown, const struct toolfinish_where *w,
                const json_t *args, struct answer *a)
{
    struct str said = json_view(json_object_get(args, "answer"));
    struct buf raw;
    buf_init(&raw, 0);
    bool empty = str_trim(said).n == 0;
    unsigned files = bad_artifacts(w, json_object_get(args, "artifacts"), &raw);
    envelope_clean(&a->text, buf_view(&raw));
    unsigned cited = bad_citations(shown, said, &a->text);
    buf_done(&raw);
    if (empty || files || cited)
        a->status = TOOL_FAILED;
    if (empty)
        envelope_status(&a->text, "error: 'answer' is empty; say what was done or found, or with "
                        "status failed what stands in the way, then finish again");
    if (files)
        envelope_status(&a->text, "error: %u artifact%s not there; write %s into the workspace or "
                        "leave %s out, then finish again", files, files > 1 ? "s are" : " is",
                        files > 1 ? "them" : "it", files > 1 ? "them" : "it");
    if (cited)
        envelope_status(&a->text, "error: %u citation%s not shown; open the lines or take the "
                        "citation out, then finish again", cited, cited > 1 ? "s were" : " was");
    if (a->status == TOOL_OK)
        buf_puts(&a->text, "Finished.");
}
