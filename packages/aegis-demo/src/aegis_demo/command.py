"""`aegis-control demo`: input, session, check, report; and nothing left behind, however it ends.

Exit codes: 0 all reconciled · 1 something did not, or a process failed · 2 the input can't be used ·
5 rows were refused, and the others reconciled · 128 + n ended by signal n (Ctrl-C: 130) before there
was a result.
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

from aegis_control.infrastructure.embedded_nats import EmbeddedNats, EmbeddedNatsError, free_port
from nats.errors import Error as NatsError
from rich.console import Console

from aegis_demo import witness
from aegis_demo.fitted import fitted_market
from aegis_demo.ledger import keep_ledger
from aegis_demo.market import GENERATED, Market
from aegis_demo.options import DemoOptions
from aegis_demo.order_file import OrderFile, OrderFileError, read_order_file
from aegis_demo.orders import Order, generate, newcomer_in
from aegis_demo.processes import ChildFailed, Crew, last_words
from aegis_demo.progress import screen_for
from aegis_demo.reconcile import Reconciliation, reconcile
from aegis_demo.report import Report, as_json, make_report, show
from aegis_demo.session import Run, Session, SessionFailed, console_url

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


class _Result:
    """Shows the report, and knows whether there is one."""

    def __init__(self, options: DemoOptions) -> None:
        self._json = options.json_output
        self.report: Report | None = None

    def show(self, report: Report) -> None:
        self.report = report
        if self._json:
            print(as_json(report), flush=True)
        else:
            show(Console(), report)

    def fail(self, message: str, code: int) -> int:
        print(f"aegis-control demo: {message}", file=sys.stderr)
        if self._json and self.report is None:
            print(json.dumps({"reconciled": False, "error": message.splitlines()[0]}))
        return code


def run_demo(options: DemoOptions) -> int:
    """Run the demo to its end and return the process's exit code. Call it from the main thread."""
    result = _Result(options)
    try:
        day = _orders(options)
        _tell_refused(day)
        asyncio.run(_until_signalled(lambda: _demo(options, day, result)))
    except OrderFileError as error:
        return result.fail(str(error), USAGE)
    except (ChildFailed, SessionFailed, EmbeddedNatsError, NatsError, OSError) as error:
        return result.fail(str(error) or type(error).__name__, FAILED)
    except _Interrupted as interrupted:
        if result.report is None:
            print("interrupted: all processes ended, nothing left behind", file=sys.stderr)
            return interrupted.exit_code
        print("all processes ended, nothing left behind", file=sys.stderr)
    assert result.report is not None  # the demo came to its end
    return result.report.exit_code


def _orders(options: DemoOptions) -> OrderFile:
    if options.input is not None:
        return read_order_file(options.input)
    orders = generate(options.orders, options.seed)
    return OrderFile(newcomer_in(orders) if options.grow else orders, [])


def _market(options: DemoOptions, orders: list[Order]) -> Market:
    market = GENERATED if options.input is None else fitted_market(orders)
    asked = {"opening_cash": options.cash, "position_max": options.position_limit}
    return market.model_copy(update={k: v for k, v in asked.items() if v is not None})


def _tell_refused(day: OrderFile) -> None:
    rows = day.refused
    for row in rows[:_REFUSALS_SHOWN_MAX]:
        print(f"refused: {row}", file=sys.stderr)
    if len(rows) > _REFUSALS_SHOWN_MAX:
        print(f"refused: … and {len(rows) - _REFUSALS_SHOWN_MAX} more rows", file=sys.stderr)
    if len(rows) > len(day.orders):
        total = len(rows) + len(day.orders)
        print(f"most of the file is refused: {len(rows):,} of {total:,} rows", file=sys.stderr)


async def _until_signalled(main: Callable[[], Awaitable[None]]) -> None:
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
        await task
    except asyncio.CancelledError:
        if came:
            raise _Interrupted(came[0]) from None
        raise


async def _demo(options: DemoOptions, day: OrderFile, result: _Result) -> None:
    errors = Console(stderr=True)
    market = _market(options, day.orders)
    with tempfile.TemporaryDirectory(prefix="aegis-demo-") as folder:
        work_dir = Path(folder)
        logs = options.log_dir or work_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        errors.print("starting an embedded NATS in a temporary folder", highlight=False)
        # On this thread, which outlives it: Linux would end it with the thread that started it.
        with EmbeddedNats(work_dir / "nats") as nats:
            async with _crew(logs, nats) as crew, witness.observer(nats.url) as client:
                http_port = free_port() if options.console else 0
                with screen_for(errors, len(day.orders)) as screen:
                    session = Session(
                        options,
                        day.orders,
                        market,
                        client=client,
                        crew=crew,
                        work_dir=work_dir,
                        url=nats.url,
                        system_url=nats.system_url,
                        http_port=http_port,
                        screen=screen,
                    )
                    run = await session.run()
                    screen.say("reconciling with a ledger kept from the orders alone")
                    found = reconcile(day.orders, keep_ledger(day.orders, market), run.evidence)
                result.show(_report(options, day, market, run, found))
                if options.console:
                    await _stay(crew, http_port, errors)


def _report(
    options: DemoOptions, day: OrderFile, market: Market, run: Run, found: Reconciliation
) -> Report:
    return make_report(
        run,
        found,
        orders=len(day.orders),
        seed=None if options.input is not None else options.seed,
        market=market,
        refused_rows=day.refused,
    )


async def _stay(crew: Crew, http_port: int, errors: Console) -> None:
    """Leave everything running until a signal comes. Raises: ChildFailed."""
    errors.print(
        f"the system stays up, with its console at {console_url(http_port)} until Ctrl-C",
        highlight=False,
        soft_wrap=True,
    )
    await crew.attended(asyncio.Event().wait())


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
