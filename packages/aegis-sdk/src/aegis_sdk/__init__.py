"""AegisIPC: typed requests between trading services, each with exactly one outcome and one effect."""

from aegis_sdk.client import Aegis, connect
from aegis_sdk.context import Context, ResourceContext, State, Ticket
from aegis_sdk.contract.control import Role
from aegis_sdk.contract.method import Method
from aegis_sdk.domain.delivery import Retries
from aegis_sdk.errors import (
    AegisError,
    Cancelled,
    ContractError,
    Deadlock,
    Draining,
    Evicted,
    Expired,
    Fenced,
    HandlerFailed,
    InvalidName,
    InvalidPayload,
    KeyReused,
    NoRoute,
    NotExecuted,
    OutcomeUnknown,
    Overloaded,
    PayloadTooLarge,
    RegistrationRefused,
    Rejected,
    SecondActive,
    Unavailable,
    UnknownMethod,
    UnknownService,
)
from aegis_sdk.instance import Instance
from aegis_sdk.service import Service
from aegis_sdk.telemetry import configure_logs

__all__ = [
    "Aegis",
    "AegisError",
    "Cancelled",
    "Context",
    "ContractError",
    "Deadlock",
    "Draining",
    "Evicted",
    "Expired",
    "Fenced",
    "HandlerFailed",
    "Instance",
    "InvalidName",
    "InvalidPayload",
    "KeyReused",
    "Method",
    "NoRoute",
    "NotExecuted",
    "OutcomeUnknown",
    "Overloaded",
    "PayloadTooLarge",
    "RegistrationRefused",
    "Rejected",
    "ResourceContext",
    "Retries",
    "Role",
    "SecondActive",
    "Service",
    "State",
    "Ticket",
    "Unavailable",
    "UnknownMethod",
    "UnknownService",
    "configure_logs",
    "connect",
]
