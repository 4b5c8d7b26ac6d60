/* export.c - see export.h. A checkpoint is a header of four numbers and three raw arrays, written
 * to a temporary name and renamed, so a killed run leaves the previous one. */
#include "export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DX = 64 }; /* index head width in exported files */

static const uint64_t magic = 0x31544b4341474e54ull;

static int save(const char *path, const struct model *m, const float *w, const struct opt *o,
                long step)
{
    char tmp[600];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    FILE *f = fopen(tmp, "wb");
    uint64_t h[4] = {magic, m->n, (uint64_t)m->vocab, (uint64_t)step};
    int ok = f && fwrite(h, sizeof h, 1, f) == 1 && fwrite(w, 4, m->n, f) == m->n;
    if (ok && o)
        ok = fwrite(o->m, 4, m->n, f) == m->n && fwrite(o->v, 4, m->n, f) == m->n;
    if (f && fclose(f))
        ok = 0;
    if (!ok || rename(tmp, path)) {
        fprintf(stderr, "checkpoint: cannot write %s\n", path);
        return -1;
    }
    return 0;
}

int ckpt_save(const char *path, const struct model *m, const struct opt *o, long step)
{
    return save(path, m, m->w, o, step);
}

int ckpt_save_mean(const char *path, const struct model *m, const float *w, long step)
{
    return save(path, m, w, NULL, step);
}

long ckpt_load(const char *path, struct model *m, struct opt *o)
{
    FILE *f = fopen(path, "rb");
    uint64_t h[4];
    if (!f)
        return -1;
    int ok = fread(h, sizeof h, 1, f) == 1 && h[0] == magic && h[1] == m->n &&
             h[2] == (uint64_t)m->vocab && fread(m->w, 4, m->n, f) == m->n;
    if (ok && o)
        ok = fread(o->m, 4, m->n, f) == m->n && fread(o->v, 4, m->n, f) == m->n;
    fclose(f);
    if (!ok) {
        fprintf(stderr, "checkpoint: %s does not fit this model\n", path);
        return -1;
    }
    return (long)h[3];
}

static int write_config(const char *dir, const struct model *m, int topk)
{
    char path[600];
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f)
        return -1;
    fprintf(f,
            "{\"architectures\":[\"DeepseekV32ForCausalLM\"],\"model_type\":\"deepseek_v32\",\n"
            " \"vocab_size\":%d,\"hidden_size\":%d,\"num_hidden_layers\":%d,"
            "\"first_k_dense_replace\":%d,\"moe_layer_freq\":1,\n"
            " \"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"q_lora_rank\":%d,"
            "\"kv_lora_rank\":%d,\n \"qk_nope_head_dim\":%d,\"qk_rope_head_dim\":%d,"
            "\"v_head_dim\":%d,\n \"intermediate_size\":%d,\"moe_intermediate_size\":%d,"
            "\"n_routed_experts\":%d,\"n_shared_experts\":1,\"num_experts_per_tok\":%d,\n"
            " \"n_group\":%d,\"topk_group\":%d,\"norm_topk_prob\":true,"
            "\"routed_scaling_factor\":%.1f,\"scoring_func\":\"sigmoid\","
            "\"topk_method\":\"noaux_tc\",\n \"index_n_heads\":%d,\"index_head_dim\":%d,"
            "\"index_topk\":%d,\"num_nextn_predict_layers\":1,\"rms_norm_eps\":1e-6,"
            "\"hidden_act\":\"silu\",\n \"rope_theta\":10000,\"max_position_embeddings\":4096,"
            "\"tie_word_embeddings\":false,\"attention_bias\":false,\n \"bos_token_id\":0,"
            "\"eos_token_id\":1,\"torch_dtype\":\"float32\"}\n",
            m->vocab, D, NL, ND, NH, NH, RQ, RKV, DN, DR, DV, FD, FM, E, EK, NG, GK,
            (double)route_scale, HI, DX, topk);
    return fclose(f);
}

/* llama.cpp cannot run index heads narrower than 64. The exported ones are that wide and compute
 * the same: added key rows repeat the first ones, which leaves the LayerNorm's mean and variance
 * alone, their norm weight and bias are zero, and so are the added query rows. */
static size_t widened(const struct param *p, int *rows, int *cols)
{
    *rows = p->rows;
    *cols = p->cols;
    if (strstr(p->name, "indexer.wq_b"))
        *rows = HI * DX;
    else if (strstr(p->name, "indexer.wk"))
        *rows = DX;
    else if (strstr(p->name, "indexer.k_norm"))
        *cols = DX;
    return (size_t)(*rows ? *rows : 1) * (size_t)*cols;
}

static void widen(const struct param *p, const float *w, float *out)
{
    int rows, cols;
    size_t n = widened(p, &rows, &cols);
    memset(out, 0, n * 4);
    if (strstr(p->name, "indexer.wq_b"))
        for (int h = 0; h < HI; h++)
            memcpy(out + (size_t)h * DX * RQ, w + (size_t)h * DI * RQ, DI * RQ * 4);
    else if (strstr(p->name, "indexer.wk"))
        for (int r = 0; r < DX; r++)
            memcpy(out + (size_t)r * D, w + (size_t)(r % DI) * D, D * 4);
    else
        memcpy(out, w, (size_t)(p->rows ? p->rows : 1) * (size_t)p->cols * 4);
}

int export_dir(const char *dir, const struct model *m, int topk)
{
    char path[600];
    size_t cap = (size_t)m->np * 220 + 64, n = 0, at = 0;
    char *head = malloc(cap);
    float *out = falloc((size_t)m->vocab * D + 1024 * 1024);
    int rows, cols, ok;
    if (!head)
        return -1;
    n += (size_t)snprintf(head + n, cap - n, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < m->np; i++) {
        size_t cnt = widened(&m->p[i], &rows, &cols);
        n += (size_t)snprintf(head + n, cap - n, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[",
                              m->p[i].name);
        if (rows)
            n += (size_t)snprintf(head + n, cap - n, "%d,", rows);
        n += (size_t)snprintf(head + n, cap - n, "%d],\"data_offsets\":[%zu,%zu]}", cols, at,
                              at + cnt * 4);
        at += cnt * 4;
    }
    n += (size_t)snprintf(head + n, cap - n, "}");
    while (n % 8)
        head[n++] = ' ';
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    uint64_t len = n;
    ok = f && fwrite(&len, 8, 1, f) == 1 && fwrite(head, 1, n, f) == n;
    for (int i = 0; ok && i < m->np; i++) {
        size_t cnt = widened(&m->p[i], &rows, &cols);
        widen(&m->p[i], m->w + m->p[i].off, out);
        ok = fwrite(out, 4, cnt, f) == cnt;
    }
    if (f && fclose(f))
        ok = 0;
    free(head);
    if (!ok || write_config(dir, m, topk)) {
        fprintf(stderr, "export: cannot write to %s\n", dir);
        return -1;
    }
    return 0;
}
