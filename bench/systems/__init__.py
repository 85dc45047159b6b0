"""The systems that are measured, by name; the first is the subject, the others are its rivals."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from bench.systems.api import System

_WHERE: Final = {
    "aegis": "bench.systems.aegis:SYSTEM",
    "jetstream-durable": "bench.systems.jetstream:DURABLE",
    "jetstream-queue": "bench.systems.jetstream:QUEUE",
    "jetstream-light": "bench.systems.jetstream:LIGHT",
    "core-nats": "bench.systems.core_nats:SYSTEM",
    "faststream": "bench.systems.faststream_nats:SYSTEM",
    "grpc": "bench.systems.grpc_aio:SYSTEM",
    "zmq": "bench.systems.zmq_asyncio:SYSTEM",
}
"""Imported when used: a worker of one system does not carry the libraries of the others."""
_VARIANTS: Final = {
    "aegis-without-metrics": "bench.systems.aegis:WITHOUT_METRICS",
    "aegis-one-by-one": "bench.systems.aegis:ONE_BY_ONE",
    "aegis-reads": "bench.systems.aegis:READS",
    "aegis-on-asyncio": "bench.systems.aegis:ON_ASYNCIO",
}
"""The subject in other settings, for commands that ask what a setting costs."""

SYSTEM_NAMES: Final = tuple(_WHERE)
"""Those that are compared unless others are named."""
ALL_NAMES: Final = (*SYSTEM_NAMES, *_VARIANTS)


def find(name: str) -> System:
    """Raises: KeyError."""
    module, _, attribute = (_WHERE | _VARIANTS)[name].partition(":")
    system: System = getattr(import_module(module), attribute)
    return system
