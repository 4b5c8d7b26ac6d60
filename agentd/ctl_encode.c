/*
 * ctl_encode.c - agentctl encode and agentctl parse: the message format alone, without daemon
 * or model. One object in, one object out; with --batch one per line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/dsml.h"
#include "agentd/jsontext.h"
#include "agentd/prompt.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/io.h"
#include "base/limits.h"

/* Appends one line of answer for one object; false when that line reports an error. */
typedef bool answer_fn(struct str json, bool pieces, struct buf *out, struct err *err);

static bool answer_error(struct buf *out, const char *code)
{
    buf_puts(out, "{\"error\": ");
    jsontext_quote(out, str_c(code));
    buf_puts(out, "}");
    return false;
}

static void write_pieces(struct buf *out, const struct prompt *p, const struct prompt_msg *msg)
{
    buf_puts(out, "{\"pieces\": [");
    for (uint32_t i = 0; i < p->n_pieces; i++) {
        const struct prompt_piece *x = &p->piece[i];
        buf_puts(out, i ? ", {\"text\": " : "{\"text\": ");
        jsontext_quote(out, prompt_piece_text(p, i));
        buf_printf(out, ", \"special\": %s, \"message\": %u, \"role\": \"%s\"}",
                   x->special ? "true" : "false", x->msg, prompt_role_name(msg[x->msg].role));
    }
    buf_puts(out, "]}");
}

static bool encode(struct str json, bool pieces, struct buf *out, struct err *err)
{
    struct prompt_request r;
    struct prompt p = {0};
    int rc = prompt_read(&r, json, err);
    enum prompt_code code = r.code;
    if (rc == 0) {
        rc = prompt_render(&p, r.msg, r.n, &r.opts, err);
        code = p.code;
    }
    if (rc < 0) {
        answer_error(out, code == PROMPT_OK ? err_name(-rc) : prompt_code_name(code));
    } else if (pieces) {
        write_pieces(out, &p, r.msg);
    } else {
        buf_puts(out, "{\"prompt\": ");
        jsontext_quote(out, buf_view(&p.text));
        buf_puts(out, "}");
    }
    prompt_done(&p);
    prompt_request_done(&r);
    return rc == 0;
}

static void write_message(struct buf *out, const struct dsml_message *m)
{
    buf_puts(out, "{\"message\": {\"role\": \"assistant\", \"content\": ");
    jsontext_quote(out, m->content);
    buf_puts(out, ", \"reasoning_content\": ");
    jsontext_quote(out, m->reasoning);
    buf_puts(out, ", \"tool_calls\": [");
    for (uint32_t i = 0; i < m->n_calls; i++) {
        buf_puts(out, i ? ", " : "");
        buf_puts(out, "{\"type\": \"function\", \"function\": {\"name\": ");
        jsontext_quote(out, m->calls[i].name);
        buf_puts(out, ", \"arguments\": ");
        jsontext_quote(out, m->calls[i].arguments);
        buf_puts(out, "}}");
    }
    buf_puts(out, "]}}");
}

static int parse_completion(struct str root, struct dsml_message *m, struct buf *text,
                            const char **code, struct err *err)
{
    struct str mode = jsontext_get(root, "thinking_mode");
    struct str quoted = jsontext_get(root, "text");
    *code = "bad_input";
    if (!str_is(mode, "\"thinking\"") && !str_is(mode, "\"chat\"")) {
        *code = "bad_thinking_mode";
        return err_set(err, ERR_PARSE, "thinking_mode must be \"thinking\" or \"chat\"");
    }
    if (jsontext_kind(quoted) != JSONTEXT_STRING)
        return err_set(err, ERR_PARSE, "expected an object with the string \"text\"");
    jsontext_unquote(text, quoted);
    int rc = buf_check(text, "text", err);
    if (rc == 0)
        rc = dsml_parse(m, buf_view(text), str_is(mode, "\"thinking\""), err);
    if (rc < 0)
        *code = m->code ? dsml_code_name(m->code) : err_name(-rc);
    return rc;
}

static bool parse(struct str json, bool pieces, struct buf *out, struct err *err)
{
    (void)pieces;
    struct buf canonical, text;
    struct dsml_message m = {0};
    const char *code = "bad_input";
    buf_init(&canonical, 0);
    buf_init(&text, 0);
    int rc = jsontext_rewrite(&canonical, json, err);
    if (rc == 0)
        rc = parse_completion(buf_view(&canonical), &m, &text, &code, err);
    if (rc == 0)
        write_message(out, &m);
    else
        answer_error(out, code);
    dsml_message_done(&m);
    buf_done(&canonical);
    buf_done(&text);
    return rc == 0;
}

/* --- reading and writing -------------------------------------------------------------- */

static int open_input(const char *path, struct err *err)
{
    if (!strcmp(path, "-"))
        return STDIN_FILENO;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? err_sys(err, "open '%s'", path) : fd;
}

static int answer_one(int fd, answer_fn *answer, bool pieces, struct err *err)
{
    struct buf in, out;
    buf_init(&in, LIMIT_JSON_BYTES);
    buf_init(&out, 0);
    int rc = io_read_all(fd, &in, err), code = EXIT_FAIL;
    if (rc == 0) {
        struct err why = {0};
        bool ok = answer(buf_view(&in), pieces, &out, &why);
        buf_putc(&out, '\n');
        if (!ok)
            fprintf(stderr, "agentctl: %s\n", why.text);
        rc = buf_check(&out, "answer", err);
        code = ok ? EXIT_OK : EXIT_FAIL;
    }
    if (rc == 0)
        rc = io_write_full(STDOUT_FILENO, out.data, out.len, err);
    buf_done(&in);
    buf_done(&out);
    return rc < 0 ? ctl_fail(err) : code;
}

/* Line by line, so that a pipeline of any length runs in the memory of one line. */
static int answer_lines(FILE *in, answer_fn *answer, bool pieces, struct err *err)
{
    char *line = NULL; /* getline's; libc frees what libc grows */
    size_t cap = 0;
    ssize_t n;
    int code = EXIT_OK, rc = 0;
    struct buf out;
    buf_init(&out, 0);
    while (rc == 0 && (n = getline(&line, &cap, in)) > 0) {
        struct str json = str_trim(str_of(line, (size_t)n));
        if (!json.n)
            continue;
        struct err why = {0};
        buf_reset(&out);
        if (!answer(json, pieces, &out, &why))
            code = EXIT_FAIL;
        buf_putc(&out, '\n');
        rc = buf_check(&out, "answer", err);
        if (rc == 0 && fwrite(out.data, 1, out.len, stdout) != out.len)
            rc = err_sys(err, "write to stdout");
    }
    if (rc == 0 && (ferror(in) || fflush(stdout) != 0))
        rc = err_sys(err, ferror(in) ? "read" : "write to stdout");
    buf_done(&out);
    free(line);
    return rc < 0 ? ctl_fail(err) : code;
}

static int run(const char *path, answer_fn *answer, bool batch, bool pieces)
{
    struct err err = {0};
    int fd = open_input(path, &err);
    if (fd < 0)
        return ctl_fail(&err);
    if (!batch) {
        int code = answer_one(fd, answer, pieces, &err);
        if (fd != STDIN_FILENO)
            io_close(&fd);
        return code;
    }
    FILE *in = fdopen(fd, "r");
    if (!in) {
        err_sys(&err, "open '%s'", path);
        io_close(&fd);
        return ctl_fail(&err);
    }
    int code = answer_lines(in, answer, pieces, &err);
    fclose(in);
    return code;
}

int ctl_encode(int argc, char **argv)
{
    bool batch = false, pieces = false, json = false;
    const struct opt opts[] = {
        {"batch", 'b', OPT_FLAG, &batch, NULL, "One object per line in, one per line out."},
        {"pieces", 'p', OPT_FLAG, &pieces, NULL,
         "Print the pieces to tokenise instead of the whole prompt."},
        {"json", 'j', OPT_FLAG, &json, NULL, "Accepted; the output is JSON in any case."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl encode",
        .args = "FILE|-",
        .summary = "Render messages to the exact prompt of the model.",
        .more = "Input: {\"messages\": [...], \"context\": [...], \"options\": {\"thinking_mode\": "
                "\"thinking\"|\"chat\",\n\"add_default_bos_token\": true, \"keep\": "
                "\"v32\"|\"keep_all\"|\"none\"}}; context and options are optional.\n"
                "Output: {\"prompt\": TEXT} or {\"error\": CODE}. With --pieces: {\"pieces\": "
                "[{\"text\", \"special\",\n\"message\", \"role\"}, ...]}: tokenise special ones "
                "with special tokens on, others with them off.\n"
                "Exit: 0 rendered; 1 not (with --batch: at least one line was not); 2 usage.\n",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
    };
    int code, first = opt_parse(&cmd, argc, argv, false, &code);
    return first < 0 ? code : run(argv[first], encode, batch, pieces);
}

int ctl_parse(int argc, char **argv)
{
    bool batch = false, json = false;
    const struct opt opts[] = {
        {"batch", 'b', OPT_FLAG, &batch, NULL, "One object per line in, one per line out."},
        {"json", 'j', OPT_FLAG, &json, NULL, "Accepted; the output is JSON in any case."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl parse",
        .args = "FILE|-",
        .summary = "Read a completion back into a message, strictly.",
        .more = "Input: {\"thinking_mode\": \"thinking\"|\"chat\", \"text\": COMPLETION}.\n"
                "Output: {\"message\": {...}} or {\"error\": CODE}.\n"
                "Exit: 0 read; 1 not (with --batch: at least one line was not); 2 usage.\n",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
    };
    int code, first = opt_parse(&cmd, argc, argv, false, &code);
    return first < 0 ? code : run(argv[first], parse, batch, false);
}
