/* client.c - connect, ask, listen. */
#include "agentd/client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/place.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

struct kept {
    json_t *msg;
    struct kept *next;
};

struct client {
    int fd;
    pid_t child;  /* our private daemon, or 0 */
    struct buf in;
    int64_t last_id;
    struct kept *kept, **kept_end; /* messages that came while we waited for a reply */
    json_t *error, *server;        /* owned */
};

static int client_new(struct client **out, int fd, struct err *err)
{
    struct client *c = mem_zalloc(sizeof *c);
    if (!c) {
        close(fd);
        return err_nomem(err);
    }
    c->fd = fd;
    c->kept_end = &c->kept;
    buf_init(&c->in, 4 * (size_t)LIMIT_LINE_BYTES); /* replies may be longer than requests */
    *out = c;
    return 0;
}

static int hello(struct client *c, struct err *err)
{
    return client_call(c, "initialize",
                       json_pack("{s:i, s:{s:s, s:s}, s:{s:b, s:b}}", "protocolVersion", 1,
                                 "client", "name", "agentctl", "version", AGENTD_VERSION,
                                 "capabilities", "approvals", 1, "deltas", 1),
                       &c->server, err);
}

int client_connect(struct client **out, const char *socket_path, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char path[PATH_MAX];
    struct client *c = NULL;
    int rc = 0;
    if (socket_path)
        snprintf(path, sizeof path, "%s", socket_path);
    else
        rc = place_socket(path, sizeof path, err);
    if (rc < 0)
        return rc;
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(err, ERR_LIMIT, "socket path '%s' is too long", path);
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, "socket");
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        rc = errno == EACCES || errno == EPERM
                 ? err_sys(err, "agentd's socket '%s' is not open to this user (socket.uids in its "
                                "configuration lets others in)", path)
                 : err_sys(err, "no agentd answers at '%s' (start one, or use --private)", path);
        close(fd);
        return rc;
    }
    rc = client_new(&c, fd, err);
    if (rc == 0)
        rc = hello(c, err);
    if (rc == -ERR_SYS)
        rc = err_set(err, ERR_DENIED, "agentd at '%s' hung up before its first answer: it does "
                                      "not serve this user (socket.uids in its configuration "
                                      "lets others in), or it is just ending", path);
    if (rc < 0) {
        client_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

/* agentd lies beside agentctl. */
static void daemon_path(char out[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 8);
    out[n < 0 ? 0 : n] = '\0';
    char *slash = strrchr(out, '/');
    snprintf(slash ? slash + 1 : out, 8, "agentd");
}

static NORETURN void become_daemon(const struct client_private *o, int fd)
{
    char exe[PATH_MAX], number[16];
    const char *argv[24];
    int n = 0;
    daemon_path(exe);
    snprintf(number, sizeof number, "%d", fd);
    argv[n++] = exe;
    argv[n++] = "--private";
    argv[n++] = "--connect-fd";
    argv[n++] = number;
    const struct {
        const char *flag, *value;
    } more[] = {{"--engine", o->engine},   {"--profile", o->profile}, {"--sandbox", o->sandbox},
                {"--config", o->config},   {"--state", o->state},
                {"--set", o->verbose ? NULL : "log.level=error"}};
    for (unsigned i = 0; i < ARRAY_LEN(more); i++)
        if (more[i].value) {
            argv[n++] = more[i].flag;
            argv[n++] = more[i].value;
        }
    argv[n] = NULL;
    setpgid(0, 0); /* Ctrl-C is for the client, which interrupts the turn */
    execv(exe, (char *const *)(uintptr_t)argv);
    fprintf(stderr, "agentctl: cannot run '%s': %s\n", exe, strerror(errno));
    _exit(127);
}

int client_private(struct client **out, const struct client_private *o, struct err *err)
{
    int sv[2];
    struct client *c = NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
        return err_sys(err, "socketpair");
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        int rc = err_sys(err, "fork");
        close(sv[0]);
        close(sv[1]);
        return rc;
    }
    if (pid == 0) {
        int fd = dup(sv[1]); /* without close-on-exec */
        become_daemon(o, fd);
    }
    close(sv[1]);
    int rc = client_new(&c, sv[0], err);
    if (rc < 0)
        return rc;
    c->child = pid;
    rc = hello(c, err);
    if (rc < 0) {
        client_close(c);
        return err_set(err, ERR_SYS, "the private agentd did not start; its reason stands above");
    }
    *out = c;
    return 0;
}

static int send_message(struct client *c, const char *method, json_t *params, int64_t id,
                        struct err *err)
{
    struct buf b;
    json_t *m = json_pack("{s:s, s:I, s:s, s:o}", "jsonrpc", "2.0", "id", (json_int_t)id, "method",
                          method, "params", params ? params : json_object());
    buf_init(&b, 0);
    int rc = m ? json_write(m, &b, err) : err_nomem(err);
    buf_putc(&b, '\n');
    for (size_t put = 0; rc == 0 && put < b.len;) {
        ssize_t n = send(c->fd, b.data + put, b.len - put, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            rc = err_sys(err, "the daemon is gone");
        put += n > 0 ? (size_t)n : 0;
    }
    json_decref(m);
    buf_done(&b);
    return rc;
}

int client_send(struct client *c, const char *method, json_t *params, int64_t *id,
                struct err *err)
{
    int64_t mine = ++c->last_id;
    if (id)
        *id = mine;
    return send_message(c, method, params, mine, err);
}

/* One line from the socket, as JSON; waits at most timeout_ms. */
static int read_message(struct client *c, int timeout_ms, json_t **msg, struct err *err)
{
    *msg = NULL;
    size_t seen = 0;
    for (;;) {
        uint8_t *nl = c->in.len > seen ? memchr(c->in.data + seen, '\n', c->in.len - seen) : NULL;
        if (nl) {
            size_t n = (size_t)(nl - c->in.data);
            int rc = json_read(msg, str_of(c->in.data, n), err);
            buf_consume(&c->in, n + 1);
            return rc;
        }
        seen = c->in.len;
        struct pollfd p = {c->fd, POLLIN, 0};
        int ready = poll(&p, 1, timeout_ms);
        if (ready < 0 && errno == EINTR)
            return err_set(err, ERR_CANCELLED, "interrupted");
        if (ready == 0)
            return 0;
        char chunk[65536];
        ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
        if (n < 0 && errno == EINTR)
            return err_set(err, ERR_CANCELLED, "interrupted");
        if (n <= 0)
            return err_set(err, ERR_SYS, "the daemon closed the connection");
        buf_add(&c->in, chunk, (size_t)n);
        int rc = buf_check(&c->in, "message from the daemon", err);
        if (rc < 0)
            return rc;
    }
}

int client_next(struct client *c, int timeout_ms, json_t **msg, struct err *err)
{
    struct kept *k = c->kept;
    if (!k)
        return read_message(c, timeout_ms, msg, err);
    *msg = k->msg;
    c->kept = k->next;
    if (!c->kept)
        c->kept_end = &c->kept;
    mem_free(k);
    return 0;
}

static int take_reply(struct client *c, json_t *msg, json_t **result, struct err *err)
{
    json_t *error = json_object_get(msg, "error");
    json_decref(c->error);
    c->error = json_incref(error);
    if (error) {
        struct str text = json_view(json_object_get(error, "message"));
        return err_set(err, ERR_DENIED, "%.*s", (int)(text.n < 480 ? text.n : 480), text.p);
    }
    if (result)
        *result = json_incref(json_object_get(msg, "result"));
    return 0;
}

int client_call(struct client *c, const char *method, json_t *params, json_t **result,
                struct err *err)
{
    int64_t id;
    int rc = client_send(c, method, params, &id, err);
    while (rc == 0) {
        json_t *msg = NULL;
        rc = read_message(c, -1, &msg, err);
        if (rc == -ERR_CANCELLED) {
            rc = 0; /* a request is short: see it through */
            continue;
        }
        if (rc < 0)
            break;
        json_t *got = json_object_get(msg, "id");
        if (json_is_integer(got) && json_integer_value(got) == id) {
            rc = take_reply(c, msg, result, err);
            json_decref(msg);
            return rc;
        }
        struct kept *k = mem_zalloc(sizeof *k);
        if (!k) {
            json_decref(msg);
            return err_nomem(err);
        }
        k->msg = msg;
        *c->kept_end = k;
        c->kept_end = &k->next;
    }
    return rc;
}

int client_pages(struct client *c, const char *method, json_t *params, json_t **result,
                 struct err *err)
{
    json_t *all = NULL, *page = NULL, *next = NULL, *list;
    const char *key;
    int rc;
    do {
        if (next)
            json_object_set(params, "after", next);
        json_decref(page);
        page = NULL;
        rc = client_call(c, method, json_incref(params), &page, err);
        json_object_foreach(all ? page : NULL, key, list)
            if (json_is_array(list))
                json_array_extend(json_object_get(all, key), list);
        if (rc == 0 && !all)
            all = json_incref(page);
        next = json_object_get(page, "next");
    } while (rc == 0 && json_is_integer(next));
    json_decref(page);
    json_decref(params);
    json_object_del(all, "next");
    if (rc == 0)
        *result = all;
    else
        json_decref(all);
    return rc;
}

const json_t *client_error(const struct client *c)
{
    return c->error;
}

const json_t *client_server(const struct client *c)
{
    return c->server;
}

int client_fd(const struct client *c)
{
    return c->fd;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    io_close(&c->fd);
    if (c->child)
        while (waitpid(c->child, NULL, 0) < 0 && errno == EINTR)
            continue;
    for (struct kept *k = c->kept, *next; k; k = next) {
        next = k->next;
        json_decref(k->msg);
        mem_free(k);
    }
    json_decref(c->error);
    json_decref(c->server);
    buf_done(&c->in);
    mem_free(c);
}
