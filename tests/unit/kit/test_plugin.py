"""The plugin in a pytest of its own, as a user's suite runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = "pytester"

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "test.md"
SUITE = """
import pytest
from test_accounts import BOOK, serve_two


@pytest.mark.parametrize("n", range(1, 21))
async def test_a_failover(cluster, n: int) -> None:
    await serve_two(cluster)
    assert await cluster.aegis.request(BOOK, n, resource="ACC-1") == n
    await cluster.failover("ACC-1")
    assert await cluster.aegis.request(BOOK, 1, resource="ACC-1") == n + 1
    cluster.assert_exactly_once()
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    return pytester


def test_the_page_s_suite_passes_and_so_do_twenty_failovers(suite: pytest.Pytester) -> None:
    [(title, code)] = re.findall(r'```python title="(.*?).py"\n(.*?)```', PAGE.read_text(), re.S)
    suite.makepyfile(**{title: code, "test_failovers": SUITE})
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4 + 20)


def test_a_failure_says_its_seed_and_the_option_replays_it(suite: pytest.Pytester) -> None:
    suite.makepyfile("""
        async def test_fails(cluster):
            print("drawn", cluster.faults._random.random())
            assert False
        """)
    result = suite.runpytest_subprocess("--aegis-seed", "77")
    result.stdout.fnmatch_lines(["*seed 77: replay it by --aegis-seed 77*"])
    again = suite.runpytest_subprocess("--aegis-seed", "77")
    drawn = [line for line in result.outlines if line.startswith("drawn")]
    assert drawn
    assert drawn == [line for line in again.outlines if line.startswith("drawn")]


def test_without_pytest_asyncio_other_tests_run_and_the_fixture_says_what_to_install(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.makeini("[pytest]\n")
    suite.makeconftest("")
    suite.makepyfile("def test_other(): pass\n\n\ndef test_kit(cluster): pass\n")
    suite.makepyfile(
        sitecustomize="import sys\nsys.modules['pytest_asyncio'] = None\n",
    )
    monkeypatch.setenv("PYTHONPATH", str(suite.path))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = suite.runpytest_subprocess("-p", "aegis_sdk.pytest_plugin")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*pip install pytest-asyncio*"])
