#!/usr/bin/env bash
# Builds the release binary and runs the fault tests against real processes of it.
#
#   scripts/cluster-tests.sh [nextest filter …]    all of cluster-tests/, or those whose name matches
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh --ci
eval "$(scripts/rocksdb.sh env)"
cargo build --release --locked -p whiskraft
exec cargo nextest run --release --locked -p whiskraft-cluster-tests --run-ignored default --no-fail-fast "$@"
