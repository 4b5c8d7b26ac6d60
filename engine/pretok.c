/* pretok.c - the pre-tokenizers' patterns, run by PCRE2. */
#include "engine/pretok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"

enum { MAX_STEPS = 6 };

/* Unicode White_Space, spelled out: PCRE2's own \s also takes U+180E. */
#define WS                                                                               \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"     \
    "\\x{202f}\\x{205f}\\x{3000}"
#define S "[" WS "]"
#define NOT_S "[^" WS "]"
#define SPACE_TAIL S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"
#define ENGLISH "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
/*
 * Kimi-K2 splits words where case changes: UPPER*LOWER+ or UPPER+LOWER*, the two sharing letters
 * without case (MIXED) and none taking Han (the script itself: plain \\p{Han} would take
 * punctuation that is merely used with it). Written so, a megabyte of one letter would need
 * a megabyte of backtracking; what follows matches the same without any. When the run of
 * UPPER is not followed by a small letter, UPPER*LOWER+ ends at the last MIXED of the run.
 */
#define MIXED "(?!\\p{sc:Han})[\\p{Lm}\\p{Lo}\\p{M}]"
#define UPPER "(?:[\\p{Lu}\\p{Lt}]|" MIXED ")"
#define LOWER "(?:\\p{Ll}|" MIXED ")"
#define WORD "(?:" UPPER "*+" LOWER "++|(?:[\\p{Lu}\\p{Lt}]*+(?:" MIXED ")++)++)"

/* The letters that the tokenizer of DeepSeek-V2 counts as such: scripts with two cases. */
#define CASED                                                                            \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"       \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}"                \
    "\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}"        \
    "\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"               \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}"       \
    "\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}"       \
    "\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}"       \
    "\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"                  \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"                 \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}"       \
    "\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}"        \
    "\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}"         \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}"        \
    "\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"        \
    "\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"        \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}"       \
    "\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"     \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"                    \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

static const struct scheme {
    const char *name;
    const char *step[MAX_STEPS];
} schemes[] = {
    {"deepseek-v3",
     {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
      "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACE_TAIL}},
    {"deepseek-llm",
     {"[\\r\\n]", S "?[" CASED "]+",
      S "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"
      "\\x{3000}-\\x{3002}]+",
      S "+$", "[\\x{4e00}-\\x{9fa5}\\x{0800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+", "\\p{N}+"}},
    {"glm4",
     {"(?:" ENGLISH ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
      "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" SPACE_TAIL}},
    {"kimi-k2",
     {"\\p{sc:Han}+"
      "|[^\\r\\n\\p{L}\\p{N}]?" WORD "(?:" ENGLISH ")?"
      "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "++" LOWER "*+(?:" ENGLISH ")?"
      "|\\p{N}{1,3}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" SPACE_TAIL}},
};

struct pretok {
    pcre2_code *code[MAX_STEPS]; /* owned */
    pcre2_match_data *match;     /* owned; overwritten by each match */
    pcre2_match_context *context;
    unsigned n_steps;
};

static int compile(struct pretok *p, const char *pattern, struct err *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!c) {
        PCRE2_UCHAR text[120];
        pcre2_get_error_message(code, text, sizeof text);
        return err_set(err, ERR_STATE, "pre-tokenizer pattern, offset %zu: %s", at, text);
    }
    pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* without JIT it is slower, not wrong */
    p->code[p->n_steps++] = c;
    return 0;
}

int pretok_new(struct pretok **out, struct str name, struct err *err)
{
    const struct scheme *s = NULL;
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
        if (str_is(name, schemes[i].name))
            s = &schemes[i];
    if (!s)
        return err_set(err, ERR_UNSUPPORTED,
                       "pre-tokenizer '%.*s' is unknown; known are deepseek-v3, "
                       "deepseek-llm, glm4 and kimi-k2",
                       STR_ARG(name));
    struct pretok *p = mem_zalloc(sizeof *p);
    if (!p)
        return err_nomem(err);
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < MAX_STEPS && s->step[i]; i++)
        rc = compile(p, s->step[i], err);
    p->match = rc == 0 ? pcre2_match_data_create(1, NULL) : NULL;
    p->context = rc == 0 ? pcre2_match_context_create(NULL) : NULL;
    if (rc == 0 && (!p->match || !p->context))
        rc = err_nomem(err);
    if (rc < 0) {
        pretok_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pretok_free(struct pretok *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < p->n_steps; i++)
        pcre2_code_free(p->code[i]);
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->context);
    mem_free(p);
}

/* One step over one piece; what it yields goes through the steps that follow. */
static int split(struct pretok *p, unsigned step, struct str piece, pretok_piece_fn *fn,
                 void *arg, struct err *err)
{
    if (piece.n == 0)
        return 0;
    if (step == p->n_steps)
        return fn(arg, piece, err);
    size_t done = 0;
    while (done < piece.n) {
        int n = pcre2_match(p->code[step], (PCRE2_SPTR)piece.p, piece.n, done,
                            PCRE2_NO_UTF_CHECK, p->match, p->context);
        if (n == PCRE2_ERROR_NOMATCH)
            break;
        if (n < 0)
            return err_set(err, ERR_LIMIT, "pre-tokenizer gave up on a piece of %zu bytes "
                           "(PCRE2 error %d)", piece.n, n);
        const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(p->match);
        size_t from = hit[0], to = hit[1];
        if (to <= from)
            break; /* no pattern matches emptiness; this only keeps the loop finite */
        struct str gap = str_sub(piece, done, from - done);
        int rc = split(p, step + 1, gap, fn, arg, err);
        if (rc == 0)
            rc = split(p, step + 1, str_sub(piece, from, to - from), fn, arg, err);
        if (rc < 0)
            return rc;
        done = to;
    }
    return split(p, step + 1, str_sub(piece, done, piece.n), fn, arg, err);
}

int pretok_split(struct pretok *p, struct str text, pretok_piece_fn *fn, void *arg,
                 struct err *err)
{
    return split(p, 0, text, fn, arg, err);
}
