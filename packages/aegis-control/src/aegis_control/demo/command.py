"""`aegis-control demo`: input, session, check, report; and nothing left behind, however it ends.

Exit codes: 0 all reconciled · 1 something did not (or a row was refused, or a process failed) ·
2 the input can't be used · 128 + n ended by signal n (Ctrl-C: 130).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from nats.errors import Error as NatsError
from rich.console import Console

from aegis_control.demo import witness
from aegis_control.demo.ledger import keep_ledger
from aegis_control.demo.options import DemoOptions
from aegis_control.demo.order_file import OrderFile, OrderFileError, RefusedRow, read_order_file
from aegis_control.demo.orders import generate
from aegis_control.demo.processes import ChildFailed, Crew, last_words
from aegis_control.demo.progress import screen_for
from aegis_control.demo.reconcile import reconcile
from aegis_control.demo.report import Report, as_json, make_report, show
from aegis_control.demo.session import Run, Screen, Session, SessionFailed
from aegis_control.infrastructure.embedded_nats import EmbeddedNats, EmbeddedNatsError

FAILED: Final = 1
USAGE: Final = 2
_SIGNALLED: Final = 128
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite end, and a closed terminal."""
_WATCH_S: Final = 0.25
_REFUSALS_SHOWN_MAX: Final = 50


class _Interrupted(Exception):
    """SIGINT or SIGTERM came; all has been put away."""

    def __init__(self, what: signal.Signals) -> None:
        super().__init__(what.name)
        self.exit_code = _SIGNALLED + what


def run_demo(options: DemoOptions) -> int:
    """Run the demo to its end and return the process's exit code. Call it from the main thread."""
    errors = Console(stderr=True)
    try:
        day = _orders(options)
        _tell_refused(day.refused)
        report = asyncio.run(_until_signalled(lambda: _demo(options, day, errors)))
    except OrderFileError as error:
        return _fail(options, str(error), USAGE)
    except (ChildFailed, SessionFailed, EmbeddedNatsError, NatsError, OSError) as error:
        return _fail(options, str(error) or type(error).__name__, FAILED)
    except _Interrupted as interrupted:
        print("interrupted: all processes ended, nothing left behind", file=sys.stderr)
        return interrupted.exit_code
    if options.json_output:
        print(as_json(report))
    else:
        show(Console(), report)
    return report.exit_code


def _orders(options: DemoOptions) -> OrderFile:
    if options.input is not None:
        return read_order_file(options.input)
    return OrderFile(generate(options.orders, options.seed), [])


def _tell_refused(rows: list[RefusedRow]) -> None:
    for row in rows[:_REFUSALS_SHOWN_MAX]:
        print(f"refused: {row}", file=sys.stderr)
    if len(rows) > _REFUSALS_SHOWN_MAX:
        print(f"refused: … and {len(rows) - _REFUSALS_SHOWN_MAX} more rows", file=sys.stderr)


def _fail(options: DemoOptions, message: str, code: int) -> int:
    print(f"aegis-control demo: {message}", file=sys.stderr)
    if options.json_output:
        print(json.dumps({"reconciled": False, "error": message.splitlines()[0]}))
    return code


async def _until_signalled(main: Callable[[], Awaitable[Report]]) -> Report:
    """Run `main`; a signal cancels it, once, and what it holds is put away. Raises: _Interrupted."""
    task = asyncio.ensure_future(main())
    came: list[signal.Signals] = []

    def stop(what: signal.Signals) -> None:
        if not came:
            came.append(what)
            task.cancel()

    loop = asyncio.get_running_loop()
    for what in _SIGNALS:
        loop.add_signal_handler(what, stop, what)
    try:
        return await task
    except asyncio.CancelledError:
        if came:
            raise _Interrupted(came[0]) from None
        raise


async def _demo(options: DemoOptions, day: OrderFile, errors: Console) -> Report:
    with screen_for(errors, len(day.orders)) as screen:
        run = await _run(options, day, screen)
        screen.say("reconciling with a ledger kept from the orders alone")
        found = reconcile(day.orders, keep_ledger(day.orders), run.evidence)
    return make_report(
        run,
        found,
        orders=len(day.orders),
        seed=None if options.input is not None else options.seed,
        refused_rows=day.refused,
    )


async def _run(options: DemoOptions, day: OrderFile, screen: Screen) -> Run:
    with tempfile.TemporaryDirectory(prefix="aegis-demo-") as folder:
        work_dir = Path(folder)
        logs = options.log_dir or work_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        screen.say("starting an embedded NATS in a temporary folder")
        # On this thread, which outlives it: Linux would end it with the thread that started it.
        with EmbeddedNats(work_dir / "nats") as nats:
            async with _crew(logs, nats) as crew, witness.observer(nats.url) as client:
                session = Session(
                    options,
                    day.orders,
                    client=client,
                    crew=crew,
                    work_dir=work_dir,
                    url=nats.url,
                    system_url=nats.system_url,
                    screen=screen,
                )
                return await session.run()


@contextlib.asynccontextmanager
async def _crew(logs: Path, nats: EmbeddedNats) -> AsyncIterator[Crew]:
    crew = Crew(logs)
    watch = asyncio.create_task(_watch(nats, crew))
    try:
        yield crew
    finally:
        watch.cancel()
        await crew.stop()
        if nats.log_file.exists():
            shutil.copy(nats.log_file, logs / "nats-server.log")


async def _watch(nats: EmbeddedNats, crew: Crew) -> None:
    while nats.running:  # noqa: ASYNC110 - a process that ends sets no event
        await asyncio.sleep(_WATCH_S)
    crew.fail(ChildFailed(f"nats-server ended\n{last_words(nats.log_file)}"))
