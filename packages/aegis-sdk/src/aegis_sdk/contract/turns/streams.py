"""How the stream of a service's log is configured: who makes it, and who checks it, take it from here.

These settings carry promises. Without `discard_new_per_subject` a second outcome would replace the first (G2). With a
memory storage nothing would be kept (G1). Without `allow_rollup_hdrs` there would be no second gate. An operator who
changes one of them by hand changes what is promised; `ipc-cli doctor` compares.
"""

from __future__ import annotations

from typing import Any

from aegis_sdk.contract.turns.subjects import LogSubjects


def log_stream(names: LogSubjects, *, replicas: int = 1) -> dict[str, Any]:
    """Bounds that are an operator's choice (age, bytes) are not in it."""
    return {
        "name": names.stream,
        "subjects": [names.all],
        "retention": "limits",
        "storage": "file",
        # Together: a second message on a subject is refused, which makes all but gates create-only.
        "max_msgs_per_subject": 1,
        "discard": "new",
        "discard_new_per_subject": True,
        # A turn and the singles beside it are stored together where the log is replicated.
        "allow_atomic": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "allow_direct": True,
        "republish": {
            "src": names.republish_source,
            "dest": names.republish_destination,
        },
        "num_replicas": replicas,
    }
