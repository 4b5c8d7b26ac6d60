/* spawnonce.c - one program in one cell, waited for on a loop of its own. */
#include <stdio.h>

#include "agentd/spawner.h"
#include "base/io.h"

struct once {
    struct cell *cell;
    const struct cell_run *run;
    struct sandbox_exit *x;
    struct sandbox_refusal *r;
    struct err *err;
    int rc;
    bool over;
};

static void once_closed(void *arg)
{
    struct once *o = arg;
    o->over = true;
}

static void once_finish(struct once *o)
{
    cell_close(o->cell, once_closed, o);
}

static void once_done(void *arg, const struct sandbox_exit *x)
{
    struct once *o = arg;
    *o->x = *x;
    once_finish(o);
}

static void once_opened(void *arg, const struct cell_info *info)
{
    struct once *o = arg;
    struct cell_run run = *o->run;
    int listener = info->proxy_fd;
    io_close(&listener); /* nobody serves a proxy here */
    run.done = once_done;
    run.arg = o;
    o->rc = cell_start(o->cell, &run, NULL, o->err);
    if (o->rc < 0)
        once_finish(o);
}

static void once_refused(void *arg, const struct sandbox_refusal *r)
{
    struct once *o = arg;
    *o->r = *r;
    o->rc = err_set(o->err, ERR_DENIED, "%s%s%s", r->reason, r->remedy[0] ? "; " : "",
                    r->remedy);
    once_finish(o);
}

static void once_gone(void *arg, const char *why)
{
    struct once *o = arg;
    o->rc = err_set(o->err, ERR_SYS, "%s", why);
    once_finish(o);
}

int spawner_once(struct spawner *s, const struct sandbox_spec *spec, const struct cell_run *run,
                 struct sandbox_exit *x, struct sandbox_refusal *r, struct err *err)
{
    static const struct cell_cb cb = {once_opened, once_refused, once_gone, NULL};
    struct once o = {.run = run, .x = x, .r = r, .err = err};
    struct ev *ev = NULL;
    int rc = ev_new(&ev, err);
    if (rc < 0)
        return rc;
    rc = spawner_attach(s, ev, NULL, NULL, err);
    if (rc == 0)
        rc = cell_open(&o.cell, s, spec, &cb, &o, err);
    while (rc == 0 && !o.over)
        ev_run_once(ev, true);
    spawner_detach(s);
    ev_free(ev);
    return rc < 0 ? rc : o.rc;
}
