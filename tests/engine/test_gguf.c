/*
 * test_gguf.c - GGUF files byte by byte: every value type and width, versions, split files,
 * and what each kind of damage is called. Files are built by hand here, not by the writer.
 */
#include "test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/gguf.h"
#include "engine/gguf_write.h"
#include "engine/quant/quant.h"
#include "engine/weights_list.h"

/* --- a file by hand ----------------------------------------------------------------------- */

static struct buf file;

static void u32(uint32_t v)
{
    buf_add(&file, &v, 4);
}

static void u64(uint64_t v)
{
    buf_add(&file, &v, 8);
}

static void text(const char *s)
{
    u64(strlen(s));
    buf_puts(&file, s);
}

static void begin(uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    buf_done(&file);
    buf_init(&file, 0);
    buf_puts(&file, "GGUF");
    u32(version);
    u64(n_tensors);
    u64(n_kv);
}

static void kv(const char *key, uint32_t type, const void *value, size_t n)
{
    text(key);
    u32(type);
    buf_add(&file, value, n);
}

static void kv_u32(const char *key, uint32_t v)
{
    kv(key, GGUF_U32, &v, 4);
}

static void info(const char *name, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset)
{
    text(name);
    u32(2);
    u64(ne0);
    u64(ne1);
    u32(type);
    u64(offset);
}

static void pad(size_t to, size_t data)
{
    while (file.len % to)
        buf_putc(&file, 0);
    for (size_t i = 0; i < data; i++)
        buf_putc(&file, (char)i);
}

static int parse(struct gguf **g, struct err *err)
{
    *g = NULL;
    return gguf_parse(g, file.data, file.len, err);
}

static void refuse(int code, const char *needle)
{
    struct err err = {0};
    struct gguf *g;
    int rc = parse(&g, &err);
    if (rc == 0)
        gguf_close(g);
    ASSERT_ERR(rc, code, &err, needle);
}

/* --- values --------------------------------------------------------------------------------- */

static void integers_of_any_width(void **state)
{
    (void)state;
    struct err err = {0};
    begin(3, 0, 12);
    kv("u8", GGUF_U8, "\xfe", 1);
    kv("i8", GGUF_I8, "\xfe", 1);
    kv("u16", GGUF_U16, "\xfe\xff", 2);
    kv("i16", GGUF_I16, "\xfe\xff", 2);
    kv("u32", GGUF_U32, "\xfe\xff\xff\xff", 4);
    kv("i32", GGUF_I32, "\xfe\xff\xff\xff", 4);
    kv("u64", GGUF_U64, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    kv("i64", GGUF_I64, "\xfe\xff\xff\xff\xff\xff\xff\xff", 8);
    kv("yes", GGUF_BOOL, "\x01", 1);
    kv("f32", GGUF_F32, "\0\0\xc0\x3f", 4);
    kv("f64", GGUF_F64, "\0\0\0\0\0\0\xf8\xbf", 8);
    text("name");
    u32(GGUF_STRING);
    text("abc");
    struct gguf *g;
    ASSERT_OK(parse(&g, &err), &err);
    const struct {
        const char *key;
        int64_t want;
    } t[] = {{"u8", 254}, {"i8", -2}, {"u16", 65534}, {"i16", -2}, {"u32", 4294967294},
             {"i32", -2}, {"i64", -2}, {"yes", 1}, {"absent", 77}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        int64_t v = 77;
        ASSERT_OK(gguf_int(g, t[i].key, INT64_MIN, INT64_MAX, &v, &err), &err);
        assert_int_equal(v, t[i].want);
    }
    int64_t v = 0;
    double d = 0;
    bool b = false;
    struct str s = {0};
    ASSERT_ERR(gguf_int(g, "u64", 0, INT64_MAX, &v, &err), ERR_PARSE, &err, "'u64'");
    ASSERT_ERR(gguf_int(g, "u8", 0, 10, &v, &err), ERR_LIMIT, &err, "'u8' is 254");
    ASSERT_ERR(gguf_int(g, "f32", 0, 10, &v, &err), ERR_PARSE, &err, "'f32' is not an integer");
    ASSERT_ERR(gguf_str(g, "u8", &s, &err), ERR_PARSE, &err, "not a string");
    ASSERT_ERR(gguf_num(g, "name", &d, &err), ERR_PARSE, &err, "not a number");
    ASSERT_OK(gguf_num(g, "f32", &d, &err), &err);
    assert_true(d == 1.5);
    ASSERT_OK(gguf_num(g, "f64", &d, &err), &err);
    assert_true(d == -1.5);
    ASSERT_OK(gguf_num(g, "i8", &d, &err), &err);
    assert_true(d == -2);
    ASSERT_OK(gguf_bool(g, "yes", &b, &err), &err);
    assert_true(b);
    ASSERT_OK(gguf_str(g, "name", &s, &err), &err);
    assert_true(str_is(s, "abc"));
    gguf_close(g);
}

static void arrays(void **state)
{
    (void)state;
    struct err err = {0};
    begin(2, 0, 2);
    text("words");
    u32(GGUF_ARRAY);
    u32(GGUF_STRING);
    u64(3);
    text("a");
    text("");
    text("ccc");
    text("flags");
    u32(GGUF_ARRAY);
    u32(GGUF_BOOL);
    u64(2);
    buf_add(&file, "\0\1", 2);
    struct gguf *g;
    ASSERT_OK(parse(&g, &err), &err);
    assert_int_equal(gguf_version(g), 2);
    struct str s[3];
    ASSERT_OK(gguf_strings(gguf_find(g, "words"), s, &err), &err);
    assert_true(str_is(s[0], "a") && str_is(s[1], "") && str_is(s[2], "ccc"));
    int64_t v = 5;
    const struct gguf_kv *flags = gguf_find(g, "flags");
    assert_true(gguf_int_at(flags, 0, &v) && v == 0);
    assert_true(gguf_int_at(flags, 1, &v) && v == 1);
    assert_false(gguf_int_at(flags, 2, &v));
    ASSERT_ERR(gguf_int(g, "flags", 0, 1, &v, &err), ERR_PARSE, &err, "flags");
    gguf_close(g);
}

/* --- tensors --------------------------------------------------------------------------------- */

static void good_tensors(void)
{
    begin(3, 2, 1);
    kv_u32("general.alignment", 64);
    info("a.weight", 32, 2, QUANT_Q8_0, 0);
    info("b.weight", 4, 3, QUANT_F32, 128);
    pad(64, 128 + 48);
}

static void tensors_are_found(void **state)
{
    (void)state;
    struct err err = {0};
    struct gguf *g;
    good_tensors();
    ASSERT_OK(parse(&g, &err), &err);
    const struct tensors *t = gguf_tensors(g);
    assert_int_equal(t->n, 2);
    const struct tensor *a = tensors_find(t, "a.weight"), *b = tensors_find(t, "b.weight");
    assert_non_null(a);
    assert_non_null(b);
    assert_null(tensors_find(t, "c.weight"));
    assert_int_equal(a->bytes, 68);
    assert_int_equal(a->row_bytes, 34);
    assert_int_equal(b->bytes, 48);
    assert_ptr_equal((const uint8_t *)b->data, (const uint8_t *)a->data + 128);
    assert_int_equal(((const uint8_t *)a->data)[5], 5);
    gguf_close(g);
}

/* Cut anywhere, a file is refused and nothing is read beyond it (ASan watches). */
static void every_cut_is_refused(void **state)
{
    (void)state;
    good_tensors();
    for (size_t n = 0; n < file.len; n++) {
        struct err err = {0};
        struct gguf *g = NULL;
        uint8_t *exact = mem_alloc(n ? n : 1);
        memcpy(exact, file.data, n);
        int rc = gguf_parse(&g, exact, n, &err);
        if (rc == 0)
            fail_msg("a file cut to %zu of %zu bytes was accepted", n, file.len);
        assert_int_equal(rc, -ERR_CORRUPT);
        assert_true(strstr(err.text, "cut short") != NULL);
        mem_free(exact);
    }
}

static void damage_has_names(void **state)
{
    (void)state;
    begin(3, 0, 0);
    file.data[0] = 'X';
    refuse(ERR_PARSE, "does not begin with 'GGUF'");
    begin(1, 0, 0);
    refuse(ERR_UNSUPPORTED, "version 1");
    begin(0x03000000, 0, 0);
    refuse(ERR_UNSUPPORTED, "big-endian");
    begin(3, 0, 1u << 30);
    refuse(ERR_LIMIT, "metadata keys");
    begin(3, 1u << 30, 0);
    refuse(ERR_LIMIT, "tensors");
    begin(3, 0, 2);
    kv_u32("k", 1);
    kv_u32("k", 2);
    refuse(ERR_PARSE, "'k' is given twice");
    begin(3, 0, 1);
    kv("k", 99, "", 0);
    buf_puts(&file, "0123456789");
    refuse(ERR_PARSE, "value type 99");
    begin(3, 0, 1);
    kv_u32("bad\x1b[0mkey", 1);
    refuse(ERR_PARSE, "not printable");
    begin(3, 0, 1);
    kv_u32("general.alignment", 48);
    refuse(ERR_PARSE, "power of two");
    begin(3, 0, 1);
    text("a");
    u32(GGUF_ARRAY);
    u32(GGUF_U8);
    u64(UINT64_MAX);
    refuse(ERR_LIMIT, "array");
    begin(3, 0, 1);
    text("a");
    u32(GGUF_ARRAY);
    u32(GGUF_ARRAY);
    u64(1);
    u64(0);
    refuse(ERR_PARSE, "value type 9");
}

static void tensor_damage_has_names(void **state)
{
    (void)state;
    const struct {
        uint64_t ne0, ne1;
        uint32_t type;
        uint64_t offset;
        int code;
        const char *needle;
    } t[] = {
        {33, 1, QUANT_Q8_0, 0, ERR_PARSE, "not whole q8_0 blocks of 32"},
        {32, 1, 16, 0, ERR_UNSUPPORTED, "iq2_xxs"},
        {32, 1, 999, 0, ERR_PARSE, "number 999"},
        {32, 1, QUANT_F8_E4M3, 0, ERR_PARSE, "number 256"},
        {0, 1, QUANT_F32, 0, ERR_PARSE, "dimension 0 is 0"},
        {UINT64_MAX / 2, 1, QUANT_F32, 0, ERR_PARSE, "whole f32 blocks"},
        {1u << 31, 1ull << 40, QUANT_F32, 0, ERR_PARSE, "overflows"},
        {4, 1, QUANT_F32, 8, ERR_PARSE, "multiple of the alignment"},
        {4, 1, QUANT_F32, 1u << 20, ERR_CORRUPT, "cut short"},
        {4, 1, QUANT_F32, UINT64_MAX - 31, ERR_CORRUPT, "cut short"},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        begin(3, 1, 0);
        info("x.weight", t[i].ne0, t[i].ne1, t[i].type, t[i].offset);
        pad(32, 64);
        refuse(t[i].code, t[i].needle);
        refuse(t[i].code, "x.weight");
    }
    begin(3, 2, 0);
    info("same", 4, 1, QUANT_F32, 0);
    info("same", 4, 1, QUANT_F32, 32);
    pad(32, 64);
    refuse(ERR_PARSE, "'same' is listed twice");
    begin(3, 2, 0);
    info("one", 16, 1, QUANT_F32, 0);
    info("two", 16, 1, QUANT_F32, 32);
    pad(32, 128);
    refuse(ERR_PARSE, "'two'");
    begin(3, 1, 0);
    info("", 16, 1, QUANT_F32, 0);
    pad(32, 64);
    refuse(ERR_PARSE, "not printable");
    begin(3, 1, 0);
    text("deep");
    u32(5);
    for (int i = 0; i < 5; i++)
        u64(1);
    u32(0);
    u64(0);
    refuse(ERR_PARSE, "5 dimensions");
}

/* --- files ----------------------------------------------------------------------------------- */

static char dir[64];

static void save(const char *name)
{
    char path[160];
    struct err err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ASSERT_OK(io_write_file(path, buf_view(&file), 0644, &err), &err);
}

static int open_file(const char *name, struct gguf **g, struct err *err)
{
    char path[160];
    *g = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return gguf_open(g, path, err);
}

static void part(unsigned no, unsigned count, const char *tensor)
{
    begin(3, 1, 3);
    kv("split.no", GGUF_U16, &(uint16_t){(uint16_t)no}, 2);
    kv("split.count", GGUF_U16, &(uint16_t){(uint16_t)count}, 2);
    kv("split.tensors.count", GGUF_I32, &(int32_t){2}, 4);
    info(tensor, 4, 1, QUANT_F32, 0);
    pad(32, 16);
}

static void split_files(void **state)
{
    (void)state;
    struct err err = {0};
    struct gguf *g;
    part(0, 2, "first");
    save("m-00001-of-00002.gguf");
    ASSERT_ERR(open_file("m-00001-of-00002.gguf", &g, &err), ERR_SYS, &err,
               "m-00002-of-00002.gguf");
    part(1, 2, "second");
    save("m-00002-of-00002.gguf");
    ASSERT_OK(open_file("m-00001-of-00002.gguf", &g, &err), &err);
    assert_non_null(tensors_find(gguf_tensors(g), "first"));
    assert_non_null(tensors_find(gguf_tensors(g), "second"));
    gguf_close(g);
    ASSERT_ERR(open_file("m-00002-of-00002.gguf", &g, &err), ERR_PARSE, &err,
               "open the first one");
    part(1, 2, "first");
    save("m-00002-of-00002.gguf");
    ASSERT_ERR(open_file("m-00001-of-00002.gguf", &g, &err), ERR_PARSE, &err, "listed twice");
    part(0, 2, "second");
    save("m-00002-of-00002.gguf");
    ASSERT_ERR(open_file("m-00001-of-00002.gguf", &g, &err), ERR_PARSE, &err,
               "split.no is 0, expected 1");
    part(0, 2, "first");
    save("renamed.gguf");
    ASSERT_ERR(open_file("renamed.gguf", &g, &err), ERR_PARSE, &err, "-00001-of-00002.gguf");
    part(0, 1, "only"); /* split.tensors.count says 2, and a single part is a whole file */
    save("alone.gguf");
    ASSERT_OK(open_file("alone.gguf", &g, &err), &err);
    gguf_close(g);
}

static void no_plain_files(void **state)
{
    (void)state;
    struct err err = {0};
    struct gguf *g;
    char path[160];
    ASSERT_ERR(open_file("nothing.gguf", &g, &err), ERR_SYS, &err, "nothing.gguf");
    snprintf(path, sizeof path, "%s/pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    ASSERT_ERR(open_file("pipe", &g, &err), ERR_UNSUPPORTED, &err, "not a regular file");
    begin(3, 0, 0);
    file.len = 0;
    save("empty");
    ASSERT_ERR(open_file("empty", &g, &err), ERR_CORRUPT, &err, "cut short");
}

static long resident_kb(void)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &pages, &resident), 2);
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* 16 GB that nobody has written: opening maps it, and memory grows only by what is read. */
static void large_files_are_mapped(void **state)
{
    (void)state;
    struct err err = {0};
    struct gguf *g;
    char path[160];
    const uint64_t rows = 1u << 20;
    begin(3, 1, 0);
    info("huge.weight", 4096, rows, QUANT_F32, 0);
    pad(32, 0);
    save("huge.gguf");
    snprintf(path, sizeof path, "%s/huge.gguf", dir);
    if (truncate(path, (off_t)(file.len + rows * 4096 * 4)) < 0) {
        print_message("no sparse file of 16 GB here: skipped\n");
        skip();
    }
    long before = resident_kb();
    int64_t start = io_mono_ns();
    ASSERT_OK(open_file("huge.gguf", &g, &err), &err);
    int64_t took = io_mono_ns() - start;
    long opened = resident_kb();
    const struct tensor *t = tensors_find(gguf_tensors(g), "huge.weight");
    float row[4096];
    for (uint64_t r = 0; r < 64; r++)
        tensor_read_row(t, r * 16384, row);
    long read = resident_kb();
    print_message("open %.3f ms; resident +%ld kB at open, +%ld kB after 64 rows\n", took / 1e6,
                  opened - before, read - opened);
    assert_true(opened - before < 4096);
    assert_true(read - opened < 65536);
    gguf_close(g);
    unlink(path);
}

/* What the writer writes, the reader reads. */
static void writer_and_reader_agree(void **state)
{
    (void)state;
    struct err err = {0};
    struct gguf_head h;
    struct gguf *g;
    gguf_head_init(&h);
    gguf_put_u32(&h, "n", 7);
    gguf_put_f32(&h, "x", 0.5f);
    gguf_put_bool(&h, "b", true);
    gguf_put_str(&h, "s", STR("text"));
    gguf_put_strs(&h, "ss", (struct str[]){STR("p"), STR("q")}, 2);
    gguf_put_i32s(&h, "is", (int32_t[]){-1, 5}, 2);
    gguf_put_bools(&h, "bs", (bool[]){true, false}, 2);
    gguf_put_tensor(&h, "t", QUANT_F16, 1, (uint64_t[]){3}, 6);
    gguf_put_tensor(&h, "u", QUANT_F16, 2, (uint64_t[]){3, 2}, 12);
    buf_done(&file);
    buf_init(&file, 0);
    ASSERT_OK(gguf_head_finish(&h, &file, &err), &err);
    pad(1, h.data_bytes);
    gguf_head_done(&h);
    ASSERT_OK(parse(&g, &err), &err);
    assert_int_equal(gguf_n_kv(g), 7);
    int64_t v = 0;
    assert_true(gguf_int_at(gguf_find(g, "is"), 0, &v) && v == -1);
    assert_int_equal(((const uint8_t *)tensors_find(gguf_tensors(g), "u")->data)[0], 32);
    gguf_close(g);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_gguf.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    char cmd[96];
    buf_done(&file);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_any_width), cmocka_unit_test(arrays),
        cmocka_unit_test(tensors_are_found),     cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(damage_has_names),      cmocka_unit_test(tensor_damage_has_names),
        cmocka_unit_test(split_files),           cmocka_unit_test(no_plain_files),
        cmocka_unit_test(large_files_are_mapped), cmocka_unit_test(writer_and_reader_agree),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
