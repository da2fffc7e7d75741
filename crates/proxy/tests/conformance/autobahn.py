"""Runs every case of Autobahn's fuzzing server at HOST:PORT as the client AGENT: what comes is sent back. The server insists
on AUTHORITY, its own address."""
import asyncio
import sys

import websockets


def opened(address, authority, path):
    host, port = address.split(":")
    return websockets.connect(
        f"ws://{authority}{path}", host=host, port=int(port), max_size=None, compression="deflate", ping_interval=None, proxy=None
    )


async def main(address, agent, authority):
    async with opened(address, authority, "/getCaseCount") as socket:
        cases = int(await socket.recv())
    for n in range(1, cases + 1):
        try:
            async with opened(address, authority, f"/runCase?case={n}&agent={agent}") as socket:
                async for message in socket:
                    await socket.send(message)
        except websockets.ConnectionClosed:
            pass
    async with opened(address, authority, f"/updateReports?agent={agent}"):
        pass
    print(f"ran {cases} cases")


asyncio.run(main(*sys.argv[1:]))
