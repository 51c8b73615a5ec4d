#!/usr/bin/env bash
# Installs what checks the files of a deployment into the folder DIR: `deploy/tools.sh DIR`, then `DIR/bin`.
#
# Programs of Debian are unpacked, not installed: their services would start. Every version is chosen: Debian 12 has
# promtool and amtool, Debian 13 a kubectl and a Compose that know today's files.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
unpack=$here/../e2e/debian-unpack.sh

main() {
    local dir=${1:?usage: tools.sh DIR}
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    # The folder is part of the stamp: what pip installs holds absolute paths.
    local stamp
    stamp="$dir $(cat "${BASH_SOURCE[0]}" "$unpack" "$here/requirements.txt" | cksum)"
    if [[ -f $dir/installed && $(<"$dir/installed") == "$stamp" ]]; then
        return
    fi
    echo "installing $dir"
    rm -rf "$dir"
    mkdir -p "$dir/bin"

    "$unpack" bookworm "$dir/debian12" prometheus prometheus-alertmanager
    "$unpack" trixie "$dir/debian13" docker-compose kubectl
    local program
    for program in debian12/usr/bin/{prometheus,promtool,amtool} \
        debian13/usr/{bin/kubectl,libexec/docker/cli-plugins/docker-compose}; do
        ln -s "../$program" "$dir/bin/"
    done

    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    for program in check-jsonschema hadolint kubernetes-validate yamllint; do
        ln -s "../venv/bin/$program" "$dir/bin/"
    done
    for program in "$dir"/bin/*; do
        [[ -x $program ]] || { echo "$program is missing" >&2 && exit 1; }
    done
    echo "$stamp" >"$dir/installed"
}

main "$@"
