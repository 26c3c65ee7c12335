#!/usr/bin/env bash
# Holds the edges between our crates, and who may use which library, against the table in docs/architecture.md.
#
#   scripts/check-layers.sh     exit 1 and one line per edge that is not allowed
set -euo pipefail
cd "$(dirname "$0")/.."
cargo metadata --no-deps --format-version 1 --locked | python3 scripts/check_layers.py
