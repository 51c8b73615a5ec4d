#!/usr/bin/env bash
# RFC 6455 conformance by Autobahn|Testsuite against the echo example, which is the gateway's own WebSocket layer.
#
#   e2e/autobahn.sh [--all] [--summary FILE]
#
# Runs the cases 1-7 and 10; --all adds 9 (limits and performance). --summary writes a Markdown page.
# ECHO_SERVER names another server to test: it takes `--listen 127.0.0.1:0` and prints `listening on ws://…`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.test/autobahn
target=${CARGO_TARGET_DIR:-$root/target}
echo_server=${ECHO_SERVER:-$target/release/examples/echo}

main() {
    # 12.* and 13.* are permessage-deflate, which the gateway does not offer.
    local cases='"1.*","2.*","3.*","4.*","5.*","6.*","7.*","10.*"' expected=247 summary=()
    while (($# > 0)); do
        case $1 in
        --all) cases+=',"9.*"' expected=301 ;;
        --summary) summary=(--summary "${2:?--summary needs a file}") && shift ;;
        *) echo "usage: autobahn.sh [--all] [--summary FILE]" >&2 && exit 2 ;;
        esac
        shift
    done
    if [[ ! -x $echo_server ]]; then
        echo "$echo_server is missing: cargo build --release -p fanwire-net --examples" >&2
        exit 1
    fi
    "$root/e2e/autobahn-setup.sh" "$tools"

    run=$(mktemp -d)
    trap stop EXIT
    "$echo_server" --listen 127.0.0.1:0 >"$run/echo.out" 2>"$run/echo.err" &
    server=$!
    local url
    url=$(wait_for_url)
    echo "testing $url"

    cat >"$run/spec.json" <<SPEC
{"outdir": "$run/reports", "servers": [{"agent": "fanwire", "url": "$url"}],
 "cases": [$cases], "exclude-cases": [], "exclude-agent-cases": {}}
SPEC
    # wstest's exit code says nothing: the report decides.
    if ! (cd "$run" && "$tools/wstest" -m fuzzingclient -s spec.json >wstest.out 2>&1); then
        tail -n 40 "$run/wstest.out" >&2
        exit 1
    fi
    if ! kill -0 "$server" 2>/dev/null; then
        echo "the echo server died:" >&2
        tail -n 40 "$run/echo.err" >&2
        exit 1
    fi
    rm -rf "$tools/reports" && cp -R "$run/reports" "$tools/reports"
    python3 "$root/e2e/autobahn_report.py" "$tools/reports/index.json" --expect "$expected" \
        ${summary[@]+"${summary[@]}"}
}

# Prints the address the server says it listens on.
wait_for_url() {
    local attempt url
    for ((attempt = 0; attempt < 100; attempt++)); do
        url=$(sed -n 's/^listening on //p' "$run/echo.out")
        if [[ -n $url ]]; then
            echo "$url"
            return
        fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    echo "the echo server did not come up:" >&2
    cat "$run/echo.err" >&2
    return 1
}

stop() {
    if [[ -n ${server:-} ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$run"
}

main "$@"
