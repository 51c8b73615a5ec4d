#!/usr/bin/env bash
# Installs Autobahn|Testsuite into the folder DIR: `e2e/autobahn-setup.sh DIR`, then `DIR/wstest`.
#
# wstest runs on Python 2.7 only. The interpreter is, in this order: $PYTHON27, one that is on the machine (with its C
# headers: a dependency is compiled), or the one of Debian 11, whose packages are unpacked below DIR and not installed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/autobahn-requirements.txt

main() {
    local dir=${1:?usage: autobahn-setup.sh DIR}
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    # The folder is part of the stamp: the launcher holds absolute paths.
    local stamp
    stamp="$dir $(cksum <"$requirements")"
    if [[ -x $dir/wstest && -f $dir/installed && $(<"$dir/installed") == "$stamp" ]]; then
        return
    fi
    rm -rf "$dir/site" "$dir/wstest" "$dir/installed"

    local python
    python=$(find_python) || python=$(unpack_debian_python "$dir/debian11")
    echo "Python 2.7: $python"
    install_site "$python" "$dir"
    write_launcher "$python" "$dir"
    "$dir/wstest" -a
    echo "$stamp" >"$dir/installed"
}

# Prints the path of a complete Python 2.7, or fails.
find_python() {
    local candidate
    for candidate in "${PYTHON27:-}" "$(command -v python2.7 || true)" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
        if [[ -x $candidate ]] && "$candidate" - 2>/dev/null <<'PYTHON'; then
import ctypes, hashlib, os, ssl, sys, sysconfig, zlib
assert sys.version_info[:2] == (2, 7)
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
PYTHON
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Unpacks Debian 11's Python 2.7 into the folder $1 and prints the path of a launcher for it.
unpack_debian_python() {
    local root=$1
    echo "Unpacking Debian 11's Python 2.7" >&2
    if ! "$here/debian-unpack.sh" bullseye "$root" python2.7 python2.7-minimal python2.7-dev libpython2.7 \
        libpython2.7-dev libpython2.7-minimal libpython2.7-stdlib libexpat1-dev libssl1.1 libffi7 >&2; then
        echo "Set PYTHON27 to an interpreter." >&2
        return 1
    fi

    local libraries
    libraries=$(dirname "$(find "$root/usr/lib" -name 'libssl.so.1.1' | head -n 1)")
    cat >"$root/python2.7" <<LAUNCHER
#!/bin/sh
export LD_LIBRARY_PATH="$libraries" PYTHONHOME="$root/usr" CPATH="$root/usr/include:$root/usr/include/python2.7"
exec "$root/usr/bin/python2.7" "\$@"
LAUNCHER
    chmod +x "$root/python2.7"
    echo "$root/python2.7"
}

# Installs the pinned packages into $2/site with the interpreter $1, by the last pip that knows Python 2.7.
install_site() {
    local python=$1 dir=$2
    rm -rf "$dir/bootstrap"
    python3 -m venv "$dir/bootstrap"
    "$dir/bootstrap/bin/pip" download --quiet --no-deps --only-binary :all: --python-version 2.7 --implementation py \
        --abi none --platform any --dest "$dir/bootstrap" pip==20.3.4 setuptools==44.1.1 wheel==0.37.1
    # Unpacked: from within a wheel, pip cannot build a package that comes as source with a pyproject.toml.
    local wheel
    for wheel in "$dir"/bootstrap/*.whl; do
        python3 -m zipfile -e "$wheel" "$dir/bootstrap/python2"
    done
    PYTHONPATH=$dir/bootstrap/python2 PYTHONWARNINGS=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$python" -m pip --no-python-version-warning install --quiet --no-deps --no-warn-script-location \
        --prefer-binary --no-build-isolation --target "$dir/site" --requirement "$requirements"
    rm -rf "$dir/bootstrap"
}

# `addsitedir` and not PYTHONPATH alone: zope is a namespace package, found by the .pth file it comes with.
write_launcher() {
    local python=$1 dir=$2
    cat >"$dir/wstest" <<LAUNCHER
#!/bin/sh
exec "$python" -W ignore -c 'import site, sys
sys.path.insert(0, "$dir/site")
site.addsitedir("$dir/site")
sys.argv[0] = "wstest"
from autobahntestsuite import wstest
wstest.run()' "\$@"
LAUNCHER
    chmod +x "$dir/wstest"
}

main "$@"
