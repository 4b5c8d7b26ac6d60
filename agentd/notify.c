/* notify.c - sd_notify(3) and sd_listen_fds(3) in a page. */
#include "agentd/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"
#include "base/str.h"

void notify_send(const char *lines)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof a.sun_path)
        return;
    memcpy(a.sun_path, path, strlen(path));
    if (*path == '@')
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    ssize_t n = sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (struct sockaddr *)&a, len);
    (void)n; /* a manager that does not listen must not stop us */
    close(fd);
}

void notify_reloading(void)
{
    char text[80];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, io_mono_ns() / 1000);
    notify_send(text);
}

static void ping(void *arg)
{
    (void)arg;
    notify_send("WATCHDOG=1");
}

int notify_watchdog(struct ev_timer **out, struct ev *ev, struct err *err)
{
    int64_t usec = 0, pid = getpid();
    const char *p = getenv("WATCHDOG_PID");
    if (!str_to_i64(str_c(getenv("WATCHDOG_USEC")), &usec) || usec <= 0)
        return 0;
    if (p && (!str_to_i64(str_c(p), &pid) || pid != getpid()))
        return 0;
    int rc = ev_timer_new(out, ev, ping, NULL, err);
    if (rc == 0)
        ev_timer_start(*out, usec * 500, usec * 500);
    return rc;
}

static bool listening(int fd)
{
    int type = 0, domain = 0, accepting = 0;
    socklen_t n = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &n) == 0 && accepting;
}

int notify_listener(const char *name, int *fd, struct err *err)
{
    int64_t pid = 0, n = 0;
    const char *names = getenv("LISTEN_FDNAMES");
    struct str rest = str_c(names ? names : ""), one = {0};
    int rc = 0;
    *fd = -1;
    if (str_to_i64(str_c(getenv("LISTEN_PID")), &pid) && pid == getpid() &&
        str_to_i64(str_c(getenv("LISTEN_FDS")), &n)) {
        for (int i = 0; rc == 0 && i < n && i < 64; i++) {
            bool named = str_split(&rest, ':', &one);
            fcntl(3 + i, F_SETFD, FD_CLOEXEC);
            if (*fd >= 0 || (named && !str_is(one, name) && !str_is(one, "unknown")))
                continue;
            *fd = 3 + i;
            if (!listening(*fd))
                rc = err_set(err, ERR_UNSUPPORTED,
                             "descriptor %d passed for '%s' is not a listening Unix socket", 3 + i,
                             name);
        }
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return rc;
}
