"""Who follows Start and the tutorial by the letter sees what they say."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.examples.pages import ROOT, Reader, environment, matches

pytestmark = pytest.mark.timeout(240)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def follow(page: str, folder: Path, scratch: Path) -> None:
    port = free_port()
    reader = Reader(folder, environment(scratch, port), f"nats://127.0.0.1:{port}")
    try:
        reader.follow(ROOT / "docs" / page)
    finally:
        reader.close()


@pytest.mark.scenario
def test_start_shows_what_happens(tmp_path: Path) -> None:
    """In the repository's own folder, as the page says: nothing is written there."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    follow("start.md", tmp_path, tmp_path)


@pytest.mark.scenario
def test_the_tutorial_shows_what_happens(tmp_path: Path) -> None:
    follow("tutorial.md", tmp_path, tmp_path)


def test_three_dots_stand_for_anything() -> None:
    assert matches("...\nfrom ... ms\n", "a\nb\nfrom 17 ms\n")
    assert not matches("from ... ms\n", "a\nfrom 17 ms\n")
    assert not matches("one\n", "one\ntwo\n")
