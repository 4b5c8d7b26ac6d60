#!/usr/bin/env bash
# agentctl model logits and generate, from outside: golden numbers from safetensors and from
# converted GGUF, every chunking, form and thread count; drafts; refusals.
set -eu
ctl=$BIN/agentctl
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }
tok=$(python3 -c 'print(",".join(str((7*i*i+3*i+1) % 512) for i in range(96)))')

"$ctl" model make-test "$tmp/v32" --variant tiny-v32 >/dev/null
"$ctl" model convert "$tmp/v32" "$tmp/f32.gguf" --type f32 >/dev/null 2>&1
"$ctl" model convert "$tmp/v32" "$tmp/bf16.gguf" --type bf16 >/dev/null 2>&1

cat >"$tmp/golden.py" <<'PY'
import json, math, sys
d = json.load(sys.stdin)
def near(got, want):
    assert all(abs(a - b) < 2e-5 for a, b in zip(got, want)), (got[:8], want)
assert d["positions"] == list(range(96)), d["positions"]
l = d["logits"][95]
near(l, [-0.321845, -0.673572, 1.096172, 0.660294, -0.251731, 0.859864, -0.401682, 0.719831])
near(d["logits"][10], [-0.275286, 1.212502, 1.462562, -0.252969, 0.245629, -0.312636])
assert l.index(max(l)) == 236
assert abs(math.log(sum(math.exp(x) for x in l)) - 6.728762) < 2e-5
m = d["mtp"]
assert m["positions"] == list(range(95))
near(m["logits"][94], [1.004396, -0.799911, -2.409204, 0.836851, 1.935402, 1.304718])
assert m["logits"][94].index(max(m["logits"][94])) == 9
s = {(x["layer"], x["pos"]): x for x in d["selected"]}
assert s[0, 20]["set"] == [*range(8), 10, 11, 12, 13, 14, 16, 19, 20]
assert s[1, 40]["set"] == [2, 4, 7, 16, 17, 18, 20, 22, 23, 28, 29, 31, 36, 37, 39, 40]
assert s[3, 95]["set"] == [17, 30, 32, 42, 46, 47, 48, 56, 58, 60, 62, 67, 76, 77, 81, 83]
near(s[3, 95]["scores"], [-0.409782, -0.207385, 0.644749, 0.0])
PY
for model in v32 f32.gguf bf16.gguf; do
    "$ctl" model logits "$tmp/$model" --tokens "$tok" --all --mtp --selected --json |
        python3 "$tmp/golden.py" || fail "golden numbers from $model"
done

# Any chunking and form stays within the tolerance; threads change no bit.
for form in mha mqa auto; do
    for chunk in 1 7 16 17 96; do
        for threads in 1 2; do
            "$ctl" model logits "$tmp/v32" --tokens "$tok" --all --form $form --chunk $chunk \
                --threads $threads --raw "$tmp/raw.$threads" >/dev/null
        done
        cmp "$tmp/raw.1" "$tmp/raw.2" || fail "$form, chunk $chunk: threads change bits"
        python3 - "$tmp/raw.1" <<'PY' || fail "$form, chunk $chunk"
import struct, sys
x = struct.unpack("<%df" % (96 * 512), open(sys.argv[1], "rb").read())
assert abs(x[95 * 512] + 0.321845) < 2e-5 and abs(x[10 * 512] + 0.275286) < 2e-5
PY
    done
done

# Nor do they where rows are bf16 and index keys int8, and multiplied so.
for cache in bf16 bf16-i8; do
    for chunk in 1 17 96; do
        for threads in 1 2; do
            "$ctl" model logits "$tmp/v32" --tokens "$tok" --all --cache $cache --chunk $chunk \
                --threads $threads --raw "$tmp/raw.$threads" >/dev/null
        done
        cmp "$tmp/raw.1" "$tmp/raw.2" || fail "cache $cache, chunk $chunk: threads change bits"
    done
done

# Kernels of every kind give the golden numbers; one that is not there falls back.
for kernel in ref avx2 avx512 avx512bf16; do
    AGENTD_KERNEL=$kernel "$ctl" model logits "$tmp/v32" --tokens "$tok" --all --mtp --selected |
        python3 "$tmp/golden.py" || fail "kernel $kernel"
done

# Drafts change nothing but the number of steps.
strip() { python3 -c 'import json,sys; print(json.load(sys.stdin)["tokens"])'; }
for cache in f32 fp8; do
    a=$("$ctl" model generate "$tmp/v32" --tokens 1,2,3 -n 60 --past-eos --cache $cache --json | strip)
    b=$("$ctl" model generate "$tmp/v32" --tokens 1,2,3 -n 60 --past-eos --cache $cache --json --drafts |
        strip)
    [ "$a" = "$b" ] || fail "drafts changed greedy output ($cache)"
    b=$("$ctl" model generate "$tmp/v32" --tokens 1,2,3 -n 60 --past-eos --cache $cache --json \
        --drafts-always | strip)
    [ "$a" = "$b" ] || fail "a draft at every token changed greedy output ($cache)"
done
a=$("$ctl" model generate "$tmp/v32" -t 1 -n 30 --temperature 1 --top-p 0.9 --seed 7 --json | strip)
b=$("$ctl" model generate "$tmp/v32" -t 1 -n 30 --temperature 1 --top-p 0.9 --seed 7 --json | strip)
[ "$a" = "$b" ] || fail "a seed does not repeat"
b=$("$ctl" model generate "$tmp/v32" -t 1 -n 30 --temperature 1 --top-p 0.9 --seed 7 --json \
    --drafts-always | strip)
[ "$a" = "$b" ] || fail "drafts changed what a seed draws"

# What bad input gets: a sentence and an exit code.
refused() { # CODE NEEDLE ARGS...
    local code=$1 needle=$2 rc=0
    shift 2
    "$ctl" model "$@" >/dev/null 2>"$tmp/err" || rc=$?
    [ $rc = "$code" ] || fail "$*: exit $rc, not $code: $(cat "$tmp/err")"
    grep -q -- "$needle" "$tmp/err" || fail "$*: '$(cat "$tmp/err")' lacks '$needle'"
}
refused 1 "token id 512" logits "$tmp/v32" --tokens 512
refused 1 "context of 256" logits "$tmp/v32" --tokens "$(seq -s, 1 257)"
refused 1 "not a token id" logits "$tmp/v32" --tokens 1,x
refused 1 "no token ids" logits "$tmp/v32"
refused 2 "does not know" logits "$tmp/v32" --tokens 1 --form mhq
refused 1 "nowhere" logits "$tmp/nowhere" --tokens 1
refused 2 "give --prompt-file" generate "$tmp/v32"
refused 1 "holds no tokenizer" generate "$tmp/v32" -f /dev/null
refused 2 "--chunk goes from 0 to 65536, not -1" logits "$tmp/v32" --tokens 1 --chunk -1
refused 2 "--threads goes from 0 to 256, not 1000000000" logits "$tmp/v32" --tokens 1 \
    --threads 1000000000
refused 2 "--temperature goes from 0 to 100, not nan" generate "$tmp/v32" -t 1 --temperature nan
refused 2 "--count goes from 1" generate "$tmp/v32" -t 1 -n 0
refused 2 "one of them" generate "$tmp/v32" -t 1 -f /dev/null
# A pipe where a file belongs must not be waited for.
mkdir "$tmp/pipe"
mkfifo "$tmp/pipe/config.json" "$tmp/pipe/tokenizer.json"
refused 1 "pipe/config.json': it is not a regular file" info "$tmp/pipe"
refused 1 "pipe/config.json': it is not a regular file" logits "$tmp/pipe" --tokens 1
refused 1 "tokenizer.json': it is not a regular file" tokenize "$tmp/pipe/tokenizer.json" x
refused 1 "not a regular file" logits "$tmp/pipe/config.json" --tokens 1
refused 1 "not a regular file" logits /dev/zero --tokens 1
head -c 100000 "$tmp/f32.gguf" >"$tmp/cut.gguf"
refused 1 "cut.gguf" logits "$tmp/cut.gguf" --tokens 1
echo "model logits and generate: ok"
