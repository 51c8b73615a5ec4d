#!/usr/bin/env python3
"""Writes what is made from something else; with --check, fails if a file is not what it would write.

deploy/grafana/dashboards/*.json            from the tables below
k8s/components/monitoring/alerts.yaml       from deploy/prometheus/alerts.yml
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a query is asked for: the nodes chosen above the dashboard.
NODES = '{job="$job", instance=~"$instance"}'


def panel(title, description, unit, *queries, kind="timeseries", stack=False, width=8, thresholds=None):
    """One panel. A query is (legend, expression); in expressions `@` stands for the chosen nodes, `@{` adds to them."""
    return {
        "title": title, "description": description, "unit": unit, "queries": queries,
        "kind": kind, "stack": stack, "width": width, "thresholds": thresholds,
    }


def number(title, description, unit, query, thresholds=None, width=4, legend=""):
    """One number, or with a legend that as a text. `thresholds` are (value, colour), from the lowest."""
    return panel(title, description, unit, (legend, query), kind="stat", width=width, thresholds=thresholds)


def quantiles(name):
    buckets = f"sum by (le) (rate({name}_bucket@[$__rate_interval]))"
    return [(f"p{q}", f"histogram_quantile(0.{q}, {buckets})") for q in (50, 95, 99)]


def by(label, name):
    return ("{{%s}}" % label, f"sum by ({label}) (rate({name}@[$__rate_interval]))")


GOOD_ZERO = [(None, "green"), (0.000001, "red")]

OVERVIEW = [
    ("Now", [
        number("Nodes", "Nodes that answer.", "none", "count(up@ == 1) or vector(0)", [(None, "red"), (1, "orange"), (2, "green")]),
        number("Connections", "Open client connections of all nodes.", "short", "sum(fanwire_connections@) or vector(0)"),
        number("Deliveries", "Publications, joins and leaves given to clients.", "ops", "sum(rate(fanwire_deliveries_total@[$__rate_interval]))"),
        number("Publications", "Of clients and backends, accepted by the broker.", "ops", "sum(rate(fanwire_publications_total@[$__rate_interval]))"),
        number("Node latency, p99", "From the dispatch of a publication to the end of its sweep over the subscribers.", "s",
               "histogram_quantile(0.99, sum by (le) (rate(fanwire_delivery_seconds_bucket@[5m])))",
               [(None, "green"), (0.1, "orange"), (0.25, "red")]),
        number("Age of Redis' proof", "Since a heartbeat last came back through Redis, on the node where that is longest.", "s",
               "max(fanwire_redis_proof_age_seconds@)", [(None, "green"), (3, "orange"), (10, "red")]),
    ]),
    ("Clients", [
        panel("Connections", "By node. A sudden fall is an outage in front of the node.", "short",
              ("{{instance}}", "sum by (instance) (fanwire_connections@)"), stack=True),
        panel("Coming and going", "Connections opened and ended. A peak of both is a reconnect storm.", "ops",
              ("opened", 'sum(rate(fanwire_handshakes_total@{outcome="accepted"}[$__rate_interval]))'),
              ("ended", "sum(rate(fanwire_disconnects_total@[$__rate_interval]))")),
        panel("Why connections end", "Without those that the client closed.", "ops",
              ("{{reason}}", 'sum by (reason) (rate(fanwire_disconnects_total@{reason!="connection_closed"}[$__rate_interval])) > 0'), stack=True),
        panel("Openings that fail", "rejected: wrong origins, most often. timeout: slow peers. error: no HTTP, or the peer left.", "ops",
              ("{{outcome}}", 'sum by (outcome) (rate(fanwire_handshakes_total@{outcome!="accepted"}[$__rate_interval]))')),
        panel("Not admitted", "More come than [admission] allows.", "ops",
              ("{{kind}}", 'sum by (kind) (rate(fanwire_admissions_total@{outcome="refused"}[$__rate_interval]))')),
        panel("Given up", "0 nothing, 1 new connections, 2 presence and history, 3 joins and leaves, 4 publications for slow clients, 5 the slowest.", "none",
              ("{{instance}}", "fanwire_shedding@")),
        panel("What was given up", "", "ops", by("what", "fanwire_shed_total"), stack=True),
        panel("How late workers are", "To everything they do.", "s", *quantiles("fanwire_worker_lag_seconds")),
        panel("Refusals", "Commands answered with an error.", "ops",
              ("{{refusal}}", "sum by (refusal) (rate(fanwire_refusals_total@[$__rate_interval])) > 0"), stack=True),
        panel("Recoveries", "Subscriptions that continued where they stopped, and those that could not.", "ops",
              by("outcome", "fanwire_recoveries_total")),
        panel("Clients that move", "Asked to come back to another node, by why.", "ops", by("why", "fanwire_moved_total"), stack=True),
        panel("Still to move", "Connections of nodes that go down.", "short", ("{{instance}}", "fanwire_drain_remaining_connections@"), stack=True),
    ]),
    ("Work", [
        panel("Deliveries", "By node.", "ops", by("instance", "fanwire_deliveries_total"), stack=True),
        panel("Publications", "By the node that accepted them.", "ops", by("instance", "fanwire_publications_total"), stack=True),
        panel("Node latency", "From the dispatch of a publication to the end of its sweep.", "s", *quantiles("fanwire_delivery_seconds")),
        panel("CPU", "Cores in use.", "none", by("instance", "process_cpu_seconds_total"), stack=True),
        panel("Memory", "Resident.", "bytes", ("{{instance}}", "process_resident_memory_bytes@"), stack=True),
        panel("Faults", "Should stay 0.", "ops",
              ("broker errors", "sum(rate(fanwire_broker_errors_total@[$__rate_interval]))"),
              ("panics", "sum(rate(fanwire_panics_total@[$__rate_interval]))"),
              ("accept errors", "sum(rate(fanwire_accept_errors_total@[$__rate_interval]))")),
    ]),
]

DELIVERY = [
    ("Fan-out", [
        panel("Deliveries per publication", "How many clients one publication reaches.", "none",
              ("fan-out", "sum(rate(fanwire_deliveries_total@[$__rate_interval])) / sum(rate(fanwire_publications_total@[$__rate_interval]))")),
        panel("Deliveries per write", "1 on an idle node; more under load, when what arrives together leaves in one write.", "none",
              ("{{instance}}", "sum by (instance) (rate(fanwire_deliveries_total@[$__rate_interval])) / sum by (instance) (rate(fanwire_writes_total@[$__rate_interval]))")),
        panel("Writes", "To sockets, for publications, joins and leaves.", "ops", by("instance", "fanwire_writes_total"), stack=True),
        panel("Bytes delivered", "Frames included.", "Bps", by("instance", "fanwire_delivered_bytes_total"), stack=True),
        panel("Subscriptions", "Of clients.", "short", ("{{instance}}", "fanwire_subscriptions@"), stack=True),
        panel("Channels", "With subscribers, summed over the workers of the node.", "short", ("{{instance}}", "fanwire_channels@"), stack=True),
    ]),
    ("Latency", [
        panel("Delivery, all nodes", "From the dispatch of a publication to the end of its sweep, once for each worker.", "s",
              *quantiles("fanwire_delivery_seconds"), width=12),
        panel("Delivery, where it takes how long", "", "s",
              ("{{le}}", "sum by (le) (increase(fanwire_delivery_seconds_bucket@[$__rate_interval]))"), kind="heatmap", width=12),
        panel("From publish to delivery", "From when a node took a publication to the end of its sweep on another, by the clocks of both.", "s",
              *quantiles("fanwire_publication_age_seconds"), width=12),
    ]),
    ("Slow clients", [
        panel("Bytes that wait", "For full sockets. Each client has at most client.queue_size.", "bytes",
              ("{{instance}}", "fanwire_queue_bytes@"), stack=True),
        panel("Ended as too slow", "More waited for them than client.queue_size.", "ops",
              ("{{instance}}", 'sum by (instance) (rate(fanwire_disconnects_total@{reason="slow"}[$__rate_interval]))')),
        panel("Ended without a pong", "Networks that went away.", "ops",
              ("{{instance}}", 'sum by (instance) (rate(fanwire_disconnects_total@{reason="no_pong"}[$__rate_interval]))')),
    ]),
    ("From clients", [
        panel("Commands", "Of the native protocol.", "ops",
              ("{{command}}", "sum by (command) (rate(fanwire_commands_total@[$__rate_interval])) > 0"), stack=True),
        panel("Messages", "Messages and pongs.", "ops", by("instance", "fanwire_messages_received_total"), stack=True),
        panel("Bytes received", "Frames included.", "Bps", by("instance", "fanwire_received_bytes_total"), stack=True),
    ]),
    ("From backends", [
        panel("Calls", "By method.", "ops",
              ("{{method}}", "sum by (method) (rate(fanwire_api_requests_total@[$__rate_interval])) > 0"), stack=True),
        panel("Calls that fail", "error: answered with an error. unauthorized: a wrong key. malformed: no JSON object.", "ops",
              ("{{outcome}}", 'sum by (outcome) (rate(fanwire_api_requests_total@{outcome!="ok"}[$__rate_interval]))')),
        panel("How long calls take", "All methods, without reading the body.", "s", *quantiles("fanwire_api_seconds")),
        panel("Calls by key", "Who makes them. A key nobody uses any more can go.", "ops",
              ("{{key}}", "sum by (key) (rate(fanwire_api_key_requests_total@[$__rate_interval]))"), stack=True),
        panel("Calls of a key that fail", "limited: its rate is used up. denied: it may not do that.", "ops",
              ("{{key}} {{outcome}}", 'sum by (key, outcome) (rate(fanwire_api_key_requests_total@{outcome!="ok"}[$__rate_interval])) > 0')),
        panel("Streams of publications", "Open calls of PublishStream.", "short", ("{{instance}}", "fanwire_api_publish_streams@"), stack=True),
    ]),
    ("Hooks", [
        panel("Questions to backends", "By outcome. unreachable, timeout, open: the backend is gone or slow. full: too many at once.", "ops",
              ("{{hook}} {{outcome}}", "sum by (hook, outcome) (rate(fanwire_hook_requests_total@[$__rate_interval])) > 0"), stack=True),
        panel("How long they take, p95", "With their retries: clients wait as long.", "s",
              ("{{hook}}", "histogram_quantile(0.95, sum by (hook, le) (rate(fanwire_hook_seconds_bucket@[$__rate_interval])))")),
        panel("Questions under way", "Of at most max_in_flight. spared: nodes that do not ask, because the backend does not answer.", "short",
              ("{{hook}}", "sum by (hook) (fanwire_hook_in_flight@)"), ("{{hook}} spared", "sum by (hook) (fanwire_hook_open@)")),
    ]),
    ("Tokens", [
        panel("Key sets read", "failed: what is known is trusted for max_stale.", "ops", by("outcome", "fanwire_jwks_fetches_total")),
        panel("Keys of key sets", "That can check tokens.", "short", ("{{instance}}", "fanwire_jwks_keys@")),
        panel("Revocations", "Users whose older tokens are refused, on the node that knows most; what came of it.", "short",
              ("users", "max(fanwire_revocations@)"),
              ("tokens refused, 5 min", "sum(increase(fanwire_revoked_tokens_total@[5m]))"),
              ("ended, 5 min", "sum(increase(fanwire_revoked_total@[5m]))")),
    ]),
]

REDIS = [
    ("Now", [
        number("Age of the proof", "Since a heartbeat last came back, on the node where that is longest. Nothing else proves that publications arrive.", "s",
               "max(fanwire_redis_proof_age_seconds@)", [(None, "green"), (3, "orange"), (10, "red")], width=6),
        number("Connections lost, 1 h", "Subscriber connections of all nodes.", "none", "sum(increase(fanwire_redis_reconnects_total@[1h]))",
               [(None, "green"), (1, "orange"), (10, "red")], width=6),
        number("Gaps repaired, 1 h", "From history, before any client noticed.", "none", "sum(increase(fanwire_gap_repairs_total@[1h]))", width=6),
        number("Gaps lost, 1 h", "History did not have what was missed; subscribers were told.", "none",
               "sum(increase(fanwire_gaps_lost_total@[1h]))", GOOD_ZERO, width=6),
    ]),
    ("The connection", [
        panel("Age of the proof", "Every node sends a heartbeat through Redis and waits for it. Grows while Redis carries nothing.", "s",
              ("{{instance}}, server {{shard}}", "max by (instance, shard) (fanwire_redis_proof_age_seconds@)"), width=12),
        panel("Subscriber connections lost", "silent: no heartbeat came back. overflow: the node could not keep up.", "ops",
              by("reason", "fanwire_redis_reconnects_total"), width=12),
    ]),
    ("What it did to publications", [
        panel("Gaps", "Holes in the order of a channel, filled from history or not.", "ops",
              ("repaired", "sum(rate(fanwire_gap_repairs_total@[$__rate_interval]))"),
              ("lost", "sum(rate(fanwire_gaps_lost_total@[$__rate_interval]))")),
        panel("Subscriptions told of a loss", "They subscribe again and know it.", "ops", by("instance", "fanwire_insufficient_state_total")),
        panel("Recoveries", "failed: the history was too short, or began anew.", "ops", by("outcome", "fanwire_recoveries_total")),
        panel("Losses nobody was told of", "Subscribers without a position, in channels with history.", "ops", by("how", "fanwire_unnoticed_losses_total")),
        panel("Plain channels interrupted", "Channels without a position when a connection was lost.", "ops", by("instance", "fanwire_interrupted_channels_total")),
        panel("Nodes that hand over", "Cut off from Redis, they send their clients to other nodes.", "none",
              ("{{instance}}", "fanwire_handing_over@"), stack=True),
    ]),
    ("Coming back", [
        panel("Where those who come back go on", "memory: the node remembered. broker: Redis was asked.", "ops", by("from", "fanwire_resumed_total")),
        panel("Histories read for them", "Those who wait for the same channel share one.", "ops", by("instance", "fanwire_resume_reads_total")),
        panel("What nodes remember", "Recent publications.", "bytes", ("{{instance}}", "fanwire_recent_bytes@"), stack=True),
    ]),
    ("Presence", [
        panel("Settlements", "Comparisons of a node's clients with what Redis has, after anything doubtful.", "ops",
              by("instance", "fanwire_presence_settlements_total"), width=12),
        panel("Clients of dead nodes removed", "By the node that did it.", "ops", by("instance", "fanwire_presence_swept_total"), width=12),
    ]),
    ("Work", [
        panel("Requests that fail", "Publications and readings that Redis did not serve.", "ops", by("instance", "fanwire_broker_errors_total")),
        panel("Publications", "Accepted by Redis.", "ops", by("instance", "fanwire_publications_total"), stack=True),
        panel("A backend's publish", "Mostly the way to Redis and back.", "s",
              *[(legend, query.replace("@[", '@{method="publish"}[')) for legend, query in quantiles("fanwire_api_seconds")]),
    ]),
]

NODE = [
    ("Now", [
        number("Version", "Different ones only during an upgrade.", "none", "count by (version) (fanwire_build_info@)", width=6,
               legend="{{version}}"),
        number("Up for", "Since the youngest of the nodes started.", "s", "time() - max(process_start_time_seconds@)", width=6),
        number("Descriptors", "The fullest node: a connection is a descriptor.", "percentunit", "max(process_open_fds@ / process_max_fds@)",
               [(None, "green"), (0.6, "orange"), (0.8, "red")], width=6),
        number("Panics, 24 h", "Must stay 0.", "none", "sum(increase(fanwire_panics_total@[24h]))", GOOD_ZERO, width=6),
    ]),
    ("Process", [
        panel("CPU", "Cores in use.", "none", by("instance", "process_cpu_seconds_total")),
        panel("Memory", "Resident.", "bytes", ("{{instance}}", "process_resident_memory_bytes@")),
        panel("Memory per connection", "Everything the process has, over its connections.", "bytes",
              ("{{instance}}", "sum by (instance) (process_resident_memory_bytes@) / (sum by (instance) (fanwire_connections@) > 100)")),
        panel("File descriptors", "In use, and the lowest limit.", "short",
              ("{{instance}}", "process_open_fds@"), ("limit", "min(process_max_fds@)")),
        panel("Threads", "", "short", ("{{instance}}", "process_threads@")),
        panel("Address space", "Virtual memory.", "bytes", ("{{instance}}", "process_virtual_memory_bytes@")),
    ]),
    ("Connections", [
        panel("By protocol", "", "short", ("{{protocol}}", "sum by (protocol) (fanwire_connections@)"), stack=True),
        panel("Openings", "", "ops", by("outcome", "fanwire_handshakes_total"), stack=True),
        panel("Share of the busiest node", "Its connections over the mean: 1 is even.", "none",
              ("busiest / mean", "max(sum by (instance) (fanwire_connections@)) / avg(sum by (instance) (fanwire_connections@))")),
        panel("Ends", "By reason, those that the client closed included.", "ops",
              ("{{reason}}", "sum by (reason) (rate(fanwire_disconnects_total@[$__rate_interval])) > 0"), stack=True),
        panel("Nodes that each one sees", "Itself included. Different numbers: some do not hear each other.", "none",
              ("{{instance}}", "fanwire_nodes@")),
        panel("Asked by other nodes", "By kind; announcements come all the time.", "ops",
              ("{{kind}}", "sum by (kind) (rate(fanwire_node_messages_total@[$__rate_interval])) > 0")),
        panel("Questions to other nodes", "partial: some were silent. failed: they could not be asked. dropped: more waited than a node takes.", "ops",
              by("outcome", "fanwire_node_questions_total"),
              ("dropped", "sum(rate(fanwire_node_messages_dropped_total@[$__rate_interval]))")),
        panel("Accept errors", "For want of descriptors, most often.", "ops", by("instance", "fanwire_accept_errors_total")),
        panel("Other HTTP requests", "API, health, metrics.", "ops", by("instance", "fanwire_http_requests_total")),
        panel("Admitted", "What [admission] let in. refused: 503 to openings, 111 to the others.", "ops",
              ("{{kind}} {{outcome}}", "sum by (kind, outcome) (rate(fanwire_admissions_total@[$__rate_interval])) > 0"), stack=True),
        panel("PROXY headers refused", "Connections of trusted balancers that did not begin with one.", "ops",
              by("instance", "fanwire_proxy_headers_refused_total")),
    ]),
    ("Going down", [
        panel("Phase", "0 it serves, 1 it waits for balancers to notice, 2 clients move, 3 the rest is ended.", "none",
              ("{{instance}}", "fanwire_drain_phase@"), width=12),
        panel("Pace", "Clients asked to move in a second, and the most that drain.rate allows.", "none",
              by("instance", "fanwire_moved_total"), ("{{instance}} allowed", "fanwire_drain_rate@"), width=12),
    ]),
    ("Configuration and certificates", [
        panel("Configuration", "1: right when it was last read. 0: the node runs with an old one, and would not start with the new.", "none",
              ("{{instance}}", "fanwire_config_valid@")),
        panel("Read again", "Configurations and certificates.", "short",
              ("configuration {{outcome}}", "sum by (outcome) (increase(fanwire_config_reloads_total@[5m]))"),
              ("{{listener}} certificate {{outcome}}", "sum by (listener, outcome) (increase(fanwire_tls_certificate_reloads_total@[5m]))")),
        panel("Certificates expire in", "On the node where that is soonest.", "s",
              ("{{listener}}", "min by (listener) (fanwire_tls_certificate_expiry_timestamp_seconds@) - time()")),
        panel("TLS handshakes", "refused_by_client after a renewal: a wrong chain.", "ops", by("outcome", "fanwire_tls_handshakes_total"), stack=True, width=24),
    ]),
]

DASHBOARDS = {
    "overview": ("Fanwire: overview", "Is everything well, and for how many?", OVERVIEW),
    "delivery": ("Fanwire: delivery", "What reaches clients, how late, and what does not.", DELIVERY),
    "redis": ("Fanwire: Redis", "Whether nodes hear each other, and what was done where they did not.", REDIS),
    "node": ("Fanwire: nodes", "The processes.", NODE),
}


def expression(query):
    chosen = NODES[:-1]
    return query.replace("@{", chosen + ", ").replace("@", NODES)


def fields(spec):
    if spec["kind"] == "heatmap":
        return {"defaults": {}, "overrides": []}
    defaults = {"unit": spec["unit"], "color": {"mode": "palette-classic"}}
    if spec["kind"] == "stat":
        steps = spec["thresholds"] or [(None, "blue")]
        defaults |= {
            "color": {"mode": "thresholds"},
            "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]},
        }
    else:
        defaults |= {
            "min": 0,
            "custom": {
                "lineWidth": 1,
                "fillOpacity": 30 if spec["stack"] else 10,
                "showPoints": "never",
                "stacking": {"mode": "normal" if spec["stack"] else "none"},
            },
        }
    return {"defaults": defaults, "overrides": []}


def options(spec):
    if spec["kind"] == "stat":
        text = spec["queries"][0][0]
        return {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "graphMode": "none" if text else "area",
            "textMode": "name" if text else "value",
        }
    if spec["kind"] == "heatmap":
        return {"calculate": False, "yAxis": {"unit": spec["unit"]}, "color": {"mode": "scheme", "scheme": "Blues"}, "cellGap": 1}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def target(index, spec, legend, query):
    return {
        "refId": chr(ord("A") + index),
        "expr": expression(query),
        "legendFormat": legend,
        "format": "heatmap" if spec["kind"] == "heatmap" else "time_series",
    }


def panels(rows):
    made, y = [], 0
    for title, specs in rows:
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        x = 0
        for spec in specs:
            height = 4 if spec["kind"] == "stat" else 8
            if x + spec["width"] > 24:
                x, y = 0, y + height
            made.append({
                "id": len(made) + 1,
                "type": spec["kind"],
                "title": spec["title"],
                "description": spec["description"],
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"x": x, "y": y, "w": spec["width"], "h": height},
                "fieldConfig": fields(spec),
                "options": options(spec),
                "targets": [target(index, spec, *query) for index, query in enumerate(spec["queries"])],
            })
            x += spec["width"]
        y += height
    return made


def variable(name, label, query, **more):
    return {"name": name, "label": label, "type": "query", "query": query, "refresh": 2, "sort": 1,
            "datasource": {"type": "prometheus", "uid": "${datasource}"}, **more}


def dashboard(name, title, description, rows):
    return {
        "uid": f"fanwire-{name}",
        "title": title,
        "description": description,
        "tags": ["fanwire"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["fanwire"], "title": "Fanwire", "asDropdown": False, "keepTime": True, "includeVars": True}],
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            variable("job", "Job", "label_values(fanwire_build_info, job)"),
            variable("instance", "Node", 'label_values(fanwire_build_info{job="$job"}, instance)',
                     multi=True, includeAll=True, allValue=".*", current={"text": "All", "value": "$__all"}),
        ]},
        "panels": panels(rows),
    }


def prometheus_rule():
    """The rules of Prometheus are a part of the resource as they are, further to the right."""
    rules = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    body = rules[rules.index("groups:"):]
    indented = "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))
    return (
        "# Made by deploy/generate.py from deploy/prometheus/alerts.yml.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: fanwire\nspec:\n" + indented
    )


def files():
    made = {"k8s/components/monitoring/alerts.yaml": prometheus_rule()}
    for name, (title, description, rows) in DASHBOARDS.items():
        text = json.dumps(dashboard(name, title, description, rows), indent=1, ensure_ascii=False)
        made[f"deploy/grafana/dashboards/{name}.json"] = text + "\n"
    return made


def main():
    stale = []
    for path, text in files().items():
        file = ROOT / path
        if file.exists() and file.read_text() == text:
            continue
        stale.append(path)
        if "--check" not in sys.argv[1:]:
            file.write_text(text)
            print(path)
    if stale and "--check" in sys.argv[1:]:
        sys.exit(f"not what deploy/generate.py writes: {', '.join(stale)}")


if __name__ == "__main__":
    main()
