/*
 * test_fault.c - the Nth allocation fails, for every N: pages, snippets, patches, schemas and
 * kept output end with a sentence or succeed, and give back what they took.
 */
#include "test.h"

#include "base/mem.h"
#include "tools/envelope.h"
#include "tools/html.h"
#include "tools/patch.h"
#include "tools/schema.h"
#include "tools/snippet.h"
#include "tools/tool.h"

static int make_page(struct err *e)
{
    static const char html[] =
        "<html><title>T</title><main><h1>Head</h1><p>Some words and a <a href='x'>link</a>."
        "<ul><li>one<li>two</ul><pre> a\n  b</pre><table><tr><td>1<td>2</table></main>";
    struct page *p = NULL;
    int rc = html_page(&p, STR("http://h/a"), STR("text/html"), str_c(html), false, true, e);
    if (rc == 0) {
        struct buf b;
        buf_init(&b, 0);
        page_show(p, 0, 0, 0, &b);
        rc = buf_check(&b, "page", e);
        buf_done(&b);
    }
    page_free(p);
    return rc;
}

static int make_patch(struct err *e)
{
    static struct patch p;
    struct buf out;
    buf_init(&out, 0);
    int rc = patch_parse(&p, STR("*** Begin Patch\n*** Update File: a\n@@ x\n-b\n+c\n d\n"
                                 "*** End Patch\n"), e);
    if (rc == 0)
        rc = patch_updated(&p.file[0], STR("a\nx\nb\nd\n"), &out, e);
    if (rc == 0)
        assert_string_equal(buf_cstr(&out), "a\nx\nc\nd\n");
    buf_done(&out);
    return rc;
}

static int make_snippet(struct err *e)
{
    struct snippet_query q;
    struct buf b;
    snippet_parse(&q, STR("some \"few words\" here"));
    buf_init(&b, 0);
    snippet_make(&q, STR("Here are 【0†some†h】 few words, here and there."), &b);
    int rc = buf_check(&b, "snippet", e);
    buf_done(&b);
    return rc;
}

static int make_kept(struct err *e)
{
    struct keep k;
    struct buf b;
    uint64_t cut;
    int rc = keep_init(&k, 4, 4, e);
    if (rc < 0)
        return rc;
    keep_feed(&k, "0123456789", 10);
    buf_init(&b, 0);
    keep_text(&k, &b, &cut);
    rc = buf_check(&b, "text", e);
    buf_done(&b);
    keep_done(&k);
    return rc;
}

static int check_args(struct err *e)
{
    json_t *args = NULL;
    const struct tool *t = tool_find(STR("bash"));
    int rc = schema_parse_args("bash", t->schema, STR("{\"command\": \"x\", \"nope\": 1}"), &args,
                               e);
    json_decref(args);
    return rc == -ERR_PARSE ? 0 : rc; /* the misfit is what is wanted */
}

static void each_allocation_may_fail(void **state)
{
    int (*const work[])(struct err *) = {make_page, make_patch, make_snippet, make_kept,
                                         check_args};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(work); i++) {
        struct err e = {0};
        uint64_t before = mem_count();
        ASSERT_OK(work[i](&e), &e);
        uint64_t n = mem_count() - before;
        for (uint64_t k = 1; k <= n; k++) {
            e = (struct err){0};
            mem_fail_at(k);
            int rc = work[i](&e);
            mem_fail_at(0);
            if (rc < 0)
                assert_true(e.text[0] != '\0');
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
