"""The options that every command shares."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from bench.bed import BedSettings
from bench.systems import ALL_NAMES

REPORT: Final = Path(__file__).resolve().parent / "report"
"""The committed report: whole runs alone write here by themselves."""
SHORT_REPORT: Final = REPORT.with_name("report-quick")
"""Of runs that were shortened or narrowed, which must not pass for the report. Git ignores it."""


@dataclass(frozen=True, slots=True)
class Options:
    """`sync` is nats-server's sync_interval (None: its default); `systems` None: the command's own."""

    quick: bool = False
    json: bool = False
    seed: int = 1
    loop: str = "uvloop"
    sync: str | None = None
    nodes: int = 1
    systems: tuple[str, ...] | None = None
    report: Path | None = REPORT
    pure: bool = False
    """The SDK as plain Python, as an editable install has it, and not as its wheels have it."""

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--quick", action="store_true", help="a short run; its spread is wider")
        add("--json", action="store_true", help="print one JSON object, and no table, on stdout")
        add("--seed", type=int, default=1, help="of traffic and order (default: 1)")
        add("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="for all systems alike")
        add("--sync", help="nats-server's sync_interval, say `always` (default: the server's)")
        add("--nodes", type=int, choices=(1, 3), default=1, help="of NATS; 3: every stream thrice")
        add(
            "--systems",
            type=listed(ALL_NAMES),
            help=f"comma-separated, of: {', '.join(ALL_NAMES)}",
        )
        add(
            "--report",
            type=Path,
            help="folder of the report (default: bench/report; of a run with --quick, --systems or "
            "another option of the command itself: bench/report-quick)",
        )
        add(
            "--pure",
            action="store_true",
            help="the SDK as plain Python, not compiled as its wheels",
        )
        add("--no-report", action="store_true", help="write no report")

    @classmethod
    def of(cls, parsed: argparse.Namespace, *, narrowed: bool = False) -> Self:
        """`narrowed`: the command's own arguments are not its defaults."""
        short = parsed.quick or parsed.systems or narrowed
        folder = parsed.report or (SHORT_REPORT if short else REPORT)
        return cls(
            quick=parsed.quick,
            json=parsed.json,
            seed=parsed.seed,
            loop=parsed.loop,
            sync=parsed.sync,
            nodes=parsed.nodes,
            systems=tuple(parsed.systems) if parsed.systems else None,
            report=None if parsed.no_report else folder,
            pure=parsed.pure,
        )

    def bed(self, system: str, accounts: list[str], **more: Any) -> BedSettings:
        """A bed as these options want it."""
        return BedSettings(
            system, accounts, loop=self.loop, sync_interval=self.sync, nodes=self.nodes, **more
        )

    def command_line(self, command: str) -> str:
        """How to run it again."""
        words = ["uv run python -m bench", command, f"--seed {self.seed}"]
        words += ["--quick"] * self.quick
        words += [f"--loop {self.loop}"] * (self.loop != "uvloop")
        words += [f"--sync {self.sync}"] if self.sync else []
        words += [f"--nodes {self.nodes}"] * (self.nodes > 1)
        words += [f"--systems {','.join(self.systems)}"] if self.systems else []
        words += ["--pure"] * self.pure
        return " ".join(words)


def listed(known: Iterable[str]) -> Callable[[str], list[str]]:
    """The type of an argument that takes some of `known`, comma-separated; anything else is a usage error."""
    choices = list(known)

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if name not in choices]
        if unknown or not names:
            wrong = f"unknown: {', '.join(unknown)}" if unknown else "none given"
            raise argparse.ArgumentTypeError(f"{wrong}; use {', '.join(choices)}")
        return names

    return parse
