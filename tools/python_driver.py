"""Runs code that arrives on a socket and says how it went; started by python.c with -I -S.

A request is a line "NONCE LENGTH" and that many bytes of source. While it runs, the code may
call other tools: "NONCE ? LENGTH" and {"name", "pos", "args"} go out, "NONCE ! STATUS LENGTH"
and the result's text come back. The answer is a line "NONCE THREADS VALUE ERROR TRACE FIGURES":
how many threads of Python's own go on, then byte lengths (-1 = none), and those bytes in that
order.
Output of the code goes to descriptors 1 and 2 and is read there. Modules that a plain call
does not need are imported when it does: the start takes a few milliseconds.

All state of the driver lives in the closure of main(), and so do the functions it uses and
builtins of its own: code that replaces any of these replaces nothing here, nor does a module
that lies in the workspace. After each call what would act on the next one is taken back:
built-in functions, streams, tracing, timers, the handler of interrupts. Code that looks for
the closure can still find it, and can then lie about this interpreter: it sits in a cell.
"""


def main():
    import _ast
    import _signal
    import _thread
    import builtins
    import os
    import sys
    control = 100
    read, write, getpid, leave, real = os.read, os.write, os.getpid, os._exit, os.path.realpath
    set_trace, set_profile, threads = sys.settrace, sys.setprofile, _thread._count
    set_signal, set_timer = _signal.signal, _signal.setitimer
    timers = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)
    vers = "python%d.%d" % sys.version_info[:2]
    sys.path += ["/usr/local/lib/%s/dist-packages" % vers, "/usr/lib/python3/dist-packages"]
    only_ast = 0x400  # PyCF_ONLY_AST

    os.set_inheritable(control, False)
    builtins.exit = builtins.quit = sys.exit
    ask = builtins.input

    def no_input(prompt=""):
        """input() as ever while the code has set a stdin of its own; else a clear refusal."""
        try:
            return ask(prompt)
        except EOFError:
            if sys.stdin is not nobody:
                raise
        raise EOFError("nobody can answer input() here; write the value into the code")

    nobody = sys.stdin
    builtins.input = no_input

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
    out, err = sys.stdout, sys.stderr
    home = getpid()
    genuine_modules = {}
    running = talking = interrupted = False
    current = b""
    lock = _thread.allocate_lock()
    number = 0
    figure = 0
    pending = bytearray()
    sources = {}
    module = type(sys)("__main__")
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    del sys.argv[1:]
    sys.argv[0] = ""
    own = builtins.__dict__
    genuine = {k: v for k, v in own.items() if k != "_"}
    at_start = (dict(sys.modules), sys.path[:], sys.meta_path[:], sys.path_hooks[:])

    def interrupt(signum, frame):
        nonlocal interrupted
        if talking:
            interrupted = True  # raised when the answer is read whole
        elif running:
            raise KeyboardInterrupt

    def fill():
        piece = read(control, 65536)
        if not piece:
            leave(0)
        pending.extend(piece)

    def next_message():
        """The words of the line, and the text that follows it."""
        while b"\n" not in pending:
            fill()
        line, _, rest = bytes(pending).partition(b"\n")
        pending[:] = rest
        words = line.split()
        length = int(words.pop())
        while len(pending) < length:
            fill()
        text = bytes(pending[:length])
        del pending[:length]
        return words, text.decode("utf-8", "replace")

    def next_request():
        while True:
            words, text = next_message()
            if len(words) == 1:  # others are answers that nobody waits for any more
                return words[0], text

    def reply(nonce, *parts):
        parts = [None if p is None else p.encode("utf-8", "backslashreplace") for p in parts]
        sizes = " ".join(str(-1 if p is None else len(p)) for p in parts)
        left = b"%s %d %s\n" % (nonce, threads(), sizes.encode())
        left += b"".join(p for p in parts if p)
        while left:
            left = left[write(control, left):]

    def encode(v, depth=0):
        """JSON; without the module, which lies where the code can change it."""
        if depth > 30:
            raise ValueError("arguments of a tool are nested too deeply")
        if isinstance(v, str):
            out = []
            for c in v.encode("utf-8", "replace").decode():
                out.append("\\" + c if c in '"\\' else c if c >= " " else "\\u%04x" % ord(c))
            return '"%s"' % "".join(out)
        if v is None or isinstance(v, bool):
            return {None: "null", True: "true", False: "false"}[v]
        if isinstance(v, int):
            return "%d" % v
        if isinstance(v, float) and v - v == 0:
            return repr(float(v))
        if isinstance(v, (list, tuple)):
            return "[%s]" % ", ".join([encode(x, depth + 1) for x in v])
        if isinstance(v, dict):
            return "{%s}" % ", ".join([encode(str(k)) + ": " + encode(x, depth + 1)
                                       for k, x in v.items()])
        raise TypeError("a tool takes text, numbers, booleans, lists and dicts, not %s"
                        % type(v).__name__)

    class ToolError(RuntimeError):
        """What a tool said when it failed."""

    ToolError.__module__, ToolError.__qualname__ = "tools", "ToolError"

    def call_tool(name, pos, args):
        nonlocal talking, interrupted
        text = encode({"name": name, "pos": list(pos), "args": args}).encode()
        with lock:
            if not running or getpid() != home:
                raise RuntimeError("tools can be called only while a call runs, in its process")
            mine = current
            talking = True
            try:
                left = b"%s ? %d\n" % (mine, len(text)) + text
                while left:
                    left = left[write(control, left):]
                words = []
                while words[:2] != [mine, b"!"]:
                    words, text = next_message()
            finally:
                talking = False
        if interrupted:
            interrupted = False
            raise KeyboardInterrupt
        if words[2] not in (b"ok", b"running"):
            raise ToolError(text)
        return text

    class Tools:
        """The session's other tools as functions: tools.search(query="...") gives the text
        that the tool would show, or raises tools.Error with it."""
        Error = ToolError

        def __getattr__(self, name):
            if name.startswith("_"):
                raise AttributeError(name)

            def tool(*pos, **args):
                return call_tool(name, pos, args)
            tool.__name__ = tool.__qualname__ = name
            return tool

        def __repr__(self):
            return "<tools: tools.search(query='...') calls the tool search, and so on>"

    module.tools = Tools()

    def take_back():
        """What a call may have left to act on the next one."""
        set_trace(None)
        set_profile(None)
        for timer in timers:
            set_timer(timer, 0)
        set_signal(_signal.SIGINT, interrupt)
        for name, value in genuine.items():
            if own.get(name) is not value:
                own[name] = value
        sys.stdout, sys.stderr = out, err

    def library():
        """The modules that describe an error as the distribution has them, whatever was
        imported or lies in the workspace under their names and those of what they need."""
        if not genuine_modules:
            restore(at_start)
            import ast
            import linecache
            import traceback
            assert ast and linecache and traceback
            genuine_modules.update(sys.modules)
        return genuine_modules

    def restore(state):
        for place, kept in zip((sys.path, sys.meta_path, sys.path_hooks), state[1:]):
            place[:] = kept
        for name in [n for n in sys.modules if n not in state[0]]:
            del sys.modules[name]
        sys.modules.update(state[0])
        sys.path_importer_cache.clear()

    def is_user(path):
        if path.startswith("<cell "):
            return True
        path = real(path)
        return not path.startswith(("/usr/", sys.prefix + "/", sys.base_prefix + "/lib"))

    def describe(exc):
        now = (dict(sys.modules), sys.path[:], sys.meta_path[:], sys.path_hooks[:])
        try:
            known = library()
            restore((dict(now[0], **known),) + at_start[1:])
            return explain(exc, known["linecache"], known["traceback"])
        finally:
            restore(now)

    def explain(exc, linecache, traceback):
        """Traceback of user frames only, with the exception's own text last."""
        for name, code in sources.items():
            linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        te = traceback.TracebackException.from_exception(exc, compact=True)
        chain, seen = [], te
        while seen is not None and len(chain) < 8:
            frames = [f for f in seen.stack
                      if f.filename != "<driver>" and is_user(f.filename)]
            text = ""
            if frames:
                text = "Traceback (most recent call last):\n"
                text += "".join(traceback.StackSummary.from_list(frames).format())
            text += "".join(seen.format_exception_only())
            chain.append(text)
            if seen.__cause__ is not None:
                chain.append("\nThe above exception was the direct cause of the following "
                             "exception:\n\n")
                seen = seen.__cause__
            elif seen.__context__ is not None and not seen.__suppress_context__:
                chain.append("\nDuring handling of the above exception, another exception "
                             "occurred:\n\n")
                seen = seen.__context__
            else:
                seen = None
        return "".join(reversed(chain))

    def figures():
        """Saves and closes what matplotlib drew; the paths."""
        nonlocal figure
        plt = sys.modules.get("matplotlib.pyplot")
        paths = []
        for n in plt.get_fignums() if plt else ():
            os.makedirs("figures", exist_ok=True)
            figure += 1
            path = "figures/figure-%d.png" % figure
            plt.figure(n).savefig(path)
            paths.append(path)
        if plt:
            plt.close("all")
        return paths

    def evaluate(code, name):
        tree = compile(code, name, "exec", only_ast, True)
        last = None
        if tree.body and isinstance(tree.body[-1], _ast.Expr):
            last = _ast.Expression(tree.body.pop().value)
        space = module.__dict__
        if tree.body:
            exec(compile(tree, name, "exec", 0, True), space)
        if last is None:
            return None
        value = eval(compile(last, name, "eval", 0, True), space)
        if value is None:
            return None
        builtins._ = value
        return repr(value)

    def run(code):
        """Value, error name, traceback, figure paths; None where there is none."""
        nonlocal running, number
        number += 1
        name = "<cell %d>" % number
        sources[name] = code
        try:
            running = True
            value = evaluate(code, name)
            return value, None, None, "\n".join(figures()) or None
        except SystemExit as exc:
            if exc.code in (None, 0):
                return None, None, None, None
            return None, "SystemExit", "SystemExit: %s\n" % (exc.code,), None
        except BaseException as exc:
            running = False
            try:
                return None, type(exc).__name__, describe(exc), None
            except BaseException:
                return None, type(exc).__name__, type(exc).__name__ + "\n", None
        finally:
            running = False

    def flush():
        for stream in {id(s): s for s in (sys.stdout, sys.stderr, out, err)}.values():
            try:
                stream.flush()
            except BaseException:
                pass

    def cut(text, limit=262144):
        return text if text is None or len(text) <= limit else text[:limit] + "..."

    set_signal(_signal.SIGINT, interrupt)
    reply(b"ready", None, None, None, None)
    sys.path.insert(0, "")
    while True:
        nonce, code = next_request()
        current = nonce
        interrupted = False
        try:
            value, error, trace, saved = run(code)
        except KeyboardInterrupt:  # it came as the code ended
            value, error, trace, saved = None, "KeyboardInterrupt", "KeyboardInterrupt\n", None
        set_trace(None)
        set_profile(None)
        flush()
        if getpid() != home:  # the code forked and the child came back here
            leave(0)
        take_back()
        reply(nonce, cut(value), error, cut(trace), saved)


main()
