#!/usr/bin/env python3
"""make_seeds.py - writes the seeds of the fuzz targets gguf, safetensors and tokenizer.

    make_seeds.py tests/fuzz/corpus

Each seed is a valid input: a whole small model of every kind that the loaders know, a
vocabulary for every pre-tokenizer. A fuzzer that starts there reaches the code behind the
header checks. The same call always writes the same bytes.
"""
import json
import os
import struct
import sys

DIM, HEADS, QLORA, RANK, NOPE, ROPE, V, INTER, MOE, EXPERTS, VOCAB = 32, 1, 32, 32, 32, 2, 32, 32, 32, 2, 5
IHEADS, IDIM, TOPK = 1, 32, 2


def numbers(name, n):
    """n small floats that depend on the name alone."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 & (1 << 64) - 1
    out = []
    for i in range(n):
        h = (h * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        out.append(((h >> 40) / (1 << 24) - 0.5) * 0.4)
    return out


# --- GGUF -----------------------------------------------------------------------------------

U32, F32, BOOL, STR, ARR = 4, 6, 7, 8, 9
BLOCK = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
         20: (32, 18), 39: (32, 17), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176),
         14: (256, 210), 23: (256, 136)}


def gstr(s):
    b = s.encode() if isinstance(s, str) else s
    return struct.pack('<Q', len(b)) + b


def value(v):
    if isinstance(v, bool):
        return BOOL, struct.pack('<B', v)
    if isinstance(v, int):
        return U32, struct.pack('<I', v)
    if isinstance(v, float):
        return F32, struct.pack('<f', v)
    if isinstance(v, list):
        kind = value(v[0])[0]
        return ARR, struct.pack('<IQ', kind, len(v)) + b''.join(value(x)[1] for x in v)
    return STR, gstr(v)


def block_bytes(kind, n, name):
    per, size = BLOCK[kind]
    assert n % per == 0, name
    x = numbers(name, n)
    if kind == 0:
        return struct.pack('<%df' % n, *x)
    if kind == 1:
        return struct.pack('<%de' % n, *x)
    if kind == 30:
        return b''.join(struct.pack('<f', v)[2:] for v in x)
    one = bytearray((7 * i + kind) & 0x7F for i in range(size))
    half = struct.pack('<e', 0.01)
    if kind in (2, 3, 6, 7, 8, 12, 13, 20, 23):
        one[0:2] = half
    if kind in (3, 7, 12, 13):
        one[2:4] = half
    if kind in (10,):
        one[80:84] = half * 2
    if kind == 11:
        one[108:110] = half
    if kind == 14:
        one[208:210] = half
    if kind == 39:
        one[0] = 118
    return bytes(one) * (n // per)


def gguf(kv, tensors, version=3):
    """tensors: name -> (ne, type)"""
    out = b'GGUF' + struct.pack('<IQQ', version, len(tensors), len(kv))
    for k, v in kv.items():
        t, b = value(v)
        out += gstr(k) + struct.pack('<I', t) + b
    at, data = 0, b''
    for name, (ne, kind) in tensors.items():
        n = 1
        for d in ne:
            n *= d
        b = block_bytes(kind, n, name)
        out += gstr(name) + struct.pack('<I', len(ne)) + struct.pack('<%dQ' % len(ne), *ne)
        out += struct.pack('<IQ', kind, at)
        b += b'\0' * (-len(b) % 32)
        data += b
        at += len(b)
    return out + b'\0' * (-len(out) % 32) + data


def gguf_kv(arch, layers, mtp, indexer, qlora, softmax=False, yarn=True):
    a = arch + '.'
    kv = {'general.architecture': arch, a + 'block_count': layers + mtp, a + 'context_length': 64,
          a + 'embedding_length': DIM, a + 'feed_forward_length': INTER, a + 'vocab_size': VOCAB,
          a + 'attention.head_count': HEADS, a + 'attention.head_count_kv': 1,
          a + 'attention.layer_norm_rms_epsilon': 1e-6, a + 'attention.kv_lora_rank': RANK,
          a + 'attention.key_length': RANK + ROPE, a + 'attention.value_length': RANK,
          a + 'attention.key_length_mla': NOPE + ROPE, a + 'attention.value_length_mla': V,
          a + 'rope.dimension_count': ROPE, a + 'rope.freq_base': 10000.0,
          a + 'leading_dense_block_count': 1, a + 'expert_count': EXPERTS, a + 'expert_used_count': 1,
          a + 'expert_shared_count': 1, a + 'expert_feed_forward_length': MOE,
          a + 'expert_weights_scale': 2.5, a + 'expert_weights_norm': not softmax,
          a + 'expert_gating_func': 1 if softmax else 2}
    if qlora:
        kv[a + 'attention.q_lora_rank'] = QLORA
    if softmax:
        kv[a + 'expert_group_count'] = 2
        kv[a + 'expert_group_used_count'] = 1
    if mtp:
        kv[a + 'nextn_predict_layers'] = mtp
    if yarn:
        kv.update({a + 'rope.scaling.type': 'yarn', a + 'rope.scaling.factor': 4.0,
                   a + 'rope.scaling.original_context_length': 16,
                   a + 'rope.scaling.yarn_log_multiplier': 0.1})
    if indexer:
        kv.update({a + 'attention.indexer.head_count': IHEADS, a + 'attention.indexer.key_length': IDIM,
                   a + 'attention.indexer.top_k': TOPK})
    if arch == 'glm-dsa':
        kv[a + 'attention.indexer.types'] = [True, False][:layers]
    return kv


def gguf_tensors(layers, mtp, indexer, qlora, kinds, bias=True, legacy=False, fused=False, shared=()):
    pick = iter(kinds * 200)
    t = {'token_embd.weight': ((DIM, VOCAB), next(pick)), 'output_norm.weight': ((DIM,), 0),
         'output.weight': ((DIM, VOCAB), next(pick))}
    for l in range(layers + mtp):
        p = 'blk.%d.' % l

        def m(name, *ne):
            t[p + name + '.weight'] = (ne, next(pick))

        def v(name, n):
            t[p + name] = ((n,), 0)
        v('attn_norm.weight', DIM)
        v('ffn_norm.weight', DIM)
        if qlora:
            m('attn_q_a', DIM, QLORA)
            v('attn_q_a_norm.weight', QLORA)
            m('attn_q_b', QLORA, HEADS * (NOPE + ROPE))
        else:
            m('attn_q', DIM, HEADS * (NOPE + ROPE))
        m('attn_kv_a_mqa', DIM, RANK + ROPE)
        v('attn_kv_a_norm.weight', RANK)
        if legacy:
            m('attn_kv_b', RANK, HEADS * (NOPE + V))
        else:
            m('attn_k_b', NOPE, RANK, HEADS)
            m('attn_v_b', RANK, V, HEADS)
        m('attn_output', HEADS * V, DIM)
        if indexer and l not in shared:
            m('indexer.attn_q_b', QLORA, IHEADS * IDIM)
            m('indexer.attn_k', DIM, IDIM)
            v('indexer.k_norm.weight', IDIM)
            v('indexer.k_norm.bias', IDIM)
            t[p + 'indexer.proj.weight'] = ((DIM, IHEADS), 0)
        if l == 0:
            m('ffn_gate', DIM, INTER)
            m('ffn_up', DIM, INTER)
            m('ffn_down', INTER, DIM)
            continue
        t[p + 'ffn_gate_inp.weight'] = ((DIM, EXPERTS), 0)
        if bias:
            v('exp_probs_b.bias', EXPERTS)
        if fused:
            m('ffn_gate_up_exps', DIM, 2 * MOE, EXPERTS)
        else:
            m('ffn_gate_exps', DIM, MOE, EXPERTS)
            m('ffn_up_exps', DIM, MOE, EXPERTS)
        m('ffn_down_exps', MOE, DIM, EXPERTS)
        m('ffn_gate_shexp', DIM, MOE)
        m('ffn_up_shexp', DIM, MOE)
        m('ffn_down_shexp', MOE, DIM)
        if l == layers:
            m('nextn.eh_proj', 2 * DIM, DIM)
            v('nextn.enorm.weight', DIM)
            v('nextn.hnorm.weight', DIM)
            v('nextn.shared_head_norm.weight', DIM)
    return t


def alphabet():
    out, n = [], 256
    for b in range(256):
        shows = 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE
        out.append(chr(b if shows else n))
        n += not shows
    return out


def vocab_kv(pre):
    tokens = alphabet() + ['ab', 'Ġa', '<think>', '<eos>', '[PAD260]']
    types = [1] * 258 + [4, 3, 5]
    return {'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre, 'tokenizer.ggml.tokens': tokens,
            'tokenizer.ggml.token_type': types, 'tokenizer.ggml.merges': ['a b', 'Ġ a'],
            'tokenizer.ggml.bos_token_id': 259, 'tokenizer.ggml.eos_token_id': 259}


def gguf_seeds():
    small = [20, 39, 2]
    v32 = (gguf_kv('deepseek32', 2, 1, True, True), gguf_tensors(2, 1, True, True, small))
    yield 'v32', gguf(*v32)
    yield 'glm', gguf(gguf_kv('glm-dsa', 2, 1, True, True, yarn=False),
                      gguf_tensors(2, 1, True, True, [6, 3, 7], shared=(1,)))
    yield 'v2-lite', gguf(gguf_kv('deepseek2', 2, 0, False, False, softmax=True),
                          gguf_tensors(2, 0, False, False, [2], bias=False), version=2)
    yield 'legacy', gguf(gguf_kv('deepseek2', 2, 0, False, True),
                         gguf_tensors(2, 0, False, True, [8, 2], legacy=True, fused=True))
    yield 'floats', gguf(gguf_kv('deepseek2', 1, 0, False, True, yarn=False),
                         gguf_tensors(1, 0, False, True, [1, 30]))
    yield 'blocks', gguf({'general.architecture': 'deepseek2'},
                         {'t%d' % k: ((256, 1), k) for k in BLOCK})
    for pre in ('deepseek-v3', 'deepseek-llm', 'glm4', 'kimi-k2'):
        yield 'vocab-' + pre, gguf({'general.architecture': 'deepseek2', **vocab_kv(pre)}, {})
    kv, tensors = gguf_kv('deepseek2', 2, 0, False, True), gguf_tensors(2, 0, False, True, [2])
    names = list(tensors)
    part = [{n: tensors[n] for n in names[:9]}, {n: tensors[n] for n in names[9:]}]
    split = {'split.no': 0, 'split.count': 2, 'split.tensors.count': len(names)}
    one = gguf({**kv, **split}, part[0])
    two = gguf({**split, 'split.no': 1}, part[1])
    yield 'split', b'2:' + struct.pack('<I', len(one)) + one + two


# --- safetensors ----------------------------------------------------------------------------

SIZE = {'F32': 4, 'BF16': 2, 'F16': 2, 'F8_E4M3': 1, 'F8_E8M0': 1}


def st_bytes(dtype, n, name):
    x = numbers(name, n)
    if dtype == 'F32':
        return struct.pack('<%df' % n, *x)
    if dtype == 'F16':
        return struct.pack('<%de' % n, *x)
    if dtype == 'BF16':
        return b''.join(struct.pack('<f', v)[2:] for v in x)
    if dtype == 'F8_E8M0':
        return bytes([120] * n)
    return bytes((0x30 + i % 16) | (i & 1) << 7 for i in range(n))


def safetensors(tensors):
    head, data = {}, b''
    for name, (shape, dtype) in tensors.items():
        n = 1
        for d in shape:
            n *= d
        b = st_bytes(dtype, n, name)
        head[name] = {'dtype': dtype, 'shape': list(shape), 'data_offsets': [len(data), len(data) + len(b)]}
        data += b
    text = json.dumps(head, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text + data


def st_config(model_type, layers, mtp, indexer, qlora, **more):
    c = {'architectures': ['X'], 'model_type': model_type, 'vocab_size': VOCAB, 'hidden_size': DIM,
         'num_hidden_layers': layers, 'first_k_dense_replace': 1, 'moe_layer_freq': 1,
         'num_attention_heads': HEADS, 'num_key_value_heads': HEADS, 'kv_lora_rank': RANK,
         'q_lora_rank': QLORA if qlora else None, 'qk_nope_head_dim': NOPE, 'qk_rope_head_dim': ROPE,
         'v_head_dim': V, 'intermediate_size': INTER, 'moe_intermediate_size': MOE,
         'n_routed_experts': EXPERTS, 'n_shared_experts': 1, 'num_experts_per_tok': 1, 'n_group': 1,
         'topk_group': 1, 'norm_topk_prob': True, 'routed_scaling_factor': 2.5, 'hidden_act': 'silu',
         'rms_norm_eps': 1e-6, 'rope_theta': 10000, 'max_position_embeddings': 64,
         'num_nextn_predict_layers': mtp, 'bos_token_id': 0, 'eos_token_id': [1, 2]}
    if indexer:
        c.update({'index_n_heads': IHEADS, 'index_head_dim': IDIM, 'index_topk': TOPK})
    c.update(more)
    return c


def st_tensors(layers, mtp, indexer, qlora, dtype, bias=True, shared=(), scale='F32'):
    t = {}

    def m(name, out, inp, kind=dtype):
        t[name] = ((out, inp), kind)
        if kind == 'F8_E4M3':
            t[name + '_scale_inv'] = (((out + 127) // 128, (inp + 127) // 128), scale)
    plain = 'BF16' if dtype == 'F8_E4M3' else dtype
    t['model.embed_tokens.weight'] = ((VOCAB, DIM), plain)
    t['model.norm.weight'] = ((DIM,), plain)
    t['lm_head.weight'] = ((VOCAB, DIM), plain)
    for l in range(layers + mtp):
        p = 'model.layers.%d.' % l
        a = p + 'self_attn.'
        t[p + 'input_layernorm.weight'] = ((DIM,), plain)
        t[p + 'post_attention_layernorm.weight'] = ((DIM,), plain)
        if qlora:
            m(a + 'q_a_proj.weight', QLORA, DIM)
            t[a + 'q_a_layernorm.weight'] = ((QLORA,), plain)
            m(a + 'q_b_proj.weight', HEADS * (NOPE + ROPE), QLORA)
        else:
            m(a + 'q_proj.weight', HEADS * (NOPE + ROPE), DIM)
        m(a + 'kv_a_proj_with_mqa.weight', RANK + ROPE, DIM)
        t[a + 'kv_a_layernorm.weight'] = ((RANK,), plain)
        m(a + 'kv_b_proj.weight', HEADS * (NOPE + V), RANK)
        m(a + 'o_proj.weight', DIM, HEADS * V)
        if indexer and l not in shared:
            m(a + 'indexer.wq_b.weight', IHEADS * IDIM, QLORA)
            m(a + 'indexer.wk.weight', IDIM, DIM)
            t[a + 'indexer.k_norm.weight'] = ((IDIM,), 'F32')
            t[a + 'indexer.k_norm.bias'] = ((IDIM,), 'F32')
            t[a + 'indexer.weights_proj.weight'] = ((IHEADS, DIM), plain)

        def ffn(at, width):
            m(p + 'mlp.' + at + 'gate_proj.weight', width, DIM)
            m(p + 'mlp.' + at + 'up_proj.weight', width, DIM)
            m(p + 'mlp.' + at + 'down_proj.weight', DIM, width)
        if l == 0:
            ffn('', INTER)
            continue
        t[p + 'mlp.gate.weight'] = ((EXPERTS, DIM), plain)
        if bias:
            t[p + 'mlp.gate.e_score_correction_bias'] = ((EXPERTS,), 'F32')
        for e in range(EXPERTS):
            ffn('experts.%d.' % e, MOE)
        ffn('shared_experts.', MOE)
        if l == layers:
            t[p + 'enorm.weight'] = ((DIM,), plain)
            t[p + 'hnorm.weight'] = ((DIM,), plain)
            t[p + 'eh_proj.weight'] = ((DIM, 2 * DIM), plain)
            t[p + 'shared_head.norm.weight'] = ((DIM,), plain)
    return t


def folder(config, first, index=None, second=b''):
    parts = [json.dumps(config, separators=(',', ':')).encode(), first,
             json.dumps(index, separators=(',', ':')).encode() if index else b'', second]
    return b'dir:' + b''.join(struct.pack('<I', len(p)) + p for p in parts)


YARN = {'type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 16, 'beta_fast': 32,
        'beta_slow': 1, 'mscale': 1.0, 'mscale_all_dim': 1.0}


def shrink():
    """No blocks here: numbers that keep a whole checkpoint within a few kilobytes."""
    global DIM, QLORA, RANK, NOPE, V, INTER, MOE, IDIM
    DIM, QLORA, RANK, NOPE, V, INTER, MOE, IDIM = 8, 4, 4, 4, 4, 8, 4, 4


def st_seeds():
    shrink()
    yield 'dir-v32-fp8', folder(
        st_config('deepseek_v32', 2, 1, True, True, rope_scaling=YARN, scoring_func='sigmoid',
                  topk_method='noaux_tc', quantization_config={'quant_method': 'fp8', 'weight_block_size': [128, 128]}),
        safetensors(st_tensors(2, 1, True, True, 'F8_E4M3')))
    yield 'dir-glm', folder(
        st_config('glm_moe_dsa', 2, 0, True, True, indexer_types=['full', 'shared'],
                  rope_parameters={'rope_type': 'default', 'rope_theta': 1000000}),
        safetensors(st_tensors(2, 0, True, True, 'F8_E4M3', shared=(1,), scale='F8_E8M0')))
    yield 'dir-v2', folder(
        st_config('deepseek_v2', 2, 0, False, False, scoring_func='softmax', topk_method='group_limited_greedy',
                  n_group=2, norm_topk_prob=False, rope_scaling=YARN),
        safetensors(st_tensors(2, 0, False, False, 'F16', bias=False)))
    tensors = st_tensors(1, 0, False, True, 'BF16')
    names = list(tensors)
    where = {n: 'model.safetensors' if i < 6 else 'b.safetensors' for i, n in enumerate(names)}
    yield 'dir-shards', folder(st_config('deepseek_v3', 1, 0, False, True, tie_word_embeddings=False),
                               safetensors({n: tensors[n] for n in names[:6]}),
                               {'metadata': {'total_size': 1}, 'weight_map': where},
                               safetensors({n: tensors[n] for n in names[6:]}))
    for name in ('kimi_k2', 'glm4_moe_lite'):
        yield 'config-' + name, json.dumps(st_config(name, 3, 0, False, True)).encode()
    yield 'config-pattern', json.dumps(st_config(
        'glm_moe_dsa', 7, 1, True, True, index_topk_freq=4, index_skip_topk_offset=3,
        mlp_layer_types=['dense'] + ['sparse'] * 6)).encode()


# --- tokenizer ------------------------------------------------------------------------------

PATTERNS = {
    'deepseek-v3': ['\\p{N}{1,3}', '[一-龥぀-ゟ゠-ヿ]+', '[!]'],
    'deepseek-llm': ['[\r\n]', '[一-龥ࠀ-一가-퟿]+'],
    'glm4': ["(?i:'s|'t|'re|'ve|'m|'ll|'d)|\\p{L}+|\\p{N}{1,3}"],
    'kimi-k2': ['[\\p{Han}]+'],
}
TEXT = 'a b  ab\r\n\t12345 x1 你好ひらがな e\u0301 😀\u200d🔥 <eos> don\'t Ünï ①② <think'.encode()


def tokenizer_json(name, pairs):
    tokens = alphabet() + ['ab', 'Ġa']
    merges = ['a b', 'Ġ a']
    return json.dumps({
        'version': '1.0', 'added_tokens': [
            {'id': 258, 'content': '<think>', 'special': False},
            {'id': 259, 'content': '<eos>', 'special': True, 'lstrip': False}],
        'normalizer': None,
        'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [
            {'type': 'Split', 'pattern': {'Regex': p}, 'behavior': 'Isolated', 'invert': False}
            for p in PATTERNS[name]] + [{'type': 'ByteLevel', 'add_prefix_space': False, 'use_regex': False}]},
        'model': {'type': 'BPE', 'vocab': {t: i for i, t in enumerate(tokens)},
                  'merges': [m.split(' ') for m in merges] if pairs else merges},
        'decoder': {'type': 'ByteLevel'}}, ensure_ascii=False, separators=(',', ':')).encode()


def tokenizer_seeds():
    for i, name in enumerate(PATTERNS):
        yield 'json-' + name, tokenizer_json(name, i % 2) + b'\0' + TEXT
        yield 'text-' + name, bytes([i]) + TEXT


def main():
    for target, seeds in (('gguf', gguf_seeds()), ('safetensors', st_seeds()), ('tokenizer', tokenizer_seeds())):
        os.makedirs(os.path.join(sys.argv[1], target), exist_ok=True)
        for name, data in seeds:
            with open(os.path.join(sys.argv[1], target, name), 'wb') as f:
                f.write(data)


if __name__ == '__main__':
    main()
