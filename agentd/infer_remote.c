/*
 * infer_remote.c - any OpenAI-compatible server as an engine: chat completions, streamed,
 * with reasoning_content and tool calls. One thread, curl's multi interface, any number of
 * sessions at once.
 *
 * A request is tried again after a failure that may pass (connection, 408, 429, 5xx), with
 * growing pauses or what Retry-After says, but only while nothing of the reply was shown:
 * what was streamed is never taken back. A server that cannot be reached is named in the
 * error, with what curl said.
 */
#include <curl/curl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agentd/infer_core.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

enum { MAX_CALLS = LIMIT_CALLS_PER_MESSAGE, ERROR_KEEP = 2048 };

struct xfer {
    struct infer_core *core;
    struct infer_job *job; /* ours until core_finish() */
    CURL *easy;            /* owned while running */
    struct buf line;       /* bytes of an unfinished SSE line */
    struct buf error;      /* beginning of a reply that is no stream */
    bool shown;            /* something was delivered */
    bool ended;            /* [DONE], or a finish_reason */
    bool length;           /* finish_reason "length" */
    int tries;
    int64_t again_ns; /* waiting for another try; 0 = running */
    int64_t last_ns;  /* when a byte last came */
    char what[256];   /* why the stream is broken */
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
    x->shown = true;
    core_post(x->core, x->job, kind, a, 0, NULL, 0, name, text);
}

static void take_calls(struct xfer *x, const json_t *calls)
{
    size_t i;
    json_t *c;
    json_array_foreach(calls, i, c)
    {
        json_t *f = json_object_get(c, "function"), *at = json_object_get(c, "index");
        int64_t index = json_is_integer(at) ? json_integer_value(at) : (int64_t)i;
        if (index < 0 || index >= MAX_CALLS)
            continue;
        post(x, NOTE_CALL, (uint32_t)index, json_view(json_object_get(f, "name")),
             json_view(json_object_get(f, "arguments")));
    }
}

static void take_usage(struct xfer *x, const json_t *u)
{
    struct infer_result *r = &x->job->result;
    json_t *cached = json_object_get(u, "prompt_cache_hit_tokens");
    if (!cached)
        cached = json_object_get(json_object_get(u, "prompt_tokens_details"), "cached_tokens");
    r->prompt = (uint32_t)json_integer_value(json_object_get(u, "prompt_tokens"));
    r->completion = (uint32_t)json_integer_value(json_object_get(u, "completion_tokens"));
    r->cached = (uint32_t)json_integer_value(cached);
}

static void take_event(struct xfer *x, struct str data)
{
    struct err err;
    json_t *v = NULL;
    if (str_is(data, "[DONE]")) {
        x->ended = true;
        return;
    }
    if (json_read(&v, data, &err) < 0) {
        snprintf(x->what, sizeof x->what, "unreadable event: %.200s", err.text);
        return;
    }
    json_t *choice = json_array_get(json_object_get(v, "choices"), 0);
    json_t *delta = json_object_get(choice, "delta");
    struct str thought = json_view(json_object_get(delta, "reasoning_content"));
    if (!thought.n)
        thought = json_view(json_object_get(delta, "reasoning"));
    struct str text = json_view(json_object_get(delta, "content"));
    struct str finish = json_view(json_object_get(choice, "finish_reason"));
    json_t *error = json_object_get(v, "error"), *usage = json_object_get(v, "usage");
    if (error)
        snprintf(x->what, sizeof x->what, "%.*s",
                 STR_ARG(str_sub(json_view(json_object_get(error, "message")), 0, 200)));
    if (thought.n)
        post(x, NOTE_THINKING, 0, (struct str){0}, thought);
    if (text.n)
        post(x, NOTE_TEXT, 0, (struct str){0}, text);
    take_calls(x, json_object_get(delta, "tool_calls"));
    if (finish.n) {
        x->ended = true;
        x->length = str_is(finish, "length");
    }
    if (json_is_object(usage))
        take_usage(x, usage);
    json_decref(v);
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
    buf_add(&x->line, p, n);
    if (x->line.failed)
        return 0;
    size_t from = 0;
    for (;;) {
        const uint8_t *nl = memchr(x->line.data + from, '\n', x->line.len - from);
        if (!nl)
            break;
        struct str line = str_trim(
            str_of(x->line.data + from, (size_t)(nl - x->line.data) - from));
        from = (size_t)(nl - x->line.data) + 1;
        if (str_starts(line, STR("data:")))
            take_event(x, str_trim(str_sub(line, 5, SIZE_MAX)));
    }
    buf_consume(&x->line, from);
    return x->what[0] ? 0 : n;
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
    buf_done(&x->line);
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
    core_finish(r->core, j, how, error, retryable);
    xfer_free(r, x);
}

static void launch(struct remote *r, struct xfer *x)
{
    x->again_ns = 0;
    x->last_ns = io_mono_ns();
    buf_reset(&x->line);
    buf_reset(&x->error);
    x->what[0] = '\0';
    x->easy = curl_easy_init();
    if (!x->easy) {
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
    buf_init(&x->line, LIMIT_LINE_BYTES);
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

static void failed(struct remote *r, struct xfer *x, CURLcode code, long status)
{
    char why[400], text[512];
    bool passing = code != CURLE_OK || status == 200 || status == 408 || status == 429 ||
                   status >= 500;
    curl_off_t wait_s = 0;
    if (x->easy)
        curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &wait_s);
    if (x->what[0])
        snprintf(why, sizeof why, "%s", x->what);
    else if (code != CURLE_OK)
        snprintf(why, sizeof why, "%s", curl_easy_strerror(code));
    else if (status == 200)
        snprintf(why, sizeof why, "the stream ended before its end mark");
    else
        server_said(x, why, sizeof why);
    if (status && status != 200)
        snprintf(text, sizeof text, "%.100s: HTTP %ld: %s", r->url, status, why);
    else
        snprintf(text, sizeof text, "%.100s: %s", r->url, why);
    if (!passing || x->shown || x->tries >= r->core->o.retries) {
        end(r, x, INFER_END_ERROR, text, passing && !x->shown);
        return;
    }
    int64_t pause = (int64_t)250000000 << (x->tries < 6 ? x->tries : 6);
    if (wait_s > 0 && wait_s < 300)
        pause = (int64_t)wait_s * 1000000000;
    x->tries++;
    x->again_ns = io_mono_ns() + pause;
    curl_multi_remove_handle(r->multi, x->easy);
    curl_easy_cleanup(x->easy);
    x->easy = NULL;
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
        if (code == CURLE_OK && status == 200 && x->ended && !x->what[0])
            end(r, x, x->length ? INFER_END_LENGTH : INFER_END_STOP, NULL, false);
        else
            failed(r, x, code, status);
    }
}

static void watch(struct remote *r)
{
    int64_t now = io_mono_ns();
    for (struct xfer *x = r->list, *next; x; x = next) {
        next = x->next;
        if (atomic_load(&x->job->cancel)) {
            end(r, x, INFER_END_CANCELLED, NULL, false);
        } else if (x->again_ns && now >= x->again_ns) {
            launch(r, x);
        } else if (!x->again_ns && now - x->last_ns > r->core->o.stall_ns) {
            snprintf(x->what, sizeof x->what, "no byte for %lld s",
                     (long long)(r->core->o.stall_ns / 1000000000));
            failed(r, x, CURLE_OPERATION_TIMEDOUT, 0);
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
    if (rc == 0) {
        snprintf(line, sizeof line, "Authorization: Bearer %.*s", STR_ARG(str_trim(buf_view(&b))));
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
