#!/usr/bin/env bash
# Makes sure that what a build and the tests need is installed: Debian packages as root, else it names them.
#
#   scripts/deps.sh [--ci]      --ci adds what only the fault tests and checks use, and the cargo tools
set -euo pipefail

packages=(g++ make libclang-dev python3)
[ "${1:-}" = --ci ] && packages+=(iproute2 git e2fsprogs mount util-linux)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "deps: installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    else
        echo "deps: please install: ${missing[*]}   (Debian, Ubuntu: sudo apt-get install ${missing[*]})" >&2
        exit 1
    fi
fi
command -v cargo >/dev/null || { echo "deps: cargo is missing; see https://rustup.rs" >&2; exit 1; }
if [ "${1:-}" = --ci ]; then
    command -v cargo-nextest >/dev/null || cargo install --locked --quiet cargo-nextest
    command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
fi
