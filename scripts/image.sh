#!/usr/bin/env bash
# Builds the images whiskraft (scheduler and commands) and whiskraft-invoker (process backend) without any registry.
#
#   scripts/image.sh [--bin FILE] [--tag TAG] [scheduler|invoker]...      default: both, tag latest
#
#   --bin FILE   use this binary instead of building one
#
# The scheduler image holds the binary and the shared libraries it names, nothing else. The invoker image is a minimal
# Debian or Ubuntu root file system of this machine's release, made by debootstrap from the package mirror apt uses, with
# the packages of INVOKER_PACKAGES (default: python3; add nodejs for Node.js actions). debootstrap needs root.
# Both run as user 65532. Needs a Docker Engine that answers.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=
tag=latest
images=()
while [ $# -gt 0 ]; do
    case "$1" in
    --bin) bin=${2:?--bin needs a file} && shift ;;
    --tag) tag=${2:?--tag needs a name} && shift ;;
    scheduler | invoker) images+=("$1") ;;
    *) sed -n '2,11p' "$0" >&2 && exit 2 ;;
    esac
    shift
done
[ ${#images[@]} -gt 0 ] || images=(scheduler invoker)
docker version --format 'Docker Engine {{.Server.Version}}' || { echo "image: no Docker Engine answers" >&2; exit 1; }

if [ -z "$bin" ]; then
    scripts/deps.sh
    eval "$(scripts/rocksdb.sh env)"
    cargo build --profile dist --locked -p whiskraft
    target=$(cargo metadata --no-deps --format-version 1 --locked | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    bin=$target/dist/whiskraft
fi

context=$(mktemp -d "${TMPDIR:-/tmp}/whiskraft-image.XXXXXX")
trap 'rm -rf "$context"' EXIT

# The account every process of the images runs as.
accounts() {
    mkdir -p "$1/etc" "$1/tmp"
    chmod 1777 "$1/tmp"
    echo 'whiskraft:x:65532:65532::/var/lib/whiskraft:/usr/sbin/nologin' >>"$1/etc/passwd"
    echo 'whiskraft:x:65532:' >>"$1/etc/group"
    install -D "$bin" "$1/usr/bin/whiskraft"
}

scheduler_context() {
    local root=$context/scheduler library
    accounts "$root"
    # Names of other containers come from the resolver, those of /etc/hosts first.
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    # Paths as the loader will look for them: with "=>" behind it, the loader itself in front.
    ldd "$bin" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
        install -D "$library" "$root$library"
    done
    mkdir -p "$context/home"
    echo 'data/ belongs to one scheduler: never shared, never copied to another' >"$context/home/README"
}

invoker_context() {
    local root=$context/root release mirror
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    if ! command -v debootstrap >/dev/null; then
        if [ "$(id -u)" = 0 ]; then
            apt-get update -qq
            apt-get install -y -qq debootstrap >/dev/null
        else
            echo "image: please install: debootstrap   (sudo apt-get install debootstrap), and run this as root" >&2
            exit 1
        fi
    fi
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk -v release="$release" '$2 == release { print $1; exit }')
    echo "invoker: $release from ${mirror:?no apt source for $release}"
    debootstrap --variant=minbase --include="${INVOKER_PACKAGES:-python3}" "$release" "$root" "$mirror" >"$context/debootstrap.log" ||
        { tail -n 20 "$context/debootstrap.log" >&2; exit 1; }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
    # Libraries of the binary that the root file system has not got.
    ldd "$bin" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | while read -r library; do
        [ -e "$root$library" ] || install -D "$library" "$root$library"
    done
    accounts "$root"
    tar -C "$root" --numeric-owner -cf "$context/invoker.tar" .
    rm -rf "$root"
}

for image in "${images[@]}"; do
    case "$image" in scheduler) name=whiskraft ;; invoker) name=whiskraft-invoker ;; esac
    # The classic builder builds every stage up to the target, so the first stage's files must be there for both.
    [ -d "$context/scheduler" ] || scheduler_context
    [ "$image" = scheduler ] || invoker_context
    docker build --quiet --file Dockerfile --target "$image" --tag "$name:$tag" "$context" >/dev/null
    docker image inspect --format "$name:$tag  {{.Size}} bytes  {{.Id}}" "$name:$tag"
done
