/*
 * fuzz_html.c - documents to pages: any bytes give a page of clean UTF-8 whose lines are at
 * most 80 characters and, joined, are the text; or they are refused.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tools/html.h"
#include "tools/snippet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_lines(const struct page *p)
{
    size_t bytes = 0;
    if (p->n_lines == 0 || !utf8_valid(buf_view(&p->text)) || memchr(p->text.data, 0, p->text.len))
        abort();
    for (uint32_t i = 0; i < p->n_lines; i++) {
        struct str line = page_line(p, i);
        size_t chars = 0;
        for (size_t k = 0; k < line.n; k++)
            chars += ((unsigned char)line.p[k] & 0xc0) != 0x80;
        if (chars > PAGE_WIDTH || p->start[i] > p->start[i + 1] ||
            page_line_of(p, p->start[i]) > i)
            abort();
        bytes += p->start[i + 1] - p->start[i];
    }
    if (bytes != p->text.len)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const types[] = {"text/html", "text/html; charset=koi8-r", "text/plain", "",
                                        "text/html; charset=utf-16le", "text/html; charset=x"};
    struct err err = {0};
    struct page *p = NULL;
    if (size == 0)
        return 0;
    struct str body = str_of(data + 1, size - 1);
    if (html_page(&p, STR("http://host.example/a/b?c"), str_c(types[data[0] % ARRAY_LEN(types)]),
                  body, data[0] & 0x40, true, &err) < 0)
        return 0;
    check_lines(p);
    struct snippet_query q;
    struct buf out;
    snippet_parse(&q, str_sub(body, 0, 100));
    buf_init(&out, 0);
    snippet_make(&q, buf_view(&p->text), &out);
    if (!utf8_valid(buf_view(&out)))
        abort();
    buf_done(&out);
    page_free(p);
    return 0;
}
