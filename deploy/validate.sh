#!/usr/bin/env bash
# Checks the files of a deployment with the programs that will read them: `deploy/validate.sh`, after `./test e2e-tools`.
#
# Offline and without a Docker engine or a cluster: files are parsed, rendered and checked; images are not built,
# manifests are not applied. What can run as plain processes does, in e2e/local_cluster.test.mjs.
set -euo pipefail

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$deploy/.."
tools=$PWD/.test/deploy
export FANWIRE_BIN=${FANWIRE_BIN:-$PWD/target/release/fanwire}
PATH=$tools/bin:$PATH:/usr/sbin
# Of Kubernetes: the version that is oldest in use, one between, the newest the validator knows.
kubernetes=(1.32 1.34 1.37)

main() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    local check failed=()
    for check in generated texts image compose configurations balancer prometheus alerts kubernetes systemd cluster; do
        # In a process of its own, so that `set -e` holds in it.
        if "$BASH" "${BASH_SOURCE[0]}" --run "$check" "$work" >"$work/out" 2>&1; then
            printf '%-15s ok\n' "$check"
        else
            printf '%-15s FAILED\n' "$check"
            sed 's/^/    /' "$work/out"
            failed+=("$check")
        fi
    done
    if ((${#failed[@]} > 0)); then
        echo "failed: ${failed[*]}" >&2
        exit 1
    fi
}

check_generated() {
    python3 deploy/generate.py --check
}

check_texts() {
    yamllint --strict .yamllint docker-compose.yml deploy k8s
    shellcheck deploy/*.sh deploy/haproxy/*.sh
}

# Linted, and what it copies is what the build reads; never built here.
check_image() {
    hadolint deploy/Dockerfile
    local toolchain files context=$work/context
    toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if ! grep -q "^FROM rust:$toolchain-" deploy/Dockerfile || ! grep -q "RUSTUP_TOOLCHAIN=$toolchain " deploy/Dockerfile; then
        echo "the toolchain is $toolchain"
        return 1
    fi

    mkdir "$context"
    mapfile -t files < <(sed -n 's/^!//p' .dockerignore)
    git ls-files --cached --others --exclude-standard -- "${files[@]}" |
        tar --create --files-from - | tar --extract --directory "$context"
    (cd "$context" && cargo metadata --locked --offline --format-version 1 --no-deps >/dev/null)
    # What the sources include must be there too.
    local file included
    while IFS=: read -r file included; do
        [[ -f $context/$(dirname "$file")/$included ]] || { echo "$file includes $included" && return 1; }
    done < <(cd "$context" && grep -roE 'include_(str|bytes)!\("[^"]+"' crates/*/src loadtest/src |
        sed -E 's/^([^:]+):.*"(.*)"/\1:\2/')
}

check_compose() {
    check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
    services 5 --profile none
    services 8 --profile observability
    services 6 --profile bench
    services 9 --profile sentinel
    services 6 --profile tls
    # Every file that is mounted is there: Docker would make an empty folder of it.
    local source
    while read -r source; do
        [[ -e $source ]] || { echo "$source is mounted and missing" && return 1; }
    done < <(docker-compose --profile '*' config --format json |
        python3 -c 'import json, sys
config = json.load(sys.stdin)
for service in config["services"].values():
    for volume in service.get("volumes", []):
        if volume["type"] == "bind":
            print(volume["source"])
for secret in config["secrets"].values():
    print(secret["file"])')
}

# services COUNT OPTION…: Compose takes the file, and finds so many services in it.
services() {
    local count=$1 found
    shift
    found=$(docker-compose "$@" config --services)
    if (($(wc -l <<<"$found") != count)); then
        echo "expected $count services with $*, found: $found"
        return 1
    fi
}

# The gateway reads what it is given, with secrets where the containers will have them.
check_configurations() {
    (cd deploy && "$FANWIRE_BIN" check-config --config cluster.toml)
    local file
    for file in k8s/base/fanwire.toml k8s/overlays/*/fanwire.toml; do
        sed "s#/run/secrets/fanwire#$deploy/secrets#" "$file" >"$work/fanwire.toml"
        "$FANWIRE_BIN" check-config --config "$work/fanwire.toml"
    done
}

# With the addresses that Compose gives it, whose names nobody knows here. Run, with clients: e2e/balancer.test.mjs.
check_balancer() {
    local assignments
    deploy/haproxy/certificate.sh "$work/certificate"
    addresses lb 15
    env "${assignments[@]}" haproxy -c -f deploy/haproxy/haproxy.cfg
    addresses lb-tls 17
    assignments+=("LB_CERTIFICATE=$work/certificate/tls.pem")
    env "${assignments[@]}" haproxy -c -f deploy/haproxy/haproxy.cfg -f deploy/haproxy/tls.cfg
    env "${assignments[@]}" haproxy -c -f deploy/haproxy/passthrough.cfg
}

# addresses SERVICE COUNT: so many variables that Compose gives a service, in `assignments`.
addresses() {
    mapfile -t assignments < <(docker-compose --profile '*' config --format json | python3 -c 'import json, sys
for name, value in json.load(sys.stdin)["services"][sys.argv[1]]["environment"].items():
    print(f"{name}={value}")' "$1")
    ((${#assignments[@]} == $2))
}

check_prometheus() {
    promtool check config deploy/prometheus/prometheus.yml
    promtool check rules deploy/prometheus/alerts.yml
    amtool check-config deploy/alertmanager/alertmanager.yml
}

# Each alert fires in a test, is silent in one, and has an entry in the runbook; Alertmanager names none that is not there.
check_alerts() {
    promtool test rules deploy/prometheus/alerts_test.yml
    "$tools/venv/bin/python" - <<'PYTHON'
import pathlib, re, sys, yaml

read = lambda path: pathlib.Path(path).read_text()
rules = [rule for group in yaml.safe_load(read("deploy/prometheus/alerts.yml"))["groups"] for rule in group["rules"]]
cases = [case for test in yaml.safe_load(read("deploy/prometheus/alerts_test.yml"))["tests"] for case in test["alert_rule_test"]]
entries = set(re.findall(r"^#+ (Fanwire\w+)$", read("docs/operations.md"), re.M))
names = {rule["alert"] for rule in rules}
mistakes = [f"{name}: in the runbook, but no alert" for name in entries - names]
mistakes += [f"{name}: Alertmanager knows it, but it is no alert"
             for name in set(re.findall(r"Fanwire\w+", read("deploy/alertmanager/alertmanager.yml"))) - names]
for rule in rules:
    name = rule["alert"]
    if name not in entries:
        mistakes.append(f"{name}: not in docs/operations.md")
    if rule["annotations"]["runbook"] != f"docs/operations.md#{name.lower()}":
        mistakes.append(f"{name}: its runbook is {rule['annotations']['runbook']}")
    if rule["labels"]["severity"] not in ("critical", "warning"):
        mistakes.append(f"{name}: severity")
    fires = [bool(case.get("exp_alerts")) for case in cases if case["alertname"] == name]
    if sorted(set(fires)) != [False, True]:
        mistakes.append(f"{name}: needs a test in which it fires and one in which it is silent")
if not rules or mistakes:
    sys.exit("\n".join(mistakes or ["no alerts"]))
PYTHON
}

check_kubernetes() {
    local base=(Deployment=1 NetworkPolicy=1 PodDisruptionBudget=1 ServiceAccount=1)
    manifests k8s/overlays/dev "${base[@]}" ConfigMap=2 Namespace=1 Secret=1 Service=4 StatefulSet=1
    manifests k8s/overlays/prod "${base[@]}" ConfigMap=2 Namespace=1 Service=3 HorizontalPodAutoscaler=1 \
        Gateway=1 HTTPRoute=1 Certificate=1 ServiceMonitor=1 PrometheusRule=1
    # The components that no overlay has.
    mkdir -p "$work/k8s/overlays"
    cp -r k8s deploy "$work/"
    mkdir "$work/k8s/overlays/others"
    cat >"$work/k8s/overlays/others/kustomization.yaml" <<'YAML'
resources: [../../base]
components: [../../components/keda, ../../components/ingress]
YAML
    manifests "$work/k8s/overlays/others" "${base[@]}" ConfigMap=1 Service=3 ScaledObject=1 Ingress=1
}

# manifests FOLDER KIND=COUNT…
manifests() {
    local folder=$1 version
    shift
    echo "$folder"
    kubectl kustomize "$folder" >"$work/manifests.yaml"
    for version in "${kubernetes[@]}"; do
        # It only warns of what it does not know: resources of operators, which come next.
        kubernetes-validate --kubernetes-version "$version" --strict --no-warn "$work/manifests.yaml"
    done
    "$tools/venv/bin/python" deploy/check_manifests.py "$work/manifests.yaml" "$@"
}

check_systemd() {
    sed "s#/usr/local/bin/fanwire#$FANWIRE_BIN#" deploy/systemd/fanwire.service >"$work/fanwire.service"
    # What it does not know it ignores, and says so.
    local output
    output=$(systemd-analyze verify "$work/fanwire.service" 2>&1)
    if grep fanwire.service <<<"$output"; then
        return 1
    fi
    # The exposure it computes, in tenths: 100 is a service without any protection.
    systemd-analyze security --offline=true --threshold=20 "$work/fanwire.service" >/dev/null
}

# The cluster of plain processes; what dashboards, alerts and documents name is what it measures.
check_cluster() {
    node --test --test-timeout=120000 e2e/local_cluster.test.mjs
}

if [[ ${1:-} == --run ]]; then
    work=$3
    "check_$2"
else
    main
fi
