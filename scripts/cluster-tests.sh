#!/usr/bin/env bash
# Builds the release binary and runs the fault tests against real processes of it.
#
#   scripts/cluster-tests.sh [nextest filter …]    all of cluster-tests/, or those whose name matches
#
# Sizes of the longer ones are environment variables that each test file names, as WHISKRAFT_DURABLE=100000.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh --ci
eval "$(scripts/rocksdb.sh env)"
target=${CARGO_TARGET_DIR:-target}
# The one that dies where it is told; kept under a name of its own, since both are built to the same place.
cargo build --release --locked -p whiskraft --features failpoints
cp "$target/release/whiskraft" "$target/release/whiskraft-failpoints"
cargo build --release --locked -p whiskraft
exec cargo nextest run --release --locked -p whiskraft-cluster-tests --run-ignored default --no-fail-fast "$@"
