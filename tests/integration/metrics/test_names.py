"""Alerts, dashboard and documentation speak of metrics that a scrape really has, and of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.metrics.support import observed

REPOSITORY: Final = Path(__file__).resolve().parents[3]
ALERTS: Final = REPOSITORY / "deploy" / "prometheus" / "alerts.yaml"
ALERT_TESTS: Final = ALERTS.with_name("alerts_test.yaml")
DASHBOARD: Final = REPOSITORY / "deploy" / "grafana" / "aegis.json"
PAGE: Final = REPOSITORY / "docs" / "observability.md"
_NAME: Final = re.compile(r"\baegis_[a-z_]+")
_SELECTOR: Final = re.compile(r"(aegis_[a-z_]+)\{([^}]*)\}")


@pytest.fixture
async def families(server: EmbeddedNats, prefix: str) -> AsyncIterator[dict[str, Metric]]:
    """name as scraped: family, of those that AegisIPC makes itself."""
    async with observed(server, prefix) as system:
        found = text_string_to_metric_families(system.text)
        yield {
            f"{family.name}_total" if family.type == "counter" else family.name: family
            for family in found
            if family.name.startswith("aegis_")
        }


def names_in(expression: str) -> set[str]:
    return set(_NAME.findall(expression))


def dashboard_expressions() -> Iterator[str]:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in board["templating"]["list"]:
        yield variable["query"]


async def test_alerts_and_dashboard_use_names_and_labels_that_exist(
    families: dict[str, Metric],
) -> None:
    samples = {sample.name for family in families.values() for sample in family.samples}
    labels: dict[str, set[str]] = {}
    for family in families.values():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    expressions = [ALERTS.read_text(), ALERT_TESTS.read_text(), *dashboard_expressions()]
    for expression in expressions:
        assert names_in(expression) <= samples, expression
        for name, selector in _SELECTOR.findall(expression):
            used = set(re.findall(r"([a-z_]+)=", selector)) - {"instance"}
            assert used <= labels[name], f"{name}: {selector}"


async def test_the_page_lists_every_metric_as_it_is(families: dict[str, Metric]) -> None:
    """Its table has name, type and labels; a new metric or label needs a line there."""
    rows = re.findall(r"^\| `(aegis_[a-z_]+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.M)
    told = {name: (kind, labels.replace("`", "").split()) for name, kind, labels in rows}
    shown = {
        name: (family.type, sorted({k for s in family.samples for k in s.labels} - {"le"}))
        for name, family in families.items()
    }
    assert {name: (kind, sorted(labels)) for name, (kind, labels) in told.items()} == shown


def test_every_alert_is_on_the_page_and_is_tried() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    tried = re.findall(r"alertname: (\w+)\n", ALERT_TESTS.read_text())
    assert alerts
    assert set(tried) == alerts, "each has a test in which it fires"
    assert set(re.findall(r"^\| `(Aegis\w+)`", PAGE.read_text(), re.M)) == alerts
