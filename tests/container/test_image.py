"""Control's image: what is in it, and as whom it runs."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)


def test_it_holds_control_and_the_cli_and_no_more(engine: Any, image: str) -> None:
    said = engine.containers.run(
        image,
        entrypoint=["sh", "-c"],
        command=["ipc-cli --version && aegis-control --version && ls /opt/aegis/bin"],
        remove=True,
    ).decode()
    assert said.startswith("ipc-cli ")
    for absent in ("pip", "uv", "pytest", "nats-server"):
        assert absent not in said.split()


def test_it_runs_as_nobody_in_particular(engine: Any, image: str) -> None:
    said = engine.containers.run(
        image, entrypoint=["id", "-u"], remove=True, read_only=True, cap_drop=["ALL"]
    )
    assert int(said) >= 10_000


def test_it_knows_its_health_check_and_its_port(engine: Any, image: str) -> None:
    config = engine.images.get(image).attrs["Config"]
    assert "9464/tcp" in config["ExposedPorts"]
    assert "/readyz" in config["Healthcheck"]["Test"][-1]
    assert (config["Entrypoint"], config["Cmd"]) == (["aegis-control"], ["serve"])
