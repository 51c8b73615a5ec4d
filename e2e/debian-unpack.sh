#!/usr/bin/env bash
# Unpacks packages of a Debian suite into the folder DIR, which it empties: `e2e/debian-unpack.sh SUITE DIR PACKAGE…`.
#
# Nothing is installed, configured or started. Other Debian suites than the machine's have what it needs in versions
# that go together with it only when they are left alone.
set -euo pipefail

main() {
    local suite=${1:?usage: debian-unpack.sh SUITE DIR PACKAGE…} dir=${2:?DIR is missing} mirror
    shift 2
    mirror=$(debian_mirror)
    if [[ -z $mirror ]]; then
        echo "no Debian mirror among apt's sources: cannot unpack $*" >&2
        exit 1
    fi

    # An apt of its own: other sources, other lists, and a package database in which nothing is installed.
    rm -rf "$dir"
    mkdir -p "$dir"/apt/{lists,cache}/partial "$dir/debs"
    dir=$(cd "$dir" && pwd)
    : >"$dir/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$dir/apt/sources.list"
    local apt=(apt-get -qq
        -o "Dir::Etc::SourceList=$dir/apt/sources.list" -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$dir/apt/lists" -o "Dir::State::status=$dir/apt/status" -o "Dir::Cache=$dir/apt/cache"
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    "${apt[@]}" update
    (cd "$dir/debs" && "${apt[@]}" download "$@")
    local deb
    for deb in "$dir"/debs/*.deb; do
        dpkg -x "$deb" "$dir"
    done
    rm -rf "$dir/apt" "$dir/debs"
}

# Prints the address of the Debian archive this machine uses.
debian_mirror() {
    # shellcheck disable=SC2016  # apt expands it
    apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | head -n 1
}

main "$@"
