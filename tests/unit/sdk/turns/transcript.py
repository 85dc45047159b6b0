"""Transcripts of a writer: what comes in, a command a line, and what goes out, each line behind a `>`.

    own 1 acc=w1          the next entry of the log: ownership 1 gives acc to w1 (the writer under test)
    own 2 !@acc !/wait    … ownership 2 says that acc and the method `wait` are paused, and nothing else; `!` is the service
    gate w1               … a gate
    turn w2 3 acc c.7 5   … a turn of another writer: the outcome of c.7 adds 5 to acc; `w2 -` is a single; also number=9
    end acc c.1           … its caller gave up
    echo                  … the entries that this writer stored and has not read yet, in their order
    lost 3                ownership entry 3 comes, though others are missing

    send acc c.1 add 5    a request, for a pure handler; `wait 5` for one that waits; also stored=9 after=9 single again at=100
    send acc c.1 add 5 urgent     … it passes those that wait; due=200: its deadline
    send acc c.1 add 5 born=90    … somebody may have begun it since (the n-th ownership entry is stored at 50 n)
    send acc c.1 add 5>bcc        … it hands in a request to bcc
    send acc c.1 add 5@a:120 … it sets a timer `a` that is due at 120; `5!a` drops it
    send - c.1 add 5      … to the group
    fire [now=120] [how=wait]     what is due is accepted
    timers                how many wait, and when to fire next
    finish c.1            its handler has finished
    note c.1              nothing else runs: its begin is to be noted
    found c.1 7 | found c.1 -     the log's answer to a look-up
    cancel c.1            its caller asks to end it
    compose [now=100]
    stored | refused | taken 7 | cloned | clashed      the store's answer to the oldest entry that has none
    pause acc | resume acc | tick [now=100]
    idle acc              may it leave memory?
    counts                of what is paused
    save stored | save refused | save lost      what became of the oldest checkpoint on its way
    sent | kept 9         the oldest request that was handed in, or the group's, is stored
    valuesof acc          what its state is

    begin acc=5,3,7,1 bcc another writer, w1 again: acc from a checkpoint that was made at entry 5 after outcome 3, with n=7, behind
                          ownership 1; bcc without one; `batched` for three nodes
    checkpoint acc w2 3   the next entry of the log: w2's checkpoint of acc, with outcome 3
    mark acc 3            … a turn of w2: all that outcomes up to 3 hand in was sent
    begun acc c.1 1       … a turn of w2: with this one, that many begins of c.1 are noted
    skip                  … an entry that this reader never gets

The state is one number, `n`; an outcome's reply is the number after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.holds import Hold
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.turns.checkpoints import Every
from aegis_sdk.domain.turns.entries import End, Entry, Gate, Own, Saved, Settled, Turn
from aegis_sdk.domain.turns.output import Output, Save, Sending
from aegis_sdk.domain.turns.ownership import MissingOwnership
from aegis_sdk.domain.turns.work import BehindTrim, Work, Write
from aegis_sdk.domain.turns.writer import Writer
from pydantic_core import from_json, to_json

ENDS_KEPT_S = 600.0


def added(request: Request, values: Mapping[str, Any], epoch: int) -> Outcome:
    """The one handler there is: adds the payload to `n` and answers with it."""
    text, _, to = request.payload.decode().partition(">")
    text, _, drop = text.partition("!")
    amount, _, later = text.partition("@")
    return outcome_of(
        values.get("n", 0) + int(amount),
        epoch,
        hands_in=_child(request, to),
        drop=(drop,) if drop else (),
        later=_timer(request, later),
    )


def _timer(request: Request, later: str) -> tuple[Mapping[str, Any], ...]:
    if not later:
        return ()
    name, due_s = later.split(":")
    asked = Request(
        f"{request.request_id.replace('.', '~')}.@{name}", "s", "add", request.resource, b"1"
    )
    return (Timer.made(name, float(due_s), asked).content,)


def _child(request: Request, to: str) -> tuple[Mapping[str, Any], ...]:
    return ({"id": request.request_id.replace(".", "~") + ".x", "to": to},) if to else ()


def outcome_of(
    n: int,
    epoch: int = 1,
    number: int = 0,
    hands_in: tuple[Mapping[str, Any], ...] = (),
    drop: tuple[str, ...] = (),
    later: tuple[Mapping[str, Any], ...] = (),
) -> Outcome:
    change = Change({"n": n}, (), hands_in, drop, later)
    return Outcome(
        OutcomeKind.EXECUTED,
        to_json(n),
        change.encode(),
        epoch=epoch,
        number=number,
        changed=change,
    )


class Player:
    """Plays a transcript's commands on one writer."""

    def __init__(self) -> None:
        self.writer = _writer()
        for resource in ("acc", "bcc", "ccc"):
            self.writer.restore(resource)
        self._seq = 0
        self._unanswered: deque[Write] = deque()
        self._unread: deque[Write] = deque()
        self._works: dict[str, Work] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self._saves: deque[Save] = deque()
        self._sendings: deque[Sending] = deque()
        self._keeps: deque[Work] = deque()

    def play(self, line: str) -> list[str]:
        """What goes out after one command, or after several with `&` between them."""
        said: list[str] = []
        try:
            for command in line.split(" & "):
                said += self._do(command) or []
        except (MissingOwnership, BehindTrim) as error:
            return [f"error: {error}"]
        return [*said, *self._shown(self.writer.take_output())]

    def _do(self, command: str) -> list[str] | None:
        verb, *words = command.split()
        plain = [word for word in words if "=" not in word or verb in ("own", "begin")]
        named = dict(word.split("=", 1) for word in words if word not in plain)
        said: list[str] | None = getattr(self, f"_{verb}")(*plain, **named)
        return said

    # --- the log ------------------------------------------------------------------------------------------
    def _read(self, entry: Callable[[int], Entry]) -> None:
        self._seq += 1
        self.writer.read(entry(self._seq))

    def _own(self, number: str, *moves: str) -> None:
        moved = dict(move.split("=", 1) for move in moves if "=" in move)
        holds = {move[1:]: Hold(100.0, "ann", "why") for move in moves if move[0] == "!"}
        at_s = 50.0 * int(number)
        self._read(lambda seq: Own(seq, int(number), moved, stored_s=at_s, holds=holds))

    def _lost(self, number: str) -> None:
        self._own(number)

    def _gate(self, writer: str) -> None:
        self._read(lambda seq: Gate(seq, writer))

    def _turn(
        self, writer: str, k: str, resource: str, request_id: str, amount: str, *, number: str = "0"
    ) -> None:
        held = self.writer.held[resource]
        n = held.values.get("n", 0) + int(amount)
        outcome = outcome_of(n, number=int(number) or held.number + 1)
        name = request_id if k == "-" else int(k)
        settled = [Settled(request_id, resource, outcome)]
        content = f"{request_id}={outcome.body.decode()}".encode()
        self._read(lambda seq: Turn(seq, writer, name, settled, content, stored_s=100.0))

    def _end(self, resource: str, request_id: str) -> None:
        self._read(lambda seq: End(seq, resource, request_id, stored_s=100.0))

    def _echo(self) -> None:
        while self._unread:
            write = self._unread.popleft()
            self._read(lambda seq, w=write: Turn(seq, "w1", w.name, content=w.content))  # type: ignore[misc]

    def _skip(self) -> None:
        self._seq += 1

    def _checkpoint(self, resource: str, writer: str, number: str) -> None:
        made = Checkpoint(writer, resource, read=self._seq, number=int(number))
        self._read(lambda seq: Saved(seq, made, stored_s=100.0))

    def _mark(self, resource: str, number: str) -> None:
        self._read(lambda seq: Turn(seq, "w2", seq, (), b"", 100.0, {resource: int(number)}))

    def _begun(self, resource: str, request_id: str, n: str) -> None:
        noted = [(resource, request_id, int(n))]
        self._read(lambda seq: Turn(seq, "w2", seq, (), b"", 100.0, begun=noted))

    def _begin(self, *words: str) -> None:
        self.writer = _writer(batched="batched" in words)
        for word in words:
            resource, _, text = word.partition("=")
            if text:
                read, number, n, own = map(int, text.split(","))
                values = to_json({"n": n})
                made = Checkpoint("w9", resource, "", read, number, 1, own, values=values)
                self.writer.restore(resource, made, saved_s=100.0)
            elif word != "batched":
                self.writer.restore(word)
        self._seq = self.writer.position

    # --- requests -----------------------------------------------------------------------------------------
    def _send(
        self,
        resource: str,
        request_id: str,
        how: str,
        amount: str,
        *flags: str,
        stored: str = "0",
        after: str = "0",
        at: str = "100",
        born: str = "inf",
        due: str = "",
    ) -> None:
        to = None if resource == "-" else resource
        request = Request(request_id, "s", how, to, amount.encode())
        request.deadline_s = float(due) if due else None
        request.attempt = 2 if "again" in flags else 1
        work = Work(
            request,
            sent_s=float(at),
            pure=how == "add",
            single="single" in flags,
            urgent="urgent" in flags,
            stored_seq=int(stored),
            after=int(after),
            born_s=float(born),
        )
        self._works.setdefault(request_id, work)
        self.writer.accept(work)
        self.writer.past_requests(work.stored_seq)

    def _fire(self, *, now: str = "100", how: str = "add") -> list[str]:
        fired = self.writer.fire(float(now))
        for timer in fired:
            work = Work(
                timer.request(),
                sent_s=float("inf"),
                pure=how == "add",
                born_s=timer.due_s - 2.0,
                timer=timer.name,
            )
            self._works[timer.id] = work
            self.writer.accept(work)
        return [f"fired {' '.join(timer.id for timer in fired)}"] if fired else []

    def _timers(self) -> list[str]:
        return [f"{self.writer.timers_open} timers, next at {self.writer.timers_next_s:g}"]

    def _finish(self, request_id: str) -> None:
        work = self._works[request_id]
        self.writer.computed(work, added(work.request, self._values[request_id], 1))

    def _note(self, request_id: str) -> None:
        self.writer.note(self._works[request_id])

    def _found(self, request_id: str, n: str) -> None:
        self.writer.looked_up(self._works[request_id], None if n == "-" else outcome_of(int(n)))

    def _cancel(self, request_id: str) -> None:
        self.writer.cancel(request_id, Outcome(OutcomeKind.CANCELLED, b'"cancelled"'))

    def _compose(self, *, now: str = "100") -> None:
        self.writer.compose(float(now))

    def _stored(self) -> None:
        write = self._unanswered.popleft()
        self._unread.append(write)
        self.writer.stored(write, 100.0)

    def _refused(self) -> None:
        self.writer.refused(self._unanswered.popleft())

    def _taken(self, n: str) -> None:
        self.writer.taken(self._unanswered.popleft(), outcome_of(int(n)))

    def _cloned(self) -> None:
        self.writer.cloned(self._unanswered.popleft())

    def _clashed(self) -> None:
        self.writer.clashed(self._unanswered.popleft())

    def _save(self, what: str) -> None:
        save = self._saves.popleft()
        if what == "stored":
            self.writer.saved(save, 100.0)
        elif what == "refused":
            self.writer.save_refused(save)
        else:
            self.writer.save_lost(save)

    def _sent(self) -> None:
        self.writer.sent(self._sendings.popleft())

    def _kept(self, stored_seq: str) -> None:
        self.writer.kept(self._keeps.popleft(), int(stored_seq))

    def _pause(self, resource: str) -> list[str]:
        if not self.writer.pause(resource):
            return ["under way"]
        return ["idle, saved" if self.writer.is_saved(resource) else "idle, not saved"]

    def _idle(self, resource: str) -> list[str]:
        return ["idle" if self.writer.is_idle(resource) else "in use"]

    def _counts(self) -> list[str]:
        begun, waiting = self.writer.holding.counts(list(self.writer.desk.open.values()))
        return [f"{begun} begun, {waiting} waiting"]

    def _resume(self, resource: str) -> None:
        self.writer.resume(resource)

    def _tick(self, *, now: str = "100") -> None:
        self.writer.tick(float(now))

    def _valuesof(self, resource: str) -> list[str]:
        return [f"{resource} {self.writer.held[resource].values}"]

    # --- what goes out ------------------------------------------------------------------------------------
    def _shown(self, out: Output) -> list[str]:
        lines = [f"stop: {out.stop}"] if out.stop else []
        for name in ("shut_out", "serving", "left", "unknown"):
            if words := getattr(out, name):
                lines.append(f"{name} {' '.join(words)}")
        for write in out.store:
            self._unanswered.append(write)
            write.content = _settled(write.works).encode()
            lines.append(_said(write))
        for save in out.save:
            self._saves.append(save)
            lines.append(f"save {_checkpoint(save.checkpoint)} under {save.gate}")
        self._sendings += out.send
        self._keeps += out.keep
        for sending in out.send:
            lines.append(f"send {sending.content['id']} to {sending.content['to']}")
        for name in ("run", "noted", "cancel", "look_up", "keep", "answer"):
            if works := getattr(out, name):
                settled = name == "answer"
                lines.append(f"{name} {_settled(works) if settled else _named(works)}")
        for work in out.run:
            held = self.writer.held.get(work.request.resource or "")
            self._values[work.request.request_id] = {} if held is None else dict(held.values)
            if work.begun > 1:
                lines.append(
                    f"begin {work.begun} of {work.request.request_id}: {work.verdict.name.lower()}"
                )
        lines += [f"drop {work.request.request_id}: {work.why}" for work in out.dropped]
        for work in out.dropped:
            if work.timer:  # as the host does
                self.writer.unfired(work)
        return lines


def _writer(*, batched: bool = False) -> Writer:
    every = Every(changes=4, entries=20, seconds=60.0, at_a_time=2)
    return Writer("w1", added, ends_kept_s=ENDS_KEPT_S, batched=batched, every=every)


def _said(write: Write) -> str:
    what = f"turn {write.k}" if write.k else f"single {write.name}"
    parts = [_settled(write.works)] if write.works else []
    if write.singles:
        parts.append(f"singles {_settled(write.singles)}")
    parts += [f"save {_checkpoint(made)}" for made in write.saves]
    parts += [f"begin {n + 1} of {request_id}" for _, request_id, n in write.begun]
    parts += [f"sent {resource} {number}" for resource, number in write.sent.items()]
    guard = f" under {write.gate}" if write.gate else ""
    return f"store {what}{guard}: {', '.join(parts)}"


def _checkpoint(made: Checkpoint) -> str:
    return f"{made.resource} at {made.read}, outcome {made.number}: {made.values.decode()}"


def _named(works: list[Work]) -> str:
    return " ".join(work.request.request_id for work in works)


def _settled(works: list[Work]) -> str:
    return " ".join(
        f"{work.request.request_id}={_said_of(work.outcome)}" for work in works if work.outcome
    )


def _said_of(outcome: Outcome) -> str:
    """The number; of a paused one, what its caller is told."""
    body = outcome.body.decode()
    return str(from_json(body)["message"]) if body.startswith("{") else body


class Plays(Protocol):
    def play(self, line: str) -> list[str]:
        """What goes out after one command."""


def played(text: str, make: Callable[[], Plays] = Player) -> str:
    """The transcript with what goes out now in place of what it says goes out."""
    player: Plays | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            continue
        lines.append(line)
        if line.startswith("# "):
            player = make()  # each story begins anew
        elif player is not None and line and not line.startswith("-- "):
            lines += [f"> {out}" for out in player.play(line)]
    return "\n".join(lines) + "\n"
