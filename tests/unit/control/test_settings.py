"""Settings: three sources, and words for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aegis_control.settings import SettingsError, load, shown


def test_flags_win_over_the_file_and_the_file_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEGIS_PREFIX", "env")
    monkeypatch.setenv("AEGIS_REPLICAS", "3")
    monkeypatch.setenv("AEGIS_URL", "nats://env:1")
    file = tmp_path / "control.toml"
    file.write_text('replicas = 5\nurl = "nats://file:1"\n')
    loaded = load({"url": "nats://flag:1"}, file)
    settings = loaded.settings
    assert (settings.prefix, settings.replicas, settings.url) == ("env", 5, "nats://flag:1")
    assert [loaded.origins[name] for name in ("prefix", "replicas", "url", "user")] == [
        "environment",
        str(file),
        "flag",
        "default",
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"replicas": "9"}, "setting replicas is '9' (from flag): Input should be less than"),
        ({"http_port": "x"}, "setting http_port is 'x' (from flag): Input should be a valid int"),
        ({"log_format": "xml"}, "setting log_format is 'xml' (from flag): Input should be 'json'"),
        ({"prefix": "A b"}, "setting prefix is 'A b' (from flag)"),
        ({"colour": "red"}, "setting colour (from flag) does not exist"),
        (
            {"heartbeat_timeout_s": "inf"},
            "heartbeat_timeout_s is 'inf' (from flag): Input should be",
        ),
        ({"outcome_ttl_s": "1e300"}, "outcome_ttl_s is '1e300' (from flag): Input should be less"),
        ({"stall_limit_s": "nan"}, "stall_limit_s is 'nan' (from flag): Input should be"),
        ({"heartbeat_timeout_s": 0.2}, "heartbeat_timeout_s is 0.2, allowed is at least twice"),
        ({"leader_timeout_s": 0.3}, "leader_timeout_s is 0.3, allowed is at least twice"),
        ({"outcome_ttl_s": 60}, "outcome_ttl_s is 60.0, allowed is at least requests_max_age_s"),
    ],
)
def test_a_wrong_value_is_one_line_with_name_value_and_what_is_allowed(
    flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nope\.toml"):
        load({}, tmp_path / "nope.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("= 1")
    with pytest.raises(SettingsError, match=r"bad\.toml"):
        load({}, bad)


@pytest.mark.parametrize(
    "token", ["short", "fifteen-letters", "x" * 257, "with a blank in it", "ü" * 20]
)
def test_a_console_token_that_is_weak_or_fits_no_header_is_refused_and_not_repeated(
    token: str,
) -> None:
    with pytest.raises(SettingsError, match=r"console_token is \*\*\* .* 16 to 256") as caught:
        load({"console_token": token})
    assert token not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    settings = load({"password": "hunter2"}).settings
    assert (shown(settings, "password"), shown(settings, "user")) == ("***", "")
