"""Writes the section of docs/benchmarks.md from the reports of scripts/bench.sh, between its markers; the rest of the file stays.

Made of every report in the directory: what was measured is read from the reports and their names, not from how bench.sh was called last.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys

from document import put_section

BEGIN = "<!-- scripts/bench.sh: begin -->"
END = "<!-- scripts/bench.sh: end -->"

MEMORY = (
    "one, in the memory of the queue's leader, and the caller's SDK has it until its result",
    "never (records of blocking activations are not kept: `scheduler.journal.archive=false`)",
    "nothing while the caller lives: its SDK sends it again and it starts once; with the caller it is gone",
)
KEPT = (MEMORY[0], "never before an answer; the record is kept on three disks afterwards, nobody waits", MEMORY[2])
DURABLE = (
    "three; two are there before the answer",
    "before the answer, on two of three (a third follows); one sync for all that waits",
    "nothing that was acknowledged",
)
META = (
    "three, of the log of group 0; two are there before the answer",
    "before the answer, on two of three; one sync for all that waits",
    "nothing that was acknowledged",
)
WATCH = (
    "three, of the change",
    "on two of three before any watcher hears of it",
    "no change: a watcher goes on at another scheduler after the last revision that it has seen",
)
SLOTS = (
    "leader, slot and place of a container: three, in the log of group 0; the activation: one, and the caller's SDK has it",
    "slot and place on two of three before the container is created; the activation never",
    "no slot: the next leader finds it in its tables; the activation is sent again by its caller's SDK",
)
LOST = (
    "queues, sessions and containers: three, in the log of group 0; activations: one, and the caller's SDK has it",
    "the tables on two of three; activations never",
    "nothing while the caller lives: its SDK sends it again and it starts once",
)
WIRE = ("none", "never", "everything: nobody keeps anything")
# A measurement that is not one of a promise has its own.
PROMISES = "copies | when it is synced | lost when the leader dies"
# What NATS JetStream with three copies reached at 1 / 100 / 10,000 actions when the goals were set; not of the same run.
NATS = {1: 5450, 100: 1930, 10_000: 325}
MB_PER_MIB = 1.048576


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
        self.runs = set()
        self.same_cluster = []
        self.notes = {}

    def numbers(self, pattern):
        """The numbers in the names of the reports that a pattern fits, in their order."""
        matches = (re.fullmatch(pattern, file.stem) for file in self.out.glob("*.json"))
        return sorted(tuple(int(number) for number in match.groups()) for match in matches if match)

    def commit(self, name):
        try:
            return (self.out / f"{name}.commit").read_text().strip()
        except OSError:
            return "unknown"

    def read(self, name, runs_of=lambda report: [report["runs"]]):
        """A report, or None if it is not there or the measurement failed."""
        try:
            report = json.loads((self.out / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            self.failed.append(name)
            return None
        self.places.append(report["place"])
        for note in report["notes"]:
            self.notes.setdefault(note, []).append(name)
        for runs in runs_of(report):
            self.runs.add(len(runs))
            if any(run.get("interrupted") or run.get("wrong") or run.get("lost") or not run["done"] for run in runs):
                self.failed.append(name)
        return report

    def run(self, name):
        """The report of a `bench run`, or of one of the commands that measure one property."""
        report = self.read(name)
        if report and not report["place"].get("new_per_run"):
            self.same_cluster.append(name)
        return report

    def named(self, pattern):
        """The reports whose names a pattern fits, in the order of the numbers in these: name, report, numbers."""
        for numbers in self.numbers(pattern):
            left = iter(numbers)
            name = re.sub(re.escape(r"(\d+)"), lambda _: str(next(left)), pattern)
            yield name, self.run(name), *numbers

    def wire(self):
        """Every run of the wire alone, before and after, by records per frame and in flight."""
        rates = {}
        for name in ("echo-before", "echo-after"):
            report = self.read(name, lambda report: [case["runs"] for case in report["cases"]])
            for case in report["cases"] if report else []:
                rates.setdefault((case["in_flight"], case["per_frame"]), []).extend(case["runs"])
        return rates

    def paced(self):
        """Every run of the wire alone at a rate, by that rate."""
        report = self.read("echo-paced", lambda report: [case["runs"] for case in report["cases"]])
        return {case["per_second"]: case["runs"] for case in report["cases"]} if report else {}


def value(report, name, show=count, factor=1.0):
    spread = report["summary"].get(name) if report else None
    if spread:
        spread = {key: number * factor for key, number in spread.items()}
    return figure(spread, show)


def median(report, name):
    spread = report["summary"].get(name) if report else None
    return spread["median"] if spread else None


def over(runs, value_of):
    values = [value_of(run) for run in runs]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def latencies(report, kind, percentiles):
    return " / ".join(value(report, f"latency.{kind}.{name}_ms", short) for name in percentiles)


def percent(part, whole):
    return f"{100 * part / whole:.0f} %" if part is not None and whole else "–"


def cpu_us(report):
    return value(report, "used.scheduler.cpu_s_per_1000", short, 1000.0)


def row(what, reached, reach, promises, commit):
    return "| " + " | ".join([what, reached, reach, *promises, commit]) + " |"


def rate_rows(reports):
    first = None
    for kind, actions in [("rate", n) for (n,) in reports.numbers(r"rate-(\d+)")] + [
        ("kept", n) for (n,) in reports.numbers(r"kept-(\d+)")
    ]:
        name = f"{kind}-{actions}"
        report = reports.run(name)
        first = first or report
        offered = report["plan"]["load"]["open"]["rate"] if report else 0
        reached = (
            f"{value(report, 'achieved_per_s')}/s; {cpu_us(report)} µs of CPU of all schedulers for each; "
            f"not done {value(report, 'not_done')}; containers {value(report, 'containers')}"
        )
        if report is not first:
            of_first = (percent(median(report, key), median(first, key)) for key in ("achieved_per_s", "used.scheduler.cpu_s_per_1000"))
            rate, cpu = of_first
            reached += f"; {rate} of the rate and {cpu} of the CPU of the first row"
        reach = f"{offered:,.0f}/s, under 25 µs; 10,000 actions within 5 % of one, in both"
        kept = "" if kind == "rate" else ", records kept"
        what = f"20 ms actions, blocking, {offered:,.0f}/s offered, {actions:,} actions{kept}"
        yield row(what, reached, reach, MEMORY if kind == "rate" else KEPT, reports.commit(name))


def highest_rows(reports):
    wire = reports.wire()
    for name, report, callers in reports.named(r"highest-(\d+)"):
        shares = []
        for per_frame, text in (("one", "one record per frame"), ("ready", "what is ready per frame")):
            runs = wire.get((callers, per_frame))
            raw = statistics.median(run["achieved_per_s"] for run in runs) if runs else None
            shares.append(f"{percent(median(report, 'achieved_per_s'), raw)} of raw tonic with {text}")
        reached = f"{value(report, 'achieved_per_s')}/s; {'; '.join(shares)}; end to end p50 / p99 {latencies(report, 'end_to_end', ['p50', 'p99'])} ms"
        what = f"highest sustained rate, zero-length actions, 10 queues, {callers:,} in flight"
        yield row(what, reached, "100,000/s and half of raw tonic", MEMORY, reports.commit(name))
    for (in_flight, per_frame), runs in sorted(wire.items()):
        rate = figure(over(runs, lambda run: run["achieved_per_s"]), count)
        p50 = figure(over(runs, lambda run: run["latency"]["p50_ms"] or 0.0), short)
        cpu = figure(over(runs, lambda run: 1000.0 * (run["used"]["roles"]["server"]["cpu_s_per_1000"] or 0.0)), short)
        what = f"raw tonic over the same hops, {in_flight:,} in flight, {'one record' if per_frame == 'one' else 'what is ready'} per frame"
        reached = f"{rate}/s; there and back p50 {p50} ms; {cpu} µs of CPU of the process in the middle for each"
        yield row(what, reached, "the reference", WIRE, reports.commit("echo-after"))


def paced_rows(reports):
    for rate, runs in sorted(reports.paced().items()):
        there = " / ".join(figure(over(runs, lambda run: run["there"][name] or 0.0), short) for name in ("p50_ms", "p99_ms", "p999_ms"))
        cpu = figure(over(runs, lambda run: 1000.0 * (run["used"]["roles"]["server"]["cpu_s_per_1000"] or 0.0)), short)
        reached = f"until the worker has it p50 / p99 / p99.9 {there} ms; {cpu} µs of CPU of the three in the middle together for each"
        what = f"raw tonic at {rate:,}/s over three servers, each with a worker, what is ready per frame, runs of no length"
        yield row(what, reached, "the reference", WIRE, reports.commit("echo-paced"))


def queueing_rows(reports):
    for name, report, rate, actions in reports.named(r"queueing-(\d+)-(\d+)"):
        reached = f"p50 / p99 / p99.9 {latencies(report, 'queueing', ['p50', 'p99', 'p999'])} ms"
        reach = {2000: "0.2 / 0.6 / 2 ms", 10000: "0.2 / 2 / 8 ms"}.get(rate, "–")
        yield row(f"queueing latency at {rate:,}/s, {actions:,} actions", reached, reach, MEMORY, reports.commit(name))


def durable_rows(reports):
    kinds = {"accepted": "durable acceptance", "durable": "durable acceptance, each run at once and its end recorded"}
    for kind, what in kinds.items():
        for name, report, clients in reports.named(kind + r"-(\d+)"):
            reached = (
                f"{value(report, 'achieved_per_s')}/s; p50 / p99 {latencies(report, 'durable_acceptance', ['p50', 'p99'])} ms; "
                f"{cpu_us(report)} µs of CPU of all schedulers for each"
            )
            reach = {1: "p50 under 1.5 ms", 64: "25,000/s, p50 under 3 ms", 1024: "50,000/s"}.get(clients, "–")
            yield row(f"{what}, {clients:,} clients", reached, reach, DURABLE, reports.commit(name))
    for name, report, actions in reports.named(r"ends-(\d+)"):
        reached = (
            f"{value(report, 'achieved_per_s')}/s; accepted p50 / p99 {latencies(report, 'durable_acceptance', ['p50', 'p99'])} ms, "
            f"ended {latencies(report, 'durable_end_to_end', ['p50', 'p99'])} ms; {cpu_us(report)} µs of CPU of all schedulers for each"
        )
        callers = report["plan"]["load"]["closed"]["callers"] if report else 0
        reach = "3 × NATS JetStream R3 in the same run"
        if actions in NATS:
            reach += f" (not of this run: {3 * NATS[actions]:,}/s)"
        what = f"durable end to end (accepted, run for 20 ms, recorded), {callers:,} callers, {actions:,} actions"
        yield row(what, reached, reach, DURABLE, reports.commit(name))


def standing_rows(reports):
    def largest(report):
        return f"{value(report, 'used.scheduler.resident_max_mib', short, MB_PER_MIB)} MB"

    for name, report, waiting in reports.named(r"waiting-(\d+)"):
        reached = (
            f"{value(report, 'used.scheduler.cores', short)} cores for all schedulers ({cpu_us(report)} µs for each); containers "
            f"{value(report, 'containers')}; largest scheduler {largest(report)}; "
            f"queueing p50 / p99 {latencies(report, 'queueing', ['p50', 'p99'])} ms"
        )
        yield row(f"{waiting:,} containers that wait, 2,000/s", reached, "under 0.15 cores", MEMORY, reports.commit(name))
    for name, report, queues in reports.named(r"memory-(\d+)"):
        what = f"memory of a scheduler that leads {queues:,} active queues (it is the only one), 2,000/s"
        yield row(what, largest(report), "under 100 MB", MEMORY, reports.commit(name))


def meta_rows(reports):
    for name, report, clients in reports.named(r"puts-(\d+)"):
        reached = f"{value(report, 'puts_per_s')}/s; p50 / p99 {latencies(report, 'put', ['p50', 'p99'])} ms; {cpu_us(report)} µs of CPU of all schedulers for each; failed {value(report, 'failed')}"
        what = f"small documents stored (actions with 200 bytes of arguments), {clients:,} clients"
        yield row(what, reached, "6 × etcd in the same run: see below", META, reports.commit(name))
    for name, report, watchers in reports.named(r"watch-(\d+)"):
        reached = (
            f"p50 / p99 {latencies(report, 'watched', ['p50', 'p99'])} ms; not seen {value(report, 'not_seen')}; "
            f"{value(report, 'used.scheduler.cores', short)} cores for all schedulers"
        )
        rate = report["plan"]["watch"]["rate"] if report else 0
        reach = {100: "p50 under 2 ms, p99 under 5 ms", 1000: "p99 under 10 ms"}.get(watchers, "–")
        yield row(f"a change, {rate:.0f} a second, until each of {watchers:,} watchers has it", reached, reach, WATCH, reports.commit(name))


def creation_rows(reports):
    def stages(report, names):
        return "; ".join(f"{name} {latencies(report, name, ['p50', 'p99'])}" for name in names)

    for name, report, rate in reports.named(r"cold-(\d+)"):
        reached = (
            f"p50 / p99 {latencies(report, 'queueing', ['p50', 'p99'])} ms; of these, p50 / p99 in ms: "
            f"{stages(report, ['leading', 'reserving', 'placing', 'starting'])}; not done {value(report, 'not_done')}"
        )
        what = f"first activation of an action ({rate:,}/s): from EnsureQueue until it begins in a container that takes 0 ms to create"
        yield row(what, reached, "p50 under 10 ms", SLOTS, reports.commit(name))
    for name, report, rate in reports.named(r"creations-(\d+)"):
        reached = (
            f"{value(report, 'achieved_per_s')}/s; p50 / p99 in ms: {stages(report, ['leading', 'reserving', 'placing', 'starting'])}, "
            f"all until it begins {latencies(report, 'queueing', ['p50', 'p99'])}; {cpu_us(report)} µs of CPU of all schedulers for each; "
            f"not done {value(report, 'not_done')}"
        )
        what = (
            f"containers created, {rate:,}/s offered, each for a new queue: leading (queue in the log), reserving (decided, place chosen, slot and place in "
            "the log), placing (those whose place came after the slot; 0 for the others), starting (CreateContainer sent, created, reported, in the log)"
        )
        yield row(what, reached, "2,500/s, p99 of the decision under 20 ms", SLOTS, reports.commit(name))


def loss_rows(reports):
    def spread(report, kind):
        return f"p50 {value(report, f'latency.{kind}.p50_ms')}, max {value(report, f'latency.{kind}.max_ms')} ms"

    for name, how in (
        ("lose-invoker", "killed (SIGKILL)"),
        ("lose-invoker-busy", "killed (SIGKILL) while as many threads as there are processors keep them busy"),
        ("freeze-invoker", "stopped in its tracks (SIGSTOP)"),
    ):
        if (reports.out / f"{name}.json").exists():
            report = reports.run(name)
            reached = f"{spread(report, 'out_of_rotation')}; gone from the tables {spread(report, 'expired')}; false expiries {value(report, 'false_expiries')}"
            what = f"invoker {how} until no scheduler counts it as healthy and places on it"
            yield row(what, reached, "p50 under 1 s, max 2.5 s; no false expiry", LOST, reports.commit(name))
    for name, how, reach in (
        ("lose-scheduler", "killed (SIGKILL)", "p50 under 0.6 s, max 1.5 s"),
        ("freeze-scheduler", "stopped in its tracks (SIGSTOP)", "max 2.5 s"),
    ):
        if (reports.out / f"{name}.json").exists():
            report = reports.run(name)
            reached = (
                f"{spread(report, 'takeover')}; failed {value(report, 'failed')}; activations of other queues meanwhile p50 / p99 "
                f"{latencies(report, 'elsewhere', ['p50', 'p99'])} ms"
            )
            what = f"leader of queues {how} until each of them completes an activation that was due afterwards"
            yield row(what, reached, f"{reach}; other queues untouched", LOST, reports.commit(name))
    for name, report, queues in reports.named(r"restart-(\d+)"):
        reached = f"{value(report, 'all_usable_s', short)} s; first half {value(report, 'latency.usable.p50_ms')} ms; failed {value(report, 'failed')}"
        what = f"all schedulers killed (SIGKILL) and started again until an activation through each of {queues:,} queues is done"
        yield row(what, reached, "under 10 s", LOST, reports.commit(name))


def idle_rows(reports):
    for name, report, queues in reports.named(r"idle-(\d+)"):
        reached = (
            f"{value(report, 'scheduler_resident_more_max_mb', short)} MB and {value(report, 'scheduler_cpu_more_max_percent', short)} % of a processor "
            f"more (then {value(report, 'scheduler_resident_max_mb', short)} MB, {value(report, 'scheduler_cpu_max_percent', short)} %); "
            f"made {value(report, 'made_per_s')}/s"
        )
        what = f"{queues:,} queues that nobody uses, the scheduler that they cost most"
        yield row(what, reached, "under 100 MB and 1 % more", META, reports.commit(name))


def section(reports):
    table = [
        line
        for rows in (rate_rows, highest_rows, paced_rows, queueing_rows, durable_rows, standing_rows, meta_rows, creation_rows, loss_rows, idle_rows)
        for line in rows(reports)
    ]
    lines = [BEGIN, "## The suite", ""]
    if reports.places:
        place = max(reports.places, key=lambda place: place["at"])
        begin = min(place["at"] for place in reports.places)
        loads = [place["load_before"] for place in reports.places if place["load_before"] is not None]
        runs = " or ".join(str(number) for number in sorted(reports.runs))
        invokers = max(place["invokers"] for place in reports.places)
        lines.append(
            f"From {begin} to {place['at']}, {place['cores']} processors ({place['processor']}), load average before a measurement "
            f"up to {max(loads, default='unknown')}. Three schedulers, {invokers} simulated invokers and the load on the same "
            f"processors, loopback, a new cluster for each run. Medians of {runs} runs (extremes in brackets); latencies count from "
            f"when an activation was due. Raw tonic is measured before and after the highest rate; a share is of the median of both."
        )
    lines += ["", f"| what | seen | to reach | {PROMISES} | of commit |", "| --- | --- | --- | --- | --- | --- | --- |", *table, ""]
    for note, names in reports.notes.items():
        lines.append(f"- {', '.join(dict.fromkeys(names))}: {note}")
    if reports.same_cluster:
        lines.append(f"- {', '.join(reports.same_cluster)}: all runs on the same cluster, one after the other")
    for name in dict.fromkeys(reports.failed):
        lines.append(f"- **{name} failed**; its log is beside its report")
    return "\n".join([*lines, END])


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path, required=True)
parser.add_argument("--doc", type=pathlib.Path, required=True)
args = parser.parse_args()
reports = Reports(args.out)
text = section(reports)
put_section(args.doc, text, BEGIN, END)
print(f"\n{text}\n\nwritten to {args.doc}; reports are in {args.out}")
sys.exit(bool(reports.failed))
