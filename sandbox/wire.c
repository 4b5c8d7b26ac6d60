/* wire.c - sending and receiving one checked datagram with descriptors. */
#include "sandbox/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

int wire_send_raw(int fd, const void *head, size_t n_head, const void *blob, size_t n_blob,
                  const int *fds, unsigned n_fds, int flags)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec iov[2] = {{(void *)(uintptr_t)head, n_head},
                           {(void *)(uintptr_t)blob, n_blob}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = n_blob ? 2 : 1};
    if (n_fds > WIRE_FDS_MAX) {
        errno = EINVAL;
        return -1;
    }
    if (n_fds) {
        memset(&control, 0, sizeof control);
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
    }
    ssize_t n;
    do {
        n = sendmsg(fd, &m, MSG_NOSIGNAL | flags);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : 0;
}

int wire_send(int fd, const struct wire *w, const void *blob, const int *fds, unsigned n_fds)
{
    return wire_send_raw(fd, w, sizeof *w, blob, w->blob, fds, n_fds, 0);
}

static void take_fds(struct msghdr *m, int fds[WIRE_FDS_MAX], unsigned *n_fds)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (*n_fds < WIRE_FDS_MAX)
                fds[(*n_fds)++] = fd;
            else
                close(fd);
        }
    }
}

void wire_drop(int fds[WIRE_FDS_MAX], unsigned *n_fds)
{
    while (*n_fds > 0) {
        close(fds[--*n_fds]);
        fds[*n_fds] = -1;
    }
}

int wire_recv_raw(int fd, void *head, size_t n_head, void *buf, size_t cap, size_t *n_blob,
                  int fds[WIRE_FDS_MAX], unsigned *n_fds, int flags)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec iov[2] = {{head, n_head}, {buf, cap}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = cap ? 2 : 1,
                       .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    *n_fds = 0;
    for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
        fds[i] = -1;
    ssize_t n;
    do {
        n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | flags);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return (int)n;
    take_fds(&m, fds, n_fds);
    if ((size_t)n >= n_head && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        *n_blob = (size_t)n - n_head;
        return 1;
    }
    wire_drop(fds, n_fds);
    errno = EPROTO;
    return -1;
}

int wire_recv(int fd, struct wire *w, void *buf, size_t cap, int fds[WIRE_FDS_MAX],
              unsigned *n_fds)
{
    size_t blob = 0;
    int rc = wire_recv_raw(fd, w, sizeof *w, buf, cap, &blob, fds, n_fds, 0);
    if (rc == 1 && blob != w->blob) {
        wire_drop(fds, n_fds);
        errno = EPROTO;
        return -1;
    }
    return rc;
}
