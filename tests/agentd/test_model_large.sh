#!/usr/bin/env bash
# The whole of DeepSeek-V3.2 by name and shape: 92,425 tensors, 689 GB that nobody wrote
# (sparse files), opened, bound and counted. The sums are those published for the model.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
cat >make.py <<'PY'
import json, struct, sys
D, WIDTH = 7168, {"BF16": 2, "F32": 4, "F8_E4M3": 1}
config = dict(
    model_type="deepseek_v32", vocab_size=129280, hidden_size=D, num_hidden_layers=61,
    num_attention_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128,
    qk_rope_head_dim=64, v_head_dim=128, index_n_heads=64, index_head_dim=128, index_topk=2048,
    first_k_dense_replace=3, intermediate_size=18432, moe_intermediate_size=2048,
    n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, n_group=8, topk_group=4,
    scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True,
    routed_scaling_factor=2.5, rms_norm_eps=1e-6, rope_theta=10000, num_nextn_predict_layers=1,
    max_position_embeddings=163840, bos_token_id=0, eos_token_id=1,
    rope_scaling=dict(type="yarn", factor=40, original_max_position_embeddings=4096,
                      beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0),
    quantization_config=dict(quant_method="fp8", weight_block_size=[128, 128]))
json.dump(config, open("config.json", "w"))
shards = [({}, [0])]
def add(name, shape, dtype):
    size = WIDTH[dtype]
    for n in shape: size *= n
    if shards[-1][1][0] > 4 << 30: shards.append(({}, [0]))
    header, end = shards[-1]
    header[name] = dict(dtype=dtype, shape=shape, data_offsets=[end[0], end[0] + size])
    end[0] += size
def fp8(name, o, i):
    add(name + ".weight", [o, i], "F8_E4M3")
    add(name + ".weight_scale_inv", [-(-o // 128), -(-i // 128)], "F32")
def bf16(name, *shape): add(name + ".weight", list(shape), "BF16")
def ffn(at, width):
    fp8(at + "gate_proj", width, D), fp8(at + "up_proj", width, D), fp8(at + "down_proj", D, width)
bf16("model.embed_tokens", 129280, D), bf16("model.norm", D), bf16("lm_head", 129280, D)
for l in range(62):
    p = f"model.layers.{l}."; a = p + "self_attn."
    bf16(p + "input_layernorm", D), bf16(p + "post_attention_layernorm", D)
    fp8(a + "q_a_proj", 1536, D), bf16(a + "q_a_layernorm", 1536), fp8(a + "q_b_proj", 24576, 1536)
    fp8(a + "kv_a_proj_with_mqa", 576, D), bf16(a + "kv_a_layernorm", 512)
    fp8(a + "kv_b_proj", 32768, 512), fp8(a + "o_proj", D, 16384)
    fp8(a + "indexer.wq_b", 8192, 1536), fp8(a + "indexer.wk", 128, D)
    add(a + "indexer.k_norm.weight", [128], "F32"), add(a + "indexer.k_norm.bias", [128], "F32")
    bf16(a + "indexer.weights_proj", 64, D)
    if l < 3:
        ffn(p + "mlp.", 18432)
        continue
    bf16(p + "mlp.gate", 256, D), add(p + "mlp.gate.e_score_correction_bias", [256], "F32")
    for e in range(256): ffn(f"{p}mlp.experts.{e}.", 2048)
    ffn(p + "mlp.shared_experts.", 2048)
    if l == 61:
        bf16(p + "enorm", D), bf16(p + "hnorm", D), bf16(p + "eh_proj", D, 2 * D)
        bf16(p + "shared_head.norm", D)
        bf16(p + "embed_tokens", 129280, D), bf16(p + "shared_head.head", 129280, D)
index = {}
for k, (header, end) in enumerate(shards):
    name = f"model-{k + 1:05d}.safetensors"
    text = json.dumps(header).encode(); text += b" " * (-len(text) % 8)
    with open(name, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        try: f.truncate(8 + len(text) + end[0])
        except OSError as e: print("no sparse files of this size here:", e), sys.exit(77)
    index.update(dict.fromkeys(header, name))
json.dump(dict(weight_map=index), open("model.safetensors.index.json", "w"))
PY
python3 make.py; rc=$?
[ $rc -eq 0 ] || exit $rc
"$BIN/agentctl" model info . --json >info.json || exit 1
python3 - <<'PY'
import json, sys
d = json.load(open("info.json"))
got = (d["tensors"]["count"], d["tensors"]["bytes"], d["numbers"]["n_mtp_layers"],
       d["tensors"]["unused"])
params, active = d["parameters"]["total"] / 1e9, d["parameters"]["active"] / 1e9
print(got, "parameters %.3fe9, %.3fe9 per token" % (params, active))
fine = got == (92425, 689469018240, 1, 0) and abs(params - (671.878 + 11.62)) < 0.01
fine = fine and abs(active - 37.48) < 0.01 and abs(d["numbers"]["attn_scale"] - 0.135233779) < 1e-7
# a position costs 61 * 1408 bytes in 16 bits
fine = fine and d["memory"][-1]["cache_f16"] == 163840 * 61 * 1408
sys.exit(0 if fine else 1)
PY
