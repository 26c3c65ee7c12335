#!/usr/bin/env bash
# Builds Whiskraft and shows it at work: three schedulers, one invoker, 2000 runs of a Python function, one scheduler killed.
#
#   scripts/quickstart.sh [--keep] [--bin FILE] [--count N] [--rate N]
#
#   --keep       leave the cluster running and say how to use it
#   --bin FILE   use this binary instead of building one
#   --count N    activations (default 2000)
#   --rate N     activations that become due per second (default 200)
#
# Needs cargo; installs g++, libclang-dev, python3 and make when run as root on Debian or Ubuntu, names them when not. The
# first build on a machine compiles RocksDB (10-25 minutes on two cores), later ones link the cached archive. Everything
# runs on loopback in a temporary directory; only processes started here are stopped. Respects CARGO_TARGET_DIR.
# Exit code 0: every result right, every activation run exactly once, all three schedulers back.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

keep=
bin=
count=2000
rate=200
while [ $# -gt 0 ]; do
    case "$1" in
    --keep) keep=1 ;;
    --bin) bin=${2:?--bin needs a file} && shift ;;
    --count) count=${2:?--count needs a number} && shift ;;
    --rate) rate=${2:?--rate needs a number} && shift ;;
    *) sed -n '2,15p' "$0" >&2 && exit 2 ;;
    esac
    shift
done

phases=()
phase_name=
phase_start=$SECONDS
# Ends the phase under way and begins the next: phase NAME.
phase() {
    if [ -n "$phase_name" ]; then phases+=("$(printf '%-32s %4d s' "$phase_name" $((SECONDS - phase_start)))"); fi
    phase_name=$1
    phase_start=$SECONDS
    if [ -n "$1" ]; then printf '\n==> %s\n' "$1"; fi
}

phase "packages"
scripts/deps.sh
if [ -z "$bin" ]; then
    phase "RocksDB (once per machine)"
    eval "$(scripts/rocksdb.sh env)"
    phase "build"
    cargo build --release --locked -p whiskraft
    target=$(cargo metadata --no-deps --format-version 1 --locked | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    bin=$target/release/whiskraft
fi
bin=$(realpath "$bin")
# Settings of another cluster on this machine must not reach this one.
for variable in $(compgen -e WHISKRAFT_ || true); do unset "$variable"; done

dir=$(mktemp -d "${TMPDIR:-/tmp}/whiskraft-quickstart.XXXXXX")
declare -A pids=()
leave=
cleanup() {
    local code=$? pid
    trap - EXIT INT TERM
    if [ -n "$leave" ] && [ "$code" = 0 ]; then exit 0; fi
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    # A child that was not waited for keeps its pid, so a later signal cannot meet a stranger.
    for _ in $(seq 100); do
        [ -z "$(jobs -pr)" ] && break
        sleep 0.1
    done
    for pid in $(jobs -pr); do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    case $code in
    0 | 130 | 143) rm -rf "$dir" ;;
    *) echo "logs are in $dir" >&2 ;;
    esac
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

phase "cluster of three, one invoker"
# Six ports that are free now; the schedulers say so if one is taken meanwhile.
mapfile -t ports < <(python3 - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
print(*(s.getsockname()[1] for s in held), sep="\n")
PY
)
members="1=127.0.0.1:${ports[0]},2=127.0.0.1:${ports[1]},3=127.0.0.1:${ports[2]}"
endpoints="127.0.0.1:${ports[3]},127.0.0.1:${ports[4]},127.0.0.1:${ports[5]}"

# start_scheduler ID
start_scheduler() {
    "$bin" scheduler --config /dev/null --id "$1" --initial-cluster "$members" --data-dir "$dir/scheduler-$1" \
        --client-listen "127.0.0.1:${ports[$1 + 2]}" >>"$dir/scheduler-$1.log" 2>&1 &
    pids[scheduler-$1]=$!
}
# whiskraft COMMAND …: a command against this cluster
whiskraft() { "$bin" --config /dev/null "$@" --endpoints "$endpoints"; }
# ask EXPRESSION: a Python expression over `s`, the cluster's status; fails if no scheduler answers
ask() { whiskraft status --json 2>/dev/null | python3 -c "import json, sys; s = json.load(sys.stdin); print($1)" 2>/dev/null; }
# await SECONDS WHAT EXPRESSION: waits until the expression is true
await() {
    local deadline=$((SECONDS + $1))
    until [ "$(ask "$3" || true)" = True ]; do
        if [ $SECONDS -ge $deadline ]; then
            echo "after $1 s there is still not $2" >&2
            tail -n 5 "$dir"/*.log >&2
            return 1
        fi
        sleep 0.1
    done
}

for id in 1 2 3; do start_scheduler "$id"; done
"$bin" invoker --config /dev/null --id 1 --schedulers "$endpoints" --work-dir "$dir/invoker" >>"$dir/invoker.log" 2>&1 &
pids[invoker]=$!
await 60 "a cluster of three with an invoker" \
    'sum(n["answered"] for n in s["nodes"]) == 3 and any(i["healthy"] for i in s["invokers"])'

phase "the function"
whiskraft action put hello "$root/examples/hello.py"
whiskraft invoke hello -p name=Ada
leader=$(ask '[q["leader"] for q in s["queues"] if q["action"] == "guest/hello"][0]')
echo "scheduler $leader leads its queue"

phase "$count activations, one kill -9"
runs=$dir/runs
: >"$runs"
whiskraft invoke hello --repeat "$count" --rate "$rate" --concurrency 64 --json --records "$dir/records.ndjson" \
    -p 'name=Ada {i}' -p "trace=$runs" --expect 'greeting=Hello, Ada {i}!' --expect 'activation={id}' >"$dir/report.json" &
load=$!
pids[load]=$load
# reached N: waits until the function has run N times; fails if the load ends before
reached() {
    while [ "$(wc -l <"$runs")" -lt "$1" ]; do
        if ! kill -0 "$load" 2>/dev/null; then return 1; fi
        sleep 0.02
    done
}
if reached $((count / 3)); then
    # The scheduler itself; its parent tells the others, and ends.
    kill -9 "$(cat "/proc/${pids[scheduler-$leader]}/task/${pids[scheduler-$leader]}/children")"
    wait "${pids[scheduler-$leader]}" 2>/dev/null || true
    echo "killed scheduler $leader after $(wc -l <"$runs") runs"
fi
if reached $((count * 2 / 3)); then
    start_scheduler "$leader"
    echo "restarted scheduler $leader after $(wc -l <"$runs") runs"
fi
wait "$load" || true
unset 'pids[load]'

phase "recovery"
verdict=0
await 60 "three schedulers back" \
    'sum(n["answered"] and not n["fenced"] for n in s["nodes"]) == 3 and len({n["term"] for n in s["nodes"]}) == 1' || verdict=1

phase "result"
python3 - "$dir/report.json" "$dir/records.ndjson" "$runs" <<'PY' || verdict=1
import collections
import json
import sys

report, records, runs = sys.argv[1:]
try:
    with open(report) as file:
        report = json.load(file)
except ValueError:
    sys.exit("the load gave no report")
with open(records) as file:
    records = [json.loads(line) for line in file]
with open(runs) as file:
    ran = collections.Counter(file.read().split())

asked, latency, gap = report["asked"], report["latency"], report["gap"]
known = {record["id"] for record in records}
once = sum(ran[id] == 1 for id in known)
twice = sum(times > 1 for times in ran.values())
never = sum(ran[id] == 0 for id in known)
strange = sum(id not in known for id in ran)
seconds = lambda ms: f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.1f} ms"
print(f"results    {report['right']} of {asked} right, {report['wrong']} wrong, {report['lost']} lost")
for reason, times in report["reasons"].items():
    print(f"           {times} x {reason}")
print(f"runs       {once} of {asked} activations ran once, {twice} more than once, {never} never, {strange} unknown ids")
print("latency    " + ", ".join(f"{key[:-3]} {seconds(latency[key])}" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms"))
      + "   (from when each was due, the stall at the kill included)")
print(f"gap        {seconds(gap['longest_ms'])} without a result, after {gap['after']} results")
print(f"load       {seconds(report['wall_ms'])}, {report['per_second']:.0f} activations/s")
sys.exit(not (report["right"] == once == len(known) == asked and twice == strange == 0))
PY
echo
whiskraft status || verdict=1
phase ""
printf '\nwall time\n'
printf '  %s\n' "${phases[@]}"
if [ $verdict = 0 ]; then echo "all well"; else echo "NOT all well" >&2; fi

if [ -n "$keep" ] && [ $verdict = 0 ]; then
    leave=1
    cat <<TEXT

The cluster goes on. Use it:
  export WHISKRAFT_ENDPOINTS=$endpoints PATH=$(dirname "$bin"):\$PATH
  whiskraft invoke $root/examples/hello.py -p name=Ada
  whiskraft status --watch
Stop it:
  kill ${pids[*]}; rm -rf $dir
TEXT
fi
exit $verdict
