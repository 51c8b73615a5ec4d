#!/usr/bin/env bash
# A whole cluster on this machine, as plain processes: Redis, three nodes, HAProxy, Prometheus.
#
#   deploy/local-cluster.sh up             starts it, and prints what is where
#   deploy/local-cluster.sh status         tells what runs
#   deploy/local-cluster.sh restart NODE   ends node1, node2 or node3 as an upgrade does, and starts it again
#   deploy/local-cluster.sh down           ends it and removes what it wrote
#
# Everything listens on loopback. The files are those of docker-compose.yml; only addresses differ. From the environment:
#
#   CLUSTER_PORT   the first of its ports, 8000 unless told
#   CLUSTER_DIR    where it keeps data, logs and process ids; target/local-cluster unless told
#   FANWIRE_BIN    the gateway; target/release/fanwire unless told
set -euo pipefail

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$deploy")
dir=${CLUSTER_DIR:-$root/target/local-cluster}
fanwire=${FANWIRE_BIN:-$root/target/release/fanwire}
# What ./test has unpacked will do as well.
PATH=$PATH:/usr/sbin:$root/.test/deploy/bin

base=${CLUSTER_PORT:-8000}
public=$base control=$((base + 10)) stats=$((base + 30)) prometheus=$((base + 40)) redis=$((base + 50))
nodes=(node1 node2 node3)
# In this order they start; in the opposite one they end.
parts=(redis "${nodes[@]}" haproxy prometheus)

main() {
    case ${1:-} in
    up) up ;;
    down) down ;;
    status) status ;;
    restart) restart "${2:-}" ;;
    *) sed -n '2,/^set/{s/^# \{0,1\}//;/^set/!p;}' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
    esac
}

up() {
    check_tools
    if [[ -e $dir ]]; then
        echo "there is a cluster in $dir: status tells what runs, down removes it" >&2
        exit 1
    fi
    check_ports
    mkdir -p "$dir"/{pids,logs,redis,prometheus/targets}
    # Half a cluster is none.
    trap 'give_up' EXIT
    start redis redis-server "$deploy/redis/redis.conf" --bind 127.0.0.1 --port "$redis" --dir "$dir/redis"
    wait_for redis redis-cli -p "$redis" ping
    local node
    for node in "${nodes[@]}"; do
        start_node "$node"
    done
    for node in "${nodes[@]}"; do
        wait_until_ready "$node"
    done
    start_haproxy
    wait_for haproxy curl -sf "http://127.0.0.1:$stats/metrics"
    start_prometheus
    wait_for prometheus curl -sf "http://127.0.0.1:$prometheus/-/ready"
    trap - EXIT
    tell
}

give_up() {
    trap - EXIT
    echo "it did not come up; the ends of its logs:" >&2
    tail -n 5 "$dir"/logs/* >&2
    down
    exit 1
}

down() {
    local part index failed=0
    for ((index = ${#parts[@]} - 1; index >= 0; index--)); do
        part=${parts[index]}
        # A second signal: nobody waits for the clients of a cluster that goes.
        if [[ $part == node* ]]; then
            stop "$part" TERM INT || failed=1
        else
            stop "$part" TERM || failed=1
        fi
    done
    rm -rf "$dir"
    return "$failed"
}

status() {
    local part missing=0
    for part in "${parts[@]}"; do
        if runs "$part"; then
            printf '%-11s runs      process %s\n' "$part" "$(process "$part")"
        else
            printf '%-11s is gone\n' "$part"
            missing=1
        fi
    done
    return "$missing"
}

restart() {
    if [[ ! " ${nodes[*]} " == *" $1 "* ]]; then
        echo "which one: ${nodes[*]}?" >&2
        exit 2
    fi
    if [[ ! -d $dir ]]; then
        echo "there is no cluster in $dir" >&2
        exit 1
    fi
    stop "$1" TERM
    start_node "$1"
    wait_until_ready "$1"
}

tell() {
    cat <<TEXT
The cluster is up, for trying out: everyone on this machine may connect.

  clients      ws://127.0.0.1:$public/connection/websocket   ws://127.0.0.1:$public/plain?channel=chat:lobby
  backends     http://127.0.0.1:$control/api
  balancer     http://127.0.0.1:$stats/
  Prometheus   http://127.0.0.1:$prometheus/
  nodes        metrics at http://127.0.0.1:$((base + 21))/metrics, :$((base + 22)), :$((base + 23))
  logs         $dir/logs

  curl -X POST http://127.0.0.1:$control/api/publish -H 'X-API-Key: $(<"$deploy/secrets/api-key")' \\
       -d '{"channel":"chat:lobby","data":{"text":"hello from curl"}}'

  FANWIRE_API_KEY=$(<"$deploy/secrets/api-key") $fanwire nodes --api http://127.0.0.1:$control

$deploy/local-cluster.sh down ends it.
TEXT
}

start_node() {
    local n=${1#node}
    # The configuration names its secrets relative to where it lies.
    (
        cd "$deploy"
        export FANWIRE__NODE__NAME="$1"
        export FANWIRE__LISTEN__PUBLIC="127.0.0.1:$((base + n))"
        export FANWIRE__LISTEN__CONTROL="127.0.0.1:$((base + 10 + n))"
        export FANWIRE__LISTEN__OPS="127.0.0.1:$((base + 20 + n))"
        export FANWIRE__BROKER__REDIS="{ urls = [\"redis://127.0.0.1:$redis\"] }"
        start "$1" "$fanwire" serve --config cluster.toml
    )
}

wait_until_ready() {
    wait_for "$1" curl -sf "http://127.0.0.1:$((base + 20 + ${1#node}))/health/ready"
}

start_haproxy() {
    (
        export LB_PUBLIC=127.0.0.1:$public LB_CONTROL=127.0.0.1:$control LB_STATS=127.0.0.1:$stats
        local n
        for n in 1 2 3; do
            export "NODE${n}_HOST=127.0.0.1" "NODE${n}_PUBLIC=$((base + n))" \
                "NODE${n}_CONTROL=$((base + 10 + n))" "NODE${n}_OPS=$((base + 20 + n))"
        done
        start haproxy haproxy -db -f "$deploy/haproxy/haproxy.cfg"
    )
}

# Prometheus looks for what it watches beside its configuration.
start_prometheus() {
    ln -s "$deploy"/prometheus/*.yml "$dir/prometheus/"
    cat >"$dir/prometheus/targets/cluster.yml" <<YAML
- labels: { job: fanwire }
  targets: ["127.0.0.1:$((base + 21))", "127.0.0.1:$((base + 22))", "127.0.0.1:$((base + 23))"]
- labels: { job: haproxy }
  targets: ["127.0.0.1:$stats"]
YAML
    start prometheus prometheus --config.file="$dir/prometheus/prometheus.yml" \
        --storage.tsdb.path="$dir/prometheus/data" --web.listen-address="127.0.0.1:$prometheus"
}

# start PART PROGRAM ARGUMENT…: in the background, and beyond the end of this script.
start() {
    local part=$1
    shift
    nohup "$@" >>"$dir/logs/$part.log" 2>&1 </dev/null &
    echo "$! $(started $!)" >"$dir/pids/$part"
}

# stop PART SIGNAL…: ends a part and waits for it, as long as a node may take to let its clients go ([drain]). Fails if it
# has to be killed.
stop() {
    local part=$1 pid patience signal
    shift
    if ! runs "$part"; then
        rm -f "$dir/pids/$part"
        return
    fi
    pid=$(process "$part")
    for signal in "$@"; do
        kill -s "$signal" "$pid"
    done
    for ((patience = 1500; patience > 0; patience--)); do
        if ! runs "$part"; then
            rm -f "$dir/pids/$part"
            return
        fi
        sleep 0.1
    done
    echo "$part does not end; killed" >&2
    kill -9 "$pid"
    rm -f "$dir/pids/$part"
    return 1
}

# Whether the process that was started still runs: a process id alone may be somebody else's by now.
runs() {
    local pid since
    [[ -f $dir/pids/$1 ]] || return 1
    read -r pid since <"$dir/pids/$1"
    [[ -n $since && $(started "$pid") == "$since" ]]
}

process() {
    cut -d ' ' -f 1 "$dir/pids/$1"
}

# When a process started; nothing for one that has ended.
started() {
    ps -p "$1" -o stat= -o lstart= 2>/dev/null | grep -v '^Z' | sed 's/^[^ ]* *//' || true
}

# wait_for PART COMMAND…: until the command succeeds, while the part runs.
wait_for() {
    local part=$1 patience
    shift
    for ((patience = 150; patience > 0; patience--)); do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        if ! runs "$part"; then
            echo "$part has ended" >&2
            return 1
        fi
        sleep 0.1
    done
    echo "$part does not answer" >&2
    return 1
}

check_tools() {
    local tool missing=()
    for tool in redis-server:redis-server redis-cli:redis-tools haproxy:haproxy prometheus:prometheus curl:curl; do
        command -v "${tool%%:*}" >/dev/null || missing+=("${tool%%:*} (Debian package ${tool##*:})")
    done
    [[ -x $fanwire ]] || missing+=("$fanwire (cargo build --release -p fanwire)")
    if ((${#missing[@]} > 0)); then
        echo "missing:" >&2
        printf '  %s\n' "${missing[@]}" >&2
        exit 1
    fi
}

check_ports() {
    local port taken=()
    for port in "$public" "$control" "$stats" "$prometheus" "$redis" $((base + 1)) $((base + 2)) $((base + 3)) \
        $((base + 11)) $((base + 12)) $((base + 13)) $((base + 21)) $((base + 22)) $((base + 23)); do
        if (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            taken+=("$port")
        fi
    done
    if ((${#taken[@]} > 0)); then
        echo "taken on 127.0.0.1: ports ${taken[*]}; CLUSTER_PORT=9000 moves all of them" >&2
        exit 1
    fi
}

main "$@"
