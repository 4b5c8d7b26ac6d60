/*
 * ctl_model_tokenize.c - agentctl model tokenize: one text, or a batch of JSON lines for data
 * pipelines. A batch line is {"text":..., "special":bool} or {"pieces":[such, ...]}.
 */
#include "agentd/ctl_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include "engine/model.h"

struct ids {
    int32_t *id; /* owned */
    size_t n, cap;
};

static int take(void *arg, int32_t id, struct err *err)
{
    struct ids *l = arg;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        void *p = mem_resize(l->id, cap, sizeof *l->id);
        if (!p)
            return err_nomem(err);
        l->id = p;
        l->cap = cap;
    }
    l->id[l->n++] = id;
    return 0;
}

/* {"ids":[1,2]} without a tree: batches are long. */
static void put_ids(struct buf *out, const struct ids *l)
{
    buf_puts(out, "{\"ids\":[");
    for (size_t i = 0; i < l->n; i++)
        buf_printf(out, i ? ",%" PRId32 : "%" PRId32, l->id[i]);
    buf_puts(out, "]}\n");
}

static int write_out(struct buf *out, struct err *err)
{
    int rc = buf_check(out, "output", err);
    if (rc == 0)
        rc = io_write_full(STDOUT_FILENO, out->data, out->len, err);
    buf_reset(out);
    return rc;
}

/* --- one text -------------------------------------------------------------------------------- */

static int put_detail(struct buf *out, const struct model_tokens *t, const struct ids *l,
                      struct err *err)
{
    json_t *list = json_array(), *pieces = json_array();
    for (size_t i = 0; i < l->n; i++) {
        json_array_append_new(list, json_integer(l->id[i]));
        json_array_append_new(pieces, json_text(model_tokens_bytes(t, l->id[i])));
    }
    json_t *o = json_pack("{s:I, s:o, s:o}", "count", (json_int_t)l->n, "ids", list, "pieces",
                          pieces);
    int rc = o ? json_write(o, out, err) : err_nomem(err);
    buf_putc(out, '\n');
    json_decref(o);
    return rc;
}

static int one_text(struct model_tokens *t, struct str text, bool plain, bool json,
                    struct err *err)
{
    struct ids l = {0};
    struct buf out;
    buf_init(&out, 0);
    int rc = model_tokens_encode(t, text, !plain, take, &l, err);
    if (rc == 0 && json)
        rc = put_detail(&out, t, &l, err);
    for (size_t i = 0; rc == 0 && !json && i < l.n; i++)
        buf_printf(&out, i + 1 < l.n ? "%" PRId32 " " : "%" PRId32 "\n", l.id[i]);
    if (rc == 0)
        rc = write_out(&out, err);
    buf_done(&out);
    mem_free(l.id);
    return rc;
}

/* --- batch ------------------------------------------------------------------------------------ */

static int encode_piece(struct model_tokens *t, const json_t *o, struct ids *l, struct err *err)
{
    struct str text = {0};
    bool special = false;
    int rc = json_need_str(o, "text", &text, err);
    if (rc == 0)
        rc = json_opt_bool(o, "special", &special, err);
    return rc == 0 ? model_tokens_encode(t, text, special, take, l, err) : rc;
}

static int encode_line(struct model_tokens *t, struct str line, struct ids *l, struct err *err)
{
    json_t *o = NULL, *pieces = NULL, *piece;
    size_t i;
    int rc = json_read(&o, line, err);
    if (rc == 0)
        rc = json_opt_arr(o, "pieces", &pieces, err);
    if (rc == 0 && !pieces)
        rc = encode_piece(t, o, l, err);
    json_array_foreach(pieces, i, piece)
    {
        if (rc == 0)
            rc = encode_piece(t, piece, l, err);
    }
    json_decref(o);
    return rc;
}

static int batch(struct model_tokens *t, struct err *err)
{
    enum { FLUSH = 1 << 20 };
    char *line = NULL;
    size_t cap = 0, at = 0;
    struct ids l = {0};
    struct buf out;
    buf_init(&out, 0);
    int rc = 0;
    for (ssize_t n; rc == 0 && (n = getline(&line, &cap, stdin)) > 0;) {
        struct str s = str_trim(str_of(line, (size_t)n));
        at++;
        if (!s.n)
            continue;
        l.n = 0;
        rc = encode_line(t, s, &l, err);
        if (rc < 0)
            err_prefix(err, "standard input, line %zu", at);
        put_ids(&out, &l);
        if (rc == 0 && out.len >= FLUSH)
            rc = write_out(&out, err);
    }
    if (rc == 0)
        rc = write_out(&out, err);
    buf_done(&out);
    mem_free(l.id);
    free(line);
    return rc;
}

/* --- the command ------------------------------------------------------------------------------ */

/* The file's text, or all of standard input for "-". */
static int read_text(const char *file, struct buf *b, struct err *err)
{
    return strcmp(file, "-") == 0 ? io_read_all(STDIN_FILENO, b, err)
                                  : io_read_file(file, b, err);
}

int ctl_model_tokenize(int argc, char **argv)
{
    bool plain = false, json = false, is_batch = false;
    const char *file = NULL;
    const struct opt opts[] = {
        {"plain", 0, OPT_FLAG, &plain, NULL, "literals of special tokens are ordinary text"},
        {"file", 'f', OPT_STR, &file, "F", "read the text from a file; - is standard input"},
        {"batch", 0, OPT_FLAG, &is_batch, NULL, "JSON lines in, JSON lines out"},
        {"json", 0, OPT_FLAG, &json, NULL, "print ids and pieces as JSON"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl model tokenize", .args = "MODEL [TEXT]", .opts = opts,
        .n_opts = ARRAY_LEN(opts), .min_args = 1, .max_args = 2,
        .summary = "Turn text into token ids.",
        .more = "MODEL is a GGUF file, a folder with tokenizer.json, or a tokenizer.json.\n"
                "Without TEXT, standard input is the text. What comes from outside belongs behind\n"
                "--plain. With --batch each line\n"
                "of standard input is {\"text\":\"..\",\"special\":false} or\n"
                "{\"pieces\":[{\"text\":\"..\",\"special\":true}, ..]}; the answer to each\n"
                "is {\"ids\":[..]}.\n"
                "Exit codes: 0 done, 1 failed (a sentence on stderr says why), 2 usage.",
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    const char *text = at + 1 < argc ? argv[at + 1] : NULL;
    if (!text && !file && !is_batch && !isatty(STDIN_FILENO))
        file = "-";
    if ((text != NULL) + (file != NULL) + is_batch != 1) {
        fprintf(stderr, "%s: give one of TEXT, --file and --batch\n", cmd.name);
        return EXIT_USAGE;
    }
    struct err err = {0};
    struct buf b;
    struct model_tokens *t = NULL;
    buf_init(&b, LIMIT_JSON_BYTES);
    int rc = model_tokens_open(&t, argv[at], &err);
    if (rc == 0 && file)
        rc = read_text(file, &b, &err);
    if (rc == 0 && is_batch)
        rc = batch(t, &err);
    else if (rc == 0)
        rc = one_text(t, file ? buf_view(&b) : str_c(text), plain, json, &err);
    buf_done(&b);
    model_tokens_close(t);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}
