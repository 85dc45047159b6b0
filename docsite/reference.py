"""The reference, made from the code when the site is built: nobody keeps a copy by hand."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import aegis_sdk
import typer
from aegis_control.entrypoints import cli, service
from aegis_control.entrypoints.cli.app import app
from aegis_control.settings import ENV_PREFIX, SECRETS, Settings
from aegis_sdk import errors, testing

ROOT: Final = Path(__file__).resolve().parents[1]
LEVELS: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
GIVEN: Final = frozenset(
    {"Aegis", "Instance", "Context", "ResourceContext", "State", "Ticket"}
    | {"MemoryAegis", "MemoryInstance", "MemoryLink"}
)
"""What users are given, and never make: how it is made is nothing to them."""
_COLUMNS: Final = "100"
_EVENT: Final = re.compile(r"[a-z]+(_[a-z]+)+")


def pages() -> Iterator[tuple[str, str]]:
    """Each page with its text."""
    yield "reference/api.md", api()
    yield "reference/testing.md", test_kit()
    yield "reference/errors.md", error_tree()
    yield "reference/cli.md", ipc_cli()
    yield "reference/control.md", aegis_control()
    yield "reference/settings.md", settings()
    yield "reference/metrics.md", metrics()
    yield "reference/log-events.md", log_events()


# --- the SDK ---------------------------------------------------------------------------------------------------
def api() -> str:
    names = [name for name in aegis_sdk.__all__ if not is_error(getattr(aegis_sdk, name))]
    first = ["connect", "Aegis", "Method", "Service", "Context", "ResourceContext", "State"]
    ordered = [*first, *(name for name in names if name not in first)]
    about = "All public names of `aegis_sdk`; the [errors](errors.md) have a page of their own."
    entries = (_entry(getattr(aegis_sdk, name)) for name in ordered)
    return "\n\n".join(("# API", about, *entries, "::: aegis_sdk.blocking"))


def test_kit() -> str:
    about = inspect.cleandoc(testing.__doc__ or "")
    how = "How to use it: [test a service](../howto/test.md)."
    named = [getattr(testing, name) for name in testing.__all__]
    entries = [_entry(thing) for thing in named if hasattr(thing, "__qualname__")]
    return "\n\n".join(("# Test kit", about, how, *entries))


def error_tree() -> str:
    tree = (errors.__doc__ or "").partition("\n\n")[2].strip()
    about = (
        "All are importable from `aegis_sdk.errors`. Each branch says whether you may try again."
    )
    raised = [thing for thing in vars(errors).values() if is_error(thing)]
    rows = [f"| `{e.__name__}` | {_code(e)} | {_first_sentence(e)} |" for e in raised]
    table = ["| error | `code` | means |", "| --- | --- | --- |", *rows]
    entries = [_entry(error) for error in raised]
    return "\n\n".join(("# Errors", about, f"```text\n{tree}\n```", "\n".join(table), *entries))


def is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, errors.AegisError)


def _code(error: type[errors.AegisError]) -> str:
    return "the handler's own" if error is errors.Rejected else f"`{error.code}`"


def _first_sentence(thing: object) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split())
    return re.split(r"(?<=[.;])\s", text)[0].rstrip(".;")


def _entry(thing: Any) -> str:
    name = f"::: {thing.__module__}.{thing.__qualname__}"
    given = f"{name}\n    options:\n      merge_init_into_class: false"
    return given if thing.__name__ in GIVEN else name


# --- the programs ----------------------------------------------------------------------------------------------
def ipc_cli() -> str:
    commands: Any = typer.main.get_command(app)
    texts = [_said(cli.main, ["--help"])]
    for path in _verbs(commands):
        texts.append(_section(f"ipc-cli {' '.join(path)}", _said(cli.main, [*path, "--help"])))
    return "\n\n".join(("# ipc-cli", _block(texts[0]), *texts[1:]))


def _verbs(group: Any, before: Sequence[str] = ()) -> Iterator[list[str]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, [*before, name])
        else:
            yield [*before, name]


def aegis_control() -> str:
    settings_page = "Each flag of `serve` is a [setting](settings.md)."
    serve = _section("aegis-control serve", _said(service.main, ["serve", "--help"]))
    demo = _section("aegis-control demo", _said(service.main, ["demo", "--help"]))
    whole = _block(_said(service.main, ["--help"]))
    return "\n\n".join(("# aegis-control", whole, settings_page, serve, demo))


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{_block(text)}"


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _said(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> str:
    """What a program writes to a terminal without colours."""
    out = io.StringIO()
    os.environ.update(COLUMNS=_COLUMNS, TERM="dumb", NO_COLOR="1")
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(arguments)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(lines).strip("\n")


# --- settings and log events -----------------------------------------------------------------------------------
def settings() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", None) else f"`{field.default}`"
        secret = "; secret" if name in SECRETS else ""
        flag = name.replace("_", "-")
        says = f"{field.description}{secret}".replace("|", "\\|")
        rows.append(
            f"| `{name}` | `{ENV_PREFIX}{name.upper()}`<br>`--{flag}` | {default} | {says} |"
        )
    about = (
        "Settings of `aegis-control`. It reads them from the environment, then from the TOML file that `--config`"
        " names, then from flags; the later wins. `aegis-control config` prints what is in force and where each value"
        " came from."
    )
    table = ["| setting | environment, flag | default | is |", "| --- | --- | --- | --- |", *rows]
    return "\n\n".join(("# Settings", about, "\n".join(table)))


def metrics() -> str:
    """The table of the page on observability, which a test compares with a scrape."""
    page = (ROOT / "docs" / "observability.md").read_text()
    table = page.partition("## Metrics")[2].partition("###")[0].replace("](", "](../")
    more = "How they are gathered and read, and the alerts: [observability](../observability.md)."
    return "\n\n".join(("# Metrics", more, table.strip()))


def log_events() -> str:
    """Of all lines that the packages log by a fixed name, in their order of the alphabet."""
    found: dict[str, tuple[set[str], set[str], set[str]]] = {}
    for package in ("aegis-sdk", "aegis-control", "aegis-demo"):
        for path in sorted((ROOT / "packages" / package / "src").rglob("*.py")):
            for call in filter(is_log_line, ast.walk(ast.parse(path.read_text()))):
                assert isinstance(call, ast.Call)
                assert isinstance(call.func, ast.Attribute)
                assert isinstance(call.args[0], ast.Constant)
                of = found.setdefault(str(call.args[0].value), (set(), set(), set()))
                of[0].add("error" if call.func.attr == "exception" else call.func.attr)
                of[1].update(keyword.arg for keyword in call.keywords if keyword.arg)
                of[2].add(package)
    rows = [
        f"| `{event}` | {', '.join(sorted(levels))} | {' '.join(f'`{key}`' for key in sorted(keys - {'exc_info'}))} |"
        f" {', '.join(sorted(by))} |"
        for event, (levels, keys, by) in sorted(found.items())
    ]
    about = (
        "Every event that is written by a fixed name, with its keys beside those that each line has. What they mean:"
        " [logs](../observability.md#logs) and [keys](../observability.md#keys); what to do:"
        " [troubleshooting](../troubleshooting.md)."
    )
    table = ["| event | level | keys | by |", "| --- | --- | --- | --- |", *rows]
    return "\n\n".join(("# Log events", about, "\n".join(table)))


def is_log_line(node: ast.AST) -> bool:
    """A call as `log.info("request_begun", ...)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and _EVENT.fullmatch(str(node.args[0].value)) is not None
    )
