"""Writes the section of docs/benchmarks.md from the reports of scripts/bench-peers.sh, between its markers; the rest of the file stays."""

import argparse
import json
import os
import pathlib
import sys

from document import put_section

BEGIN = "<!-- scripts/bench-peers.sh: begin -->"
END = "<!-- scripts/bench-peers.sh: end -->"

# Processors that the load may use before it is worth a note.
LOAD_CORES = 0.5
TITLES = {
    "whiskraft": "Whiskraft",
    "whiskraft-durable": "Whiskraft, each durable",
    "etcd": "etcd",
    "nats": "NATS JetStream R3",
    "rabbitmq": "RabbitMQ quorum queues",
    "redis": "Redis, nothing on disk",
    "redis-synced": "Redis, appendfsync always",
}
# Of each system, for the message path and for durable publish: how many copies; when it is synced; what is lost when the leader dies.
NATS = "three, of stream and consumers; every two minutes, so not before an answer; nothing as long as the other two stay up, the last two minutes if all lose power"
RABBITMQ = "three; on two of three before an activation is handed out or confirmed; nothing confirmed. Results are in memory only"
PROMISES = {
    ("whiskraft", "message"): "one in the leader's memory and one at the caller's SDK; never before an answer; nothing while the caller lives: its SDK sends again",
    ("whiskraft-durable", "message"): "three, of acceptance and record; each on two of three before it is told; nothing that was acknowledged",
    ("whiskraft", "durable"): "three; on two of three before the answer; nothing that was acknowledged. Each also runs, and its record is written",
    ("etcd", "durable"): "three; on two of three before the answer; nothing that was acknowledged",
    ("whiskraft", "puts"): "three; on two of three before the answer; nothing that was acknowledged",
    ("whiskraft", "watch"): "three; on two of three before the event; no event: the watcher resumes after its revision at another scheduler",
    ("etcd", "watch"): "three; on two of three before the event; no event, if the watcher resumes at its revision",
    ("nats", "message"): f"{NATS}. Results are in memory only",
    ("nats", "durable"): NATS,
    ("rabbitmq", "message"): RABBITMQ,
    ("rabbitmq", "durable"): "three; on two of three before the confirm; nothing that was confirmed",
    ("redis", "message"): "one, in memory; never; everything",
    ("redis", "durable"): "one, in memory; never; everything",
    ("redis-synced", "message"): "one; before each answer; nothing acknowledged once the same disk is back, no service until then. Results are in memory only",
    ("redis-synced", "durable"): "one; before each answer; nothing acknowledged once the same disk is back, no service until then",
}


def count(value):
    return f"{value:,.0f}"


def short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def value(report, name, show=short, factor=1.0):
    """The median, with the extremes if they differ from it as they are shown."""
    spread = report["summary"].get(name)
    if not spread:
        return "–"
    median, low, high = (show(spread[key] * factor) for key in ("median", "min", "max"))
    return median if low == median == high else f"{median} ({low}–{high})"


def latency(report, kind):
    return f"{value(report, f'latency.{kind}.p50_ms')} / {value(report, f'latency.{kind}.p99_ms')}"


def cpu(report):
    """Processor time of the servers per activation, in microseconds."""
    ours = "used.scheduler.cpu_s_per_1000"
    return value(report, ours, factor=1000.0) if ours in report["summary"] else value(report, "used.servers.cpu_us_per_activation")


def memory(report):
    ours = "used.scheduler.resident_mib"
    return value(report, ours if ours in report["summary"] else "used.servers.resident_mib", count)


class Reports:
    def __init__(self, out):
        self.out = out
        self.places = []
        self.notes = {}
        self.failed = {}

    def read(self, name, again=False):
        """A report, or None if the measurement failed; what is read again has its notes already."""
        try:
            report = json.loads((self.out / f"{name}.json").read_text())
        except (OSError, ValueError):
            log = self.out / f"{name}.log"
            lines = log.read_text().strip().splitlines() if log.exists() else []
            self.failed[name] = " ".join(line.strip() for line in lines[-3:]) or "no report"
            return None
        if again:
            return report
        self.places.append(report["place"])
        load = report["summary"].get("used.load.cores")
        heavy = [f"the load generator used up to {load['max']:.1f} processors"] if load and load["max"] > LOAD_CORES else []
        for note in [*report["notes"], *heavy]:
            self.notes.setdefault(note, []).append(name)
        return report


def table(head, rows):
    rows = list(rows)
    if not rows:
        return []
    return ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |", *("| " + " | ".join(row) + " |" for row in rows), ""]


PROMISE_HEAD = "copies; when it is synced; lost when the leader dies"


def ends_row(reports, args, what, actions):
    """Durable activations from end to end, beside NATS, which keeps what it is sent in three copies too."""
    peer = "whiskraft-durable"
    report = reports.read(f"whiskraft-ends-{args.rate}-{actions}")
    if report is None:
        return [what, TITLES[peer], *["failed"] * 5, PROMISES[peer, "message"]]
    theirs = reports.read(f"nats-rate-{args.rate}-{actions}", again=True) if "nats" in args.systems else None
    rate = value(report, "achieved_per_s", count)
    if theirs:
        rate += f"; {report['summary']['achieved_per_s']['median'] / theirs['summary']['achieved_per_s']['median']:.2f} × NATS"
    figures = [rate, latency(report, "durable_end_to_end"), latency(report, "durable_queueing"), cpu(report), memory(report)]
    return [what, TITLES[peer], *figures, PROMISES[peer, "message"]]


def message_rows(reports, args, peers):
    runs = [(f"rate-{rate}-{actions}", f"{actions:,} actions, {rate:,}/s offered") for rate in [args.rate, *args.rates] for actions in args.actions]
    for name, what in [*runs, *((f"highest-{callers}", f"10 actions, {callers:,} callers, nothing to hold") for callers in args.callers)]:
        for peer in peers:
            report = reports.read(f"{peer}-{name}")
            if report is None:
                yield [what, TITLES[peer], *["failed"] * 5, PROMISES[peer, "message"]]
                continue
            queues = report["plan"].get("queues")
            shared = f" ({queues:,} queues)" if queues and queues < report["plan"]["actions"] else ""
            figures = [value(report, "achieved_per_s", count), latency(report, "end_to_end"), latency(report, "queueing"), cpu(report), memory(report)]
            yield [what + shared, TITLES[peer], *figures, PROMISES[peer, "message"]]
            if peer == "whiskraft" and name.startswith(f"rate-{args.rate}-"):
                yield ends_row(reports, args, what, name.rsplit("-", 1)[1])


def durable_rows(reports, args, peers):
    for clients in args.clients:
        for peer in peers:
            report = reports.read(f"{peer}-durable-{clients}")
            if report is None:
                yield [f"{clients:,}", TITLES[peer], *["failed"] * 4, PROMISES[peer, "durable"]]
                continue
            kind = "durable_acceptance" if peer == "whiskraft" else "acceptance"
            figures = [value(report, "achieved_per_s", count), latency(report, kind), cpu(report), memory(report)]
            yield [f"{clients:,}", TITLES[peer], *figures, PROMISES[peer, "durable"]]


def puts_rows(reports, args):
    """Puts of both that keep metadata; those of etcd are its durable publishes, whose notes stand there."""
    for clients in args.clients:
        ours, theirs = reports.read(f"whiskraft-puts-{clients}"), reports.read(f"etcd-durable-{clients}", again=True)
        for peer, kind, workload, report in (("whiskraft", "put", "puts", ours), ("etcd", "acceptance", "durable", theirs)):
            if report is None:
                yield [f"{clients:,}", TITLES[peer], *["failed"] * 4, PROMISES[peer, workload]]
                continue
            rate = "puts_per_s" if peer == "whiskraft" else "achieved_per_s"
            times = ""
            if peer == "whiskraft" and theirs:
                times = f"; {report['summary'][rate]['median'] / theirs['summary']['achieved_per_s']['median']:.2f} × etcd"
            figures = [value(report, rate, count) + times, latency(report, kind), cpu(report), memory(report)]
            yield [f"{clients:,}", TITLES[peer], *figures, PROMISES[peer, workload]]


def watch_rows(reports, args, peers):
    for watchers in args.watchers:
        for peer, kind, role in (("whiskraft", "watched", "scheduler"), ("etcd", "watch", "servers")):
            if peer not in peers:
                continue
            report = reports.read(f"{peer}-watch-{watchers}")
            if report is None:
                yield [f"{watchers:,}", TITLES[peer], *["failed"] * 3, PROMISES[peer, "watch"]]
                continue
            figures = [latency(report, kind), value(report, f"used.{role}.cores"), memory(report)]
            yield [f"{watchers:,}", TITLES[peer], *figures, PROMISES[peer, "watch"]]


def section(reports, args):
    peers = dict(word.split("=") for word in args.measured)
    carriers = [peer for peer in peers if peer != "etcd"]
    ms = "p50 / p99, ms"
    path_head = ["what", "system", "done per second", f"end to end {ms}", f"until a container has it {ms}", "CPU of the servers per activation, µs", "their memory, MiB"]
    path = table([*path_head, PROMISE_HEAD], message_rows(reports, args, carriers))
    durable_head = ["clients", "system", "acknowledged per second", ms, "CPU of the servers per message, µs", "their memory, MiB"]
    durable = table([*durable_head, PROMISE_HEAD], durable_rows(reports, args, peers))
    watch = table(["watchers", "system", f"from a change until each watcher has it {ms}", "processors of the servers", "their memory, MiB", PROMISE_HEAD],
                  watch_rows(reports, args, peers))
    puts_head = ["clients", "system", "stored per second", ms, "CPU of the servers for each, µs", "their memory, MiB"]
    puts = table([*puts_head, PROMISE_HEAD], puts_rows(reports, args) if {"whiskraft", "etcd"} <= set(peers) else [])
    lines = [BEGIN, "## What a user would take instead", ""]
    if reports.places:
        place = reports.places[0]
        versions = "; ".join(f"{TITLES[peer]}: {version or 'version unknown'}" for peer, version in peers.items())
        lines += [
            f"By `scripts/bench-peers.sh` of commit {args.commit}, {args.at}: {place['cores']} processors ({place['processor']}), load average before the first "
            f"measurement {place['load_before']}. {versions}. Three processes each, of Redis one; servers and load share the processors, loopback. "
            f"Medians of {args.runs} runs (extremes in brackets). Latencies count from when an activation was due; where less is done than was "
            "offered they tell how long it waited, up to the limit of what may be under way.",
            "",
        ]
    if path:
        lines += ["Message path: activations of 200 bytes that a container holds for 20 ms, and their results back at the producer.", "", *path]
    if durable:
        lines += ["Durable publish: 200 bytes, until the acknowledgement. What that promises differs: see the last column.", "", *durable]
    if puts:
        lines += ["Metadata: small documents of 200 bytes (an action's; a key's value) stored, until the acknowledgement.", "", *puts]
    if watch:
        lines += ["One key, or one namespace, changes 50 times a second:", "", *watch]
    # One note for all that it is true of.
    for note, names in reports.notes.items():
        lines.append(f"- {', '.join(dict.fromkeys(names))}: {note}")
    for name, why in reports.failed.items():
        lines.append(f"- **{name} failed**: {why}")
    for skipped in sorted(reports.out.glob("*.skipped")):
        lines.append(f"- {TITLES[skipped.stem]}: {skipped.read_text().strip()}")
    return "\n".join([*lines, END])


def numbers(text):
    return [int(word) for word in text.split()]


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path, required=True)
parser.add_argument("--doc", type=pathlib.Path, required=True)
parser.add_argument("--commit", required=True)
parser.add_argument("--at", required=True, help="day of the measurement")
parser.add_argument("--measured", type=str.split, required=True, help="NAME=VERSION …")
for name in ("runs", "rate"):
    parser.add_argument(f"--{name}", type=int, required=True)
for name in ("actions", "rates", "callers", "clients", "watchers"):
    parser.add_argument(f"--{name}", type=numbers, required=True)
args = parser.parse_args()
args.systems = [word.split("=")[0] for word in args.measured]
reports = Reports(args.out)
text = section(reports, args)
# A reader elsewhere has no use for where it was measured.
text = text.replace(str(args.out), "OUT").replace(os.path.expanduser("~"), "~")
put_section(args.doc, text, BEGIN, END)
print(f"\n{text}\n\nwritten to {args.doc}; reports are in {args.out}")
sys.exit(bool(reports.failed))
