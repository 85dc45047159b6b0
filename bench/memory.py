"""What one more resource, instance or caller costs in resident memory, by part of the system. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MIB = 2**20


def growth(memory: Sequence[Mapping[str, Any]], system: str = "aegis") -> list[dict[str, Any]]:
    """For each axis: bytes a unit from its least to its most, by part, and what a process takes.

    `memory` are the ends of the beds, as `bench.runner.Results` has them.
    """
    grown = []
    mine = [each for each in memory if each["system"] == system and each["axis"]]
    for axis in dict.fromkeys(next(iter(each["axis"])) for each in mine):
        points = {each["axis"][axis]: each for each in mine if axis in each["axis"]}
        least, most = min(points), max(points)
        if least < most:
            grown.append(_between(axis, least, most, points))
    return grown


def _between(
    axis: str, least: int, most: int, points: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    few, many = points[least], points[most]
    return {
        "axis": axis,
        "least": least,
        "most": most,
        "bytes_each": {
            part: round((many["mib"][part] - few["mib"][part]) * MIB / (most - least))
            for part in many["mib"]
        },
        "mib_a_process": {
            part: round(many["mib"][part] / count, 1)
            for part, count in many["processes"].items()
            if count
        },
    }
