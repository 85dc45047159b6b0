"""`aegis-control`: serve, config, demo. Flags are the settings' names; see `settings.py`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import prometheus_client
import structlog
from aegis_sdk.contract.addresses import HIDDEN
from aegis_sdk.errors import InvalidAddress, RefusedByNats
from aegis_sdk.log_writer import write_line
from pydantic.fields import FieldInfo

from aegis_control.application.ports import ProvisionFailed
from aegis_control.bootstrap import Control
from aegis_control.entrypoints import demo
from aegis_control.entrypoints.pipes import read_to_the_end_or_not
from aegis_control.infrastructure.embedded_nats import EmbeddedNats, EmbeddedNatsError
from aegis_control.infrastructure.logs import set_up
from aegis_control.infrastructure.nats_connect import CredentialsUnusable, NatsAbsent
from aegis_control.settings import Loaded, Settings, SettingsError, load, shown

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 4
REFUSED: Final = 5

_CODES: Final[Mapping[type[Exception], int]] = {
    EmbeddedNatsError: FAILED,
    ProvisionFailed: FAILED,
    CredentialsUnusable: FAILED,
    InvalidAddress: USAGE,
    RefusedByNats: REFUSED,
}


def main(argv: Sequence[str] | None = None) -> None:
    """The program. Exit codes: 0 done, 1 failed, 2 usage, 4 NATS not reached, 5 refused by NATS."""
    given = sys.argv[1:] if argv is None else argv
    sys.exit(read_to_the_end_or_not(lambda: run(given)))


def run(argv: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    if argv[:1] == ["demo"]:
        return demo.run(argv[1:])
    parser = _parser()
    known, others = parser.parse_known_args(argv)
    if others:  # a misspelt --password must not be said with its value
        names = [word.partition("=")[0] for word in others if word.startswith("-")]
        parser.error(f"unrecognized arguments: {' '.join(names) or HIDDEN}")
    arguments = vars(known)
    command: Callable[[Loaded], int] = arguments.pop("command")
    config_file: Path | None = arguments.pop("config")
    try:
        return command(load(arguments, config_file))
    except SettingsError as error:
        return _complain(USAGE, str(error))


def _serve(loaded: Loaded) -> int:
    set_up(loaded.settings.log_format, loaded.settings.log_level)
    # Series that only say when a counter was made double the scrape and help nobody here.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        with _embedded(loaded.settings) as server:
            return asyncio.run(_serve_until_signalled(_pointed_at(loaded.settings, server)))
    except tuple(_CODES) as error:
        return _complain(_CODES[type(error)], str(error))
    except NatsAbsent as error:
        return _complain(UNREACHABLE, f"{error}; start one, give --url, or use --embedded")
    except OSError as error:
        settings = loaded.settings
        where = f"{settings.http_host}:{settings.http_port}"
        return _complain(FAILED, f"can't listen on {where}: {error}")


async def _serve_until_signalled(settings: Settings) -> int:
    control = Control(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, control.stop)
    log = structlog.stdlib.get_logger("aegis_control")
    log.info("control_started", control_id=control.id, version=metadata.version("aegis-control"))
    # Cancelled when it is stopped while it waits for NATS.
    with suppress(asyncio.CancelledError):
        await control.run()
    log.info("control_stopped", control_id=control.id)
    return OK


def _embedded(settings: Settings) -> AbstractContextManager[EmbeddedNats | None]:
    if not settings.embedded:
        return nullcontext()
    return EmbeddedNats(
        settings.data_dir, settings.embedded_port or None, settings.sync_interval or None
    )


def _pointed_at(settings: Settings, server: EmbeddedNats | None) -> Settings:
    """With a server of our own, that one is meant; its system account comes with it."""
    if server is None:
        return settings
    log = structlog.stdlib.get_logger("aegis_control")
    log.info("embedded_nats_started", url=server.url, data_dir=str(server.data_dir))
    return settings.model_copy(
        update={"url": server.url, "system_url": server.system_url, "system_user": ""}
    )


def _config(loaded: Loaded) -> int:
    width = max(map(len, Settings.model_fields))
    for name in Settings.model_fields:
        value = shown(loaded.settings, name)
        print(f"{name:<{width}}  {value!s:<28}  {loaded.origins[name]}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aegis-control", description="The control service of AegisIPC."
    )
    parser.add_argument("--version", action="version", version=metadata.version("aegis-control"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "serve", _serve, "run control: registration, leases, failover")
    _add(commands, "config", _config, "show the settings in force, and where each came from")
    # Listed for the help; `run` hands its arguments to the demo before this parser sees them.
    commands.add_parser("demo", help=demo.in_help())
    return parser


def _add(commands: Any, name: str, run_it: Callable[[Loaded], int], words: str) -> None:
    command = commands.add_parser(name, help=words, argument_default=argparse.SUPPRESS)
    command.set_defaults(command=run_it)
    command.add_argument("--config", type=Path, default=None, help="a TOML file with settings")
    for setting, field in Settings.model_fields.items():
        command.add_argument(f"--{setting.replace('_', '-')}", **_flag(setting, field))


def _flag(setting: str, field: FieldInfo) -> Mapping[str, Any]:
    """argparse's words for a setting; values are checked with all others, not here."""
    words = f"{field.description} (default: {field.default!s})".replace("%", "%%")
    if field.annotation is bool:
        return {"action": argparse.BooleanOptionalAction, "help": words}
    choices = typing.get_args(field.annotation) if setting.startswith("log_") else ()
    metavar = "|".join(map(str, choices)) if choices else setting.rpartition("_")[2].upper()
    return {"metavar": metavar, "help": words}


def _complain(code: int, message: str) -> int:
    write_line(f"aegis-control: {message}")
    return code


if __name__ == "__main__":
    main()
