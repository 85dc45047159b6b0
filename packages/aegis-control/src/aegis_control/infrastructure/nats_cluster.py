"""Three embedded nats-servers as one cluster (R3), on loopback: for tests of the broker's own failover.

Not for production: three copies on one host survive a killed process, not a lost machine.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aegis_control.infrastructure.embedded_nats import (
    LOOPBACK,
    ClusterMember,
    EmbeddedNats,
    EmbeddedNatsError,
    free_ports,
)

READY_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05


class NatsCluster:
    """`size` nodes that replicate; a context manager. `nodes[i].kill()` and `.start()` are single faults."""

    def __init__(
        self, data_dir: Path | str | None = None, *, size: int = 3, sync_interval: str | None = None
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="aegis-cluster-")).resolve()
        ports = free_ports(3 * size)
        route_ports, self._http_ports = ports[:size], ports[size : 2 * size]
        routes = tuple(f"nats://{LOOPBACK}:{port}" for port in route_ports)
        self.nodes = [
            EmbeddedNats(
                self.data_dir / f"n{i}",
                ports[2 * size + i],
                sync_interval,
                member=ClusterMember(
                    cluster="aegis",
                    name=f"n{i}",
                    route_port=route_ports[i],
                    routes=routes,
                    http_port=self._http_ports[i],
                ),
            )
            for i in range(size)
        ]

    @property
    def url(self) -> str:
        """All nodes, separated by commas."""
        return ",".join(node.url for node in self.nodes)

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def system_url(self) -> str:
        return ",".join(node.system_url for node in self.nodes)

    def start(self) -> Self:
        """Start all nodes and wait for the cluster's leader. Raises: EmbeddedNatsError."""
        try:
            for node in self.nodes:
                node.start(wait=False)
            for node in self.nodes:
                node.wait_ready()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all nodes; safe twice. A temporary data folder goes with them."""
        for node in self.nodes:
            # Stopping one after the other only makes the rest elect; the data needs no farewell.
            node.kill()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every running node knows a JetStream leader and is up to date."""
        deadline = time.monotonic() + timeout_s
        while not all(map(self._is_ready, range(len(self.nodes)))):
            if time.monotonic() > deadline:
                raise EmbeddedNatsError(f"the cluster found no leader within {timeout_s} s")
            time.sleep(_POLL_S)

    def stream_leader(self, stream: str, *, account: str = "AEGIS") -> EmbeddedNats | None:
        """The node that leads `stream`, None while it is being elected."""
        for i, node in enumerate(self.nodes):
            if not node.running:
                continue
            for detail in self._monitor(i, "/jsz?streams=true").get("account_details", []):
                if detail["name"] != account:
                    continue
                for entry in detail.get("stream_detail", []):
                    if entry["name"] == stream:
                        return self._named(entry.get("cluster", {}).get("leader", ""))
        return None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _named(self, name: str) -> EmbeddedNats | None:
        return next((node for i, node in enumerate(self.nodes) if name == f"n{i}"), None)

    def _is_ready(self, i: int) -> bool:
        if not self.nodes[i].running:
            return True
        meta = self._monitor(i, "/jsz").get("meta_cluster", {})
        if not meta.get("leader") or meta.get("cluster_size") != len(self.nodes):
            return False
        if meta["leader"] == f"n{i}" and not self._has_all_peers(meta):
            return False
        return bool(self._monitor(i, "/healthz").get("status") == "ok")

    def _has_all_peers(self, meta: dict[str, Any]) -> bool:
        """The leader places no stream on a node that it has not heard yet."""
        peers = {peer["name"] for peer in meta.get("replicas", []) if not peer.get("offline")}
        return all(f"n{i}" in peers or f"n{i}" == meta["leader"] for i in self._running())

    def _running(self) -> list[int]:
        return [i for i, node in enumerate(self.nodes) if node.running]

    def _monitor(self, i: int, path: str) -> dict[str, Any]:
        """The node's monitoring answer; empty while it is not there."""
        url = f"http://{LOOPBACK}:{self._http_ports[i]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=2.0) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (OSError, ValueError):
            return {}
