"""AegisIPC: typed requests between trading services, each with exactly one outcome and one effect.

The public names are imported when they are first used, so that a program that needs only the contracts
(control, say) doesn't load the client with them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aegis_sdk import blocking as blocking
    from aegis_sdk.client import Aegis, connect
    from aegis_sdk.context import Context, ReadContext, ResourceContext, Ticket
    from aegis_sdk.contract.control import Role
    from aegis_sdk.contract.envelope import OutcomeKind
    from aegis_sdk.contract.event import Event
    from aegis_sdk.contract.method import Method
    from aegis_sdk.contract.on_demand import Resources
    from aegis_sdk.domain.retries import Retries
    from aegis_sdk.errors import (
        AegisError,
        CallChanged,
        Cancelled,
        ContractError,
        Copied,
        Deadlock,
        Draining,
        Evicted,
        Expired,
        Fenced,
        HandlerFailed,
        InvalidAddress,
        InvalidArgument,
        InvalidName,
        InvalidPayload,
        KeyReused,
        LogLost,
        NeverAccepted,
        NoRoute,
        NotExecuted,
        OutcomeUnknown,
        OutcomeUnreadable,
        Overloaded,
        Paused,
        PayloadTooLarge,
        RefusedByNats,
        RegistrationRefused,
        Rejected,
        ReplyUnreadable,
        SecondActive,
        TooFarBehind,
        Unavailable,
        UnknownMethod,
        UnknownService,
    )
    from aegis_sdk.instance import Instance
    from aegis_sdk.log_writer import LogWriter
    from aegis_sdk.service import Service
    from aegis_sdk.state import State
    from aegis_sdk.telemetry import configure_logs

__all__ = [
    "Aegis",
    "AegisError",
    "CallChanged",
    "Cancelled",
    "Context",
    "ContractError",
    "Copied",
    "Deadlock",
    "Draining",
    "Event",
    "Evicted",
    "Expired",
    "Fenced",
    "HandlerFailed",
    "Instance",
    "InvalidAddress",
    "InvalidArgument",
    "InvalidName",
    "InvalidPayload",
    "KeyReused",
    "LogLost",
    "LogWriter",
    "Method",
    "NeverAccepted",
    "NoRoute",
    "NotExecuted",
    "OutcomeKind",
    "OutcomeUnknown",
    "OutcomeUnreadable",
    "Overloaded",
    "Paused",
    "PayloadTooLarge",
    "ReadContext",
    "RefusedByNats",
    "RegistrationRefused",
    "Rejected",
    "ReplyUnreadable",
    "ResourceContext",
    "Resources",
    "Retries",
    "Role",
    "SecondActive",
    "Service",
    "State",
    "Ticket",
    "TooFarBehind",
    "Unavailable",
    "UnknownMethod",
    "UnknownService",
    "configure_logs",
    "connect",
]

_HOMES: Final = (
    *(
        "errors",
        "contract.method",
        "contract.event",
        "contract.control",
        "contract.envelope",
        "contract.on_demand",
        "domain.retries",
        "telemetry",
    ),
    *("state", "context", "service", "log_writer", "instance", "client"),
)
"""Where the names are, the ones that load least first."""


def __getattr__(name: str) -> Any:
    if name == "blocking":
        return import_module("aegis_sdk.blocking")
    if name in __all__:
        for home in _HOMES:
            found = vars(import_module(f"aegis_sdk.{home}"))
            if name in found:
                return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
