#!/usr/bin/env bash
# Measures the figures of docs/benchmarks.md on this machine and writes them there, between two markers.
#
#   scripts/bench.sh [--bin FILE] [--out DIR] [--doc FILE] [--only NAME[,NAME…]]
#   scripts/bench.sh --list
#
#   --bin FILE   use this binary instead of building one (profile dist, which is what is shipped; twice as long as a release build)
#   --out DIR    reports as JSON and HTML, data of the clusters while they run: on the disk that is to be measured
#                (default: bench in the target directory)
#   --doc FILE   where the section goes (default: docs/benchmarks.md)
#   --only …     measure these again and leave the reports of the others as they are; without it all begin anew
#   --list       names of all measurements
#
# The section is made of every report in the directory, each with the commit that it was measured at. Every measurement is
# one command of `whiskraft bench` (most are `run --start`; also `puts`, `watch`, `idle`, `restart`, `lose`): three scheduler
# processes and simulated invokers, on loopback, everything on the same processors, a new cluster for each run. `highest` is
# measured between two of `whiskraft bench echo`, the wire alone. About 90 minutes. Sizes come from the environment, so that it can be tried short:
#
#   WHISKRAFT_BENCH_RUNS=5            runs of each measurement; the table has medians and the extremes
#   WHISKRAFT_BENCH_TIME=10s          measured part of a run          WHISKRAFT_BENCH_WARM_UP=3s    what comes before it
#   WHISKRAFT_BENCH_ACTIONS="1 100 10000"                             WHISKRAFT_BENCH_NAMESPACES=1000   at most
#   WHISKRAFT_BENCH_RATE=20000        offered in the first row        WHISKRAFT_BENCH_CONTAINERS=480    together, or one per action
#   WHISKRAFT_BENCH_RATES="2000 10000"     for queueing latency
#   WHISKRAFT_BENCH_CALLERS="64 512"  for the highest rate            WHISKRAFT_BENCH_CLIENTS="1 64 1024"   for durable acceptance
#   WHISKRAFT_BENCH_ENDS=2400         callers of durable ones that wait for the end
#   WHISKRAFT_BENCH_WAITING=10000     containers that wait, and queues of one scheduler
#   WHISKRAFT_BENCH_PUTS="64 1024"    clients that store small documents          WHISKRAFT_BENCH_WATCHERS="100 1000"
#   WHISKRAFT_BENCH_CREATIONS=2500    containers created per second               WHISKRAFT_BENCH_COLD=50    first activations per second
#   WHISKRAFT_BENCH_LOSSES=5          processes lost in each run                  WHISKRAFT_BENCH_RESTART=10000   queues then
#   WHISKRAFT_BENCH_IDLE=100000       queues that nobody uses                     WHISKRAFT_BENCH_REST=10s   before each look at them
#   WHISKRAFT_BENCH_INVOKERS=2        invoker processes               WHISKRAFT_BENCH_SET="raft.lanes=1 …"  settings of the schedulers
#   WHISKRAFT_BENCH_FRESH=0           all runs of a measurement on the same cluster: shorter, and a run may show what the one before left
#
# A short try: WHISKRAFT_BENCH_RUNS=1 WHISKRAFT_BENCH_TIME=2s WHISKRAFT_BENCH_WARM_UP=1s WHISKRAFT_BENCH_ACTIONS="1 10" \
#   WHISKRAFT_BENCH_RATE=500 WHISKRAFT_BENCH_RATES=200 WHISKRAFT_BENCH_CALLERS=8 WHISKRAFT_BENCH_CLIENTS=4 WHISKRAFT_BENCH_ENDS=4 \
#   WHISKRAFT_BENCH_WAITING=20 WHISKRAFT_BENCH_PUTS=4 WHISKRAFT_BENCH_WATCHERS=5 WHISKRAFT_BENCH_CREATIONS=50 WHISKRAFT_BENCH_LOSSES=1 \
#   WHISKRAFT_BENCH_RESTART=20 WHISKRAFT_BENCH_IDLE=100 WHISKRAFT_BENCH_REST=1s scripts/bench.sh --doc /tmp/benchmarks.md
# A measurement that fails is named in the section; the exit code is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=
out=
doc=docs/benchmarks.md
only=
list=
while [ $# -gt 0 ]; do
    case "$1" in
    --bin) bin=${2:?--bin needs a file} && shift ;;
    --out) out=${2:?--out needs a directory} && shift ;;
    --doc) doc=${2:?--doc needs a file} && shift ;;
    --only) only=${2:?--only needs names} && shift ;;
    --list) list=yes ;;
    *) sed -n '2,/^set -euo/{/^set -euo/d;p}' "$0" >&2 && exit 2 ;;
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
read -ra callers <<<"${WHISKRAFT_BENCH_CALLERS:-64 512}"
read -ra clients <<<"${WHISKRAFT_BENCH_CLIENTS:-1 64 1024}"
# A queue gets containers until what waits in it is done within 100 ms (scheduler.queue.stale-threshold): with so many callers all 480.
ends=${WHISKRAFT_BENCH_ENDS:-2400}
waiting=${WHISKRAFT_BENCH_WAITING:-10000}
read -ra puts <<<"${WHISKRAFT_BENCH_PUTS:-64 1024}"
read -ra watchers <<<"${WHISKRAFT_BENCH_WATCHERS:-100 1000}"
creations=${WHISKRAFT_BENCH_CREATIONS:-2500}
cold=${WHISKRAFT_BENCH_COLD:-50}
losses=${WHISKRAFT_BENCH_LOSSES:-5}
restart=${WHISKRAFT_BENCH_RESTART:-10000}
idle=${WHISKRAFT_BENCH_IDLE:-100000}
rest=${WHISKRAFT_BENCH_REST:-10s}
invokers=${WHISKRAFT_BENCH_INVOKERS:-2}
read -ra settings <<<"${WHISKRAFT_BENCH_SET:-}"
fresh=(--fresh)
if [ "${WHISKRAFT_BENCH_FRESH:-1}" = 0 ]; then fresh=(); fi
# Records of blocking activations are not kept, as none of the peers keeps them.
bare="--scheduler-set scheduler.journal.archive=false"
# One container runs so many at once: what has no length is not to wait for containers.
wide="--concurrency 100"
# Waiting containers are not paused.
awake=invoker.pool.pause-grace=10m

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

# suite COMMAND: calls COMMAND NAME REPORT KIND ARGUMENT … for every report; one name may have several.
# shellcheck disable=SC2046
suite() {
    local count offered in_flight
    in_flight=$(IFS=, && echo "${callers[*]}")
    for count in "${actions[@]}"; do
        "$1" "rate-$count" "rate-$count" run --rate "$rate" --duration 20 $(spread "$count") $bare
    done
    for count in "${actions[@]}"; do
        "$1" "kept-$count" "kept-$count" run --rate "$rate" --duration 20 $(spread "$count")
    done
    "$1" highest echo-before echo --in-flight "$in_flight"
    for count in "${callers[@]}"; do
        "$1" highest "highest-$count" run --closed "$count" --duration 0 $(spread 10) $wide $bare
    done
    "$1" highest echo-after echo --in-flight "$in_flight"
    "$1" paced echo-paced echo --rate "$(IFS=, && echo "${rates[*]}"),$rate" --servers 3 --per-frame ready
    for count in "${actions[@]}"; do
        for offered in "${rates[@]}"; do
            "$1" "queueing-$offered-$count" "queueing-$offered-$count" run --rate "$offered" --duration 20 $(spread "$count") $bare
        done
    done
    for count in "${clients[@]}"; do
        "$1" "durable-$count" "durable-$count" run --closed "$count" --durable 100 --forget --duration 0 $(spread 10) $wide
    done
    # Later than the run is over: nothing but their acceptance is there to be done.
    for count in "${clients[@]}"; do
        "$1" "accepted-$count" "accepted-$count" run --closed "$count" --durable 100 --forget --delay 1h --duration 0 $(spread 10) $wide \
            --scheduler-set scheduler.queue.delayed-max=1000000
    done
    for count in "${actions[@]}"; do
        "$1" "ends-$count" "ends-$count" run --closed "$ends" --durable 100 --duration 20 $(spread "$count")
    done
    "$1" "waiting-$waiting" "waiting-$waiting" run --rate 2000 --duration 0 $(spread "$waiting") $bare --invoker-set "$awake"
    for count in "${puts[@]}"; do "$1" "puts-$count" "puts-$count" puts --clients "$count" --time "$time" --warm-up "$warm_up"; done
    for count in "${watchers[@]}"; do
        "$1" "watch-$count" "watch-$count" watch --watchers "$count" --time "$time" --warm-up "$warm_up"
    done
    "$1" "cold-$cold" "cold-$cold" run --rate "$cold" --cold --once --stages --namespaces 100 $bare
    "$1" "creations-$creations" "creations-$creations" run --rate "$creations" --cold --once --stages --namespaces 100 $bare
    "$1" lose-invoker lose-invoker "lose invoker" --times "$losses"
    "$1" lose-invoker-busy lose-invoker-busy "lose invoker" --times "$losses" --busy "$(nproc)"
    "$1" freeze-invoker freeze-invoker "lose invoker" --times "$losses" --freeze
    "$1" "restart-$restart" "restart-$restart" restart --queues "$restart"
    "$1" "idle-$idle" "idle-$idle" idle --queues "$idle" --time "$time" --warm-up "$rest"
    "$1" lose-scheduler lose-scheduler "lose scheduler" --times "$losses"
    "$1" freeze-scheduler freeze-scheduler "lose scheduler" --times "$losses" --freeze
    "$1" "memory-$waiting" "memory-$waiting" run --rate 2000 --duration 0 $(spread "$waiting") --schedulers 1
}

name() { echo "$1"; }
names=$(suite name | uniq)
if [ -n "$list" ]; then
    echo "$names"
    exit
fi
IFS=, read -ra wanted <<<"$only"
for one in "${wanted[@]}"; do
    if ! grep -qxF -- "$one" <<<"$names"; then
        printf 'no measurement %s; there are (scripts/bench.sh --list):\n%s\n' "$one" "$names" >&2
        exit 2
    fi
done

if [ -z "$bin" ]; then
    scripts/deps.sh
    eval "$(scripts/rocksdb.sh env)"
    cargo build --profile dist --locked -p whiskraft
    target=$(cargo metadata --no-deps --format-version 1 --locked | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    bin=$target/dist/whiskraft
    out=${out:-$target/bench}
fi
bin=$(realpath "$bin")
out=$(realpath -m "${out:-target/bench}")
mkdir -p "$out"
if [ -z "$only" ]; then rm -rf "$out"/*.json "$out"/*.html "$out"/*.log "$out"/*.logs "$out"/*.commit; fi
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
if [ -n "$(git status --porcelain -- . ':!docs/benchmarks.md' 2>/dev/null)" ]; then commit="$commit with changes"; fi
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

# measure NAME REPORT KIND ARGUMENT …: one measurement; its report is REPORT.json, its commit is beside it
measure() {
    local name=$1 report=$2 kind=$3 all=()
    shift 3
    if [ -n "$only" ] && ! grep -qxF -- "$name" <(printf '%s\n' "${wanted[@]}"); then return; fi
    if [ "$kind" = run ]; then all+=(--start "${fresh[@]}"); fi
    if [ "$kind" != echo ]; then
        all+=(--dir "$out/data" --invokers "$invokers" --html "$out/$report.html")
        for setting in "${settings[@]}"; do all+=(--scheduler-set "$setting"); done
    fi
    # The others say themselves how long they take.
    case "$kind" in run | echo) all+=(--time "$time" --warm-up "$warm_up") ;; esac
    all+=(--runs "$runs" --json "$out/$report.json" "$@")
    printf '\n==> %s: %s %s\n' "$report" "$kind" "$*"
    rm -rf "$out/data" "$out/$report.logs"
    mkdir -p "$out/$report.logs"
    # An empty report is one that failed.
    : >"$out/$report.json"
    echo "$commit" >"$out/$report.commit"
    # A kind may be two words.
    # shellcheck disable=SC2086
    "$bin" --config /dev/null bench $kind "${all[@]}" 2> >(tee "$out/$report.log" >&2) &
    measurement=$!
    if ! wait "$measurement"; then
        echo "$report failed; logs of its processes are in $out/$report.logs" >&2
        (cd "$out/data" 2>/dev/null && find . -maxdepth 2 -name '*.log' -exec cp --parents -t "$out/$report.logs" {} +) || true
    fi
    measurement=
    rmdir --ignore-fail-on-non-empty "$out/$report.logs"
}
suite measure

python3 scripts/bench_section.py --out "$out" --doc "$doc"
