"""A stretch of network between a pool and the server: what goes over it is seen, or held up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy import make_url
from support.shell import url_of

from agentobs.testing.databases import settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from agentobs import DatabaseSettings

_LENGTH_BYTES = 4
_CHUNK_BYTES = 65536
# The messages after which a client waits for an answer: Query, Sync and Flush.
_AWAITED = frozenset("QSH")


class Relay:
    """Passes on what goes to the server and back.

    `executed` are the statements that ran, `round_trips` the answers that a client waited for.
    `on_passage` is called before anything goes on, to either side; `passages` counts the times.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._target = make_url(url_of(settings))
        self._server: asyncio.Server | None = None
        self._port = 0
        self._clients: set[asyncio.Task[None]] = set()
        self._passes = asyncio.Event()
        self._passes.set()
        self.executed: list[str] = []
        self.round_trips = 0
        self.passages = 0
        self.on_passage: Callable[[], object] = lambda: None

    @property
    def settings(self) -> DatabaseSettings:
        """How to reach the server over the relay."""
        url = self._target.set(host="127.0.0.1", port=self._port, query={"sslmode": "disable"})
        return settings_for(url, str(self._target.database))

    async def open(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections from now on, and end those that are there."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def hold_up(self) -> None:
        """Pass nothing on, without a word to either side."""
        self._passes.clear()

    def go_on(self) -> None:
        self._passes.set()

    def forget(self) -> None:
        """Count from here."""
        self.executed.clear()
        self.round_trips = self.passages = 0

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self._dial()
        watch = _Watch(self)
        ways = [
            asyncio.create_task(self._pass(reader, server_writer, watch.look_at)),
            asyncio.create_task(self._pass(server_reader, writer, lambda _: None)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, server_writer):
                end.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self._target.query.get("host") or self._target.host or "127.0.0.1"
        port = int(str(self._target.query.get("port") or self._target.port or 5432))
        if str(host).startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(str(host), port)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        look_at: Callable[[bytes], None],
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                look_at(data)
                self.passages += 1
                self.on_passage()
                await self._passes.wait()
                writer.write(data)
                await writer.drain()


class _Watch:
    """Reads what one client sends."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._unread = b""
        self._has_begun = False
        self._prepared: dict[bytes, str] = {}

    def look_at(self, data: bytes) -> None:
        self._unread += data
        for kind, body in self._messages():
            if kind == "P":
                name, statement, _ = body.split(b"\0", 2)
                self._prepared[name] = statement.decode()
            elif kind == "B":
                _, name, _ = body.split(b"\0", 2)
                self._relay.executed.append(self._prepared[name])
            elif kind == "Q":
                self._relay.executed.append(body[:-1].decode())
            if kind in _AWAITED:
                self._relay.round_trips += 1

    def _messages(self) -> Iterator[tuple[str, bytes]]:
        while True:
            # The first message has no kind.
            start = 1 if self._has_begun else 0
            size = start + int.from_bytes(self._unread[start : start + _LENGTH_BYTES])
            if len(self._unread) < max(size, start + _LENGTH_BYTES):
                return
            message, self._unread = self._unread[:size], self._unread[size:]
            self._has_begun = True
            yield message[:start].decode(), message[start + _LENGTH_BYTES :]


@asynccontextmanager
async def relay(settings: DatabaseSettings) -> AsyncIterator[Relay]:
    wire = Relay(settings)
    await wire.open()
    try:
        yield wire
    finally:
        wire.go_on()
        await wire.close()
