"""The images of control and of the demo: what is in them, and as whom control runs."""

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


def test_the_demo_is_in_its_own_image_alone(engine: Any, image: str, demo_image: str) -> None:
    held = [
        "python",
        "-c",
        "import importlib.util as u; print(u.find_spec('aegis_demo') is not None)",
    ]
    found = [
        engine.containers.run(one, entrypoint=held, command=[], remove=True).decode().strip()
        for one in (image, demo_image)
    ]
    assert found == ["False", "True"]
