/*
 * fuzz_kvfile.c - snapshots of a seq as a stranger might write them. The first byte chooses
 * the cache's storage; the rest is the file, into which the model's fingerprint is written
 * unless bit 7 of that byte is set. Checksums are off in fuzzing builds. A snapshot that loads
 * must survive a fork, a truncation and a step, whatever numbers it holds, and what is saved
 * again must load.
 */
#include <string.h>

#include "engine/model.h"
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_ENGINES = 4, FINGERPRINT_AT = 24, FINGERPRINT = 16 };

static struct engine *engine[N_ENGINES];
static uint8_t fingerprint[N_ENGINES][FINGERPRINT];

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
        for (int b = 0; rc == 0 && b < FINGERPRINT; b++) {
            unsigned v = 0;
            sscanf(engine_info(engine[i])->fingerprint + 32 + 2 * b, "%2x", &v);
            fingerprint[i][b] = (uint8_t)v;
        }
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
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/fuzz_kvfile.%d", (int)getpid());
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
    int which = data[0] & (N_ENGINES - 1);
    struct engine *e = engine[which];
    int fd = fuzz_memfile(data + 1, size - 1, path);
    if (!(data[0] & 0x80) && size - 1 >= FINGERPRINT_AT + FINGERPRINT &&
        pwrite(fd, fingerprint[which], FINGERPRINT, FINGERPRINT_AT) != FINGERPRINT)
        abort();
    if (engine_seq_load(&s, e, path, &err) == 0) {
        use(e, s);
        engine_seq_free(s);
    } else if (!err.text[0]) {
        abort();
    }
    close(fd);
    engine_cache_usage(e, &used, &limit);
    if (used != 0)
        abort();
    return 0;
}
