/*
 * model_meta.c - the metadata of a converted file: the keys that llama.cpp's deepseek2,
 * deepseek32 and glm-dsa loaders read, and the vocabulary. What those keys cannot say is
 * refused, because the file would load elsewhere and compute something else.
 */
#include "engine/model_file.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include "engine/hash.h"
#include "engine/weights_list.h"

bool model_keeps_mtp(const struct weights *w)
{
    return w->hp.n_mtp_layers && strcmp(w->hp.arch, "deepseek2") != 0;
}

/* The last key that was made, under the architecture's name. */
struct keys {
    struct gguf_head *h;
    const char *arch;
    char text[96];
};

static const char *key(struct keys *k, const char *tail)
{
    snprintf(k->text, sizeof k->text, "%s.%s", k->arch, tail);
    return k->text;
}

static void put_sizes(struct keys *k, const struct weights *w)
{
    const struct hparams *hp = &w->hp;
    const struct {
        const char *tail;
        uint32_t v;
    } u32[] = {
        {"block_count", hp->n_layers + (model_keeps_mtp(w) ? 1u : 0u)},
        {"context_length", hp->n_ctx},
        {"embedding_length", hp->dim},
        {"feed_forward_length", hp->inter_dim},
        {"vocab_size", hp->n_vocab},
        {"attention.head_count", hp->n_heads},
        {"attention.head_count_kv", 1},
        {"attention.q_lora_rank", hp->q_lora_rank},
        {"attention.kv_lora_rank", hp->kv_lora_rank},
        {"attention.key_length", hp->kv_lora_rank + hp->qk_rope_head_dim},
        {"attention.value_length", hp->kv_lora_rank},
        {"attention.key_length_mla", hp->qk_nope_head_dim + hp->qk_rope_head_dim},
        {"attention.value_length_mla", hp->v_head_dim},
        {"rope.dimension_count", hp->qk_rope_head_dim},
        {"leading_dense_block_count", hp->n_dense_layers},
    };
    for (size_t i = 0; i < ARRAY_LEN(u32); i++)
        if (u32[i].v || strcmp(u32[i].tail, "attention.q_lora_rank") != 0)
            gguf_put_u32(k->h, key(k, u32[i].tail), u32[i].v);
    gguf_put_f32(k->h, key(k, "attention.layer_norm_rms_epsilon"), hp->rms_eps);
    if (model_keeps_mtp(w))
        gguf_put_u32(k->h, key(k, "nextn_predict_layers"), 1);
}

static void put_router(struct keys *k, const struct hparams *hp)
{
    if (!hp->n_routed_experts)
        return;
    gguf_put_u32(k->h, key(k, "expert_count"), hp->n_routed_experts);
    gguf_put_u32(k->h, key(k, "expert_used_count"), hp->n_activated_experts);
    gguf_put_u32(k->h, key(k, "expert_shared_count"), hp->n_shared_experts);
    gguf_put_u32(k->h, key(k, "expert_feed_forward_length"), hp->moe_inter_dim);
    gguf_put_f32(k->h, key(k, "expert_weights_scale"), hp->route_scale);
    gguf_put_bool(k->h, key(k, "expert_weights_norm"), hp->norm_topk_prob);
    gguf_put_u32(k->h, key(k, "expert_gating_func"), hp->score_func == SCORE_SOFTMAX ? 1 : 2);
    gguf_put_u32(k->h, key(k, "expert_group_count"), hp->n_expert_groups);
    gguf_put_u32(k->h, key(k, "expert_group_used_count"), hp->n_limited_groups);
}

static void put_rope(struct keys *k, const struct hparams *hp)
{
    gguf_put_f32(k->h, key(k, "rope.freq_base"), hp->rope_theta);
    if (!hp->yarn)
        return;
    gguf_put_str(k->h, key(k, "rope.scaling.type"), STR("yarn"));
    gguf_put_f32(k->h, key(k, "rope.scaling.factor"), hp->yarn_factor);
    gguf_put_u32(k->h, key(k, "rope.scaling.original_context_length"), hp->yarn_orig_ctx);
    gguf_put_f32(k->h, key(k, "rope.scaling.yarn_beta_fast"), hp->yarn_beta_fast);
    gguf_put_f32(k->h, key(k, "rope.scaling.yarn_beta_slow"), hp->yarn_beta_slow);
    if (hp->yarn_mscale_all != 0)
        gguf_put_f32(k->h, key(k, "rope.scaling.yarn_log_multiplier"),
                     (float)(0.1 * (double)hp->yarn_mscale_all));
}

static void put_indexer(struct keys *k, const struct hparams *hp)
{
    if (!hp->index_topk)
        return;
    gguf_put_u32(k->h, key(k, "attention.indexer.head_count"), hp->index_n_heads);
    gguf_put_u32(k->h, key(k, "attention.indexer.key_length"), hp->index_head_dim);
    gguf_put_u32(k->h, key(k, "attention.indexer.top_k"), hp->index_topk);
    if (strcmp(hp->arch, "glm-dsa") == 0)
        gguf_put_bools(k->h, key(k, "attention.indexer.types"), hp->index_full, hp->n_layers);
}

/* --- what the keys cannot say ---------------------------------------------------------------- */

static int refuse_unsayable(const struct hparams *hp, struct err *err)
{
    bool glm = strcmp(hp->arch, "glm-dsa") == 0;
    for (uint32_t l = 0; l < hp->n_layers; l++)
        if (hp->moe[l] != (hp->n_routed_experts && l >= hp->n_dense_layers))
            return err_set(err, ERR_UNSUPPORTED, "layer %u breaks the rule 'dense layers first'"
                           ", and GGUF has no key for it", l);
    for (uint32_t l = 0; hp->index_topk && !glm && l < hp->n_layers; l++)
        if (!hp->index_full[l])
            return err_set(err, ERR_UNSUPPORTED, "layer %u shares its index, and architecture "
                           "%s has no key for it", l, hp->arch);
    if (hp->index_topk && hp->index_rope_pairs != glm)
        return err_set(err, ERR_UNSUPPORTED, "indexer_rope_interleave differs from what "
                       "architecture %s implies", hp->arch);
    if (hp->yarn && hp->rope_mul != 1.0f)
        return err_set(err, ERR_UNSUPPORTED, "rope_scaling.mscale differs from mscale_all_dim, "
                       "and GGUF has no key for it");
    return 0;
}

/* --- vocabulary ------------------------------------------------------------------------------ */

/* The chat template and the BOS habit of a folder's tokenizer_config.json. */
static int put_chat(struct gguf_head *h, const struct weights *w, struct err *err)
{
    struct buf path, text;
    json_t *root = NULL;
    struct err ignored = {0};
    bool add_bos = false;
    struct str template = {0};
    buf_init(&path, 4096);
    buf_init(&text, LIMIT_JSON_BYTES);
    buf_printf(&path, "%s/tokenizer_config.json", w->path);
    /* Optional in every way: absent, or in a form that we do not need to understand. */
    if (io_read_regular(buf_cstr(&path), &text, &ignored) == 0 &&
        json_read(&root, buf_view(&text), &ignored) == 0) {
        add_bos = json_is_true(json_object_get(root, "add_bos_token"));
        template = json_view(json_object_get(root, "chat_template"));
    }
    const struct gguf *g = weights_gguf(w);
    int rc = 0;
    if (g)
        rc = gguf_bool(g, "tokenizer.ggml.add_bos_token", &add_bos, err);
    if (rc == 0 && g)
        rc = gguf_str(g, "tokenizer.chat_template", &template, err);
    if (rc == 0) {
        gguf_put_bool(h, "tokenizer.ggml.add_bos_token", add_bos);
        if (template.n)
            gguf_put_str(h, "tokenizer.chat_template", template);
    }
    json_decref(root);
    buf_done(&path);
    buf_done(&text);
    return rc;
}

/* Ids without text, up to the rows of the embedding, are named as other tools name them. */
static int put_tokens(struct gguf_head *h, const struct vocab *v, uint32_t n, struct err *err)
{
    struct arena pads;
    struct str *token = mem_array(n, sizeof *token);
    int32_t *type = mem_array(n, sizeof *type);
    arena_init(&pads, 0);
    int rc = token && type ? 0 : err_nomem(err);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        bool there = i < v->n_tokens && v->token[i].n && v->type[i] != TOKEN_UNUSED;
        char name[24];
        snprintf(name, sizeof name, "[PAD%u]", i);
        token[i] = there ? v->token[i] : str_c(arena_strdup(&pads, str_c(name)));
        type[i] = there ? v->type[i] : TOKEN_UNUSED;
        if (!token[i].n)
            rc = err_nomem(err);
    }
    if (rc == 0) {
        gguf_put_strs(h, "tokenizer.ggml.tokens", token, n);
        gguf_put_i32s(h, "tokenizer.ggml.token_type", type, n);
    }
    mem_free(token);
    mem_free(type);
    arena_done(&pads);
    return rc;
}

/* The format has room for three ids that end a text. */
static void put_ends(struct gguf_head *h, const struct hparams *hp, int32_t bos, int32_t eos)
{
    static const char *const more[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (uint32_t i = 1; i < hp->n_ends && i <= ARRAY_LEN(more); i++)
        gguf_put_u32(h, more[i - 1], (uint32_t)hp->end[i]);
    if (bos >= 0)
        gguf_put_u32(h, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    if (eos >= 0)
        gguf_put_u32(h, "tokenizer.ggml.eos_token_id", (uint32_t)eos);
}

static int put_vocab(struct gguf_head *h, const struct weights *w, const struct tokenizer *t,
                     struct err *err)
{
    const struct vocab *v = tokenizer_vocab(t);
    const struct hparams *hp = &w->hp;
    if (v->n_tokens > hp->n_vocab)
        return err_set(err, ERR_PARSE, "the tokenizer defines %u ids, the model has %u rows",
                       v->n_tokens, hp->n_vocab);
    gguf_put_str(h, "tokenizer.ggml.model", STR("gpt2"));
    gguf_put_str(h, "tokenizer.ggml.pre", v->pre);
    int rc = put_tokens(h, v, hp->n_vocab, err);
    if (rc < 0)
        return rc;
    gguf_put_strs(h, "tokenizer.ggml.merges", v->merge, v->n_merges);
    if (v->whole_first) /* llama.cpp goes by the scheme's name; the key is for whoever asks */
        gguf_put_bool(h, "tokenizer.ggml.ignore_merges", true);
    put_ends(h, hp, hp->bos >= 0 ? hp->bos : v->bos, hp->eos >= 0 ? hp->eos : v->eos);
    return put_chat(h, w, err);
}

int model_put_meta(struct gguf_head *h, const struct weights *w, const struct tokenizer *t,
                   struct err *err)
{
    struct keys k = {.h = h, .arch = w->hp.arch};
    int rc = refuse_unsayable(&w->hp, err);
    if (rc < 0)
        return rc;
    gguf_put_str(h, "general.architecture", str_c(w->hp.arch));
    gguf_put_str(h, "general.type", STR("model"));
    gguf_put_str(h, "general.name", str_c(w->name));
    gguf_put_u32(h, "general.alignment", GGUF_ALIGN);
    gguf_put_u32(h, "general.quantization_version", 2);
    struct hash128 print;
    memcpy(print.b, w->fingerprint, sizeof print.b);
    char hex[33];
    hash128_hex(print, hex);
    gguf_put_str(h, "agentd.source", str_c(hex));
    put_sizes(&k, w);
    put_router(&k, &w->hp);
    put_rope(&k, &w->hp);
    put_indexer(&k, &w->hp);
    if (w->hp.temperature != 1 || w->hp.top_p != 1) {
        gguf_put_f32(h, "agentd.temperature", w->hp.temperature);
        gguf_put_f32(h, "agentd.top_p", w->hp.top_p);
    }
    if (t)
        return put_vocab(h, w, t, err);
    gguf_put_str(h, "tokenizer.ggml.model", STR("none"));
    put_ends(h, &w->hp, w->hp.bos, w->hp.eos);
    return 0;
}
