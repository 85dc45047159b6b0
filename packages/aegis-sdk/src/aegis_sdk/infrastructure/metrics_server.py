"""A process's own /metrics for Prometheus; loaded when somebody serves them.

It shares its process with handlers that trade. So it has threads of its own, a bound on them, and a time limit on each read: a
scraper that hangs or a port scan must cost the process neither its loop nor its open files.
"""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.infrastructure.metrics import RecorderCollector

_STOP_TIMEOUT_S: Final = 1.0
_SCRAPES_MAX: Final = 8
"""At the same time; further connections are closed unanswered, and Prometheus comes again."""


class MetricsServer:
    """/metrics over HTTP, in threads of its own. Raises: OSError."""

    def __init__(self, recorder: Recorder, *, host: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(RecorderCollector(recorder))
        self._server = _Server((host, port), _Handler)
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.port = int(self._server.server_port)

    def stop(self) -> None:
        """Returns when the port is free. Safe twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_STOP_TIMEOUT_S)


class _Handler(WSGIRequestHandler):
    timeout = 5.0
    """For each read: who connects and sends nothing is cut off."""

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingMixIn, WSGIServer):
    """At most `_SCRAPES_MAX` at a time, so that idle connections cost no open files that NATS needs."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _SCRAPES_MAX

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(_SCRAPES_MAX)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes away in the middle is no error of ours, and has no line in our log."""
