"""A nats-server that asks who is there: its files, its keys, and the whole system logged in to it."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aegis_sdk
import nkeys
import trustme
from aegis_control.infrastructure.embedded_nats import find_binary, free_port
from aegis_sdk import Method, ResourceContext, Role, Service

COUNT: Method[int, int] = Method("counters", "count", request=int, reply=int)
START_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Files:
    """A CA of our own, and certificates of the server and of a client, as PEM files."""

    ca: Path
    server: Path
    client: Path

    @classmethod
    def make(cls, folder: Path) -> Files:
        """A certificate's file holds its key too."""
        authority = trustme.CA()
        files = cls(folder / "ca.pem", folder / "server.pem", folder / "client.pem")
        authority.cert_pem.write_to_path(files.ca)
        for path, identity in ((files.server, "127.0.0.1"), (files.client, "client@example.org")):
            authority.issue_cert(identity).private_key_and_cert_chain_pem.write_to_path(path)
        return files

    def context(self) -> ssl.SSLContext:
        """What a user of the SDK makes."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.client)
        return context


@contextmanager
def nats_server(folder: Path, *sections: str) -> Iterator[str]:
    """A nats-server with JetStream and these sections of configuration; its host and port."""
    port = free_port()
    store, log = folder / secrets.token_hex(4), folder / "nats.log"
    config = folder / f"nats-{port}.conf"
    words = [f"listen: 127.0.0.1:{port}", f'jetstream {{ store_dir: "{store}" }}', *sections]
    config.write_text("\n".join([*words, f'log_file: "{log}"']))
    process = subprocess.Popen([str(find_binary()), "-c", str(config)], stderr=subprocess.PIPE)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (log.exists() and "Server is ready" in log.read_text()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def new_key(prefix: int) -> tuple[nkeys.KeyPair, bytes]:
    """(a key pair, its seed); `prefix` is a kind of nkeys."""
    seed = nkeys.encode_seed(secrets.token_bytes(32), prefix)
    return nkeys.from_seed(bytearray(seed)), bytes(seed)


def public(pair: nkeys.KeyPair) -> str:
    return bytes(pair.public_key).decode()


def jwt(claims: dict[str, Any], issuer: nkeys.KeyPair) -> str:
    """A token as NATS wants it: signed by an account's or an operator's key."""
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    full = {"jti": secrets.token_hex(16), "iat": int(time.time()), "iss": public(issuer)} | claims
    text = ".".join(_base64(json.dumps(part).encode()) for part in (head, full))
    return f"{text}.{_base64(issuer.sign(text.encode()))}"


class Operator:
    """An operator, a system account and one for AegisIPC in the server's memory, and users of each."""

    _UNLIMITED: Final = {"subs": -1, "data": -1, "payload": -1}

    def __init__(self) -> None:
        self._pair, _ = new_key(nkeys.PREFIX_BYTE_OPERATOR)
        self._accounts = {name: new_key(nkeys.PREFIX_BYTE_ACCOUNT)[0] for name in ("SYS", "AEGIS")}

    def sections(self) -> tuple[str, ...]:
        """Of the server's configuration."""
        account = self._UNLIMITED | {
            "conn": -1,
            "leaf": -1,
            "imports": -1,
            "exports": -1,
            "wildcards": True,
        }
        storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        limits = {"SYS": account, "AEGIS": account | storage}
        system = public(self._accounts["SYS"])
        own = self._claims("operator", public(self._pair), "O", system_account=system)
        preload = ", ".join(
            f"{public(pair)}: "
            + jwt(self._claims("account", public(pair), name, limits=limits[name]), self._pair)
            for name, pair in self._accounts.items()
        )
        return (
            f"operator: {jwt(own, self._pair)}",
            "resolver: MEMORY",
            f"resolver_preload {{ {preload} }}",
            f"system_account: {system}",
        )

    def creds(self, path: Path, *, account: str = "AEGIS", lives_s: float | None = None) -> Path:
        """A new user's; `lives_s`: until it expires, in whole seconds by the clock."""
        user, seed = new_key(nkeys.PREFIX_BYTE_USER)
        claims = self._claims("user", public(user), "u", **self._UNLIMITED)
        if lives_s is not None:
            claims["exp"] = int(time.time() + lives_s)
        return creds_file(path, jwt(claims, self._accounts[account]), seed)

    @staticmethod
    def _claims(kind: str, sub: str, name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "sub": sub, "nats": {"type": kind, "version": 2} | more}


def creds_file(path: Path, token: str, seed: bytes) -> Path:
    """The form that NATS's tools write."""
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return path


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def count_twice(url: str, **login: Any) -> list[int]:
    """Serve and ask, over connections of the SDK with this login: main, heartbeat, and the caller's."""
    service = Service("counters")

    @service.handles(COUNT)
    async def count(ctx: ResourceContext, amount: int) -> int:
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return total

    async with aegis_sdk.connect(url, **login) as aegis:
        await aegis.serve(service, resources={"C-1": Role.AUTO}, instance_id="counter")
        return [await aegis.request(COUNT, n, resource="C-1", timeout_s=10.0) for n in (2, 3)]
