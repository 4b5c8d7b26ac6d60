/* spec.c - defaults and validation of what a cell may be; nothing here touches the kernel. */
#include "sandbox/spec.h"

#include "sandbox/seccomp.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define KIB 1024ull
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)
#define WIDE(field) offsetof(struct sandbox_limits, field), true
#define SLIM(field) offsetof(struct sandbox_limits, field), false

const struct spec_limit spec_limits[] = {
    {"memory", WIDE(memory_bytes), GIB, 16 * MIB, 1024 * GIB,
     "memory of the whole cell; its tmpfs files count"},
    {"tmp", WIDE(tmp_bytes), 64 * MIB, MIB, 64 * GIB,
     "size of /tmp, of /dev/shm, and of a temp or copy workspace"},
    {"tmp_inodes", WIDE(tmp_inodes), 16384, 64, 4000000, "files in each of these"},
    {"disk", WIDE(disk_bytes), 2 * GIB, MIB, 1024 * GIB,
     "growth of a dir workspace; watched, so approximate by some 100 MiB"},
    {"disk_inodes", WIDE(disk_inodes), 200000, 64, 100000000,
     "new files in a dir workspace; watched"},
    {"file", WIDE(file_bytes), 2 * GIB, 4 * KIB, 1024 * GIB, "size of one file"},
    {"tasks", SLIM(tasks), 256, 8, 32768, "processes and threads"},
    {"cpu", SLIM(cpu_percent), 200, 5, 100000, "processor time in percent; 100 = one core"},
    {"cpu_seconds", SLIM(cpu_seconds), 3600, 1, 1000000,
     "processor time of one process that is not kept"},
    {"open_files", SLIM(open_files), 1024, 128, 20000, "descriptors of one process"},
    {NULL, 0, false, 0, 0, 0, NULL},
};

uint64_t spec_limit_get(const struct sandbox_limits *l, const struct spec_limit *row)
{
    const char *at = (const char *)l + row->offset;
    uint64_t wide;
    uint32_t slim;
    if (row->wide) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&slim, at, sizeof slim);
    return slim;
}

void spec_limit_set(struct sandbox_limits *l, const struct spec_limit *row, uint64_t value)
{
    char *at = (char *)l + row->offset;
    uint32_t slim = (uint32_t)value;
    if (row->wide)
        memcpy(at, &value, sizeof value);
    else
        memcpy(at, &slim, sizeof slim);
}

bool spec_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n == 1 && dir[0] == '/')
        return true;
    return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

bool spec_plain_path(const char *path)
{
    if (path[0] != '/' || path[1] == '\0')
        return false;
    struct str rest = str_c(path + 1), piece;
    while (str_split(&rest, '/', &piece))
        if (piece.n == 0 || str_is(piece, ".") || str_is(piece, ".."))
            return false;
    for (const char *c = path; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    return path[strlen(path) - 1] != '/';
}

static bool ends(const char *s, size_t cap)
{
    return memchr(s, '\0', cap) != NULL;
}

/* Places of ours that a policy's path may neither cover nor enter. */
static const char *const reserved[] = {"/proc", "/dev",  "/tmp",        "/var/tmp", "/etc",
                                       "/usr",  "/sys",  "/run",        "/bin",     "/sbin",
                                       "/lib",  "/lib32", "/lib64",     "/libx32",
                                       SANDBOX_WORKSPACE, SANDBOX_TOOL, NULL};

static int check_bind(struct sandbox_bind *b, struct err *err)
{
    if (!ends(b->host, sizeof b->host) || !ends(b->inside, sizeof b->inside))
        return err_set(err, ERR_PARSE, "a path does not end");
    if (!spec_plain_path(b->host))
        return err_set(err, ERR_PARSE, "path '%.200s' must be absolute without . or ..",
                       b->host);
    bool same = b->inside[0] == '\0' || strcmp(b->inside, b->host) == 0;
    if (same)
        memcpy(b->inside, b->host, sizeof b->inside);
    if (!spec_plain_path(b->inside))
        return err_set(err, ERR_PARSE, "place '%.200s' must be absolute without . or ..",
                       b->inside);
    /* Single files of /etc and parts of /usr are what a policy may want to show as they are. */
    if (same && !b->write && (spec_below(b->host, "/etc/") || spec_below(b->host, "/usr")) &&
        strcmp(b->host, "/etc") != 0)
        return 0;
    for (unsigned i = 0; reserved[i]; i++)
        if (spec_below(b->inside, reserved[i]) || spec_below(reserved[i], b->inside))
            return err_set(err, ERR_PARSE,
                           "'%.200s' would cover or enter %s; show it at another place, for "
                           "example /opt/data",
                           b->inside, reserved[i]);
    return 0;
}

/* Variables that make loaders, shells and interpreters run something first. */
static const char *const loaders[] = {"LD_",          "BASH_ENV=",      "ENV=",
                                      "PYTHONSTARTUP=", "PYTHONHOME=",  "NODE_OPTIONS=",
                                      "PERL5OPT=",    "RUBYOPT=",       "GCONV_PATH=",
                                      "PROMPT_COMMAND=", "BASH_FUNC_",  NULL};

static int check_env(const char *v, struct err *err)
{
    if (!ends(v, SANDBOX_ENV_BYTES))
        return err_set(err, ERR_PARSE, "a variable does not end");
    size_t name = strcspn(v, "=");
    if (name == 0 || v[name] != '=')
        return err_set(err, ERR_PARSE, "variable '%.60s' is not NAME=value", v);
    for (size_t i = 0; i < name; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789", v[i]) ||
            (i == 0 && v[i] >= '0' && v[i] <= '9'))
            return err_set(err, ERR_PARSE, "variable name '%.*s' has a character that is not "
                           "a letter, digit or _", (int)(name < 60 ? name : 60), v);
    for (unsigned i = 0; loaders[i]; i++)
        if (strncmp(v, loaders[i], strlen(loaders[i])) == 0)
            return err_set(err, ERR_PARSE,
                           "variable '%.*s' would run code before the program; leave it out",
                           (int)(name < 60 ? name : 60), v);
    return 0;
}

static int check_limits(struct sandbox_limits *l, struct err *err)
{
    for (const struct spec_limit *row = spec_limits; row->name; row++) {
        uint64_t v = spec_limit_get(l, row);
        if (v == 0)
            spec_limit_set(l, row, row->preset);
        else if (v < row->min || v > row->max)
            return err_set(err, ERR_LIMIT, "limit '%s' is %llu; it must be %llu to %llu",
                           row->name, (unsigned long long)v, (unsigned long long)row->min,
                           (unsigned long long)row->max);
    }
    return 0;
}

static int check_enums(const struct sandbox_spec *s, struct err *err)
{
    if ((unsigned)s->require > SANDBOX_FULL || (unsigned)s->net > SANDBOX_NET_HOST ||
        (unsigned)s->work > SANDBOX_WORK_COPY ||
        (unsigned)s->profile > SANDBOX_PROFILE_STRICT ||
        (unsigned)s->landlock > SANDBOX_LANDLOCK_OFF)
        return err_set(err, ERR_PARSE, "a field holds a value outside its list");
    if (s->net == SANDBOX_NET_HOST && !s->net_host_known)
        return err_set(err, ERR_DENIED, "network host shares the machine's network with code "
                       "nobody has read; a policy that means it says i_know: true");
    return 0;
}

static int check_calls(const struct sandbox_spec *s, struct err *err)
{
    const char *why;
    if (s->n_calls > SANDBOX_CALLS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d system calls are added", SANDBOX_CALLS_MAX);
    for (uint32_t i = 0; i < s->n_calls; i++) {
        if (!ends(s->call[i], SANDBOX_CALL_BYTES))
            return err_set(err, ERR_PARSE, "the name of a system call does not end");
        if (!filter_may_allow(s->call[i], &why))
            return err_set(err, ERR_PARSE, "unsafe_allow: '%s' %s", s->call[i], why);
    }
    return 0;
}

int spec_check(struct sandbox_spec *s, struct err *err)
{
    int rc = check_enums(s, err);
    if (rc == 0 && !ends(s->workspace, sizeof s->workspace))
        rc = err_set(err, ERR_PARSE, "the workspace path does not end");
    if (rc == 0 && !ends(s->policy_hash, sizeof s->policy_hash))
        rc = err_set(err, ERR_PARSE, "the policy hash does not end");
    if (rc == 0 && strspn(s->policy_hash, "0123456789abcdef:") != strlen(s->policy_hash))
        rc = err_set(err, ERR_PARSE, "the policy hash is not one");
    if (rc == 0 && s->work != SANDBOX_WORK_TEMP && !spec_plain_path(s->workspace))
        rc = err_set(err, ERR_PARSE, "workspace '%.200s' must be an absolute path without . "
                     "or ..; resolve it first", s->workspace);
    if (rc == 0 && (s->n_binds > SANDBOX_BINDS_MAX || s->n_env > SANDBOX_ENV_MAX))
        rc = err_set(err, ERR_LIMIT, "more than %d paths or %d variables", SANDBOX_BINDS_MAX,
                     SANDBOX_ENV_MAX);
    if (rc == 0)
        rc = check_calls(s, err);
    for (uint32_t i = 0; rc == 0 && i < s->n_binds; i++)
        rc = check_bind(&s->bind[i], err);
    for (uint32_t i = 0; rc == 0 && i < s->n_env; i++)
        rc = check_env(s->env[i], err);
    return rc < 0 ? rc : check_limits(&s->limits, err);
}

static const char *const nets[] = {"none", "proxy", "host"};
static const char *const works[] = {"temp", "dir", "copy"};
static const char *const profiles[] = {"default", "debug", "strict"};
static const char *const landlocks[] = {"use", "required", "off"};

void spec_text(const struct sandbox_spec *s, struct buf *out)
{
    buf_printf(out, "require %s\nnetwork %s\nworkspace %s %s\nprofile %s\nlandlock %s\n",
               sandbox_level_name(s->require), nets[s->net], works[s->work],
               s->work == SANDBOX_WORK_TEMP ? "" : s->workspace, profiles[s->profile],
               landlocks[s->landlock]);
    for (const struct spec_limit *row = spec_limits; row->name; row++)
        buf_printf(out, "limit %s %llu\n", row->name,
                   (unsigned long long)spec_limit_get(&s->limits, row));
    for (uint32_t i = 0; i < s->n_binds; i++)
        buf_printf(out, "%s %s at %s%s%s\n", s->bind[i].write ? "write" : "read",
                   s->bind[i].host, s->bind[i].inside, s->bind[i].owned ? " as owner" : "",
                   s->bind[i].optional ? " if present" : "");
    for (uint32_t i = 0; i < s->n_env; i++)
        buf_printf(out, "env %.*s\n", (int)strcspn(s->env[i], "="), s->env[i]);
    for (uint32_t i = 0; i < s->n_calls; i++)
        buf_printf(out, "unsafe: system call %s is allowed\n", s->call[i]);
    if (s->log_calls)
        buf_puts(out, "refused system calls are reported\n");
}

const char *sandbox_limits_text(uint32_t limits, char *buf, unsigned cap)
{
    static const char *const names[] = {"wall", "memory", "tasks", "disk", "cpu"};
    unsigned at = 0;
    buf[0] = '\0';
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (!(limits & (1u << i)) || at + 10 > cap)
            continue;
        int n = snprintf(buf + at, cap - at, "%s%s", at ? "+" : "", names[i]);
        at += n > 0 ? (unsigned)n : 0;
    }
    return buf;
}
