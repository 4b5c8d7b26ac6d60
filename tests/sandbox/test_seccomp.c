/*
 * test_seccomp.c - the compiled filter, executed by an interpreter of the classic BPF subset
 * that it uses, so that every rule is tried without loading it, for both architectures.
 */
#include "test.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "base/mem.h"
#include "sandbox/seccomp.h"

static uint32_t word_at(const struct seccomp_data *d, uint32_t k)
{
    uint32_t v;
    assert_true(k + 4 <= sizeof *d);
    memcpy(&v, (const char *)d + k, sizeof v);
    return v;
}

static uint32_t evaluate(const struct seccomp_prog *p, const struct seccomp_data *d)
{
    const struct sock_filter *f = (const void *)p->code;
    uint32_t a = 0;
    for (unsigned pc = 0; pc < p->n; pc++) {
        const struct sock_filter *i = &f[pc];
        bool jump = false;
        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS: a = word_at(d, i->k); continue;
        case BPF_ALU | BPF_AND | BPF_K: a &= i->k; continue;
        case BPF_JMP | BPF_JA: pc += i->k; continue;
        case BPF_RET | BPF_K: return i->k;
        case BPF_JMP | BPF_JEQ | BPF_K: jump = a == i->k; break;
        case BPF_JMP | BPF_JGT | BPF_K: jump = a > i->k; break;
        case BPF_JMP | BPF_JGE | BPF_K: jump = a >= i->k; break;
        case BPF_JMP | BPF_JSET | BPF_K: jump = (a & i->k) != 0; break;
        default: fail_msg("instruction %#x is not expected", i->code);
        }
        pc += jump ? i->jt : i->jf;
    }
    fail_msg("fell off the end");
    return 0;
}

static struct seccomp_prog compile(enum seccomp_arch arch, enum sandbox_profile profile,
                                   bool shared)
{
    struct seccomp_prog p = {0};
    struct err err = {0};
    struct seccomp_opts o = {.arch = arch, .profile = profile, .shared = shared};
    ASSERT_OK(filter_compile(&p, &o, &err), &err);
    return p;
}

struct attempt {
    int nr;
    uint64_t a[4];
    uint32_t want; /* action with its data */
};

#define ALLOW SECCOMP_RET_ALLOW
#define REFUSE(e) (SECCOMP_RET_ERRNO | (e))

static void try_all(const struct seccomp_prog *p, uint32_t arch, const struct attempt *t,
                    unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct seccomp_data d = {.nr = t[i].nr, .arch = arch};
        for (unsigned k = 0; k < 4; k++)
            d.args[k] = t[i].a[k];
        uint32_t got = evaluate(p, &d);
        if (got != t[i].want)
            fail_msg("row %u (call %d): %#x instead of %#x", i, t[i].nr, got, t[i].want);
    }
}

static void x86_64_by_argument(void **state)
{
    (void)state;
    struct seccomp_prog p = compile(SECCOMP_X86_64, SANDBOX_PROFILE_DEFAULT, false);
    const struct attempt rows[] = {
        {0, {0}, ALLOW} /* read */, {59, {0}, ALLOW} /* execve */,
        {56, {0x01200011}, ALLOW} /* fork */, {56, {0x10000011}, REFUSE(EPERM)},
        {56, {0x3d0f00}, ALLOW} /* a thread */, {56, {0x02000000}, REFUSE(EPERM)},
        {56, {0x100000000ull | 0x10000011}, REFUSE(EPERM)} /* high bits change nothing */,
        {41, {2}, ALLOW}, {41, {1}, ALLOW}, {41, {16, 3, 0}, ALLOW},
        {41, {16, 3, 15}, REFUSE(ENOSYS)}, {41, {40}, REFUSE(ENOSYS)} /* vsock */,
        {41, {17, 3}, REFUSE(ENOSYS)} /* packet */,
        {41, {0x100000028ull}, REFUSE(ENOSYS)}, {41, {0x100000002ull}, ALLOW},
        {16, {0, 0x5401}, ALLOW}, {16, {0, 0x5412}, REFUSE(ENOSYS)} /* TIOCSTI */,
        {16, {0, 0x100005412ull}, REFUSE(ENOSYS)}, {16, {0, 0x541c}, REFUSE(ENOSYS)},
        {90, {0, 0755}, ALLOW}, {90, {0, 04755}, REFUSE(EPERM)},
        {90, {0, 02755}, REFUSE(EPERM)}, {90, {0, 0x100000000ull | 04755}, REFUSE(EPERM)},
        {257, {0, 0, 0, 04755}, ALLOW} /* no O_CREAT: the mode is not looked at */,
        {257, {0, 0, 0100, 0644}, ALLOW}, {257, {0, 0, 0100, 04644}, REFUSE(EPERM)},
        {257, {0, 0, 020000000, 02644}, REFUSE(EPERM)} /* O_TMPFILE */,
        {133, {0, 0010644}, ALLOW} /* FIFO */, {133, {0, 0020644}, REFUSE(ENOSYS)} /* device */,
        {157, {15}, ALLOW}, {157, {35}, REFUSE(ENOSYS)} /* PR_SET_MM */,
        {135, {0}, ALLOW}, {135, {0xffffffff}, ALLOW}, {135, {0x40000}, REFUSE(ENOSYS)},
        {317, {1, 0}, ALLOW}, {317, {1, 8}, REFUSE(ENOSYS)} /* a listener */,
        {101, {16}, REFUSE(EPERM)} /* ptrace */, {272, {0x10000000}, REFUSE(EPERM)},
        {165, {0}, REFUSE(EPERM)} /* mount */, {435, {0}, REFUSE(ENOSYS)} /* clone3 */,
        {425, {0}, REFUSE(ENOSYS)} /* io_uring */, {437, {0}, REFUSE(ENOSYS)} /* openat2 */,
        {452, {0}, REFUSE(ENOSYS)} /* fchmodat2 */, {321, {0}, REFUSE(EPERM)} /* bpf */,
        {285, {0}, REFUSE(EOPNOTSUPP)} /* fallocate */, {302, {1}, REFUSE(ENOSYS)} /* prlimit64 */,
        {999, {0}, REFUSE(ENOSYS)}, {0x40000027, {0}, SECCOMP_RET_KILL_PROCESS} /* x32 */,
    };
    try_all(&p, AUDIT_ARCH_X86_64, rows, ARRAY_LEN(rows));
    const struct attempt foreign[] = {{20, {0}, SECCOMP_RET_KILL_PROCESS}};
    try_all(&p, AUDIT_ARCH_I386, foreign, 1);
    mem_free(p.code);
}

static void aarch64_has_the_same_rules(void **state)
{
    (void)state;
    struct seccomp_prog p = compile(SECCOMP_AARCH64, SANDBOX_PROFILE_DEFAULT, false);
    const struct attempt rows[] = {
        {63, {0}, ALLOW} /* read */, {221, {0}, ALLOW} /* execve */,
        {220, {0x01200011}, ALLOW}, {220, {0x10000011}, REFUSE(EPERM)},
        {198, {2}, ALLOW} /* socket */, {198, {17, 3}, REFUSE(ENOSYS)},
        {29, {0, 0x5412}, REFUSE(ENOSYS)}, {53, {0, 0, 04755}, REFUSE(EPERM)},
        {56, {0, 0, 0100, 04644}, REFUSE(EPERM)}, {117, {0}, REFUSE(EPERM)} /* ptrace */,
        {40, {0}, REFUSE(EPERM)} /* mount */, {435, {0}, REFUSE(ENOSYS)},
        {425, {0}, REFUSE(ENOSYS)},
    };
    try_all(&p, AUDIT_ARCH_AARCH64, rows, ARRAY_LEN(rows));
    const struct attempt foreign[] = {{20, {0}, SECCOMP_RET_KILL_PROCESS}};
    try_all(&p, AUDIT_ARCH_ARM, foreign, 1);
    mem_free(p.code);
}

static void profiles_differ_where_they_say(void **state)
{
    (void)state;
    struct seccomp_prog strict = compile(SECCOMP_X86_64, SANDBOX_PROFILE_STRICT, false);
    struct seccomp_prog debug = compile(SECCOMP_X86_64, SANDBOX_PROFILE_DEBUG, false);
    struct seccomp_prog one = compile(SECCOMP_X86_64, SANDBOX_PROFILE_DEFAULT, true);
    const struct attempt s[] = {{41, {1}, REFUSE(EPERM)}, {42, {0}, REFUSE(EPERM)},
                                {29, {0}, REFUSE(EPERM)} /* shmget */, {46, {0}, ALLOW}};
    const struct attempt d[] = {{101, {16}, ALLOW}, {135, {0x40000}, ALLOW}};
    const struct attempt o[] = {{302, {0}, ALLOW}, {302, {1}, REFUSE(ENOSYS)},
                                {41, {1}, REFUSE(EPERM)}, {53, {1, 1}, ALLOW} /* socketpair */};
    try_all(&strict, AUDIT_ARCH_X86_64, s, ARRAY_LEN(s));
    try_all(&debug, AUDIT_ARCH_X86_64, d, ARRAY_LEN(d));
    try_all(&one, AUDIT_ARCH_X86_64, o, ARRAY_LEN(o));
    mem_free(strict.code);
    mem_free(debug.code);
    mem_free(one.code);
}

/* Without namespaces what acts on others is refused, and modes are somebody else's to judge. */
static void without_namespaces_less_is_allowed(void **state)
{
    (void)state;
    struct seccomp_prog p = compile(SECCOMP_X86_64, SANDBOX_PROFILE_DEFAULT, true);
    const struct attempt rows[] = {
        {53, {1, 1}, ALLOW} /* a pair of streams */, {53, {1, 5}, ALLOW},
        {53, {1, 2}, REFUSE(ENOSYS)} /* datagrams can be sent to anybody */,
        {53, {1, 3}, REFUSE(ENOSYS)}, {53, {30, 1}, REFUSE(ENOSYS)} /* TIPC */,
        {53, {1, 0x80001}, ALLOW} /* close-on-exec */,
        {90, {0, 0755}, SECCOMP_RET_USER_NOTIF}, {91, {3, 0755}, SECCOMP_RET_USER_NOTIF},
        {268, {0, 0, 0755}, SECCOMP_RET_USER_NOTIF}, {280, {0}, SECCOMP_RET_USER_NOTIF},
        {92, {0}, REFUSE(EPERM)} /* chown */, {93, {3}, REFUSE(EPERM)}, {132, {0}, REFUSE(EPERM)},
        {188, {0}, REFUSE(EOPNOTSUPP)} /* setxattr */, {254, {3}, REFUSE(EPERM)} /* inotify */,
        {29, {0}, REFUSE(EPERM)} /* shmget */, {68, {0}, REFUSE(EPERM)} /* msgget */,
        {141, {0, 0}, ALLOW} /* setpriority of itself */, {141, {0, 77}, REFUSE(ENOSYS)},
        {141, {2, 0}, REFUSE(ENOSYS)} /* of a user */, {251, {1, 0}, ALLOW} /* ioprio_set */,
        {251, {3, 0}, REFUSE(ENOSYS)}, {203, {0}, ALLOW}, {203, {77}, REFUSE(ENOSYS)},
        {62, {77, 15}, ALLOW}, {62, {0xffffffff, 9}, ALLOW} /* scoped by Landlock */,
    };
    try_all(&p, AUDIT_ARCH_X86_64, rows, ARRAY_LEN(rows));
    mem_free(p.code);
    struct err err = {0};
    struct seccomp_opts o = {.arch = SECCOMP_X86_64, .shared = true, .unscoped = true};
    ASSERT_OK(filter_compile(&p, &o, &err), &err);
    const struct attempt old[] = {{62, {77, 15}, ALLOW}, {62, {0xffffffff, 9}, REFUSE(EPERM)},
                                  {62, {0xffffffb3, 9}, REFUSE(EPERM)} /* a group */};
    try_all(&p, AUDIT_ARCH_X86_64, old, ARRAY_LEN(old));
    mem_free(p.code);
}

/* What reports refuses the same calls; what a policy adds is allowed, and nothing beside it. */
static void reports_and_additions(void **state)
{
    (void)state;
    static const char add[][SANDBOX_CALL_BYTES] = {"chroot", "quotactl"};
    struct seccomp_opts o = {.arch = SECCOMP_X86_64, .report = true, .n_calls = 2, .call = add};
    struct seccomp_prog p, plain = compile(SECCOMP_X86_64, SANDBOX_PROFILE_DEFAULT, false);
    struct err err = {0};
    const char *why;
    ASSERT_OK(filter_compile(&p, &o, &err), &err);
    const struct attempt rows[] = {
        {161, {0}, ALLOW} /* chroot */, {179, {0}, ALLOW}, {165, {0}, SECCOMP_RET_USER_NOTIF},
        {0, {0}, ALLOW}, {90, {0, 04755}, SECCOMP_RET_USER_NOTIF}, {90, {0, 0755}, ALLOW},
        {56, {0x10000011}, SECCOMP_RET_USER_NOTIF}, {999, {0}, SECCOMP_RET_USER_NOTIF},
        {0x40000027, {0}, SECCOMP_RET_KILL_PROCESS},
    };
    try_all(&p, AUDIT_ARCH_X86_64, rows, ARRAY_LEN(rows));
    for (int nr = 0; nr < 470; nr++) { /* allowed by both or by neither, but for what was added */
        struct seccomp_data d = {.nr = nr, .arch = AUDIT_ARCH_X86_64};
        bool a = filter_ask(&p, &d) == ALLOW, b = filter_ask(&plain, &d) == ALLOW;
        assert_int_equal(evaluate(&plain, &d), filter_ask(&plain, &d));
        assert_true(a == b || nr == 161 || nr == 179);
    }
    mem_free(p.code);
    mem_free(plain.code);
    static const char *const never[] = {"socket", "clone", "clone3", "ioctl", "io_uring_setup",
                                        "nosuchcall", ""};
    for (unsigned i = 0; i < ARRAY_LEN(never); i++)
        assert_false(filter_may_allow(never[i], &why));
    assert_true(filter_may_allow("chroot", &why));
}

static void equal_options_give_equal_bytes(void **state)
{
    (void)state;
    struct seccomp_prog a = compile(SECCOMP_NATIVE, SANDBOX_PROFILE_DEFAULT, false);
    struct seccomp_prog b = compile(SECCOMP_NATIVE, SANDBOX_PROFILE_DEFAULT, false);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.code, b.code, (size_t)a.n * 8);
    assert_string_equal(a.hash, b.hash);
    mem_free(a.code);
    mem_free(b.code);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(x86_64_by_argument),
        cmocka_unit_test(aarch64_has_the_same_rules),
        cmocka_unit_test(profiles_differ_where_they_say),
        cmocka_unit_test(without_namespaces_less_is_allowed),
        cmocka_unit_test(reports_and_additions),
        cmocka_unit_test(equal_options_give_equal_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
