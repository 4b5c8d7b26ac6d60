/*
 * randmodel.c - models of random weights in three sizes: the head widths, ranks, groups and
 * rope of DeepSeek-V3.2 around fewer, narrower layers. Written by the converter, whose rows
 * are made here instead of read.
 *
 * Row r of a tensor is a stream of its own, started from seed, name and r, so that rows may be
 * made in any order and a tensor is the same in every file that has it.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/convert_plan.h"
#include "engine/hash.h"
#include "engine/hparams_read.h"

struct size {
    const char *name;
    uint32_t layers, dim, heads, q_lora, inter, experts, used, expert_dim;
    uint32_t groups, kept_groups, topk, vocab;
};

static const struct size sizes[] = {
    {"tiny", 3, 256, 2, 128, 640, 8, 2, 128, 4, 2, 64, 2048},
    {"small", 12, 1024, 16, 512, 2816, 64, 8, 256, 8, 4, 2048, 129280},
    {"mid", 18, 2048, 32, 768, 8192, 128, 8, 512, 8, 4, 2048, 129280},
};

enum { KV_LORA = 512, ROPE = 64, NOPE = 128, V_HEAD = 128, INDEX_DIM = 128 };

struct made {
    struct weights w;
    struct layer_weights *layer; /* owned: one description for each layer */
    struct ffn_weights *experts; /* owned: all layers have the same */
    uint64_t seed;
};

/* --- numbers ------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t *s) /* splitmix64 */
{
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform with mean `mid`: a matrix keeps the variance of its input, a norm is near one. */
static void fill_row(void *arg, const struct out_tensor *t, uint64_t r, float *out)
{
    const struct made *m = arg;
    struct str name = str_c(t->name);
    bool norm = str_ends(name, STR("norm.weight"));
    float mid = norm ? 1.0f : 0.0f;
    float half = t->n_dims == 1 ? 0.02f : sqrtf(3.0f / (float)t->ne[0]);
    uint64_t s = hash64(name.p, name.n) ^ m->seed * 0xd1342543de82ef95u;
    s = mix(&s) + r * 0xa0761d6478bd642fu;
    s = mix(&s);
    for (uint64_t i = 0; i < t->ne[0]; i += 4) {
        uint64_t bits = mix(&s);
        for (uint64_t k = i; k < i + 4 && k < t->ne[0]; k++, bits >>= 16)
            out[k] = mid + half * ((float)(bits & 0xffff) / 32767.5f - 1.0f);
    }
}

/* --- shapes ------------------------------------------------------------------------------- */

static void fill_hparams(struct hparams *hp, const struct size *z, const char *arch)
{
    *hp = (struct hparams){
        .n_vocab = z->vocab, .dim = z->dim, .n_layers = z->layers, .n_ctx = 163840,
        .n_heads = z->heads, .q_lora_rank = z->q_lora, .kv_lora_rank = KV_LORA,
        .qk_nope_head_dim = NOPE, .qk_rope_head_dim = ROPE, .v_head_dim = V_HEAD,
        .rms_eps = 1e-6f, .latent_norm_eps = 1e-6f, .n_dense_layers = 1, .inter_dim = z->inter,
        .moe_inter_dim = z->expert_dim, .n_routed_experts = z->experts, .n_shared_experts = 1,
        .n_activated_experts = z->used, .n_expert_groups = z->groups,
        .n_limited_groups = z->kept_groups, .score_func = SCORE_SIGMOID,
        .group_score = GROUP_TOP2_SUM, .norm_topk_prob = true, .route_scale = 2.5f,
        .rope_theta = 10000, .yarn = true, .yarn_factor = 40, .yarn_beta_fast = 32,
        .yarn_beta_slow = 1, .yarn_orig_ctx = 4096, .bos = -1, .eos = -1, .temperature = 1,
        .top_p = 1,
    };
    snprintf(hp->arch, sizeof hp->arch, "%s", arch);
    for (uint32_t l = 1; l < HPARAMS_LAYERS_MAX; l++)
        hp->moe[l] = true;
    if (strcmp(arch, "deepseek2") != 0) {
        hp->index_n_heads = z->heads;
        hp->index_head_dim = INDEX_DIM;
        hp->index_topk = z->topk;
        hp->index_rope_pairs = strcmp(arch, "glm-dsa") == 0;
        hparams_index_pattern(hp, 1, 2);
    }
    hparams_rope_scale(hp, 1, 1);
}

/* The plan asks only for shape and existence; no row is ever read through `data`. */
static struct tensor shape(uint32_t n_dims, uint64_t a, uint64_t b, uint64_t c)
{
    static const char nothing;
    return (struct tensor){.name = "", .n_dims = n_dims, .ne = {a, b, c, 1}, .data = &nothing};
}

static struct tensor vector(uint64_t n)
{
    return shape(1, n, 1, 1);
}

static struct tensor matrix(uint64_t in, uint64_t out)
{
    return shape(2, in, out, 1);
}

static struct ffn_weights ffn(uint64_t dim, uint64_t width)
{
    return (struct ffn_weights){matrix(dim, width), matrix(dim, width), matrix(width, dim)};
}

static void shape_layer(struct layer_weights *w, const struct hparams *hp, bool moe,
                        struct ffn_weights *experts)
{
    uint64_t h = hp->n_heads;
    w->attn_norm = w->ffn_norm = vector(hp->dim);
    w->q_a = matrix(hp->dim, hp->q_lora_rank);
    w->q_a_norm = vector(hp->q_lora_rank);
    w->q_b = matrix(hp->q_lora_rank, h * (NOPE + ROPE));
    w->kv_a = matrix(hp->dim, KV_LORA + ROPE);
    w->kv_a_norm = vector(KV_LORA);
    w->k_b = shape(3, NOPE, KV_LORA, h);
    w->v_b = shape(3, KV_LORA, V_HEAD, h);
    w->o = matrix(h * V_HEAD, hp->dim);
    if (hp->index_topk) {
        w->index_q_b = matrix(hp->q_lora_rank, (uint64_t)hp->index_n_heads * INDEX_DIM);
        w->index_k = matrix(hp->dim, INDEX_DIM);
        w->index_k_norm = w->index_k_norm_bias = vector(INDEX_DIM);
        w->index_proj = matrix(hp->dim, hp->index_n_heads);
    }
    if (!moe) {
        w->mlp = ffn(hp->dim, hp->inter_dim);
        return;
    }
    w->router = matrix(hp->dim, hp->n_routed_experts);
    w->router_bias = vector(hp->n_routed_experts);
    w->experts = experts;
    w->shared = ffn(hp->dim, (uint64_t)hp->n_shared_experts * hp->moe_inter_dim);
}

static int shape_model(struct made *m, struct err *err)
{
    static const char other_data;
    struct weights *w = &m->w;
    const struct hparams *hp = &w->hp;
    w->layer = m->layer = mem_array(hp->n_layers, sizeof *m->layer);
    m->experts = mem_array(hp->n_routed_experts, sizeof *m->experts);
    if (!m->layer || !m->experts)
        return err_nomem(err);
    for (uint32_t e = 0; e < hp->n_routed_experts; e++)
        m->experts[e] = ffn(hp->dim, hp->moe_inter_dim);
    for (uint32_t l = 0; l < hp->n_layers; l++)
        shape_layer(&w->layer[l], hp, hp->moe[l], m->experts);
    w->embed = w->head = matrix(hp->dim, hp->n_vocab);
    w->head.data = &other_data; /* not tied */
    w->norm = vector(hp->dim);
    return 0;
}

/* --- the whole ---------------------------------------------------------------------------- */

static const struct size *find_size(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        if (strcmp(sizes[i].name, name) == 0)
            return &sizes[i];
    return NULL;
}

static int check(const struct model_make_random *o, struct err *err)
{
    if (!find_size(o->size))
        return err_set(err, ERR_NOTFOUND, "size '%s' is unknown; there are tiny, small and mid",
                       o->size);
    if (strcmp(o->arch, "deepseek32") != 0 && strcmp(o->arch, "deepseek2") != 0 &&
        strcmp(o->arch, "glm-dsa") != 0)
        return err_set(err, ERR_NOTFOUND, "architecture '%s' is unknown; there are deepseek32, "
                       "deepseek2 and glm-dsa", o->arch);
    return 0;
}

int model_make_random(const struct model_make_random *o, struct err *err)
{
    struct made m = {.seed = o->seed};
    struct plan plan = {0};
    char name[96];
    int rc = check(o, err);
    if (rc < 0)
        return rc;
    fill_hparams(&m.w.hp, find_size(o->size), o->arch);
    int n = snprintf(name, sizeof name, "random %s %s seed %llu", o->size, o->arch,
                     (unsigned long long)o->seed);
    struct hash128 print = hash128(name, (size_t)n);
    memcpy(m.w.fingerprint, print.b, sizeof m.w.fingerprint);
    m.w.path = m.w.name = name;
    const struct model_convert c = {.src = name, .dst = o->dst, .type = o->type,
                                    .progress = o->progress, .arg = o->arg};
    rc = hparams_check(&m.w.hp, err);
    if (rc == 0)
        rc = shape_model(&m, err);
    if (rc == 0)
        rc = plan_make(&plan, &m.w, &c, err);
    plan.fill = fill_row;
    plan.fill_arg = &m;
    if (rc == 0)
        rc = convert_write(&plan, &c, err);
    plan_done(&plan);
    mem_free(m.layer);
    mem_free(m.experts);
    return rc;
}
