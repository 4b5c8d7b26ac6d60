/*
 * ctl_model_logits.c - agentctl model logits: one forward pass over given ids, printed
 * whole: for comparing this engine with another, bit by bit where need be.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/ctl.h"
#include "agentd/ctl_model.h"
#include "base/buf.h"
#include "base/mem.h"
#include "engine/model.h"

const struct ctl_choice ctl_cache_choices[] = {
    {"auto", ENGINE_CACHE_AUTO}, {"f32", ENGINE_CACHE_F32}, {"f16", ENGINE_CACHE_F16},
    {"bf16", ENGINE_CACHE_BF16}, {"fp8", ENGINE_CACHE_FP8},
    {"f16-i8", ENGINE_CACHE_F16_I8}, {"bf16-i8", ENGINE_CACHE_BF16_I8}, {NULL, 0},
};
static const struct ctl_choice form_choices[] = {
    {"auto", ENGINE_FORM_AUTO},
    {"mha", ENGINE_FORM_MHA},
    {"mqa", ENGINE_FORM_MQA},
    {NULL, 0},
};
static const struct ctl_choice select_choices[] = {
    {"indexer", ENGINE_SELECT_INDEXER},
    {"dense", ENGINE_SELECT_DENSE},
    {"recent", ENGINE_SELECT_RECENT},
    {NULL, 0},
};

int ctl_choose(const struct ctl_choice *c, const char *option, const char *text, int *out)
{
    for (; c->name; c++)
        if (strcmp(c->name, text) == 0) {
            *out = c->value;
            return 0;
        }
    fprintf(stderr, "agentctl: --%s does not know '%s'; see --help\n", option, text);
    return -1;
}

int ctl_ranges(const struct ctl_range *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!(r[i].value >= r[i].lo && r[i].value <= r[i].hi)) {
            fprintf(stderr, "agentctl: --%s goes from %.0f to %.0f, not %.10g; see --help\n",
                    r[i].option, r[i].lo, r[i].hi, r[i].value);
            return -1;
        }
    return 0;
}

/* "1,2,3" into ids (owned). */
int ctl_parse_ids(const char *text, int32_t **ids, uint32_t *n, struct err *err)
{
    struct str rest = str_c(text), piece;
    uint32_t cap = 0;
    *ids = NULL;
    *n = 0;
    if (rest.n == 0)
        return err_set(err, ERR_PARSE, "no token ids: write --tokens 1,2,3");
    while (str_split(&rest, ',', &piece)) {
        int64_t v;
        if (!str_to_i64(str_trim(piece), &v) || v < 0 || v > INT32_MAX)
            return err_set(err, ERR_PARSE, "'%.*s' is not a token id: write 1,2,3",
                           STR_ARG(piece));
        if (*n == cap) {
            cap = cap ? cap * 2 : 256;
            int32_t *grown = mem_resize(*ids, cap, sizeof *grown);
            if (!grown)
                return err_nomem(err);
            *ids = grown;
        }
        (*ids)[(*n)++] = (int32_t)v;
    }
    return 0;
}

/* One run of the command. */
struct logits_run {
    struct engine *e;
    const int32_t *tok;
    uint32_t n, chunk, n_vocab;
    bool all, mtp, watch;
    FILE *raw; /* NULL = into the JSON */
    struct buf selected;
    bool started, first; /* the head is printed; no row of this list is yet */
};

static void put_positions(uint32_t first, uint32_t n)
{
    printf("\"positions\": [");
    for (uint32_t i = first; i < n; i++)
        printf(i > first ? ", %u" : "%u", i);
    printf("]");
}

/* Before the first row, so that a run which fails before it prints nothing. */
static void put_head(struct logits_run *r)
{
    if (r->started)
        return;
    r->started = true;
    putchar('{');
    put_positions(r->all ? 0 : r->n - 1, r->n);
    printf(r->raw ? ", \"n_vocab\": %u" : ", \"logits\": [", r->n_vocab);
}

static int put_row(struct logits_run *r, const float *logits, struct err *err)
{
    put_head(r);
    if (r->raw) {
        if (fwrite(logits, sizeof *logits, r->n_vocab, r->raw) != r->n_vocab)
            return err_sys(err, "write logits");
        return 0;
    }
    printf("%s[", r->first ? "" : ", ");
    r->first = false;
    for (uint32_t i = 0; i < r->n_vocab; i++)
        printf(i ? ", %.9g" : "%.9g", (double)logits[i]);
    putchar(']');
    return 0;
}

static void put_selected(void *arg, const struct model_selected *s)
{
    struct logits_run *r = arg;
    if (!r->all && s->pos != r->n - 1)
        return;
    struct buf *b = &r->selected;
    buf_printf(b, "%s{\"layer\": %u, \"pos\": %u, \"set\": [", b->len ? ", " : "",
               s->layer, s->pos);
    for (uint32_t i = 0; i < s->n_set; i++)
        buf_printf(b, i ? ", %u" : "%u", s->set[i]);
    buf_puts(b, "], \"scores\": [");
    for (uint32_t i = 0; i <= s->pos; i++)
        buf_printf(b, i ? ", %.9g" : "%.9g", (double)s->scores[i]);
    buf_puts(b, "]}");
}

static int main_rows(struct logits_run *r, struct err *err)
{
    struct engine_seq *s = NULL;
    int rc = engine_seq_new(&s, r->e, err);
    for (uint32_t at = 0; rc == 0 && at < r->n; at += r->chunk) {
        uint32_t m = r->n - at < r->chunk ? r->n - at : r->chunk;
        struct engine_work w = {.seq = s, .tok = r->tok + at, .n = m};
        w.n_logits = r->all ? m : at + m == r->n;
        rc = engine_step(r->e, &w, 1, err);
        for (uint32_t i = 0; rc == 0 && i < w.n_logits; i++)
            rc = put_row(r, w.logits + (size_t)i * r->n_vocab, err);
    }
    engine_seq_free(s);
    return rc;
}

static int mtp_row(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    struct logits_run *r = arg;
    return r->all || pos + 2 == r->n ? put_row(r, logits, err) : 0;
}

/* What fails midway leaves the JSON open: nobody takes it for whole. */
static int run(struct logits_run *r, struct err *err)
{
    r->first = true;
    int rc = main_rows(r, err);
    model_watch_selection(r->e, NULL, NULL);
    if (rc == 0)
        rc = buf_check(&r->selected, "the selections", err);
    if (rc == 0 && !r->raw)
        putchar(']');
    if (rc == 0 && r->watch)
        printf(", \"selected\": [%s]", buf_cstr(&r->selected));
    if (rc == 0 && r->mtp) {
        printf(", \"mtp\": {");
        put_positions(r->all || r->n < 2 ? 0 : r->n - 2, r->n - 1);
        printf("%s", r->raw ? "" : ", \"logits\": [");
        r->first = true;
        rc = model_mtp_logits(r->e, r->tok, r->n, mtp_row, r, err);
        if (rc == 0)
            printf("%s", r->raw ? "}" : "]}");
    }
    if (rc == 0)
        puts("}");
    if (rc == 0 && fflush(stdout) != 0)
        rc = err_sys(err, "write to standard output");
    return rc;
}

static int open_and_run(struct logits_run *r, struct engine_opts *o, const char *tokens,
                        bool selected, const char *raw, struct err *err)
{
    int32_t *ids;
    int rc = ctl_parse_ids(tokens, &ids, &r->n, err);
    r->tok = ids;
    r->chunk = r->chunk ? r->chunk : r->n < 512 ? r->n : 512;
    o->max_batch = r->chunk;
    if (rc == 0)
        rc = engine_open(&r->e, o, err);
    if (rc == 0 && raw && !(r->raw = fopen(raw, "wbe")))
        rc = err_sys(err, "create '%s'", raw);
    if (rc == 0) {
        r->n_vocab = engine_info(r->e)->n_vocab;
        r->watch = selected;
        if (selected)
            model_watch_selection(r->e, put_selected, r);
        rc = run(r, err);
    }
    if (r->raw && fclose(r->raw) != 0 && rc == 0)
        rc = err_sys(err, "write '%s'", raw);
    engine_close(r->e);
    buf_done(&r->selected);
    mem_free(ids);
    return rc;
}

int ctl_model_logits(int argc, char **argv)
{
    const char *tokens = "", *cache = "f32", *form = "auto", *select = "indexer",
               *raw = NULL;
    int64_t chunk = 0, threads = 0;
    bool all = false, selected = false, mtp = false, json = true, faithful = false;
    const struct opt opts[] = {
        {"tokens", 't', OPT_STR, &tokens, "IDS", "the prompt, as ids: 1,2,3"},
        {"all", 'a', OPT_FLAG, &all, NULL, "every position; without it the last"},
        {"cache", 0, OPT_STR, &cache, "TYPE",
         "KV storage: f32 (default), f16, bf16, fp8, f16-i8, bf16-i8"},
        {"form", 0, OPT_STR, &form, "FORM", "attention: mha, mqa, auto (default)"},
        {"select", 0, OPT_STR, &select, "HOW",
         "indexer (default); dense and recent to compare"},
        {"chunk", 'c', OPT_INT, &chunk, "N", "positions per step (default: up to 512)"},
        {"threads", 0, OPT_INT, &threads, "N", "default: every core"},
        {"selected", 's', OPT_FLAG, &selected, NULL,
         "print selected positions and scores"},
        {"mtp", 0, OPT_FLAG, &mtp, NULL, "print the draft layer's rows as well"},
        {"faithful-fp8", 0, OPT_FLAG, &faithful, NULL,
         "round latents as the reference does"},
        {"raw", 0, OPT_STR, &raw, "FILE",
         "write rows as f32 little-endian into FILE instead"},
        {"json", 0, OPT_FLAG, &json, NULL, "print JSON; it always does"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl model logits",
        .args = "MODEL",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
        .summary = "Print the logits of a prompt.",
        .more = "Prints {\"positions\": [..], \"logits\": [[..]]}; --selected adds "
                "\"selected\":\n"
                "[{\"layer\", \"pos\", \"set\", \"scores\"}], --mtp adds \"mtp\": "
                "{\"positions\",\n"
                "\"logits\"}. With --raw the rows (draft rows last) go to FILE.\n"
                "Exit codes: 0 fine, 1 a sentence on stderr says why not, 2 usage.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    int c, fo, se;
    if (ctl_choose(ctl_cache_choices, "cache", cache, &c) < 0 ||
        ctl_choose(form_choices, "form", form, &fo) < 0 ||
        ctl_choose(select_choices, "select", select, &se) < 0)
        return EXIT_USAGE;
    const struct ctl_range ranges[] = {
        {"chunk", (double)chunk, 0, 65536},
        {"threads", (double)threads, 0, 256},
    };
    if (ctl_ranges(ranges, ARRAY_LEN(ranges)) < 0)
        return EXIT_USAGE;
    struct engine_opts o = {.path = argv[at],
                            .n_threads = (uint32_t)threads,
                            .mtp = mtp,
                            .cache = (enum engine_cache)c,
                            .form = (enum engine_form)fo,
                            .select = (enum engine_select)se,
                            .faithful_fp8 = faithful};
    struct logits_run r = {.all = all, .mtp = mtp, .chunk = (uint32_t)chunk};
    struct err err = {0};
    buf_init(&r.selected, 0);
    return open_and_run(&r, &o, tokens, selected, raw, &err) < 0 ? ctl_fail(&err)
                                                                 : EXIT_OK;
}
