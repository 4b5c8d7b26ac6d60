/*
 * workspace.c - for serving outside a cell: a mount namespace of our own whose root is the
 * host's with one more folder, /workspace. Paths in results are then those of a cell. This
 * confines nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "tools/serve.h"

static int write_text(const char *path, const char *text, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    int rc = io_write_full(fd, text, strlen(text), err);
    close(fd);
    return rc;
}

static int new_namespace(struct err *err)
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWNS) == 0)
        return 0;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return err_sys(err, "a mount namespace of our own");
    int rc = write_text("/proc/self/setgroups", "deny", err);
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    if (rc == 0)
        rc = write_text("/proc/self/uid_map", map, err);
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    return rc == 0 ? write_text("/proc/self/gid_map", map, err) : rc;
}

/* Binds one entry of the old root into the new one. */
static int carry_over(const char *name, const char *root, struct err *err)
{
    char from[PATH_MAX], to[PATH_MAX], link[PATH_MAX];
    struct stat st;
    snprintf(from, sizeof from, "/%s", name);
    if (snprintf(to, sizeof to, "%s/%s", root, name) >= (int)sizeof to ||
        lstat(from, &st) < 0)
        return 0;
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(from, link, sizeof link - 1);
        link[n > 0 ? n : 0] = '\0';
        return n > 0 && symlink(link, to) < 0 ? err_sys(err, "link '%s'", to) : 0;
    }
    if (!S_ISDIR(st.st_mode))
        return 0;
    if (mkdir(to, 0755) < 0 || mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
        return err_sys(err, "bind '%s'", from);
    return 0;
}

int workspace_enter(struct err *err)
{
    char root[] = "/tmp/agentd-root.XXXXXX";
    int rc = new_namespace(err);
    if (rc < 0)
        return rc;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_sys(err, "private mounts");
    if (!mkdtemp(root))
        return err_sys(err, "a folder for the new root");
    if (mount("none", root, "tmpfs", 0, "size=1m") < 0)
        rc = err_sys(err, "a new root");
    DIR *d = rc == 0 ? opendir("/") : NULL;
    for (struct dirent *e; d && rc == 0 && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") &&
            strcmp(e->d_name, "workspace"))
            rc = carry_over(e->d_name, root, err);
    if (d)
        closedir(d);
    if (rc == 0 && (chdir(root) < 0 || mkdir("workspace", 0755) < 0 ||
                    syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
                    chdir("/") < 0))
        rc = err_sys(err, "enter the new root");
    umount2(root, MNT_DETACH); /* the new root's /tmp has the old one's mounts */
    rmdir(root);
    return rc;
}

int workspace_show(const char *folder, struct err *err)
{
    umount2("/workspace", MNT_DETACH);
    if (mount(folder, "/workspace", NULL, MS_BIND | MS_REC, NULL) < 0)
        return err_sys(err, "show '%s' at /workspace", folder);
    return 0;
}
