/*
 * seccomp.h - the system calls that code inside may make: an allow list compiled to BPF.
 * What is not named gets ENOSYS, so that libc falls back; what is known to be dangerous gets
 * EPERM; a foreign calling convention kills the process.
 */
#ifndef SANDBOX_SECCOMP_H
#define SANDBOX_SECCOMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sandbox/sandbox.h"

enum seccomp_arch { SECCOMP_NATIVE, SECCOMP_X86_64, SECCOMP_AARCH64 };

/* What a filter depends on; equal options give equal bytes. */
struct seccomp_opts {
    enum seccomp_arch arch;
    enum sandbox_profile profile;
    bool shared;    /* no namespaces below: the host's processes and IPC are in reach */
    bool unscoped;  /* and signals too, because Landlock cannot hold them */
    bool clerk;     /* for clerk.c: it answers notifications, and itself meets none */
    bool report;    /* what would be refused is a notification */
    uint32_t n_calls; /* names of calls allowed as a whole, borrowed */
    const char (*call)[SANDBOX_CALL_BYTES];
};

/* Instructions as the kernel takes them, 8 bytes each; owned, mem_free(prog->code). */
struct seccomp_prog {
    uint8_t *code;
    uint16_t n;
    char hash[17]; /* of the bytes, for the record */
};

NODISCARD int filter_compile(struct seccomp_prog *out, const struct seccomp_opts *o,
                              struct err *err);
/* Loads it for the calling thread, which has no_new_privs. Returns 0 or -1 with errno. */
NODISCARD int filter_load(const struct seccomp_prog *prog);

/* The same with notifications: returns the listener's descriptor, or -1 with errno. */
NODISCARD int filter_load_listener(const struct seccomp_prog *prog);

/* What a program says about a call: SECCOMP_RET_* with its data. */
struct seccomp_data;
uint32_t filter_ask(const struct seccomp_prog *prog, const struct seccomp_data *call);
/* Whether a policy may allow this call as a whole; else *why says why not, in words. */
bool filter_may_allow(const char *name, const char **why);
/* A call's name, or "call N" for one without; at most `cap` bytes, returns buf. */
const char *filter_call_name(int nr, char *buf, size_t cap);

/* Every name in the tables, for the test that each resolves; NULL past the end. */
const char *filter_name_at(unsigned i);

#endif
