"""Prometheus's own tool, from its image, on a real scrape, on the alerts and on their tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any, Final

from aegis_control.infrastructure.embedded_nats import EmbeddedNats

from tests.container.support import REPOSITORY
from tests.integration.metrics.support import get, observed

IMAGE: Final = "prom/prometheus:v2.42.0"
FOLDER: Final = REPOSITORY / "deploy" / "prometheus"


def promtool(engine: Any, script: str, files: dict[str, bytes]) -> tuple[int, str]:
    """Runs `script` in a shell beside `files`: (exit code, what it said)."""
    container = engine.containers.create(
        IMAGE, entrypoint=["/bin/sh", "-c", script], working_dir="/tmp", network_disabled=True
    )
    try:
        container.put_archive("/tmp", packed(files))
        container.start()
        code = container.wait(timeout=60)["StatusCode"]
        return code, container.logs().decode()
    finally:
        container.remove(force=True)


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


async def test_a_real_scrape_is_as_prometheus_wants_it(engine: Any) -> None:
    """Of control, and of a process that serves its own."""
    with EmbeddedNats() as server:
        async with observed(server, "aegis") as system:
            own = await get(system.aegis.serve_metrics(0), "/metrics")
            texts = {"control": system.text, "process": own}
    for where, text in texts.items():
        assert "aegis_request_duration_seconds_bucket{" in text, where
        code, said = promtool(engine, "promtool check metrics < scrape", {"scrape": text.encode()})
        assert (code, said) == (0, ""), where


def test_the_check_finds_what_is_wrong(engine: Any) -> None:
    bad = b"# HELP aegis_things A counter.\n# TYPE aegis_things counter\naegis_things 1\n"
    code, said = promtool(engine, "promtool check metrics < scrape", {"scrape": bad})
    assert code != 0
    assert "_total" in said


def test_the_alerts_do_what_their_tests_say(engine: Any) -> None:
    script = "promtool check config prometheus.yml && promtool test rules alerts_test.yaml"
    code, said = promtool(engine, script, folder(FOLDER))
    assert code == 0, said
    assert "SUCCESS" in said
