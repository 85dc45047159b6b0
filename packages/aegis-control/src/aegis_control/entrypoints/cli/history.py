"""`explain` and `events`: what happened, read from NATS itself, with or without a control."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

import typer
from aegis_sdk.contract.control import EventRecord
from aegis_sdk.contract.envelope import OutcomeKind

from aegis_control.application.operators.explain import Explain, NotFound
from aegis_control.domain.events import OperatorChange
from aegis_control.domain.operators.story import Step, Story, Word
from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.options import Cli, ServiceOption, command, moment
from aegis_control.infrastructure.admin_client import AdminError

SEARCH_S: Final = 30.0
"""About 30,000 requests a second were looked through (embedded NATS, two shared cores); a day's worth
may need more."""
SHOWN: Final = 100
SHOWN_BEFORE_FOLLOWING: Final = 10
_COLOURS: Final = {
    OutcomeKind.EXECUTED: "green",
    OutcomeKind.REJECTED: "yellow",
    OutcomeKind.FAILED: "red",
    OutcomeKind.EXPIRED: "magenta",
    OutcomeKind.CANCELLED: "magenta",
}
_DATE: Final = len("2026-01-31 ")
"""Said once above a timeline, whose times may go on over midnight; what counts is AFTER."""
_BAD: Final = ("lost", "stalled", "evicted", "refused", "failed", "dead_lettered", "fenced")


def mount(app: typer.Typer) -> None:
    command(app, "explain")(explain)
    command(app, "events")(events)


# --- explain ---------------------------------------------------------------------------------------
async def explain(
    cli: Cli,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="As in logs and errors.")],
    *,
    service: ServiceOption = None,
    search: Annotated[
        float,
        typer.Option(
            "--search", metavar="SECONDS", min=0.1, help="At most, through whole streams."
        ),
    ] = SEARCH_S,
) -> None:
    """A request's life as a timeline: accepted, epochs, begins, outcome, or where it waits and why."""
    async with cli.admin() as admin:
        tell = Explain(admin.archive, now_s=time.time(), search_s=search)
        try:
            story = await tell(request_id, service=service)
        except NotFound as error:
            raise _not_found(request_id, search, complete=error.complete) from error
    if cli.as_json:
        render.show_json(story)
    else:
        _show_story(story)


def _not_found(request_id: str, search_s: float, *, complete: bool) -> AdminError:
    if complete:
        return AdminError(
            "not_found",
            f"nothing is stored of request {request_id}",
            "it was never accepted, or is older than requests and outcomes are kept",
        )
    return AdminError(
        "timed_out",
        f"request {request_id} was not found within {search_s:g} s, and not everything was searched",
        "say --service, or raise --search",
    )


def _show_story(story: Story) -> None:
    render.show_pairs(
        [
            ("request", story.request_id),
            ("method", f"{story.service}.{story.method or '?'}"),
            ("route", "group" if story.resource is None else f"resource {story.resource}"),
            ("caller", story.caller),
            ("trace", story.trace_id or "-"),
            ("accepted", _accepted_at(story.steps)),
            ("deadline", render.clock(story.deadline_s) if story.deadline_s else "-"),
            ("standing", story.standing),
        ]
    )
    if story.steps:
        render.show_line()
        began_s = _zero(story.steps)
        rows = [_step_row(step, began_s, story.outcome) for step in story.steps]
        render.show_table(("TIME", "AFTER", "WHAT", "HOW"), rows)


def _accepted_at(steps: Sequence[Step]) -> str:
    found = [render.clock(step.at_s) for step in steps if step.word is Word.ACCEPTED]
    return found[0] if found else "its request is not kept any more"


def _zero(steps: Sequence[Step]) -> float:
    """Times count from the acceptance; of a request that isn't kept any more, from the first trace."""
    accepted = [step.at_s for step in steps if step.word is Word.ACCEPTED]
    return accepted[0] if accepted else steps[0].at_s


def _step_row(step: Step, began_s: float, outcome: OutcomeKind | None) -> tuple[render.Cell, ...]:
    colour = _COLOURS[outcome] if step.word is Word.OUTCOME and outcome else ""
    return (
        render.clock(step.at_s)[_DATE:],
        _after(step.at_s - began_s),
        render.cell(step.word.value, colour),
        step.text,
    )


def _after(seconds: float) -> str:
    if abs(seconds) < 1.0:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.3f} s" if abs(seconds) < 600.0 else f"{seconds / 60:.0f} min"


# --- events ----------------------------------------------------------------------------------------
async def events(
    cli: Cli,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with those to come, until Ctrl-C.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="10m, 2h, 1d, or a time as 2026-01-31T09:00Z."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, help=f"The newest N (default {SHOWN}; with --since all)."
        ),
    ] = None,
    service: ServiceOption = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Only what operators changed, and tried to.")
    ] = False,
) -> None:
    """What control did and noticed, the oldest first: registrations, failovers, operators' changes."""
    since_s = None if since is None else moment("--since", since)
    async with cli.admin() as admin:
        archive = admin.archive
        if await archive.stream_info(admin.subjects.events_stream) is None:
            raise AdminError(
                "not_found",
                f"no events are kept for the prefix {admin.subjects.prefix!r}",
                "control makes their stream when it starts",
            )
        newest = None if since_s is not None else SHOWN_BEFORE_FOLLOWING if follow else SHOWN
        reading = archive.events(since_s=since_s, newest=limit or newest, follow=follow)
        async with aclosing(reading) as found:
            async for event in found:
                if _is_wanted(event, service, audit=audit):
                    _show_event(cli, event)


def _is_wanted(event: EventRecord, service: str | None, *, audit: bool) -> bool:
    if audit and event.event != OperatorChange.name:
        return False
    return service is None or (event.model_extra or {}).get("service") == service


def _show_event(cli: Cli, event: EventRecord) -> None:
    """A line each, as they come: JSON lines for programs."""
    if cli.as_json:
        render.show_json(event, in_one_line=True)
        return
    colour = "red" if event.event.endswith(_BAD) else ""
    words = "  ".join(f"{key}={_word(value)}" for key, value in _details(event).items())
    render.show_hanging(f"{render.clock(event.time)}  ", render.cell(event.event, colour), words)


def _details(event: EventRecord) -> dict[str, Any]:
    """What is said beside the event's name; empty values and what has its own form are left out."""
    more = {**(event.model_extra or {})}
    more.pop("epochs", None)
    empty: tuple[object, ...] = ("", None, [], {})
    return {
        key: value
        for key, value in more.items()
        if value not in empty and (key == "ok" or value is not False)
    }


def _word(value: Any) -> str:
    if isinstance(value, list):
        named = ",".join(map(str, value[:3]))
        return named if len(value) <= 3 else f"{named},… ({len(value)})"
    if isinstance(value, dict):
        return ",".join(f"{key}:{item}" for key, item in value.items())
    text = str(value)
    return f'"{text}"' if " " in text else text
