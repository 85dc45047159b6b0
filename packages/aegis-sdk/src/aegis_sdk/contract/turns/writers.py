"""How a writer is called: `<instance id>~<incarnation>`, so that control and people can tell whose it is."""

from __future__ import annotations

from typing import Final

_BETWEEN: Final = "~"
"""Neither an instance id nor an incarnation has it."""


def writer_name(instance_id: str, incarnation: str) -> str:
    """The writer of one run of an instance; a subject token."""
    return f"{instance_id}{_BETWEEN}{incarnation}"


def run_of(writer: str) -> tuple[str, str]:
    """(instance id, incarnation)."""
    instance_id, _, incarnation = writer.partition(_BETWEEN)
    return instance_id, incarnation
