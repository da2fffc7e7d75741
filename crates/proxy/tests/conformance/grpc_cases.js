// gRPC interoperability cases as bytes; see grpc_cases.py.
'use strict';
const grpc = require('@grpc/grpc-js');
const assert = require('assert');

const SERVICE = '/grpc.testing.TestService/';

function varint(n) {
  const out = [];
  while (n > 127) {
    out.push((n & 127) | 128);
    n = Math.floor(n / 128);
  }
  out.push(n);
  return Buffer.from(out);
}

function field(number, value) {
  if (typeof value === 'number') return Buffer.concat([varint(number << 3), varint(value)]);
  return Buffer.concat([varint((number << 3) | 2), varint(value.length), value]);
}

const payload = (size) => field(2, Buffer.alloc(size));
const parameters = (size) => field(1, size);

// The fields of a message by number.
function fields(message) {
  const found = {};
  let at = 0;
  const number = () => {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = message[at++];
      value += (byte & 127) * scale;
      scale *= 128;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = number();
    let value = number();
    if ((tag & 7) === 2) {
      value = message.subarray(at, at + value);
      at += value.length;
    }
    found[tag >> 3] = value;
  }
  return found;
}

const body = (response) => fields(fields(response)[1])[2].length;
const SIZES = [31415, 9, 2653, 58979];
const REQUESTS = [27182, 8, 1828, 45904];
const same = (value) => value;

async function main(address) {
  const client = new grpc.Client(address, grpc.credentials.createInsecure());
  const soon = () => ({ deadline: Date.now() + 60000 });
  const unary = (method, message, metadata, options) =>
    new Promise((resolve, reject) => {
      let initial;
      let trailing;
      const call = client.makeUnaryRequest(SERVICE + method, same, same, message, metadata || new grpc.Metadata(),
        options || soon(), (error, response) => (error ? reject(error) : setImmediate(() => resolve({ response, initial, trailing }))));
      call.on('metadata', (m) => { initial = m; });
      call.on('status', (s) => { trailing = s.metadata; });
    });
  const failure = (promise) => promise.then(() => assert.fail('it succeeded'), (error) => error);

  assert.strictEqual((await unary('EmptyCall', Buffer.alloc(0))).response.length, 0);
  console.log('ok empty_unary');

  const large = Buffer.concat([field(2, 314159), field(3, payload(271828))]);
  assert.strictEqual(body((await unary('UnaryCall', large)).response), 314159);
  console.log('ok large_unary');

  const total = await new Promise((resolve, reject) => {
    const call = client.makeClientStreamRequest(SERVICE + 'StreamingInputCall', same, same, new grpc.Metadata(), soon(),
      (error, response) => (error ? reject(error) : resolve(fields(response)[1])));
    for (const n of REQUESTS) call.write(field(1, payload(n)));
    call.end();
  });
  assert.strictEqual(total, 74922);
  console.log('ok client_streaming');

  const asked = Buffer.concat(SIZES.map((n) => field(2, parameters(n))));
  const streamed = [];
  for await (const answer of client.makeServerStreamRequest(SERVICE + 'StreamingOutputCall', same, same, asked, new grpc.Metadata(), soon())) {
    streamed.push(body(answer));
  }
  assert.deepStrictEqual(streamed, SIZES);
  console.log('ok server_streaming');

  const duplex = client.makeBidiStreamRequest(SERVICE + 'FullDuplexCall', same, same, new grpc.Metadata(), soon());
  const ping = (n) => duplex.write(Buffer.concat([field(2, parameters(SIZES[n])), field(3, payload(REQUESTS[n]))]));
  const answers = [];
  ping(0);
  for await (const answer of duplex) {
    answers.push(body(answer));
    if (answers.length < SIZES.length) ping(answers.length);
    else duplex.end();
  }
  assert.deepStrictEqual(answers, SIZES);
  console.log('ok ping_pong');

  const bidi = (options) => client.makeBidiStreamRequest(SERVICE + 'FullDuplexCall', same, same, new grpc.Metadata(), options || soon());
  const ends = (call) =>
    new Promise((resolve) => {
      const seen = [];
      call.on('data', (answer) => seen.push(answer));
      call.on('error', () => {});
      call.on('status', (status) => setImmediate(() => resolve({ seen, status })));
    });

  const nothing = bidi();
  nothing.end();
  const none = await ends(nothing);
  assert.deepStrictEqual([none.seen, none.status.code], [[], grpc.status.OK]);
  console.log('ok empty_stream');

  const metadata = new grpc.Metadata();
  metadata.set('x-grpc-test-echo-initial', 'test_initial_metadata_value');
  metadata.set('x-grpc-test-echo-trailing-bin', Buffer.from([0xab, 0xab, 0xab]));
  const echoed = await unary('UnaryCall', Buffer.concat([field(2, 1), field(3, payload(1))]), metadata);
  assert.deepStrictEqual(echoed.initial.get('x-grpc-test-echo-initial'), ['test_initial_metadata_value']);
  assert.deepStrictEqual(echoed.trailing.get('x-grpc-test-echo-trailing-bin'), [Buffer.from([0xab, 0xab, 0xab])]);
  console.log('ok custom_metadata');

  // As the field's own client does: a unary call, then a stream.
  const status = field(7, Buffer.concat([field(1, 2), field(2, Buffer.from('test status message'))]));
  const told = await failure(unary('UnaryCall', status));
  assert.deepStrictEqual([told.code, told.details], [grpc.status.UNKNOWN, 'test status message']);
  const once = bidi();
  once.end(status);
  const onStream = (await ends(once)).status;
  assert.deepStrictEqual([onStream.code, onStream.details], [grpc.status.UNKNOWN, 'test status message']);
  console.log('ok status_code_and_message');

  const text = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
  const refused = await failure(unary('UnaryCall', field(7, Buffer.concat([field(1, 2), field(2, Buffer.from(text))]))));
  assert.deepStrictEqual([refused.code, refused.details], [grpc.status.UNKNOWN, text]);
  console.log('ok special_status_message');

  const missing = await failure(unary('UnimplementedCall', Buffer.alloc(0)));
  assert.strictEqual(missing.code, grpc.status.UNIMPLEMENTED);
  console.log('ok unimplemented_method');

  const nowhere = await failure(new Promise((resolve, reject) => {
    client.makeUnaryRequest('/grpc.testing.UnimplementedService/UnimplementedCall', same, same, Buffer.alloc(0), new grpc.Metadata(),
      soon(), (error, response) => (error ? reject(error) : resolve(response)));
  }));
  assert.strictEqual(nowhere.code, grpc.status.UNIMPLEMENTED);
  console.log('ok unimplemented_service');

  const cancelled = await failure(new Promise((resolve, reject) => {
    const call = client.makeClientStreamRequest(SERVICE + 'StreamingInputCall', same, same, new grpc.Metadata(), soon(),
      (error, response) => (error ? reject(error) : resolve(response)));
    call.cancel();
  }));
  assert.strictEqual(cancelled.code, grpc.status.CANCELLED);
  console.log('ok cancel_after_begin');

  const begun = bidi();
  begun.on('data', (answer) => {
    assert.strictEqual(body(answer), SIZES[0]);
    begun.cancel();
  });
  begun.write(Buffer.concat([field(2, parameters(SIZES[0])), field(3, payload(REQUESTS[0]))]));
  const broken = await ends(begun);
  assert.deepStrictEqual([broken.seen.length, broken.status.code], [1, grpc.status.CANCELLED]);
  // What was cancelled has not cost the others their connection.
  assert.strictEqual((await unary('EmptyCall', Buffer.alloc(0))).response.length, 0);
  console.log('ok cancel_after_first_response');

  const asleep = client.makeBidiStreamRequest(SERVICE + 'FullDuplexCall', same, same, new grpc.Metadata(), { deadline: Date.now() + 10 });
  asleep.write(field(3, payload(27182)));
  const late = await new Promise((resolve) => { asleep.on('error', resolve); asleep.on('data', () => {}); });
  // The server keeps the same deadline: where its reset is first, that is what this client reports.
  assert.ok([grpc.status.DEADLINE_EXCEEDED, grpc.status.CANCELLED].includes(late.code), late.code);
  console.log('ok timeout_on_sleeping_server');
  client.close();
}

// What was cancelled keeps its channel, and so the process, for a while.
main(process.argv[2]).then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
