/*
 * fuzz_kvfile.c - snapshots of a seq as a stranger might write them. Bits of the first byte:
 *
 *   0, 1  the cache's storage
 *   5     the longer of two real snapshots, for edits
 *   6     the rest is edits of a real snapshot: where (4 bytes), what to xor there (1 byte);
 *         without it the rest is the file itself
 *   7     the header stays as it is; without it magic, version and fingerprint are made right
 *
 * Checksums are off in fuzzing builds. A snapshot that loads must survive a fork, a truncation
 * and a step, whatever numbers it holds, and what is saved again must load.
 */
#include <string.h>

#include "base/buf.h"
#include "engine/model.h"
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_ENGINES = 4, HEAD = 12, FINGERPRINT_AT = 24, FINGERPRINT = 16, EDIT = 5 };
enum { IS_LONG = 0x20, IS_EDITS = 0x40, HEADER_STAYS = 0x80 };

static struct engine *engine[N_ENGINES];
static struct buf real[N_ENGINES][2]; /* snapshots of a short and of a longer seq */

static const char *temp_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/dev/shm/fuzz_kvfile.%d", (int)getpid());
    return path;
}

static int save_real(int which, int is_long, struct err *err)
{
    struct engine_seq *s = NULL;
    int rc = engine_seq_new(&s, engine[which], err);
    for (int32_t i = 0; rc == 0 && i < (is_long ? 70 : 3); i++) {
        int32_t tok = (7 * i * i + 3 * i + 1) % 512;
        struct engine_work w = {.seq = s, .tok = &tok, .n = 1};
        rc = engine_step(engine[which], &w, 1, err);
    }
    if (rc == 0)
        rc = engine_seq_save(s, temp_path(), err);
    buf_init(&real[which][is_long], 0);
    if (rc == 0)
        rc = io_read_file(temp_path(), &real[which][is_long], err);
    engine_seq_free(s);
    unlink(temp_path());
    return rc;
}

static void open_engines(void)
{
    static const enum engine_cache type[N_ENGINES] = {ENGINE_CACHE_F32, ENGINE_CACHE_F16,
                                                      ENGINE_CACHE_BF16, ENGINE_CACHE_FP8};
    struct err err = {0};
    char dir[] = "/tmp/fuzz_kvfile.XXXXXX", path[64];
    struct model_make_test m = {.dir = dir, .variant = "tiny-v32"};
    struct engine_opts o = {.path = dir, .n_threads = 1, .n_ctx = 200, .max_batch = 8,
                            .cache_bytes = 8 << 20, .mtp = true};
    int rc = mkdtemp(dir) ? model_make_test(&m, &err) : -1;
    for (int i = 0; rc == 0 && i < N_ENGINES; i++) {
        o.cache = type[i];
        rc = engine_open(&engine[i], &o, &err);
        for (int k = 0; rc == 0 && k < 2; k++)
            rc = save_real(i, k, &err);
    }
    if (rc < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

/* What loaded is a seq like any other. */
static void use(struct engine *e, struct engine_seq *s)
{
    struct err err = {0};
    struct engine_seq *t = NULL, *again = NULL;
    int32_t tok = 5;
    uint32_t n = engine_seq_len(s);
    const char *path = temp_path();
    if (engine_seq_save(s, path, &err) < 0 || engine_seq_load(&again, e, path, &err) < 0 ||
        engine_seq_len(again) != n)
        abort();
    unlink(path);
    if (engine_seq_fork(&t, s, n / 2, &err) < 0)
        abort();
    struct engine_work w[] = {{.seq = s, .tok = &tok, .n = 1, .n_logits = 1},
                              {.seq = t, .tok = &tok, .n = 1, .n_logits = 1}};
    if (engine_step(e, w, 2, &err) < 0 && !err.text[0])
        abort();
    engine_seq_truncate(s, n / 3);
    if (engine_step(e, w, 1, &err) < 0 && !err.text[0])
        abort();
    engine_seq_free(again);
    engine_seq_free(t);
}

/* The file that the input describes. */
static void make_file(const uint8_t *data, size_t size, struct buf *out)
{
    const struct buf *base = &real[data[0] & (N_ENGINES - 1)][data[0] & IS_LONG ? 1 : 0];
    bool edits = data[0] & IS_EDITS;
    buf_add(out, edits ? base->data : data + 1, edits ? base->len : size - 1);
    for (size_t at = 1; edits && at + EDIT <= size; at += EDIT) {
        uint32_t where;
        memcpy(&where, data + at, sizeof where);
        out->data[where % out->len] ^= data[at + 4];
    }
    if (!(data[0] & HEADER_STAYS) && out->len >= FINGERPRINT_AT + FINGERPRINT) {
        memcpy(out->data, base->data, HEAD);
        memcpy(out->data + FINGERPRINT_AT, base->data + FINGERPRINT_AT, FINGERPRINT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct engine_seq *s = NULL;
    char path[64];
    size_t used, limit;
    if (!engine[0])
        open_engines();
    if (size == 0)
        return 0;
    struct engine *e = engine[data[0] & (N_ENGINES - 1)];
    struct buf file;
    buf_init(&file, 0);
    make_file(data, size, &file);
    int fd = fuzz_memfile(file.data, file.len, path);
    if (engine_seq_load(&s, e, path, &err) == 0) {
        use(e, s);
        engine_seq_free(s);
    } else if (!err.text[0]) {
        abort();
    }
    close(fd);
    buf_done(&file);
    engine_cache_usage(e, &used, &limit);
    if (used != 0)
        abort();
    return 0;
}
