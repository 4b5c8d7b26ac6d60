/*
 * infer_remote.c - any OpenAI-compatible server as an engine: chat completions, streamed,
 * with reasoning_content and tool calls. One thread, curl's multi interface, any number of
 * sessions at once.
 *
 * A failure that may pass (connection, 408, 429, 5xx) is reported as such with what
 * Retry-After says, and the turn tries again, but only while nothing of the reply was shown:
 * what was streamed is never taken back. A server that cannot be reached is named in the
 * error, with what curl said. chatstream.c reads the replies.
 */
#include <curl/curl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agentd/chatstream.h"
#include "agentd/infer_core.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

enum { ERROR_KEEP = 2048, RETRY_AFTER_MAX_S = 300 };
/* Pieces beyond max_tokens before a server that does not stop is stopped. */
enum { SLACK = 1024 };
/* A server that has sent the end of a message and not closed gets so long to send the rest. */
static const int64_t AFTER_END_NS = 2000000000;

struct xfer {
    struct infer_core *core;
    struct infer_job *job; /* ours until core_finish() */
    CURL *easy;            /* owned while running */
    struct chatstream *stream; /* owned */
    enum chatstream_state state;
    struct buf error;      /* beginning of a reply that is an HTTP error */
    int64_t last_ns;  /* when a byte last came */
    char detail[CURL_ERROR_SIZE];
    struct xfer *next;
};

struct remote {
    struct infer_core *core;
    CURLM *multi;
    struct curl_slist *headers;
    char url[2048];
    struct xfer *list;
};

int infer_remote_check(const char *url, struct err *err)
{
    CURLU *u = curl_url();
    char *scheme = NULL;
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    curl_free(scheme);
    curl_url_cleanup(u);
    return ok ? 0 : err_set(err, ERR_PARSE, "remote:%s is no http or https address", url);
}

int infer_remote_body(const struct infer_opts *o, const struct infer_request *r, char **body,
                      struct err *err)
{
    struct buf b;
    json_t *req = json_pack("{s:s, s:O, s:b, s:{s:b}, s:I}", "model", o->model, "messages",
                            r->messages, "stream", 1, "stream_options", "include_usage", 1,
                            "max_tokens", (json_int_t)r->max_tokens);
    if (!req)
        return err_nomem(err);
    if (json_array_size(r->tools))
        json_object_set(req, "tools", (json_t *)(uintptr_t)r->tools);
    if (r->sampling.temperature >= 0)
        json_object_set_new(req, "temperature", json_real(r->sampling.temperature));
    if (r->sampling.top_p >= 0)
        json_object_set_new(req, "top_p", json_real(r->sampling.top_p));
    buf_init(&b, LIMIT_JSON_BYTES);
    int rc = json_write(req, &b, err);
    if (rc == 0)
        *body = buf_take(&b);
    buf_done(&b);
    json_decref(req);
    return rc == 0 && !*body ? err_nomem(err) : rc;
}

/* --- the stream --------------------------------------------------------------------------- */

static void post(struct xfer *x, enum infer_note_kind kind, uint32_t a, struct str name,
                 struct str text)
{
    if (!x->job->first_ns)
        x->job->first_ns = io_mono_ns();
    core_post(x->core, x->job, kind, a, 0, NULL, 0, name, text);
}

static void on_thinking(void *arg, struct str delta)
{
    post(arg, NOTE_THINKING, 0, (struct str){0}, delta);
}

static void on_text(void *arg, struct str delta)
{
    post(arg, NOTE_TEXT, 0, (struct str){0}, delta);
}

static void on_call(void *arg, uint32_t i, struct str name, struct str args)
{
    post(arg, NOTE_CALL, i, name, args);
}

static size_t on_data(char *p, size_t one, size_t n, void *arg)
{
    struct xfer *x = arg;
    long status = 0;
    (void)one;
    x->last_ns = io_mono_ns();
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (x->error.len + n < ERROR_KEEP)
            buf_add(&x->error, p, n);
        return n;
    }
    x->state = chatstream_feed(x->stream, str_of(p, n));
    return x->state >= CHATSTREAM_DONE ? 0 : n; /* ends the transfer */
}

/* --- requests ------------------------------------------------------------------------------ */

static void xfer_free(struct remote *r, struct xfer *x)
{
    for (struct xfer **at = &r->list; *at; at = &(*at)->next)
        if (*at == x) {
            *at = x->next;
            break;
        }
    if (x->easy) {
        curl_multi_remove_handle(r->multi, x->easy);
        curl_easy_cleanup(x->easy);
    }
    chatstream_free(x->stream);
    buf_done(&x->error);
    mem_free(x);
}

static void end(struct remote *r, struct xfer *x, enum infer_end how, const char *error,
                bool retryable)
{
    struct infer_job *j = x->job;
    int64_t now = io_mono_ns();
    j->result.queued_ns = j->begun_ns - j->queued_ns;
    j->result.prefill_ns = (j->first_ns ? j->first_ns : now) - j->begun_ns;
    j->result.decode_ns = j->first_ns ? now - j->first_ns : 0;
    if (x->stream) {
        struct chatstream_facts f = chatstream_facts(x->stream);
        j->result.prompt = f.prompt;
        j->result.cached = f.cached;
        j->result.completion = f.completion;
    }
    core_finish(r->core, j, how, error, retryable);
    xfer_free(r, x);
}

static void launch(struct remote *r, struct xfer *x)
{
    const struct chatstream_cbs cbs = {on_thinking, on_text, on_call, x};
    struct err ignored;
    x->last_ns = io_mono_ns();
    x->easy = curl_easy_init();
    if (!x->easy || chatstream_new(&x->stream, &cbs, x->job->max_tokens + SLACK, &ignored) < 0) {
        end(r, x, INFER_END_ERROR, "out of memory", true);
        return;
    }
    curl_easy_setopt(x->easy, CURLOPT_URL, r->url);
    curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, x->job->body);
    curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(x->job->body));
    curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(x->easy, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(x->easy, CURLOPT_PRIVATE, x);
    curl_easy_setopt(x->easy, CURLOPT_ERRORBUFFER, x->detail);
    curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, (long)(r->core->o.timeout_ns / 1000000));
    curl_easy_setopt(x->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(x->easy, CURLOPT_USERAGENT, "agentd/" AGENTD_VERSION);
    curl_multi_add_handle(r->multi, x->easy);
}

static void begin(struct remote *r, struct infer_job *j)
{
    struct xfer *x = mem_zalloc(sizeof *x);
    j->begun = true;
    j->begun_ns = io_mono_ns();
    if (!x || j->idle) {
        mem_free(x);
        core_finish(r->core, j, j->idle ? INFER_END_STOP : INFER_END_ERROR,
                    j->idle ? NULL : "out of memory", !j->idle);
        return;
    }
    x->core = r->core;
    x->job = j;
    buf_init(&x->error, ERROR_KEEP);
    x->next = r->list;
    r->list = x;
    core_post(r->core, j, NOTE_BEGIN, 0, 0, NULL, 0, (struct str){0}, (struct str){0});
    launch(r, x);
}

/* The server's own words, out of {"error": {"message"}} when it is that. */
static void server_said(const struct xfer *x, char *out, size_t size)
{
    struct err err;
    json_t *v = NULL;
    struct str text = buf_view(&x->error);
    if (json_read(&v, text, &err) == 0) {
        json_t *e = json_object_get(v, "error");
        struct str m = json_view(json_is_string(e) ? e : json_object_get(e, "message"));
        if (m.n)
            text = m;
    }
    text = str_sub(text, 0, size - 1);
    snprintf(out, size, "%.*s", STR_ARG(text));
    json_decref(v);
}

static void failed(struct remote *r, struct xfer *x, CURLcode code, long status,
                   const char *what)
{
    char why[512], text[720];
    bool shown = x->stream && chatstream_facts(x->stream).shown;
    bool passing = status == 0 || status == 200 || status == 408 || status == 429 || status >= 500;
    curl_off_t wait_s = 0;
    curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &wait_s);
    if (what)
        snprintf(why, sizeof why, "%s", what);
    else if (code != CURLE_OK)
        snprintf(why, sizeof why, "%s", x->detail[0] ? x->detail : curl_easy_strerror(code));
    else
        server_said(x, why, sizeof why);
    if (status && status != 200)
        snprintf(text, sizeof text, "%.100s: HTTP %ld: %s", r->url, status, why);
    else
        snprintf(text, sizeof text, "%.100s: %s", r->url, why);
    x->job->result.retry_ns = (int64_t)wait_s * 1000000000;
    if (wait_s > RETRY_AFTER_MAX_S) {
        snprintf(why, sizeof why, "; it asks for %lld s of patience", (long long)wait_s);
        strncat(text, why, sizeof text - strlen(text) - 1);
        passing = false;
    }
    end(r, x, INFER_END_ERROR, text, passing && !shown);
}

/* The transfer is over, by the server's will or ours. */
static void over(struct remote *r, struct xfer *x, CURLcode code, long status)
{
    char *type = NULL;
    if (status != 200) {
        failed(r, x, code, status, NULL);
        return;
    }
    if (x->state < CHATSTREAM_DONE && code != CURLE_OK && x->state != CHATSTREAM_ENDED) {
        failed(r, x, code, status, NULL);
        return;
    }
    curl_easy_getinfo(x->easy, CURLINFO_CONTENT_TYPE, &type);
    if (chatstream_finish(x->stream, type) == CHATSTREAM_BROKEN)
        failed(r, x, code, status, chatstream_problem(x->stream));
    else
        end(r, x, chatstream_facts(x->stream).length ? INFER_END_LENGTH : INFER_END_STOP, NULL,
            false);
}

static void collect(struct remote *r)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(r->multi, &left))) {
        struct xfer *x = NULL;
        long status = 0;
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        curl_easy_getinfo(m->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        over(r, x, code, status);
    }
}

static void watch(struct remote *r)
{
    int64_t now = io_mono_ns(), stall = r->core->o.stall_ns;
    for (struct xfer *x = r->list, *next; x; x = next) {
        char what[64];
        next = x->next;
        if (atomic_load(&x->job->cancel)) {
            end(r, x, INFER_END_CANCELLED, NULL, false);
        } else if (x->state == CHATSTREAM_ENDED && now - x->last_ns > AFTER_END_NS) {
            over(r, x, CURLE_OK, 200);
        } else if (now - x->last_ns > stall) {
            snprintf(what, sizeof what, "no byte for %lld ms", (long long)(stall / 1000000));
            failed(r, x, CURLE_OPERATION_TIMEDOUT, 0, what);
        }
    }
}

static int read_key(struct remote *r, struct err *err)
{
    const char *path = r->core->o.key_file;
    struct stat sb;
    struct buf b;
    char line[1100];
    if (!path)
        return 0;
    if (stat(path, &sb) < 0)
        return err_sys(err, "engine.key_file '%s'", path);
    if (sb.st_mode & 077)
        return err_set(err, ERR_DENIED, "engine.key_file '%s' is readable by others; chmod 600",
                       path);
    buf_init(&b, 1024);
    int rc = io_read_file(path, &b, err);
    struct str key = str_trim(buf_view(&b));
    for (size_t i = 0; rc == 0 && i < key.n; i++)
        if ((unsigned char)key.p[i] <= 0x20 || key.p[i] == 0x7f)
            rc = err_set(err, ERR_PARSE, "engine.key_file '%s' holds more than one word", path);
    if (rc == 0) {
        snprintf(line, sizeof line, "Authorization: Bearer %.*s", STR_ARG(key));
        r->headers = curl_slist_append(r->headers, line);
    }
    buf_done(&b);
    return rc;
}

static int open_remote(struct remote *r, struct err *err)
{
    struct infer_info *i = &r->core->info;
    const char *base = r->core->where;
    size_t n = strlen(base);
    bool whole = str_ends(str_c(base), STR("/chat/completions"));
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return err_set(err, ERR_SYS, "libcurl cannot be started");
    r->multi = curl_multi_init();
    r->headers = curl_slist_append(NULL, "Content-Type: application/json");
    r->headers = curl_slist_append(r->headers, "Accept: text/event-stream");
    if (!r->multi || !r->headers)
        return err_nomem(err);
    snprintf(r->url, sizeof r->url, "%s%s", base,
             whole                           ? ""
             : n && base[n - 1] == '/'       ? "chat/completions"
             : strstr(base, "/v1")           ? "/chat/completions"
                                             : "/v1/chat/completions");
    snprintf(i->kind, sizeof i->kind, "remote");
    snprintf(i->name, sizeof i->name, "%s", r->core->o.model ? r->core->o.model : "");
    snprintf(i->fingerprint, sizeof i->fingerprint, "remote");
    i->n_ctx = r->core->o.n_ctx ? r->core->o.n_ctx : 131072;
    i->temperature = i->top_p = 1;
    return read_key(r, err);
}

static void serve(struct remote *r)
{
    struct infer_job *in;
    char gone[ID_TEXT];
    int busy = 0;
    /* New jobs wake curl's wait only by its short timeout; 20 ms is far below any server. */
    while (core_take(r->core, &in, !r->list, 0)) {
        for (struct infer_job *next; in; in = next) {
            next = in->next;
            begin(r, in);
        }
        while (core_take_forget(r->core, gone))
            continue;
        watch(r);
        curl_multi_perform(r->multi, &busy);
        collect(r);
        struct infer_load l = {0};
        for (struct xfer *x = r->list; x; x = x->next)
            l.running++;
        core_load(r->core, &l);
        if (r->list)
            curl_multi_poll(r->multi, NULL, 0, 20, NULL);
    }
    for (struct infer_job *next; in; in = next) {
        next = in->next;
        core_finish(r->core, in, INFER_END_CANCELLED, NULL, false);
    }
    while (r->list)
        end(r, r->list, INFER_END_CANCELLED, NULL, false);
}

void infer_remote_run(struct infer_core *core)
{
    struct remote r = {.core = core};
    struct err err;
    if (open_remote(&r, &err) < 0) {
        snprintf(core->problem, sizeof core->problem, "%s", err.text);
        core_state(core, INFER_DEAD);
    } else {
        atomic_store(&core->progress, 1.0);
        core_state(core, INFER_READY);
        serve(&r);
    }
    curl_slist_free_all(r.headers);
    if (r.multi)
        curl_multi_cleanup(r.multi);
}
