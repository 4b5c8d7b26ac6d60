/* fuzz_jsontext.c - the rewriter: what it writes it reads, unchanged, and can walk. */
#include <stdlib.h>

#include "agentd/jsontext.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool cond)
{
    if (!cond)
        abort();
}

/* Every string of the value survives unquote and quote. */
static void walk(struct str v, struct buf *scratch)
{
    if (jsontext_kind(v) == JSONTEXT_STRING) {
        struct buf raw;
        buf_init(&raw, 0);
        jsontext_unquote(&raw, v);
        must(utf8_valid(buf_view(&raw)));
        buf_reset(scratch);
        jsontext_quote(scratch, buf_view(&raw));
        must(str_eq(buf_view(scratch), v));
        buf_done(&raw);
        return;
    }
    struct str key, value;
    for (struct jsontext_iter it = jsontext_each(v); jsontext_next(&it, &key, &value);) {
        must(value.n > 0 && (key.n == 0 || jsontext_kind(key) == JSONTEXT_STRING));
        walk(value, scratch);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf once, twice, scratch;
    struct err err;
    buf_init(&once, 0);
    buf_init(&twice, 0);
    buf_init(&scratch, 0);
    if (jsontext_rewrite(&once, str_of(data, size), &err) == 0) {
        must(jsontext_rewrite(&twice, buf_view(&once), &err) == 0);
        must(str_eq(buf_view(&once), buf_view(&twice)));
        walk(buf_view(&once), &scratch);
    } else {
        must(once.len == 0);
    }
    buf_done(&once);
    buf_done(&twice);
    buf_done(&scratch);
    return 0;
}
