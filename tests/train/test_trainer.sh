#!/usr/bin/env bash
# The trainer: gradients against differences, a run cut in two equals a run in one piece, and the
# exported weights give the engine's logits.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ulimit -s unlimited 2>/dev/null || ulimit -s "$(ulimit -H -s)"
cc -O3 -march=native -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math \
    -o "$dir/trainer" "$SRC"/train/trainer/*.c -lm -lpthread
"$dir/trainer" gradcheck

# Forty sequences behind one prefix of 30 tokens.
mkdir "$dir/data"
python3 - "$dir/data" <<'PY'
import array, random, sys
rnd = random.Random(1)
for split in ("train", "drill"):
    ids, msk, off, fam = array.array("H"), bytearray(), array.array("I", [0]), bytearray()
    for n in range(40):
        body = [rnd.randrange(8, 64) for _ in range(rnd.randrange(20, 60))]
        seq = [0] + list(range(8, 37)) + body + body
        ids.extend(seq)
        msk += bytes(30 + len(body)) + b"\1" * len(body)
        off.append(len(ids))
        fam.append(n % 4 + 1)
    for ext, data in (("ids", ids.tobytes()), ("msk", bytes(msk)), ("off", off.tobytes()), ("fam", bytes(fam))):
        open(f"{sys.argv[1]}/{split}.{ext}", "wb").write(data)
open(f"{sys.argv[1]}/meta.json", "w").write('{"vocab": 64, "prefix_len": 30}')
PY
plan() {
    printf '0 %s\n' 'lr 1' 'lr_muon 0.01' 'lr_adam 0.003' 'rows 512' 'micro 2' 'synth 0.3' \
        'synth_level 2' 'drill 0.3' 'sparse 1' 'topk 40' 'index_every 2' 'index_period 1' \
        'mtp_period 2' 'bias 0.01' 'all 0.5' 'strip 0.5' "threads $2"
    printf '%s lr 1\n' "$1"
}
plan 6 2 >"$dir/six"
plan 3 1 >"$dir/three"
"$dir/trainer" train "$dir/data" "$dir/a" "$dir/six" 7 >"$dir/log"
"$dir/trainer" train "$dir/data" "$dir/b" "$dir/three" 7 >>"$dir/log"
"$dir/trainer" train "$dir/data" "$dir/b" "$dir/six" 7 >>"$dir/log"
cmp "$dir/a/ckpt" "$dir/b/ckpt"
cmp "$dir/a/mean" "$dir/b/mean"
echo "a run in one piece on two threads and a run in two pieces: the same bytes"

# Plain vectors, as a processor without AVX-512 uses them: the same losses.
if [ "$(uname -m)" = x86_64 ]; then
    cc -O3 -march=x86-64 -Wno-psabi -fno-math-errno -fno-trapping-math -fno-signed-zeros \
        -fassociative-math -o "$dir/plain" "$SRC"/train/trainer/*.c -lm -lpthread
    for program in trainer plain; do
        "$dir/$program" eval "$dir/data" "$dir/a/ckpt" train 40 40 | tee "$dir/$program.losses"
    done
    python3 - "$dir/trainer.losses" "$dir/plain.losses" <<'PY'
import re, sys
wide, plain = [[float(x) for x in re.findall(r"[0-9]+\.[0-9]+", open(f).read())] for f in sys.argv[1:]]
assert len(wide) == len(plain) > 3, (wide, plain)
worst = max(abs(x - y) / max(x, 1) for x, y in zip(wide, plain))
print(f"plain vectors: largest difference of a figure {worst:.1e}")
assert worst < 0.02, (wide, plain)
PY
fi

# Logits after those steps, at a length beyond top-k: f32 here, f32 there.
"$dir/trainer" export "$dir/a/ckpt" 64 40 "$dir/model"
ids=$(seq 9 60 | tr '\n' ' ')
"$dir/trainer" logits "$dir/a/ckpt" 64 40 $ids $ids >"$dir/ours"
"$BIN/agentctl" model logits --mtp -t "$(echo $ids $ids | tr ' ' ',')" "$dir/model" >"$dir/engine"
python3 - "$dir/ours" "$dir/engine" <<'PY'
import json, sys
ours = [[float(x) for x in line.split()[1:]] for line in open(sys.argv[1])]
engine = json.load(open(sys.argv[2]))
for name, a, b in (("main", ours[0], engine["logits"][-1]), ("mtp", ours[1], engine["mtp"]["logits"][-1])):
    worst = max(abs(x - y) for x, y in zip(a, b, strict=True))
    print(f"{name}: largest difference of a logit {worst:.1e}")
    assert worst < 1e-4, worst
PY
