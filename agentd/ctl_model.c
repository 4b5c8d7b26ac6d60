/* ctl_model.c - agentctl model: looks into model files, converts them, tokenises text. */
#include "agentd/ctl_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "engine/model.h"

/* --- output ------------------------------------------------------------------------------- */

static int print_json(const json_t *v, bool pretty, struct err *err)
{
    struct buf out;
    buf_init(&out, 0);
    int rc = pretty ? json_write_pretty(v, &out, err) : json_write(v, &out, err);
    if (rc == 0 && (fwrite(out.data, 1, out.len, stdout) != out.len || putchar('\n') == EOF))
        rc = err_sys(err, "write to standard output");
    buf_done(&out);
    return rc;
}

/* 1536 -> "1.54 kB", as disks count. */
static const char *bytes_text(uint64_t n, char out[16])
{
    static const char *unit[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)n;
    unsigned u = 0;
    for (; v >= 1000 && u + 1 < ARRAY_LEN(unit); u++)
        v /= 1000;
    snprintf(out, 16, u ? "%.2f %s" : "%.0f %s", v, unit[u]);
    return out;
}

static uint64_t get_u64(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

/* --- info ---------------------------------------------------------------------------------- */

static void print_numbers(const json_t *o)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        if (json_is_string(v))
            printf("  %-22s %s\n", key, json_string_value(v));
        else if (json_is_boolean(v))
            printf("  %-22s %s\n", key, json_is_true(v) ? "yes" : "no");
        else
            printf("  %-22s %.7g\n", key, json_number_value(v));
    }
}

static void print_info(const json_t *i)
{
    char a[16], b[16], c[16], d[16];
    const json_t *tensors = json_object_get(i, "tensors"), *v;
    const json_t *read = json_object_get(i, "bytes_per_token");
    const json_t *params = json_object_get(i, "parameters");
    const json_t *tok = json_object_get(i, "tokenizer");
    size_t k;
    printf("%s  (%s, %s)\n", json_string_value(json_object_get(i, "name")),
           json_string_value(json_object_get(i, "arch")),
           json_string_value(json_object_get(i, "format")));
    printf("rule          %s\n", json_string_value(json_object_get(i, "rule")));
    if (json_string_length(json_object_get(i, "note")))
        printf("note          %s\n", json_string_value(json_object_get(i, "note")));
    printf("fingerprint   %s\n", json_string_value(json_object_get(i, "fingerprint")));
    printf("parameters    %.3f million, %.3f million active per token\n",
           (double)get_u64(params, "total") / 1e6, (double)get_u64(params, "active") / 1e6);
    printf("read/token    %s: %s always, %s of experts\n",
           bytes_text(get_u64(read, "total"), a), bytes_text(get_u64(read, "always"), b),
           bytes_text(get_u64(read, "routed"), c));
    if (json_is_object(tok))
        printf("tokenizer     %s, %" PRIu64 " tokens, %" PRIu64 " merges\n",
               json_string_value(json_object_get(tok, "pre")), get_u64(tok, "tokens"),
               get_u64(tok, "merges"));
    else
        printf("tokenizer     none\n");
    printf("\nnumbers\n");
    print_numbers(json_object_get(i, "numbers"));
    printf("\ntensors       %" PRIu64 ", %s\n", get_u64(tensors, "count"),
           bytes_text(get_u64(tensors, "bytes"), a));
    json_array_foreach(json_object_get(tensors, "by_type"), k, v)
        printf("  %-10s %8" PRIu64 "  %12s\n", json_string_value(json_object_get(v, "type")),
               get_u64(v, "count"), bytes_text(get_u64(v, "bytes"), a));
    if (get_u64(tensors, "unused"))
        printf("  warning: %" PRIu64 " are of no use to this engine, such as '%s'\n",
               get_u64(tensors, "unused"),
               json_string_value(json_object_get(tensors, "first_unused")));
    printf("\n%10s  %12s %12s %12s  %s\n", "context", "cache f32", "cache f16", "cache fp8",
           "weights + f16 cache");
    json_array_foreach(json_object_get(i, "memory"), k, v)
        printf("%10" PRIu64 "  %12s %12s %12s  %s\n", get_u64(v, "context"),
               bytes_text(get_u64(v, "cache_f32"), a), bytes_text(get_u64(v, "cache_f16"), b),
               bytes_text(get_u64(v, "cache_fp8"), c),
               bytes_text(get_u64(v, "weights_and_cache_f16"), d));
}

static void show_check(void *arg, double done)
{
    (void)arg;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rchecked %3.0f %%%s", done * 100, done >= 1 ? "\n" : "");
}

static int ctl_model_info(int argc, char **argv)
{
    bool json = false, check = false;
    const struct opt opts[] = {
        {"json", 0, OPT_FLAG, &json, NULL, "print one JSON object"},
        {"check", 0, OPT_FLAG, &check, NULL, "read every weight; NaN or infinity is an error"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl model info", .args = "MODEL", .opts = opts,
        .n_opts = ARRAY_LEN(opts), .min_args = 1, .max_args = 1,
        .summary = "Show a model's numbers, tensors, and what a token and a context cost.",
        .more = "MODEL is a GGUF file (the first part of a split one) or a folder with\n"
                "config.json and safetensors. Exit codes: 0 fine, 1 the model cannot be used\n"
                "(a sentence on stderr says why), 2 usage.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    json_t *info = NULL;
    int rc = model_info(&info, argv[at], check, show_check, NULL, &err);
    if (rc == 0 && json)
        rc = print_json(info, true, &err);
    else if (rc == 0)
        print_info(info);
    json_decref(info);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}

/* --- convert --------------------------------------------------------------------------------- */

struct meter {
    int64_t start, last; /* ns */
};

/* One line, rewritten on a terminal, every ten seconds elsewhere. */
static void show_progress(void *arg, uint64_t done, uint64_t total, uint64_t resumed)
{
    struct meter *m = arg;
    int64_t now = io_mono_ns();
    bool tty = isatty(STDERR_FILENO);
    if (!m->start)
        m->start = now;
    if (done < total && now - m->last < (tty ? 200000000 : 10000000000))
        return;
    m->last = now;
    double s = (double)(now - m->start) / 1e9;
    double rate = s > 0 ? (double)(done - resumed) / s : 0;
    double left = rate > 0 ? (double)(total - done) / rate : 0;
    char a[16], b[16], c[16];
    fprintf(stderr, "%s%s of %s, %s/s, %.0f s left%s", tty ? "\r\033[K" : "",
            bytes_text(done, a), bytes_text(total, b), bytes_text((uint64_t)rate, c), left,
            !tty || done == total ? "\n" : "");
}

static int read_rules(const struct opt_list *list, struct model_convert_rule *rule,
                      char text[][256], struct err *err)
{
    for (unsigned i = 0; i < list->n; i++) {
        const char *eq = strrchr(list->item[i], '=');
        if (!eq || snprintf(text[i], 256, "%s", list->item[i]) >= 256)
            return err_set(err, ERR_PARSE, "--per-tensor '%s' is not PATTERN=TYPE",
                           list->item[i]);
        text[i][eq - list->item[i]] = '\0';
        rule[i] = (struct model_convert_rule){text[i], eq + 1};
    }
    return 0;
}

/* "q8_0 q4_k ..." for --help. */
static void list_types(char *out, size_t n)
{
    size_t at = 0;
    for (unsigned i = 0; model_type_name(i) && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, " %s", model_type_name(i));
}

static int ctl_model_convert(int argc, char **argv)
{
    bool json = false, quiet = false;
    const char *type = "q8_0", *name = NULL;
    struct opt_list per = {.n = 0};
    char types[256], more[1600], text[OPT_LIST_MAX][256];
    struct model_convert_rule rule[OPT_LIST_MAX];
    const struct opt opts[] = {
        {"type", 't', OPT_STR, &type, "T", "storage type of matrices; default q8_0"},
        {"per-tensor", 0, OPT_LIST, &per, "PATTERN=T",
         "type of matrices whose GGUF name matches; the last match wins"},
        {"name", 0, OPT_STR, &name, "TEXT", "the model's name; default the source's"},
        {"quiet", 'q', OPT_FLAG, &quiet, NULL, "no progress"},
        {"json", 0, OPT_FLAG, &json, NULL, "print what was written as JSON"},
    };
    list_types(types, sizeof types);
    snprintf(more, sizeof more,
             "SRC is a safetensors folder or a GGUF file; DST becomes a GGUF file that\n"
             "llama.cpp reads as well. Vectors, router and index head weights stay f32; rows\n"
             "that are not whole blocks fall back to a type with smaller blocks.\n"
             "The work goes to DST.partial; interrupted, the same command continues it. A DST\n"
             "that exists is replaced when all is written.\n"
             "Types:%s\n"
             "Exit codes: 0 done, 1 failed (a sentence on stderr says why), 2 usage.", types);
    const struct opt_cmd cmd = {
        .name = "agentctl model convert", .args = "SRC DST", .opts = opts, .more = more,
        .n_opts = ARRAY_LEN(opts), .min_args = 2, .max_args = 2,
        .summary = "Write a model as GGUF, in another storage type.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    struct meter meter = {0};
    struct model_convert o = {.src = argv[at], .dst = argv[at + 1], .type = type,
                              .name = name, .rule = rule, .n_rules = per.n,
                              .progress = quiet ? NULL : show_progress, .arg = &meter};
    json_t *info = NULL;
    int rc = read_rules(&per, rule, text, &err);
    if (rc == 0)
        rc = model_convert(&o, &err);
    if (rc == 0 && json) {
        rc = model_info(&info, o.dst, false, NULL, NULL, &err);
        if (rc == 0)
            rc = print_json(info, true, &err);
    }
    json_decref(info);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}

/* --- make-test ------------------------------------------------------------------------------- */

static int ctl_model_make_test(int argc, char **argv)
{
    bool json = false, fp8 = false;
    const char *variant = "tiny-v32";
    int64_t shards = 1;
    const struct opt opts[] = {
        {"variant", 0, OPT_STR, &variant, "NAME",
         "tiny-v32 (default), tiny-glm, tiny-dense or tiny-softmax"},
        {"fp8", 0, OPT_FLAG, &fp8, NULL, "projections as e4m3 with 128x128 scales"},
        {"shards", 0, OPT_INT, &shards, "N", "write N files and an index"},
        {"json", 0, OPT_FLAG, &json, NULL, "print what was written as JSON"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl model make-test", .args = "DIR", .opts = opts,
        .n_opts = ARRAY_LEN(opts), .min_args = 1, .max_args = 1,
        .summary = "Write a deterministic test model whose logits are known numbers.",
        .more = "DIR becomes a checkpoint folder: config.json and safetensors. Every weight is\n"
                "a formula of its name and place. Exit codes: 0 done, 1 failed, 2 usage.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    struct model_make_test o = {.dir = argv[at], .variant = variant, .fp8 = fp8,
                                .n_shards = (unsigned)shards};
    const struct ctl_range range = {"shards", (double)shards, 1, 99};
    if (ctl_ranges(&range, 1) < 0)
        return EXIT_USAGE;
    json_t *info = NULL;
    int rc = model_make_test(&o, &err);
    if (rc == 0 && json) {
        rc = model_info(&info, o.dir, false, NULL, NULL, &err);
        if (rc == 0)
            rc = print_json(info, true, &err);
    }
    json_decref(info);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}

/* --- make-random ----------------------------------------------------------------------------- */

static int ctl_model_make_random(int argc, char **argv)
{
    bool json = false, quiet = false;
    const char *size = "tiny", *arch = "deepseek32", *type = "q8_0";
    int64_t seed = 1;
    const struct opt opts[] = {
        {"size", 0, OPT_STR, &size, "S",
         "tiny (5 million, default), small (0.9 billion) or mid (7.9 billion)"},
        {"arch", 0, OPT_STR, &arch, "A",
         "deepseek32 (default), deepseek2 (dense attention) or glm-dsa"},
        {"type", 't', OPT_STR, &type, "T", "storage type of matrices; default q8_0"},
        {"seed", 0, OPT_INT, &seed, "N", "another seed is another model; default 1"},
        {"quiet", 'q', OPT_FLAG, &quiet, NULL, "no progress"},
        {"json", 0, OPT_FLAG, &json, NULL, "print what was written as JSON"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl model make-random", .args = "FILE", .opts = opts,
        .n_opts = ARRAY_LEN(opts), .min_args = 1, .max_args = 1,
        .summary = "Write a GGUF model of random weights, for measurements.",
        .more = "Head sizes, ranks, groups and rope are DeepSeek-V3.2's. Files of one size and\n"
                "seed share every tensor that their architectures have in common. There is no\n"
                "vocabulary: such a model takes token ids. The work goes to FILE.partial;\n"
                "interrupted, the same command continues it.\n"
                "Exit codes: 0 done, 1 failed, 2 usage.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    if (seed < 0) {
        fprintf(stderr, "agentctl: --seed is a number from 0\n");
        return EXIT_USAGE;
    }
    struct err err = {0};
    struct meter meter = {0};
    const struct model_make_random o = {.dst = argv[at], .size = size, .arch = arch,
                                        .type = type, .seed = (uint64_t)seed,
                                        .progress = quiet ? NULL : show_progress,
                                        .arg = &meter};
    json_t *info = NULL;
    int rc = model_make_random(&o, &err);
    if (rc == 0 && json) {
        rc = model_info(&info, o.dst, false, NULL, NULL, &err);
        if (rc == 0)
            rc = print_json(info, true, &err);
    }
    json_decref(info);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct ctl_command commands[] = {
    {"info", ctl_model_info, "Show a model's numbers, tensors and costs."},
    {"tokenize", ctl_model_tokenize, "Turn text into token ids."},
    {"logits", ctl_model_logits, "Print the logits of a prompt."},
    {"generate", ctl_model_generate, "Continue a prompt."},
    {"convert", ctl_model_convert, "Write a model as GGUF, in another storage type."},
    {"make-test", ctl_model_make_test, "Write a deterministic test model."},
    {"make-random", ctl_model_make_random, "Write a model of random weights, to measure."},
};

int ctl_model(int argc, char **argv)
{
    return ctl_dispatch("agentctl model", commands, ARRAY_LEN(commands), argc, argv);
}
