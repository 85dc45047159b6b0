"""Control's settings: environment `AEGIS_*`, then a TOML file, then flags; the later wins."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pydantic
from aegis_sdk.contract import addresses
from aegis_sdk.contract.addresses import HIDDEN
from aegis_sdk.contract.arguments import DURATION_S_MAX
from aegis_sdk.contract.control import RESOURCES_A_MOVE_MAX
from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import InvalidName
from pydantic import Field
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

ENV_PREFIX: Final = "AEGIS_"
SECRETS: Final = frozenset({"password", "system_password", "console_token"})
URLS: Final = frozenset({"url", "system_url"})
FILES: Final = frozenset(
    {"creds", "nkey", "system_creds", "system_nkey", "tls_ca", "tls_cert", "tls_key"}
)

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_TOKEN: Final = re.compile(r"[!-~]{16,256}")

Seconds = Annotated[float, Field(gt=0, le=DURATION_S_MAX)]


class SettingsError(Exception):
    """A setting is wrong; one line with its name, its value and what is allowed."""


class Settings(BaseSettings):
    """Everything that an operator may set. A field's description is its help text."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    url: str = Field("nats://localhost:4222", description="NATS servers, separated by commas")
    user: str = Field("", description="NATS user")
    password: str = Field("", description="NATS password")
    creds: str = Field("", description="NATS credentials file (JWT and seed)")
    nkey: str = Field("", description="NKEY seed file")
    tls_ca: str = Field("", description="CA certificates of the NATS servers, PEM file")
    tls_cert: str = Field("", description="our certificate for NATS, PEM file")
    tls_key: str = Field("", description="the key of our certificate, PEM file")
    domain: str = Field(
        "", description="JetStream domain, where the streams are behind a leaf node"
    )
    inbox_prefix: str = Field("", description="of the subjects for answers ('': _INBOX)")
    system_url: str = Field(
        "", description="NATS servers with the system account's login: crashes are seen at once"
    )
    system_user: str = Field("", description="system account's user, if not in system_url")
    system_password: str = Field("", description="system account's password")
    system_creds: str = Field("", description="system account's credentials file")
    system_nkey: str = Field("", description="system account's NKEY seed file")
    wait: bool = Field(True, description="wait for NATS at the start; without it, exit with 4")
    embedded: bool = Field(False, description="run a nats-server of our own")
    embedded_port: int = Field(4222, ge=0, le=65535, description="its port; 0 picks a free one")
    data_dir: Path = Field(Path("aegis-data"), description="folder of the embedded nats-server")
    sync_interval: str = Field(
        "", description="when it syncs to disk: always (survives power loss), 10s, ... ('': 2m)"
    )
    prefix: str = Field("aegis", description="subject prefix; separates environments on one NATS")
    replicas: int = Field(1, ge=1, le=5, description="copies of each stream (3 on a cluster)")
    stream_max_bytes: int = Field(
        -1,
        ge=-1,
        description="bytes of each stream and bucket without a bound of its own, for accounts that demand one;"
        " NATS reserves them (-1: no bound)",
    )
    http_host: str = Field(
        "127.0.0.1", description="address of the console (/), /metrics, /livez and /readyz"
    )
    http_port: int = Field(9464, ge=0, le=65535, description="their port; 0 picks a free one")
    console_token: str = Field(
        "",
        description="who types it into the console may change things (16 characters or more)",
    )
    console_hosts: str = Field(
        "",
        description="names by which a proxy or an alias reaches the console, separated by commas",
    )
    log_format: Literal["json", "console"] = Field("json", description="form of the log lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least important level that is logged"
    )
    heartbeat_interval_s: Seconds = Field(0.2, description="how often instances say that they live")
    heartbeat_timeout_s: Seconds = Field(0.7, description="silence after which one is lost")
    stall_limit_s: Seconds = Field(5.0, description="how long a main loop may hang")
    return_grace_s: Seconds = Field(
        30.0, description="how long requests wait for a lost active without a standby"
    )
    spread: bool = Field(
        True,
        description="spread AUTO resources over the instances; off: only on `ipc-cli rebalance`",
    )
    spread_wait_s: float = Field(
        2.0,
        ge=0,
        le=DURATION_S_MAX,
        description="after an instance came or went, how long to wait for others; longer: fewer moves, later even",
    )
    spread_moves_max: int = Field(
        10,
        ge=1,
        le=RESOURCES_A_MOVE_MAX,
        description="resources moved at a time, twice a second, or a fiftieth of all if that is more; more: sooner even,"
        " more calls that wait together",
    )
    spread_difference: float = Field(
        0.25,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="begin when the fullest has this part of the mean more than the emptiest; more: fewer moves, less even",
    )
    leader_renewal_s: Seconds = Field(0.25, description="how often control's leader renews")
    leader_timeout_s: Seconds = Field(1.0, description="after which another replica takes over")
    ack_wait_s: Seconds = Field(
        1.0, description="when a group request of a killed instance is delivered again"
    )
    outcome_ttl_s: Seconds = Field(
        90_000.0, description="how long outcomes are kept (280 bytes of server memory each)"
    )
    requests_max_age_s: Seconds = Field(86_400.0, description="how long requests are kept")
    requests_max_msgs: int = Field(
        10_000_000, ge=-1, description="requests kept per service; more are refused (-1: no bound)"
    )
    requests_max_bytes: int = Field(
        -1,
        ge=-1,
        description="bytes of requests kept per service; NATS reserves them (-1: stream_max_bytes)",
    )
    dlq_max_age_s: Seconds = Field(2_592_000.0, description="how long dead letters are kept")
    events_max_age_s: Seconds = Field(2_592_000.0, description="how long events are kept")
    events_max_bytes: int = Field(
        67_108_864, ge=1_048_576, description="bytes of events kept; older ones go first"
    )

    emitted_max_age_s: Seconds = Field(
        604_800.0, description="how long the events that services emit are kept"
    )
    emitted_max_msgs: int = Field(
        10_000_000,
        ge=-1,
        description="events kept per service; more wait at their emitters (-1: no bound)",
    )
    emitted_max_bytes: int = Field(
        -1,
        ge=-1,
        description="bytes of events kept per service; NATS reserves them (-1: stream_max_bytes)",
    )

    def __repr_args__(self) -> Iterator[tuple[str, str]]:
        """A traceback or a log that shows settings shows no secrets."""
        return ((name, shown(self, name)) for name in type(self).model_fields)

    @pydantic.field_validator("prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        try:
            return check_service(value)
        except InvalidName as error:
            raise ValueError(str(error)) from error

    @pydantic.field_validator("console_token")
    @classmethod
    def _check_token(cls, value: str) -> str:
        """It travels in a header, and is all that stands before a failover."""
        if value and not _TOKEN.fullmatch(value):
            raise ValueError("allowed are 16 to 256 ASCII characters without blanks")
        return value

    @pydantic.field_validator("console_hosts")
    @classmethod
    def _check_hosts(cls, value: str) -> str:
        """What a browser sends as Host, so neither a scheme nor a path, and no pattern."""
        for name in _listed(value):
            if not _HOST_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no host name; allowed is ops.example.com,desk.lan")
        return value

    @property
    def own_names(self) -> list[str]:
        """Those of `console_hosts`."""
        return _listed(self.console_hosts)

    @pydantic.model_validator(mode="after")
    def _check_times(self) -> Settings:
        if self.heartbeat_timeout_s < 2 * self.heartbeat_interval_s:
            raise ValueError(
                f"heartbeat_timeout_s is {self.heartbeat_timeout_s}, allowed is at least twice"
                f" heartbeat_interval_s ({self.heartbeat_interval_s})"
            )
        if self.leader_timeout_s < 2 * self.leader_renewal_s:
            raise ValueError(
                f"leader_timeout_s is {self.leader_timeout_s}, allowed is at least twice"
                f" leader_renewal_s ({self.leader_renewal_s})"
            )
        if self.outcome_ttl_s < self.requests_max_age_s:
            raise ValueError(
                f"outcome_ttl_s is {self.outcome_ttl_s}, allowed is at least requests_max_age_s"
                f" ({self.requests_max_age_s}): a request delivered again must find its outcome"
            )
        return self


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force, and where each one came from (default, environment, a file, flag)."""

    settings: Settings
    origins: Mapping[str, str]


def load(flags: Mapping[str, Any], config_file: Path | None = None) -> Loaded:
    """Merge all sources. Raises: SettingsError."""
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    sources = [
        ("environment", _environment()),
        (str(config_file), _file(config_file) if config_file else {}),
        ("flag", flags),
    ]
    for origin, values in sources:
        merged |= values
        origins |= dict.fromkeys(values, origin)
    try:
        return Loaded(Settings(**merged), origins)
    except pydantic.ValidationError as error:
        raise SettingsError(_in_one_line(error, origins)) from error


def _listed(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def shown(settings: Settings, name: str) -> str:
    """A setting's value for people; secrets are hidden."""
    return _shown(name, getattr(settings, name))


def _environment() -> dict[str, Any]:
    return EnvSettingsSource(Settings)()


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"config file {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"config file {path}: {error}") from error


def _in_one_line(error: pydantic.ValidationError, origins: Mapping[str, str]) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name = str(first["loc"][0])
    origin = origins.get(name, "default")
    if first["type"] == "extra_forbidden":
        return f"setting {name} (from {origin}) does not exist; see aegis-control config"
    given = first["input"]
    value = _shown(name, given) if name in SECRETS | URLS | FILES else repr(given)
    return f"setting {name} is {value} (from {origin}): {first['msg']}"


def _shown(name: str, value: object) -> str:
    text = str(value)
    if name in SECRETS:
        return HIDDEN if text else ""
    if name in URLS:
        return addresses.shown(text)
    return addresses.shown_path(text) if name in FILES else text
