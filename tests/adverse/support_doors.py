"""What the tests of the doors share: a whole system on one server, and a client that writes any bytes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aegis_sdk
from aegis_control.infrastructure.embedded_nats import find_binary, free_port
from aegis_sdk import Aegis, Context, Instance, Method, ResourceContext, Role, Service
from aegis_sdk.contract.subjects import Subjects

from tests.integration.control.support import control

ADD: Final[Method[int, int]] = Method("totals", "add", request=int, reply=int)
DOUBLE: Final[Method[int, int]] = Method("totals", "double", request=int, reply=int)


def totals() -> Service:
    """`add` adds up for a resource, `double` is the group's."""
    service = Service("totals")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, amount: int) -> int:
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return total

    @service.handles(DOUBLE)
    async def double(_: Context, amount: int) -> int:
        return 2 * amount

    return service


@dataclass(slots=True)
class System:
    """Control, an instance that is active for T-1, a caller, and a stranger on the same server."""

    url: str
    subjects: Subjects
    caller: Aegis
    instance: Instance
    stranger: Stranger


@contextlib.asynccontextmanager
async def running(url: str) -> AsyncIterator[System]:
    prefix = f"d{secrets.token_hex(4)}"
    async with (
        control(url, prefix),
        aegis_sdk.connect(url, prefix=prefix) as caller,
        Stranger(url) as stranger,
    ):
        instance = await caller.serve(totals(), resources={"T-1": Role.AUTO})
        assert await caller.request(ADD, 0, resource="T-1") == 0
        yield System(url, Subjects(prefix), caller, instance, stranger)


class Stranger:
    """Any NATS client: what it sends is whatever the server takes, with no library to check it."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("nats://").rpartition(":")
        self._port = int(port)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(b'CONNECT {"verbose":false,"headers":true,"protocol":1}\r\n')
        await self.settled()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def write(
        self, subject: str | bytes, headers: Mapping[str, str | bytes], payload: bytes = b"1"
    ) -> None:
        lines = [_bytes(name) + b": " + _bytes(value) for name, value in headers.items()]
        block = b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
        sizes = f" {len(block)} {len(block) + len(payload)}\r\n".encode()
        self._writer.write(b"HPUB " + _bytes(subject) + sizes + block + payload + b"\r\n")

    async def settled(self) -> None:
        """Returns when the server has read all of it. Fails when it refused a part."""
        self._writer.write(b"PING\r\n")
        async with asyncio.timeout(5.0):
            while (line := await self._reader.readline()) != b"PONG\r\n":
                assert line.startswith(b"INFO"), line


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


class Guarded:
    """A nats-server whose configuration is written anew and read again while it runs."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._config = folder / "nats.conf"
        self._log = folder / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *sections: str) -> None:
        self._write(sections)
        self._log.unlink(missing_ok=True)
        self._process = subprocess.Popen([str(find_binary()), "-c", str(self._config)])
        self._until("Server is ready")

    def reload(self, *sections: str) -> None:
        assert self._process is not None
        before = self._log.read_text().count("Reloaded server configuration")
        self._write(sections)
        self._process.send_signal(signal.SIGHUP)
        self._until("Reloaded server configuration", times=before + 1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10.0)
            self._process = None

    def _write(self, sections: tuple[str, ...]) -> None:
        fixed = (
            f"listen: {self.host}",
            f'jetstream {{ store_dir: "{self._folder / "store"}" }}',
            f'log_file: "{self._log}"',
        )
        self._config.write_text("\n".join((*fixed, *sections)))

    def _until(self, words: str, *, times: int = 1) -> None:
        give_up_s = time.monotonic() + 20.0
        while not self._log.exists() or self._log.read_text().count(words) < times:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < give_up_s, self._log.read_text()
            time.sleep(0.01)
