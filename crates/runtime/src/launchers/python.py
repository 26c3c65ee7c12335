"""Runs a Python action inside its own process: one activation after the other.

Standard input is a socket to the proxy. A request is one line "<number> <verb> <JSON>", an answer one line
"<number> <HTTP status> <JSON>". The socket is moved away from descriptor 0, so that user code that reads standard
input sees its end, and is not inherited by programs that user code starts.
"""

import json
import os
import sys
import traceback

# The proxy reports an exit with this code as exhausted memory.
EXIT_MEMORY = 86

NO_CODE = "The action failed to generate or locate a binary. See logs for details."
NO_START = "Cannot start action. Check logs for details."


class Refused(Exception):
    """The code cannot be run; the text is the answer, details are in the log."""


def take_link():
    link = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return link


def write_all(link, data):
    view = memoryview(data)
    while view:
        view = view[os.write(link, view):]


def flush():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass  # Closed or replaced by user code.


def encode(value):
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False).encode("ascii")


def reply(link, number, status, body):
    flush()
    write_all(link, b"%s %d %s\n" % (number, status, body))


def add_packages(directory):
    """Makes a virtual environment that came with the code usable."""
    root = os.path.join(directory, "virtualenv")
    activate = os.path.join(root, "bin", "activate_this.py")
    if os.path.isfile(activate):
        with open(activate, "rb") as source:
            exec(compile(source.read(), activate, "exec"), {"__file__": activate, "__name__": "__main__"})
        return
    import glob
    import site

    for packages in glob.glob(os.path.join(root, "lib", "python3*", "site-packages")):
        site.addsitedir(packages)


def load(request):
    """Loads the code and gives its entry point."""
    import types

    os.environ.update(request["env"])
    directory, path, main = request["directory"], request["file"], request["main"]
    os.chdir(directory)
    sys.path[0] = directory
    if os.path.isdir(os.path.join(directory, "virtualenv")):
        add_packages(directory)
    module = types.ModuleType("main__")
    module.__file__ = path
    sys.modules["main__"] = module
    try:
        with open(path, "rb") as source:
            code = compile(source.read(), path, "exec")
    except (OSError, SyntaxError, ValueError):
        traceback.print_exc(limit=0)
        raise Refused(NO_CODE) from None
    try:
        exec(code, module.__dict__)
    except MemoryError:
        raise
    except BaseException as error:
        # The frames of this launcher are of no interest to the author of the code.
        traceback.print_exception(type(error), error, error.__traceback__.tb_next)
        raise Refused(NO_START) from None
    function = module.__dict__.get(main)
    if not callable(function):
        what = "is not a function" if main in module.__dict__ else "is not defined"
        print("the entry point %r %s" % (main, what), file=sys.stderr)
        raise Refused(NO_CODE)
    return function


def run(function, request):
    """Runs one activation and gives the JSON text of its result."""
    for key, value in request.items():
        if key != "value":
            text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
            os.environ["__OW_" + key.replace("-", "_").upper()] = text
    arguments = request.get("value")
    try:
        return encode(function({} if arguments is None else arguments))
    except MemoryError:
        raise
    except Exception as error:
        frames = error.__traceback__.tb_next
        traceback.print_exception(type(error), error, frames or error.__traceback__)
        return encode({"error": str(error)})


def serve(link, reader):
    function = None
    while True:
        line = reader.readline()
        if not line.endswith(b"\n"):
            return  # The proxy is gone.
        number, verb, body = line.split(b" ", 2)
        if verb == b"run":
            reply(link, number, 200, run(function, json.loads(body)))
            continue
        try:
            function = load(json.loads(body))
        except Refused as refusal:
            reply(link, number, 502, encode({"error": str(refusal)}))
            return
        reply(link, number, 200, b'{"ok":true}')


def main():
    # Set by Python itself for the C locale; actions see what they were given and nothing else.
    os.environ.pop("LC_CTYPE", None)
    link = take_link()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    try:
        serve(link, os.fdopen(os.dup(link), "rb", 1 << 16))
        code = 0
    except MemoryError:
        code = EXIT_MEMORY
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    flush()
    # Threads that user code left running do not keep the process.
    os._exit(code & 0xFF)


main()
