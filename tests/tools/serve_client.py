"""A client of `agentd-tool serve` for tests: one call, one answer."""
import json
import os
import subprocess

BIN = os.environ.get("BIN", "build/ci/bin")


class Serve:
    def __init__(self, *options):
        self.proc = subprocess.Popen([BIN + "/agentd-tool", "serve", *options],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.next_id = 0

    def send(self, **request):
        self.next_id += 1
        request["id"] = self.next_id
        self.proc.stdin.write(json.dumps(request).encode() + b"\n")
        self.proc.stdin.flush()
        return self.next_id

    def answer(self):
        line = self.proc.stdout.readline()
        assert line, "agentd-tool ended"
        return json.loads(line)

    def call(self, tool, args=None, **more):
        self.send(tool=tool, args=args or {}, **more)
        got = self.answer()
        assert got["id"] == self.next_id, got
        return got

    def text(self, tool, args=None, **more):
        return self.call(tool, args, **more)["text"]

    def raw(self, data):
        self.proc.stdin.write(data)
        self.proc.stdin.flush()
        return self.answer()

    def close(self):
        self.proc.stdin.close()
        code = self.proc.wait(20)
        self.proc.stdout.close()
        return code
