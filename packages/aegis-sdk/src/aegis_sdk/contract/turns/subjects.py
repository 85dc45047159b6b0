"""Subjects of a service's log and of what is sent, below `<prefix>.jrn.<service>` where they are entries of the service's log.

gate.<writer>                    a new one replaces the one before
claim.<writer>.<nonce>           a process says that it is this writer, on a new connection
own.<n>                          the n-th change of ownership
turn.<writer>.<k>                a turn; of two or more outcomes
turn.<writer>.<k>.<caller>.<n>   a turn of one outcome, republished to its caller
at.<resource>.out.<caller>.<n>   a single, republished to its caller
any.-.out.<caller>.<n>           the outcome of a group request, republished too; who folds the log does not read it
at.<resource>.state              the newest checkpoint
part.<resource>.<id>.<n>         a part of one that is larger than a message; who folds the log does not read it
end.<resource>.<caller>.<n>      the caller gave up
try.<caller>.<n>                 how many begins of a group request are noted; who folds the log does not read it
proof.<writer>                   the log has taken something of this writer; who folds the log does not read it

The kind comes first, so that no name of a resource can be taken for one. What the server republishes has seven tokens
behind the prefix, and nothing else has: a stream has one rule for republishing.

<prefix>.at.<service>.<resource>   a request, sent to the resource's active
<prefix>.any.<service>.<instance>  a group request, sent to one of the instances
<prefix>.rep.<caller>.<n>          answers, by request id
<prefix>.now.<service>             an instance tells callers what it serves from now on
<prefix>.read.<service>.active.<resource>    a read, to the resource's active
<prefix>.read.<service>.standby.<resource>   a read, to one of those that follow it
"""

from __future__ import annotations

from aegis_sdk.contract.names import NO_RESOURCE, check_service, decode_token, encode_token
from aegis_sdk.contract.subjects import Subjects


class LogSubjects:
    """The names of one service, made once: several are needed for each call."""

    def __init__(self, subjects: Subjects, service: str) -> None:
        self.service = check_service(service)
        self.stream = subjects.journal_stream(service)
        self.all = subjects.journal(service)
        self.replies = subjects.reply("")
        self._log = self.all[:-1]
        self._sent = f"{subjects.prefix}.at.{service}."
        self._sent_to_any = f"{subjects.prefix}.any.{service}."
        self.served = f"{subjects.prefix}.now.{service}"
        self._read_at_active = f"{subjects.prefix}.read.{service}.active."
        self._read_at_standby = f"{subjects.prefix}.read.{service}.standby."
        self._parts = self._log.count(".")
        self.republish_source = f"{subjects.prefix}.jrn.*.*.*.*.*.*"
        self.republish_destination = f"{self.replies}{{{{wildcard(5)}}}}.{{{{wildcard(6)}}}}"

    # --- entries ------------------------------------------------------------------------------------------
    def gate(self, writer: str) -> str:
        return f"{self._log}gate.{writer}"

    def claim(self, writer: str, nonce: str) -> str:
        return f"{self._log}claim.{writer}.{nonce}"

    def own(self, number: int) -> str:
        return f"{self._log}own.{number}"

    @property
    def own_anywhere(self) -> str:
        return f"{self._log}own.*"

    def turn(self, writer: str, k: int) -> str:
        return f"{self._log}turn.{writer}.{k}"

    def turn_of_one(self, writer: str, k: int, request_id: str) -> str:
        return f"{self._log}turn.{writer}.{k}.{request_id}"

    def single(self, resource: str | None, request_id: str) -> str:
        if resource is None:
            return f"{self._log}any.{NO_RESOURCE}.out.{request_id}"
        return f"{self._log}at.{encode_token(resource)}.out.{request_id}"

    def single_anywhere(self, request_id: str) -> str:
        return f"{self._log}*.*.out.{request_id}"

    def checkpoint(self, resource: str) -> str:
        return f"{self._log}at.{encode_token(resource)}.state"

    def part(self, resource: str, checkpoint_id: str, n: int) -> str:
        return f"{self._log}part.{encode_token(resource)}.{checkpoint_id}.{n}"

    def parts(self, resource: str) -> str:
        return f"{self._log}part.{encode_token(resource)}.>"

    def turn_of_one_anywhere(self, request_id: str) -> str:
        return f"{self._log}turn.*.*.{request_id}"

    def end(self, resource: str, request_id: str) -> str:
        return f"{self._log}end.{encode_token(resource)}.{request_id}"

    def end_anywhere(self, request_id: str) -> str:
        return f"{self._log}end.*.{request_id}"

    def begins(self, request_id: str) -> str:
        return f"{self._log}try.{request_id}"

    def proof(self, writer: str) -> str:
        return f"{self._log}proof.{writer}"

    @property
    def checkpoints(self) -> str:
        return f"{self._log}at.*.state"

    @property
    def outcomes(self) -> list[str]:
        """All that resources are told by."""
        return [f"{self._log}turn.>", f"{self._log}at.*.out.>"]

    @property
    def turns(self) -> list[str]:
        """Those of several outcomes."""
        return [f"{self._log}turn.*.*"]

    @property
    def group_outcomes(self) -> str:
        return f"{self._log}any.>"

    @property
    def ends(self) -> str:
        return f"{self._log}end.>"

    def claims(self, writer: str) -> str:
        return f"{self._log}claim.{writer}.*"

    @property
    def folded(self) -> list[str]:
        """All but the group's outcomes, which change nothing."""
        kinds = ("gate.*", "claim.>", "own.*", "turn.>", "at.>", "end.>")
        return [self._log + kind for kind in kinds]

    @property
    def ownership_and_ends(self) -> list[str]:
        """All that says who may write, and up to where that is known."""
        return [self.own_anywhere, f"{self._log}gate.*", self.ends]

    def words(self, subject: str) -> list[str]:
        """What an entry's subject says behind the service: its kind, and the rest of it."""
        return subject[len(self._log) :].split(".")

    # --- what is sent -------------------------------------------------------------------------------------
    def sent(self, resource: str) -> str:
        return self._sent + encode_token(resource)

    def sent_to_member(self, instance_id: str) -> str:
        return self._sent_to_any + instance_id

    def sent_to(self, subject: str) -> str | None:
        """The resource of a `sent` subject; None of a group request's. Raises: ValueError."""
        if subject.startswith(self._sent_to_any):
            return None
        return decode_token(subject[len(self._sent) :])

    def read(self, resource: str, *, at_standby: bool) -> str:
        prefix = self._read_at_standby if at_standby else self._read_at_active
        return prefix + encode_token(resource)

    def read_of(self, subject: str) -> tuple[str, bool]:
        """(resource, whether a standby is asked) of a `read` subject. Raises: ValueError."""
        if subject.startswith(self._read_at_standby):
            return decode_token(subject[len(self._read_at_standby) :]), True
        return decode_token(subject[len(self._read_at_active) :]), False

    def reply(self, request_id: str) -> str:
        return self.replies + request_id
