"""Contexts of the `nats` command: where a server is and how to log in, kept under a name.

Goes in: `~/.config/nats/context/<name>.json`, or below XDG_CONFIG_HOME. What it asks for and we can't do is an error, and
not left out: the login would be another one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aegis_control.infrastructure.admin_client import AdminError

_NAMES: Final = {
    "url": "url",
    "user": "user",
    "password": "password",
    "token": "token",
    "creds": "creds",
    "nkey": "nkey",
    "ca": "tls_ca",
    "cert": "tls_cert",
    "key": "tls_key",
    "jetstream_domain": "domain",
    "inbox_prefix": "inbox_prefix",
}
"""Theirs and ours."""
_FILES: Final = frozenset({"creds", "nkey", "tls_ca", "tls_cert", "tls_key"})
_CANNOT: Final = ("nsc", "socks_proxy", "user_jwt", "user_seed", "jetstream_api_prefix")
_NAME: Final = re.compile(r"[\w.-]+")


def read_context(name: str) -> dict[str, str]:
    """What is set in it, by our names: `url`, and the login's. Raises: AdminError (`usage`), in one line."""
    folder = _folder()
    path = folder / f"{name}.json"
    if not _NAME.fullmatch(name):
        raise AdminError("usage", f"--context: {name!r} can't be the name of a context")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
        raise AdminError(
            "usage", f"--context: no context {name!r} in {folder}; there are: {known}"
        ) from None
    except (OSError, ValueError) as error:
        raise AdminError("usage", f"--context: {path}: {error}") from error
    if not isinstance(found, dict):
        raise AdminError("usage", f"--context: {path} holds no JSON object")
    return _ours(found, path)


def _folder() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "nats" / "context"


def _ours(found: Mapping[str, Any], path: Path) -> dict[str, str]:
    ours: dict[str, str] = {}
    for theirs, value in found.items():
        if not value:
            continue
        if theirs in _CANNOT:
            raise AdminError("usage", f"--context: {path} sets {theirs}, which is not supported")
        if theirs in _NAMES:
            name = _NAMES[theirs]
            ours[name] = str(Path(value).expanduser()) if name in _FILES else str(value)
    return ours
