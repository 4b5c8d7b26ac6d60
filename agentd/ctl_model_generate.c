/*
 * ctl_model_generate.c - agentctl model generate: text after a prompt, without daemon,
 * tools or turns. What it prints is what the model wrote, nothing else.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_model.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include "engine/model.h"

struct generate {
    struct engine *e;
    struct engine_seq *s;
    struct engine_tokens prompt;
    struct sample_opts sample;
    struct sample_rng rng;
    uint32_t max_new;
    bool drafts, quiet; /* quiet: text goes into the JSON alone */
    bool past_eos;
    int32_t *out; /* owned; max_new + 1 */
    uint32_t n_out;
    struct buf text;
    size_t shown;
    int64_t t_prefill, t_decode; /* ns */
    const char *why;
};

/* Whole characters as they come; a cut one waits. */
static void show(struct generate *g, bool last)
{
    struct str all = buf_view(&g->text), rest = str_sub(all, g->shown, all.n);
    size_t n = last ? rest.n : utf8_complete(rest);
    if (!g->quiet) {
        fwrite(rest.p, 1, n, stdout);
        fflush(stdout);
    }
    g->shown += n;
}

/* Takes one id into the output; false when the text ends with it. */
static bool take(struct generate *g, int32_t id)
{
    const struct engine_info *info = engine_info(g->e);
    for (uint32_t i = 0; !g->past_eos && i < info->n_ends; i++)
        if (id == info->end[i]) {
            g->why = "eos";
            return false;
        }
    g->out[g->n_out++] = id;
    buf_str(&g->text, engine_token_bytes(g->e, id));
    show(g, false);
    if (g->n_out < g->max_new)
        return true;
    g->why = "length";
    return false;
}

static int prefill(struct generate *g, const float **logits, struct err *err)
{
    uint32_t batch = engine_info(g->e)->max_batch;
    for (uint32_t at = 0; at < g->prompt.n; at += batch) {
        uint32_t m = g->prompt.n - at < batch ? g->prompt.n - at : batch;
        struct engine_work w = {.seq = g->s,
                                .tok = g->prompt.id + at,
                                .n = m,
                                .n_logits = at + m == g->prompt.n};
        int rc = engine_step(g->e, &w, 1, err);
        if (rc < 0)
            return rc;
        *logits = w.logits;
    }
    return 0;
}

static int decode(struct generate *g, const float *logits, struct err *err)
{
    struct sample_result r;
    uint32_t n_ctx = engine_info(g->e)->n_ctx;
    int rc = engine_sample(g->e, logits, &g->sample, &g->rng, &r, err);
    if (rc < 0)
        return rc;
    struct engine_speech p = {.seq = g->s, .opts = &g->sample, .rng = &g->rng,
                              .stop = g->past_eos ? -1 : engine_info(g->e)->eos,
                              .last = r.id};
    bool more = take(g, r.id);
    while (more) {
        if (engine_seq_len(g->s) == n_ctx) {
            g->why = "context";
            return 0;
        }
        rc = engine_speak(g->e, &p, err);
        if (rc < 0)
            return rc;
        for (uint32_t i = 0; more && i < p.n; i++)
            more = take(g, p.out[i].id);
        p.last = p.out[p.n - 1].id;
    }
    return 0;
}

static int generate(struct generate *g, struct err *err)
{
    const float *logits = NULL;
    int64_t t0 = io_mono_ns();
    int rc = prefill(g, &logits, err);
    int64_t t1 = io_mono_ns();
    if (rc == 0)
        rc = decode(g, logits, err);
    g->t_prefill = t1 - t0;
    g->t_decode = io_mono_ns() - t1;
    show(g, true);
    return rc < 0 ? rc : buf_check(&g->text, "generated text", err);
}

static json_t *draft_figures(const struct engine *e)
{
    struct engine_pace p;
    engine_pace(e, &p);
    return json_pack("{s:I, s:I, s:I, s:f, s:f, s:b}", "made", (json_int_t)p.n_pairs, "kept",
                     (json_int_t)p.n_kept, "plain_steps", (json_int_t)p.n_plain,
                     "plain_step_seconds", p.plain_seconds, "drafted_step_seconds",
                     p.pair_seconds, "drafting", p.drafting);
}

static json_t *weight_figures(const struct engine *e)
{
    struct engine_memory m;
    engine_memory(e, &m);
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I}", "streaming", m.streaming, "bytes",
                     (json_int_t)m.weight_bytes, "core_bytes", (json_int_t)m.core_bytes,
                     "pinned_bytes", (json_int_t)m.pinned_bytes, "expert_bytes_wanted",
                     (json_int_t)m.wanted_bytes, "expert_bytes_present",
                     (json_int_t)m.present_bytes);
}

static int report(const struct generate *g, struct err *err)
{
    struct buf b;
    json_t *ids = json_array();
    for (uint32_t i = 0; i < g->n_out; i++)
        json_array_append_new(ids, json_integer(g->out[i]));
    double pre = (double)g->t_prefill / 1e9, dec = (double)g->t_decode / 1e9;
    json_t *o = json_pack("{s:o, s:o, s:s, s:i, s:i, s:f, s:f, s:f}", "text",
                          json_text(buf_view(&g->text)), "tokens", ids, "stop", g->why,
                          "prompt_tokens", (int)g->prompt.n, "generated", (int)g->n_out,
                          "prefill_seconds", pre, "decode_seconds", dec,
                          "tokens_per_second", dec > 0 ? g->n_out / dec : 0.0);
    if (o && g->drafts)
        json_object_set_new(o, "drafts", draft_figures(g->e));
    if (o)
        json_object_set_new(o, "weights", weight_figures(g->e));
    buf_init(&b, 0);
    int rc = o ? json_write(o, &b, err) : err_nomem(err);
    if (rc == 0 && puts(buf_cstr(&b)) < 0)
        rc = err_sys(err, "write to standard output");
    buf_done(&b);
    json_decref(o);
    return rc;
}

static int read_prompt(struct generate *g, const char *file, const char *tokens,
                       bool special, struct err *err)
{
    if (tokens)
        return ctl_parse_ids(tokens, &g->prompt.id, &g->prompt.n, err);
    struct buf b;
    buf_init(&b, LIMIT_LINE_BYTES);
    int rc = strcmp(file, "-") == 0 ? io_read_all(STDIN_FILENO, &b, err)
                                    : io_read_file(file, &b, err);
    if (rc == 0)
        rc = engine_tokenize(g->e, buf_view(&b), special, &g->prompt, err);
    if (rc == 0 && g->prompt.n == 0)
        rc = err_set(err, ERR_PARSE, "the prompt is empty");
    buf_done(&b);
    return rc;
}

static int open_and_run(struct generate *g, const struct engine_opts *o, const char *file,
                        const char *tokens, bool special, struct err *err)
{
    buf_init(&g->text, 0);
    int rc = engine_open(&g->e, o, err);
    if (rc == 0)
        rc = read_prompt(g, file, tokens, special, err);
    if (rc == 0 && !(g->out = mem_array(g->max_new + 1, sizeof *g->out)))
        rc = err_nomem(err);
    if (rc == 0)
        rc = engine_seq_new(&g->s, g->e, err);
    if (rc == 0) {
        rc = generate(g, err);
    }
    if (rc == 0 && g->quiet)
        rc = report(g, err);
    else if (rc == 0)
        putchar('\n');
    engine_seq_free(g->s);
    engine_close(g->e);
    engine_tokens_done(&g->prompt);
    mem_free(g->out);
    buf_done(&g->text);
    return rc;
}

int ctl_model_generate(int argc, char **argv)
{
    const char *file = NULL, *tokens = NULL, *cache = "auto";
    int64_t n = 256, threads = 0, seed = 0, top_k = 0, ctx = 0;
    int64_t memory = 0;
    double temperature = 0, top_p = 1, min_p = 0;
    bool special = false, drafts = false, always = false, json = false, on = false;
    const struct opt opts[] = {
        {"prompt-file", 'f', OPT_STR, &file, "FILE", "the prompt; - is standard input"},
        {"tokens", 't', OPT_STR, &tokens, "IDS", "the prompt as ids, instead: 1,2,3"},
        {"special", 0, OPT_FLAG, &special, NULL,
         "literals of special tokens count as such"},
        {"count", 'n', OPT_INT, &n, "N", "tokens at most (default 256)"},
        {"past-eos", 0, OPT_FLAG, &on, NULL, "do not stop at the tokens that end a text"},
        {"temperature", 0, OPT_NUM, &temperature, "T", "0 is greedy (default)"},
        {"top-p", 0, OPT_NUM, &top_p, "P", "keep this much probability (default 1)"},
        {"min-p", 0, OPT_NUM, &min_p, "P", "drop what is below P times the best"},
        {"top-k", 0, OPT_INT, &top_k, "K", "keep the K best"},
        {"seed", 0, OPT_INT, &seed, "N", "of the draws (default 0)"},
        {"drafts", 0, OPT_FLAG, &drafts, NULL,
         "guess ahead with the MTP layer while it pays; same output"},
        {"drafts-always", 0, OPT_FLAG, &always, NULL, "guess ahead at every token"},
        {"cache", 0, OPT_STR, &cache, "TYPE",
         "KV storage: auto (default), f32, f16, bf16, fp8, f16-i8, bf16-i8"},
        {"context", 0, OPT_INT, &ctx, "N", "positions (default: the model's)"},
        {"threads", 0, OPT_INT, &threads, "N", "default: every core"},
        {"memory", 0, OPT_INT, &memory, "MIB", "for weights; a larger model's experts are read "
         "from disk (default: what is available)"},
        {"json", 0, OPT_FLAG, &json, NULL, "print one JSON object at the end"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl model generate",
        .args = "MODEL",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
        .summary = "Continue a prompt.",
        .more = "Exit codes: 0 fine, 1 a sentence on stderr says why not, 2 usage.",
    };
    int code, c, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    const struct ctl_range ranges[] = {
        {"count", (double)n, 1, 1 << 24},      {"threads", (double)threads, 0, 256},
        {"top-k", (double)top_k, 0, 1 << 24},  {"context", (double)ctx, 0, 1 << 24},
        {"memory", (double)memory, 0, 1 << 24}, {"temperature", temperature, 0, 100},
        {"top-p", top_p, 0, 1},                {"min-p", min_p, 0, 1},
    };
    if (!file == !tokens) {
        fprintf(stderr, "agentctl: give --prompt-file or --tokens, one of them; see --help\n");
        return EXIT_USAGE;
    }
    if (ctl_choose(ctl_cache_choices, "cache", cache, &c) < 0 ||
        ctl_ranges(ranges, ARRAY_LEN(ranges)) < 0)
        return EXIT_USAGE;
    struct engine_opts o = {.path = argv[at],
                            .n_threads = (uint32_t)threads,
                            .mtp = drafts || always,
                            .drafts = always ? ENGINE_DRAFTS_ALWAYS : ENGINE_DRAFTS_AUTO,
                            .n_ctx = (uint32_t)ctx,
                            .memory = (uint64_t)memory << 20,
                            .cache = (enum engine_cache)c};
    struct generate g = {.max_new = (uint32_t)n,
                         .drafts = drafts || always,
                         .quiet = json,
                         .past_eos = on,
                         .why = "length"};
    g.sample = (struct sample_opts){.temperature = (float)temperature,
                                    .top_p = (float)top_p,
                                    .min_p = (float)min_p,
                                    .top_k = (uint32_t)top_k};
    sample_seed(&g.rng, (uint64_t)seed);
    struct err err = {0};
    return open_and_run(&g, &o, file, tokens, special, &err) < 0 ? ctl_fail(&err)
                                                                 : EXIT_OK;
}
