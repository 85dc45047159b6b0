"""Containers for the tests, and waiting for them: on answers with a deadline, never for a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from aegis_control.infrastructure.embedded_nats import free_port
from testcontainers.core.container import DockerContainer

REPOSITORY: Final = Path(__file__).resolve().parents[2]
NATS_IMAGE: Final = "nats:2.15.1"
DEADLINE_S: Final = 60.0
COMPOSE_TIMEOUT_S: Final = 180
_POLL_S: Final = 0.05


def until(what: str, answer: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `answer`, asked again and again; its OSErrors count as no.

    Raises: AssertionError naming `what` when the deadline has passed.
    """
    end = time.monotonic() + deadline_s
    last: object = None
    while time.monotonic() < end:
        try:
            last = answer()
        except (OSError, ValueError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(_POLL_S)
    raise AssertionError(f"not within {deadline_s:g} s: {what} (last: {last!r})")


def get_json(url: str) -> Any:
    """Raises: OSError, ValueError when it is not there (yet)."""
    with urllib.request.urlopen(url, timeout=2) as response:
        return json.load(response)


class NatsContainer(DockerContainer):
    """NATS with the configuration file `conf`; a context manager."""

    def __init__(self, conf: Path) -> None:
        super().__init__(NATS_IMAGE)
        self.with_command(["--config", "/etc/nats/nats.conf"])
        self.with_volume_mapping(str(conf), "/etc/nats/nats.conf", "ro")
        self.with_env("AEGIS_NATS_SYS_PASSWORD", "sys")
        self.with_env("AEGIS_NATS_APP_PASSWORD", "app")
        self.with_exposed_ports(4222, 8222)

    @property
    def url(self) -> str:
        return f"nats://{self.get_container_host_ip()}:{self.get_exposed_port(4222)}"

    @property
    def monitor_url(self) -> str:
        return f"http://{self.get_container_host_ip()}:{self.get_exposed_port(8222)}"

    def wait_ready(self) -> None:
        """JetStream included."""
        until("NATS is healthy", lambda: get_json(f"{self.monitor_url}/healthz")["status"] == "ok")

    def kill_and_start(self) -> None:
        """kill -9, then start again on the same storage; ports may change."""
        container = self.get_wrapped_container()
        container.kill(signal="SIGKILL")
        container.wait()
        container.start()
        container.reload()
        self.wait_ready()


def compose_command() -> list[str]:
    """`docker compose` or docker-compose, whichever is here. Raises: FileNotFoundError."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    standalone = shutil.which("docker-compose")
    if standalone is None:
        raise FileNotFoundError("neither `docker compose` nor docker-compose is installed")
    return [standalone]


@dataclass(frozen=True, slots=True)
class Stack:
    """A compose project, with ports of its own."""

    engine: Any
    file: Path
    project: str
    env: dict[str, str]

    def compose(self, *arguments: str) -> str:
        command = [*compose_command(), "-p", self.project, "-f", str(self.file), *arguments]
        done = subprocess.run(
            command,
            env=os.environ | self.env,
            cwd=self.file.parent,
            capture_output=True,
            text=True,
            timeout=COMPOSE_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def container(self, service: str) -> Any:
        labels = [
            f"com.docker.compose.project={self.project}",
            f"com.docker.compose.service={service}",
        ]
        [container] = self.engine.containers.list(all=True, filters={"label": labels})
        return container

    def is_healthy(self, service: str) -> bool:
        """By the container's own health check."""
        state = self.container(service).attrs["State"]
        return bool(state.get("Health", {}).get("Status") == "healthy")

    def wait_healthy(self, *services: str) -> None:
        for service in services:
            until(f"{service} is healthy", partial(self.is_healthy, service))

    def logged(self, service: str, event: str) -> list[dict[str, Any]]:
        """The container's log lines with this event. Raises: ValueError when a line is not JSON."""
        lines = map(json.loads, self.container(service).logs().splitlines())
        return [line for line in lines if line["event"] == event]

    def url(self, scheme: str, port: str) -> str:
        return f"{scheme}://127.0.0.1:{self.env[port]}"


@contextmanager
def running_stack(engine: Any, image: str, file: Path, *ports: str) -> Iterator[Stack]:
    """The project of `file`, up, with this image of control; AEGIS_<name>_PORT is free for each of `ports`."""
    env = {f"AEGIS_{name}_PORT": str(free_port()) for name in ports}
    env["AEGIS_VERSION"] = image.partition(":")[2]
    stack = Stack(engine, file, f"aegis{uuid.uuid4().hex[:8]}", env)
    try:
        stack.compose("up", "-d")
        yield stack
    finally:
        stack.compose("down", "-v")


def is_valid(file: Path) -> None:
    """Compose reads it without a word."""
    command = [*compose_command(), "-f", str(file), "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
