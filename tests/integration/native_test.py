"""
The native engine behind the loop, on a small model with formula weights and a byte tokenizer:
its words are noise, its tokens are exact. Nothing is computed twice within a turn, the idle
re-prefill serves the next one, snapshots survive a restart, a killed and resumed turn goes on
with the token that an undisturbed one has, sessions share steps without changing a token.
"""
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from agent import BIN, Client, Daemon, bash, history, main, open_session, run

LITERALS = ["<｜User｜>", "<｜Assistant｜>", "｜DSML｜", "<think>", "</think>"]


def byte_letters():
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, n = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + n)
            n += 1
    return [table[b] for b in range(256)]


def tokenizer():
    specials = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"] + LITERALS
    vocab = {letter: i + len(specials) for i, letter in enumerate(byte_letters())}
    return {"added_tokens": [{"id": i, "content": t, "special": True, "normalized": False,
                              "lstrip": False, "rstrip": False, "single_word": False}
                             for i, t in enumerate(specials)],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated",
                 "invert": False},
                {"type": "Split", "pattern": {"Regex": "[一-龥\u3040-ゟ゠-ヿ]+"},
                 "behavior": "Isolated", "invert": False},
                {"type": "Split", "pattern": {"Regex":
                 "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
                 "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
                 "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                 "use_regex": False}]},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": vocab, "merges": []}}


def model():
    d = tempfile.mkdtemp(prefix="agentd-model-")
    subprocess.run([os.path.join(BIN, "agentctl"), "model", "make-test", d], check=True,
                   stdout=subprocess.DEVNULL)
    path = os.path.join(d, "config.json")
    with open(path) as f:
        config = json.load(f)
    config["rope_scaling"]["original_max_position_embeddings"] = 2048  # room for a prompt
    config["max_position_embeddings"] = 8192
    with open(path, "w") as f:
        json.dump(config, f)
    with open(os.path.join(d, "tokenizer.json"), "w") as f:
        json.dump(tokenizer(), f)
    return d


MODEL = model()
FEW = {"maxTokens": 48, "maxThinking": 12, "reserve": 16}


def start(**kw):
    return Daemon(engine="native:" + MODEL, **kw)


def tokens(events):
    return [e["tokens"] for e in events if e["type"] == "usage" and "tokens" in e]


def steps(events):
    return [e["data"] for e in events if e["type"] == "step.started"]


def wait_ready(c):
    while c.call("engine.status")["state"] == "loading":
        time.sleep(0.02)


def session(c, d, **more):
    return open_session(c, d, profile="chat", thinking=True, limits=FEW,
                        **{"sampling": {"temperature": 0}, **more})


def test_turns_are_repeatable():
    d = start()
    c = d.client()
    seen = []
    for _ in range(2):
        s = session(c, d)
        assert run(c, s, "hello")["stopReason"] in ("max_tokens", "end_turn")
        run(c, s, "and again")
        seen.append(tokens(history(c, s)))
    assert seen[0] == seen[1] and len(seen[0]) == 2, seen
    s1 = session(c, d, sampling={"temperature": 1, "seed": 7})
    s2 = session(c, d, sampling={"temperature": 1, "seed": 7})
    run(c, s1, "hello"), run(c, s2, "hello")
    assert tokens(history(c, s1)) == tokens(history(c, s2))
    s3 = session(c, d, sampling={"temperature": 1, "seed": 8})
    run(c, s3, "hello")
    assert tokens(history(c, s3)) != tokens(history(c, s1))
    d.close()


def circle(ids, most):
    """Tokens until the last `most` are one block of up to a sixteenth of them; None = never."""
    for n in range(most, len(ids) + 1):
        for p in range(1, min(64, most // 16) + 1):
            if all(ids[i] == ids[i - p] for i in range(n - most + p, n)):
                return n
    return None


def reply(d, limits, text="hello", **more):
    c = d.client()
    wait_ready(c)
    s = open_session(c, d, profile="chat", sampling={"temperature": 0}, limits=limits, **more)
    r = run(c, s, text)
    return r, tokens(history(c, s))[0]


def dull_model(row):
    """The same model, but every token looks to it like the one of this row."""
    d = tempfile.mkdtemp(prefix="agentd-model-")
    shutil.copytree(MODEL, d, dirs_exist_ok=True)
    path = os.path.join(d, "model.safetensors")
    with open(path, "rb") as f:
        data = bytearray(f.read())
    n = int.from_bytes(data[:8], "little")
    t = json.loads(data[8:8 + n])["model.embed_tokens.weight"]
    rows, width = t["shape"][0], (t["data_offsets"][1] - t["data_offsets"][0]) // t["shape"][0]
    at = 8 + n + t["data_offsets"][0]
    one = data[at + row * width:at + (row + 1) * width]
    data[at:at + rows * width] = one * rows
    with open(path, "wb") as f:
        f.write(data)
    return d


def test_going_round_in_circles():
    for row in range(20, 40):
        model = dull_model(row)
        d = Daemon(engine="native:" + model, args=["--set", "engine.repeat=0"])
        _, free = reply(d, {"maxTokens": 200})
        d.close()
        n = circle(free, 64)
        if n:
            break
        shutil.rmtree(model)
    assert n and n < len(free) == 200, (n, len(free))
    d = Daemon(engine="native:" + model, args=["--set", "engine.repeat=64"])
    r, held = reply(d, {"maxTokens": 200})
    assert r["limit"] == "repetition" and held == free[:n], (r, len(held), n)
    d.close()
    shutil.rmtree(model)


def test_the_model_that_ships_cannot_run_away():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/agentd-small.gguf")
    d = Daemon(engine="native:" + path)
    c = d.client()
    wait_ready(c)
    with open(d.workspace + "/loleti.log", "w") as f:
        f.write("alpha 1\n")
    s = open_session(c, d, limits={"maxTokens": 4096})
    r = run(c, s, 'Add "mrkzvt thoska 6" to the end of loleti.log.')
    ids = [x for step in tokens(history(c, s)) for x in step]
    assert r["stopReason"] == "end_turn" or r["limit"] == "repetition", r
    assert circle(ids, 1100) is None, len(ids)
    d.close()


def test_every_end_of_the_model_ends_a_reply():
    d = start(args=["--set", "engine.repeat=0"])
    _, free = reply(d, {"maxTokens": 60})
    d.close()
    at = next(i for i in range(8, 60) if free[i] not in free[:i] and free[i] > 6)
    path = os.path.join(MODEL, "generation_config.json")
    with open(path, "w") as f:
        json.dump({"eos_token_id": [1, free[at]]}, f)
    try:
        d = start()
        r, held = reply(d, {"maxTokens": 60})
        assert r["stopReason"] == "end_turn" and held == free[:at] + [1], (r, held, free)
        d.close()
    finally:
        os.unlink(path)


def test_batched_as_alone():
    """Ten sessions in one batch say what each says alone."""
    d = start()
    texts = ["message number %d" % i * (1 + i % 3) for i in range(10)]

    def one(text, out):
        c = d.client()
        s = session(c, d)
        run(c, s, text)
        out[text] = tokens(history(c, s))

    together, alone = {}, {}
    threads = [threading.Thread(target=one, args=(t, together)) for t in texts]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for t in texts:
        one(t, alone)
    assert together == alone
    d.close()


def idle(c):
    """Until the work after the answer is done: the counters rest."""
    calm, last = 0, None
    while calm < 8:
        st = c.call("engine.status")
        now = (st["steps"], st["promptTokens"], st["waiting"])
        calm = calm + 1 if now == last and not st["waiting"] else 0
        last = now
        time.sleep(0.03)


def test_status_tells_where_the_weights_are():
    d = start()
    c = d.client()
    run(c, session(c, d), "hello")
    idle(c)
    w = c.call("engine.status")["weights"]
    assert w["bytes"] > 1 << 20 and w["streaming"] is False and w["pinnedBytes"] == 0, w
    assert "hitRate" not in w, w   # nothing is read from disk by choice
    d.close()


def test_idle_prefill_and_snapshot():
    d = start()
    c = d.client()
    s = session(c, d)
    run(c, s, "first " * 40)
    idle(c)
    run(c, s, "second")
    a = steps(history(c, s))[-1]
    assert a["promptTokens"] - a["cachedTokens"] < 40, a  # only the new message
    idle(c)
    d.stop()  # writes what is due
    assert os.path.exists(os.path.join(d.root, "state/kv", s + ".kv"))
    d.start()
    c = d.client()
    run(c, s, "third")
    b = steps(history(c, s))[-1]
    assert b["promptTokens"] - b["cachedTokens"] < 40, b  # out of the snapshot
    warm = tokens(history(c, s))[-1]
    # the same history computed from nothing gives the same tokens
    d.stop()
    os.unlink(os.path.join(d.root, "state/kv", s + ".kv"))
    d.start()
    c = d.client()
    # a fork with the history of the two turns before, and the same third message
    before_third = [e for e in history(c, s) if e["type"] == "usage"][1]["seq"]
    last = [e["itemId"] for e in history(c, s) if e["type"] == "item.completed"
            and e["seq"] < before_third][-1]
    f = c.call("session.fork", sessionId=s, atMessageId=last)["sessionId"]
    run(c, f, "third")
    cold = steps(history(c, f))[-1]
    assert cold["cachedTokens"] == 0 and cold["promptTokens"] == b["promptTokens"], (cold, b)
    assert tokens(history(c, f))[-1] == warm
    d.close()


def test_killed_turn_goes_on_with_the_same_token():
    d = start()
    c = d.client()
    s = session(c, d)
    run(c, s, "one")
    run(c, s, "two")
    want = tokens(history(c, s))
    d.stop()
    for point in ("turn-committed", "step-committed", "during-sampling", "after-sample"):
        k = Daemon(engine="native:" + MODEL)
        c = k.client()
        s = session(c, k)
        run(c, s, "one")
        k.stop()
        k.start(env={"AGENTD_CRASH_AT": point})
        c = k.client()
        t = c.send("turn.run", sessionId=s, input="two")
        try:
            c.reply(t)
            raise AssertionError("did not die at " + point)
        except (EOFError, ConnectionError):
            pass
        assert k.wait_dead() == -9
        k.start()
        c = k.client()
        last = [e for e in history(c, s) if e["type"] == "turn.failed"][-1]
        run(c, s, "", resume=last["turnId"])
        assert tokens(history(c, s)) == want, point
        k.close()
    d.start()
    d.close()


def test_explain():
    d = start()
    c = d.client()
    s = session(c, d)
    run(c, s, "hello " * 20)
    idle(c)
    r = c.call("cache.explain", sessionId=s)
    assert 0 < r["cached"] <= r["tokens"] and r["cause"], r
    fresh = session(c, d, system="Another system text altogether.")
    r = c.call("cache.explain", sessionId=fresh)
    assert r["first"]["role"] == "system", r
    out = subprocess.run([os.path.join(BIN, "agentctl"), "cache", "explain", "--socket", d.path, s],
                         capture_output=True, text=True)
    assert out.returncode == 0 and "tokens" in out.stdout, out
    d.close()


def test_missing_model():
    d = Daemon(engine="native:/nonexistent.gguf", profile="chat")
    c = d.client()
    while c.call("engine.status")["state"] == "loading":
        time.sleep(0.01)
    st = c.call("engine.status")
    assert st["state"] == "dead" and "/nonexistent.gguf" in st["problem"], st
    assert c.call("daemon.status")["engine"] == "dead"
    d.close()


if __name__ == "__main__":
    try:
        main(globals())
    finally:
        import shutil
        shutil.rmtree(MODEL, ignore_errors=True)
