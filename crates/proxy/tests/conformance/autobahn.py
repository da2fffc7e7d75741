"""Runs every case of Autobahn's fuzzing server at HOST:PORT as the client AGENT: what comes is sent back."""
import asyncio
import sys

import websockets


def opened(address, path):
    return websockets.connect(f"ws://{address}{path}", max_size=None, compression=None, ping_interval=None, proxy=None)


async def main(address, agent):
    async with opened(address, "/getCaseCount") as socket:
        cases = int(await socket.recv())
    for n in range(1, cases + 1):
        try:
            async with opened(address, f"/runCase?case={n}&agent={agent}") as socket:
                async for message in socket:
                    await socket.send(message)
        except websockets.ConnectionClosed:
            pass
    async with opened(address, f"/updateReports?agent={agent}"):
        pass
    print(f"ran {cases} cases")


asyncio.run(main(sys.argv[1], sys.argv[2]))
