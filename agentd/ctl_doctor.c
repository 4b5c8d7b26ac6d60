/*
 * ctl_doctor.c - `agentctl doctor`: what this host can keep, found by doing. It makes a real
 * cell and looks from outside whether the promises hold, then says what is missing and how to
 * get it. What it says of store and model is in ctl_doctor_data.c.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_doctor.h"
#include "agentd/ctl_sandbox.h"
#include "base/io.h"
#include "base/json.h"
#include "sandbox/spawn.h"

enum { DOCTOR_FULL = 0, DOCTOR_NOLIMITS = 3, DOCTOR_LANDLOCK = 4, DOCTOR_NONE = 5 };

struct finding *doctor_note(struct doctor *d, const char *name, bool good)
{
    struct finding *f = &d->finding[d->n < DOCTOR_FINDINGS - 1 ? d->n++ : DOCTOR_FINDINGS - 1];
    *f = (struct finding){.name = name, .good = good};
    return f;
}

static void look_at_host(struct doctor *d, const struct probe *p)
{
    struct utsname u;
    struct probe tried = *p;
    struct finding *f = doctor_note(d, "kernel", uname(&u) == 0);
    snprintf(f->text, sizeof f->text, "%.80s %.80s %.60s, uid %d", u.sysname, u.release,
             u.machine, (int)p->uid);
    probe_namespaces(&tried);
    f = doctor_note(d, "namespaces", !tried.bare.step[0]);
    snprintf(f->text, sizeof f->text, "%s", f->good ? "all that a cell needs" : tried.bare.reason);
    if (!f->good)
        snprintf(f->remedy, sizeof f->remedy, "%s", tried.bare.remedy);
    f = doctor_note(d, "landlock", p->landlock > 0);
    snprintf(f->text, sizeof f->text, "ABI %d", p->landlock);
    if (!f->good)
        snprintf(f->remedy, sizeof f->remedy, "boot with lsm=landlock,...: the second layer, "
                 "and the first where there are no namespaces");
    f = doctor_note(d, "control groups", p->limits.kind != LIMITS_NONE);
    snprintf(f->text, sizeof f->text, "%s: %s", limits_kind_name(p->limits.kind),
             p->limits.why);
    if (!f->good)
        snprintf(f->remedy, sizeof f->remedy,
                 "systemd-run --%s -p Delegate=yes agentd ... for exact limits; until then "
                 "rlimits and a watcher hold memory and tasks (level nolimits)",
                 p->root ? "scope" : "user --scope");
    f = doctor_note(d, "agentd-tool", p->tool[0] != '\0');
    snprintf(f->text, sizeof f->text, "%.500s", p->tool[0] ? p->tool : "not beside this program");
    if (!f->good)
        snprintf(f->remedy, sizeof f->remedy, "install agentd-tool beside agentctl");
}

/* Lines "key value" that the probe script printed inside. */
static struct str said(const struct buf *b, const char *key)
{
    struct str rest = buf_view(b), line, name = str_c(key);
    while (str_split(&rest, '\n', &line))
        if (str_starts(line, name) && line.n > name.n && line.p[name.n] == ' ')
            return str_sub(line, name.n + 1, line.n);
    return (struct str){"", 0};
}

static void promise(struct doctor *d, const char *name, bool kept, const char *how)
{
    struct finding *f = doctor_note(d, name, kept);
    snprintf(f->text, sizeof f->text, "%s", how);
    if (!kept) {
        snprintf(f->remedy, sizeof f->remedy, "do not use this host; report it as a bug");
        d->level = SANDBOX_NONE;
    }
}

static void judge(struct doctor *d, const struct buf *b, const struct relay_result *r)
{
    char mine[64];
    ssize_t n = readlink("/proc/self/ns/pid", mine, sizeof mine - 1);
    mine[n > 0 ? n : 0] = '\0';
    struct finding *f = doctor_note(d, "cell", true);
    snprintf(f->text, sizeof f->text, "opened in %.1f ms", (double)r->open_ns / 1e6);
    struct str ns = said(b, "pidns");
    bool bare = r->level == SANDBOX_LANDLOCK;
    if (!bare)
        promise(d, "own processes", ns.n && !str_is(ns, mine), "its pid namespace is not ours");
    promise(d, "host files", str_is(said(b, "canary"), "closed"),
            "a file planted outside cannot be read inside");
    promise(d, "no privilege",
            str_is(said(b, "caps"), "0000000000000000") && str_is(said(b, "nnp"), "1") &&
                str_is(said(b, "filter"), "2"),
            "no capability, no new privileges, filter on");
    if (bare)
        promise(d, "network", str_is(said(b, "udp"), "closed"), "no socket can be made");
    else
        promise(d, "network", str_is(said(b, "links"), "lo"), "only its own loopback");
}

static const char script[] =
    "echo pidns $(readlink /proc/self/ns/pid)\n"
    "if { : < \"$1\"; } 2>/dev/null; then echo canary open; else echo canary closed; fi\n"
    "if (: > /dev/udp/127.0.0.1/9) 2>/dev/null; then echo udp open; else echo udp closed; fi\n"
    "while read -r k v; do case $k in CapEff:) echo caps $v;; NoNewPrivs:) echo nnp $v;;"
    " Seccomp:) echo filter $v;; esac; done < /proc/self/status\n"
    "n=; while read -r k v; do case $k in *:) n=\"$n${n:+ }${k%:}\";; esac; done"
    " < /proc/self/net/dev; echo links $n\n";

static int try_cell(struct doctor *d, struct err *err)
{
    char canary[] = "/tmp/agentd-doctor-XXXXXX";
    int fd = mkostemp(canary, O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "plant a file in /tmp");
    struct buf out;
    buf_init(&out, 1 << 16);
    struct sandbox_spec *spec = mem_zalloc(sizeof *spec);
    struct relay_result *r = mem_zalloc(sizeof *r);
    const char *argv[] = {"/bin/bash", "--norc", "--noprofile", "-c", script, "probe", canary,
                          NULL};
    struct relay_opts o = {.argv = argv, .capture = &out, .no_input = true, .wall_ms = 20000};
    int rc = spec && r ? 0 : err_nomem(err);
    if (rc == 0) {
        spec->require = SANDBOX_LANDLOCK;
        rc = relay_run(spec, &o, r, err);
    }
    if (rc == 0) {
        d->level = r->level;
        judge(d, &out, r);
    } else if (rc == -ERR_DENIED) {
        struct finding *f = doctor_note(d, "cell", false);
        snprintf(f->text, sizeof f->text, "%s", r->refusal.reason);
        snprintf(f->remedy, sizeof f->remedy, "%s", r->refusal.remedy);
        d->level = r->refusal.offered;
        rc = 0;
    }
    buf_done(&out);
    relay_result_done(r);
    mem_free(spec);
    mem_free(r);
    close(fd);
    unlink(canary);
    return rc;
}

static void print_text(const struct doctor *d)
{
    for (unsigned i = 0; i < d->n; i++) {
        const struct finding *f = &d->finding[i];
        printf("%-4s %-16s %s\n", f->good ? "ok" : "--", f->name, f->text);
        if (f->remedy[0])
            printf("     %-16s %s\n", "what helps:", f->remedy);
    }
    printf("\nlevel %s%s\n", sandbox_level_name(d->level),
           d->level == SANDBOX_FULL       ? ": every promise is kept"
           : d->level == SANDBOX_NOLIMITS ? ": everything but exact limits; policies accept "
                                            "it with require: nolimits"
           : d->level == SANDBOX_LANDLOCK ? ": files and network are held, processes can be seen; "
                                            "policies accept it with require: landlock"
                                          : ": nothing can be confined here");
}

static int print_json(const struct doctor *d)
{
    json_t *o = json_object(), *a = json_array();
    for (unsigned i = 0; i < d->n; i++) {
        const struct finding *f = &d->finding[i];
        json_t *e = json_object();
        json_object_set_new(e, "name", json_text(str_c(f->name)));
        json_object_set_new(e, "ok", json_boolean(f->good));
        json_object_set_new(e, "text", json_text(str_c(f->text)));
        json_object_set_new(e, "remedy", json_text(str_c(f->remedy)));
        json_array_append_new(a, e);
    }
    json_object_set_new(o, "level", json_text(str_c(sandbox_level_name(d->level))));
    json_object_set_new(o, "findings", a);
    struct buf b;
    struct err err = {0};
    buf_init(&b, 0);
    int rc = json_write_pretty(o, &b, &err);
    puts(buf_cstr(&b));
    buf_done(&b);
    json_decref(o);
    return rc;
}

int ctl_doctor(int argc, char **argv)
{
    bool json = false;
    const char *model = NULL, *state = NULL;
    const struct opt opts[] = {
        {"model", 'm', OPT_STR, &model, "PATH", "look at this model too: what it is and needs"},
        {"state", 0, OPT_STR, &state, "DIR", "the store to look at; default: the daemon's"},
        {"json", 'j', OPT_FLAG, &json, NULL, "the same as JSON"},
    };
    const struct opt_cmd cmd = {
        "agentctl doctor", "",
        "Say what this host, its sandbox, store and model can do, by trying.",
        "Exit codes: 0 level full, 3 nolimits (no control groups), 4 landlock (no user\n"
        "namespaces), 5 nothing can be confined, 1 the examination failed, or the store or\n"
        "model named cannot be used.",
        opts, ARRAY_LEN(opts), 0, 0};
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    struct err err = {0};
    struct sandbox_host *h = NULL;
    struct doctor d = {.level = SANDBOX_NONE};
    char self[PATH_MAX] = "", tool[PATH_MAX + 16] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = n > 0 ? strrchr(self, '/') : NULL;
    if (slash)
        snprintf(tool, sizeof tool, "%.*s/agentd-tool", (int)(slash - self), self);
    if (sandbox_host_open(&h, access(tool, X_OK) == 0 ? tool : "", NULL, 0, false, &err) < 0)
        return ctl_fail(&err);
    look_at_host(&d, sandbox_host_probe(h));
    sandbox_host_close(h);
    if (try_cell(&d, &err) < 0)
        return ctl_fail(&err);
    /* The exit code is the level's; what was asked for by name must be usable too. */
    doctor_look_at_memory(&d);
    doctor_look_at_processor(&d);
    bool usable = doctor_look_at_store(&d, state) || !state;
    if (model && !doctor_look_at_model(&d, model))
        usable = false;
    if (json && print_json(&d) < 0)
        return EXIT_FAIL;
    if (!json)
        print_text(&d);
    static const int codes[] = {DOCTOR_NONE, DOCTOR_LANDLOCK, DOCTOR_NOLIMITS, DOCTOR_FULL};
    return usable ? codes[d.level] : EXIT_FAIL;
}
