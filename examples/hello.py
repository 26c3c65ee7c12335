"""Greets somebody: whiskraft invoke examples/hello.py -p name=Ada

With the argument `trace` it also appends its activation id to that file, one line per run. Counting those lines
shows how often each activation really ran, whatever the callers were told.
"""

import os


def main(args):
    activation = os.environ.get("__OW_ACTIVATION_ID", "")
    trace = args.get("trace")
    if trace:
        # One write of a short line in append mode: runs at the same time do not mix.
        with open(trace, "a", encoding="utf-8") as file:
            file.write(f"{activation}\n")
    print(f"greeting {args.get('name', 'stranger')}")
    return {"greeting": f"Hello, {args.get('name', 'stranger')}!", "activation": activation}
