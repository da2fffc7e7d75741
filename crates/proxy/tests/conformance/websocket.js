// A WebSocket server that gives messages back, compressed if that is wanted, and a client that checks them. `serve [compressing]` or
// `ask HOST:PORT`.
'use strict';
const { WebSocket, WebSocketServer } = require('ws');
const assert = require('assert');

if (process.argv[2] === 'serve') {
  const options = { host: '127.0.0.1', port: 0, perMessageDeflate: process.argv[3] === 'compressing' };
  const server = new WebSocketServer(options, () => console.log(`listening on ${server.address().port}`));
  server.on('connection', (socket) => {
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    // What a client does wrong ends its connection alone.
    socket.on('error', () => {});
  });
} else {
  const socket = new WebSocket(`ws://${process.argv[3]}/chat`);
  let received = 0;
  const message = (n) => (n % 2 ? Buffer.alloc((n * n * n) % 200000, n) : `text ${n} ☺`);
  socket.on('open', () => socket.send(message(0)));
  socket.on('message', (data, binary) => {
    const expected = message(received);
    if (binary) assert.ok(data.equals(expected)); else assert.strictEqual(data.toString(), expected);
    received += 1;
    if (received < 40) socket.send(message(received)); else socket.close(1000, 'done');
  });
  socket.on('close', (code) => {
    assert.strictEqual(code, 1000);
    console.log(`ok ${received} messages`);
  });
}
