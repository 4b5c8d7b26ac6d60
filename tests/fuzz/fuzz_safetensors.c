/*
 * fuzz_safetensors.c - any bytes as a safetensors file, as a config.json (they begin with
 * '{'), and as a whole checkpoint folder: after "dir:" come four files, each with a length of
 * four bytes in front: config.json, model.safetensors, the index, a second shard.
 */
#include <stdint.h>
#include <string.h>

#include "base/json.h"
#include "engine/hparams_read.h"
#include "engine/quant/quant.h"
#include "engine/safetensors.h"
#include "engine/weights_list.h"
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_config(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct hparams hp;
    bool tied;
    json_t *config = NULL;
    if (json_read(&config, str_of(data, size), &err) < 0)
        return;
    if (hparams_from_config(&hp, &tied, config, config, &err) == 0 && !(hp.attn_scale > 0))
        __builtin_trap();
    json_decref(config);
}

static void as_file(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct tensors list;
    struct arena arena;
    tensors_init(&list);
    arena_init(&arena, 16u << 20);
    int rc = safetensors_parse(&list, data, size, &err);
    if (rc == 0)
        rc = safetensors_attach_scales(&list, &arena, &err);
    for (uint32_t i = 0; rc == 0 && i < list.n; i++) {
        const struct tensor *x = &list.item[i];
        float row[256];
        if (quant_traits(x->type) && x->ne[0] <= 256 && x->bytes)
            tensor_read_row(x, tensor_n_rows(x) - 1, row);
    }
    tensors_done(&list);
    arena_done(&arena);
}

static const char *const names[] = {"config.json", "model.safetensors",
                                    "model.safetensors.index.json", "b.safetensors"};
enum { N_NAMES = 4 };

static void as_folder(const uint8_t *data, size_t size)
{
    static char dir[64];
    char path[128];
    struct err err = {0};
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/tmp/fuzz_safetensors.XXXXXX");
        if (!mkdtemp(dir))
            abort();
    }
    for (int i = 0; i < N_NAMES; i++) {
        uint32_t n = 0;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (size >= sizeof n) {
            memcpy(&n, data, sizeof n);
            data += sizeof n;
            size -= sizeof n;
        }
        n = n < size ? n : (uint32_t)size;
        unlink(path);
        if (n == 0)
            continue;
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || io_write_full(fd, data, n, &err) < 0)
            abort();
        close(fd);
        data += n;
        size -= n;
    }
    fuzz_open_model(dir);
    for (int i = 0; i < N_NAMES; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] == '{')
        as_config(data, size);
    else if (size > 4 && memcmp(data, "dir:", 4) == 0)
        as_folder(data + 4, size - 4);
    else
        as_file(data, size);
    return 0;
}
