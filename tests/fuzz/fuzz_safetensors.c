/*
 * fuzz_safetensors.c - any bytes as a safetensors file, and as a config.json: the first byte
 * chooses.
 */
#include <stdint.h>

#include "base/json.h"
#include "engine/hparams_read.h"
#include "engine/quant/quant.h"
#include "engine/safetensors.h"
#include "engine/weights_list.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] == '{')
        as_config(data, size);
    else
        as_file(data, size);
    return 0;
}
