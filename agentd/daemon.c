/*
 * daemon.c - start, run, end. The order of the start matters: the spawner before threads and
 * secrets, the store and its recovery before the socket, the engine's thread last, so that
 * READY means "connect, everything is on disk" and the model may still be loading.
 */
#include "agentd/daemon.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/crash.h"
#include "agentd/daemon_main.h"
#include "agentd/log.h"
#include "agentd/loop.h"
#include "agentd/notify.h"
#include "agentd/place.h"
#include "agentd/rpc.h"
#include "agentd/session.h"
#include "agentd/spawner.h"
#include "base/io.h"

static const int64_t SECOND = 1000000000;

struct run { /* what only the start and the end need */
    struct daemon d;
    const struct daemon_opts *o;
    struct ev_signal *term, *intr, *hup;
    struct ev_timer *watchdog, *deadline;
    char state[PATH_MAX - 64], private_dir[PATH_MAX - 64];
    bool ending, settling, again;
};

/* --- settle ------------------------------------------------------------------------------ */

static void stuck(struct daemon *d, const struct err *err)
{
    if (!d->stuck)
        LOGE("store", "cannot be written, events wait error=\"%s\"", err->text);
    d->stuck = true;
    snprintf(d->stuck_why, sizeof d->stuck_why, "%.*s", (int)sizeof d->stuck_why - 1, err->text);
    ev_timer_start(d->retry, SECOND / 4, 0);
}

static bool go_once(struct daemon *d)
{
    bool any = false;
    for (struct session *s = d->sessions; s; s = s->next)
        if (s->turn && loop_ready(s->turn)) {
            loop_go(s->turn);
            any = true;
        }
    return any;
}

static bool running(const struct daemon *d)
{
    for (const struct session *s = d->sessions; s; s = s->next)
        if (s->turn && !loop_parked(s->turn))
            return true;
    return false;
}

void daemon_settle(struct daemon *d)
{
    struct run *r = CONTAINER_OF(d, struct run, d);
    struct err err;
    if (r->settling)
        return; /* whoever is settling goes round again */
    r->settling = true;
    do {
        if (store_commit(d->store, &err) < 0) {
            stuck(d, &err);
            break;
        }
        if (d->stuck)
            LOGI("store", "can be written again");
        d->stuck = false;
    } while (go_once(d) || store_pending(d->store));
    r->settling = false;
    rpc_check_waits(d);
    if (d->trim && !store_pending(d->store)) {
        d->trim = false;
        session_trim(d, NULL);
    }
    if (r->ending && !running(d) && !store_pending(d->store))
        ev_stop(d->ev);
}

static void on_retry(void *arg)
{
    daemon_settle(arg);
}

void daemon_settle_soon(struct daemon *d)
{
    ev_timer_start(d->retry, 0, 0);
}

static void on_engine(void *arg)
{
    struct daemon *d = arg;
    if (infer_state(d->infer) == INFER_DEAD)
        LOGE("engine", "dead error=\"%s\"", infer_problem(d->infer));
    else if (infer_state(d->infer) == INFER_READY)
        LOGI("engine", "ready kind=%s model=%s context=%u", infer_info(d->infer)->kind,
             infer_info(d->infer)->name, infer_info(d->infer)->n_ctx);
    notify_send(infer_state(d->infer) == INFER_READY ? "STATUS=engine ready"
                                                     : "STATUS=engine not available");
    loop_engine(d);
}

/* --- signals ------------------------------------------------------------------------------ */

static void on_deadline(void *arg)
{
    struct run *r = arg;
    LOGW("daemon", "some turns did not end in time");
    ev_stop(r->d.ev);
}

/* Soft end: no new turns, running ones are interrupted and committed, waiters answered. */
static void on_end(void *arg, int signo)
{
    struct run *r = arg;
    if (r->ending) {
        ev_stop(r->d.ev);
        return;
    }
    LOGI("daemon", "ending signal=%d", signo);
    notify_send("STOPPING=1");
    r->ending = true;
    r->d.draining = true;
    if (r->d.sock)
        sock_stop_listening(r->d.sock);
    for (struct session *s = r->d.sessions; s; s = s->next)
        if (s->turn && !loop_parked(s->turn)) /* those that wait for a person wait on */
            loop_interrupt(s->turn, false);
    ev_timer_start(r->deadline, 5 * SECOND, 0);
    daemon_settle(&r->d);
}

static int apply_settings(struct config *c, const struct daemon_opts *o, struct err *err)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < o->n_sets; i++) {
        char key[128];
        const char *eq = strchr(o->sets[i], '=');
        if (!eq || (size_t)(eq - o->sets[i]) >= sizeof key)
            return err_set(err, ERR_PARSE, "--set '%s' must be section.key=value", o->sets[i]);
        snprintf(key, sizeof key, "%.*s", (int)(eq - o->sets[i]), o->sets[i]);
        rc = config_set(c, key, eq + 1, err);
    }
    return rc;
}

static int load_config(struct config *c, const struct daemon_opts *o, struct err *err)
{
    enum log_level level;
    int rc = config_load(c, o->config_path, err);
    if (rc < 0)
        return rc;
    rc = apply_settings(c, o, err);
    if (rc == 0 && !log_level_parse(str_c(c->log_level), &level))
        rc = err_set(err, ERR_PARSE, "log.level '%s' is none of error, warn, info, debug",
                     c->log_level);
    if (rc == 0 && !profile_find(str_c(c->agent_profile)))
        rc = err_set(err, ERR_PARSE, "agent.profile: there is no profile '%s'", c->agent_profile);
    if (rc < 0)
        config_done(c);
    else
        log_init(level);
    return rc;
}

int daemon_check_config(const struct daemon_opts *o, struct err *err)
{
    struct config c;
    int rc = load_config(&c, o, err);
    if (rc == 0)
        config_done(&c);
    return rc;
}

/* What can change while running does; a file with an error changes nothing. */
static void on_reload(void *arg, int signo)
{
    struct run *r = arg;
    struct config fresh;
    struct err err;
    (void)signo;
    notify_reloading();
    if (load_config(&fresh, r->o, &err) < 0) {
        LOGE("config", "kept the old one error=\"%s\"", err.text);
    } else {
        config_done(&r->d.config);
        r->d.config = fresh;
        LOGI("config", "reloaded; socket, store and engine keep their settings until a restart");
    }
    notify_send("READY=1");
}

/* --- start -------------------------------------------------------------------------------- */

/* Where the state lives, made if need be: the spawner must know it, to refuse it to cells. */
static int choose_state(struct run *r, struct err *err)
{
    struct daemon *d = &r->d;
    int rc = 0;
    if (d->private_mode && !*d->config.store_dir) {
        rc = place_private(r->private_dir, sizeof r->private_dir, err);
        snprintf(r->state, sizeof r->state, "%s", r->private_dir);
    } else if (*d->config.store_dir) {
        snprintf(r->state, sizeof r->state, "%s", d->config.store_dir);
    } else {
        rc = place_state(r->state, sizeof r->state, err);
    }
    return rc < 0 ? rc : io_make_dirs(r->state, 0700, err);
}

static int open_store(struct run *r, struct err *err)
{
    struct daemon *d = &r->d;
    struct store_opts so = {
        .dir = r->state,
        .sync_full = d->config.store_sync == CONFIG_SYNC_FULL,
        .allow_network_fs = d->config.store_network_fs,
        .max_bytes = d->config.store_max_bytes,
    };
    int rc = store_open(&d->store, &so, err);
    if (rc == 0 && store_damage(d->store))
        LOGE("store", "damage=\"%s\"", store_damage(d->store));
    if (rc == 0)
        rc = feed_new(&d->feed, d->store, d->ev, err);
    if (rc == 0)
        rc = loop_recover_all(d, err);
    return rc;
}

static int open_socket(struct run *r, struct err *err)
{
    struct daemon *d = &r->d;
    uint32_t uids[16];
    unsigned n = 0;
    char path[PATH_MAX];
    int fd = -1;
    struct str rest = str_c(d->config.socket_uids), word;
    while (n < ARRAY_LEN(uids) && str_split(&rest, ' ', &word)) {
        uint64_t uid;
        if (word.n && (!str_to_u64(word, &uid) || uid > UINT32_MAX))
            return err_set(err, ERR_PARSE, "socket.allow_uids: '%.*s' is no user id",
                           STR_ARG(word));
        if (word.n)
            uids[n++] = (uint32_t)uid;
    }
    struct sock_opts so = {.ev = d->ev, .cbs = rpc_callbacks(d->rpc), .uids = uids, .n_uids = n,
                           .stall_ns = d->config.socket_stall_ms * 1000000};
    int rc = sock_new(&d->sock, &so, err);
    if (rc == 0 && r->o->connect_fd >= 0)
        rc = sock_adopt(d->sock, r->o->connect_fd, err);
    if (rc < 0 || (d->private_mode && !*d->config.socket_path))
        return rc;
    rc = notify_listener("native", &fd, err);
    if (rc < 0)
        return rc;
    if (fd >= 0)
        return sock_adopt_listener(d->sock, fd, err);
    if (*d->config.socket_path)
        snprintf(path, sizeof path, "%s", d->config.socket_path);
    else
        rc = place_socket(path, sizeof path, err);
    return rc < 0 ? rc : sock_listen(d->sock, path, err);
}

static int open_engine(struct run *r, struct err *err)
{
    struct daemon *d = &r->d;
    const struct config *c = &d->config;
    char kv[PATH_MAX];
    if (!*c->engine_spec)
        return err_set(err, ERR_PARSE, "no engine: say --engine native:PATH, script:FILE or "
                                       "remote:URL, or engine.spec in the configuration");
    snprintf(kv, sizeof kv, "%s/kv", r->state);
    int rc = io_make_dirs(kv, 0700, err);
    struct infer_opts io = {
        .spec = c->engine_spec,
        .kv_dir = kv,
        .n_threads = (uint32_t)c->engine_threads,
        .n_ctx = (uint32_t)c->engine_context,
        .max_batch = (uint32_t)c->engine_batch,
        .cache_bytes = (size_t)c->engine_cache_bytes,
        .model = c->engine_model,
        .key_file = *c->engine_key_file ? c->engine_key_file : NULL,
        .timeout_ns = c->engine_timeout_ms * 1000000,
        .stall_ns = c->engine_stall_ms * 1000000,
    };
    return rc < 0 ? rc : infer_open(&d->infer, d->ev, &io, on_engine, d, err);
}

static int start_spawner(struct run *r, struct err *err)
{
    char real[PATH_MAX];
    if (r->d.config.sandbox == CONFIG_SANDBOX_OFF)
        return 0;
    if (!realpath(r->state, real))
        return err_sys(err, "state folder '%s'", r->state);
    struct spawner_opts so = {.state_dir = real};
    return spawner_start(&r->d.spawner, &so, err);
}

static int start(struct run *r, struct err *err)
{
    struct daemon *d = &r->d;
    int rc = load_config(&d->config, r->o, err);
    if (rc == 0)
        rc = crash_init(err);
    if (rc == 0)
        rc = choose_state(r, err);
    if (rc == 0)
        rc = start_spawner(r, err);
    if (rc == 0)
        rc = ev_new(&d->ev, err);
    if (rc == 0 && d->spawner)
        rc = spawner_attach(d->spawner, d->ev, NULL, NULL, err);
    if (rc == 0)
        rc = ev_timer_new(&d->retry, d->ev, on_retry, d, err);
    if (rc == 0)
        rc = ev_timer_new(&r->deadline, d->ev, on_deadline, r, err);
    if (rc == 0)
        rc = ev_signal_new(&r->term, d->ev, SIGTERM, on_end, r, err);
    if (rc == 0)
        rc = ev_signal_new(&r->intr, d->ev, SIGINT, on_end, r, err);
    if (rc == 0)
        rc = ev_signal_new(&r->hup, d->ev, SIGHUP, on_reload, r, err);
    if (rc == 0)
        rc = open_store(r, err);
    if (rc == 0)
        rc = rpc_new(&d->rpc, d, err);
    if (rc == 0)
        rc = open_engine(r, err);
    if (rc == 0)
        rc = open_socket(r, err);
    if (rc == 0)
        rc = notify_watchdog(&r->watchdog, d->ev, err);
    return rc;
}

static void stop(struct run *r)
{
    struct daemon *d = &r->d;
    struct err err;
    if (d->store && store_commit(d->store, &err) < 0)
        LOGE("store", "events lost at the end error=\"%s\"", err.text);
    d->private_mode = false;
    if (d->rpc)
        sock_free(d->sock);
    d->sock = NULL;
    session_free_all(d);
    infer_close(d->infer);
    spawner_free(d->spawner);
    feed_free(d->feed);
    store_close(d->store);
    rpc_free(d->rpc);
    ev_timer_free(d->retry);
    ev_timer_free(r->deadline);
    ev_timer_free(r->watchdog);
    ev_signal_free(r->term);
    ev_signal_free(r->intr);
    ev_signal_free(r->hup);
    ev_free(d->ev);
    config_done(&d->config);
    if (r->private_dir[0])
        place_remove(r->private_dir);
}

static struct run the_run; /* one daemon a process; too big for a stack */

int daemon_start(const struct daemon_opts *o, struct err *err)
{
    struct run *r = &the_run;
    memset(r, 0, sizeof *r);
    r->o = o;
    r->d.started_ns = io_mono_ns();
    r->d.private_mode = o->private_mode;
    signal(SIGPIPE, SIG_IGN);
    int rc = start(r, err);
    if (rc < 0) {
        stop(r);
        return rc;
    }
    notify_send("READY=1\nSTATUS=loading the engine");
    LOGI("daemon", "ready state=%s us=%lld", r->state,
         (long long)((io_mono_ns() - r->d.started_ns) / 1000));
    daemon_settle(&r->d);
    return 0;
}

int daemon_adopt(int fd, struct err *err)
{
    return sock_adopt(the_run.d.sock, fd, err);
}

void daemon_step(bool wait)
{
    ev_run_once(the_run.d.ev, wait);
}

void daemon_stop(void)
{
    stop(&the_run);
}

int daemon_run(const struct daemon_opts *o, struct err *err)
{
    int rc = daemon_start(o, err);
    if (rc < 0)
        return rc;
    ev_run(the_run.d.ev);
    daemon_stop();
    return 0;
}
