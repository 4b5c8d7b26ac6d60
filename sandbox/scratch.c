/*
 * scratch.c - the folder that stands for /tmp where no mount can: made by the spawner below the
 * host's /tmp, emptied by descriptor without following links, and swept when its maker is dead,
 * together with whoever of its cell is still there.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "sandbox/build.h"
#include "sandbox/sys.h"

enum { ROUNDS = 2000000 };

void scratch_name(char out[SANDBOX_PATH_MAX], unsigned serial)
{
    char name[LIMITS_NAME];
    limits_name(name, "tmp", serial);
    snprintf(out, SANDBOX_PATH_MAX, SCRATCH_ROOT "/%s", name);
}

static int make_folder(int dir, const char *name, uid_t uid, gid_t gid)
{
    if (mkdirat(dir, name, 0700) < 0)
        return -1;
    return uid != geteuid() ? fchownat(dir, name, uid, gid, AT_SYMLINK_NOFOLLOW) : 0;
}

int scratch_make(struct build *b)
{
    const char *path = b->host->scratch;
    uid_t uid = b->plan->uid;
    gid_t gid = b->plan->gid;
    if (mkdir(path, 0700) < 0)
        return -1;
    b->scratch = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (b->scratch < 0 || make_folder(b->scratch, "home", uid, gid) < 0 ||
        make_folder(b->scratch, "work", uid, gid) < 0 ||
        (uid != geteuid() && fchown(b->scratch, uid, gid) < 0)) {
        int saved = errno;
        scratch_remove(path);
        errno = saved;
        return -1;
    }
    return 0;
}

/* A folder by its own descriptor, made ours to empty; -1 for anything else. No link is followed,
 * whoever may still be at work there. */
static int open_own(int dir, const char *name)
{
    char self[40];
    int fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    (void)!chmod(self, 0700);
    int in = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(fd);
    return in;
}

/* Removes what is in a folder of `top`, and moves the folders in it up to `top`, so that no
 * depth is too deep; with dir < 0 does the first for `top` and this for each folder there.
 * True when something was done. */
static bool level_out(int top, int dir, unsigned *serial)
{
    int fd = openat(dir < 0 ? top : dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    bool some = false;
    if (!d)
        io_close(&fd);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, e->d_name, 0) == 0 || unlinkat(fd, e->d_name, AT_REMOVEDIR) == 0) {
            some = true;
            continue;
        }
        int in = open_own(fd, e->d_name);
        if (in >= 0 && dir < 0) {
            some |= level_out(top, in, serial);
        } else if (in >= 0) {
            char name[24];
            snprintf(name, sizeof name, ".%u", ++*serial);
            some |= renameat(fd, e->d_name, top, name) == 0;
        }
        io_close(&in);
    }
    if (d)
        closedir(d);
    return some;
}

void scratch_remove(const char *path)
{
    int top = open_own(AT_FDCWD, path);
    unsigned serial = 0;
    if (top < 0)
        return;
    for (unsigned round = 0; round < ROUNDS && level_out(top, -1, &serial); round++)
        ;
    close(top);
    rmdir(path);
}

void scratch_sweep(void)
{
    DIR *d = opendir(SCRATCH_ROOT);
    struct stat st;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[sizeof SCRATCH_ROOT + sizeof e->d_name];
        if (!str_starts(str_c(e->d_name), STR("agentd-tmp-")) || !limits_stale(e->d_name))
            continue;
        snprintf(path, sizeof path, SCRATCH_ROOT "/%s", e->d_name);
        if (lstat(path, &st) < 0 || (geteuid() != 0 && st.st_uid != geteuid()))
            continue;
        mark_kill(path);
        scratch_remove(path);
    }
    if (d)
        closedir(d);
}
