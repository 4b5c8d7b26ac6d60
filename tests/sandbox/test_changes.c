/* test_changes.c - a layer made by hand, with what the cell's filter would not have let be made. */
#include "test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/changes.h"

struct made {
    char dir[64];
    int upper, lower;
};

static void put(int dir, const char *name, const char *text, mode_t mode)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static struct made make(void)
{
    struct made m = {.dir = "/tmp/agentd-changes-XXXXXX"};
    struct err err = {0};
    char path[80];
    assert_non_null(mkdtemp(m.dir));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", m.dir, i ? "low" : "up");
        assert_int_equal(mkdir(path, 0755), 0);
        int fd = changes_open_lower(path, &err);
        assert_true(fd >= 0);
        *(i ? &m.lower : &m.upper) = fd;
    }
    return m;
}

static void drop(struct made *m)
{
    char command[96];
    close(m->upper);
    close(m->lower);
    snprintf(command, sizeof command, "rm -rf %s", m->dir);
    assert_int_equal(system(command), 0);
}

static bool all(void *arg, const struct change *c)
{
    (void)arg;
    (void)c;
    return true;
}

static void count(void *arg, const struct change *c, const char *why)
{
    (void)c;
    ((unsigned *)arg)[why != NULL]++;
}

static unsigned take(struct made *m, unsigned told[2])
{
    struct changes c;
    struct err err = {0};
    told[0] = told[1] = 0;
    ASSERT_OK(changes_list(&c, m->upper, m->lower, 0, &err), &err);
    const struct changes_take way = {all, count, told};
    changes_apply(&c, m->upper, m->lower, &way);
    unsigned n = c.n;
    changes_free(&c);
    return n;
}

/* A mode comes over without its set-id and sticky bits, by content or alone. */
static void set_id_bits_stay_behind(void **state)
{
    (void)state;
    struct made m = make();
    struct stat st;
    unsigned told[2];
    put(m.upper, "new", "x", 06755);
    put(m.upper, "same", "y", 04711);
    put(m.lower, "same", "y", 0600);
    assert_int_equal(mkdirat(m.upper, "dir", 0755), 0);
    assert_int_equal(fchmodat(m.upper, "dir", 03777, 0), 0);
    assert_int_equal(take(&m, told), 3);
    assert_int_equal(told[0], 3);
    static const struct {
        const char *name;
        mode_t mode;
    } want[] = {{"new", 0755}, {"same", 0711}, {"dir", 0777}};
    for (unsigned i = 0; i < ARRAY_LEN(want); i++) {
        assert_int_equal(fstatat(m.lower, want[i].name, &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_int_equal(st.st_mode & 07777, want[i].mode);
    }
    drop(&m);
}

/* Links in either tree lead nowhere, pipes hold nobody up. */
static void nothing_is_followed(void **state)
{
    (void)state;
    struct made m = make();
    struct stat st;
    unsigned told[2];
    char out[96];
    snprintf(out, sizeof out, "%s/out", m.dir);
    assert_int_equal(mkdir(out, 0755), 0);
    assert_int_equal(symlinkat(out, m.lower, "d"), 0); /* a person's, where a folder comes */
    assert_int_equal(mkdirat(m.upper, "d", 0755), 0);
    put(m.upper, "d/f", "x", 0644);
    assert_int_equal(symlinkat("/etc/passwd", m.upper, "l"), 0);
    assert_int_equal(mkfifoat(m.upper, "p", 0644), 0);
    assert_int_equal(mkfifoat(m.lower, "q", 0644), 0);
    put(m.upper, "q", "", 0644);
    (void)take(&m, told);
    assert_int_equal(told[1], 1); /* the pipe */
    snprintf(out, sizeof out, "%s/out/f", m.dir);
    assert_true(lstat(out, &st) < 0);
    assert_true(fstatat(m.lower, "d", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode));
    assert_true(fstatat(m.lower, "l", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode));
    assert_true(fstatat(m.lower, "q", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode));
    assert_true(fstatat(m.lower, "p", &st, AT_SYMLINK_NOFOLLOW) < 0);
    drop(&m);
}

static void what_is_seen_inside(void **state)
{
    (void)state;
    struct made m = make();
    assert_int_equal(mkdirat(m.lower, "d", 0755), 0);
    put(m.lower, "d/below", "x", 0644);
    put(m.lower, "gone", "x", 0644);
    assert_int_equal(mkdirat(m.upper, "d", 0755), 0);
    put(m.upper, "d/above", "x", 0644);
    put(m.upper, "file", "x", 0644);
    bool root = mknodat(m.upper, "gone", S_IFCHR, 0) == 0;
    static const char *const there[] = {"d", "d/below", "d/above", "file"};
    static const char *const absent[] = {"x", "d/x", "file/x", "../up/file", "/etc/passwd", "d/../../up"};
    for (unsigned i = 0; i < ARRAY_LEN(there); i++)
        assert_true(changes_has(m.upper, m.lower, there[i]));
    for (unsigned i = 0; i < ARRAY_LEN(absent); i++)
        assert_false(changes_has(m.upper, m.lower, absent[i]));
    assert_int_equal(changes_has(m.upper, m.lower, "gone"), !root);
    assert_true(changes_has(-1, m.lower, "gone"));
    assert_false(changes_has(-1, m.lower, "d/above"));
    drop(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_id_bits_stay_behind),
        cmocka_unit_test(nothing_is_followed),
        cmocka_unit_test(what_is_seen_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
