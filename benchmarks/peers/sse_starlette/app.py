"""sse-starlette, used as its README describes: one queue and one EventSourceResponse per client."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: dict[str, set[asyncio.Queue[dict[str, str]]]] = defaultdict(set)
published = 0


async def events(channels: list[str]) -> AsyncIterator[dict[str, str]]:
    queue: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    for channel in channels:
        queues[channel].add(queue)
    try:
        yield {"event": "open", "data": "{}"}
        while True:
            yield await queue.get()
    finally:
        for channel in channels:
            queues[channel].discard(queue)


async def stream(request: Request) -> Response:
    return EventSourceResponse(events(request.query_params["channels"].split(",")), ping=15)


async def publish(request: Request) -> Response:
    global published
    for line in (await request.body()).decode().splitlines():
        channel, _, data = line.partition(" ")
        published += 1
        event = {"id": str(published), "data": data}
        for queue in queues.get(channel, ()):
            queue.put_nowait(event)
    return Response(status_code=204)


app = Starlette(routes=[Route("/stream", stream), Route("/publish", publish, methods=["POST"])])
