"""A WebSocket server that gives messages back, and a client that checks them. `serve` or `ask HOST:PORT`."""
import asyncio
import sys

import websockets


async def serve():
    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print("listening on", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


async def ask(address):
    async with websockets.connect(f"ws://{address}/chat", max_size=None, proxy=None) as socket:
        for n in range(40):
            message = bytes([n]) * (n * n * n % 200000) if n % 2 else f"text {n} ☺"
            await socket.send(message)
            assert await socket.recv() == message, n
        await socket.ping()
    assert socket.close_code == 1000
    print("ok 40 messages")


asyncio.run(serve() if sys.argv[1] == "serve" else ask(sys.argv[2]))
