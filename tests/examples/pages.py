"""Follows a page of the documentation as a newcomer would: writes its files, runs its commands, compares what they print.

A page marks with a comment in front of a block what a reader does otherwise than run it and wait:

    <!-- not run: why -->   skipped
    <!-- beside -->         its one command goes on running; the page goes on when all that is shown was printed
    <!-- beside: name -->   the same, and `name` is how a later block means it
    <!-- PID: name -->      PID in its commands is that process

`...` in an output stands for anything, in a line or for whole lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DEADLINE_S: Final = 60.0
_BLOCK: Final = re.compile(
    r'(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$',
    re.M | re.S,
)
_RUN: Final = frozenset({"python", "ini", "console"})
_LOOK_EVERY_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Block:
    kind: str
    title: str
    body: str
    note: str


@dataclass(frozen=True, slots=True)
class Command:
    line: str
    shown: str


def blocks(page: Path) -> list[Block]:
    """All that a reader can run. Raises: AssertionError for code that is neither run nor excused."""
    found = [
        Block(m["kind"], m["title"] or "", m["body"], m["note"] or "")
        for m in _BLOCK.finditer(page.read_text())
    ]
    for block in found:
        assert block.kind in {*_RUN, "mermaid"}, f"{page.name}: nobody runs {block.kind}"
        assert block.kind != "python" or block.title, f"{page.name}: which file is {block.body}?"
    return [b for b in found if b.kind in _RUN and not b.note.startswith("not run")]


def commands(body: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
        line, _, shown = part.partition("\n")
        yield Command(line, shown)


def matches(shown: str, printed: str) -> bool:
    """`...` on a line of its own is any number of lines; within one, any text."""
    pattern = ""
    for line in shown.splitlines():
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(map(re.escape, line.split("..."))) + r"[ \t]*\n"
    whole = f"{printed}\n" if printed and not printed.endswith("\n") else printed
    return re.fullmatch(pattern, whole) is not None


@dataclass
class Reader:
    """In `folder`, with `environment`. `address` is where its NATS listens in place of the page's 4222."""

    folder: Path
    environment: Mapping[str, str]
    address: str
    beside: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def follow(self, page: Path) -> None:
        for block in blocks(page):
            if block.kind != "console":
                self._write(block)
            elif block.note.startswith("beside"):
                self._start(block)
            else:
                for command in commands(block.body):
                    self._run(command, block.note)

    def close(self) -> None:
        """The instances first, then control and its NATS."""
        for process in reversed(self.beside.values()):
            process.terminate()
            process.wait(DEADLINE_S)

    def _write(self, block: Block) -> None:
        if block.body.startswith("--8<--"):  # a file of the repository, shown where it stands
            return
        text = block.body.replace("nats://127.0.0.1:4222", self.address)
        (self.folder / block.title).write_text(text)

    def _run(self, command: Command, note: str) -> None:
        line = command.line
        if note.startswith("PID: "):
            line = line.replace("PID", str(self.beside[note.removeprefix("PID: ")].pid))
        done = subprocess.run(
            self._shell(line),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}"
        assert matches(command.shown, done.stdout), f"$ {line}\n{done.stdout}\n{command.shown}"

    def _start(self, block: Block) -> None:
        (command,) = commands(block.body)
        name = block.note.partition(": ")[2] or f"process-{len(self.beside)}"
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            self.beside[name] = process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {self._shell(command.line)[-1]}"],
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + DEADLINE_S
        while not matches(command.shown, log.read_text()):
            late = process.poll() is not None or time.monotonic() > deadline
            assert not late, f"$ {command.line}\n{log.read_text()}\n{command.shown}"
            time.sleep(_LOOK_EVERY_S)

    def _shell(self, line: str) -> list[str]:
        return ["/bin/sh", "-c", line.removeprefix("uv run ")]


def environment(folder: Path, port: int, **more: str) -> dict[str, str]:
    """This interpreter's programs first; ports and data of this test alone."""
    programs = Path(sys.executable).parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AEGIS_")}
    return {
        **kept,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "AEGIS_URL": f"nats://127.0.0.1:{port}",
        "AEGIS_EMBEDDED_PORT": str(port),
        "AEGIS_HTTP_PORT": "0",
        "AEGIS_DATA_DIR": str(folder / "data"),
        "COLUMNS": "100",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the reader's environment has this one alone
        "PYTEST_PLUGINS": "pytest_asyncio.plugin",
        **more,
    }
