"""The console in a real browser, beside real processes: what it shows is so, and what it does happens.

Every page is watched for complaints of the browser (a script or style that the policy refused, an error)
and for requests that leave the host; either fails the test (see `looking`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Context, Event, Method, Service
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.ids import redriven_id
from aegis_sdk.contract.subjects import Subjects
from playwright.async_api import Browser
from pydantic import BaseModel, Field

from tests.console.instance import ADD
from tests.console.support import TOKEN, Desk, Look, desk, looking
from tests.integration.cli.support import run_cli
from tests.integration.control.support import control

pytestmark = pytest.mark.browser


class Side(StrEnum):
    """Which way."""

    BUY = "buy"
    SELL = "sell"


class Order(BaseModel):
    side: Side
    quantity: int = Field(gt=0, le=1_000, description="shares")
    legs: list[Order] = []


class Filled(BaseModel):
    """What became of it."""

    order: Order


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>document.title='owned'</script>",
    '"><svg onload=alert(1)>',
    "&lt;b&gt; ' ` ${1}",
    "right\u202eleft\u200b\n\ttab",
    "日本語/ключ/🙂",
]
PHONE_WIDTH, PHONE_HEIGHT = 390, 844


async def two_desks(made: Desk, resources: list[str]) -> None:
    """desk-1 is active for all, desk-2 their standby."""
    await made.start("desk-1", resources)
    await made.start("desk-2", resources)


async def search(look: Look, text: str) -> None:
    await look.page.fill("#text", text)
    await look.page.press("#text", "Enter")


# --- what is shown ---------------------------------------------------------------------------------------


async def test_a_system_that_is_well_is_shown_as_such(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix) as made:
        await two_desks(made, ["ACC-1", "ACC-2"])
        await made.add(1, "ACC-1")
        async with looking(opened, made.url) as look:
            await look.until_text("#verdict", "All is well")
            await look.until_text("#service-desk", "2 of 2 instances live")
            await look.until_text("#rows", "ACC-2")
            row = await look.text("#rows tr:first-child")
            assert [word for word in row.split("\t") if word][1:3] == ["● held", "desk-1"]
            assert "desk-2 lag 0" in row
            await look.until_text("#event-list", "instance_registered")
            assert "none" in await look.text("#letters-count")
            assert await look.page.is_hidden("#unlock"), "nothing can be changed without a token"
            assert "Read-only" in await look.text("#foot")
            await look.until(
                "[...document.querySelectorAll('#service-desk path.line')].some(p => p.getAttribute('d'))",
                "a line in a plot",
            )


async def test_a_kill_9_of_the_active_is_seen_live_with_its_times(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    """G6, G8 as an operator sees them; the page is not touched meanwhile."""
    async with desk(server, prefix) as made, looking(opened, made.url) as look:
        await two_desks(made, ["ACC-1", "ACC-2", "ACC-3"])
        assert await made.add(5, "ACC-1") == 5
        await look.until_text("#service-desk", "2 of 2 instances live")
        await made.kill("desk-1")
        assert await made.add(5, "ACC-1") == 10
        await look.until_text("#alarms", "desk: desk-1 is lost (connection_closed)")
        assert "wrong" in await look.text("#verdict")
        assert re.match(r"✕ \d wrong", await look.page.title()), "and who is left has no standby"
        await look.until_text("#moves", "desk: desk-1 → desk-2")
        moved = await look.text("#moves")
        assert "3 resources" in moved
        assert "from the last heartbeat to the last fence" in moved
        assert "fenced desk-1" in moved
        assert "granted to desk-2" in moved
        await look.until_text("#rows", "◐ no standby")
        await look.until_text("#service-desk", "✕ lost")
        await look.until_text("#event-list", "failover_done")
        gaps = await look.page.eval_on_selector_all(
            "#event-list .gap", "nodes => nodes.map(n => n.textContent)"
        )
        assert gaps[0].startswith("+")
        await look.page.click("#alarms a")
        assert await look.page.evaluate("document.activeElement.id") == "service-desk"


async def test_latency_and_throughput_are_drawn_and_read_by_key(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix) as made, looking(opened, made.url) as look:
        await two_desks(made, ["ACC-1"])

        async def load() -> None:
            while True:
                await made.add(1, "ACC-1")
                await asyncio.sleep(0.02)

        loading = asyncio.create_task(load())
        try:
            drawn = "document.querySelectorAll('#service-desk figure path.second')[0]"
            await look.until(f"({drawn}?.getAttribute('d') ?? '').includes('L')", "a line of p99")
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        figures = await look.text("#figures")
        assert "Requests" in figures
        await look.page.focus("#service-desk figure:nth-child(2) svg")
        await look.page.keyboard.press("ArrowLeft")
        caption = await look.text("#service-desk figure:nth-child(2) figcaption b")
        assert "Z: " in caption, "the arrow keys show the values of a moment"


async def test_the_page_says_since_when_it_is_stale(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    """First nobody leads, then nobody answers; what was seen stays, and is said to be old."""
    async with (
        desk(server, prefix) as made,
        opened_quietly(opened, made.url) as look,
    ):
        await made.start("desk-1", ["ACC-1"])
        await look.until_text("#rows", "ACC-1")
        made.control.stop()
        await look.until_text("#stale", "Stale since", within_s=25.0)
        await look.until_text("#link", "stale since", within_s=25.0)
        assert "ACC-1" in await look.text("#rows")
        assert "stale" in await look.page.title()


@contextlib.asynccontextmanager
async def opened_quietly(opened: Browser, url: str) -> AsyncIterator[Look]:
    """For a page whose server goes: the browser says that nobody leads, or that it can't connect, which is right."""
    async with looking(opened, url) as look:
        yield look
        right = ("ERR_CONNECTION_REFUSED", "status of 503")
        expected = [one for one in look.complaints if any(words in one for words in right)]
        for complaint in expected:
            look.complaints.remove(complaint)


# --- search --------------------------------------------------------------------------------------------------


async def test_a_resource_is_found_by_a_part_of_its_id(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix) as made, looking(opened, made.url) as look:
        await two_desks(made, [f"ACC-{n}" for n in range(60)])
        await look.until_text("#resources-count", "60 resources")
        assert await look.page.locator("#rows tr").count() == 20, "never all of them"
        await look.page.click("#next")
        await look.until_text("#page", "21–40 of 60")
        await look.page.keyboard.press("/")
        assert await look.page.evaluate("document.activeElement.id") == "text"
        await look.page.keyboard.type("acc-57")
        await look.until_text("#resources-count", "1 of 60 resources")
        assert "ACC-57" in await look.text("#rows")
        await look.page.fill("#text", "no such thing")
        await look.until_text("#resources-count", "no resource matches (of 60)")


async def test_a_request_id_is_answered_like_ipc_cli_explain(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix) as made, looking(opened, made.url) as look:
        await two_desks(made, ["ACC-1"])
        ticket = await made.caller.submit(ADD, 3, resource="ACC-1")
        await made.add(1, "ACC-1")
        options = ["--url", server.url, "--prefix", prefix, "-o", "json"]
        told = (await run_cli("explain", ticket.id, *options)).json
        answer = await look.page.request.get(
            f"{made.url}/api/explain", params={"request_id": ticket.id}
        )
        assert await answer.json() == told
        await search(look, ticket.id)
        await look.until_text("#story", told["standing"])
        shown = await look.text("#story")
        assert all(step["text"] in shown for step in told["steps"])
        await search(look, "nobody.1")
        await look.until_text("#story", "nothing is stored of request nobody.1")
        look.complaints.clear()  # the browser notes each 404


async def test_a_services_contract_is_shown_at_an_address_of_its_own(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix) as made:
        await made.caller.serve(orders())
        async with looking(opened, made.url) as look:
            await look.until_text("#service-orders", "Contract")
            await look.page.click("#service-orders h3 a")
            await look.until_text("#story", "reply: Filled")
            rows = [row.split("\t") for row in (await look.text("#story")).splitlines()]
            assert ["side", "Side", "needed", "Which way."] in rows
            assert ["quantity", "integer", "needed", "shares; > 0, ≤ 1000"] in rows
            assert ["legs", "list of Order", "[]", ""] in rows
            assert ["filled an event"] in rows
            address = look.page.url
            link = look.page.locator("#story a")
            document = await look.page.request.get(f"{made.url}{await link.get_attribute('href')}")
            assert (await document.json())["info"]["title"] == "orders"
            await look.page.click("#answer-close")
            assert "contract" not in look.page.url
            assert await look.page.is_hidden("#answer")
        async with looking(opened, address) as look:
            await look.until_text("#story", "reply: Filled")


def orders() -> Service:
    service = Service("orders", version="2.1", emits=[Event("orders", "filled", Filled)])

    @service.handles()
    async def place(_: Context, order: Order) -> Filled:
        raise NotImplementedError

    return service


# --- any text as an id ------------------------------------------------------------------------------------------


async def test_ids_are_text_whatever_they_hold(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix, console_token=TOKEN) as made, looking(opened, made.url) as look:
        await two_desks(made, HOSTILE)
        for resource in HOSTILE:
            await made.add(1, resource)
        await bury(server, prefix, resource=HOSTILE[0], error=HOSTILE[1])
        await look.until_text("#resources-count", f"{len(HOSTILE)} resources")
        await look.until_text("#letter-list", HOSTILE[1])
        shown = await look.text("#rows")
        assert all(text in shown for text in HOSTILE if text.isprintable())
        assert r"right\u{202e}left\u{200b}\u{a}\u{9}tab" in shown
        assert HOSTILE[0] in await look.text("#letter-list")
        await unlock(look, HOSTILE[0])
        await look.page.locator("#rows button").nth(HOSTILE.index(HOSTILE[0])).click()
        await look.until("document.querySelector('#confirming').open", "the question")
        await look.page.keyboard.press("Escape")
        await search(look, HOSTILE[0])
        await look.until_text("#resources-count", f"1 of {len(HOSTILE)} resources")
        assert await look.page.locator("img, main script, svg[onload]").count() == 0
        assert "owned" not in await look.page.title()


async def bury(
    server: EmbeddedNats,
    prefix: str,
    *,
    resource: str | None,
    error: str,
    request_id: str = "caller.13",
) -> str:
    """Put a dead letter where an instance would; returns its request id."""
    request = Request(request_id, "desk", "add", resource, b"4")
    letter = DeadLetter(request, "gave_up", error)
    client = await nats.connect(server.url)
    subject = Subjects(prefix).dead_letter("desk", request_id)
    await client.jetstream().publish(subject, request.payload, headers=letter.headers())
    await client.close()
    return request_id


# --- changes -----------------------------------------------------------------------------------------------------


async def unlock(look: Look, who: str = "maria", token: str = TOKEN) -> None:
    await look.until("!document.querySelector('#unlock').hidden", "changes can be unlocked")
    await look.page.click("#unlock")
    await look.page.fill("#who", who)
    await look.page.fill("#token", token)
    await look.page.keyboard.press("Enter")


async def confirm(look: Look, reason: str = "") -> None:
    await look.until("!document.querySelector('#do').disabled", "the plan")
    await look.page.fill("#reason", reason)
    await look.page.click("#do")
    await look.until("!document.querySelector('#confirming').open", "it is done")


async def changes(server: EmbeddedNats, prefix: str) -> list[dict[str, Any]]:
    """What the audit trail holds."""
    options = ["--url", server.url, "--prefix", prefix, "-o", "json"]
    told = await run_cli("events", "--audit", *options)
    return [json.loads(line) for line in told.out.splitlines()]


async def test_changes_are_asked_for_confirmed_done_and_recorded(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix, console_token=TOKEN) as made, looking(opened, made.url) as look:
        await two_desks(made, ["ACC-1", "ACC-2"])
        await look.until_text("#rows", "ACC-1")
        assert not await look.page.locator("#rows button").first.is_visible(), "locked at first"
        await unlock(look)
        await look.page.locator("#rows button").first.click()
        await look.until_text("#plan", "ACC-1 → desk-2")
        await look.page.click("#confirming button[value=no]")
        assert await changes(server, prefix) == [], "a plan that was not confirmed is no change"

        await look.page.locator("#rows button").first.click()
        await confirm(look, "before the upgrade")
        await look.until_text("#rows tr:first-child", "desk-2")
        await look.page.click("#service-desk tr:has-text('desk-1') button:has-text('Drain')")
        await look.until_text("#plan", "ACC-2 → desk-2")
        await confirm(look)
        await look.until_text("#service-desk", "1 of 1 instance live")
        assert await made.add(7, "ACC-2") == 7
        await look.page.click("#service-desk tr:has-text('desk-2') button:has-text('Disconnect')")
        await look.until_text("#plan", "2 resources without a standby")
        await confirm(look)
        await look.until_text("#alarms", "2 resources of desk without an active")

        told = await changes(server, prefix)
        assert [(one["verb"], one["by"], one["ok"]) for one in told] == [
            ("failover", "console:maria", True),
            ("drain", "console:maria", True),
            ("disconnect", "console:maria", True),
        ]
        assert told[0]["reason"] == "before the upgrade"


async def test_a_dead_letter_is_shown_with_why_and_redriven(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    """G3: under the id that is derived from its own."""
    async with desk(server, prefix, console_token=TOKEN) as made, looking(opened, made.url) as look:
        await two_desks(made, ["ACC-1"])
        await made.add(1, "ACC-1")
        why = "begun 3 times, and its process died each time"
        request_id = await bury(server, prefix, resource="ACC-1", error=why)
        await look.until_text("#letter-list", f"gave_up: {why}")
        await look.until_text("#alarms", "1 request failed for good")
        await unlock(look)
        await look.page.click("#letter-list button:has-text('Redrive')")
        await look.until_text("#plan", redriven_id(request_id))
        await confirm(look, "fixed in 1.2")
        await look.until_text("#letters-count", "none")
        assert await made.add(1, "ACC-1") == 6, "its 4 has taken effect, once"
        [told] = await changes(server, prefix)
        assert (told["verb"], told["by"]) == ("dlq-redrive", "console:maria")


async def test_a_wrong_token_changes_nothing_and_says_so(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix, console_token=TOKEN) as made, looking(opened, made.url) as look:
        await two_desks(made, ["ACC-1"])
        await look.until_text("#rows", "ACC-1")
        await unlock(look, token="not-the-right-token")
        await look.page.locator("#rows button").first.click()
        await look.until_text("#refusal", "wrong token")
        assert await look.page.is_disabled("#do")
        await look.page.keyboard.press("Escape")
        assert not await look.page.locator("#rows button").first.is_visible(), "locked again"
        assert await changes(server, prefix) == []
        look.complaints.clear()  # the browser notes each 401


# --- for people -------------------------------------------------------------------------------------------------


async def test_it_fits_a_phone(server: EmbeddedNats, prefix: str, opened: Browser) -> None:
    async with desk(server, prefix) as made:
        await two_desks(made, ["ACC-1", "a" * 200])
        await bury(server, prefix, resource="ACC-1", error="x" * 300)
        async with looking(opened, made.url, width=PHONE_WIDTH, height=PHONE_HEIGHT) as look:
            await look.until_text("#letter-list", "xxx")
            await look.until_text("#rows", "ACC-1")
            wide = await look.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= PHONE_WIDTH
            box = await look.page.locator("#verdict").bounding_box()
            assert box is not None
            assert box["y"] + box["height"] < PHONE_HEIGHT / 2, "what is wrong is seen at once"


CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
  };
  const texts = [...document.querySelectorAll('body *')].filter((node) => node.offsetParent &&
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  return texts.map((node) => {
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.outerHTML.slice(0, 80)];
  }).sort((a, b) => a[0] - b[0]);
}"""


@pytest.mark.parametrize("dark", [False, True])
async def test_every_text_can_be_read_in_both_schemes(
    server: EmbeddedNats, prefix: str, opened: Browser, *, dark: bool
) -> None:
    """WCAG AA: 4.5 to 1. Nothing moves or blinks, and digits have one width."""
    async with desk(server, prefix, console_token=TOKEN) as made:
        await two_desks(made, ["ACC-1", "ACC-2"])
        await bury(server, prefix, resource="ACC-1", error="why")
        await made.kill("desk-1")
        async with looking(opened, made.url, dark=dark) as look:
            await look.until_text("#alarms", "desk-1 is lost")
            await look.until_text("#letter-list", "why")
            await look.until_text("#moves", "desk-2")
            await unlock(look)
            found = await look.page.evaluate(CONTRAST)
            assert len(found) > 60
            assert found[0][0] >= 4.5, found[:5]
            ground = await look.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(13, 17, 23)" if dark else "rgb(243, 245, 248)")
            assert await look.page.evaluate("document.getAnimations().length") == 0
            style = "getComputedStyle(document.querySelector('#rows')).fontVariantNumeric"
            assert await look.page.evaluate(style) == "tabular-nums"


async def test_states_are_told_without_colour(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix) as made:
        await two_desks(made, ["ACC-1"])
        await made.kill("desk-2")
        async with looking(opened, made.url) as look:
            await look.until_text("#service-desk", "✕ lost")
            words = await look.page.eval_on_selector_all(
                ".state, .level", "nodes => nodes.map(n => n.textContent)"
            )
            assert all(len(word.split(" ", 1)[1]) > 2 for word in words), words


async def test_a_replica_that_does_not_lead_shows_the_same(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    async with desk(server, prefix) as made, control(server.url, prefix) as second:
        assert not second.leading
        await two_desks(made, ["ACC-1"])
        async with looking(opened, f"http://127.0.0.1:{second.http_port}") as look:
            await look.until_text("#service-desk", "2 of 2 instances live")
            await look.until_text("#rows", "desk-1")
            await look.until_text("#event-list", "instance_registered")
            assert f"{made.control.id} leads" in await look.text("#foot")


async def test_a_group_service_has_no_resources_and_is_well(
    server: EmbeddedNats, prefix: str, opened: Browser
) -> None:
    double: Method[int, int] = Method("doubles", "double", request=int, reply=int)
    service = Service("doubles")

    @service.handles(double)
    async def twice(_: aegis_sdk.Context, amount: int) -> int:
        return 2 * amount

    async with desk(server, prefix) as made:
        await made.caller.serve(service, instance_id=f"dbl-{secrets.token_hex(2)}")
        async with looking(opened, made.url) as look:
            await look.until_text("#service-doubles", "group")
            await look.until_text("#verdict", "All is well")
            await look.until_text("#resources-count", "no resource matches (of 0)")
