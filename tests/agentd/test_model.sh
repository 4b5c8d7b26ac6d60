#!/usr/bin/env bash
# agentctl model: info, convert, make-test, tokenize as a user runs them. Golden logits come
# out of the converted files too; a killed conversion is taken up again and never leaves a
# half file under the final name.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
ctl="$BIN/agentctl"
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }
# json FILE EXPR: a Python expression over `d` must be true
json() { python3 -c "import json,sys; d=json.load(open(sys.argv[1])); sys.exit(0 if ($2) else 1)" "$1" ||
    fail "$1: $2"; }
# refuses WANT_CODE WORDS COMMAND...: exit code, and a sentence on stderr with these words
refuses() {
    local code=$1 words=$2 got; shift 2
    "$@" >out 2>errors; got=$?
    [ $got -eq "$code" ] || fail "exit $got, not $code: $*"
    grep -qF -- "$words" errors || fail "no '$words' in: $(cat errors)"
}

# --- make-test and info
"$ctl" model make-test m --json >made.json || fail "make-test"
json made.json "d['parameters']['total'] > 4e6"
"$ctl" model info m --json >info.json || fail "info"
json info.json "d['arch'] == 'deepseek32' and d['format'] == 'safetensors'"
json info.json "d['numbers']['index_topk'] == 16 and d['numbers']['n_mtp_layers'] == 1"
json info.json "sum(t['count'] for t in d['tensors']['by_type']) == d['tensors']['count'] == 196"
json info.json "d['bytes_per_token']['total'] < d['tensors']['bytes']"
json info.json "d['tensors']['unused'] == 0"
sed 's/"num_nextn_predict_layers":1/"num_nextn_predict_layers":0/' m/config.json >c &&
    mkdir mtp0 && cp c mtp0/config.json && ln m/model.safetensors mtp0/
"$ctl" model info mtp0 | grep -q "warning: .* are of no use.*'model.layers.4" || fail "no warning"
# 64 latent + 16 rope + 32 index values, 4 layers, 256 positions
json info.json "d['memory'][-1]['cache_f32'] == 256 * 4 * (64 + 16 + 32) * 4"
"$ctl" model info m | grep -q 'index_topk *16' || fail "info as text"
refuses 1 "open 'nowhere'" "$ctl" model info nowhere
refuses 1 "does not begin with 'GGUF'" "$ctl" model info "$ctl"
refuses 2 "an argument is missing" "$ctl" model info
refuses 1 "variant 'huge' is unknown" "$ctl" model make-test x --variant huge

# --- golden logits through the converter
cat >golden.py <<'PY'
import json, subprocess, sys
ctl, path = sys.argv[1:3]
tok = ",".join(str((7 * i * i + 3 * i + 1) % 512) for i in range(96))
out = subprocess.run([ctl, "model", "logits", path, "--tokens", tok, "--all", "--cache", "f32"],
                     capture_output=True, text=True, check=True).stdout
rows = json.loads(out)["logits"]
want = {95: [-0.321845, -0.673572, 1.096172, 0.660294, -0.251731, 0.859864, -0.401682, 0.719831],
        10: [-0.275286, 1.212502, 1.462562, -0.252969, 0.245629, -0.312636]}
for row, numbers in want.items():
    for a, b in zip(rows[row], numbers):
        if abs(a - b) > 2e-5:
            sys.exit(f"{path}: row {row}: {a} is not {b}")
if max(range(512), key=lambda i: rows[95][i]) != 236:
    sys.exit(f"{path}: argmax")
PY
for type in f32 bf16; do
    "$ctl" model convert m "$type.gguf" --type $type -q || fail "convert $type"
    python3 golden.py "$ctl" "$type.gguf" || fail "golden logits from $type.gguf"
done

# --- types and patterns
"$ctl" model convert m q.gguf --type q4_k --name 'a model' \
    --per-tensor 'token_embd.*=q8_0' --json -q >q.json ||
    fail "convert q4_k"
json q.json "d['name'] == 'a model'"
json q.json "{t['type'] for t in d['tensors']['by_type']} == {'f32', 'q4_k', 'q5_0', 'q8_0'}"
refuses 1 "type 'q9' is unknown" "$ctl" model convert m y.gguf --type q9
refuses 1 "not PATTERN=TYPE" "$ctl" model convert m y.gguf --per-tensor nothing
refuses 1 "vectors are kept in f32" "$ctl" model convert m y.gguf --per-tensor 'output_norm*=q8_0'
refuses 1 "'nothing*' matches no tensor" "$ctl" model convert m y.gguf --per-tensor 'nothing*=q8_0'
refuses 1 "not a regular file" "$ctl" model convert m / -q
"$ctl" model convert m sweep.gguf --type f32 --per-tensor 'blk.0.*=q8_0' -q --json >sweep.json ||
    fail "a pattern over vectors too"
json sweep.json "{t['type'] for t in d['tensors']['by_type']} == {'f32', 'q8_0'}"
[ -e y.gguf ] && fail "a refused conversion left a file"

# --- interrupted work
"$ctl" model convert m full.gguf --type f32 -q || fail "convert f32"
size=$(stat -c %s full.gguf)
for part in 1 100 5000 $((size / 3)) $((size - 1)); do
    head -c "$part" full.gguf >r.gguf.partial
    inode=$(stat -c %i r.gguf.partial)
    "$ctl" model convert m r.gguf --type f32 -q || fail "resume at $part"
    cmp -s full.gguf r.gguf || fail "resumed at $part: other bytes"
    [ "$(stat -c %i r.gguf)" = "$inode" ] || fail "resumed at $part: not the same file"
    [ -e r.gguf.partial ] && fail "resumed at $part: the partial file stayed"
done
"$ctl" model convert m other.gguf --type f16 -q
cp other.gguf r2.gguf.partial # somebody else's unfinished work is not continued
"$ctl" model convert m r2.gguf --type f32 -q || fail "over a foreign partial file"
cmp -s full.gguf r2.gguf || fail "a foreign partial file shows through"
for wait in 0.005 0.01 0.02 0.04; do
    rm -f k.gguf k.gguf.partial
    bash -c "timeout -s KILL $wait '$ctl' model convert m k.gguf --type f32 -q; true" 2>killed
    if [ -e k.gguf ]; then cmp -s full.gguf k.gguf || fail "killed after $wait: half a file"; fi
    "$ctl" model convert m k.gguf --type f32 -q || fail "after a kill at $wait"
    cmp -s full.gguf k.gguf || fail "continued after a kill at $wait: other bytes"
done
: >l.gguf.partial
flock l.gguf.partial sleep 5 &
holder=$!
sleep 0.3
refuses 1 "is being written by another process" "$ctl" model convert m l.gguf
kill $holder 2>/dev/null
"$ctl" model convert m p.gguf --type f32 2>&1 | grep -q 'of 16.* MB, .*/s, .* s left' ||
    fail "no rate and time left"

# --- tokenize
cat >vocab.py <<'PY'
import json
tok, n = [], 256
for b in range(256):
    if 0x21 <= b <= 0x7e or 0xa1 <= b <= 0xac or b >= 0xae: tok.append(chr(b))
    else: tok.append(chr(n)); n += 1
tok += ["he", "ll", "hell"]
split = [{"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}},
         {"type": "Split", "pattern": {"Regex": "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"}}]
bar = "\uff5c"
json.dump({"added_tokens": [{"id": 259, "content": f"<{bar}User{bar}>", "special": True},
                            {"id": 261, "content": "<think>", "special": False}],
           "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
           "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tok)},
                     "merges": ["h e", "l l", "he ll"]}}, open("m/tokenizer.json", "w"))
PY
python3 vocab.py
"$ctl" model convert m t.gguf --type q8_0 -q || fail "convert with a vocabulary"
"$ctl" model info t.gguf --json >t.json
json t.json "d['tokenizer'] == {'pre': 'deepseek-v3', 'tokens': 512, 'merges': 3}"
printf 'hello' >hello.txt
for model in m m/tokenizer.json t.gguf; do
    [ "$("$ctl" model tokenize $model 'hello')" = "258 111" ] || fail "$model: hello"
    [ "$("$ctl" model tokenize $model --file hello.txt)" = "258 111" ] || fail "$model: --file"
    [ "$("$ctl" model tokenize $model --file - <hello.txt)" = "258 111" ] || fail "$model: stdin"
    [ "$("$ctl" model tokenize $model '<｜User｜><think>')" = "259 261" ] || fail "$model: special"
    "$ctl" model tokenize $model --plain '<｜User｜>' | grep -q 259 && fail "$model: --plain"
    "$ctl" model tokenize $model --json 'hello' >tok.json
    json tok.json "d == {'count': 2, 'ids': [258, 111], 'pieces': ['hell', 'o']}"
    printf '%s\n' '{"text":"hello"}' '' '{"text":"<think>"}' \
        '{"pieces":[{"text":"<think>","special":true},{"text":"hello"}]}' |
        "$ctl" model tokenize $model --batch >batch || fail "$model: --batch"
    [ "$(sed -n '1p;3p' batch | tr -d '\n')" = '{"ids":[258,111]}{"ids":[261,258,111]}' ] ||
        fail "$model: batch says $(cat batch)"
done
refuses 2 "give one of TEXT, --file and --batch" "$ctl" model tokenize m x --file hello.txt
[ "$("$ctl" model tokenize m <hello.txt)" = "258 111" ] || fail "standard input"
refuses 1 "line 2" "$ctl" model tokenize m --batch < <(printf '{"text":"a"}\n{"text":7}\n')
refuses 1 "holds no tokenizer.ggml.tokens" "$ctl" model tokenize f32.gguf x
"$ctl" model make-test bare
refuses 1 "has no tokenizer.json" "$ctl" model tokenize bare x

# The source is not overwritten, by whatever name.
cp -r m own && cp t.gguf own.gguf && ln -s own.gguf link.gguf
before=$(cat own/model.safetensors own.gguf | sha256sum)
for dst in "own own/model.safetensors" "own.gguf own.gguf" "link.gguf own.gguf" \
    "own.gguf link.gguf"; do
    refuses 1 "is a file of the model that is converted" "$ctl" model convert $dst --type f32
done
[ "$before" = "$(cat own/model.safetensors own.gguf | sha256sum)" ] || fail "a source was changed"
refuses 2 "--shards goes from 1 to 99, not -1" "$ctl" model make-test none --shards -1

# A piece that is a token is that token where the file says so, also behind conversions.
python3 -c 'import json
t = json.load(open("m/tokenizer.json"))
t["model"].update(merges=["h e", "l l"], ignore_merges=True)
json.dump(t, open("m/tokenizer.json", "w"))'
"$ctl" model convert m whole.gguf --type q8_0 -q || fail "convert with ignore_merges"
"$ctl" model convert whole.gguf again.gguf --type q8_0 -q || fail "convert once more"
for model in m whole.gguf again.gguf; do
    [ "$("$ctl" model tokenize $model 'hell')" = "258" ] || fail "$model: ignore_merges is lost"
    [ "$("$ctl" model tokenize $model 'hello')" = "256 257 111" ] || fail "$model: no whole piece"
done

[ $failures -eq 0 ] && echo "all fine"
exit $((failures > 0))
