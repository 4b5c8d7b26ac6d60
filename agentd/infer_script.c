/*
 * infer_script.c - an engine that plays a script: for tests and demonstrations, so that the
 * whole daemon runs without weights. Tokens are bytes and the format's literals; KV
 * timelines are lists of them; which reply comes is decided by the prompt's text alone, so a
 * restarted daemon goes on where it was.
 *
 * The script is JSON:
 *   {"n_ctx": 65536, "turns": [{"match": "text in the last user message",
 *     "steps": [{"think": "...", "text": "...", "calls": [{"name": "bash",
 *                "arguments": {"command": "ls"}}], ...}, ...]}]}
 * The first turn whose `match` occurs (absent = always) is played; the step is the number of
 * replies since that user message, the last one repeats. A step may also hold:
 *   raw        bytes behind the prompt's tag, as they are (malformed replies)
 *   delay_ms   before each group of bytes;  first_ms  before the first
 *   chunk      bytes in a group, 1 to 8
 *   repeat     n times the text
 *   fault      "error" fails the step, "busy" fails it as retryable, "stall" never goes on,
 *              "cut" ends without the end token, "dead" ends the engine; after `fault_at` bytes
 * Placeholders in every string: {{user}} the last user message, {{result}} the last tool
 * result, {{steps}} replies in this turn, {{turns}} user messages, {{hash}} of all the prompt's
 * tokens, {{seen:REGEX}} the last match in the prompt (its first group if it has one): an id
 * that the prompt showed.
 */
#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "agentd/infer_model.h"
#include "agentd/literal.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

enum {
    FIRST_LITERAL = 256,
    VOCAB = FIRST_LITERAL + LIT_COUNT,
    DEFAULT_CTX = 1 << 20,
    DEFAULT_CACHE = 64 << 20, /* bytes of ids */
};

struct script {
    json_t *root; /* owned */
    uint32_t n_ctx;
    char bytes[256];
    size_t held, most; /* ids in all timelines, and how many may be */
};

struct script_seq {
    struct script *sc;
    struct tokens t; /* owned */
};

struct play { /* one reply being played */
    struct tokens reply; /* owned */
    uint32_t at;
    int64_t first_ns, delay_ns;
    uint32_t chunk;
    const char *fault; /* borrowed from the script, or NULL */
    uint32_t fault_at;
    bool started;
};

static int script_open(void **self, const char *where, const struct infer_opts *o,
                       _Atomic double *done, struct err *err)
{
    struct script *sc = mem_zalloc(sizeof *sc);
    struct buf b;
    int64_t n_ctx = o->n_ctx ? o->n_ctx : DEFAULT_CTX;
    if (!sc)
        return err_nomem(err);
    buf_init(&b, LIMIT_JSON_BYTES);
    int rc = io_read_file(where, &b, err);
    if (rc == 0)
        rc = json_read(&sc->root, buf_view(&b), err);
    if (rc == 0 && !json_is_array(json_object_get(sc->root, "turns")))
        rc = err_set(err, ERR_PARSE, "a script is {\"turns\": [...]}");
    if (rc == 0)
        rc = json_opt_int(sc->root, "n_ctx", 64, 1 << 30, &n_ctx, err);
    buf_done(&b);
    if (rc < 0) {
        json_decref(sc->root);
        mem_free(sc);
        return err_prefix(err, "script '%s'", where);
    }
    sc->n_ctx = (uint32_t)n_ctx;
    sc->most = (o->cache_bytes ? o->cache_bytes : DEFAULT_CACHE) / sizeof(int32_t);
    for (int i = 0; i < 256; i++)
        sc->bytes[i] = (char)i;
    atomic_store(done, 1.0);
    *self = sc;
    return 0;
}

static void script_close(void *self)
{
    struct script *sc = self;
    json_decref(sc->root);
    mem_free(sc);
}

static void script_info(void *self, struct infer_info *out)
{
    struct script *sc = self;
    snprintf(out->kind, sizeof out->kind, "script");
    snprintf(out->name, sizeof out->name, "script");
    snprintf(out->fingerprint, sizeof out->fingerprint, "script");
    out->n_ctx = sc->n_ctx;
    out->max_batch = 65536;
    out->n_threads = 1;
    out->n_vocab = VOCAB;
    out->tokens = true;
    out->temperature = 0;
    out->top_p = 1;
}

static int script_tokenize(void *self, struct str text, bool special, struct tokens *out,
                           struct err *err)
{
    (void)self;
    (void)err;
    for (size_t i = 0; i < text.n;) {
        enum literal which = LIT_COUNT;
        size_t at = special ? literal_find(text, i, &which) : STR_NONE;
        size_t end = at == STR_NONE ? text.n : at;
        for (; i < end; i++) {
            int32_t id = (unsigned char)text.p[i];
            tokens_add(out, &id, 1);
        }
        if (at != STR_NONE) {
            int32_t id = FIRST_LITERAL + (int32_t)which;
            tokens_add(out, &id, 1);
            i += literal_text(which).n;
        }
    }
    return 0;
}

static struct str script_bytes(void *self, int32_t id)
{
    struct script *sc = self;
    if (id < 0 || id >= VOCAB)
        return str_c("");
    return id < FIRST_LITERAL ? str_of(&sc->bytes[id], 1)
                              : literal_text((enum literal)(id - FIRST_LITERAL));
}

static bool script_special(void *self, int32_t id)
{
    (void)self;
    return id >= FIRST_LITERAL;
}

static int32_t script_id_of(void *self, struct str literal)
{
    (void)self;
    for (int i = 0; i < LIT_COUNT; i++)
        if (str_eq(literal, literal_text((enum literal)i)))
            return FIRST_LITERAL + i;
    return -1;
}

/* --- timelines -------------------------------------------------------------------------- */

static int script_seq_new(void *self, void **seq, struct err *err)
{
    struct script_seq *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    s->sc = self;
    *seq = s;
    return 0;
}

static void script_seq_free(void *seq)
{
    struct script_seq *s = seq;
    s->sc->held -= s->t.n;
    tokens_done(&s->t);
    mem_free(s);
}

static int append(struct script_seq *s, const int32_t *id, uint32_t n, struct err *err)
{
    tokens_add(&s->t, id, n);
    if (s->t.failed)
        return err_nomem(err);
    s->sc->held += n;
    return 0;
}

static int script_seq_fork(void *seq, uint32_t n, void **out, struct err *err)
{
    struct script_seq *src = seq;
    *out = NULL;
    int rc = script_seq_new(src->sc, out, err);
    if (rc == 0)
        rc = append(*out, src->t.id, n, err);
    if (rc < 0 && *out) {
        script_seq_free(*out);
        *out = NULL;
    }
    return rc;
}

static void script_seq_truncate(void *seq, uint32_t n)
{
    struct script_seq *s = seq;
    if (n < s->t.n) {
        s->sc->held -= s->t.n - n;
        s->t.n = n;
    }
}

static uint32_t script_seq_len(void *seq)
{
    return ((struct script_seq *)seq)->t.n;
}

static const int32_t *script_seq_tokens(void *seq)
{
    return ((struct script_seq *)seq)->t.id;
}

static int script_seq_save(void *seq, const char *path, struct err *err)
{
    struct script_seq *s = seq;
    return io_write_file(path, str_of(s->t.id, s->t.n * sizeof *s->t.id), 0600, err);
}

static int script_seq_load(void *self, void **seq, const char *path, struct err *err)
{
    struct buf b;
    buf_init(&b, (size_t)64 << 20);
    int rc = io_read_file(path, &b, err);
    if (rc == 0 && b.len % sizeof(int32_t))
        rc = err_set(err, ERR_CORRUPT, "'%s' is not whole", path);
    if (rc == 0)
        rc = script_seq_new(self, seq, err);
    if (rc == 0)
        rc = append(*seq, (const int32_t *)(const void *)b.data, (uint32_t)(b.len / 4), err);
    buf_done(&b);
    return rc;
}

static void script_cache(void *self, size_t *used, size_t *limit)
{
    *used = ((struct script *)self)->held * sizeof(int32_t);
    *limit = ((struct script *)self)->most * sizeof(int32_t);
}

/* --- what to play ------------------------------------------------------------------------ */

struct scene { /* the prompt as the script sees it */
    struct buf text;
    struct str user, result, behind; /* last user message, last result, text behind the user */
    int64_t steps, turns;
    uint64_t hash; /* of the tokens */
    bool thinking;
};

static void look(struct scene *sc, void *self, const int32_t *id, uint32_t n)
{
    *sc = (struct scene){0};
    buf_init(&sc->text, 0);
    size_t user = 0, behind = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (id[i] == FIRST_LITERAL + LIT_USER) {
            user = sc->text.len + literal_text(LIT_USER).n;
            behind = 0;
            sc->steps = 0;
            sc->turns++;
        }
        if (id[i] == FIRST_LITERAL + LIT_ASSISTANT && !behind)
            behind = sc->text.len;
        if (id[i] == FIRST_LITERAL + LIT_EOS)
            sc->steps++;
        buf_str(&sc->text, script_bytes(self, id[i]));
        sc->hash = (sc->hash ^ (uint64_t)id[i]) * 0x100000001b3u;
    }
    sc->thinking = n && id[n - 1] == FIRST_LITERAL + LIT_THINK;
    struct str all = buf_view(&sc->text);
    sc->user = str_sub(all, user, behind > user ? behind - user : SIZE_MAX);
    sc->behind = str_sub(all, behind, SIZE_MAX);
    size_t open = STR_NONE;
    for (size_t at = 0; (at = str_find(sc->behind, STR("<result>"), at)) != STR_NONE; at++)
        open = at + 8;
    if (open != STR_NONE) {
        struct str r = str_sub(sc->behind, open, SIZE_MAX);
        size_t end = STR_NONE;
        for (size_t at = 0; (at = str_find(r, STR("</result>"), at)) != STR_NONE; at++)
            end = at;
        sc->result = end == STR_NONE ? r : str_sub(r, 0, end);
    }
}

/* The last match of a regular expression in the prompt; its first group if it has one. */
static void seen(struct buf *out, const struct scene *sc, struct str pattern)
{
    char text[256];
    regex_t re;
    regmatch_t m[2], last[2] = {{-1, -1}, {-1, -1}};
    snprintf(text, sizeof text, "%.*s", STR_ARG(pattern));
    if (regcomp(&re, text, REG_EXTENDED) != 0)
        return;
    const char *p = buf_cstr(&sc->text);
    regoff_t base = 0;
    while (regexec(&re, p + base, 2, m, base ? REG_NOTBOL : 0) == 0) {
        for (int i = 0; i < 2; i++) {
            last[i].rm_so = m[i].rm_so < 0 ? -1 : m[i].rm_so + base;
            last[i].rm_eo = m[i].rm_eo + base;
        }
        base += m[0].rm_eo > m[0].rm_so ? m[0].rm_eo : m[0].rm_eo + 1;
        if ((size_t)base >= sc->text.len)
            break;
    }
    int g = last[1].rm_so >= 0 ? 1 : 0;
    if (last[g].rm_so >= 0)
        buf_add(out, p + last[g].rm_so, (size_t)(last[g].rm_eo - last[g].rm_so));
    regfree(&re);
}

static void expand(struct buf *out, const struct scene *sc, struct str s)
{
    while (s.n) {
        size_t open = str_find(s, STR("{{"), 0);
        size_t close = open == STR_NONE ? STR_NONE : str_find(s, STR("}}"), open);
        if (close == STR_NONE) {
            buf_str(out, s);
            return;
        }
        buf_str(out, str_sub(s, 0, open));
        struct str name = str_sub(s, open + 2, close - open - 2);
        if (str_is(name, "user"))
            buf_str(out, sc->user);
        else if (str_is(name, "result"))
            buf_str(out, sc->result);
        else if (str_is(name, "steps"))
            buf_printf(out, "%lld", (long long)sc->steps);
        else if (str_is(name, "hash"))
            buf_printf(out, "%016llx", (unsigned long long)sc->hash);
        else if (str_is(name, "turns"))
            buf_printf(out, "%lld", (long long)sc->turns);
        else if (str_starts(name, STR("seen:")))
            seen(out, sc, str_sub(name, 5, SIZE_MAX));
        else
            buf_printf(out, "{{%.*s}}", STR_ARG(name));
        s = str_sub(s, close + 2, SIZE_MAX);
    }
}

static const json_t *choose(const struct script *s, const struct scene *sc)
{
    size_t i;
    json_t *turn;
    json_array_foreach(json_object_get(s->root, "turns"), i, turn)
    {
        struct str match = json_view(json_object_get(turn, "match"));
        if (match.n && str_find(sc->user, match, 0) == STR_NONE)
            continue;
        const json_t *steps = json_object_get(turn, "steps");
        size_t n = json_array_size(steps);
        size_t at = (size_t)sc->steps < n ? (size_t)sc->steps : n - 1;
        return n ? json_array_get(steps, at) : NULL;
    }
    return NULL;
}

static void write_call(struct buf *out, const struct scene *sc, json_t *call)
{
    const char *key;
    json_t *v;
    struct err err;
    buf_puts(out, DSML_INVOKE " name=\"");
    buf_str(out, json_view(json_object_get(call, "name")));
    buf_puts(out, "\">\n");
    json_object_foreach(json_object_get(call, "arguments"), key, v)
    {
        bool text = json_is_string(v);
        buf_printf(out, DSML_PARAM " name=\"%s\" string=\"%s\">", key, text ? "true" : "false");
        if (text)
            expand(out, sc, json_view(v));
        else
            (void)!json_write(v, out, &err);
        buf_puts(out, DSML_END_PARAM "\n");
    }
    buf_puts(out, DSML_END_INVOKE "\n");
}

static void write_reply(struct buf *out, const struct scene *sc, const json_t *step)
{
    size_t i;
    json_t *call;
    const json_t *raw = json_object_get(step, "raw"), *calls = json_object_get(step, "calls");
    if (raw) {
        expand(out, sc, json_view(raw));
        return;
    }
    if (sc->thinking) {
        expand(out, sc, json_view(json_object_get(step, "think")));
        buf_puts(out, LIT_TEXT_ENDTHINK);
    }
    int64_t repeat = json_integer_value(json_object_get(step, "repeat"));
    for (int64_t k = 0; k < (repeat > 1 ? repeat : 1); k++)
        expand(out, sc, json_view(json_object_get(step, "text")));
    if (!json_array_size(calls))
        return;
    buf_puts(out, "\n\n" DSML_BLOCK "\n");
    json_array_foreach(calls, i, call)
        write_call(out, sc, call);
    buf_puts(out, DSML_END_BLOCK);
}

static int64_t ms_of(const json_t *step, const char *key)
{
    return json_integer_value(json_object_get(step, key)) * 1000000;
}

static int prepare(struct play **out, void *self, struct infer_row *r, struct err *err)
{
    struct script_seq *seq = r->seq;
    struct scene sc;
    struct buf text;
    struct play *p = mem_zalloc(sizeof *p);
    if (!p)
        return err_nomem(err);
    look(&sc, self, seq->t.id, r->n_prompt);
    const json_t *step = choose(self, &sc);
    buf_init(&text, LIMIT_JSON_BYTES);
    if (step)
        write_reply(&text, &sc, step);
    p->fault = json_string_value(json_object_get(step, "fault"));
    p->fault_at = (uint32_t)json_integer_value(json_object_get(step, "fault_at"));
    p->delay_ns = ms_of(step, "delay_ms");
    p->first_ns = ms_of(step, "first_ms");
    p->chunk = (uint32_t)json_integer_value(json_object_get(step, "chunk"));
    if (p->chunk < 1 || p->chunk > ARRAY_LEN(r->id))
        p->chunk = ARRAY_LEN(r->id);
    int32_t eos = FIRST_LITERAL + LIT_EOS;
    int rc = script_tokenize(self, buf_view(&text), true, &p->reply, err);
    tokens_add(&p->reply, &eos, 1);
    if (rc == 0 && !step)
        snprintf(r->error, sizeof r->error, "the script has no reply for '%.*s'",
                 (int)(sc.user.n < 80 ? sc.user.n : 80), sc.user.p);
    if (rc == 0 && (p->reply.failed || text.failed))
        rc = err_nomem(err);
    buf_done(&text);
    buf_done(&sc.text);
    *out = p;
    return rc;
}

static int play_fault(struct play *p, struct infer_row *r, struct err *err)
{
    if (strcmp(p->fault, "dead") == 0)
        return err_set(err, ERR_CORRUPT, "scripted fault: dead");
    if (strcmp(p->fault, "stall") == 0) {
        r->not_before = INT64_MAX / 2;
    } else if (strcmp(p->fault, "cut") == 0) {
        r->id[r->n_id++] = FIRST_LITERAL + LIT_EOS;
    } else {
        snprintf(r->error, sizeof r->error, "scripted fault: %s", p->fault);
        r->retryable = strcmp(p->fault, "busy") == 0;
    }
    return 0;
}

static int play(struct play *p, struct infer_row *r, struct err *err)
{
    int64_t now = io_mono_ns();
    r->n_id = 0;
    if (!p->started && p->first_ns) {
        p->started = true;
        r->not_before = now + p->first_ns;
        return 0;
    }
    p->started = true;
    if (p->fault && p->at >= p->fault_at)
        return play_fault(p, r, err);
    for (uint32_t i = 0; i < p->chunk && p->at < p->reply.n; i++)
        r->id[r->n_id++] = p->reply.id[p->at++];
    r->not_before = p->delay_ns ? now + p->delay_ns : 0;
    return 0;
}

static int script_step(void *self, struct infer_row *row, uint32_t n, struct err *err)
{
    struct script *sc = self;
    size_t need = 0;
    for (uint32_t i = 0; i < n; i++)
        need += row[i].n;
    if (sc->held + need > sc->most)
        return err_set(err, ERR_LIMIT, "the cache is full");
    for (uint32_t i = 0; i < n; i++) {
        struct script_seq *s = row[i].seq;
        int rc = append(s, row[i].tok, row[i].n, err);
        if (rc == 0 && row[i].sample && !*row[i].scratch)
            rc = prepare((struct play **)row[i].scratch, self, &row[i], err);
        if (rc == 0 && row[i].sample && !row[i].error[0])
            rc = play(*row[i].scratch, &row[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void script_seed(uint64_t rng[4], uint64_t seed)
{
    rng[0] = seed;
    rng[1] = rng[2] = rng[3] = 0;
}

static void script_job_done(void *scratch)
{
    struct play *p = scratch;
    tokens_done(&p->reply);
    mem_free(p);
}

const struct infer_model infer_script = {
    .kind = "script",
    .open = script_open,
    .close = script_close,
    .info = script_info,
    .tokenize = script_tokenize,
    .bytes = script_bytes,
    .special = script_special,
    .id_of = script_id_of,
    .seq_new = script_seq_new,
    .seq_free = script_seq_free,
    .seq_fork = script_seq_fork,
    .seq_truncate = script_seq_truncate,
    .seq_len = script_seq_len,
    .seq_tokens = script_seq_tokens,
    .seq_save = script_seq_save,
    .seq_load = script_seq_load,
    .cache = script_cache,
    .step = script_step,
    .seed = script_seed,
    .job_done = script_job_done,
};
