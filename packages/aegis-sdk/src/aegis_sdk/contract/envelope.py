"""The stored messages: a request and an outcome, headers and bodies, both ways. Bodies that pydantic reads: bodies.py.

A request's body is the payload's JSON and nothing else. An outcome's body is one or two lines: the
reply (or error) as JSON, then the state change as JSON; compact JSON holds no raw line feed. What
the server or an operator's tool needs to see is in the headers.

Any NATS client may write into a request stream, and a client of any version. So `Request.parse` is the one place where a
stranger's words become ours: what could break a subject, a header or a log line later on is refused there, and nobody
behind it looks again. Headers of a newer version that are not known here are passed over. One that has to be understood for
a request to be right must therefore not be a new header alone; the protocol's number is for that.

An outcome is final where it stands, so reading one never refuses it: what can't be read is an outcome of the kind UNREADABLE
(`Outcome.found`). To treat it as missing would have the request run again.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pydantic_core import from_json, to_json

from aegis_sdk.contract.ids import check_request_id, waiting_id
from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import InvalidName
from aegis_sdk.words import said, said_of

MSG_ID: Final = "Nats-Msg-Id"
METHOD: Final = "aegis-method"
DEADLINE: Final = "aegis-deadline"
ATTEMPT: Final = "aegis-attempt"
CHAIN: Final = "aegis-chain"
FINGERPRINT: Final = "aegis-fingerprint"
GIVEN_TO: Final = "aegis-given-to"
NOT_BEFORE: Final = "aegis-not-before"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
OUTCOME: Final = "aegis-outcome"
"""`executed seq=17 epoch=3 instance=accounts-1 fingerprint=… trace=…`: one header, since every client
library parses headers one by one, and each outcome passes two of them."""

TRACEPARENT_FORM: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_TRACESTATE: Final = re.compile(r"[ -~]{0,512}")
_WORD: Final = re.compile(r"[!-~]{0,64}")
_CHAIN: Final = re.compile(r"[!-~]*")
_DEADLINE_S_MAX: Final = 1e11
"""The year 5138; timers can't count to what a float can."""
_HEADER_TEXT_MAX: Final = 1000
BY_HANDLER: Final = "handler"
"""In a refusal whose code a handler chose: it may be a word that the contract has a meaning for."""
WORDS_DEPTH_MAX: Final = 8
"""Of an error's details that JSON can't carry, which may even hold themselves."""

# Values, never changed after they are made; not `frozen`, since that makes their making five times as
# slow (0.7 against 0.13 µs), and a call makes a dozen.


class OutcomeKind(StrEnum):
    """How a request ended (G2: exactly one of these, stored once)."""

    EXECUTED = "executed"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNREADABLE = "unreadable"
    """Stored in a form that this version can't read; never written."""


_BELOW_1_MS: Final = 0.000_499
"""A deadline is written in whole milliseconds, and never as a later one: what has passed has passed for everybody."""
_KINDS: Final = {kind.value: kind for kind in OutcomeKind}


@dataclass(slots=True)
class Request:
    """A request as stored. `deadline_s` is Unix time; None waits as long as the stream keeps it.

    `attempt` above 1 says that it may have been sent before: its outcome is looked up before it runs. `fingerprint` is
    there with a key, and tells whether the same key came with another request (`KeyReused`). `chain` has the resources
    whose handlers wait for this one, `<service>/<token>`, outermost first: by it a `Deadlock` is told. `traceparent` and
    `tracestate` are W3C's, empty when there are none.
    """

    request_id: str
    service: str
    method: str
    resource: str | None
    payload: bytes
    deadline_s: float | None = None
    attempt: int = 1
    fingerprint: str = ""
    chain: tuple[str, ...] = ()
    traceparent: str = ""
    tracestate: str = ""
    given_to: str = ""
    """Of a group request: the member that it was sent to, and that may run it when it is stored besides."""
    not_before_s: float = 0.0
    """Unix time before which it does not begin; 0: at once."""
    waits: Request | None = None
    """The request that this one makes a timer of (`until_its_time`): it has no handler."""

    def headers(self) -> dict[str, str]:
        """What `parse` reads; service and resource are in the subject. What has its default is left out: most have three
        headers.
        """
        headers = {MSG_ID: self.request_id, METHOD: self.method}
        if self.deadline_s is not None:
            headers[DEADLINE] = f"{self.deadline_s - _BELOW_1_MS:.3f}"
        if self.attempt > 1:
            headers[ATTEMPT] = str(self.attempt)
        if self.fingerprint:
            headers[FINGERPRINT] = self.fingerprint
        if self.chain:
            headers[CHAIN] = ",".join(self.chain)
        if self.traceparent:
            headers[TRACEPARENT] = self.traceparent
        if self.tracestate:
            headers[TRACESTATE] = self.tracestate
        if self.given_to:
            headers[GIVEN_TO] = self.given_to
        if self.not_before_s:
            headers[NOT_BEFORE] = repr(self.not_before_s)
        return headers

    def until_its_time(self) -> Request:
        """What is done with it when it comes: its resource gets a timer, whose request it is."""
        return Request(
            request_id=waiting_id(self.request_id),
            service=self.service,
            method=self.method,
            resource=self.resource,
            payload=b"",
            attempt=self.attempt,
            fingerprint=self.fingerprint,
            traceparent=self.traceparent,
            waits=self,
        )

    @classmethod
    def parse(
        cls, headers: Mapping[str, str], payload: bytes, *, service: str, resource: str | None
    ) -> Request:
        """Any NATS client may have written it: what would break a subject or a header on its way is refused.

        A trace that can't be read is left out. Raises: KeyError, ValueError when it was not written by an
        AegisIPC client.
        """
        deadline = headers.get(DEADLINE)
        not_before = headers.get(NOT_BEFORE)
        chain = headers.get(CHAIN, "")
        try:
            request_id = check_request_id(headers[MSG_ID])
            if not_before is not None:
                check_request_id(waiting_id(request_id))
            method = check_service(headers[METHOD])
        except InvalidName as error:
            raise ValueError(str(error)) from None
        return cls(
            request_id=request_id,
            service=service,
            method=method,
            resource=resource,
            payload=payload,
            deadline_s=None if deadline is None else _time_s(DEADLINE, deadline),
            attempt=max(1, int(headers.get(ATTEMPT, "1"))),
            fingerprint=_checked(_WORD, FINGERPRINT, headers.get(FINGERPRINT, "")),
            chain=tuple(_checked(_CHAIN, CHAIN, chain).split(",")) if chain else (),
            traceparent=_known(TRACEPARENT_FORM, headers.get(TRACEPARENT, "")),
            tracestate=_known(_TRACESTATE, headers.get(TRACESTATE, "")),
            given_to=_checked(_WORD, GIVEN_TO, headers.get(GIVEN_TO, "")),
            not_before_s=0.0 if not_before is None else _time_s(NOT_BEFORE, not_before),
        )


def _time_s(header: str, text: str) -> float:
    at_s = float(text)
    if not math.isfinite(at_s):
        raise ValueError(f"{header} {text!r} is no time")
    return min(at_s, _DEADLINE_S_MAX)


def _checked(form: re.Pattern[str], header: str, text: str) -> str:
    if text and not form.fullmatch(text):
        raise ValueError(f"{header} {text[:80]!r} can't be read")
    return text


def _known(form: re.Pattern[str], text: str) -> str:
    return text if text and form.fullmatch(text) else ""


def header_text(text: str) -> str:
    """What a user's code said, as a header can carry it: one line of valid text, cut where it is long."""
    line = " ".join(text.split())[:_HEADER_TEXT_MAX]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def fingerprint(method: str, resource: str | None, payload: bytes) -> str:
    """16 hex digits that tell one keyed request from another under the same key.

    Each part goes in with its length, so no two requests are the same bytes. Two keyed requests of one fingerprint by
    chance, one in 2^64, would be taken for the same.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (method.encode(), b"" if resource is None else b"@" + resource.encode(), payload):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.hexdigest()


@dataclass(slots=True)
class Change:
    """What a request changed in its resource's state: JSON values by key, and the keys deleted. And what it sends on, and
    its timers.

    All of it is in the outcome's entry, so it comes to be with the outcome or not at all (G3). It is folded in this order:
    `set`, `delete`, `drop`, `later`. An older version passes over a list that it does not know.
    """

    set: Mapping[str, Any] = field(default_factory=dict)
    delete: tuple[str, ...] = ()
    send: tuple[Mapping[str, Any], ...] = ()
    """What is sent once this change is stored: requests (contract/turns/sends.py) and events (contract/turns/events.py)."""
    drop: tuple[str, ...] = ()
    """Names of timers that are dropped."""
    later: tuple[Mapping[str, Any], ...] = ()
    """Timers that are set, after those were dropped (contract/turns/timers.py)."""

    def __bool__(self) -> bool:
        return bool(self.set or self.delete or self.send or self.drop or self.later)

    def encode(self) -> bytes:
        content: dict[str, Any] = {"set": self.set, "delete": self.delete}
        if self.send:
            content["send"] = self.send
        if self.drop:
            content["drop"] = self.drop
        if self.later:
            content["later"] = self.later
        return to_json(content)

    @classmethod
    def decode(cls, data: bytes) -> Change:
        """Raises: ValueError when it is none."""
        if not data:
            return cls()
        raw = from_json(data)
        try:
            values, deleted = raw["set"], raw["delete"]
            lists = [raw.get(name, []) for name in ("send", "drop", "later")]
        except (KeyError, TypeError) as error:
            raise ValueError("a change has what is set and what is deleted") from error
        if type(values) is not dict or any(type(each) is not list for each in (deleted, *lists)):
            raise ValueError("a change sets an object, and all else in it is a list")
        send, drop, later = map(tuple, lists)
        return cls(values, tuple(map(str, deleted)), send, tuple(map(str, drop)), later)


@dataclass(slots=True)
class Outcome:
    """How a request ended, as stored in the log.

    `body` is the reply's JSON (executed) or an ErrorBody (all others). `change` is the encoded Change
    or empty; `changed` the same, where it is at hand. `epoch` is 0 for group requests and cancels.
    """

    kind: OutcomeKind
    body: bytes
    change: bytes = b""
    epoch: int = 0
    instance_id: str = ""
    fingerprint: str = ""
    traceparent: str = ""
    number: int = 0
    """Its place among its resource's outcomes (domain/turns/entries.py); 0 for one that has none."""
    changed: Change | None = field(default=None, compare=False, repr=False)
    position: str = field(default="", compare=False)
    """A position of the log that has it, where that is known (contract/turns/reads.py)."""

    def headers(self) -> dict[str, str]:
        return {OUTCOME: self.words()}

    def words(self) -> str:
        """All but body and change, in one line."""
        words = self.kind.value
        if self.epoch:
            words += f" epoch={self.epoch}"
        if self.instance_id:
            words += f" instance={self.instance_id}"
        if self.fingerprint:
            words += f" fingerprint={self.fingerprint}"
        if self.traceparent:
            words += f" trace={self.traceparent}"
        if self.number:
            words += f" n={self.number}"
        return words

    def payload(self) -> bytes:
        """Both lines, as `read` takes them. In a turn they are parted by their lengths instead (contract/turns/entries.py)."""
        return self.body + b"\n" + self.change if self.change else self.body

    @classmethod
    def parse(cls, headers: Mapping[str, str], payload: bytes) -> Outcome:
        """Raises: KeyError, ValueError when it is not an outcome."""
        return cls.read(headers[OUTCOME], payload)

    @classmethod
    def read(cls, header: str, payload: bytes) -> Outcome:
        """`parse` with the one header that counts. Raises: KeyError, ValueError."""
        body, _, change = payload.partition(b"\n")
        return cls.told(header, body, change)

    @classmethod
    def told(cls, said: str, body: bytes, change: bytes) -> Outcome:
        """The inverse of `words`. Raises: ValueError."""
        word, *words = said.split(" ")
        kind = _KINDS.get(word)
        if kind is None:
            raise ValueError(f"outcome {word!r} is of no known kind")
        known = dict([word.split("=", 1) for word in words])
        return cls(
            kind=kind,
            body=body,
            change=change,
            epoch=int(known.get("epoch", "0")),
            instance_id=known.get("instance", ""),
            fingerprint=known.get("fingerprint", ""),
            traceparent=known.get("trace", ""),
            number=int(known.get("n", "0")),
        )

    @classmethod
    def found(cls, headers: Mapping[str, str], payload: bytes) -> Outcome:
        """`parse` of what stands where an outcome belongs: it is final, whether it can be read or not."""
        try:
            return cls.parse(headers, payload)
        except (KeyError, ValueError) as error:
            return cls.error(OutcomeKind.UNREADABLE, "unreadable", said_of(error))

    @classmethod
    def error(cls, kind: OutcomeKind, code: str, message: str = "", **extra: Any) -> Outcome:
        error = {"code": code, "message": message, "details": extra.pop("details", {})}
        if (by := extra.pop("by", "")) != "":
            error["by"] = by
        return cls(kind, _any_to_json(error), **extra)


def _any_to_json(error: dict[str, Any]) -> bytes:
    """JSON of whatever an error holds: what has no JSON form is said in words, never refused, since a
    request without an outcome would hold up all behind it.
    """
    try:
        return to_json(error, serialize_unknown=True, inf_nan_mode="strings")
    except Exception:  # users' values: their serializers may raise anything
        return to_json(_in_words(error, 0))


def _in_words(value: Any, depth: int) -> Any:
    if type(value) is dict and depth < WORDS_DEPTH_MAX:
        return {said(key): _in_words(item, depth + 1) for key, item in value.items()}
    return said(value)
