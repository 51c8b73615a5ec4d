// A gateway as people write it with `ws`: a set of sockets for each channel, and a loop over it.
//
// usage: ws.mjs PORT; GET /sub/CHANNEL subscribes, what is sent on /pub/CHANNEL is published.
import { WebSocketServer } from "ws";

const channels = new Map();

// Without compression, which is also what the package does by default.
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false });

server.on("connection", (socket, request) => {
  const [, role, channel] = request.url.split("/");
  socket.on("error", () => socket.terminate());
  if (role === "sub") {
    if (!channels.has(channel)) channels.set(channel, new Set());
    const subscribers = channels.get(channel).add(socket);
    socket.on("close", () => {
      subscribers.delete(socket);
      if (subscribers.size === 0) channels.delete(channel);
    });
  } else {
    socket.on("message", (data) => {
      const text = data.toString();
      for (const subscriber of channels.get(channel) ?? []) subscriber.send(text);
    });
  }
});
