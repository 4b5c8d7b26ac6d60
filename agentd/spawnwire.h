/*
 * spawnwire.h - datagrams between the daemon and its spawner over one SOCK_SEQPACKET pair:
 * a fixed header, a blob whose size the header states, and up to four descriptors.
 */
#ifndef AGENTD_SPAWNWIRE_H
#define AGENTD_SPAWNWIRE_H

#include "sandbox/sandbox.h"
#include "sandbox/wire.h"

enum { SPAWN_SOCKET = 3, SPAWN_BLOB_MAX = WIRE_BLOB_MAX };

enum spawn_kind {
    /* to the spawner */
    SPAWN_HELLO = 64, /* blob: struct spawn_hello */
    SPAWN_OPEN,       /* blob: struct sandbox_spec */
    SPAWN_RUN,        /* blob as WIRE_RUN; a: wall_ms; descriptors */
    SPAWN_BEGIN,
    SPAWN_END,        /* a: freeze */
    SPAWN_KEEP,       /* a: enum sandbox_keep */
    SPAWN_SIGNAL,     /* a: signal, b: tree */
    SPAWN_CLOSE,
    /* from the spawner */
    SPAWN_OPENED = 96, /* a: level; blob: record; fds: which of SPAWN_FD_* follow */
    SPAWN_REFUSED,     /* blob: struct sandbox_refusal */
    SPAWN_EXITED,      /* blob: struct sandbox_exit */
    SPAWN_ENDED,       /* blob: struct spawn_ended */
    SPAWN_GONE,        /* blob: why */
    SPAWN_CLOSED,
    SPAWN_CALL, /* a refused system call; blob: its name, max_rss: how often by now */
};

enum { SPAWN_FD_LISTENER = 1, SPAWN_FD_LAYER = 2 };

struct spawn_hello {
    char tool[SANDBOX_PATH_MAX];
    char state_dir[SANDBOX_PATH_MAX];
    uint32_t uid_base;
};

struct spawn_ended {
    uint32_t killed, kept, limits, pad;
    uint64_t memory_peak_bytes, cpu_ns;
};

/* The header: struct wire and the cell's number; sent with wire_send_raw(). */
struct spawn_msg {
    uint32_t cell, pad;
    struct wire w;
};

#endif
