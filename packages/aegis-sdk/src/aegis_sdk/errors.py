"""Every error that the SDK raises, in one tree. Each branch answers: may I try again?

AegisError
├─ ContractError        a bug of ours or the peer's                                 don't retry
│  ├─ InvalidName         a service, method, instance or resource id that can't be used
│  ├─ InvalidArgument     an argument of another type, or out of its bounds
│  ├─ InvalidAddress      a NATS address that can't be read
│  ├─ InvalidPayload      the payload doesn't fit the model; `fields` says where
│  ├─ PayloadTooLarge     over the server's max_payload
│  ├─ UnknownService      nobody ever registered it
│  ├─ UnknownMethod       the service is known, the method isn't
│  ├─ KeyReused           the idempotency key was used with another request
│  ├─ CallChanged         a handler that runs again asks something else than before
│  └─ Deadlock            the call chain comes back to a resource that waits for it
├─ Rejected             the handler refused: code, message, details                 it is the answer
├─ HandlerFailed        the handler broke and gave up                               it is the answer
├─ ReplyUnreadable      it took effect; its reply doesn't fit this caller's type    it is the answer
├─ NotExecuted          certainly without effect                                    safe to retry
│  ├─ NoRoute             no instance for the service or resource
│  ├─ TooFarBehind        no standby has read so much of the log in time
│  ├─ LogLost             the service's streams lost entries; an operator has to decide
│  ├─ Paused              an operator has paused the resource, the method or the service
│  ├─ Overloaded          the request stream is full
│  ├─ Expired             the deadline passed before a handler took it
│  ├─ Cancelled           the caller gave up in time: at its deadline, or on purpose
│  └─ Draining            this client is closing
├─ OutcomeUnknown       NATS could not be reached; carries request_id               attach, or same key
│  └─ NeverAccepted       neither the request stream nor the journal has the id       same key
├─ OutcomeUnreadable    it has one, in a form that this version can't read          attach from the version that wrote it
├─ Unavailable          NATS or control could not be reached; nothing was sent      retry later
│  └─ RefusedByNats        NATS refused the login, or a right that it takes            fix the cause
├─ RegistrationRefused  control refused this instance                               fix the cause
│  └─ SecondActive        another instance is active for the resource
└─ Fenced               this instance is no longer the active                       stop
   ├─ Evicted             an operator disconnected this instance
   └─ Copied              another process has this instance's identity
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aegis_sdk.words import WHOLE, said


class AegisError(Exception):
    """Base of all errors of AegisIPC. `code` is stable, snake_case, and what logs and metrics show."""

    code = "aegis_error"


class ContractError(AegisError):
    """The request can't be served as it is, now or later: fix the program."""

    code = "contract_error"


class InvalidName(ContractError):
    """A name or id that the subject space can't carry."""

    code = "invalid_name"


class InvalidArgument(ContractError):
    """An argument of another type than the verb takes, or out of its bounds; nothing was done."""

    code = "invalid_argument"


class InvalidAddress(ContractError):
    """A NATS address that can't be read; the message hides what may be a password or a token."""

    code = "invalid_address"


class InvalidPayload(ContractError):
    """The payload doesn't fit the contract; `fields` has one line a field ("quantity: must be > 0")."""

    code = "invalid_payload"

    def __init__(self, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class PayloadTooLarge(ContractError):
    """The encoded payload is over the NATS server's max_payload."""

    code = "payload_too_large"


class UnknownService(ContractError):
    """No instance ever registered this service."""

    code = "unknown_service"


class UnknownMethod(ContractError):
    """The service's registered contract has no such method."""

    code = "unknown_method"


class KeyReused(ContractError):
    """The idempotency key already belongs to a request with another method, resource or payload."""

    code = "key_reused"


class CallChanged(ContractError):
    """A handler that runs again makes another call than its earlier run did, whose effect stands.

    Nothing was sent. A handler has to compute what it asks from its request, its state and the replies that it
    got: a clock, chance or a new id in a payload would be a second effect. `ctx.request_id` and
    `ctx.idempotency_key` are the same in every run.
    """

    code = "call_changed"


class Deadlock(ContractError):
    """The call chain comes back to a resource that is busy waiting for this very call."""

    code = "deadlock"


class Rejected(AegisError):
    """The handler's own refusal. Raise it in a handler; the caller gets the same code, message and details.

    It is an outcome like a reply: stored, final, without a state change.
    """

    def __init__(
        self, code: str, message: str = "", details: Mapping[str, object] | None = None
    ) -> None:
        # Untyped code gives numbers and enums, too: what counts is that the refusal reaches its caller.
        self.code = said(code)
        self.message = "" if message is None else said(message, chars_max=WHOLE)
        self.details = _details(details)
        super().__init__(f"{self.code}: {self.message}" if self.message else self.code)


def _details(details: object) -> dict[str, object]:
    if details is None:
        return {}
    return dict(details) if isinstance(details, Mapping) else {"details": details}


class HandlerFailed(AegisError):
    """The handler raised (or killed its process again and again) and gave up; no state was changed.

    `path` has the methods from the one that was asked to the one that broke, which it may have asked itself.
    """

    code = "handler_failed"

    def __init__(self, message: str = "", path: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.path = tuple(path)


class ReplyUnreadable(AegisError):
    """The request was executed and took effect, but the reply that is stored doesn't fit this caller's type,
    as between two versions of a service; `fields` has one line a field.

    `attach` with the type that the service had when it ran gives the reply.
    """

    code = "reply_unreadable"

    def __init__(self, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class NotExecuted(AegisError):
    """The request certainly had and will have no effect."""

    code = "not_executed"


class NoRoute(NotExecuted):
    """No instance serves the service or owns the resource; nothing was stored."""

    code = "no_route"


class TooFarBehind(NotExecuted):
    """A read at a standby asks for more of the log than one has read in time; the message says how far it is."""

    code = "too_far_behind"


class LogLost(NotExecuted):
    """A stream of the service was deleted, emptied or replaced by an older copy; the message says what is
    missing. Nothing is served until an operator accepts the loss (`ipc-cli accept-loss`).
    """

    code = "log_lost"


class Paused(NotExecuted):
    """An operator has paused the resource, the method or the service; the message has the reason.

    Try again when it is resumed; a request with a key, under a new one.
    """

    code = "paused"


class Overloaded(NotExecuted):
    """The request stream is at its bound. The request has no effect; its id (and key) is used up."""

    code = "overloaded"


class Expired(NotExecuted):
    """The deadline had passed when the handler's turn came."""

    code = "expired"


class Cancelled(NotExecuted):
    """The caller gave up first, at its deadline or on purpose, and `cancelled` is the stored outcome."""

    code = "cancelled"


class Draining(NotExecuted):
    """This client is draining or closed and takes no new requests."""

    code = "draining"


class OutcomeUnknown(AegisError):
    """NATS could not be reached to end the doubt; `attach(request_id, method)` resolves it later."""

    code = "outcome_unknown"

    def __init__(self, message: str, request_id: str) -> None:
        super().__init__(message)
        self.request_id = request_id


class NeverAccepted(OutcomeUnknown):
    """Attached to an id that is nowhere: it did not reach the request stream, or both forgot it since.

    To attach again will not help. A request with a key may be handed in again under that key.
    """

    code = "never_accepted"


class OutcomeUnreadable(AegisError):
    """The request ended, and how is stored in a form that this version can't read: `attach` from another."""

    code = "outcome_unreadable"

    def __init__(self, message: str, request_id: str) -> None:
        super().__init__(message)
        self.request_id = request_id


class Unavailable(AegisError):
    """NATS or the control service did not answer; nothing was stored."""

    code = "unavailable"


class RefusedByNats(Unavailable):
    """NATS refused the login or the use of a subject; the message has its reason, and names the subject."""

    code = "refused_by_nats"


class RegistrationRefused(AegisError):
    """Control refused to register this instance; the message says why and what to do."""

    code = "registration_refused"


class SecondActive(RegistrationRefused):
    """Another live instance is active for a resource that this one claims as active."""

    code = "second_active"


class Fenced(AegisError):
    """A newer epoch exists: this instance is no longer the active, and its commit was refused."""

    code = "fenced"


class Evicted(Fenced):
    """An operator disconnected this instance; it does not come back by itself."""

    code = "evicted"


class Copied(Fenced):
    """Another process has this instance's identity (a cloned process or machine), and goes on in its place."""

    code = "identity_copied"
