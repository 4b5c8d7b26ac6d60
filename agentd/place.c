/* place.c - default places. */
#include "agentd/place.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

static int format(char *out, size_t size, struct err *err, const char *fmt, const char *dir)
{
    int n = snprintf(out, size, "%s%s", dir, fmt);
    return n < 0 || (size_t)n >= size ? err_set(err, ERR_LIMIT, "path '%s%s' is too long", dir, fmt)
                                      : 0;
}

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v == '/' ? v : NULL;
}

int place_state(char *out, size_t size, struct err *err)
{
    if (env("STATE_DIRECTORY"))
        return format(out, size, err, "", env("STATE_DIRECTORY"));
    if (env("XDG_STATE_HOME"))
        return format(out, size, err, "/agentd", env("XDG_STATE_HOME"));
    if (env("HOME"))
        return format(out, size, err, "/.local/state/agentd", env("HOME"));
    return err_set(err, ERR_NOTFOUND, "neither XDG_STATE_HOME nor HOME is set; say store.dir");
}

int place_socket(char *out, size_t size, struct err *err)
{
    struct stat sb;
    char dir[4096];
    if (env("RUNTIME_DIRECTORY"))
        return format(out, size, err, "/agentd.sock", env("RUNTIME_DIRECTORY"));
    if (env("XDG_RUNTIME_DIR"))
        return format(out, size, err, "/agentd/agentd.sock", env("XDG_RUNTIME_DIR"));
    int rc = place_state(dir, sizeof dir, err);
    if (rc == 0)
        rc = io_make_dirs(dir, 0700, err);
    if (rc < 0)
        return err_prefix(err, "XDG_RUNTIME_DIR is not set");
    if (stat(dir, &sb) < 0)
        return err_sys(err, "stat '%s'", dir);
    if (sb.st_uid != getuid() || (sb.st_mode & 077))
        return err_set(err, ERR_DENIED, "'%s' must belong to us with mode 0700 to hold the socket",
                       dir);
    return format(out, size, err, "/agentd.sock", dir);
}

int place_private(char *out, size_t size, struct err *err)
{
    const char *at = env("XDG_RUNTIME_DIR") ? env("XDG_RUNTIME_DIR")
                     : env("TMPDIR")        ? env("TMPDIR")
                                            : "/tmp";
    if (access(at, W_OK) < 0)
        at = "/tmp";
    int rc = format(out, size, err, "/agentd-private-XXXXXX", at);
    if (rc == 0 && !mkdtemp(out))
        rc = err_sys(err, "make a folder '%s'", out);
    return rc;
}

static int remove_one(const char *path, const struct stat *sb, int kind, struct FTW *f)
{
    (void)sb;
    (void)kind;
    (void)f;
    remove(path);
    return 0;
}

void place_remove(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
