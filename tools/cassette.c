/* cassette.c - the file is read through for each request: cassettes are small and used by
 * tests and evaluations, not by people who wait. */
#include "tools/cassette.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void encode(struct str s, struct buf *out)
{
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;
        if (i + 1 < s.n)
            v |= (uint32_t)(unsigned char)s.p[i + 1] << 8;
        if (i + 2 < s.n)
            v |= (unsigned char)s.p[i + 2];
        buf_putc(out, digits[v >> 18]);
        buf_putc(out, digits[v >> 12 & 63]);
        buf_putc(out, i + 1 < s.n ? digits[v >> 6 & 63] : '=');
        buf_putc(out, i + 2 < s.n ? digits[v & 63] : '=');
    }
}

/* Stops at the first byte that is no digit; what was whole until then is kept. */
static void decode(struct str s, struct buf *out)
{
    uint32_t v = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < s.n; i++) {
        const char *d = s.p[i] ? strchr(digits, s.p[i]) : NULL;
        if (!d)
            return;
        v = v << 6 | (uint32_t)(d - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            buf_putc(out, (char)(v >> bits & 0xff));
        }
    }
}

static int take(const json_t *o, struct http_reply *out, struct err *err)
{
    struct str type = {0}, redirect = {0}, body = {0};
    int64_t status = 0;
    int rc = json_need_int(o, "status", 100, 999, &status, err);
    if (rc == 0)
        rc = json_opt_str(o, "type", &type, err);
    if (rc == 0)
        rc = json_opt_str(o, "redirect", &redirect, err);
    if (rc == 0)
        rc = json_opt_str(o, "body", &body, err);
    if (rc < 0)
        return err_prefix(err, "cassette");
    *out = (struct http_reply){.status = (long)status};
    snprintf(out->type, sizeof out->type, "%.*s", STR_ARG(type));
    snprintf(out->redirect, sizeof out->redirect, "%.*s", STR_ARG(redirect));
    buf_init(&out->body, LIMIT_PAGE_BYTES);
    decode(body, &out->body);
    return 0;
}

int cassette_get(const char *path, struct str key, struct http_reply *out, struct err *err)
{
    struct buf file;
    buf_init(&file, 0);
    int rc = io_read_file(path, &file, err);
    struct str rest = rc == 0 ? buf_view(&file) : (struct str){0}, line;
    bool found = false;
    while (rc == 0 && !found && rest.n && str_split(&rest, '\n', &line)) {
        json_t *o = NULL;
        struct str k = {0};
        if (str_trim(line).n == 0)
            continue;
        rc = json_read(&o, line, err);
        if (rc == 0)
            rc = json_need_str(o, "key", &k, err);
        if (rc == 0 && str_eq(k, key)) {
            found = true;
            rc = take(o, out, err);
        }
        json_decref(o);
    }
    buf_done(&file);
    if (rc == 0 && !found)
        rc = err_set(err, ERR_NOTFOUND, "it was not recorded");
    return rc;
}

int cassette_put(const char *path, struct str key, const struct http_reply *r, struct err *err)
{
    struct buf body, line;
    buf_init(&body, 0);
    buf_init(&line, 0);
    encode(buf_view(&r->body), &body);
    json_t *o = json_pack("{s:o, s:I, s:s, s:s, s:o}", "key", json_text(key), "status",
                          (json_int_t)r->status, "type", r->type, "redirect", r->redirect,
                          "body", json_text(buf_view(&body)));
    int rc = o ? json_write(o, &line, err) : err_nomem(err);
    json_decref(o);
    buf_putc(&line, '\n');
    int fd = rc == 0 ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (rc == 0 && fd < 0)
        rc = err_sys(err, "cassette '%s'", path);
    if (rc == 0)
        rc = io_write_full(fd, line.data, line.len, err);
    io_close(&fd);
    buf_done(&body);
    buf_done(&line);
    return rc;
}
