/*
 * model_info.c - what a model is and what it costs, as one JSON object. Costs are counted
 * from the tensors that a token really touches, not from nominal bits per weight.
 */
#include <string.h>

#include "engine/hash.h"
#include "engine/model.h"
#include "engine/quant/quant.h"
#include "engine/tokenizer.h"
#include "engine/weights_list.h"

/* --- sums ---------------------------------------------------------------------------------- */

struct sum {
    uint64_t elements, bytes;
};

static void add(struct sum *s, const struct tensor *t)
{
    if (!tensor_exists(t))
        return;
    s->elements += t->ne[0] * tensor_n_rows(t);
    s->bytes += t->bytes;
    if (t->scale)
        s->bytes += (tensor_n_rows(t) + TENSOR_F8_BLOCK - 1) / TENSOR_F8_BLOCK *
                    t->scale_cols * sizeof(float);
}

static void add_ffn(struct sum *s, const struct ffn_weights *w)
{
    add(s, &w->gate);
    add(s, &w->up);
    add(s, &w->down);
}

/* What every token reads in a layer, experts aside. */
static void add_layer(struct sum *s, const struct layer_weights *w)
{
    const struct tensor *all[] = {
        &w->attn_norm, &w->ffn_norm,   &w->q_a,         &w->q_a_norm, &w->q_b,
        &w->q,         &w->kv_a,       &w->kv_a_norm,   &w->kv_b,     &w->k_b,
        &w->v_b,       &w->o,          &w->index_q_b,   &w->index_k,  &w->index_k_norm,
        &w->index_k_norm_bias,         &w->index_proj,  &w->router,   &w->router_bias,
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        add(s, all[i]);
    add_ffn(s, &w->mlp);
    add_ffn(s, &w->shared);
}

struct cost {
    struct sum all, always, routed; /* routed: of the experts one token uses */
};

static struct cost count(const struct weights *w)
{
    struct cost c = {0};
    const struct hparams *hp = &w->hp;
    for (uint32_t l = 0; l < hp->n_layers + hp->n_mtp_layers; l++) {
        struct sum layer = {0}, experts = {0};
        add_layer(&layer, &w->layer[l]);
        for (uint32_t e = 0; hp->moe[l] && e < hp->n_routed_experts; e++)
            add_ffn(&experts, &w->layer[l].experts[e]);
        c.all.elements += layer.elements + experts.elements;
        c.all.bytes += layer.bytes + experts.bytes;
        if (l >= hp->n_layers)
            continue;
        c.always.elements += layer.elements;
        c.always.bytes += layer.bytes;
        if (!hp->moe[l])
            continue;
        c.routed.elements += experts.elements / hp->n_routed_experts * hp->n_activated_experts;
        c.routed.bytes += experts.bytes / hp->n_routed_experts * hp->n_activated_experts;
    }
    struct sum head = {0}, embed = {0}, mtp = {0};
    add(&head, &w->norm);
    add(&head, &w->head);
    add(&embed, &w->embed);
    const struct tensor *extra[] = {&w->mtp.enorm, &w->mtp.hnorm, &w->mtp.eh_proj,
                                    &w->mtp.norm};
    for (size_t i = 0; i < ARRAY_LEN(extra); i++)
        add(&mtp, extra[i]);
    if (w->head.data == w->embed.data)
        embed = (struct sum){0};
    c.always.elements += head.elements;
    c.always.bytes += head.bytes;
    c.all.elements += head.elements + embed.elements + mtp.elements;
    c.all.bytes += head.bytes + embed.bytes + mtp.bytes;
    return c;
}

/* --- parts of the object -------------------------------------------------------------------- */

static json_t *numbers(const struct hparams *hp)
{
    uint32_t full = 0;
    for (uint32_t l = 0; hp->index_topk && l < hp->n_layers; l++)
        full += hp->index_full[l];
    json_t *o = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "vocab_size",
        hp->n_vocab, "dim", hp->dim, "n_layers", hp->n_layers, "n_mtp_layers",
        hp->n_mtp_layers, "n_ctx", hp->n_ctx, "n_heads", hp->n_heads, "q_lora_rank",
        hp->q_lora_rank, "kv_lora_rank", hp->kv_lora_rank, "qk_nope_head_dim",
        hp->qk_nope_head_dim, "qk_rope_head_dim", hp->qk_rope_head_dim, "v_head_dim",
        hp->v_head_dim, "n_dense_layers", hp->n_dense_layers, "inter_dim", hp->inter_dim);
    json_t *moe = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:b, s:f}", "moe_inter_dim",
        hp->moe_inter_dim, "n_routed_experts", hp->n_routed_experts, "n_shared_experts",
        hp->n_shared_experts, "n_activated_experts", hp->n_activated_experts,
        "n_expert_groups", hp->n_expert_groups, "n_limited_groups", hp->n_limited_groups,
        "score_func", hp->score_func == SCORE_SOFTMAX ? "softmax" : "sigmoid", "group_score",
        hp->group_score == GROUP_MAX ? "max" : "top2", "norm_topk_prob", hp->norm_topk_prob,
        "route_scale", (double)hp->route_scale);
    json_t *rest = json_pack(
        "{s:i, s:i, s:i, s:i, s:s, s:f, s:s, s:f, s:f, s:f, s:i, s:i}", "index_n_heads",
        hp->index_n_heads, "index_head_dim", hp->index_head_dim, "index_topk", hp->index_topk,
        "index_full_layers", full, "index_rope", hp->index_rope_pairs ? "pairs" : "halves",
        "rms_eps", (double)hp->rms_eps, "rope", hp->yarn ? "yarn" : "plain", "rope_theta",
        (double)hp->rope_theta, "yarn_factor", (double)hp->yarn_factor, "attn_scale",
        (double)hp->attn_scale, "bos", hp->bos, "eos", hp->eos);
    if (o && moe && hp->n_routed_experts)
        json_object_update(o, moe);
    if (o && rest)
        json_object_update(o, rest);
    json_decref(moe);
    json_decref(rest);
    return o;
}

static json_t *by_type(const struct weights *w)
{
    const struct tensors *list = weights_tensors(w);
    const char *first = "";
    uint32_t unused = weights_unused(w, &first);
    json_t *a = json_array();
    uint64_t total = 0;
    for (uint32_t type = 0; type <= QUANT_OTHER; type++) {
        uint64_t n = 0, bytes = 0;
        for (uint32_t i = 0; i < list->n; i++)
            if (list->item[i].type == type) {
                n++;
                bytes += list->item[i].bytes;
            }
        total += bytes;
        if (n)
            json_array_append_new(a, json_pack("{s:s, s:I, s:I}", "type",
                                               quant_type_name(type), "count", (json_int_t)n,
                                               "bytes", (json_int_t)bytes));
    }
    return json_pack("{s:i, s:I, s:o, s:i, s:o}", "count", list->n, "bytes",
                     (json_int_t)total, "by_type", a, "unused", unused, "first_unused",
                     json_text(str_c(first)));
}

/* Bytes of one position in all layers; the FP8 row carries a scale per 128 values. */
static void cache_bytes(const struct hparams *hp, uint64_t *f32, uint64_t *f16, uint64_t *fp8)
{
    *f32 = *f16 = *fp8 = 0;
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        uint64_t index = hp->index_topk && hp->index_full[l] ? hp->index_head_dim : 0;
        uint64_t row = hp->kv_lora_rank + hp->qk_rope_head_dim;
        *f32 += 4 * (row + index);
        *f16 += 2 * (row + index);
        *fp8 += hp->kv_lora_rank + (hp->kv_lora_rank + 127) / 128 * 4 +
                2 * hp->qk_rope_head_dim + (index ? index + 4 : 0);
    }
}

static json_t *memory(const struct hparams *hp, uint64_t weights)
{
    static const uint32_t steps[] = {2048, 8192, 32768, 131072};
    uint64_t f32, f16, fp8;
    json_t *a = json_array();
    cache_bytes(hp, &f32, &f16, &fp8);
    for (size_t i = 0; i <= ARRAY_LEN(steps); i++) {
        uint64_t n = i < ARRAY_LEN(steps) ? steps[i] : hp->n_ctx;
        if (i < ARRAY_LEN(steps) && n >= hp->n_ctx)
            continue;
        json_array_append_new(
            a, json_pack("{s:I, s:I, s:I, s:I, s:I}", "context", (json_int_t)n, "cache_f32",
                         (json_int_t)(n * f32), "cache_f16", (json_int_t)(n * f16),
                         "cache_fp8", (json_int_t)(n * fp8), "weights_and_cache_f16",
                         (json_int_t)(weights + n * f16)));
    }
    return a;
}

static int vocabulary(json_t **out, const struct weights *w, struct err *err)
{
    struct tokenizer *t = NULL;
    int rc = weights_tokenizer(&t, w, err);
    if (rc == -ERR_NOTFOUND) {
        *out = json_null();
        return 0;
    }
    if (rc < 0)
        return rc;
    const struct vocab *v = tokenizer_vocab(t);
    *out = json_pack("{s:s%, s:i, s:i}", "pre", v->pre.p, v->pre.n, "tokens", v->n_tokens,
                     "merges", v->n_merges);
    tokenizer_free(t);
    return *out ? 0 : err_nomem(err);
}

static json_t *describe(const struct weights *w, json_t *tokenizer)
{
    struct cost c = count(w);
    struct hash128 print;
    char hex[33];
    memcpy(print.b, w->fingerprint, sizeof print.b);
    hash128_hex(print, hex);
    uint64_t active = c.always.elements + c.routed.elements;
    return json_pack(
        "{s:o, s:o, s:s, s:s, s:s, s:s, s:s, s:{s:I, s:I}, s:o, s:o, s:{s:I, s:I, s:I}, s:o, "
        "s:o}",
        "name", json_text(str_c(w->name)), "path", json_text(str_c(w->path)), "format",
        weights_gguf(w) ? "gguf" : "safetensors", "arch", w->hp.arch, "rule", w->hp.rule,
        "note", w->hp.note, "fingerprint", hex, "parameters", "total",
        (json_int_t)c.all.elements, "active", (json_int_t)active, "numbers", numbers(&w->hp),
        "tensors", by_type(w), "bytes_per_token", "always",
        (json_int_t)c.always.bytes, "routed", (json_int_t)c.routed.bytes, "total",
        (json_int_t)(c.always.bytes + c.routed.bytes), "memory", memory(&w->hp, c.all.bytes),
        "tokenizer", tokenizer);
}

int model_info(json_t **out, const char *path, bool check,
               void (*progress)(void *arg, double done), void *arg, struct err *err)
{
    struct weights *w = NULL;
    json_t *tokenizer = NULL;
    int rc = weights_open(&w, path, err);
    if (rc == 0 && check)
        rc = weights_scan(w, progress, arg, err);
    if (rc == 0)
        rc = vocabulary(&tokenizer, w, err);
    if (rc == 0) {
        *out = describe(w, tokenizer);
        if (!*out)
            rc = err_nomem(err);
    }
    weights_close(w);
    return rc;
}
