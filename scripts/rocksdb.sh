#!/usr/bin/env bash
# Builds RocksDB once per machine and lets every clone, profile and CI run link the result.
#
#   scripts/rocksdb.sh          builds the archive if it is not cached (10-25 minutes on two cores) and says where it is
#   eval "$(scripts/rocksdb.sh env)"   the same, then sets ROCKSDB_LIB_DIR and ROCKSDB_STATIC for cargo
#
# The archive lives in ${WHISKRAFT_ROCKSDB_CACHE:-~/.cache/whiskraft}, in a directory named after the crate's version and the
# compiler. ROCKSDB_COMPILE=1 builds it again. Needs cargo, g++ and libclang-dev.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-build}
case "$mode" in build | env) ;; *) sed -n '2,9p' "$0" >&2; exit 2 ;; esac

if [ -n "${ROCKSDB_LIB_DIR:-}" ] && [ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ] && [ -z "${ROCKSDB_COMPILE:-}" ]; then
    dir=$ROCKSDB_LIB_DIR
else
    unset ROCKSDB_LIB_DIR ROCKSDB_STATIC
    version=$(awk '$0 == "name = \"librocksdb-sys\"" { getline; gsub(/"/, "", $3); print $3 }' Cargo.lock)
    compiler=$("${CXX:-g++}" -dumpfullversion -dumpversion)
    dir=${WHISKRAFT_ROCKSDB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/whiskraft}/rocksdb-$version-gcc${compiler%%.*}
    if [ ! -f "$dir/librocksdb.a" ] || [ -n "${ROCKSDB_COMPILE:-}" ]; then
        mkdir -p "$dir"
        build=$dir/build
        echo "rocksdb: compiling $version once for this machine into $dir" >&2
        CARGO_TARGET_DIR=$build cargo build --release --locked -p librocksdb-sys >&2 &
        cargo_pid=$!
        start=$SECONDS
        while kill -0 "$cargo_pid" 2>/dev/null; do
            sleep 5
            if [ $(((SECONDS - start) % 30)) -lt 5 ]; then
                objects=$(find "$build" -name '*.o' 2>/dev/null | wc -l)
                echo "rocksdb: $objects of about 330 files compiled, $((SECONDS - start)) s" >&2
            fi
        done
        wait "$cargo_pid"
        archive=$(find "$build" -name librocksdb.a -path '*librocksdb-sys*' | head -n 1)
        cp "$archive" "$dir/librocksdb.a.new"
        mv "$dir/librocksdb.a.new" "$dir/librocksdb.a"
        rm -rf "$build"
    fi
fi

if [ "$mode" = env ]; then
    printf 'export ROCKSDB_LIB_DIR=%q ROCKSDB_STATIC=1\n' "$dir"
else
    echo "rocksdb: $dir/librocksdb.a"
fi
