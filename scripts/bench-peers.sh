#!/usr/bin/env bash
# Measures what a user would take instead of Whiskraft, with Whiskraft's workloads, and writes it to docs/benchmarks.md between two markers.
#
#   scripts/bench-peers.sh [--only NAME,…] [--whiskraft FILE] [--bin FILE] [--out DIR] [--doc FILE]
#
#   --only NAMES       of etcd, nats, rabbitmq, redis, redis-synced (default: all of them)
#   --whiskraft FILE   measure this binary with the same load in the same run, for a table side by side
#   --bin FILE         use this load generator instead of building scripts/peers
#   --out DIR          reports as JSON, and data of the servers while they run: on the disk that is to be measured, not in memory
#                      (default: peers in the load generator's target directory)
#   --doc FILE         where the section goes (default: docs/benchmarks.md)
#
# Peers come from Debian: apt-get install etcd-server nats-server rabbitmq-server redis-server. One whose package is missing is left
# out, and says so. None has to run as a service; if one does, it is left alone (ports here are others: PEERS_PORT and what follows).
#
#   etcd           three processes. Puts, and watches of one key: what Whiskraft keeps its metadata in a log of its own for
#   nats           three processes, JetStream: a stream in three copies, a subject and a pull consumer in three copies for each action
#   rabbitmq       three processes: a quorum queue in three copies for each action, results by direct reply-to
#   redis          one process, nothing on disk: a stream and a consumer group for each action, results by publish
#   redis-synced   the same with an append-only file that is synced before each answer (appendfsync always)
#
# What is measured, each on servers started for it, everything on the same processors and on loopback:
#
#   message path     activations of 200 bytes go to the queue of their action; containers pull one, hold it for 20 ms (a timer), send
#                    a result of the same size to its producer, acknowledge. Open loop at PEERS_RATE (what gets done?) and at PEERS_RATES (how
#                    long does it take?), closed loop with PEERS_CALLERS callers and nothing to hold (how much goes through?)
#   durable publish  PEERS_CLIENTS clients publish and wait for the acknowledgement; what that is worth stands beside the figure
#   watch            one key of etcd changes 50 times a second before PEERS_WATCHERS watchers
#   metadata         with --whiskraft: PEERS_CLIENTS clients store small documents, and a namespace changes before PEERS_WATCHERS
#                    watchers, beside the puts and watches of etcd
#
# In the open loop activations are due at fixed times, and every latency counts from then: a stall shows in all that it held back.
# Sizes come from the environment. With these, which are the defaults, it takes some 25 minutes:
#
#   PEERS_RUNS=3              runs of each measurement; the table has medians and the extremes
#   PEERS_TIME=5s             measured part of a run              PEERS_WARM_UP=2s       what comes before it
#   PEERS_ACTIONS="1 100 10000"                                   PEERS_CONTAINERS=480   together, or one per queue
#   PEERS_RATE=20000          offered; the rate that gets done    PEERS_RATES="2000"     offered; the latencies
#   PEERS_CALLERS="512"       in the closed loop, 10 actions      PEERS_UNDER_WAY=4096   at most, in the open loop
#   PEERS_CLIENTS="1 64 1024" of durable publish                  PEERS_CONNECTIONS=12   that they share
#   PEERS_WATCHERS="100 1000" ten on each connection
#   PEERS_NATS_QUEUES=1000    most consumers of NATS              PEERS_RABBITMQ_QUEUES=1000   most queues of RabbitMQ: beyond
#                             that, actions share them, and the table says so; 10,000 in three copies take NATS and RabbitMQ
#                             minutes to make and gigabytes to keep
#   PEERS_SET_UP=90s          longest time to make queues and connections; a peer that takes longer cannot carry it, says the table
#   PEERS_PORT=24300          first of the ports
#
# An empty list leaves its measurements out. A short try, under three minutes: PEERS_RUNS=1 PEERS_TIME=1s PEERS_WARM_UP=1s \
#   PEERS_ACTIONS=10 PEERS_RATE=500 PEERS_RATES= PEERS_CALLERS= PEERS_CLIENTS=4 PEERS_WATCHERS=10 scripts/bench-peers.sh --doc /tmp/peers.md
# A measurement that fails is named in the section; the exit code is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "$0"; }
only=etcd,nats,rabbitmq,redis,redis-synced
whiskraft=
bin=
out=
doc=docs/benchmarks.md
while [ $# -gt 0 ]; do
    case "$1" in
    --only) only=${2:?--only needs names} && shift ;;
    --whiskraft) whiskraft=$(realpath "${2:?--whiskraft needs a file}") && shift ;;
    --bin) bin=${2:?--bin needs a file} && shift ;;
    --out) out=${2:?--out needs a directory} && shift ;;
    --doc) doc=${2:?--doc needs a file} && shift ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

for name in ${only//,/ }; do
    case $name in
    etcd | nats | rabbitmq | redis | redis-synced) ;;
    *) echo "bench-peers: --only knows etcd, nats, rabbitmq, redis, redis-synced, not $name" >&2 && exit 2 ;;
    esac
done

runs=${PEERS_RUNS:-3}
time=${PEERS_TIME:-5s}
warm_up=${PEERS_WARM_UP:-2s}
read -ra actions <<<"${PEERS_ACTIONS-1 100 10000}"
containers=${PEERS_CONTAINERS:-480}
rate=${PEERS_RATE:-20000}
read -ra rates <<<"${PEERS_RATES-2000}"
read -ra callers <<<"${PEERS_CALLERS-512}"
under_way=${PEERS_UNDER_WAY:-4096}
read -ra clients <<<"${PEERS_CLIENTS-1 64 1024}"
connections=${PEERS_CONNECTIONS:-12}
read -ra watchers <<<"${PEERS_WATCHERS-100 1000}"
nats_queues=${PEERS_NATS_QUEUES:-1000}
rabbitmq_queues=${PEERS_RABBITMQ_QUEUES:-1000}
set_up=${PEERS_SET_UP:-90s}
port=${PEERS_PORT:-24300}

if [ -z "$bin" ]; then
    cargo build --release --locked --manifest-path scripts/peers/Cargo.toml
    target=$(cargo metadata --no-deps --format-version 1 --locked --manifest-path scripts/peers/Cargo.toml |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    bin=$target/release/whiskraft-peers
    out=${out:-$target/peers}
fi
bin=$(realpath "$bin")
out=$(realpath -m "${out:-target/peers}")
mkdir -p "$out"
case $(stat -f -c %T "$out") in
tmpfs | ramfs) echo "bench-peers: $out is in memory, where a sync costs nothing: --out a directory on a disk" >&2 && exit 2 ;;
esac
rm -f "$out"/*.json "$out"/*.log "$out"/*.skipped
data=$out/data
# 10,000 containers of Redis are 10,000 connections, on both sides.
ulimit -n "$(ulimit -Hn)"
# Settings of other servers on this machine must not reach these.
for variable in $(compgen -e | grep -E '^(ETCD|RABBITMQ|ERL|NATS|WHISKRAFT)_' || true); do unset "$variable"; done

# --- Servers: processes of this script, ended by their ids -----------------------------------------------------------------------

pids=()    # servers whose use of the machine is told
helpers=() # others that belong to them
load=

end_load() {
    [ -n "$load" ] || return 0
    kill "$load" 2>/dev/null || true
    wait "$load" 2>/dev/null || true
    load=
}
# attend COMMAND …: carries it out in the background and waits, so that a signal ends it at once
attend() {
    local result=0
    "$@" &
    load=$!
    wait "$load" || result=$?
    load=
    return "$result"
}
# Asks servers to end; those that still run after ten seconds are killed.
end_servers() {
    local all=("${pids[@]}" "${helpers[@]}") waited=0 pid
    pids=() helpers=()
    [ ${#all[@]} -gt 0 ] || return 0
    kill "${all[@]}" 2>/dev/null || true
    while kill -0 "${all[@]}" 2>/dev/null && [ $((waited += 1)) -le 100 ]; do sleep 0.1; done
    kill -KILL "${all[@]}" 2>/dev/null || true
    for pid in "${all[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$data"
}
stop() {
    trap - EXIT INT TERM HUP
    end_load
    end_servers
    rm -rf "$data"
    exit "$1"
}
trap 'stop $?' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM HUP

# serve LOG COMMAND …: starts a server
serve() {
    local log=$1
    shift
    "$@" </dev/null >>"$data/$log.log" 2>&1 &
    pids+=($!)
}
# at FIRST: three servers on ports that follow each other
at() { echo "127.0.0.1:$(($1 + 1)),127.0.0.1:$(($1 + 2)),127.0.0.1:$(($1 + 3))"; }

start_etcd() {
    local n all=
    for n in 1 2 3; do all+=${all:+,}peer$n=http://127.0.0.1:$((port + 10 + n)); done
    for n in 1 2 3; do
        serve "etcd-$n" etcd --name "peer$n" --data-dir "$data/etcd-$n" --log-level error --initial-cluster "$all" --initial-cluster-state new \
            --listen-client-urls "http://127.0.0.1:$((port + n))" --advertise-client-urls "http://127.0.0.1:$((port + n))" \
            --listen-peer-urls "http://127.0.0.1:$((port + 10 + n))" --initial-advertise-peer-urls "http://127.0.0.1:$((port + 10 + n))"
    done
}
start_nats() {
    local n routes=
    for n in 1 2 3; do routes+="${routes:+, }\"nats-route://127.0.0.1:$((port + 10 + n))\""; done
    for n in 1 2 3; do
        cat >"$data/nats-$n.conf" <<CONF
server_name: peer$n
listen: 127.0.0.1:$((port + n))
jetstream { store_dir: "$data/nats-$n" }
cluster { name: peers, listen: 127.0.0.1:$((port + 10 + n)), routes: [$routes] }
CONF
        serve "nats-$n" nats-server --config "$data/nats-$n.conf"
    done
}
# Erlang's nodes find each other by a port mapper of our own, and know each other by a cookie of our own. The others join the first
# node once that serves: a node that looks for it earlier holds the lock that it needs to form the cluster.
start_rabbitmq() {
    local n home=$data/rabbitmq
    mkdir -p "$home"
    (umask 077 && head -c 24 /dev/urandom | base64 | tr -d '+/=\n' >"$home/.erlang.cookie")
    chmod 400 "$home/.erlang.cookie"
    rabbitmq_env=(HOME="$home" ERL_EPMD_PORT=$((port + 30)) ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_CONF_ENV_FILE=/dev/null)
    env "${rabbitmq_env[@]}" epmd </dev/null >"$data/epmd.log" 2>&1 &
    helpers+=($!)
    for n in 1 2 3; do
        mkdir -p "$home/$n"
        echo '[].' >"$home/$n/plugins"
        cat >"$home/$n/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$((port + n))
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = peer1@localhost
cluster_formation.classic_config.nodes.2 = peer$n@localhost
log.file.level = warning
log.console = false
CONF
        # With input allowed the script becomes the server, so that its process id is the server's.
        serve "rabbitmq-$n" env "${rabbitmq_env[@]}" RABBITMQ_NODENAME="peer$n@localhost" RABBITMQ_ALLOW_INPUT=1 \
            RABBITMQ_CONFIG_FILE="$home/$n/rabbitmq" RABBITMQ_ENABLED_PLUGINS_FILE="$home/$n/plugins" RABBITMQ_PID_FILE="$home/$n/pid" \
            RABBITMQ_MNESIA_BASE="$home/$n/data" RABBITMQ_LOG_BASE="$data/rabbitmq-$n-logs" RABBITMQ_DIST_PORT=$((port + 20 + n)) \
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \
            /usr/lib/rabbitmq/bin/rabbitmq-server -noinput
        if [ "$n" = 1 ]; then
            # shellcheck disable=SC2016
            attend timeout 90 bash -c 'until (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep 0.2; done' wait $((port + 1)) || return 1
        fi
    done
}
start_redis() {
    serve redis redis-server --bind 127.0.0.1 --port $((port + 1)) --dir "$data" --daemonize no --save '' --maxclients 16000 "$@"
}

# start PEER: starts its servers, and waits until they serve; fails when they do not
start() {
    mkdir -p "$data"
    servers=$(at "$port")
    kind=$1
    case $1 in
    etcd) start_etcd ;;
    nats) start_nats ;;
    rabbitmq) start_rabbitmq || return 1 ;;
    redis) servers=127.0.0.1:$((port + 1)) && start_redis --appendonly no ;;
    redis-synced) kind=redis servers=127.0.0.1:$((port + 1)) && start_redis --appendonly yes --appendfsync always ;;
    esac
    # A quorum queue gets its copies from the nodes that are there when it is declared: first all three must be.
    if [ "$1" = rabbitmq ]; then
        attend timeout 150 env "${rabbitmq_env[@]}" RABBITMQ_NODENAME=peer1@localhost bash -c \
            'until /usr/lib/rabbitmq/bin/rabbitmqctl -q await_online_nodes 3 -t 60 >/dev/null 2>&1; do sleep 1; done' || return 1
    fi
    attend timeout 90 "$bin" wait --peer "$kind" --at "$servers" --pid "$(IFS=, && echo "${pids[*]}")" --set-up-max 60s
}

# measure NAME PEER WORKLOAD ARGUMENT …: one measurement on servers started for it; its report is NAME.json
measure() {
    local name=$1 peer=$2 workload=$3
    shift 3
    printf '\n==> %s\n' "$name"
    rm -rf "$data"
    if start "$peer"; then
        # What a measurement may take at most; the load generator keeps to less by itself.
        attend timeout 1800 "$bin" "$workload" --peer "$kind" --at "$servers" --pid "$(IFS=, && echo "${pids[*]}")" --runs "$runs" --time "$time" \
            --warm-up "$warm_up" --set-up-max "$set_up" --json "$out/$name.json" "$@" 2> >(tee "$out/$name.log" >&2) ||
            echo "$name failed" >&2
    else
        echo "$name: the servers of $peer do not serve" | tee "$out/$name.log" >&2
        tail -n 3 "$data"/*.log >&2 || true
    fi
    end_servers
}

# has NAME PACKAGE COMMAND: whether a peer is asked for and installed
has() {
    case ",$only," in *",$1,"*) ;; *) return 1 ;; esac
    PATH=$PATH:/usr/sbin command -v "$3" >/dev/null && return
    echo "bench-peers: $1 is left out: $3 is missing (Debian, Ubuntu: apt-get install $2)" >&2
    echo "not measured: its Debian package $2 is not installed" >"$out/$1.skipped"
    return 1
}
PATH=$PATH:/usr/sbin

# --- What is measured ------------------------------------------------------------------------------------------------------------

# message PEER QUEUES_MAX: the message path
message() {
    local count offered
    for count in "${actions[@]}"; do
        for offered in "$rate" "${rates[@]}"; do
            measure "$1-rate-$offered-$count" "$1" message --rate "$offered" --actions "$count" --queues-max "$2" --containers "$containers" \
                --under-way-max "$under_way"
        done
    done
    for count in "${callers[@]}"; do
        measure "$1-highest-$count" "$1" message --closed "$count" --hold 0 --actions 10 --containers "$containers"
    done
}
# durable PEER: publish, and wait for the acknowledgement
durable() {
    local count
    for count in "${clients[@]}"; do measure "$1-durable-$count" "$1" durable --clients "$count" --connections "$connections"; done
}
# The same load on Whiskraft, as scripts/bench.sh puts it.
whiskraft_run() {
    local name=$1
    shift
    whiskraft_bench "$name" run --start --payload 200 "$@"
}
# whiskraft_bench NAME COMMAND ARGUMENT …
whiskraft_bench() {
    local name=whiskraft-$1 command=$2
    shift 2
    printf '\n==> %s\n' "$name"
    rm -rf "$data"
    attend timeout 1800 "$whiskraft" --config /dev/null bench "$command" --dir "$data" --invokers 2 --runs "$runs" --time "$time" --warm-up "$warm_up" \
        --json "$out/$name.json" "$@" 2> >(tee "$out/$name.log" >&2) || echo "$name failed" >&2
}
# spread ACTIONS: over as many namespaces as there may be, with so many containers in each
spread() {
    local in=$(($1 < 1000 ? $1 : 1000)) each
    each=$(((containers + in - 1) / in))
    if [ $((each * in)) -lt "$1" ]; then each=$((($1 + in - 1) / in)); fi
    echo --actions "$1" --namespaces "$in" --containers "$each"
}
measure_whiskraft() {
    local count offered
    for count in "${actions[@]}"; do
        for offered in "$rate" "${rates[@]}"; do
            # shellcheck disable=SC2046
            whiskraft_run "rate-$offered-$count" --rate "$offered" --duration 20 --under-way "$under_way" $(spread "$count")
        done
        # shellcheck disable=SC2046
        whiskraft_run "ends-$rate-$count" --rate "$rate" --durable 100 --duration 20 --under-way "$under_way" $(spread "$count")
    done
    for count in "${callers[@]}"; do
        # shellcheck disable=SC2046
        whiskraft_run "highest-$count" --closed "$count" --duration 0 $(spread 10)
    done
    for count in "${clients[@]}"; do
        # shellcheck disable=SC2046
        whiskraft_run "durable-$count" --closed "$count" --durable 100 --forget --duration 0 $(spread 10)
        whiskraft_bench "puts-$count" puts --clients "$count" --connections "$connections"
    done
    for count in "${watchers[@]}"; do whiskraft_bench "watch-$count" watch --watchers "$count" --rate 50; done
}

measured=()
version() { "$@" 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1 || true; }
if [ -n "$whiskraft" ]; then
    measured+=("whiskraft=$(version "$whiskraft" --version)")
    measure_whiskraft
fi
if has etcd etcd-server etcd; then
    measured+=("etcd=$(version etcd --version)")
    durable etcd
    for count in "${watchers[@]}"; do
        measure "etcd-watch-$count" etcd watch --watchers "$count" --connections $(((count + 9) / 10)) --rate 50
    done
fi
if has nats nats-server nats-server; then
    measured+=("nats=$(version nats-server --version)")
    message nats "$nats_queues"
    durable nats
fi
if has rabbitmq rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server; then
    measured+=("rabbitmq=$(version dpkg-query -W -f '${Version}' rabbitmq-server)")
    message rabbitmq "$rabbitmq_queues"
    durable rabbitmq
fi
for peer in redis redis-synced; do
    if has $peer redis-server redis-server; then
        measured+=("$peer=$(version redis-server --version)")
        message $peer 100000
        durable $peer
    fi
done

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then commit="$commit with changes"; fi
python3 scripts/peers_section.py --out "$out" --doc "$doc" --commit "$commit" --at "$(date -u +%F)" --runs "$runs" --measured "${measured[*]}" \
    --actions "${actions[*]}" --rate "$rate" --rates "${rates[*]}" --callers "${callers[*]}" --clients "${clients[*]}" --watchers "${watchers[*]}"
