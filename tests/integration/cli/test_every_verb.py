"""What holds for every verb: bad input, no NATS and no control end in one line and the right code."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest
from aegis_control.entrypoints.cli.app import app
from aegis_control.infrastructure.embedded_nats import free_port
from typer.main import get_command

from tests.integration.cli.support import Result, ScriptedControl, end_of, run_cli

LOOKING = {
    "list-services": [],
    "list-instances": [],
    "describe": ["accounts"],
    "show-route": ["ACC-1"],
    "status": [],
    "top": ["--once"],
}
CHANGING = {
    "disconnect": ["acc-1"],
    "drain": ["acc-1"],
    "failover": ["ACC-1"],
    "rebalance": ["accounts"],
    "accept-loss": ["accounts"],
    "retire": ["ACC-1"],
    "pause": ["ACC-1"],
    "resume": ["accounts/book"],
    "forget": ["accounts"],
    "dlq redrive": ["K.1"],
    "dlq drop": ["K.1"],
}
WITHOUT_CONTROL = {
    "explain": ["K.1"],
    "events": [],
    "doctor": [],
    "dlq list": [],
    "dlq show": ["K.1"],
    "request": ["accounts.book", "{}"],
    "cancel": ["K.1t"],
    "state": ["ACC-1"],
    "history": ["ACC-1"],
    "export": ["accounts"],
    "timers": ["accounts"],
}
VERBS = LOOKING | CHANGING | WITHOUT_CONTROL
OFFLINE = {"version"}


def words(verb: str) -> list[str]:
    return [*verb.split(), *VERBS[verb]]


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


def all_verbs() -> set[str]:
    """As typer knows them, those of groups with their group's name before."""
    found = set()
    for name, one in get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(one, "commands", None)
        found |= {name} if below is None else {f"{name} {under}" for under in below}
    return found


def test_no_verb_is_left_out_here() -> None:
    assert all_verbs() == set(VERBS) | OFFLINE


@pytest.mark.parametrize("verb", VERBS)
async def test_no_nats_is_exit_4_in_one_line_within_the_timeout(verb: str) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    began_s = time.monotonic()
    result = await run_cli(*words(verb), "--url", url, "--timeout", "1")
    assert (result.code, result.out) == (4, "")
    assert one_line(result.err)
    assert time.monotonic() - began_s < 3.0


@pytest.mark.parametrize("verb", [*LOOKING, *CHANGING])
async def test_no_control_is_exit_4_in_one_line(verb: str, nats_url: str) -> None:
    result = await run_cli(*words(verb), "--url", nats_url, "--prefix", "nobody")
    assert (result.code, result.out) == (4, "")
    assert one_line(result.err)
    assert "aegis-control serve" in result.err


@pytest.mark.parametrize("verb", [*LOOKING, *CHANGING])
async def test_a_silent_control_is_exit_4_within_the_timeout(
    verb: str, control: ScriptedControl
) -> None:
    for name in ("status", "list-services", "describe", "show-route", "checkup", "disconnect"):
        control.answers[name] = None
    for name in ("drain", "failover", "rebalance", "dlq-redrive", "dlq-drop"):
        control.answers[name] = None
    began_s = time.monotonic()
    result = await run_cli(*words(verb), "--timeout", "0.3", *control.args())
    assert result.code == 4
    assert one_line(result.err)
    assert "within 0.3 s" in result.err
    assert time.monotonic() - began_s < 3.0


@pytest.mark.parametrize("verb", WITHOUT_CONTROL)
async def test_what_reads_nats_does_not_wait_for_control(verb: str, nats_url: str) -> None:
    result = await run_cli(*words(verb), "--url", nats_url, "--prefix", "nobody")
    assert result.code == {"dlq list": 0, "doctor": 6}.get(verb, 3)
    assert "Traceback" not in result.err


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "bad",
    [
        ["--frob"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--timeout", "soon"],
        ["-o", "yaml"],
        ["--prefix", "No.Good"],
        ["--url", "http://x"],
        ["too", "many", ""],
    ],
    ids=" ".join,
)
async def test_bad_input_is_exit_2_in_one_line(verb: str, bad: list[str], nats_url: str) -> None:
    result = await run_cli(*words(verb), "--url", nats_url, *bad)
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)


@pytest.mark.parametrize(
    "verb", [verb for verb, more in VERBS.items() if more and verb not in ("top", "rebalance")]
)
async def test_without_its_argument_it_is_exit_2(verb: str, nats_url: str) -> None:
    result = await run_cli(*verb.split(), "--url", nats_url)
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)


@pytest.mark.parametrize("verb", ["explain", "dlq show", "dlq redrive", "dlq drop"])
@pytest.mark.parametrize("request_id", ["", "K", "K.*", "*.>", "a b.1", "K.1.2", "\x1b[2J.1"])
async def test_what_is_no_request_id_is_exit_2(verb: str, request_id: str, nats_url: str) -> None:
    """A wildcard must not drop or tell of somebody else's request."""
    result = await run_cli(*verb.split(), request_id, "--url", nats_url, "--prefix", "nobody")
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)
    assert "\x1b" not in result.err


@pytest.mark.parametrize(
    ("verb", "bad"),
    [
        ("events", ["--since", "yesterday"]),
        ("events", ["--since", "-5m"]),
        ("events", ["--limit", "0"]),
        ("state", ["--at", "noon"]),
        ("history", ["--since", "noon"]),
        ("export", ["--since", "noon"]),
        ("export", ["--after", "K"]),
        ("export", ["--after", "1.1", "--since", "1h"]),
        ("export", ["--batch", "0"]),
        ("top", ["--interval", "0"]),
        ("explain", ["--search", "0"]),
        ("dlq redrive", ["--all"]),
        ("dlq drop", ["--all"]),
    ],
)
async def test_bad_values_of_a_verbs_own_options_are_exit_2(
    verb: str, bad: list[str], nats_url: str
) -> None:
    result = await run_cli(*words(verb), *bad, "--url", nats_url)
    assert (result.code, result.out) == (2, "")
    assert one_line(result.err)


@pytest.mark.parametrize("verb", CHANGING)
async def test_what_changes_something_takes_the_same_options(verb: str) -> None:
    shown = (await run_cli(*verb.split(), "--help")).out
    for option in ("--dry-run", "--yes", "--reason", "--as", "--url", "--timeout", "--output"):
        assert option in shown


@pytest.mark.parametrize("verb", VERBS)
async def test_errors_are_json_when_json_is_asked_for(verb: str) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    result = await run_cli(*words(verb), "--url", url, "-o", "json", "--timeout", "1")
    assert (result.error["code"], result.error["exit_code"]) == ("unreachable", 4)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("ipc-cli ex", "explain"), ("ipc-cli dlq re", "redrive"), ("ipc-cli drain --d", "--dry-run")],
)
async def test_a_shell_completes_verbs_and_options(typed: str, offered: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from aegis_control.entrypoints.cli import main; main()",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ
        | {
            "_IPC_CLI_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        },
    )
    result: Result = await end_of(process)
    assert offered in result.out.split()
