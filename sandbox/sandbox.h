/*
 * sandbox.h - the face of the sandbox: what is allowed (spec), what was kept or refused,
 * and how a call ended. It knows no tool and no YAML.
 *
 * Words: a *cell* is one session's set of namespaces, mounts, limits and a pid 1 of ours;
 * a *run* is one program started inside it; a *call* is a tool use, which begins, makes
 * any number of runs, and ends with everything dead but pid 1 and the runs that are kept.
 *
 * All structs here are plain data without pointers, so that a request is one datagram
 * whose every field the spawner checks before it acts.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sandbox/level.h"

/* Fixed places inside every cell. */
#define SANDBOX_WORKSPACE "/workspace" /* the session's directory, read-write */
#define SANDBOX_TOOL_DIR "/agentd"     /* our own files, read-only */
#define SANDBOX_TOOL SANDBOX_TOOL_DIR "/agentd-tool" /* the tools' binary, executable */
#define SANDBOX_HOME "/tmp/home" /* HOME: on the session's own tmpfs */
#define SANDBOX_PATH_VAR "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
#define SANDBOX_CONTROL_FD 100  /* where a run finds its control socket, if it got one */
#define SANDBOX_PROXY_PORT 3128 /* on the cell's own 127.0.0.1, mode proxy only */

enum {
    SANDBOX_PATH_MAX = 1024, /* bytes of a path, its NUL included */
    SANDBOX_BINDS_MAX = 24,  /* paths a policy may add */
    SANDBOX_ENV_MAX = 32,    /* variables a policy may add */
    SANDBOX_ENV_BYTES = 512, /* NAME=value, its NUL included */
    SANDBOX_CALLS_MAX = 16,  /* system calls a policy may add */
    SANDBOX_CALL_BYTES = 32, /* of a name, its NUL included */
};

enum sandbox_net { SANDBOX_NET_NONE, SANDBOX_NET_PROXY, SANDBOX_NET_HOST };
enum sandbox_work {
    SANDBOX_WORK_TEMP, /* a tmpfs of the cell's own; gone with it */
    SANDBOX_WORK_DIR,  /* a directory of the host, edited in place */
    SANDBOX_WORK_COPY, /* the directory below, a size-limited tmpfs above */
};
enum sandbox_profile {
    SANDBOX_PROFILE_DEFAULT, /* build and run ordinary programs */
    SANDBOX_PROFILE_DEBUG,   /* also ptrace within the cell: gdb, strace */
    SANDBOX_PROFILE_STRICT,  /* computation only: no sockets, no IPC */
};
enum sandbox_landlock {
    SANDBOX_LANDLOCK_USE,
    SANDBOX_LANDLOCK_NEED,
    SANDBOX_LANDLOCK_OFF
};

/* A path of the host shown inside; `inside` empty = the same path. */
struct sandbox_bind {
    char host[SANDBOX_PATH_MAX];
    char inside[SANDBOX_PATH_MAX];
    bool write;    /* read-write; default read-only */
    bool optional; /* leave it out when the host lacks it */
    bool owned;    /* its owner's files are the payload's: private folders can be read */
};

/* 0 = the default of the table in spec.c, which --explain-policy prints. */
struct sandbox_limits {
    uint64_t memory_bytes; /* whole cell */
    uint64_t tmp_bytes; /* each of /tmp and /dev/shm, and of a temp or copy workspace */
    uint64_t tmp_inodes;
    uint64_t disk_bytes; /* growth of a dir workspace */
    uint64_t disk_inodes;
    uint64_t file_bytes;  /* RLIMIT_FSIZE */
    uint32_t tasks;       /* processes and threads of the cell */
    uint32_t cpu_percent; /* 100 = one processor */
    uint32_t cpu_seconds; /* RLIMIT_CPU of each process */
    uint32_t open_files;
};

struct sandbox_spec {
    enum sandbox_level require; /* least level accepted */
    enum sandbox_net net;
    bool net_host_known; /* net host without this is refused */
    enum sandbox_work work;
    char workspace[SANDBOX_PATH_MAX]; /* absolute; unused for temp */
    enum sandbox_profile profile;
    enum sandbox_landlock landlock;
    struct sandbox_limits limits;
    uint32_t n_binds, n_env;
    struct sandbox_bind bind[SANDBOX_BINDS_MAX];
    char env[SANDBOX_ENV_MAX][SANDBOX_ENV_BYTES];
    bool log_calls; /* refused system calls are reported by name */
    uint32_t n_calls;
    char call[SANDBOX_CALLS_MAX][SANDBOX_CALL_BYTES]; /* allowed though the filter would not */
    char policy_hash[72]; /* for the record: which policy this came from */
    uint64_t session;     /* cells with the same one, but 0, share what a workspace may grow by */
};

/* Why a cell was not made, for the person and for the program. */
struct sandbox_refusal {
    enum sandbox_level offered; /* what this host could give */
    char step[32];              /* the plan's step that failed: "userns", "idmap", ... */
    int sys;                    /* errno of that step, 0 if none */
    char reason[320];
    char remedy[320];
};

enum sandbox_limit { /* which limit ended or hurt a run; bits */
                     SANDBOX_LIMIT_WALL = 1,
                     SANDBOX_LIMIT_MEMORY = 2,
                     SANDBOX_LIMIT_TASKS = 4,
                     SANDBOX_LIMIT_DISK = 8,
                     SANDBOX_LIMIT_CPU = 16,
};

/* How a run ended. */
struct sandbox_exit {
    int code;        /* exit status, or -1 when a signal ended it or it never started */
    int signal;      /* the signal, or 0 */
    uint32_t limits; /* enum sandbox_limit bits */
    bool failed;     /* it never started: `step` and `sys` say why */
    bool lost;       /* the cell died under it */
    char step[32];   /* "exec", "landlock", ... when failed */
    int sys;
    int64_t wall_ns, user_ns, system_ns;
    uint64_t max_rss_bytes;
};

/* What stays of a run when a call ends. Everything else in the cell is killed. */
enum sandbox_keep {
    SANDBOX_KEEP_NONE,
    SANDBOX_KEEP_SELF,     /* the process that the run started */
    SANDBOX_KEEP_CHILDREN, /* that, and its direct children (a driver and its shell) */
    SANDBOX_KEEP_TREE,     /* that, and all descendants by parent pid (a job) */
};

/* "wall", "memory", ... joined with '+', for records; at most `cap` bytes, returns buf.
 */
const char *sandbox_limits_text(uint32_t limits, char *buf, unsigned cap);

#endif
