/*
 * fuzz_model.h - what a fuzz target does with a model that opens: a few steps of each kind.
 * Whatever numbers a stranger wrote, the engine computes or says why not.
 */
#ifndef TESTS_FUZZ_FUZZ_MODEL_H
#define TESTS_FUZZ_FUZZ_MODEL_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/engine.h"

/* The bytes behind a path that needs no disk; the descriptor is the caller's. */
static inline int fuzz_memfile(const uint8_t *data, size_t size, char path[64])
{
    struct err err = {0};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || io_write_full(fd, data, size, &err) < 0)
        abort();
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

/* Prefill, decode, draft, fork, sample: with few rows, so that a run takes no time. */
static inline void fuzz_steps(struct engine *e)
{
    struct err err = {0};
    struct engine_seq *s = NULL, *t = NULL;
    int32_t tok[3] = {0, 1, 2}, last = (int32_t)engine_info(e)->n_vocab - 1;
    for (int i = 0; i < 3; i++)
        tok[i] = tok[i] < last ? tok[i] : last;
    if (engine_seq_new(&s, e, &err) < 0)
        return;
    struct engine_work w = {.seq = s, .tok = tok, .n = 3, .n_logits = 1};
    int rc = engine_step(e, &w, 1, &err);
    struct sample_opts o = {.temperature = 1, .top_p = 0.9f};
    struct sample_result r;
    struct sample_rng rng;
    sample_seed(&rng, 1);
    if (rc == 0)
        rc = engine_sample(e, w.logits, &o, &rng, &r, &err);
    if (rc == 0 && (r.id < 0 || r.id > last))
        abort();
    if (rc == 0)
        rc = engine_seq_fork(&t, s, 2, &err);
    struct engine_work two[] = {{.seq = s, .tok = &r.id, .n = 1, .n_logits = 1},
                                {.seq = t, .tok = tok, .n = 2, .n_logits = 2}};
    if (rc == 0)
        rc = engine_step(e, two, 2, &err);
    struct engine_draft d = {.seq = s, .next = tok[0]};
    if (rc == 0 && engine_info(e)->has_mtp)
        rc = engine_draft(e, &d, 1, &err);
    if (rc < 0 && !err.text[0])
        abort(); /* a failure is a sentence */
    engine_seq_free(s);
    engine_seq_free(t);
}

static inline void fuzz_open_model(const char *path)
{
    struct err err = {0};
    struct engine *e = NULL;
    struct engine_opts o = {.path = path, .n_threads = 1, .n_ctx = 8, .max_batch = 8,
                            .cache_bytes = 4 << 20, .mtp = true};
    if (engine_open(&e, &o, &err) < 0) {
        if (!err.text[0])
            abort();
        return;
    }
    fuzz_steps(e);
    engine_close(e);
}

#endif
