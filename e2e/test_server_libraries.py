"""The Python library of backends, `cent`, unmodified, against the HTTP control plane."""

import asyncio
import base64
import unittest

import cent
import centrifuge
import jwt

import fanwire

SECRET = "a secret that only these tests know"
KEY = "a-key-that-only-these-tests-know"

CONFIG = f"""
[token]
hmac_secret = "{SECRET}"

[[api_key]]
name = "backend"
secret = "{KEY}"

[[namespace]]
name = ""
presence = true
history_size = 10
history_ttl = "5m"
recovery = true
subscribe = "anyone"
"""


class CentTest(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = fanwire.Gateway(CONFIG)
        cls.gateway.__enter__()
        cls.addClassCleanup(cls.gateway.__exit__)

    async def asyncSetUp(self):
        self.cent = cent.AsyncClient(f"{self.gateway.control}/api", KEY)
        self.addAsyncCleanup(self.cent._session.close)

    async def test_publish_and_history(self):
        first = await self.cent.publish(cent.PublishRequest(channel="log", data={"number": 1}, tags={"kind": "note"}))
        self.assertEqual(first.offset, 1)
        self.assertTrue(first.epoch)
        for number in (2, 3):
            await self.cent.publish(cent.PublishRequest(channel="log", data={"number": number}))

        history = await self.cent.history(cent.HistoryRequest(channel="log", limit=100))
        self.assertEqual([publication.data["number"] for publication in history.publications], [1, 2, 3])
        self.assertEqual([publication.offset for publication in history.publications], [1, 2, 3])
        self.assertEqual(history.publications[0].tags, {"kind": "note"})
        self.assertEqual((history.offset, history.epoch), (3, first.epoch))

        since = cent.StreamPosition(offset=3, epoch=history.epoch)
        earlier = await self.cent.history(cent.HistoryRequest(channel="log", limit=1, since=since, reverse=True))
        self.assertEqual([publication.offset for publication in earlier.publications], [2])
        position = await self.cent.history(cent.HistoryRequest(channel="log"))
        self.assertEqual((position.publications, position.offset), ([], 3))

        await self.cent.history_remove(cent.HistoryRemoveRequest(channel="log"))
        removed = await self.cent.history(cent.HistoryRequest(channel="log", limit=100))
        self.assertEqual(removed.publications, [])

    async def test_publish_without_history_and_twice_under_one_key(self):
        passing = await self.cent.publish(cent.PublishRequest(channel="keys", data=1, skip_history=True))
        self.assertEqual(passing.offset, 0)
        results = [
            await self.cent.publish(cent.PublishRequest(channel="keys", data=2, idempotency_key="once"))
            for _ in range(2)
        ]
        self.assertEqual(results[0], results[1])
        history = await self.cent.history(cent.HistoryRequest(channel="keys", limit=100))
        self.assertEqual([publication.data for publication in history.publications], [2])

    async def test_publish_bytes(self):
        log = await self.listener("bytes", "", use_protobuf=True)
        data = base64.b64encode(bytes([0, 255, 10])).decode()
        await self.cent.publish(cent.PublishRequest(channel="bytes", data=None, b64data=data))
        self.assertEqual(await log.get(), ("publication", bytes([0, 255, 10])))

    async def test_broadcast(self):
        channels = ["one", "two", "nowhere:three"]
        result = await self.cent.broadcast(cent.BroadcastRequest(channels=channels, data={}))
        one, two, three = result.responses
        self.assertEqual((one.result.offset, two.result.offset), (1, 1))
        self.assertEqual(three.error.code, 102)

    async def test_batch(self):
        requests = [
            cent.PublishRequest(channel="batch", data={"number": 1}),
            cent.BroadcastRequest(channels=["batch", "batch-too"], data={"number": 2}),
            cent.HistoryRequest(channel="batch", limit=10),
            cent.PresenceStatsRequest(channel="batch"),
        ]
        for parallel in (False, True):
            batch = await self.cent.batch(cent.BatchRequest(requests=requests, parallel=parallel))
            publish, broadcast, history, stats = batch.replies
            self.assertGreater(publish.offset, 0)
            self.assertEqual(len(broadcast.responses), 2)
            self.assertTrue(history.epoch)
            self.assertEqual(stats.num_clients, 0)

    async def test_presence_channels_and_info(self):
        await self.listener("room-1", "ann")
        await self.listener("room-1", "bob")
        presence = await self.cent.presence(cent.PresenceRequest(channel="room-1"))
        self.assertEqual(sorted(info.user for info in presence.presence.values()), ["ann", "bob"])
        self.assertEqual({info.client for info in presence.presence.values()}, set(presence.presence))
        stats = await self.cent.presence_stats(cent.PresenceStatsRequest(channel="room-1"))
        self.assertEqual((stats.num_clients, stats.num_users), (2, 2))

        channels = await self.cent.channels(cent.ChannelsRequest(pattern="room-*"))
        self.assertEqual({name: info.num_clients for name, info in channels.channels.items()}, {"room-1": 2})
        self.assertEqual((await self.cent.channels(cent.ChannelsRequest(pattern="nothing"))).channels, {})

        info = await self.cent.info(cent.InfoRequest())
        [node] = info.nodes
        self.assertTrue(node.uid and node.version)
        self.assertGreaterEqual(node.num_clients, 2)

    async def test_clients_are_subscribed_unsubscribed_refreshed_and_disconnected(self):
        log = await self.listener("home", "carl")
        await self.cent.subscribe(cent.SubscribeRequest(user="carl", channel="gift", data={"from": "us"}))
        self.assertEqual(await log.get(), ("server subscribed", "gift"))
        await self.cent.publish(cent.PublishRequest(channel="gift", data="open it"))
        self.assertEqual(await log.get(), ("server publication", "open it"))
        await self.cent.unsubscribe(cent.UnsubscribeRequest(user="carl", channel="gift"))
        self.assertEqual(await log.get(), ("server unsubscribed", "gift"))
        await self.cent.refresh(cent.RefreshRequest(user="carl", expire_at=4_000_000_000))
        await self.cent.unsubscribe(cent.UnsubscribeRequest(user="carl", channel="home"))
        self.assertEqual(await log.get(), ("unsubscribed", 2000))
        await self.cent.disconnect(cent.DisconnectRequest(user="nobody-of-this-name"))
        await self.cent.disconnect(
            cent.DisconnectRequest(user="carl", disconnect=cent.Disconnect(code=4500, reason="enough"))
        )
        self.assertEqual(await log.get(), ("disconnected", 4500))

    async def test_errors(self):
        with self.assertRaises(cent.CentApiResponseError) as unknown:
            await self.cent.publish(cent.PublishRequest(channel="nowhere:1", data={}))
        self.assertEqual(unknown.exception.code, 102)
        with self.assertRaises(cent.CentApiResponseError) as empty:
            await self.cent.broadcast(cent.BroadcastRequest(channels=[], data={}))
        self.assertEqual(empty.exception.code, 107)

    async def test_keys(self):
        for key in ("", "another-key-that-nobody-has", KEY[:-1]):
            stranger = cent.AsyncClient(f"{self.gateway.control}/api", key)
            self.addAsyncCleanup(stranger._session.close)
            with self.assertRaises(cent.CentUnauthorizedError):
                await stranger.publish(cent.PublishRequest(channel="log", data={}))

    async def test_the_blocking_client(self):
        def publish():
            client = cent.Client(f"{self.gateway.control}/api", KEY)
            try:
                return [client.publish(cent.PublishRequest(channel="blocking", data=number)) for number in range(3)]
            finally:
                client._session.close()

        results = await asyncio.to_thread(publish)
        self.assertEqual([result.offset for result in results], [1, 2, 3])

    async def listener(self, channel, user, use_protobuf=False):
        """Puts a client into a channel; returns what happens to it from then on."""
        log = Log()
        token = jwt.encode({"sub": user}, SECRET, algorithm="HS256")
        client = centrifuge.Client(
            self.gateway.url(), events=ClientLog(log), token=token, use_protobuf=use_protobuf, proxy=None
        )
        subscription = client.new_subscription(channel, events=SubscriptionLog(log))
        self.addAsyncCleanup(client.disconnect)
        await client.connect()
        await subscription.subscribe()
        await subscription.ready(timeout=fanwire.LIMIT)
        return log


class Log:
    """What happened to a client, in order."""

    def __init__(self):
        self.queue = asyncio.Queue()

    def put(self, what, detail):
        self.queue.put_nowait((what, detail))

    async def get(self):
        return await asyncio.wait_for(self.queue.get(), fanwire.LIMIT)


class ClientLog(centrifuge.ClientEventHandler):
    def __init__(self, log):
        self.log = log

    async def on_subscribed(self, ctx):
        self.log.put("server subscribed", ctx.channel)

    async def on_publication(self, ctx):
        self.log.put("server publication", ctx.pub.data)

    async def on_unsubscribed(self, ctx):
        self.log.put("server unsubscribed", ctx.channel)

    async def on_disconnected(self, ctx):
        self.log.put("disconnected", ctx.code)


class SubscriptionLog(centrifuge.SubscriptionEventHandler):
    def __init__(self, log):
        self.log = log

    async def on_publication(self, ctx):
        self.log.put("publication", ctx.pub.data)

    async def on_unsubscribed(self, ctx):
        # Its own ending is no news.
        if ctx.code >= 2000:
            self.log.put("unsubscribed", ctx.code)


if __name__ == "__main__":
    unittest.main()
