/*
 * tokenizer.c - encoding and decoding. The vocabulary is kept as bytes: spellings are mapped
 * out of the byte-level alphabet once, at load, so decoding is a copy.
 */
#include "engine/tokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "engine/bpe.h"
#include "engine/pretok.h"

/* A trie over the literals of added tokens; node 0 is the root. */
struct node {
    int32_t id; /* token that ends here, or -1 */
    uint32_t child, sibling; /* 0 = none */
    uint8_t byte;
};

struct tokenizer {
    struct arena arena; /* every view below */
    struct vocab vocab;
    struct str *bytes;  /* n_tokens: what each token stands for */
    int32_t byte_id[256];
    struct node *trie;
    uint32_t n_nodes, cap_nodes;
    int32_t *by_bytes; /* hash of normal tokens' bytes -> id, -1 empty */
    uint32_t mask;
    struct bpe bpe;
    struct pretok *pretok;
    int32_t *ids; /* scratch for one piece */
    size_t cap_ids;
};

/* --- the byte-level alphabet ------------------------------------------------------------ */

static bool shows_itself(unsigned b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

/* Printable bytes stand for themselves; the other 68 follow from U+0100 in order. */
static int byte_of(uint32_t cp)
{
    if (cp < 256)
        return shows_itself(cp) ? (int)cp : -1;
    unsigned nth = cp - 256;
    for (unsigned b = 0; b < 256; b++)
        if (!shows_itself(b) && nth-- == 0)
            return (int)b;
    return -1;
}

/* The bytes that a spelling in the alphabet stands for, into the arena. */
static int spell_out(struct tokenizer *t, struct str spelling, struct str *out, struct err *err)
{
    char *p = arena_alloc(&t->arena, spelling.n ? spelling.n : 1);
    if (!p)
        return err_nomem(err);
    size_t n = 0;
    for (size_t i = 0, len; i < spelling.n; i += len) {
        uint32_t cp = 0;
        len = utf8_decode(spelling, i, &cp);
        int b = len ? byte_of(cp) : -1;
        if (b < 0)
            return err_set(err, ERR_PARSE,
                           "token '%.*s' is not spelled in the byte-level alphabet",
                           STR_ARG(spelling));
        p[n++] = (char)b;
    }
    *out = str_of(p, n);
    return 0;
}

/* --- look-up by bytes ------------------------------------------------------------------- */

static uint64_t hash(struct str s)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

static uint32_t slot_of(const struct tokenizer *t, struct str bytes)
{
    uint32_t i = (uint32_t)hash(bytes) & t->mask;
    while (t->by_bytes[i] >= 0 && !str_eq(t->bytes[t->by_bytes[i]], bytes))
        i = (i + 1) & t->mask;
    return i;
}

static bool is_added(uint8_t type)
{
    return type == TOKEN_CONTROL || type == TOKEN_USER;
}

/* --- added tokens ----------------------------------------------------------------------- */

static uint32_t new_node(struct tokenizer *t, uint8_t byte, struct err *err)
{
    if (t->n_nodes == t->cap_nodes) {
        uint32_t cap = t->cap_nodes ? t->cap_nodes * 2 : 256;
        void *p = mem_resize(t->trie, cap, sizeof *t->trie);
        if (!p) {
            err_nomem(err);
            return 0;
        }
        t->trie = p;
        t->cap_nodes = cap;
    }
    t->trie[t->n_nodes] = (struct node){.id = -1, .byte = byte};
    return t->n_nodes++;
}

static uint32_t child_of(const struct tokenizer *t, uint32_t at, uint8_t byte)
{
    uint32_t c = t->trie[at].child;
    while (c && t->trie[c].byte != byte)
        c = t->trie[c].sibling;
    return c;
}

static int trie_add(struct tokenizer *t, struct str literal, int32_t id, struct err *err)
{
    uint32_t at = 0;
    for (size_t i = 0; i < literal.n; i++) {
        uint8_t b = (uint8_t)literal.p[i];
        uint32_t next = child_of(t, at, b);
        if (!next) {
            next = new_node(t, b, err);
            if (!next)
                return -ERR_NOMEM;
            t->trie[next].sibling = t->trie[at].child;
            t->trie[at].child = next;
        }
        at = next;
    }
    if (t->trie[at].id < 0)
        t->trie[at].id = id;
    return 0;
}

/* The longest added token at text[from]; its length, 0 when there is none. Bounded by the
 * longest literal, so a scan of the text is linear. */
static size_t trie_match(const struct tokenizer *t, struct str text, size_t from, int32_t *id)
{
    size_t best = 0;
    uint32_t at = 0;
    for (size_t i = from; i < text.n; i++) {
        at = child_of(t, at, (uint8_t)text.p[i]);
        if (!at)
            break;
        if (t->trie[at].id >= 0) {
            best = i + 1 - from;
            *id = t->trie[at].id;
        }
    }
    return best;
}

/* --- construction ----------------------------------------------------------------------- */

static int copy_views(struct tokenizer *t, const struct str *from, uint32_t n,
                      const struct str **out, struct err *err)
{
    struct str *v = arena_alloc(&t->arena, (size_t)n * sizeof *v + 1);
    if (!v)
        return err_nomem(err);
    for (uint32_t i = 0; i < n; i++) {
        char *p = arena_strdup(&t->arena, from[i]);
        if (!p)
            return err_nomem(err);
        v[i] = str_of(p, from[i].n);
    }
    *out = v;
    return 0;
}

static int copy_vocab(struct tokenizer *t, const struct vocab *v, struct err *err)
{
    t->vocab = *v;
    int rc = copy_views(t, v->token, v->n_tokens, &t->vocab.token, err);
    if (rc == 0)
        rc = copy_views(t, v->merge, v->n_merges, &t->vocab.merge, err);
    if (rc < 0)
        return rc;
    uint8_t *type = arena_alloc(&t->arena, (size_t)v->n_tokens + 1);
    char *pre = arena_strdup(&t->arena, v->pre);
    if (!type || !pre)
        return err_nomem(err);
    memcpy(type, v->type, v->n_tokens);
    t->vocab.type = type;
    t->vocab.pre = str_of(pre, v->pre.n);
    return 0;
}

/* Bytes that no UTF-8 text has: vocabularies made from text lack them, as DeepSeek-V2's. */
static bool is_never_utf8(int b)
{
    return b == 0xC0 || b == 0xC1 || b >= 0xF5;
}

static int index_tokens(struct tokenizer *t, struct err *err)
{
    uint32_t n = t->vocab.n_tokens;
    uint64_t slots = 16;
    while (slots < (uint64_t)n * 2)
        slots *= 2;
    t->bytes = arena_alloc(&t->arena, ((size_t)n + 1) * sizeof *t->bytes);
    t->by_bytes = mem_array(slots, sizeof *t->by_bytes);
    if (!t->bytes || !t->by_bytes)
        return err_nomem(err);
    t->mask = (uint32_t)(slots - 1);
    memset(t->by_bytes, 0xFF, slots * sizeof *t->by_bytes);
    memset(t->byte_id, 0xFF, sizeof t->byte_id);
    new_node(t, 0, err);
    if (t->n_nodes == 0)
        return -ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        struct str token = t->vocab.token[i];
        int rc = 0;
        t->bytes[i] = token;
        if (is_added(t->vocab.type[i])) {
            rc = token.n ? trie_add(t, token, (int32_t)i, err) : 0;
        } else if (t->vocab.type[i] == TOKEN_NORMAL && token.n) {
            rc = spell_out(t, token, &t->bytes[i], err);
            uint32_t slot = rc == 0 ? slot_of(t, t->bytes[i]) : 0;
            if (rc == 0 && t->by_bytes[slot] < 0)
                t->by_bytes[slot] = (int32_t)i;
            if (rc == 0 && t->bytes[i].n == 1)
                t->byte_id[(uint8_t)t->bytes[i].p[0]] = (int32_t)i;
        }
        if (rc < 0)
            return rc;
    }
    for (int b = 0; b < 256; b++)
        if (t->byte_id[b] < 0 && !is_never_utf8(b))
            return err_set(err, ERR_PARSE, "the vocabulary has no token for byte 0x%02x", b);
    return 0;
}

static int32_t find_bytes(const struct tokenizer *t, struct str bytes)
{
    return t->by_bytes[slot_of(t, bytes)];
}

/* "A B": the separator is the only space, since the alphabet has none. */
static int add_merge(struct tokenizer *t, uint32_t rank, struct err *err)
{
    struct str rest = t->vocab.merge[rank], part[2] = {{0}, {0}}, bytes[2];
    unsigned n = 0;
    for (struct str piece; str_split(&rest, ' ', &piece); n++)
        if (n < 2)
            part[n] = piece;
    if (n != 2 || !part[0].n || !part[1].n)
        return err_set(err, ERR_PARSE, "merge %u is not a pair: '%.*s'", rank,
                       STR_ARG(t->vocab.merge[rank]));
    for (int i = 0; i < 2; i++) {
        int rc = spell_out(t, part[i], &bytes[i], err);
        if (rc < 0)
            return err_prefix(err, "merge %u", rank);
    }
    char *joined = arena_alloc(&t->arena, bytes[0].n + bytes[1].n);
    if (!joined)
        return err_nomem(err);
    memcpy(joined, bytes[0].p, bytes[0].n);
    memcpy(joined + bytes[0].n, bytes[1].p, bytes[1].n);
    struct bpe_merge m = {
        .left = find_bytes(t, bytes[0]),
        .right = find_bytes(t, bytes[1]),
        .merged = find_bytes(t, str_of(joined, bytes[0].n + bytes[1].n)),
        .rank = rank,
    };
    if (m.left < 0 || m.right < 0 || m.merged < 0)
        return err_set(err, ERR_PARSE, "merge %u ('%.*s') names a token that does not exist",
                       rank, STR_ARG(t->vocab.merge[rank]));
    bpe_add(&t->bpe, m);
    return 0;
}

int tokenizer_new(struct tokenizer **out, const struct vocab *v, struct err *err)
{
    struct tokenizer *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err);
    arena_init(&t->arena, 0);
    int rc = v->n_tokens <= INT32_MAX ? copy_vocab(t, v, err)
                                      : err_set(err, ERR_LIMIT, "too many tokens");
    if (rc == 0)
        rc = index_tokens(t, err);
    if (rc == 0)
        rc = bpe_init(&t->bpe, v->n_merges, err);
    for (uint32_t i = 0; rc == 0 && i < v->n_merges; i++)
        rc = add_merge(t, i, err);
    if (rc == 0)
        rc = pretok_new(&t->pretok, t->vocab.pre, err);
    if (rc < 0) {
        tokenizer_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    pretok_free(t->pretok);
    bpe_done(&t->bpe);
    mem_free(t->trie);
    mem_free(t->by_bytes);
    mem_free(t->ids);
    arena_done(&t->arena);
    mem_free(t);
}

/* --- encoding --------------------------------------------------------------------------- */

struct sink {
    struct tokenizer *t;
    tokenizer_id_fn *fn;
    void *arg;
};

/* Merges one piece of bytes and passes its ids on. */
static int emit_piece(void *arg, struct str piece, struct err *err)
{
    struct sink *s = arg;
    struct tokenizer *t = s->t;
    int32_t whole = t->vocab.whole_first ? find_bytes(t, piece) : -1;
    if (whole >= 0)
        return s->fn(s->arg, whole, err);
    if (piece.n > t->cap_ids) {
        void *p = mem_resize(t->ids, piece.n, sizeof *t->ids);
        if (!p)
            return err_nomem(err);
        t->ids = p;
        t->cap_ids = piece.n;
    }
    for (size_t i = 0; i < piece.n; i++)
        t->ids[i] = t->byte_id[(uint8_t)piece.p[i]];
    size_t n;
    int rc = bpe_apply(&t->bpe, t->ids, piece.n, &n, err);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = s->fn(s->arg, t->ids[i], err);
    return rc;
}

/* A byte outside UTF-8, as U+FFFD where the vocabulary has no token for it. */
static int emit_byte(struct sink *s, char byte, struct err *err)
{
    bool known = s->t->byte_id[(uint8_t)byte] >= 0;
    return emit_piece(s, known ? str_of(&byte, 1) : STR("\xEF\xBF\xBD"), err);
}

/* Plain text: valid stretches through the pre-tokenizer, each invalid byte on its own. */
static int encode_plain(struct sink *s, struct str text, struct err *err)
{
    size_t from = 0, i = 0;
    int rc = 0;
    while (rc == 0 && i < text.n) {
        uint32_t cp;
        size_t n = utf8_decode(text, i, &cp);
        if (n) {
            i += n;
            continue;
        }
        rc = pretok_split(s->t->pretok, str_sub(text, from, i - from), emit_piece, s, err);
        if (rc == 0)
            rc = emit_byte(s, text.p[i], err);
        from = ++i;
    }
    if (rc == 0)
        rc = pretok_split(s->t->pretok, str_sub(text, from, i - from), emit_piece, s, err);
    return rc;
}

int tokenizer_encode(struct tokenizer *t, struct str text, bool special, tokenizer_id_fn *fn,
                     void *arg, struct err *err)
{
    struct sink s = {t, fn, arg};
    if (!special)
        return encode_plain(&s, text, err);
    size_t from = 0;
    for (size_t i = 0; i < text.n;) {
        int32_t id = -1;
        size_t n = trie_match(t, text, i, &id);
        if (n == 0) {
            i++;
            continue;
        }
        int rc = encode_plain(&s, str_sub(text, from, i - from), err);
        if (rc == 0)
            rc = fn(arg, id, err);
        if (rc < 0)
            return rc;
        from = i += n;
    }
    return encode_plain(&s, str_sub(text, from, text.n), err);
}

/* --- decoding and look-up --------------------------------------------------------------- */

const struct vocab *tokenizer_vocab(const struct tokenizer *t)
{
    return &t->vocab;
}

int32_t tokenizer_find(const struct tokenizer *t, struct str literal)
{
    int32_t id = -1;
    if (trie_match(t, literal, 0, &id) == literal.n && literal.n)
        return id;
    return find_bytes(t, literal);
}

struct str tokenizer_bytes(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n_tokens ? t->bytes[id] : (struct str){"", 0};
}

enum token_type tokenizer_type(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n_tokens ? (enum token_type)t->vocab.type[id]
                                                       : TOKEN_UNUSED;
}

/* Could these bytes, fewer than a character, still become one? */
static bool may_continue(struct str s)
{
    return s.n && s.n < 4 && utf8_complete(s) == 0;
}

void text_stream_push(struct text_stream *s, struct str bytes, struct buf *out)
{
    for (size_t i = 0; i < bytes.n; i++) {
        uint32_t cp;
        s->held[s->n++] = bytes.p[i];
        struct str held = str_of(s->held, s->n);
        if (utf8_decode(held, 0, &cp) == s->n) {
            buf_str(out, held);
            s->n = 0;
        } else if (!may_continue(held)) {
            buf_puts(out, "\xEF\xBF\xBD");
            /* What broke the character may start the next one. */
            bool again = s->n > 1;
            s->n = 0;
            i -= again;
        }
    }
}

void text_stream_flush(struct text_stream *s, struct buf *out)
{
    if (s->n)
        buf_puts(out, "\xEF\xBF\xBD");
    s->n = 0;
}
