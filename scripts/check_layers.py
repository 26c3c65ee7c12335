"""Reads `cargo metadata --no-deps` on standard input and prints every dependency that the layering does not allow."""

import json
import sys
import tomllib

PREFIX = "whiskraft-"

# crate -> crates of ours that it may use; a crate that is not here (the binary, the fault tests) may use all.
ALLOWED = {
    "types": [],
    "state": ["types"],
    "queue": ["types"],
    "pool": ["types"],
    "proto": ["types"],
    "raft": ["types", "state", "proto"],
    "scheduler": ["types", "state", "queue", "proto", "raft"],
    "invoker": ["types", "pool", "proto"],
    "client": ["types", "proto"],
    "gateway": ["types", "client"],
    "runtime": [],
    "base2histogram": [],
}
PURE = {"types", "state", "queue", "pool"}
# What touches the world, the clock or chance has no place in a pure crate.
IMPURE = {"tokio", "tonic", "prost", "hyper", "axum", "rocksdb", "openraft", "bollard", "rand", "reqwest", "bincode"}
# Libraries that one crate hides from the rest.
OWNERS = {
    "openraft": {"raft"},
    "rocksdb": {"raft"},
    "bincode": {"raft"},
    "prost": {"proto"},
    "bollard": {"invoker", "cluster-tests"},
}


def violations(package):
    name = package["name"].removeprefix(PREFIX)
    used = {d["name"] for d in package["dependencies"] if d["kind"] is None}
    ours = {d.removeprefix(PREFIX) for d in used if d.startswith(PREFIX)}
    if name in ALLOWED:
        yield from (f"{name} -> {d}: not in the table" for d in sorted(ours - set(ALLOWED[name])))
    if name in PURE:
        yield from (f"{name} -> {d}: pure crates touch nothing" for d in sorted(used & IMPURE))
    for library, owners in OWNERS.items():
        if library in used and name not in owners:
            yield f"{name} -> {library}: belongs in {', '.join(sorted(owners))}"


# Crates of ours that stand in for published ones: cargo only warns when a patch is not used any more.
STAND_INS = {"base2histogram"}


def unpatched():
    with open("Cargo.lock", "rb") as lock:
        locked = tomllib.load(lock)["package"]
    published = sorted({p["name"] for p in locked if "source" in p} & STAND_INS)
    yield from (f"{name}: the published one is locked, see [patch.crates-io] in Cargo.toml" for name in published)


packages = json.load(sys.stdin)["packages"]
found = [line for package in packages for line in violations(package)]
found += unpatched()
print("\n".join(found) or f"layers: ok, {len(packages)} crates")
sys.exit(bool(found))
