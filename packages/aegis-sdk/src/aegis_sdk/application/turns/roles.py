"""What one instance serves: it is paused before it is given away, and users' callbacks are told of it.

A resource's requests wait until the callbacks of its promotion have ended, and until no owner before may answer reads of it. A pause ends by itself, unless its resource belongs to
another by then: a control that asked for it may be gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from aegis_sdk.application.callbacks import Callbacks
from aegis_sdk.domain.turns.reads import HOLD_S, waits_for_proofs
from aegis_sdk.domain.turns.writer import Writer
from aegis_sdk.service import Service
from aegis_sdk.telemetry import log


class Roles:
    """Of one instance. `soon` has the writer compose."""

    def __init__(
        self, writer: Writer, service: Service, instance_id: str, soon: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._service = service
        self._instance_id = instance_id
        self._soon = soon
        self._callbacks = Callbacks(service.name, instance_id=instance_id)
        self._loop = asyncio.get_running_loop()
        self.serving: set[str] = set()
        self.paused: dict[str, asyncio.TimerHandle] = {}
        """Resources that are about to be given away, and the end of their pause."""
        self.is_draining = False
        """Nothing new is begun any more, for good."""
        self.leaving: set[str] = set()
        """Resources that this instance gives up: paused until they are another's, or `stay`."""
        self._preparing: dict[str, asyncio.Task[None]] = {}
        """What a resource's first request waits for: the callbacks of its promotion."""
        self._held_for_reads: dict[str, asyncio.TimerHandle] = {}
        """Resources whose owner before may still answer reads."""
        self._served: set[str] = set()
        """What it served when it was ended."""

    # --- pauses -----------------------------------------------------------------------------------------------
    def pause(self, resources: Iterable[str] | None, *, lease_s: float) -> Callable[[], bool]:
        """Begin nothing new on them (None: on all, for good); what tells whether nothing of them is under way.

        Of one that goes on before that (`resume`, the end of its pause) it tells nothing: whoever waits sees it by `holds`.
        """
        self.is_draining = self.is_draining or resources is None
        wanted = self.serving if resources is None else resources
        names = [name for name in wanted if name in self.serving]
        for name in names:
            self._end_pause(name)
            if resources is not None:
                self.paused[name] = self._loop.call_later(lease_s, self._forgotten, name)
        return lambda: self._are_idle(names)

    def holds(self, resource: str) -> bool:
        """Whether nothing new of it is begun, or it is not served here."""
        is_paused = resource in self.paused or resource in self.leaving or self.is_draining
        return is_paused or resource not in self.serving

    def _are_idle(self, resources: Iterable[str]) -> bool:
        # Each of them is paused, whatever the first one says. One that went on again must not be: nothing would end that.
        names = [name for name in resources if name in self.serving and self.holds(name)]
        return False not in [self._writer.pause(name) for name in names]

    def _forgotten(self, resource: str) -> None:
        log.warning(
            "pause_ended",
            service=self._service.name,
            instance_id=self._instance_id,
            resource=resource,
            reason="no handover came: control is gone, or gave it up",
        )
        self.resume((resource,))

    def leave(self, resources: Iterable[str]) -> Callable[[], bool]:
        """Begin nothing new on them, also if they come here only now; what tells whether nothing of them is under way."""
        names = list(resources)
        self.leaving.update(names)
        return lambda: self._are_idle(names)

    def stay(self, resources: Iterable[str]) -> None:
        """They are not given up after all."""
        for name in resources:
            self.leaving.discard(name)
            if name in self.serving and self._may_go_on(name) and name not in self.paused:
                self._writer.resume(name)
        self._soon()

    def resume(self, resources: Iterable[str] | None = None) -> None:
        """One that leaves stays paused."""
        for name in list(self.paused) if resources is None else resources:
            if self._end_pause(name) and self._may_go_on(name):
                self._writer.resume(name)
        self._soon()

    def _may_go_on(self, resource: str) -> bool:
        waits = resource in self._preparing or resource in self._held_for_reads
        return not (self.is_draining or waits or resource in self.leaving)

    def _end_pause(self, resource: str) -> bool:
        timer = self.paused.pop(resource, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    # --- what moved -------------------------------------------------------------------------------------------
    def hold_back(self, resources: Iterable[str]) -> None:
        """Before the first request of what is served from now on is begun: it waits, if it has to."""
        all_wait = self.is_draining or bool(self._service.promoted_callbacks)
        for resource in resources:
            if all_wait or resource in self.leaving:
                self._writer.pause(resource)
            elif self._is_read_elsewhere(resource):
                self._writer.hold(resource)

    def _is_read_elsewhere(self, resource: str) -> bool:
        return bool(self._service.readers) and waits_for_proofs(self._writer.held[resource])

    def promoted(self, resources: Iterable[str]) -> None:
        for resource in resources:
            self._log_role(resource, is_active=True)
            if self._is_read_elsewhere(resource):
                timer = self._loop.call_later(HOLD_S, self._is_read_here_alone, resource)
                self._held_for_reads[resource] = timer
            called = self._callbacks.promoted(self._service.promoted_callbacks, resource)
            if called is not None:
                self._preparing[resource] = called
                called.add_done_callback(partial(self._is_prepared, resource))

    def _is_prepared(self, resource: str, called: asyncio.Task[None]) -> None:
        if self._preparing.get(resource) is not called:
            return
        del self._preparing[resource]
        self._begin(resource)

    def _is_read_here_alone(self, resource: str) -> None:
        del self._held_for_reads[resource]
        self._begin(resource)

    def _begin(self, resource: str) -> None:
        if resource in self.serving and resource not in self.paused and self._may_go_on(resource):
            self._writer.resume(resource)
            self._soon()

    def demoted(self, resources: Iterable[str]) -> None:
        for resource in resources:
            self.serving.discard(resource)
            self._end_pause(resource)
            self._preparing.pop(resource, None)
            self._end_hold(resource)
            self._log_role(resource, is_active=False)
            self._callbacks.demoted(self._service.demoted_callbacks, resource)

    def _end_hold(self, resource: str) -> None:
        if (timer := self._held_for_reads.pop(resource, None)) is not None:
            timer.cancel()

    def _log_role(self, resource: str, *, is_active: bool) -> None:
        tell = log.info if is_active or resource in self.leaving else log.warning
        tell(
            "promoted" if is_active else "demoted",
            service=self._service.name,
            resource=resource,
            instance_id=self._instance_id,
            epoch=self._writer.ownership.epoch(resource),
            role="active" if is_active else "following",
        )

    # --- the end ----------------------------------------------------------------------------------------------
    def end(self) -> None:
        """Nothing is served any more; the callbacks are told by `withdraw`, if it goes on."""
        for resource in list(self.paused):
            self._end_pause(resource)
        for resource in list(self._held_for_reads):
            self._end_hold(resource)
        self._served, self.serving = self.serving, set()

    def withdraw(self) -> None:
        served, self._served = self._served, set()
        self.demoted(served)

    def stop(self) -> None:
        self._callbacks.stop()
