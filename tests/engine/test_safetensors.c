/*
 * test_safetensors.c - safetensors files by hand: headers, offsets, shards and the index,
 * block scales in every form they come in, and what each kind of damage is called.
 */
#include "test.h"

#include <unistd.h>

#include "base/io.h"
#include "engine/quant/quant.h"
#include "engine/safetensors.h"
#include "engine/weights_list.h"

static char dir[64];

/* header length, header, n bytes of data (0, 1, 2, ...) */
static struct buf build(const char *header, size_t n)
{
    struct buf b;
    uint64_t len = strlen(header);
    buf_init(&b, 0);
    buf_add(&b, &len, 8);
    buf_puts(&b, header);
    for (size_t i = 0; i < n; i++)
        buf_putc(&b, (char)i);
    return b;
}

static int parse(const char *header, size_t n, struct err *err)
{
    struct tensors list;
    struct arena arena;
    struct buf b = build(header, n);
    tensors_init(&list);
    arena_init(&arena, 0);
    int rc = safetensors_parse(&list, b.data, b.len, err);
    if (rc == 0)
        rc = safetensors_attach_scales(&list, &arena, err);
    tensors_done(&list);
    arena_done(&arena);
    buf_done(&b);
    return rc;
}

#define T(name, dtype, shape, from, to)                                                  \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void a_good_header(void **state)
{
    (void)state;
    struct err err = {0};
    struct tensors list;
    struct buf b = build("{\"__metadata__\":{\"format\":\"pt\"}," T("a", "F32", "[2,3]", "0", "24") ","
                         T("s", "BF16", "[]", "24", "26") "," T("i", "I64", "[1]", "26", "34")
                         "  }   ", 34);
    tensors_init(&list);
    ASSERT_OK(safetensors_parse(&list, b.data, b.len, &err), &err);
    assert_int_equal(list.n, 3);
    const struct tensor *a = tensors_find(&list, "a"), *s = tensors_find(&list, "s");
    assert_true(a->n_dims == 2 && a->ne[0] == 3 && a->ne[1] == 2 && a->row_bytes == 12);
    assert_int_equal(((const uint8_t *)a->data)[1], 1);
    assert_true(s->n_dims == 1 && s->ne[0] == 1 && s->bytes == 2);
    assert_null(quant_traits(tensors_find(&list, "i")->type));
    tensors_done(&list);
    buf_done(&b);
}

static void damage_has_names(void **state)
{
    (void)state;
    struct err err = {0};
    ASSERT_ERR(parse("[1]", 0, &err), ERR_PARSE, &err, "not a JSON object");
    ASSERT_ERR(parse("{\"a\":", 0, &err), ERR_PARSE, &err, "header");
    ASSERT_ERR(parse("{\"a\":7}", 0, &err), ERR_PARSE, &err, "'a'");
    ASSERT_ERR(parse("{" T("a", "F99", "[1]", "0", "4") "}", 4, &err), ERR_UNSUPPORTED, &err,
               "'F99'");
    ASSERT_ERR(parse("{" T("a", "F32", "[1]", "0", "8") "}", 8, &err), ERR_PARSE, &err,
               "need 4 bytes, data_offsets give 8");
    ASSERT_ERR(parse("{" T("a", "F32", "[2]", "0", "8") "}", 4, &err), ERR_CORRUPT, &err,
               "cut short");
    ASSERT_ERR(parse("{" T("a", "F32", "[2]", "8", "0") "}", 8, &err), ERR_PARSE, &err,
               "backwards");
    ASSERT_ERR(parse("{" T("a", "F32", "[-1]", "0", "4") "}", 8, &err), ERR_PARSE, &err,
               "no size");
    ASSERT_ERR(parse("{" T("a", "F32", "[4294967296,4294967296,4]", "0", "4") "}", 8, &err),
               ERR_PARSE, &err, "overflows");
    ASSERT_ERR(parse("{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "2", "6") "}",
                     8, &err), ERR_PARSE, &err, "share the bytes");
    ASSERT_ERR(parse("{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "4", "8") "}",
                     8, &err), ERR_PARSE, &err, "duplicate");
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    struct buf b = build("{" T("a", "F32", "[2,3]", "0", "24") "}", 24);
    for (size_t n = 0; n < b.len; n++) {
        struct err err = {0};
        struct tensors list;
        uint8_t *exact = mem_alloc(n ? n : 1);
        memcpy(exact, b.data, n);
        tensors_init(&list);
        assert_int_equal(safetensors_parse(&list, exact, n, &err), -ERR_CORRUPT);
        tensors_done(&list);
        mem_free(exact);
    }
    buf_done(&b);
}

/* --- scales --------------------------------------------------------------------------------- */

/* 130x3 of 1.0 in two row blocks whose scales are 0.5 and 4, stored as `dtype`. */
static void check_scales(const char *dtype, const void *scale, size_t n_scale, const char *end)
{
    struct err err = {0};
    struct tensors list;
    struct arena arena;
    char header[512];
    snprintf(header, sizeof header,
             "{\"w.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[130,3],\"data_offsets\":[0,390]},"
             "\"w.weight_scale_inv\":{\"dtype\":\"%s\",\"shape\":[2,1],\"data_offsets\":[390,%s]}}",
             dtype, end);
    struct buf b = build(header, 390);
    memset(b.data + b.len - 390, 0x38, 390);
    buf_add(&b, scale, n_scale);
    tensors_init(&list);
    arena_init(&arena, 0);
    ASSERT_OK(safetensors_parse(&list, b.data, b.len, &err), &err);
    ASSERT_OK(safetensors_attach_scales(&list, &arena, &err), &err);
    const struct tensor *w = tensors_find(&list, "w.weight");
    float row[3];
    tensor_read_row(w, 127, row);
    assert_true(row[0] == 0.5f && row[2] == 0.5f);
    tensor_read_row(w, 128, row);
    assert_true(row[0] == 4.0f);
    struct tensor view = tensor_rows(w, 126, 4); /* starts inside the first block */
    tensor_read_row(&view, 1, row);
    assert_true(row[0] == 0.5f);
    tensor_read_row(&view, 2, row);
    assert_true(row[0] == 4.0f);
    tensors_done(&list);
    arena_done(&arena);
    buf_done(&b);
}

static void scales_of_any_type(void **state)
{
    (void)state;
    const float f[2] = {0.5f, 4.0f};
    check_scales("F32", f, 8, "398");
    check_scales("BF16", "\x00\x3f\x80\x40", 4, "394");
    check_scales("F8_E8M0", "\x7e\x81", 2, "392");
}

static void scales_must_fit(void **state)
{
    (void)state;
    struct err err = {0};
    ASSERT_ERR(parse("{" T("w.weight", "F8_E4M3", "[2,2]", "0", "4") "}", 4, &err),
               ERR_NOTFOUND, &err, "'w.weight_scale_inv' are missing");
    ASSERT_ERR(parse("{" T("w.weight", "F8_E4M3", "[129,2]", "0", "258") ","
                     T("w.weight_scale_inv", "F32", "[1,1]", "258", "262") "}", 262, &err),
               ERR_PARSE, &err, "shape [1, 1], expected [2, 1]");
    ASSERT_ERR(parse("{" T("w.weight", "F8_E4M3", "[2,2]", "0", "4") ","
                     T("w.weight_scale_inv", "I32", "[1,1]", "4", "8") "}", 8, &err),
               ERR_UNSUPPORTED, &err, "w.weight_scale_inv");
}

/* --- folders --------------------------------------------------------------------------------- */

static void save(const char *name, struct str data)
{
    char path[160];
    struct err err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ASSERT_OK(io_write_file(path, data, 0644, &err), &err);
}

static void save_shard(const char *name, const char *header, size_t n)
{
    struct buf b = build(header, n);
    save(name, buf_view(&b));
    buf_done(&b);
}

static void index_says(const char *map)
{
    char text[512];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":8},\"weight_map\":%s}", map);
    save("model.safetensors.index.json", str_c(text));
}

static int open_dir(struct safetensors **s, struct err *err)
{
    *s = NULL;
    return safetensors_open(s, dir, err);
}

static void shards_and_their_index(void **state)
{
    (void)state;
    struct err err = {0};
    struct safetensors *s;
    ASSERT_ERR(open_dir(&s, &err), ERR_SYS, &err, "model.safetensors");
    save_shard("one", "{" T("a", "F32", "[1]", "0", "4") "}", 4);
    save_shard("two", "{" T("b", "F32", "[1]", "0", "4") "}", 4);
    index_says("{\"a\":\"one\",\"b\":\"two\"}");
    ASSERT_OK(open_dir(&s, &err), &err);
    assert_non_null(tensors_find(safetensors_tensors(s), "a"));
    assert_non_null(tensors_find(safetensors_tensors(s), "b"));
    safetensors_close(s);
    index_says("{\"a\":\"one\",\"b\":\"one\"}");
    ASSERT_ERR(open_dir(&s, &err), ERR_NOTFOUND, &err, "'b' is listed");
    index_says("{\"a\":\"two\",\"b\":\"one\"}");
    ASSERT_ERR(open_dir(&s, &err), ERR_PARSE, &err, "the index says");
    index_says("{\"a\":\"../one\"}");
    ASSERT_ERR(open_dir(&s, &err), ERR_PARSE, &err, "not the name of a file");
    index_says("{\"a\":\"three\"}");
    ASSERT_ERR(open_dir(&s, &err), ERR_SYS, &err, "three");
    index_says("[]");
    ASSERT_ERR(open_dir(&s, &err), ERR_PARSE, &err, "weight_map");
    save_shard("two", "{" T("a", "F32", "[1]", "0", "4") "}", 4);
    index_says("{\"a\":\"one\",\"b\":\"two\"}");
    ASSERT_ERR(open_dir(&s, &err), ERR_PARSE, &err, "'a' is listed twice");
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_st.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    char cmd[96];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_header),      cmocka_unit_test(damage_has_names),
        cmocka_unit_test(every_cut_is_refused), cmocka_unit_test(scales_of_any_type),
        cmocka_unit_test(scales_must_fit),    cmocka_unit_test(shards_and_their_index),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
