/*
 * wire.h - datagrams between the spawner and pid 1 of a cell, over one SOCK_SEQPACKET pair.
 * Requests carry descriptors; whoever answers is our own code before any exec.
 */
#ifndef SANDBOX_WIRE_H
#define SANDBOX_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum wire_kind {
    /* to pid 1 */
    WIRE_GO = 1, /* the id maps are written */
    WIRE_RUN,    /* descriptors; blob: cwd, argv..., env..., each with its NUL */
    WIRE_BEGIN,  /* continue what is stopped */
    WIRE_END,    /* a: freeze; run: if not 0 no longer kept */
    WIRE_KEEP,   /* a: enum sandbox_keep, b: a process below which nobody is kept */
    WIRE_SIGNAL, /* a: signal, b: the tree */
    WIRE_STOP,   /* stops everything where it is */
    WIRE_KILL,   /* everything but pid 1 */
    /* from pid 1 */
    WIRE_READY = 32, /* fds: which of /proc, the proxy's listener, the copy's upper, mounts */
    WIRE_FAULT,      /* a: errno, step; run 0 = the cell, b: the plan's step */
    WIRE_EXITED,     /* a: wait status, and the times */
    WIRE_ENDED,      /* a: killed, b: kept */
    WIRE_REFUSED,    /* a system call: a: number, step: name, max_rss: how often by now */
};

enum { WIRE_BLOB_MAX = 128 * 1024, WIRE_FDS_MAX = 4 };

struct wire {
    uint32_t kind, run;
    int32_t a, b;
    uint32_t n_argv, n_env, fds, keep; /* fds: which of stdin, stdout, stderr, control follow */
    uint32_t cpu_seconds, blob;        /* blob: bytes that follow the header */
    int64_t user_ns, system_ns;
    uint64_t max_rss;
    char step[32];
};

/* One datagram. Returns 0, or -1 with errno (EAGAIN on a non-blocking socket). */
int wire_send(int fd, const struct wire *w, const void *blob, const int *fds, unsigned n_fds);
/* Blob into buf of `cap` bytes; descriptors (close-on-exec) into fds, -1 where none. Returns
 * 1, 0 at end of file, -1 with errno; EPROTO when the datagram is not one of ours. */
int wire_recv(int fd, struct wire *w, void *buf, size_t cap, int fds[WIRE_FDS_MAX],
              unsigned *n_fds);

/* Closes received descriptors. */
void wire_drop(int fds[WIRE_FDS_MAX], unsigned *n_fds);
/* The same for any fixed header. flags as for sendmsg and recvmsg. */
int wire_send_raw(int fd, const void *head, size_t n_head, const void *blob, size_t n_blob,
                  const int *fds, unsigned n_fds, int flags);
/* Returns the number of bytes after the header (*n_blob) and 1, 0 or -1 as wire_recv. */
int wire_recv_raw(int fd, void *head, size_t n_head, void *buf, size_t cap, size_t *n_blob,
                  int fds[WIRE_FDS_MAX], unsigned *n_fds, int flags);

#endif
