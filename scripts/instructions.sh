#!/bin/bash
# Instructions per element of the micro-benchmarks of crates/queue, by valgrind: two runs of different length, and the
# difference divided. The same on a busy machine as on an idle one; says nothing about cache misses.
# Usage: scripts/instructions.sh [NAME…]   (all if none is given)
set -euo pipefail
cd "$(dirname "$0")/.."
few=${FEW:-2000}
many=${MANY:-6000}

binary=$(cargo bench -p whiskraft-queue --bench instructions --no-run --message-format=json -j "${JOBS:-1}" |
    python3 -c 'import json, sys
for line in sys.stdin:
    if (executable := json.loads(line).get("executable")):
        print(executable)')

count() { # NAME COUNT
    valgrind --tool=callgrind --callgrind-out-file="${OUT:-/dev/null}" "$binary" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

if [ $# = 0 ]; then
    mapfile -t names < <("$binary" | tail -n +2)
    set -- "${names[@]}"
fi
for name; do
    less=$(count "$name" "$few")
    more=$(count "$name" "$many")
    printf '%-56s %8d\n' "$name" $(((more - less) / (many - few)))
done
