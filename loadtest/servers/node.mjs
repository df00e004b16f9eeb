// A server that answers each request itself; servers.Node has the contract.
import http from "node:http";

const seen = [];

const server = http.createServer({ keepAlive: true }, (request, response) => {
  if (request.url === "/seen") {
    response.end(JSON.stringify(seen));
    return;
  }
  request.on("error", () => {}); // half a request is none
  request.resume();
  request.on("end", () => {
    const id = seen.push({ id: seen.length + 1, method: request.method, target: request.url });
    const raw = request.headers["x-answer"];
    if (raw === undefined) {
      response.writeHead(200, { "Origin-Id": id });
      response.end(request.url);
      return;
    }
    request.socket.write(Buffer.from(raw, "base64"));
    if (request.headers["x-then"] === "close") request.socket.end();
  });
});
server.requestTimeout = 0;
server.keepAliveTimeout = 60_000;
server.on("clientError", (_, socket) => socket.destroy());
server.listen(Number(process.argv[2]), "127.0.0.1");
