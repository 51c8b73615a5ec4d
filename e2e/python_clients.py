"""The Python clients of one_channel.test.mjs, each a library as it is, in one process.

    python python_clients.py ws://HOST:PORT CHANNEL

Writes a JSON object per line: {"open": [names]} once all clients are, {"client", "data"} for each message one receives.
Reads numbers from standard input, one per line: at each, every client publishes {"from": its name, "number"}. Ends with
its input.
"""

import asyncio
import json
import sys
import urllib.parse

import autobahn.asyncio.websocket
import centrifuge
import websockets.asyncio.client


async def main(address, channel):
    native = f"{address}/connection/websocket"
    plain = f"{address}/plain?channel={urllib.parse.quote(channel)}"
    clients = [
        CentrifugePython("centrifuge-python, JSON", native, channel, use_protobuf=False),
        CentrifugePython("centrifuge-python, protobuf", native, channel, use_protobuf=True),
        Websockets("websockets", plain),
        Autobahn("autobahn", plain),
    ]
    await asyncio.gather(*(client.open() for client in clients))
    write({"open": [client.name for client in clients]})

    numbers = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(numbers), sys.stdin)
    while line := await numbers.readline():
        number = int(line)
        messages = [json.dumps({"from": client.name, "number": number}) for client in clients]
        await asyncio.gather(*(client.publish(message) for client, message in zip(clients, messages)))
    await asyncio.gather(*(client.close() for client in clients))


def write(line):
    print(json.dumps(line), flush=True)


class CentrifugePython:
    def __init__(self, name, address, channel, use_protobuf):
        self.name = name
        self.protobuf = use_protobuf
        # No proxy: that is the environment's business, not the test's.
        self.client = centrifuge.Client(address, use_protobuf=use_protobuf, proxy=None)
        self.subscription = self.client.new_subscription(channel, events=self.Events(self))

    class Events(centrifuge.SubscriptionEventHandler):
        def __init__(self, owner):
            self.owner = owner

        async def on_publication(self, ctx):
            data = json.loads(ctx.pub.data) if self.owner.protobuf else ctx.pub.data
            write({"client": self.owner.name, "data": data})

    async def open(self):
        await self.client.connect()
        await self.subscription.subscribe()
        await self.subscription.ready(timeout=10)

    async def publish(self, text):
        await self.subscription.publish(text.encode() if self.protobuf else json.loads(text))

    async def close(self):
        await self.client.disconnect()


class Websockets:
    def __init__(self, name, address):
        self.name = name
        self.address = address

    async def open(self):
        self.socket = await websockets.asyncio.client.connect(self.address, proxy=None)
        self.reading = asyncio.create_task(self.read())

    async def read(self):
        async for message in self.socket:
            write({"client": self.name, "data": json.loads(message)})

    async def publish(self, text):
        await self.socket.send(text)

    async def close(self):
        await self.socket.close()
        await self.reading


class Autobahn:
    def __init__(self, name, address):
        self.name = name
        self.address = address

    async def open(self):
        loop = asyncio.get_running_loop()
        owner, opened, self.closed = self, loop.create_future(), loop.create_future()

        class Protocol(autobahn.asyncio.websocket.WebSocketClientProtocol):
            def onOpen(self):
                opened.set_result(None)

            def onMessage(self, payload, isBinary):
                write({"client": owner.name, "data": json.loads(payload)})

            def onClose(self, wasClean, code, reason):
                owner.closed.set_result(None)

        factory = autobahn.asyncio.websocket.WebSocketClientFactory(self.address)
        factory.protocol = Protocol
        _, self.protocol = await loop.create_connection(factory, factory.host, factory.port)
        await asyncio.wait_for(opened, 10)

    async def publish(self, text):
        self.protocol.sendMessage(text.encode(), isBinary=False)

    async def close(self):
        self.protocol.sendClose(1000)
        await self.closed


asyncio.run(main(*sys.argv[1:]))
