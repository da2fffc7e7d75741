// Runs every case of Autobahn's fuzzing server at HOST:PORT as the client AGENT: what comes is sent back. The server insists on
// AUTHORITY, its own address.
'use strict';
const { WebSocket } = require('ws');
const [address, agent, authority] = process.argv.slice(2);

const open = (path) =>
  new WebSocket(`ws://${address}${path}`, { perMessageDeflate: true, headers: { Host: authority } });
const closed = (socket) => new Promise((resolve) => {
  socket.on('close', resolve);
  socket.on('error', () => {});
});

async function main() {
  const count = open('/getCaseCount');
  let cases = 0;
  count.on('message', (data) => { cases = Number(data.toString()); });
  await closed(count);
  for (let n = 1; n <= cases; n += 1) {
    const socket = open(`/runCase?case=${n}&agent=${agent}`);
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    await closed(socket);
  }
  await closed(open(`/updateReports?agent=${agent}`));
  console.log(`ran ${cases} cases`);
}

main();
