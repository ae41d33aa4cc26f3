#!/usr/bin/env bash
# Prints the path of a PgBouncer that pools prepared statements per transaction (1.21 or newer), building it from the
# source package of a newer Debian where the installed one is older.
#
#   tests/bench/pgbouncer.sh [FOLDER]      FOLDER (default: .bench) keeps sources, build log and binary between calls
#
# Building needs Debian, root or sudo (build dependencies), and the archive that apt already uses. Where that fails, the
# packaged PgBouncer is printed, with a note on standard error, and status 0: the caller asks it for its version.
set -euo pipefail

release=${PGBOUNCER_SUITE:-trixie}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=${1:-$root/.bench}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
binary=$folder/pgbouncer

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

installed() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v pgbouncer; }

pools_prepared() { # does this binary have max_prepared_statements?
    local version
    version=$("$1" --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p')
    [ "$(printf '%s\n' 1.21 "$version" | sort -V | head -n 1)" = 1.21 ]
}

# One source entry, like the machine's own first one, but of the newer release and of sources only.
source_entry() {
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m 1 '/debian/\?$' || true)
    printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
        "${mirror:-http://deb.debian.org/debian}" "$release" "$keyring"
}

build() { # a chain, because `set -e` does not hold in a condition
    local state=$folder/apt
    # Options of their own, so that this machine's package lists know nothing of the newer release.
    local apt=(apt-get -qq -o Dir::Etc::sourcelist="$state/$release.sources" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$state/lists" -o APT::Sandbox::User=root)
    mkdir -p "$state/lists/partial" &&
        source_entry >"$state/$release.sources" &&
        as_root apt-get -qq install -y --no-install-recommends \
            dpkg-dev gcc libc6-dev make pkg-config libevent-dev libssl-dev libc-ares-dev &&
        as_root "${apt[@]}" update &&
        cd "$folder" && rm -rf pgbouncer-*/ &&
        "${apt[@]}" source pgbouncer &&
        cd pgbouncer-*/ &&
        ./configure --without-pam --with-cares &&
        make -j"$(nproc)" pgbouncer &&
        install -m 755 pgbouncer "$binary"
}

if [ -x "$binary" ]; then
    echo "$binary"
elif packaged=$(installed) && pools_prepared "$packaged"; then
    echo "$packaged"
elif (build) >"$folder/pgbouncer.log" 2>&1 </dev/null; then
    echo "$binary"
elif [ -n "$packaged" ]; then
    echo "pgbouncer.sh: building a current PgBouncer failed ($folder/pgbouncer.log); using $packaged" >&2
    echo "$packaged"
else
    tail -n 5 "$folder/pgbouncer.log" >&2
    echo "pgbouncer.sh: no PgBouncer. Install one (apt-get install -y pgbouncer), or name one: PGBOUNCER=/path make bench" >&2
    exit 1
fi
