/* test_store.c - the log: contiguous, committed before published, told twice the same. */
#include "test.h"

#include <unistd.h>

#include "agentd/id.h"
#include "agentd/place.h"
#include "agentd/store.h"
#include "base/mem.h"

struct fixture {
    char dir[128];
    struct store *st;
    struct buf seen; /* "seq:type " of what was published */
};

static void published(void *arg, const struct store_event *e)
{
    struct fixture *f = arg;
    buf_printf(&f->seen, "%lld:%.*s ", (long long)e->seq, STR_ARG(e->type));
}

static void reopen(struct fixture *f)
{
    struct err err;
    struct store_opts o = {.dir = f->dir};
    store_close(f->st);
    f->st = NULL;
    ASSERT_OK(store_open(&f->st, &o, &err), &err);
    store_on_commit(f->st, published, f);
}

static int setup(void **state)
{
    struct err err;
    struct fixture *f = mem_zalloc(sizeof *f);
    buf_init(&f->seen, 0);
    ASSERT_OK(place_private(f->dir, sizeof f->dir, &err), &err);
    reopen(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_close(f->st);
    place_remove(f->dir);
    buf_done(&f->seen);
    mem_free(f);
    return 0;
}

static void append(struct fixture *f, const char *session, int64_t seq, const char *type,
                   struct str data)
{
    struct err err;
    struct store_event e = {.session = str_c(session), .seq = seq, .ts = 1, .type = str_c(type),
                            .data = data, .turn = str_c("t")};
    ASSERT_OK(store_append(f->st, &e, NULL, &err), &err);
}

static bool count(void *arg, const struct store_event *e)
{
    int64_t *n = arg;
    assert_int_equal(e->seq, ++*n);
    return true;
}

static void test_commit_then_publish(void **state)
{
    struct fixture *f = *state;
    struct err err;
    int64_t n = 0;
    append(f, "s", 1, "session.created", STR("{\"uid\":0}"));
    append(f, "s", 2, "turn.started", STR("{}"));
    assert_int_equal(f->seen.len, 0); /* nothing is shown before it is on disk */
    ASSERT_OK(store_read(f->st, STR("s"), 0, false, count, &n, &err), &err);
    assert_int_equal(n, 0);
    ASSERT_OK(store_commit(f->st, &err), &err);
    assert_string_equal(buf_cstr(&f->seen), "1:session.created 2:turn.started ");
    reopen(f);
    ASSERT_OK(store_read(f->st, STR("s"), 0, false, count, &n, &err), &err);
    assert_int_equal(n, 2);
}

static void test_holes_are_refused(void **state)
{
    struct fixture *f = *state;
    struct err err;
    int64_t n = 0;
    append(f, "s", 1, "session.created", STR("{\"uid\":0}"));
    append(f, "s", 3, "warning", STR("{}"));
    ASSERT_ERR(store_commit(f->st, &err), ERR_CORRUPT, &err, "does not follow");
    assert_true(store_pending(f->st));
    assert_int_equal(f->seen.len, 0); /* all or nothing */
    reopen(f);
    ASSERT_OK(store_read(f->st, STR("s"), 0, false, count, &n, &err), &err);
    assert_int_equal(n, 0);
}

static bool check_blob(void *arg, const struct store_event *e)
{
    const struct buf *want = arg;
    if (e->seq == 2)
        assert_true(str_eq(e->data, buf_view(want)));
    return true;
}

static void test_large_data_lies_beside(void **state)
{
    struct fixture *f = *state;
    struct err err;
    struct buf big;
    buf_init(&big, 0);
    buf_puts(&big, "{\"x\":\"");
    for (int i = 0; i < 3 * STORE_INLINE; i++)
        buf_putc(&big, (char)('a' + i % 26));
    buf_puts(&big, "\"}");
    append(f, "s", 1, "session.created", STR("{\"uid\":0}"));
    append(f, "s", 2, "item.completed", buf_view(&big));
    ASSERT_OK(store_commit(f->st, &err), &err);
    reopen(f);
    ASSERT_OK(store_read(f->st, STR("s"), 0, false, check_blob, &big, &err), &err);
    buf_done(&big);
}

static void test_one_owner(void **state)
{
    struct fixture *f = *state;
    struct err err;
    struct store *second = NULL;
    struct store_opts o = {.dir = f->dir};
    ASSERT_ERR(store_open(&second, &o, &err), ERR_STATE, &err, "another agentd");
    assert_null(second);
}

static void test_same_key_same_answer(void **state)
{
    struct fixture *f = *state;
    struct err err;
    struct buf b;
    struct store_idem k = {.uid = 1, .scope = STR("s"), .key = STR("k"), .body = STR("{}"),
                           .result = STR("{\"a\":1}")};
    struct store_event e = {.session = STR("s"), .seq = 1, .ts = 1, .type = STR("session.created"),
                            .data = STR("{\"uid\":1}")};
    buf_init(&b, 0);
    assert_int_equal(store_idem(f->st, &k, &b, &err), 0);
    ASSERT_OK(store_append(f->st, &e, &k, &err), &err);
    ASSERT_OK(store_commit(f->st, &err), &err);
    assert_int_equal(store_idem(f->st, &k, &b, &err), 1);
    assert_string_equal(buf_cstr(&b), "{\"a\":1}");
    k.body = STR("{\"other\":1}");
    ASSERT_ERR(store_idem(f->st, &k, &b, &err), ERR_PARSE, &err, "different request");
    k.uid = 2; /* another user's key is another key */
    assert_int_equal(store_idem(f->st, &k, &b, &err), 0);
    buf_done(&b);
}

static void test_ids(void **state)
{
    char a[ID_TEXT], b[ID_TEXT];
    (void)state;
    id_new(a);
    id_new(b);
    assert_true(id_valid(str_c(a)) && strcmp(a, b) < 0); /* they sort as they were made */
    assert_int_equal(a[14], '7');
    assert_false(id_valid(STR("01a20c2f-4b02-7420-8224-b5af193b9b8g")));
    assert_false(id_valid(STR("")));
    id_new_call(a);
    id_new_call(b);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commit_then_publish, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_data_lies_beside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_key_same_answer, setup, teardown),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
