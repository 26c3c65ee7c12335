#!/usr/bin/env bash
# Measures the figures of docs/benchmarks.md on this machine and writes them there, between two markers.
#
#   scripts/bench.sh [--bin FILE] [--out DIR] [--doc FILE]
#
#   --bin FILE   use this binary instead of building one (release, without what is only for tests)
#   --out DIR    reports as JSON and HTML, data of the clusters while they run: on the disk that is to be measured
#                (default: bench in the target directory)
#   --doc FILE   where the section goes (default: docs/benchmarks.md)
#
# Every measurement is `whiskraft bench run --start`: three scheduler processes and simulated invokers, on loopback, a new cluster
# each time, everything on the same processors. About 20 minutes. Sizes come from the environment, so that it can be tried short:
#
#   WHISKRAFT_BENCH_RUNS=5            runs of each measurement; the table has medians and the extremes
#   WHISKRAFT_BENCH_TIME=10s          measured part of a run          WHISKRAFT_BENCH_WARM_UP=3s    what comes before it
#   WHISKRAFT_BENCH_ACTIONS="1 100 10000"                             WHISKRAFT_BENCH_NAMESPACES=1000   at most
#   WHISKRAFT_BENCH_RATE=20000        offered in the first row        WHISKRAFT_BENCH_CONTAINERS=480    together, or one per action
#   WHISKRAFT_BENCH_RATES="2000 10000"     for queueing latency
#   WHISKRAFT_BENCH_CALLERS=512       for the highest rate            WHISKRAFT_BENCH_CLIENTS="1 64 1024"   for durable acceptance
#   WHISKRAFT_BENCH_INVOKERS=2        invoker processes               WHISKRAFT_BENCH_SET="raft.lanes=1 …"  settings of the schedulers
#
# A short try: WHISKRAFT_BENCH_RUNS=1 WHISKRAFT_BENCH_TIME=2s WHISKRAFT_BENCH_WARM_UP=1s WHISKRAFT_BENCH_ACTIONS="1 10" \
#   WHISKRAFT_BENCH_RATE=500 WHISKRAFT_BENCH_RATES=200 WHISKRAFT_BENCH_CLIENTS=4 scripts/bench.sh --doc /tmp/benchmarks.md
# A measurement that fails is named in the section; the exit code is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=
out=
doc=docs/benchmarks.md
while [ $# -gt 0 ]; do
    case "$1" in
    --bin) bin=${2:?--bin needs a file} && shift ;;
    --out) out=${2:?--out needs a directory} && shift ;;
    --doc) doc=${2:?--doc needs a file} && shift ;;
    *) sed -n '2,25p' "$0" >&2 && exit 2 ;;
    esac
    shift
done

runs=${WHISKRAFT_BENCH_RUNS:-5}
time=${WHISKRAFT_BENCH_TIME:-10s}
warm_up=${WHISKRAFT_BENCH_WARM_UP:-3s}
read -ra actions <<<"${WHISKRAFT_BENCH_ACTIONS:-1 100 10000}"
namespaces=${WHISKRAFT_BENCH_NAMESPACES:-1000}
rate=${WHISKRAFT_BENCH_RATE:-20000}
read -ra rates <<<"${WHISKRAFT_BENCH_RATES:-2000 10000}"
containers=${WHISKRAFT_BENCH_CONTAINERS:-480}
callers=${WHISKRAFT_BENCH_CALLERS:-512}
read -ra clients <<<"${WHISKRAFT_BENCH_CLIENTS:-1 64 1024}"
invokers=${WHISKRAFT_BENCH_INVOKERS:-2}
read -ra settings <<<"${WHISKRAFT_BENCH_SET:-}"

if [ -z "$bin" ]; then
    scripts/deps.sh
    eval "$(scripts/rocksdb.sh env)"
    cargo build --release --locked -p whiskraft
    target=$(cargo metadata --no-deps --format-version 1 --locked | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    bin=$target/release/whiskraft
    out=${out:-$target/bench}
fi
bin=$(realpath "$bin")
out=$(realpath -m "${out:-target/bench}")
mkdir -p "$out"
rm -f "$out"/*.json "$out"/*.html "$out"/*.log
# Settings of another cluster on this machine must not reach this one.
for variable in $(compgen -e WHISKRAFT_ || true); do unset "$variable"; done

measurement=
stop() {
    trap - EXIT INT TERM
    if [ -n "$measurement" ]; then
        kill "$measurement" 2>/dev/null || true
        wait "$measurement" 2>/dev/null || true
    fi
    rm -rf "$out/data"
    exit "$1"
}
trap 'stop $?' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM

# measure NAME ARGUMENT …: one measurement; its report is NAME.json, NAME.html
measure() {
    local name=$1 set=()
    shift
    for setting in "${settings[@]}"; do set+=(--scheduler-set "$setting"); done
    printf '\n==> %s: %s\n' "$name" "$*"
    rm -rf "$out/data"
    "$bin" --config /dev/null bench run --start --dir "$out/data" --invokers "$invokers" "${set[@]}" --runs "$runs" --time "$time" \
        --warm-up "$warm_up" --json "$out/$name.json" --html "$out/$name.html" "$@" 2> >(tee "$out/$name.log" >&2) &
    measurement=$!
    wait "$measurement" || echo "$name failed" >&2
    measurement=
}
# at_most A B
at_most() { echo $(($1 < $2 ? $1 : $2)); }
# spread ACTIONS: arguments for so many actions over as many namespaces as there may be
spread() {
    local in each
    in=$(at_most "$1" "$namespaces")
    each=$(((containers + in - 1) / in))
    if [ $((each * in)) -lt "$1" ]; then each=$((($1 + in - 1) / in)); fi
    echo --actions "$1" --namespaces "$in" --containers "$each"
}

for count in "${actions[@]}"; do
    # shellcheck disable=SC2046
    measure "rate-$count" --rate "$rate" --duration 20 $(spread "$count")
done
# shellcheck disable=SC2046
measure highest --closed "$callers" --duration 0 $(spread 10)
for count in "${actions[@]}"; do
    for offered in "${rates[@]}"; do
        # shellcheck disable=SC2046
        measure "queueing-$offered-$count" --rate "$offered" --duration 20 $(spread "$count")
    done
done
for count in "${clients[@]}"; do
    # shellcheck disable=SC2046
    measure "durable-$count" --closed "$count" --durable 100 --forget --duration 0 $(spread 10)
done

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then commit="$commit with changes"; fi
python3 scripts/bench_section.py --out "$out" --doc "$doc" --commit "$commit" --runs "$runs" --actions "${actions[*]}" --rate "$rate" \
    --rates "${rates[*]}" --clients "${clients[*]}"
