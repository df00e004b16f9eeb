// A server that answers each request itself; servers.Node has the contract.
import http from "node:http";

let count = 0;
let seen = [];

const server = http.createServer((request, response) => {
  if (request.url === "/seen") {
    response.end(JSON.stringify(seen));
    seen = [];
    return;
  }
  request.on("error", () => {}); // half a request is none
  request.resume();
  request.on("end", () => {
    const id = ++count;
    seen.push({ id, method: request.method, target: request.url });
    const raw = request.headers["x-answer"];
    if (raw === undefined) {
      response.writeHead(200, { "Origin-Id": id });
      response.end(request.url);
      return;
    }
    const { socket } = request;
    socket.write(Buffer.from(raw, "base64"));
    if (request.headers["x-then"] === "close") socket.end();
    else setTimeout(() => socket.end(), 300);
  });
});
server.keepAliveTimeout = 60_000;
server.on("clientError", (_, socket) => socket.destroy());
server.listen(Number(process.argv[2]), "127.0.0.1");
