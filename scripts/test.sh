#!/usr/bin/env bash
# Everything that must hold before a commit: format, lints, tests, docs, layers, licences. Writes nothing but the target directory.
#
#   scripts/test.sh             runs `make verify`; the first run on a machine compiles RocksDB (10-25 minutes)
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh --ci
eval "$(scripts/rocksdb.sh env)"
make --no-print-directory verify
