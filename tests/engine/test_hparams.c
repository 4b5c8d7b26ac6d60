/*
 * test_hparams.c - the family of models from their own configs, the relatives that are refused
 * by the field that decides, and the rules for GGUF files that lack keys.
 */
#include "test.h"

#include <math.h>

#include "base/json.h"
#include "engine/gguf_write.h"
#include "engine/hparams_read.h"

/* --- config.json ------------------------------------------------------------------------------ */

/* Every config shares these; a later key wins over an earlier one when merged. */
static const char *common =
    "{'num_attention_heads':128,'kv_lora_rank':512,'qk_nope_head_dim':128,'qk_rope_head_dim':64,"
    "'v_head_dim':128,'hidden_act':'silu','attention_bias':false,'moe_layer_freq':1,"
    "'max_position_embeddings':163840,'rms_norm_eps':1e-6,'rope_theta':10000,"
    "'rope_scaling':null,'bos_token_id':0,'eos_token_id':1}";

static const char *v3 =
    "{'model_type':'deepseek_v3','vocab_size':129280,'hidden_size':7168,'num_hidden_layers':61,"
    "'q_lora_rank':1536,'intermediate_size':18432,'moe_intermediate_size':2048,"
    "'first_k_dense_replace':3,'n_routed_experts':256,'n_shared_experts':1,"
    "'num_experts_per_tok':8,'n_group':8,'topk_group':4,'scoring_func':'sigmoid',"
    "'topk_method':'noaux_tc','norm_topk_prob':true,'routed_scaling_factor':2.5,"
    "'num_nextn_predict_layers':1,'quantization_config':{'quant_method':'fp8','fmt':'e4m3',"
    "'weight_block_size':[128,128]},'rope_scaling':{'type':'yarn','factor':40,"
    "'original_max_position_embeddings':4096,'beta_fast':32,'beta_slow':1,'mscale':1.0,"
    "'mscale_all_dim':1.0}}";

static json_t *quoted(const char *text)
{
    struct err err = {0};
    char *s = mem_strdup(str_c(text));
    for (char *p = s; *p; p++)
        if (*p == '\'')
            *p = '"';
    json_t *v = NULL;
    ASSERT_OK(json_read(&v, str_c(s), &err), &err);
    mem_free(s);
    return v;
}

/* common + base + change, read. */
static int read_config(struct hparams *hp, const char *base, const char *change,
                       struct err *err)
{
    bool tied;
    json_t *c = quoted(common), *b = quoted(base), *d = quoted(change ? change : "{}");
    json_object_update(c, b);
    json_object_update(c, d);
    int rc = hparams_from_config(hp, &tied, c, NULL, err);
    json_decref(c);
    json_decref(b);
    json_decref(d);
    return rc;
}

static void near(double got, double want)
{
    if (fabs(got - want) > 1e-6 * fabs(want))
        fail_msg("%.9g is not %.9g", got, want);
}

static void deepseek_v3_and_v32(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    ASSERT_OK(read_config(&hp, v3, NULL, &err), &err);
    assert_string_equal(hp.arch, "deepseek2");
    assert_int_equal(hp.index_topk, 0);
    assert_int_equal(hp.n_mtp_layers, 1);
    assert_true(!hp.moe[2] && hp.moe[3] && hp.moe[60] && hp.moe[61]);
    assert_int_equal(hp.group_score, GROUP_TOP2_SUM);
    near(hp.attn_scale, 0.135233779);
    assert_true(hp.rope_mul == 1.0f);
    ASSERT_OK(read_config(&hp, v3, "{'model_type':'deepseek_v32','index_n_heads':64,"
                          "'index_head_dim':128,'index_topk':2048}", &err), &err);
    assert_string_equal(hp.arch, "deepseek32");
    assert_true(hp.index_topk == 2048 && hp.index_full[0] && hp.index_full[61]);
    assert_false(hp.index_rope_pairs);
}

static void deepseek_v2(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    const char *lite =
        "{'model_type':'deepseek_v2','vocab_size':102400,'hidden_size':2048,"
        "'num_hidden_layers':27,'num_attention_heads':16,'q_lora_rank':null,"
        "'intermediate_size':10944,'moe_intermediate_size':1408,'first_k_dense_replace':1,"
        "'n_routed_experts':64,'n_shared_experts':2,'num_experts_per_tok':6,'n_group':1,"
        "'topk_group':1,'scoring_func':'softmax','topk_method':'greedy',"
        "'norm_topk_prob':false,'routed_scaling_factor':1.0,'rope_scaling':{'type':'yarn',"
        "'factor':40,'original_max_position_embeddings':4096,'beta_fast':32,'beta_slow':1,"
        "'mscale':0.707,'mscale_all_dim':0.707}}";
    ASSERT_OK(read_config(&hp, lite, NULL, &err), &err);
    assert_true(hp.q_lora_rank == 0 && hp.score_func == SCORE_SOFTMAX && !hp.norm_topk_prob);
    near(hp.attn_scale, 1.58962617 / sqrt(192));
    ASSERT_OK(read_config(&hp, lite, "{'n_routed_experts':160,'n_group':8,'topk_group':3,"
                          "'topk_method':'group_limited_greedy','q_lora_rank':1536,"
                          "'routed_scaling_factor':16.0}", &err), &err);
    assert_true(hp.n_expert_groups == 8 && hp.n_limited_groups == 3);
    assert_int_equal(hp.group_score, GROUP_MAX);
    assert_true(hp.route_scale == 16.0f);
}

static void moonlight_and_kimi(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    ASSERT_OK(read_config(&hp, v3, "{'vocab_size':163840,'hidden_size':2048,"
                          "'num_hidden_layers':27,'num_attention_heads':16,'q_lora_rank':null,"
                          "'intermediate_size':11264,'moe_intermediate_size':1408,"
                          "'first_k_dense_replace':1,'n_routed_experts':64,"
                          "'n_shared_experts':2,'num_experts_per_tok':6,'n_group':1,"
                          "'topk_group':1,'routed_scaling_factor':2.446,'rope_theta':50000,"
                          "'rope_scaling':null,'rms_norm_eps':1e-5,"
                          "'max_position_embeddings':8192,'num_nextn_predict_layers':0}", &err),
              &err);
    assert_true(!hp.yarn && hp.n_mtp_layers == 0 && hp.score_func == SCORE_SIGMOID);
    near(hp.attn_scale, 1 / sqrt(192));
    near(hp.latent_norm_eps, 1e-5);
    const char *kimi =
        "{'model_type':'kimi_k2','vocab_size':163840,'num_attention_heads':64,"
        "'first_k_dense_replace':1,'n_routed_experts':384,'n_group':1,'topk_group':1,"
        "'routed_scaling_factor':2.827,'rope_theta':50000.0,'num_nextn_predict_layers':0,"
        "'rope_scaling':{'type':'yarn','factor':32.0,'original_max_position_embeddings':4096,"
        "'beta_fast':1.0,'beta_slow':1.0,'mscale':1.0,'mscale_all_dim':1.0}}";
    ASSERT_OK(read_config(&hp, v3, kimi, &err), &err);
    near(hp.attn_scale, 1.81326043 / sqrt(192));
    assert_true(hp.yarn_beta_fast == 1.0f);
}

static void wrapper_with_text_config(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    bool tied;
    json_t *c = quoted(common), *b = quoted(v3);
    json_object_update(c, b);
    json_t *w = json_pack("{s:s, s:o}", "model_type", "kimi_k25", "text_config", c);
    ASSERT_OK(hparams_from_config(&hp, &tied, w, NULL, &err), &err);
    assert_int_equal(hp.n_layers, 61);
    json_decref(w);
    json_decref(b);
}

static const char *glm5 =
    "{'model_type':'glm_moe_dsa','vocab_size':154880,'hidden_size':6144,"
    "'num_hidden_layers':78,'num_attention_heads':64,'q_lora_rank':2048,"
    "'qk_nope_head_dim':192,'v_head_dim':256,'intermediate_size':12288,"
    "'moe_intermediate_size':2048,'n_routed_experts':256,'n_shared_experts':1,"
    "'num_experts_per_tok':8,'n_group':1,'topk_group':1,'norm_topk_prob':true,"
    "'routed_scaling_factor':2.5,'topk_method':'noaux_tc','first_k_dense_replace':3,"
    "'index_n_heads':32,'index_head_dim':128,'index_topk':2048,"
    "'indexer_rope_interleave':true,'num_nextn_predict_layers':1,'rms_norm_eps':1e-5,"
    "'head_dim':64,'rope_parameters':{'rope_theta':1000000,'rope_type':'default'},"
    "'eos_token_id':[154820,154827,154829]}";

static void glm(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    ASSERT_OK(read_config(&hp, glm5, NULL, &err), &err);
    assert_string_equal(hp.arch, "glm-dsa");
    assert_true(hp.index_rope_pairs && hp.index_full[50] && hp.eos == 154820);
    assert_true(hp.n_ends == 3 && hp.end[0] == 154820 && hp.end[2] == 154829);
    near(hp.attn_scale, 0.0625);
    near(hp.rope_theta, 1e6);
    /* GLM-5.2: frequency 4, offset 3 -> 0, 1, 2, 6, 10, ..., 74: 21 layers; MTP its own. */
    ASSERT_OK(read_config(&hp, glm5, "{'index_topk_freq':4,'index_skip_topk_offset':3}", &err),
              &err);
    unsigned full = 0;
    for (uint32_t l = 0; l < 78; l++)
        full += hp.index_full[l];
    assert_int_equal(full, 21);
    assert_true(hp.index_full[2] && !hp.index_full[3] && hp.index_full[6] && hp.index_full[74]);
    assert_true(hp.index_full[78]);
    ASSERT_OK(read_config(&hp, glm5, "{'model_type':'glm4_moe_lite','hidden_size':2048,"
                          "'num_hidden_layers':47,'num_attention_heads':20,'q_lora_rank':768,"
                          "'n_routed_experts':64,'num_experts_per_tok':4,"
                          "'first_k_dense_replace':1,'routed_scaling_factor':1.8,"
                          "'index_n_heads':null}", &err), &err);
    assert_string_equal(hp.arch, "deepseek2");
    assert_int_equal(hp.index_topk, 0);
}

static void layer_lists_override(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    ASSERT_OK(read_config(&hp, glm5, "{'num_hidden_layers':4,'mlp_layer_types':['dense','sparse',"
                          "'dense','sparse'],'indexer_types':['full','shared','full','full']}",
                          &err), &err);
    assert_true(!hp.moe[0] && hp.moe[1] && !hp.moe[2] && hp.moe[3]);
    assert_true(hp.index_full[0] && !hp.index_full[1] && hp.index_full[2]);
    ASSERT_OK(read_config(&hp, glm5, "{'num_hidden_layers':4,'index_topk_pattern':'FSSF'}",
                          &err), &err);
    assert_true(hp.index_full[0] && !hp.index_full[2] && hp.index_full[3]);
    ASSERT_ERR(read_config(&hp, glm5, "{'num_hidden_layers':4,'indexer_types':['full']}", &err),
               ERR_PARSE, &err, "indexer_types has 1 entries for 4 layers");
    ASSERT_ERR(read_config(&hp, glm5, "{'num_hidden_layers':2,'indexer_types':['shared',"
                           "'full']}", &err), ERR_PARSE, &err, "indexer_types[0]");
    ASSERT_ERR(read_config(&hp, glm5, "{'num_hidden_layers':1,'mlp_layer_types':['thin']}",
                           &err), ERR_PARSE, &err, "mlp_layer_types[0]");
}

/* Each row changes one field of a good config. */
static void refusals_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *change;
        int code;
        const char *needle;
    } t[] = {
        {"{'compress_ratios':[0,4]}", ERR_UNSUPPORTED, "'compress_ratios'"},
        {"{'hc_mult':4}", ERR_UNSUPPORTED, "'hc_mult'"},
        {"{'linear_attn_config':{}}", ERR_UNSUPPORTED, "'linear_attn_config'"},
        {"{'index_kpool':4}", ERR_UNSUPPORTED, "'index_kpool'"},
        {"{'gated_norm_rank':8}", ERR_UNSUPPORTED, "'gated_norm_rank'"},
        {"{'gated_mla':true}", ERR_UNSUPPORTED, "'gated_mla'"},
        {"{'sliding_window':128}", ERR_UNSUPPORTED, "'sliding_window'"},
        {"{'qk_rope_head_dim':0}", ERR_UNSUPPORTED, "qk_rope_head_dim 0"},
        {"{'model_type':'deepseek_v4'}", ERR_UNSUPPORTED, "'deepseek_v4'"},
        {"{'moe_layer_freq':2}", ERR_UNSUPPORTED, "moe_layer_freq must be 1"},
        {"{'hidden_act':'gelu'}", ERR_UNSUPPORTED, "hidden_act"},
        {"{'attention_bias':true}", ERR_UNSUPPORTED, "attention_bias"},
        {"{'rope_interleave':false}", ERR_UNSUPPORTED, "rope_interleave"},
        {"{'partial_rotary_factor':0.5}", ERR_UNSUPPORTED, "partial_rotary_factor"},
        {"{'quantization_config':{'quant_method':'compressed-tensors'}}", ERR_UNSUPPORTED,
         "quantization_config.quant_method is 'compressed-tensors'"},
        {"{'quantization_config':{'quant_method':'fp8','weight_block_size':[64,64]}}",
         ERR_UNSUPPORTED, "weight_block_size"},
        {"{'scoring_func':'sqrtsoftplus'}", ERR_UNSUPPORTED, "scoring_func"},
        {"{'topk_method':'hash'}", ERR_UNSUPPORTED, "topk_method 'hash'"},
        {"{'rope_scaling':{'type':'longrope'}}", ERR_UNSUPPORTED, "'longrope'"},
        {"{'rope_scaling':{'type':'yarn','factor':4}}", ERR_PARSE, "original_max_position"},
        {"{'vocab_size':null}", ERR_PARSE, "'vocab_size' is missing"},
        {"{'hidden_size':'big'}", ERR_PARSE, "'hidden_size' must be an integer"},
        {"{'num_hidden_layers':300}", ERR_LIMIT, "num_hidden_layers is 300"},
        {"{'num_hidden_layers':0}", ERR_PARSE, "num_hidden_layers is 0"},
        {"{'qk_rope_head_dim':63}", ERR_PARSE, "qk_rope_head_dim is 63"},
        {"{'n_group':7}", ERR_PARSE, "n_group 7 does not divide"},
        {"{'num_experts_per_tok':60,'topk_group':1}", ERR_PARSE, "num_experts_per_tok is 60"},
        {"{'n_group':256,'topk_group':16}", ERR_PARSE, "one expert per group"},
        {"{'rms_norm_eps':0}", ERR_PARSE, "rms_norm_eps"},
        {"{'rope_theta':0.5}", ERR_PARSE, "rope_theta"},
        {"{'index_n_heads':64,'index_head_dim':96,'index_topk':8}", ERR_UNSUPPORTED,
         "index_head_dim is 96"},
        {"{'index_n_heads':64,'index_head_dim':32,'index_topk':8}", ERR_PARSE,
         "index_head_dim is 32"},
        {"{'index_n_heads':64,'index_head_dim':128}", ERR_PARSE, "'index_topk' is missing"},
        {"{'index_n_heads':64,'index_head_dim':128,'index_topk':8,'q_lora_rank':null}",
         ERR_UNSUPPORTED, "q_lora_rank is null"},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct hparams hp;
        struct err err = {0};
        ASSERT_ERR(read_config(&hp, v3, t[i].change, &err), t[i].code, &err, t[i].needle);
    }
}

/* --- GGUF keys ---------------------------------------------------------------------------------- */

struct keys {
    const char *key;
    double v;   /* NAN: the text */
    const char *text;
};

/* V3.2's keys with `change` over them (a key of value -1 is left out) and some tensors. */
static int read_keys(struct hparams *hp, const char *arch, const struct keys *change, size_t n,
                     const char *tensor, struct err *err)
{
    static const struct keys base[] = {
        {"block_count", 62, NULL}, {"context_length", 163840, NULL},
        {"embedding_length", 7168, NULL}, {"feed_forward_length", 18432, NULL},
        {"vocab_size", 129280, NULL}, {"attention.head_count", 128, NULL},
        {"attention.q_lora_rank", 1536, NULL}, {"attention.kv_lora_rank", 512, NULL},
        {"attention.key_length", 576, NULL}, {"attention.value_length", 512, NULL},
        {"attention.key_length_mla", 192, NULL}, {"attention.value_length_mla", 128, NULL},
        {"rope.dimension_count", 64, NULL}, {"rope.scaling.type", NAN, "yarn"},
        {"rope.scaling.factor", 40, NULL}, {"rope.scaling.original_context_length", 4096, NULL},
        {"rope.scaling.yarn_log_multiplier", 0.1, NULL},
        {"leading_dense_block_count", 3, NULL}, {"expert_count", 256, NULL},
        {"expert_used_count", 8, NULL}, {"expert_shared_count", 1, NULL},
        {"expert_feed_forward_length", 2048, NULL}, {"expert_weights_scale", 2.5, NULL},
        {"expert_weights_norm", 1, NULL}, {"expert_gating_func", 2, NULL},
        {"expert_group_count", 8, NULL}, {"expert_group_used_count", 4, NULL},
        {"nextn_predict_layers", 1, NULL}, {"attention.indexer.head_count", 64, NULL},
        {"attention.indexer.key_length", 128, NULL}, {"attention.indexer.top_k", 2048, NULL},
    };
    struct gguf_head h;
    struct buf out;
    struct gguf *g = NULL;
    char name[96];
    gguf_head_init(&h);
    buf_init(&out, 0);
    gguf_put_str(&h, "general.architecture", str_c(arch));
    for (size_t i = 0; i < ARRAY_LEN(base); i++) {
        struct keys k = base[i];
        for (size_t c = 0; c < n; c++)
            if (strcmp(change[c].key, k.key) == 0)
                k = change[c];
        snprintf(name, sizeof name, "%s.%s", arch, k.key);
        if (k.text)
            gguf_put_str(&h, name, str_c(k.text));
        else if (k.v != floor(k.v))
            gguf_put_f32(&h, name, (float)k.v);
        else if (k.v >= 0)
            gguf_put_u32(&h, name, (uint32_t)k.v);
    }
    const char *rest[] = {tensor, "blk.61.nextn.eh_proj.weight"};
    for (size_t i = 0; i < 2; i++)
        if (rest[i])
            gguf_put_tensor(&h, rest[i], 0, 1, (uint64_t[]){8}, 32);
    ASSERT_OK(gguf_head_finish(&h, &out, err), err);
    for (uint64_t i = 0; i < h.data_bytes; i++)
        buf_putc(&out, 0);
    ASSERT_OK(gguf_parse(&g, out.data, out.len, err), err);
    int rc = hparams_from_gguf(hp, g, err);
    gguf_close(g);
    gguf_head_done(&h);
    buf_done(&out);
    return rc;
}

#define KEYS(...) (const struct keys[]){__VA_ARGS__}, \
                  sizeof((const struct keys[]){__VA_ARGS__}) / sizeof(struct keys)

static void gguf_v32(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    ASSERT_OK(read_keys(&hp, "deepseek32", NULL, 0, "blk.0.indexer.attn_k.weight", &err), &err);
    assert_true(hp.n_layers == 61 && hp.n_mtp_layers == 1 && hp.index_topk == 2048);
    assert_true(hp.qk_nope_head_dim == 128 && hp.v_head_dim == 128 && !hp.index_rope_pairs);
    near(hp.attn_scale, 0.135233779);
    assert_true(hp.rope_mul == 1.0f);
    /* No multiplier: no correction of the softmax. */
    ASSERT_OK(read_keys(&hp, "deepseek32", KEYS({"rope.scaling.yarn_log_multiplier", -1, NULL}),
                        "blk.0.indexer.attn_k.weight", &err), &err);
    near(hp.attn_scale, 1 / sqrt(192));
}

static void gguf_incomplete(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    /* Keys of an indexer without its tensors: dense, and said so. */
    ASSERT_OK(read_keys(&hp, "deepseek32", NULL, 0, NULL, &err), &err);
    assert_int_equal(hp.index_topk, 0);
    assert_non_null(strstr(hp.note, "no indexer tensors"));
    /* Legacy: head widths under their old names. */
    ASSERT_OK(read_keys(&hp, "deepseek2", KEYS({"attention.key_length_mla", -1, NULL},
                        {"attention.value_length_mla", -1, NULL},
                        {"attention.key_length", 192, NULL},
                        {"attention.value_length", 128, NULL}), NULL, &err), &err);
    assert_true(hp.qk_nope_head_dim == 128 && hp.v_head_dim == 128);
    /* Files from before the group keys. */
    ASSERT_OK(read_keys(&hp, "deepseek2", KEYS({"expert_group_count", -1, NULL},
                        {"expert_group_used_count", -1, NULL}), NULL, &err), &err);
    assert_true(hp.n_expert_groups == 8 && hp.n_limited_groups == 4);
    assert_int_equal(hp.group_score, GROUP_TOP2_SUM);
    ASSERT_OK(read_keys(&hp, "deepseek2", KEYS({"expert_group_count", -1, NULL},
                        {"expert_group_used_count", -1, NULL}, {"expert_count", 160, NULL},
                        {"expert_gating_func", -1, NULL}, {"embedding_length", 5120, NULL}),
                        NULL, &err), &err);
    assert_true(hp.n_expert_groups == 8 && hp.n_limited_groups == 3);
    assert_true(hp.group_score == GROUP_MAX && hp.score_func == SCORE_SOFTMAX);
    ASSERT_OK(read_keys(&hp, "deepseek2", KEYS({"expert_group_count", -1, NULL},
                        {"expert_count", 64, NULL}), NULL, &err), &err);
    assert_true(hp.n_expert_groups == 1);
    /* No gating function: GLM-4.7-Flash is known by its vocabulary. */
    ASSERT_OK(read_keys(&hp, "deepseek2", KEYS({"expert_gating_func", -1, NULL},
                        {"vocab_size", 154880, NULL}), NULL, &err), &err);
    assert_int_equal(hp.score_func, SCORE_SIGMOID);
    ASSERT_OK(read_keys(&hp, "glm-dsa", KEYS({"expert_gating_func", -1, NULL}), NULL, &err),
              &err);
    assert_int_equal(hp.score_func, SCORE_SIGMOID);
}

static void gguf_glm_patterns(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    const char *k = "blk.0.indexer.attn_k.weight";
    ASSERT_OK(read_keys(&hp, "glm-dsa", NULL, 0, k, &err), &err);
    assert_true(hp.index_rope_pairs && hp.index_full[3] && hp.index_full[40]);
    ASSERT_OK(read_keys(&hp, "glm-dsa", KEYS({"context_length", 1048576, NULL}), k, &err), &err);
    assert_true(hp.index_full[2] && !hp.index_full[3] && hp.index_full[6]);
    assert_non_null(strstr(hp.note, "GLM-5.2"));
}

static void gguf_refusals(void **state)
{
    (void)state;
    struct hparams hp;
    struct err err = {0};
    ASSERT_ERR(read_keys(&hp, "deepseek4", NULL, 0, NULL, &err), ERR_UNSUPPORTED, &err,
               "general.architecture is 'deepseek4'");
    ASSERT_ERR(read_keys(&hp, "deepseek2", KEYS({"expert_gating_func", 4, NULL}), NULL, &err),
               ERR_UNSUPPORTED, &err, "expert_gating_func is 4");
    ASSERT_ERR(read_keys(&hp, "deepseek2", KEYS({"rope.scaling.type", NAN, "linear"}), NULL,
                         &err), ERR_UNSUPPORTED, &err, "'linear'");
    ASSERT_ERR(read_keys(&hp, "deepseek2", KEYS({"block_count", -1, NULL}), NULL, &err),
               ERR_PARSE, &err, "'deepseek2.block_count' is missing");
    ASSERT_ERR(read_keys(&hp, "deepseek2", KEYS({"block_count", 4000, NULL}), NULL, &err),
               ERR_LIMIT, &err, "block_count 4000");
    ASSERT_ERR(read_keys(&hp, "deepseek2", KEYS({"attention.key_length_mla", 64, NULL}), NULL,
                         &err), ERR_PARSE, &err, "key_length_mla is 64");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_v3_and_v32),  cmocka_unit_test(deepseek_v2),
        cmocka_unit_test(moonlight_and_kimi),   cmocka_unit_test(wrapper_with_text_config),
        cmocka_unit_test(glm),                  cmocka_unit_test(layer_lists_override),
        cmocka_unit_test(refusals_name_the_field), cmocka_unit_test(gguf_v32),
        cmocka_unit_test(gguf_incomplete),      cmocka_unit_test(gguf_glm_patterns),
        cmocka_unit_test(gguf_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
