#!/usr/bin/env python3
"""Checks what kustomize made, beyond the shape of each resource: `check_manifests.py FILE KIND=COUNT…`.

That there is exactly as much of each kind as said; that names lead to something; that selectors choose the pods they mean
and no others; that resources of operators have the fields that their operators know.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import jsonschema
import yaml

SCHEMA = Path(__file__).resolve().parent.parent / "k8s/custom-resources.schema.json"
# What an administrator brings, and the services that are somewhere else.
FROM_OUTSIDE = {("Secret", "fanwire"), ("Secret", "fanwire-redis"), ("Secret", "fanwire-tls")}


def main(file, *expected):
    resources = [each for each in yaml.safe_load_all(Path(file).read_text()) if each]
    mistakes = list(counts(resources, expected))
    for check in (references, selectors, ports, custom_resources, restricted):
        mistakes.extend(check(resources))
    for mistake in mistakes:
        print(f"{file}: {mistake}", file=sys.stderr)
    sys.exit(1 if mistakes else 0)


def counts(resources, expected):
    found = Counter(each["kind"] for each in resources)
    wanted = {kind: int(count) for kind, count in (each.split("=") for each in expected)}
    if found != wanted:
        yield f"expected {wanted}, found {dict(found)}"


def references(resources):
    there = {(each["kind"], each["metadata"]["name"]) for each in resources} | FROM_OUTSIDE
    named = []
    for pod in pods(resources):
        for volume in pod["spec"].get("volumes", []):
            if "configMap" in volume:
                named.append(("ConfigMap", volume["configMap"]["name"]))
            if "secret" in volume:
                named.append(("Secret", volume["secret"]["secretName"]))
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    named.append(("Secret", variable["valueFrom"]["secretKeyRef"]["name"]))
        if "serviceAccountName" in pod["spec"]:
            named.append(("ServiceAccount", pod["spec"]["serviceAccountName"]))
    for each in resources:
        spec = each.get("spec", {})
        if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            named.append(("Deployment", spec["scaleTargetRef"]["name"]))
        if each["kind"] == "HTTPRoute":
            named += [("Gateway", parent["name"]) for parent in spec["parentRefs"]]
            named += [("Service", backend["name"]) for rule in spec["rules"] for backend in rule["backendRefs"]]
        if each["kind"] == "Gateway":
            named += [("Secret", secret["name"]) for at in spec["listeners"] for secret in at["tls"]["certificateRefs"]]
        if each["kind"] == "Ingress":
            paths = [path for rule in spec["rules"] for path in rule["http"]["paths"]]
            named += [("Service", path["backend"]["service"]["name"]) for path in paths]
    for kind, name in named:
        if (kind, name) not in there:
            yield f"there is no {kind} {name}"


def selectors(resources):
    """Services, disruption budgets and policies choose the pods of one workload."""
    labels = {name: pod["metadata"]["labels"] for name, pod in workloads(resources)}
    for each in resources:
        spec = each.get("spec", {})
        selector = {
            "Service": lambda: spec["selector"],
            "PodDisruptionBudget": lambda: spec["selector"].get("matchLabels", {}),
            "NetworkPolicy": lambda: spec["podSelector"].get("matchLabels", {}),
        }.get(each["kind"])
        if selector is None:
            continue
        chosen = [name for name, has in labels.items() if selector().items() <= has.items()]
        meant = "redis" if each["metadata"]["name"] == "redis" else "fanwire"
        if chosen != [meant]:
            yield f"{each['kind']} {each['metadata']['name']} chooses the pods of {chosen}, not of {meant}"
    services = [each for each in resources if each["kind"] == "Service"]
    for each in resources:
        if each["kind"] == "ServiceMonitor":
            wanted = each["spec"]["selector"]["matchLabels"]
            chosen = [service for service in services if wanted.items() <= service["metadata"].get("labels", {}).items()]
            if [service["metadata"]["name"] for service in chosen] != ["fanwire-internal"]:
                yield f"the ServiceMonitor chooses {[service['metadata']['name'] for service in chosen]}"
            known = {port["name"] for service in chosen for port in service["spec"]["ports"]}
            yield from (f"no port {at['port']}" for at in each["spec"]["endpoints"] if at["port"] not in known)


def ports(resources):
    """Ports have names, and each name is one of the container's."""
    by_workload = {
        name: {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        for name, pod in workloads(resources)
    }
    for each in resources:
        if each["kind"] == "Service":
            names = by_workload["redis" if each["metadata"]["name"] == "redis" else "fanwire"]
            yield from (f"no port {port['targetPort']}" for port in each["spec"]["ports"] if port["targetPort"] not in names)
    for name, pod in workloads(resources):
        for container in pod["spec"]["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port and port not in by_workload[name]:
                    yield f"{name}: {probe} asks port {port}"


def custom_resources(resources):
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    own = (".k8s.io", "apps", "autoscaling", "policy", "batch")
    for each in resources:
        group = each["apiVersion"].rpartition("/")[0]
        if group and not (group.endswith(own) and not group.startswith("gateway.")):
            for error in validator.iter_errors(each):
                yield f"{each['kind']} {each['metadata']['name']}: {error.json_path}: {error.message}"


def restricted(resources):
    """What the namespace's pod security level enforces, so that it is known before a cluster says no."""
    for name, pod in workloads(resources):
        spec = pod["spec"]
        if spec["securityContext"].get("runAsNonRoot") is not True:
            yield f"{name} may run as root"
        if spec["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} has no seccomp profile"
        for container in spec["containers"]:
            context = container["securityContext"]
            if context["allowPrivilegeEscalation"] is not False or context["capabilities"] != {"drop": ["ALL"]}:
                yield f"{name}: container {container['name']} has privileges"
            if context.get("readOnlyRootFilesystem") is not True:
                yield f"{name}: container {container['name']} writes to its image"
            if "memory" not in container["resources"]["limits"] or "cpu" in container["resources"]["limits"]:
                yield f"{name}: container {container['name']} needs a limit of memory and none of CPU"


def workloads(resources):
    for each in resources:
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]


def pods(resources):
    return [pod for _, pod in workloads(resources)]


if __name__ == "__main__":
    main(*sys.argv[1:])
