"""Each block of Python in the documents runs: in memory, on the names that its page takes for granted.

Blocks with a title belong to pages that are followed as a whole (test_pages.py, tests/unit/kit/test_plugin.py), and the README's first one is an example.
A block that stands here under NOT_RUN says why; a new one that stands nowhere fails.
"""

from __future__ import annotations

import ast
import builtins
import datetime
import functools
import inspect
import logging
import re
import time
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import aegis_sdk
import pytest
from aegis_sdk import Method, ResourceContext, Service, testing
from pydantic import BaseModel

from tests.examples.pages import ROOT

PAGES: Final = ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
_BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
_AWAITS: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

NOT_RUN: Final = {
    ("README.md", 0): "examples/quickstart.py, which test_examples.py runs",
    ("docs/blocking.md", 0): "needs a server: examples/threads.py, which test_examples.py runs",
    ("docs/blocking.md", 1): "needs Flask",
    ("docs/deploying.md", 0): "zones are control's, and the test kit has none",
    ("docs/howto/events.md", 2): "needs a server",
    ("docs/howto/timers.md", 3): "an outline, of days",
    ("docs/observability.md", 0): "needs a server",
    ("docs/operations.md", 0): "needs a server",
}
BOOK: Final[Method[int, int]] = Method("accounts", "book", request=int, reply=int)


class Fill(BaseModel):
    symbol: str = "AAPL"
    quantity: int = 100
    order_id: str = "ORD-1"


class Position(BaseModel):
    quantity: int = 0
    venue: str = ""


class Transfer(BaseModel):
    amount: Decimal
    to: str


class Any_(BaseModel):
    """Stands for a model that a page names and does not show."""

    reason: str = ""
    order_id: str = ""


def method(service: str, name: str, request: Any = Any_, reply: Any = Any_) -> Method[Any, Any]:
    return Method(service, name, request=request, reply=reply)


def names() -> dict[str, Any]:
    """What the pages take for granted, anew for each page."""
    accounts = Service("accounts")

    @accounts.handles(BOOK)
    async def book(ctx: ResourceContext, quantity: int) -> int:
        total = (ctx.state.get("total", int) or 0) + quantity
        ctx.state.set("total", total)
        return total

    return {
        **{name: getattr(aegis_sdk, name) for name in aegis_sdk.__all__},
        **vars(datetime),
        "aegis_sdk": aegis_sdk,
        "testing": testing,
        "logging": logging,
        "functools": functools,
        "time": time,
        "ZoneInfo": ZoneInfo,
        "BaseModel": BaseModel,
        "Decimal": Decimal,
        "Fill": Fill,
        "Position": Position,
        "Transfer": Transfer,
        "BOOK": BOOK,
        "accounts": accounts,
        "new_accounts": accounts,
        "old_accounts": accounts,
        "fill": 100,
        "order": 100,
        "order_id": "ORD-1",
        "limits": [],
        "number": 1,
        "orders": Service("orders"),
        "desks": Service("desks"),
        "TRANSFER": method("accounts", "transfer", Transfer),
        "DEPOSIT": method("accounts", "deposit"),
        "PLACE": method("orders", "place"),
        "FILL": method("orders", "fill", Fill),
        "CANCEL": method("orders", "cancel"),
        "CLOSE": method("desks", "close"),
    }


def models(block: str) -> set[str]:
    """Names that look like those of classes."""
    found = {node.id for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name)}
    return {name for name in found if name[0].isupper() and not name.isupper()}


async def run(block: str, given: dict[str, Any]) -> None:
    """Its names stay for the page's next block."""
    code = compile(block, "a page", "exec", flags=_AWAITS)
    made = eval(code, given)
    if inspect.iscoroutine(made):
        await made


async def run_in_a_handler(block: str, given: dict[str, Any]) -> None:
    """With the context of one, whose state is empty."""
    service = Service("page")

    @service.handles()
    async def one(ctx: ResourceContext, n: int) -> int:
        await run(block, given | own | {"ctx": ctx, "fill": Fill(), "fills": [Fill()]})
        return n

    for name in ("close", "deposit"):
        service.handles(method("page", name))(_takes_all)
    own = {"CLOSE": method("page", "close")}
    async with testing.harness(service, resources={"R"}) as aegis:
        assert await aegis.request(service.method("one"), 1, resource="R") == 1


async def _takes_all(_: ResourceContext, asked: Any) -> Any_:
    return Any_()


async def run_as_a_caller(block: str, given: dict[str, Any]) -> None:
    accounts: Service = given["accounts"]
    async with testing.harness(accounts, resources={"ACC-1"}) as aegis:
        await aegis.serve(accounts, resources={"ACC-1"})  # a standby
        await run(block, given | {"aegis": aegis})


def blocks(page: str) -> list[str]:
    return _BLOCK.findall((ROOT / page).read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
async def test_the_blocks_of_a_page_run(page: str) -> None:
    given = names()
    if page == "docs/howto/contracts.md":  # it has handlers of its own
        given["accounts"] = Service("accounts")
    for n, block in enumerate(blocks(page)):
        compile(block, page, "exec", flags=_AWAITS)
        if (page, n) in NOT_RUN:
            continue
        for name in models(block) - given.keys() - vars(builtins).keys():
            given[name] = Any_
        tree = ast.parse(block)
        free = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        top = {type(node) for node in tree.body}
        if "ctx" in free and not top & {ast.FunctionDef, ast.AsyncFunctionDef}:
            await run_in_a_handler(block, given)
        elif "aegis" in free and ast.AsyncWith not in top:
            await run_as_a_caller(block, given)
        else:
            await run(block, given)
