# `make verify` writes nothing, `make fix` rewrites; CI runs verify. RocksDB: eval "$(scripts/rocksdb.sh env)" first, or let scripts/test.sh do it.
.PHONY: verify fix fmt lint test doc layers deny advisories cluster

verify: fmt layers deny lint test doc

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

# One process per test: tests open ports, start processes and abort on purpose. The fault tests need the release binary: `make cluster`.
test:
	cargo nextest run --workspace --exclude whiskraft-cluster-tests --locked --no-fail-fast
	cargo test --workspace --doc --locked --quiet

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

layers:
	scripts/check-layers.sh

# Advisories need the network's advisory database and change without us: `make advisories`, in a scheduled job.
deny:
	cargo deny --log-level error check bans licenses sources

advisories:
	cargo deny --log-level error check advisories

# Fault tests against real processes of the release binary.
cluster:
	scripts/cluster-tests.sh

fix:
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
