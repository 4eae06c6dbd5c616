// HTTP as a program of Node has it: node:http. 13 bytes, and an order of JSON that is answered with JSON.
"use strict";
const http = require("node:http");

function takeOrder(request, response) {
  const pieces = [];
  request.on("data", piece => pieces.push(piece));
  request.on("end", () => {
    const order = JSON.parse(Buffer.concat(pieces));
    const reply = JSON.stringify({
      order: order.order,
      items: order.items.length,
      pieces: order.items.reduce((sum, item) => sum + item.pieces, 0),
    });
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": reply.length });
    response.end(reply);
  });
}

const server = http.createServer((request, response) => {
  if (request.url === "/orders") return takeOrder(request, response);
  response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8", "Content-Length": 13 });
  response.end("Hello, world!");
});
server.keepAliveTimeout = 75000; // as nginx; otherwise connections that are idle end after 5 s
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
