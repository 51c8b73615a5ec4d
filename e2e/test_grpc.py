"""gRPC's own Python library, with code generated from the proto, against the control plane."""

import importlib
import json
import sys
import tempfile
import unittest
import urllib.parse
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_tools import protoc

import fanwire

PROTO = fanwire.ROOT / "proto/fanwire/control/v1/control.proto"

KEY = "a-key-that-only-these-tests-know"

CONFIG = f"""
[control]
reflection = true

[[api_key]]
name = "backend"
secret = "{KEY}"

[[namespace]]
name = ""
presence = true
history_size = 10
history_ttl = "5m"
recovery = true
"""


def generated():
    """Compiles the proto; returns the modules of its messages and of its service."""
    with tempfile.TemporaryDirectory(prefix="fanwire-proto-") as folder:
        outputs = [f"--{output}={folder}" for output in ("python_out", "grpc_python_out")]
        if protoc.main(["protoc", f"--proto_path={PROTO.parent}", *outputs, PROTO.name]) != 0:
            raise AssertionError("protoc does not compile the proto")
        sys.path.insert(0, folder)
        try:
            return [importlib.import_module(name) for name in ("control_pb2", "control_pb2_grpc")]
        finally:
            sys.path.remove(folder)


class ControlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pb, service = generated()
        cls.gateway = fanwire.Gateway(CONFIG)
        cls.gateway.__enter__()
        cls.addClassCleanup(cls.gateway.__exit__)
        cls.address = urllib.parse.urlsplit(cls.gateway.control).netloc
        cls.channel = grpc.insecure_channel(cls.address)
        cls.addClassCleanup(cls.channel.close)
        cls.control = service.ControlStub(cls.channel)

    def call(self, method, message, **options):
        options = {"metadata": [("x-api-key", KEY)], "timeout": fanwire.LIMIT} | options
        return getattr(self.control, method)(message, **options)

    def refused(self, method, message, **options):
        """Calls what is refused; returns the status and the code of the API."""
        with self.assertRaises(grpc.RpcError) as refused:
            self.call(method, message, **options)
        return refused.exception.code(), dict(refused.exception.trailing_metadata()).get("fanwire-code")

    def test_publish_and_history(self):
        pb = self.pb
        first = self.call("Publish", pb.PublishRequest(channel="log", data=b'{"number": 1}', tags={"kind": "note"}))
        self.assertEqual(first.offset, 1)
        second = self.call("Publish", pb.PublishRequest(channel="log", data=b"\x00\xff"))
        self.assertEqual((second.offset, second.epoch), (2, first.epoch))
        history = self.call("History", pb.HistoryRequest(channel="log", limit=-1))
        self.assertEqual([bytes(publication.data) for publication in history.publications], [b'{"number": 1}', b"\x00\xff"])
        self.assertEqual(dict(history.publications[0].tags), {"kind": "note"})
        self.assertEqual((history.offset, history.epoch), (2, first.epoch))
        self.call("HistoryRemove", pb.HistoryRemoveRequest(channel="log"))
        self.assertEqual(len(self.call("History", pb.HistoryRequest(channel="log", limit=-1)).publications), 0)

    def test_the_same_key_gives_the_same_position(self):
        request = self.pb.PublishRequest(channel="keys", data=b"1", idempotency_key="once")
        self.assertEqual(self.call("Publish", request), self.call("Publish", request))

    def test_both_forms_see_the_same(self):
        published = self.call("Publish", self.pb.PublishRequest(channel="both", data=b'{"from": "gRPC"}'))
        answer = self.post("history", {"channel": "both", "limit": 1})
        self.assertEqual(answer["result"]["publications"][0]["data"], {"from": "gRPC"})
        self.assertEqual((answer["result"]["offset"], answer["result"]["epoch"]), (published.offset, published.epoch))

    def test_batch_and_broadcast(self):
        pb = self.pb
        replies = self.call("Batch", pb.BatchRequest(commands=[
            pb.Command(broadcast=pb.BroadcastRequest(channels=["one", "nowhere:1"], data=b"1")),
            pb.Command(presence_stats=pb.PresenceStatsRequest(channel="one", users=["ann"])),
            pb.Command(),
        ])).replies
        one, nowhere = replies[0].broadcast.responses
        self.assertEqual((one.result.offset, nowhere.error.code), (1, 102))
        self.assertEqual(dict(replies[1].presence_stats.users), {"ann": 0})
        self.assertEqual(replies[2].error.code, 104)

    def test_info_and_channels(self):
        [node] = self.call("Info", self.pb.InfoRequest()).nodes
        self.assertEqual((node.state, bool(node.uid and node.version)), ("active", True))
        self.assertEqual(dict(self.call("Channels", self.pb.ChannelsRequest()).channels), {})
        page = self.call("Connections", self.pb.ConnectionsRequest())
        self.assertEqual((list(page.connections), page.cursor), ([], ""))

    def test_publish_stream(self):
        pb = self.pb
        epoch = self.call("History", pb.HistoryRequest(channel="stream-0")).epoch

        def requests():
            for number in range(3000):
                request = pb.PublishRequest(channel=f"stream-{number % 3}", data=b"%d" % number)
                yield pb.PublishStreamRequest(id=number, publish=request)
            yield pb.PublishStreamRequest(id=3000, publish=pb.PublishRequest(channel="nowhere:1", data=b"1"))

        acknowledged = list(self.call("PublishStream", requests()))
        self.assertEqual(sorted(each.id for each in acknowledged), list(range(3001)))
        for channel in range(3):
            results = [each for each in acknowledged if each.id % 3 == channel and each.id < 3000]
            self.assertEqual([each.id for each in results], list(range(channel, 3000, 3)))
            self.assertEqual([each.result.offset for each in results], list(range(1, 1001)))
        self.assertEqual({each.result.epoch for each in acknowledged if each.id % 3 == 0 and each.id < 3000}, {epoch})
        self.assertEqual([each.error.code for each in acknowledged if each.id == 3000], [102])

    def test_refusals(self):
        publish = self.pb.PublishRequest
        for request, expected in [
            (publish(channel="nowhere:1", data=b"1"), (grpc.StatusCode.NOT_FOUND, "102")),
            (publish(channel="a b", data=b"1"), (grpc.StatusCode.INVALID_ARGUMENT, "107")),
            (publish(channel="a"), (grpc.StatusCode.INVALID_ARGUMENT, "107")),
        ]:
            self.assertEqual(self.refused("Publish", request), expected)
        large = publish(channel="a", data=bytes(4 * 1024 * 1024))
        self.assertEqual(self.refused("Publish", large)[0], grpc.StatusCode.OUT_OF_RANGE)

    def test_keys(self):
        info = self.pb.InfoRequest()
        self.call("Info", info, metadata=[("authorization", f"apikey {KEY}")])
        for metadata in ([], [("x-api-key", "another-key-that-nobody-knows")]):
            self.assertEqual(self.refused("Info", info, metadata=metadata), (grpc.StatusCode.UNAUTHENTICATED, "101"))

    def test_health_needs_no_key(self):
        check = health_pb2_grpc.HealthStub(self.channel).Check
        for service in ("", "fanwire.control.v1.Control"):
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=fanwire.LIMIT)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as refused:
            check(health_pb2.HealthCheckRequest(service="nobody.knows"), timeout=fanwire.LIMIT)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_a_watch_ends_with_its_node(self):
        with fanwire.Gateway() as gateway, grpc.insecure_channel(urllib.parse.urlsplit(gateway.control).netloc) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=fanwire.LIMIT)
            self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
            gateway.process.terminate()
            with self.assertRaises(grpc.RpcError) as ended:
                for answer in watch:
                    self.assertEqual(answer.status, health_pb2.HealthCheckResponse.NOT_SERVING)
            self.assertEqual(ended.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_reflection(self):
        # The package has code for v1alpha alone; v1 has the same messages by another name.
        describe = self.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = describe(iter([request]), metadata=[("x-api-key", KEY)], timeout=fanwire.LIMIT)
        names = {service.name for service in answer.list_services_response.service}
        self.assertLessEqual({"fanwire.control.v1.Control", "grpc.health.v1.Health"}, names)
        with self.assertRaises(grpc.RpcError) as refused:
            list(describe(iter([request]), timeout=fanwire.LIMIT))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def post(self, method, params):
        request = urllib.request.Request(
            f"{self.gateway.control}/api/{method}", json.dumps(params).encode(), {"X-API-Key": KEY}
        )
        with urllib.request.urlopen(request, timeout=fanwire.LIMIT) as response:
            return json.load(response)


if __name__ == "__main__":
    unittest.main()
