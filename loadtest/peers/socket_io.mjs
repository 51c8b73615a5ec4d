// A gateway as people write it with Socket.IO: a room for each channel.
//
// usage: socket_io.mjs PORT [REDIS_PORT]; with Redis, rooms reach over all nodes by the Redis adapter.
import { createServer } from "node:http";
import { Server } from "socket.io";

const [port, redis] = process.argv.slice(2).map(Number);
const http = createServer();
// Compression of messages is off by default.
const io = new Server(http, { transports: ["websocket"], serveClient: false });

if (redis) {
  const { createAdapter } = await import("@socket.io/redis-adapter");
  const { createClient } = await import("redis");
  const publisher = createClient({ url: `redis://127.0.0.1:${redis}` });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

io.on("connection", (socket) => {
  socket.on("subscribe", async (channel, acknowledge) => {
    await socket.join(channel);
    acknowledge();
  });
  socket.on("publish", (channel, data) => io.to(channel).emit("message", data));
});

http.listen(port, "127.0.0.1");
