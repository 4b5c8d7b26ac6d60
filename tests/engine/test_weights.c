/*
 * test_weights.c - whole models: what is written is bound and read back, from safetensors and
 * from converted GGUF files of every variant; damaged ones are refused with file, tensor,
 * expected and found, and the process lives.
 */
#include "test.h"

#include <math.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/model.h"
#include "engine/model_file.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"
#include "engine/testmodel.h"
#include "engine/weights.h"
#include "engine/weights_list.h"

static char dir[64];

static const char *at(const char *name)
{
    static char path[4][160];
    static unsigned i;
    char *p = path[i++ % 4];
    snprintf(p, 160, "%s/%s", dir, name);
    return p;
}

static void make(const char *name, const char *variant, bool fp8, unsigned shards)
{
    struct err err = {0};
    struct model_make_test o = {.dir = at(name), .variant = variant, .fp8 = fp8,
                                .n_shards = shards};
    ASSERT_OK(model_make_test(&o, &err), &err);
}

static void convert(const char *src, const char *dst, const char *type)
{
    struct err err = {0};
    struct model_convert o = {.src = at(src), .dst = at(dst), .type = type};
    ASSERT_OK(model_convert(&o, &err), &err);
}

static struct weights *open_at(const char *name)
{
    struct err err = {0};
    struct weights *w = NULL;
    ASSERT_OK(weights_open(&w, at(name), &err), &err);
    return w;
}

/* --- the same numbers out of both containers ----------------------------------------------- */

static void compare(const struct tensor *a, const struct tensor *b, double tolerance)
{
    if (!tensor_exists(a) || !tensor_exists(b)) {
        assert_int_equal(tensor_exists(a), tensor_exists(b));
        return;
    }
    float x[1024], y[1024];
    assert_int_equal(a->ne[0], b->ne[0]);
    assert_int_equal(tensor_n_rows(a), tensor_n_rows(b));
    for (uint64_t r = 0; r < tensor_n_rows(a); r++) {
        tensor_read_row(a, r, x);
        tensor_read_row(b, r, y);
        for (uint64_t i = 0; i < a->ne[0]; i++)
            if (fabs((double)x[i] - y[i]) > tolerance)
                fail_msg("%s row %llu element %llu: %g, not %g", a->name,
                         (unsigned long long)r, (unsigned long long)i, y[i], x[i]);
    }
}

/* kv_b against its halves: keys transposed per head, values as they are. */
static void compare_kv_b(const struct hparams *hp, const struct layer_weights *a,
                         const struct layer_weights *b, double tolerance)
{
    float whole[1024], key[1024];
    uint64_t per = hp->qk_nope_head_dim + hp->v_head_dim;
    for (uint32_t h = 0; h < hp->n_heads; h++)
        for (uint32_t d = 0; d < per; d++) {
            tensor_read_row(&a->kv_b, h * per + d, whole);
            for (uint32_t c = 0; c < hp->kv_lora_rank; c++) {
                uint64_t row = (uint64_t)h * hp->kv_lora_rank + c;
                if (d < hp->qk_nope_head_dim)
                    tensor_read_row(&b->k_b, row, key);
                else if (c == 0)
                    tensor_read_row(&b->v_b, (uint64_t)h * hp->v_head_dim + d -
                                    hp->qk_nope_head_dim, key);
                float got = d < hp->qk_nope_head_dim ? key[d] : key[c];
                if (fabsf(got - whole[c]) > tolerance)
                    fail_msg("kv_b head %u row %u column %u: %g, not %g", h, d, c, got,
                             whole[c]);
            }
        }
}

static void compare_models(const struct weights *a, const struct weights *b, double tolerance)
{
    const struct hparams *hp = &a->hp;
    compare(&a->embed, &b->embed, tolerance * 16); /* the embedding is 16 times larger */
    compare(&a->head, &b->head, tolerance);
    compare(&a->norm, &b->norm, tolerance);
    for (uint32_t l = 0; l < hp->n_layers + b->hp.n_mtp_layers; l++) {
        const struct layer_weights *x = &a->layer[l], *y = &b->layer[l];
        compare(&x->attn_norm, &y->attn_norm, 0);
        compare(&x->q_a, &y->q_a, tolerance);
        compare(&x->q_b, &y->q_b, tolerance);
        compare(&x->q, &y->q, tolerance);
        compare(&x->kv_a, &y->kv_a, tolerance);
        compare(&x->o, &y->o, tolerance);
        compare(&x->index_q_b, &y->index_q_b, tolerance);
        compare(&x->index_k, &y->index_k, tolerance);
        compare(&x->index_k_norm_bias, &y->index_k_norm_bias, 0);
        compare(&x->index_proj, &y->index_proj, 0);
        compare(&x->mlp.down, &y->mlp.down, tolerance);
        compare(&x->router, &y->router, 0);
        compare(&x->router_bias, &y->router_bias, 0);
        compare(&x->shared.up, &y->shared.up, tolerance);
        compare_kv_b(hp, x, y, tolerance);
        for (uint32_t e = 0; hp->moe[l] && e < hp->n_routed_experts; e++) {
            compare(&x->experts[e].gate, &y->experts[e].gate, tolerance);
            compare(&x->experts[e].up, &y->experts[e].up, tolerance);
            compare(&x->experts[e].down, &y->experts[e].down, tolerance);
        }
    }
    if (b->hp.n_mtp_layers)
        compare(&a->mtp.eh_proj, &b->mtp.eh_proj, tolerance);
}

static void same_numbers(const struct hparams *a, const struct hparams *b)
{
    assert_string_equal(a->arch, b->arch);
    assert_true(fabsf(a->attn_scale - b->attn_scale) < 1e-7f && a->rope_mul == b->rope_mul);
    assert_true(a->rms_eps == b->rms_eps && a->rope_theta == b->rope_theta);
    assert_true(a->route_scale == b->route_scale && a->norm_topk_prob == b->norm_topk_prob);
    assert_true(a->score_func == b->score_func && a->group_score == b->group_score);
    assert_true(a->yarn == b->yarn && a->yarn_factor == b->yarn_factor);
    assert_true(a->index_topk == b->index_topk && a->index_rope_pairs == b->index_rope_pairs);
    assert_true(a->n_limited_groups == b->n_limited_groups && a->n_ctx == b->n_ctx);
    assert_true(a->bos == b->bos && a->eos == b->eos);
    for (uint32_t l = 0; l < a->n_layers; l++)
        assert_true(a->moe[l] == b->moe[l] && (!a->index_topk ||
                                               a->index_full[l] == b->index_full[l]));
}

static void both_containers_agree(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        double tolerance;
    } t[] = {{"f32", 0}, {"bf16", 0}, {"f16", 1e-6}, {"q8_0", 0.003}, {"q4_0", 0.05}};
    for (int k = 0; k < TESTMODEL_KINDS; k++) {
        const char *name = testmodel_name((enum testmodel_kind)k);
        make(name, name, false, 1);
        struct weights *a = open_at(name);
        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
            convert(name, "x.gguf", t[i].type);
            struct weights *b = open_at("x.gguf");
            same_numbers(&a->hp, &b->hp);
            compare_models(a, b, t[i].tolerance);
            weights_close(b);
        }
        weights_close(a);
    }
}

/* --- old spellings ---------------------------------------------------------------------------- */

static void put_rows(struct buf *data, const struct tensor *t)
{
    float x[1024];
    for (uint64_t r = 0; r < tensor_n_rows(t); r++) {
        tensor_read_row(t, r, x);
        buf_add(data, x, t->ne[0] * sizeof *x);
    }
}

/* A file as old converters wrote it: kv_b whole, and gate and up of an expert in one stack. */
static void write_old(const struct weights *a, const struct weights *b, const char *to)
{
    struct err err = {0};
    struct gguf_head h;
    struct buf file, data;
    const struct hparams *hp = &a->hp;
    const struct tensors *list = weights_tensors(b);
    gguf_head_init(&h);
    buf_init(&file, 0);
    buf_init(&data, 0);
    ASSERT_OK(model_put_meta(&h, a, NULL, &err), &err);
    for (uint32_t i = 0; i < list->n; i++) {
        const struct tensor *t = &list->item[i];
        struct str name = str_c(t->name);
        char other[96];
        unsigned l = 0;
        sscanf(t->name, "blk.%u.", &l);
        size_t before = data.len;
        if (str_ends(name, STR("attn_v_b.weight")) || str_ends(name, STR("ffn_up_exps.weight")))
            continue;
        if (str_ends(name, STR("attn_k_b.weight"))) {
            const struct tensor *kv = &a->layer[l].kv_b;
            put_rows(&data, kv);
            snprintf(other, sizeof other, "blk.%u.attn_kv_b.weight", l);
            gguf_put_tensor(&h, other, QUANT_F32, 2, kv->ne, data.len - before);
        } else if (str_ends(name, STR("ffn_gate_exps.weight"))) {
            for (uint32_t e = 0; e < hp->n_routed_experts; e++) {
                put_rows(&data, &a->layer[l].experts[e].gate);
                put_rows(&data, &a->layer[l].experts[e].up);
            }
            snprintf(other, sizeof other, "blk.%u.ffn_gate_up_exps.weight", l);
            gguf_put_tensor(&h, other, QUANT_F32, 3, (uint64_t[]){hp->dim,
                            2 * hp->moe_inter_dim, hp->n_routed_experts}, data.len - before);
        } else {
            buf_add(&data, t->data, t->bytes);
            gguf_put_tensor(&h, t->name, t->type, t->n_dims, t->ne, t->bytes);
        }
        while (data.len % GGUF_ALIGN)
            buf_putc(&data, 0);
    }
    ASSERT_OK(gguf_head_finish(&h, &file, &err), &err);
    buf_str(&file, buf_view(&data));
    ASSERT_OK(io_write_file(at(to), buf_view(&file), 0644, &err), &err);
    gguf_head_done(&h);
    buf_done(&file);
    buf_done(&data);
}

static void legacy_names(void **state)
{
    (void)state;
    make("l", "tiny-v32", false, 1);
    convert("l", "l.gguf", "f32");
    struct weights *a = open_at("l"), *b = open_at("l.gguf");
    write_old(a, b, "old.gguf");
    struct weights *c = open_at("old.gguf");
    for (uint32_t l = 0; l < a->hp.n_layers + a->hp.n_mtp_layers; l++) {
        assert_false(tensor_exists(&c->layer[l].k_b));
        compare(&a->layer[l].kv_b, &c->layer[l].kv_b, 0);
        for (uint32_t e = 0; a->hp.moe[l] && e < a->hp.n_routed_experts; e++) {
            compare(&a->layer[l].experts[e].gate, &c->layer[l].experts[e].gate, 0);
            compare(&a->layer[l].experts[e].up, &c->layer[l].experts[e].up, 0);
            compare(&a->layer[l].experts[e].down, &c->layer[l].experts[e].down, 0);
        }
    }
    convert("old.gguf", "new.gguf", "f32"); /* and the old form converts to the new one */
    struct weights *d = open_at("new.gguf");
    compare_models(a, d, 0);
    weights_close(a);
    weights_close(b);
    weights_close(c);
    weights_close(d);
}

/* GGUF to GGUF of the same type is a copy. */
static void gguf_to_gguf(void **state)
{
    (void)state;
    struct err err = {0};
    make("v", "tiny-v32", false, 1);
    convert("v", "one.gguf", "q8_0");
    convert("one.gguf", "two.gguf", "q8_0");
    struct weights *a = open_at("one.gguf"), *b = open_at("two.gguf");
    const struct tensors *x = weights_tensors(a), *y = weights_tensors(b);
    assert_int_equal(x->n, y->n);
    for (uint32_t i = 0; i < x->n; i++) {
        assert_string_equal(x->item[i].name, y->item[i].name);
        assert_memory_equal(x->item[i].data, y->item[i].data, x->item[i].bytes);
    }
    weights_close(a);
    weights_close(b);
    json_t *info = NULL;
    ASSERT_OK(model_info(&info, at("two.gguf"), true, NULL, NULL, &err), &err);
    json_decref(info);
}

static void fp8_and_shards(void **state)
{
    (void)state;
    make("bf", "tiny-v32", false, 1);
    make("f8", "tiny-v32", true, 3);
    struct weights *a = open_at("bf"), *b = open_at("f8");
    same_numbers(&a->hp, &b->hp);
    assert_int_equal(b->layer[0].q_a.type, QUANT_F8_E4M3);
    assert_int_equal(b->layer[0].index_proj.type, QUANT_BF16);
    float x[1024], y[1024];
    double err = 0, norm = 0;
    for (uint64_t r = 0; r < 80; r++) { /* 80 rows: one short block */
        tensor_read_row(&a->layer[1].kv_a, r, x);
        tensor_read_row(&b->layer[1].kv_a, r, y);
        for (int i = 0; i < 256; i++) {
            err += (x[i] - y[i]) * (x[i] - y[i]);
            norm += x[i] * x[i];
        }
    }
    assert_true(sqrt(err / norm) < 0.04 && err > 0);
    assert_memory_not_equal(a->fingerprint, b->fingerprint, sizeof a->fingerprint);
    weights_close(a);
    weights_close(b);
}

/* --- damage ------------------------------------------------------------------------------------- */

static void patch(const char *name, const char *find, const char *put)
{
    struct err err = {0};
    struct buf b;
    buf_init(&b, 0);
    ASSERT_OK(io_read_file(at(name), &b, &err), &err);
    size_t i = str_find(buf_view(&b), str_c(find), 0);
    assert_true(i != STR_NONE && strlen(find) == strlen(put));
    memcpy(b.data + i, put, strlen(put));
    ASSERT_OK(io_write_file(at(name), buf_view(&b), 0644, &err), &err);
    buf_done(&b);
}

static void refuse(const char *name, int code, const char *needle)
{
    struct err err = {0};
    struct weights *w = NULL;
    ASSERT_ERR(weights_open(&w, at(name), &err), code, &err, needle);
    assert_null(w);
}

static void damage_has_names(void **state)
{
    (void)state;
    const char *file = "d/model.safetensors";
    make("d", "tiny-v32", false, 1);
    patch(file, "layers.2.self_attn.o_proj", "layers.2.self_attn.x_proj");
    refuse("d", ERR_NOTFOUND, "'model.layers.2.self_attn.o_proj.weight' is missing");
    make("d", "tiny-v32", false, 1);
    patch("d/config.json", "\"intermediate_size\":320", "\"intermediate_size\":160");
    refuse("d", ERR_PARSE, "gate_proj.weight' has the shape [320, 256], expected [160, 256]");
    make("d", "tiny-v32", false, 1);
    patch("d/config.json", "\"kv_lora_rank\":64", "\"kv_lora_rank\":32");
    refuse("d", ERR_PARSE, "with_mqa.weight' has the shape [80, 256], expected [48, 256]");
    make("d", "tiny-v32", false, 1);
    patch("d/config.json", "\"vocab_size\":512", "\"vocab_size\":513");
    refuse("d", ERR_PARSE, "embed_tokens.weight' has the shape [512, 256], expected [513, 256]");
    make("d", "tiny-v32", false, 1);
    patch("d/config.json", "deepseek_v32", "deepseek_v99");
    refuse("d", ERR_UNSUPPORTED, "d/config.json': model_type 'deepseek_v99'");
    assert_int_equal(truncate(at(file), 4000000), 0);
    patch("d/config.json", "deepseek_v99", "deepseek_v32");
    refuse("d", ERR_CORRUPT, "cut short");
    assert_int_equal(unlink(at(file)), 0);
    refuse("d", ERR_SYS, "model.safetensors");
    refuse("nowhere", ERR_SYS, "nowhere");
}

/* One NaN in a matrix, in each container. */
static void nan_has_a_place(void **state)
{
    (void)state;
    struct err err = {0};
    make("n", "tiny-v32", false, 1);
    convert("n", "n.gguf", "q8_0");
    const struct {
        const char *open, *file, *tensor, *needle;
        uint64_t at; /* byte within the tensor */
        uint16_t value;
    } t[] = {
        {"n", "n/model.safetensors", "model.layers.1.mlp.experts.3.up_proj.weight",
         "experts.3.up_proj.weight' (bf16), row 2, element 5 is nan", (2 * 256 + 5) * 2, 0x7fc0},
        {"n.gguf", "n.gguf", "blk.1.ffn_up_exps.weight",
         "'blk.1.ffn_up_exps.weight' (q8_0), row 3, element 32 is nan", 3 * 272 + 34, 0x7e00},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct weights *w = open_at(t[i].open);
        const struct tensor *x = tensors_find(weights_tensors(w), t[i].tensor);
        assert_non_null(x);
        /* The file's bytes at the tensor's place: found by content, which is unique. */
        struct buf b;
        buf_init(&b, 0);
        ASSERT_OK(io_read_file(at(t[i].file), &b, &err), &err);
        size_t off = str_find(buf_view(&b), str_of(x->data, 256), 0);
        assert_true(off != STR_NONE);
        weights_close(w);
        memcpy(b.data + off + t[i].at, &t[i].value, 2);
        ASSERT_OK(io_write_file(at(t[i].file), buf_view(&b), 0644, &err), &err);
        buf_done(&b);
        refuse(t[i].open, ERR_CORRUPT, t[i].needle);
        refuse(t[i].open, ERR_CORRUPT, at(t[i].open));
    }
}

/* A derivative without its MTP layer loads, and says so. */
static void mtp_may_be_missing(void **state)
{
    (void)state;
    make("m", "tiny-v32", false, 1);
    patch("m/model.safetensors", "model.layers.4.eh_proj.weight", "model.layers.4.xx_proj.weight");
    struct weights *w = open_at("m");
    assert_true(w->hp.n_mtp_layers == 0 && strstr(w->hp.note, "no MTP layer"));
    weights_close(w);
}

/* --- memory ------------------------------------------------------------------------------------- */

static int try_open(void)
{
    struct err err = {0};
    struct weights *w = NULL;
    int rc = weights_open(&w, at("a"), &err);
    weights_close(w);
    return rc;
}

static int try_open_gguf(void)
{
    struct err err = {0};
    struct weights *w = NULL;
    int rc = weights_open(&w, at("a.gguf"), &err);
    weights_close(w);
    return rc;
}

static int try_convert(void)
{
    struct err err = {0};
    struct model_convert o = {.src = at("a"), .dst = at("again.gguf"), .type = "q8_0"};
    return model_convert(&o, &err);
}

/* Every allocation fails once: a sentence comes back, nothing leaks (ASan), and the next
 * attempt works. */
static void any_allocation_may_fail(void **state)
{
    (void)state;
    static int (*const act[])(void) = {try_open, try_open_gguf, try_convert};
    make("a", "tiny-v32", false, 1);
    convert("a", "a.gguf", "q8_0");
    for (size_t i = 0; i < ARRAY_LEN(act); i++) {
        uint64_t before = mem_count();
        assert_int_equal(act[i](), 0);
        uint64_t n = mem_count() - before, step = n / 60 + 1;
        unsigned shrugs = 0; /* cores: each file of their bounds may be unread, there is a default */
        for (uint64_t k = 1; k <= n; k += k < 40 ? 1 : step) {
            unlink(at("again.gguf.partial"));
            mem_fail_at(k);
            int rc = act[i]();
            mem_fail_at(0);
            if (rc != -ERR_NOMEM && !(rc == 0 && act[i] == try_convert && shrugs++ < 8))
                fail_msg("act %zu, allocation %llu of %llu: %d", i, (unsigned long long)k,
                         (unsigned long long)n, rc);
        }
        assert_int_equal(act[i](), 0);
    }
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_weights.XXXXXX");
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
        cmocka_unit_test(both_containers_agree), cmocka_unit_test(gguf_to_gguf),
        cmocka_unit_test(legacy_names),
        cmocka_unit_test(fp8_and_shards),        cmocka_unit_test(damage_has_names),
        cmocka_unit_test(nan_has_a_place),       cmocka_unit_test(mtp_may_be_missing),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
