/*
 * fuzz_prompt.c - requests as JSON through the renderer: pieces cover the text exactly, special
 * ones are one literal each, and text from outside never became special.
 */
#include <stdlib.h>

#include "agentd/literal.h"
#include "agentd/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool cond)
{
    if (!cond)
        abort();
}

static void check(const struct prompt *p)
{
    size_t at = 0;
    uint32_t literals = 0;
    for (uint32_t i = 0; i < p->n_pieces; i++) {
        enum literal which = LIT_BOS;
        struct str s = prompt_piece_text(p, i);
        must(p->piece[i].at == at && s.n == p->piece[i].len && s.n > 0);
        at += s.n;
        if (p->piece[i].special)
            must(literal_find(s, 0, &which) == 0 && literal_text(which).n == s.n);
        else
            must(i == 0 || p->piece[i - 1].special);
        for (size_t k = 0; !p->piece[i].special && (k = literal_find(s, k, &which)) != STR_NONE;
             k++)
            literals++;
    }
    must(at == p->text.len && literals >= p->n_defused);
    for (uint32_t i = 0; i < p->n_marks; i++)
        must(p->mark[i].at <= at && p->mark[i].piece <= p->n_pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct prompt_request r;
    struct prompt p = {0};
    struct err err;
    int rc = prompt_read(&r, str_of(data, size), &err);
    must(rc == 0 || rc == -ERR_LIMIT || r.code != PROMPT_OK);
    for (int way = 0; way < 2 && rc == 0; way++) {
        r.opts.pair_by_id = r.opts.lenient = way;
        int rendered = prompt_render(&p, r.msg, r.n, &r.opts, &err);
        if (rendered == 0)
            check(&p);
        else
            must(rendered == -ERR_LIMIT || p.code != PROMPT_OK);
        prompt_done(&p);
    }
    prompt_request_done(&r);
    return 0;
}
