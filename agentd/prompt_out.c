/*
 * prompt_out.c - bytes into pieces. A literal is special only when the template (or the
 * model, in a replay) wrote it; between two special pieces there is exactly one ordinary
 * piece, whoever its parts came from, so that its tokens do not depend on where our parts
 * happened to meet.
 */
#include "agentd/prompt_out.h"

#include <string.h>

static bool grow(void **array, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    uint32_t more = *cap ? *cap * 2 : 32;
    void *p = mem_resize(*array, more, size);
    if (!p)
        return false;
    *array = p;
    *cap = more;
    return true;
}

static void add_piece(struct render *r, struct str s, bool special, const int32_t *ids,
                      uint32_t n_ids)
{
    struct prompt *p = r->out;
    struct prompt_piece *last = p->n_pieces ? &p->piece[p->n_pieces - 1] : NULL;
    size_t at = p->text.len;
    buf_str(&p->text, s);
    if (s.n == 0)
        return;
    if (last && !special && !ids && !last->special && !last->ids) {
        last->len += s.n;
        return;
    }
    void *array = p->piece;
    if (!grow(&array, p->n_pieces, &p->cap_pieces, sizeof(*p->piece))) {
        r->failed = true;
        return;
    }
    p->piece = array;
    p->piece[p->n_pieces++] = (struct prompt_piece){
        .at = at, .len = s.n, .msg = p->bad_msg, .special = special, .ids = ids, .n_ids = n_ids};
}

void put_literal(struct render *r, enum literal which)
{
    add_piece(r, literal_text(which), true, NULL, 0);
}

void put_template(struct render *r, struct str s)
{
    enum literal which = LIT_BOS;
    for (size_t from = 0;;) {
        size_t at = literal_find(s, from, &which);
        size_t end = at == STR_NONE ? s.n : at;
        add_piece(r, str_sub(s, from, end - from), false, NULL, 0);
        if (at == STR_NONE)
            return;
        put_literal(r, which);
        from = at + literal_text(which).n;
    }
}

void put_outside(struct render *r, struct str s)
{
    enum literal which = LIT_BOS;
    for (size_t at = 0; (at = literal_find(s, at, &which)) != STR_NONE; at++)
        r->out->n_defused++;
    add_piece(r, s, false, NULL, 0);
}

int put_mark(struct render *r)
{
    struct prompt *p = r->out;
    void *array = p->mark;
    if (!grow(&array, p->n_marks, &p->cap_marks, sizeof(*p->mark)))
        return err_nomem(r->err);
    p->mark = array;
    p->mark[p->n_marks++] =
        (struct prompt_mark){.at = p->text.len, .piece = p->n_pieces, .msg = p->bad_msg};
    return 0;
}

int put_span(struct render *r, size_t at)
{
    struct prompt *p = r->out;
    void *array = p->span;
    if (!grow(&array, p->n_spans, &p->cap_spans, sizeof(*p->span)))
        return err_nomem(r->err);
    p->span = array;
    p->span[p->n_spans++] =
        (struct prompt_span){.at = at, .len = p->text.len - at, .msg = p->bad_msg};
    return 0;
}

/* --- replay --------------------------------------------------------------------------- */

/*
 * Cuts a sampled calls block: tags are special, what stands in a string value is not. A value
 * starts behind string="true"> and ends at the closer of parameters.
 */
static void put_sampled_calls(struct render *r, struct str s)
{
    static const struct str opener = {" string=\"true\">", 15};
    while (s.n) {
        size_t at = str_find(s, opener, 0);
        size_t value = at == STR_NONE ? s.n : at + opener.n;
        put_template(r, str_sub(s, 0, value));
        s = str_sub(s, value, SIZE_MAX);
        size_t end = str_find(s, STR(DSML_END_PARAM), 0);
        end = end == STR_NONE ? 0 : end;
        put_outside(r, str_sub(s, 0, end));
        s = str_sub(s, end, SIZE_MAX);
    }
}

/* Without the tokens only the marks that the format has a place for are taken as marks. */
static void put_sampled_bytes(struct render *r, struct str s, size_t think)
{
    struct str thought = str_sub(s, 0, think), rest = str_sub(s, think, SIZE_MAX);
    bool closed = str_ends(thought, STR(LIT_TEXT_ENDTHINK));
    if (closed)
        thought.n -= sizeof(LIT_TEXT_ENDTHINK) - 1;
    put_outside(r, thought);
    if (closed)
        put_literal(r, LIT_ENDTHINK);
    bool eos = str_ends(rest, STR(LIT_TEXT_EOS));
    if (eos)
        rest.n -= sizeof(LIT_TEXT_EOS) - 1;
    size_t block = str_find(rest, STR(DSML_BLOCK), 0);
    size_t invoke = str_find(rest, STR(DSML_INVOKE), 0);
    if (invoke < block)
        block = invoke;
    put_outside(r, str_sub(rest, 0, block));
    if (block != STR_NONE)
        put_sampled_calls(r, str_sub(rest, block, SIZE_MAX));
    if (eos)
        put_literal(r, LIT_EOS);
}

int put_sampled(struct render *r, const struct prompt_msg *m, bool with_reasoning)
{
    const struct prompt_sampled *s = &m->sampled;
    if (s->think_bytes > s->bytes.n || s->think_ids > s->n_ids)
        return err_set(r->err, ERR_CORRUPT,
                       "message %u: its reasoning is longer than what was sampled",
                       r->out->bad_msg);
    size_t skip = s->think_open ? s->bytes.n : s->think_bytes;
    uint32_t skip_ids = s->think_open ? s->n_ids : s->think_ids;
    if (with_reasoning) {
        if (s->think_bytes == 0 && !s->think_open)
            put_literal(r, LIT_ENDTHINK); /* sampled behind one, in chat mode */
        if (s->ids)
            add_piece(r, s->bytes, false, s->ids, s->n_ids);
        else
            put_sampled_bytes(r, s->bytes, s->think_open ? s->bytes.n : s->think_bytes);
        if (s->think_open)
            put_literal(r, LIT_ENDTHINK);
    } else if (s->ids) {
        add_piece(r, str_sub(s->bytes, skip, SIZE_MAX), false, s->ids + skip_ids,
                  s->n_ids - skip_ids);
    } else {
        put_sampled_bytes(r, str_sub(s->bytes, skip, SIZE_MAX), 0);
    }
    if (!str_ends(s->bytes, STR(LIT_TEXT_EOS)) || s->think_open)
        put_literal(r, LIT_EOS);
    return 0;
}
