"""A server of HTTP/1 by aiohttp, with its parser in Python: `origin.py PORT LOG`. Each request is one line of the log."""

import json
import sys

from aiohttp import web

PORT, LOG = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1, encoding="latin-1")


def told(status, request, rest):
    version = f"HTTP/{request.version.major}.{request.version.minor}"
    line = f"{status} {request.method} {request.raw_path} {version} {json.dumps(rest)}"
    LOG.write(line.encode("latin-1", "backslashreplace").decode("latin-1") + "\n")


async def answer(request):
    try:
        body = await request.read()
    except Exception as error:  # It was cut off, or its framing is wrong.
        told(499, request, {"error": repr(error)})
        raise
    headers = [part for pair in request.raw_headers for part in (pair[0].decode("latin-1"), pair[1].decode("latin-1"))]
    told(200, request, {"headers": headers, "body": body.decode("latin-1")})
    return web.Response(text="fine")


app = web.Application(client_max_size=1 << 24)
app.router.add_route("*", "/{rest:.*}", answer)
web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None, keepalive_timeout=60)
