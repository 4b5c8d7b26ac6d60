/* tinyfile.h - a deterministic test model as a safetensors folder in the temporary place. */
#ifndef TESTS_ENGINE_TINYFILE_H
#define TESTS_ENGINE_TINYFILE_H

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/mem.h"
#include "engine/quant/half.h"
#include "engine/testmodel.h"
#include "test.h"

/* Writes config.json and model.safetensors; `dir` is a template for mkdtemp. */
static void tinyfile_write(enum testmodel_kind kind, char *dir)
{
    struct err e = {0};
    struct buf head, body;
    char path[512];
    assert_non_null(mkdtemp(dir));
    buf_init(&head, 0);
    buf_init(&body, 0);
    uint32_t n = testmodel_n_tensors(kind);
    for (uint32_t i = 0; i < n; i++) {
        struct testmodel_tensor t;
        testmodel_tensor(kind, i, &t);
        size_t count = t.shape[0] * t.shape[1], from = body.len;
        float *x = mem_array(count, sizeof *x);
        testmodel_fill(&t, x);
        for (size_t j = 0; j < count; j++) {
            uint16_t h = f32_to_bf16(x[j]);
            buf_add(&body, t.f32 ? (void *)&x[j] : (void *)&h, t.f32 ? 4 : 2);
        }
        mem_free(x);
        buf_printf(&head, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu", i ? "," : "{", t.name,
                   t.f32 ? "F32" : "BF16", (unsigned long long)t.shape[0]);
        if (t.n_dims == 2)
            buf_printf(&head, ",%llu", (unsigned long long)t.shape[1]);
        buf_printf(&head, "],\"data_offsets\":[%zu,%zu]}", from, body.len);
    }
    buf_puts(&head, "}");
    while (head.len % 8)
        buf_putc(&head, ' ');
    uint64_t len = head.len;
    struct buf all;
    buf_init(&all, 0);
    buf_add(&all, &len, 8);
    buf_str(&all, buf_view(&head));
    buf_str(&all, buf_view(&body));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ASSERT_OK(io_write_file(path, buf_view(&all), 0600, &e), &e);
    snprintf(path, sizeof path, "%s/config.json", dir);
    ASSERT_OK(io_write_file(path, str_c(testmodel_config(kind)), 0600, &e), &e);
    buf_done(&head);
    buf_done(&body);
    buf_done(&all);
}

static void tinyfile_remove(const char *dir)
{
    static const char *const name[] = {"model.safetensors", "config.json"};
    char path[512];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, name[i]);
        unlink(path);
    }
    rmdir(dir);
}

#endif
