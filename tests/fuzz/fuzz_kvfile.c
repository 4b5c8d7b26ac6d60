/*
 * fuzz_kvfile.c - snapshots of a seq as a stranger might write them. The model is the
 * deterministic test model; checksums are off in fuzzing builds. A snapshot that loads
 * must also survive a step, whatever numbers it holds.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/engine.h"
#include "engine/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct engine *engine;

static void open_engine(void)
{
    struct err err = {0};
    char dir[] = "/tmp/fuzz_kvfile.XXXXXX", path[64];
    struct engine_opts o = {.path = dir,
                            .n_threads = 1,
                            .n_ctx = 200,
                            .max_batch = 8,
                            .cache_bytes = 8 << 20,
                            .cache = ENGINE_CACHE_FP8,
                            .mtp = true};
    struct model_make_test m = {.dir = dir, .variant = "tiny-v32"};
    if (!mkdtemp(dir) || model_make_test(&m, &err) < 0 ||
        engine_open(&engine, &o, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct engine_seq *s = NULL;
    char path[64];
    size_t used, limit;
    if (!engine)
        open_engine();
    int fd = memfd_create("snapshot", MFD_CLOEXEC);
    if (fd < 0 || io_write_full(fd, data, size, &err) < 0)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (engine_seq_load(&s, engine, path, &err) == 0) {
        int32_t tok = 5;
        struct engine_work w = {.seq = s, .tok = &tok, .n = 1, .n_logits = 1};
        int rc = engine_step(engine, &w, 1, &err);
        (void)rc;
        engine_seq_free(s);
    }
    close(fd);
    engine_cache_usage(engine, &used, &limit);
    if (used != 0)
        abort();
    return 0;
}
