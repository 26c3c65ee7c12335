"""Writes the section of docs/benchmarks.md from the reports of scripts/bench.sh, between its markers; the rest of the file stays."""

import argparse
import json
import pathlib
import sys

BEGIN = "<!-- scripts/bench.sh: begin -->"
END = "<!-- scripts/bench.sh: end -->"

MEMORY = (
    "one, in the memory of the queue's leader, and the caller's SDK has it until its result",
    "never before an answer; the record is journaled afterwards, nobody waits",
    "nothing while the caller lives: its SDK sends it again and it starts once; with the caller it is gone",
)
DURABLE = (
    "three; two are there before the answer",
    "before the answer, on two of three (a third follows); one sync for all that waits",
    "nothing that was acknowledged",
)
# A measurement that is not one of a promise has its own.
PROMISES = "| copies | when it is synced | lost when the leader dies |"


def figure(spread, show):
    """The median, with the extremes if they differ from it as they are shown."""
    if spread is None:
        return "–"
    median, low, high = (show(spread[key]) for key in ("median", "min", "max"))
    return median if low == median == high else f"{median} ({low}–{high})"


def count(value):
    return f"{value:,.0f}"


def short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Reports:
    def __init__(self, out):
        self.out = out
        self.failed = []
        self.places = []
        self.notes = {}

    def read(self, name):
        """A report, or None if the measurement failed."""
        try:
            report = json.loads((self.out / f"{name}.json").read_text())
        except (OSError, ValueError):
            self.failed.append(name)
            return None
        self.places.append(report["place"])
        for note in report["notes"]:
            self.notes.setdefault(note, []).append(name)
        if any(run["interrupted"] or not run["done"] for run in report["runs"]):
            self.failed.append(name)
        return report


def value(report, name, show=count, factor=1.0):
    spread = report["summary"].get(name) if report else None
    if spread:
        spread = {key: number * factor for key, number in spread.items()}
    return figure(spread, show)


def latencies(report, kind, percentiles):
    return " / ".join(value(report, f"latency.{kind}.{name}_ms", short) for name in percentiles)


def row(what, reached, reach, promises):
    return "| " + " | ".join([what, reached, reach, *promises]) + " |"


def rows(reports, args):
    for actions in args.actions:
        report = reports.read(f"rate-{actions}")
        reached = f"{value(report, 'achieved_per_s')}/s; not done {value(report, 'not_done')}; containers {value(report, 'containers')}"
        reach = f"{args.rate:,}/s; 10,000 actions within 5 % of one"
        yield row(f"20 ms actions, blocking, {args.rate:,}/s offered, {actions:,} actions", reached, reach, MEMORY)
    for actions in args.actions:
        report = reports.read(f"rate-{actions}")
        reached = f"{value(report, 'used.scheduler.cpu_s_per_1000', short, 1000.0)} µs"
        yield row(f"CPU of all schedulers per such activation, {actions:,} actions", reached, "under 25 µs", MEMORY)
    report = reports.read("highest")
    reached = f"{value(report, 'achieved_per_s')}/s; end to end p50 / p99 {latencies(report, 'end_to_end', ['p50', 'p99'])} ms"
    yield row("highest rate, zero-length actions, 10 queues", reached, "100,000/s; half of raw tonic (not measured yet)", MEMORY)
    for rate in args.rates:
        for actions in args.actions:
            report = reports.read(f"queueing-{rate}-{actions}")
            reached = f"p50 / p99 / p99.9 {latencies(report, 'queueing', ['p50', 'p99', 'p999'])} ms"
            reach = {2000: "0.2 / 0.6 / 2 ms", 10000: "0.2 / 2 / 8 ms"}.get(rate, "–")
            yield row(f"queueing latency at {rate:,}/s, {actions:,} actions", reached, reach, MEMORY)
    for clients in args.clients:
        report = reports.read(f"durable-{clients}")
        reached = f"{value(report, 'achieved_per_s')}/s; p50 / p99 {latencies(report, 'durable_acceptance', ['p50', 'p99'])} ms"
        reach = {1: "p50 under 1.5 ms", 64: "25,000/s, p50 under 3 ms", 1024: "50,000/s"}.get(clients, "–")
        yield row(f"durable acceptance, {clients:,} clients", reached, reach, DURABLE)


def section(reports, args):
    table = list(rows(reports, args))
    lines = [BEGIN, "## The suite", ""]
    if reports.places:
        place = reports.places[0]
        lines.append(
            f"Of commit {args.commit}, {place['at']}, {place['cores']} processors ({place['processor']}), load average before the first "
            f"measurement {place['load_before']}. Three schedulers, {place['invokers']} simulated invokers and the load on the same "
            f"processors, loopback. Medians of {args.runs} runs (extremes in brackets); latencies count from when an activation was due."
        )
    lines += ["", f"| what | seen | to reach {PROMISES}", "| --- | --- | --- | --- | --- | --- |", *table, ""]
    for note, names in reports.notes.items():
        lines.append(f"- {', '.join(dict.fromkeys(names))}: {note}")
    for name in dict.fromkeys(reports.failed):
        lines.append(f"- **{name} failed**; its log is beside its report")
    return "\n".join([*lines, END])


def put(doc, text):
    old = doc.read_text() if doc.exists() else "# Figures\n"
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and not end:
        sys.exit(f"{doc} has a begin and no end: put {END!r} where the section ends")
    doc.write_text(before + text + after if begin else f"{old.rstrip()}\n\n{text}\n")


def numbers(text):
    return [int(word) for word in text.split()]


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path, required=True)
parser.add_argument("--doc", type=pathlib.Path, required=True)
parser.add_argument("--commit", required=True)
parser.add_argument("--runs", type=int, required=True)
parser.add_argument("--rate", type=int, required=True)
for name in ("actions", "rates", "clients"):
    parser.add_argument(f"--{name}", type=numbers, required=True)
args = parser.parse_args()
reports = Reports(args.out)
text = section(reports, args)
put(args.doc, text)
print(f"\n{text}\n\nwritten to {args.doc}; reports are in {args.out}")
sys.exit(bool(reports.failed))
