"""ipc-cli as a process against a real NATS: what it asks, what it prints, how it ends."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
from typing import Any

import pytest
from aegis_control.application.operators.survey import Overview, ServiceSummary
from aegis_control.infrastructure.admin_client import ControlStatus, ServiceDescription
from aegis_control.infrastructure.embedded_nats import free_port
from aegis_sdk.contract.control import (
    AdminReply,
    InstanceState,
    InstanceView,
    LeaseState,
    MethodSpec,
    Moved,
    Rebalanced,
    RouteView,
    ServiceMoves,
    ServiceRecord,
    ServiceView,
    StandbyView,
)
from pydantic import BaseModel

from tests.integration.cli.support import (
    Result,
    ScriptedControl,
    end_of,
    run_cli,
    run_process,
    start_cli,
)

ACTIVE = InstanceView(
    service="accounts",
    instance_id="acc-1",
    state=InstanceState.LIVE,
    version="1.2.0",
    host="trade-01",
    pid=4711,
    since=1_750_000_000.0,
    heartbeat_age_s=0.1,
    running=3,
    active=12,
)
STANDBY = InstanceView(
    service="accounts",
    instance_id="acc-2",
    state=InstanceState.LIVE,
    host="trade-02",
    pid=4712,
    standby=12,
    lag_entries=7,
)
ACCOUNTS = ServiceView(
    service="accounts", version="1.2.0", methods=["book"], resources=12, instances=[ACTIVE, STANDBY]
)
ORDERS = ServiceView(service="orders", methods=["place"])
ROUTE = RouteView(
    service="accounts",
    resource="ACC 1/é",
    state=LeaseState.HELD,
    active="acc-1",
    epoch=4,
    since=1_750_000_000.0,
    standbys=[StandbyView(instance_id="acc-2", state=InstanceState.LIVE, lag_entries=7)],
)
DESCRIPTION = ServiceDescription(
    service=ServiceRecord(
        service="accounts", methods=[MethodSpec(name="book", request_schema={"type": "object"})]
    ),
    view=ACCOUNTS,
    routes=[ROUTE],
)
STATUS = ControlStatus(
    leader="control-1",
    services=1,
    instances={"live": 2},
    resources={"held": 12},
)


def ok(data: BaseModel | list[Any]) -> AdminReply:
    plain = data.model_dump() if isinstance(data, BaseModel) else [d.model_dump() for d in data]
    return AdminReply(ok=True, data=plain)


def summary(*instances: InstanceView) -> ServiceSummary:
    held = {LeaseState.HELD: 12}
    return ServiceSummary(service="accounts", instances=list(instances), leases=held)


def no(code: str, message: str) -> AdminReply:
    return AdminReply(ok=False, code=code, message=message)


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


class TestLists:
    async def test_list_services_shows_services_instances_states_and_roles(
        self, control: ScriptedControl
    ) -> None:
        control.answers["list-services"] = ok([ACCOUNTS, ORDERS])
        result = await run_process("list-services", *control.args())
        assert result.code == 0
        assert result.err == ""
        assert [line.split() for line in result.out.splitlines()] == [
            ["SERVICE", "INSTANCE", "STATE", "ROLES", "RUNNING", "LAG"],
            ["accounts", "acc-1", "live", "12", "active", "3", "0"],
            ["acc-2", "live", "12", "standby", "0", "7"],
            ["orders", "-", "no", "instances", "-", "-", "-"],
            ["services:", "2,", "instances:", "2", "(2", "live)"],
        ]

    async def test_json_output_is_the_whole_answer(self, control: ScriptedControl) -> None:
        control.answers["list-services"] = ok([ACCOUNTS, ORDERS])
        result = await run_cli("-o", "json", "list-services", *control.args())
        assert [ServiceView.model_validate(entry) for entry in result.json] == [ACCOUNTS, ORDERS]
        assert set(result.json[0]["instances"][0]) == set(InstanceView.model_fields)

    async def test_a_piped_table_has_one_line_a_row_however_long_the_names(
        self, control: ScriptedControl
    ) -> None:
        long = InstanceView(service="s" * 63, instance_id="i" * 64, state=InstanceState.STALLED)
        control.answers["list-services"] = ok([ServiceView(service="s" * 63, instances=[long])])
        result = await run_cli("list-instances", *control.args())
        header, row = result.out.splitlines()
        assert header.startswith("INSTANCE")
        assert row.split()[:3] == ["i" * 64, "s" * 63, "stalled"]
        assert "\x1b" not in result.out

    async def test_list_instances_of_one_service(self, control: ScriptedControl) -> None:
        control.answers["list-services"] = ok([ACCOUNTS, ORDERS])
        result = await run_cli("list-instances", "-s", "accounts", "-o", "json", *control.args())
        assert [entry["instance_id"] for entry in result.json] == ["acc-1", "acc-2"]

    async def test_describe_shows_one_service_in_full(self, control: ScriptedControl) -> None:
        control.answers["describe"] = AdminReply(ok=True, data=DESCRIPTION.model_dump())
        result = await run_cli("describe", "accounts", *control.args())
        assert result.code == 0
        assert control.asked == [("describe", {"service": "accounts"})]
        for text in ("book", "acc-1", "trade-01:4711", "2025-06-15 15:06:40Z", "7 entries"):
            assert text in result.out
        assert "ACC 1/é" in result.out.splitlines()[-1]

    async def test_describe_as_json_holds_the_schemas(self, control: ScriptedControl) -> None:
        control.answers["describe"] = AdminReply(ok=True, data=DESCRIPTION.model_dump())
        result = await run_cli("describe", "accounts", "-o", "json", *control.args())
        assert ServiceDescription.model_validate(result.json) == DESCRIPTION

    async def test_describe_asyncapi_is_the_contract_alone(self, control: ScriptedControl) -> None:
        control.answers["contract"] = AdminReply(ok=True, data=DESCRIPTION.service.model_dump())
        result = await run_cli("describe", "accounts", "--asyncapi", *control.args())
        assert control.asked == [("contract", {"service": "accounts"})]
        assert result.json["asyncapi"] == "3.0.0"
        assert list(result.json["operations"]) == [m.name for m in DESCRIPTION.service.methods]

    async def test_an_unknown_service_is_exit_3_with_the_known_ones(
        self, control: ScriptedControl
    ) -> None:
        control.answers["list-services"] = ok([ACCOUNTS, ORDERS])
        result = await run_cli("list-instances", "-s", "acounts", *control.args())
        assert result.code == 3
        assert one_line(result.err)
        assert "accounts, orders" in result.err


class TestRoutes:
    async def test_show_route_shows_active_epoch_and_standbys(
        self, control: ScriptedControl
    ) -> None:
        control.answers["show-route"] = ok([ROUTE])
        result = await run_cli("show-route", "ACC 1/é", "--service", "accounts", *control.args())
        assert result.code == 0
        assert control.asked == [("show-route", {"resource": "ACC 1/é", "service": "accounts"})]
        words = [line.split() for line in result.out.splitlines()]
        assert ["resource", "ACC", "1/é"] in words
        assert ["active", "acc-1"] in words
        assert ["epoch", "4"] in words
        assert ["acc-2", "live", "7"] in words

    @pytest.mark.parametrize(
        "answer", [ok([]), no("not_found", "no resource 'X'")], ids=["empty", "not_found"]
    )
    async def test_an_unknown_resource_is_exit_3(
        self, control: ScriptedControl, answer: AdminReply
    ) -> None:
        control.answers["show-route"] = answer
        result = await run_cli("show-route", "X", *control.args())
        assert (result.code, result.out) == (3, "")
        assert one_line(result.err)
        assert "'X'" in result.err

    async def test_a_resource_id_can_not_write_to_the_terminal(
        self, control: ScriptedControl
    ) -> None:
        evil = ROUTE.model_copy(update={"resource": "[red]A\x1b[2J\nB"})
        control.answers["show-route"] = ok([evil])
        result = await run_cli("show-route", "x", *control.args())
        assert "\x1b" not in result.out
        assert r"[red]A\x1b[2J\nB" in result.out


class TestChanges:
    async def test_disconnect_carries_the_reason_and_who_asked(
        self, control: ScriptedControl
    ) -> None:
        control.answers["disconnect"] = ok(
            Moved(instance_id="acc-1", moved={"A": "acc-2"}, vacant=["B"])
        )
        result = await run_cli("disconnect", "acc-1", "--reason", "disk", "--yes", *control.args())
        assert result.code == 0
        [(verb, body)] = control.asked
        assert verb == "disconnect"
        assert (body["instance_id"], body["reason"], body["dry_run"]) == ("acc-1", "disk", False)
        assert "@" in body["by"]
        assert [line.split() for line in result.out.splitlines()] == [
            ["acc-1", "is", "disconnected"],
            ["RESOURCE", "NEW", "ACTIVE"],
            ["A", "acc-2"],
            ["B", "nobody:", "no", "standby"],
        ]

    @pytest.mark.parametrize("verb", ["disconnect", "drain", "failover"])
    async def test_a_dry_run_asks_for_a_dry_run_and_says_so(
        self, control: ScriptedControl, verb: str
    ) -> None:
        control.answers[verb] = ok(Moved(instance_id="x", moved={"x": "acc-2"}, dry_run=True))
        result = await run_cli(verb, "x", "--dry-run", *control.args())
        assert result.code == 0
        assert [(asked, body["dry_run"]) for asked, body in control.asked] == [(verb, True)]
        assert result.out.startswith("dry run: x would ")

    async def test_failover_names_the_resource_the_service_and_the_next_active(
        self, control: ScriptedControl
    ) -> None:
        control.answers["failover"] = ok(Moved(moved={"A": "acc-2"}))
        result = await run_cli(
            "failover", "A", "--to", "acc-2", "-s", "accounts", "-o", "json", *control.args()
        )
        assert result.json["moved"] == {"A": "acc-2"}
        [(_, body)] = control.asked
        assert (body["resources"], body["service"], body["to"]) == (["A"], "accounts", "acc-2")

    async def test_failover_takes_many_resources_in_one_call(
        self, control: ScriptedControl
    ) -> None:
        control.answers["failover"] = ok(Moved(moved={"A": "acc-2", "B": "acc-3"}))
        result = await run_cli("failover", "A", "B", "--reason", "load", *control.args())
        assert [body["resources"] for _, body in control.asked] == [["A", "B"]]
        assert result.out.splitlines()[0] == "2 resources have moved"
        too_many = await run_cli("failover", *(["A"] * 1_001), *control.args())
        assert (too_many.code, "at most 1000" in too_many.err) == (2, True)

    async def test_rebalance_says_what_moves(self, control: ScriptedControl) -> None:
        moves = [ServiceMoves(service="accounts", moves={"A": "acc-2"})]
        control.answers["rebalance"] = ok(Rebalanced(services=moves))
        result = await run_cli("rebalance", "--as", "eve", *control.args())
        [(_, body)] = control.asked
        assert (body["service"], body["by"], body["dry_run"]) == (None, "eve", False)
        assert [line.split() for line in result.out.splitlines()] == [
            ["resources:", "1", "move", "from", "now", "on"],
            ["SERVICE", "RESOURCE", "NEXT", "ACTIVE"],
            ["accounts", "A", "acc-2"],
        ]
        control.answers["rebalance"] = ok(Rebalanced(services=[], dry_run=True))
        dry = await run_cli("rebalance", "accounts", "--dry-run", *control.args())
        assert dry.out == "dry run: nothing to move: it is even\n"
        control.answers["rebalance"] = no("refused", "accounts: instance a drains")
        assert (await run_cli("rebalance", *control.args())).code == 5

    async def test_a_person_at_a_terminal_is_asked_before_a_rebalance(
        self, control: ScriptedControl
    ) -> None:
        moves = [ServiceMoves(service="accounts", moves={"A": "acc-2"})]
        control.answers["rebalance"] = ok(Rebalanced(services=moves, dry_run=True))
        assert (await _at_a_terminal(["rebalance", *control.args()], "n")).code == 1
        assert [body["dry_run"] for _, body in control.asked] == [True]

    async def test_a_refusal_is_exit_5_with_controls_own_words(
        self, control: ScriptedControl
    ) -> None:
        control.answers["failover"] = no("refused", "A has no standby")
        result = await run_cli("failover", "A", "--yes", *control.args())
        assert result.code == 5
        assert result.err == "ipc-cli: A has no standby\n"

    async def test_an_unknown_instance_is_exit_3(self, control: ScriptedControl) -> None:
        control.answers["drain"] = no("not_found", "no instance 'x'")
        assert (await run_cli("drain", "x", *control.args())).code == 3

    @pytest.mark.parametrize(("answer", "asked", "code"), [("y", 2, 0), ("n", 1, 1)])
    async def test_a_person_at_a_terminal_sees_the_plan_and_is_asked(
        self, control: ScriptedControl, answer: str, asked: int, code: int
    ) -> None:
        control.answers["disconnect"] = ok(Moved(instance_id="acc-1", moved={"A": "acc-2"}))
        result = await _at_a_terminal(["disconnect", "acc-1", *control.args()], answer)
        assert result.code == code
        assert "dry run: acc-1 would be disconnected" in result.out
        assert [body["dry_run"] for _, body in control.asked] == [True, False][:asked]


class TestStatus:
    async def test_status_is_ok_when_all_are_live(self, control: ScriptedControl) -> None:
        control.answers["status"] = AdminReply(ok=True, data=STATUS.model_dump())
        control.answers["overview"] = ok(Overview(services=[summary(ACTIVE, STANDBY)]))
        result = await run_cli("status", "-o", "json", *control.args())
        assert (result.code, result.json["unwell"]) == (0, [])
        assert result.json["control"] == STATUS.model_dump()
        assert re.fullmatch(r"2\.\d+\.\d+", result.json["nats_version"])

    async def test_status_is_exit_6_when_an_instance_is_lost(
        self, control: ScriptedControl
    ) -> None:
        lost = ACTIVE.model_copy(update={"state": InstanceState.LOST})
        control.answers["status"] = AdminReply(ok=True, data=STATUS.model_dump())
        control.answers["overview"] = ok(Overview(services=[summary(lost)]))
        result = await run_cli("status", *control.args())
        assert result.code == 6
        assert "degraded: accounts/acc-1 is lost" in result.out
        assert "2 (2 live)" in result.out

    async def test_version_asks_nobody(self) -> None:
        result = await run_cli("version", "-o", "json", "--url", "nats://127.0.0.1:1")
        assert result.code == 0
        assert set(result.json) == {"ipc_cli", "aegis_sdk", "nats_py", "python"}


class TestFailures:
    async def test_no_nats_is_exit_4(self) -> None:
        result = await run_process("list-services", "--url", f"nats://127.0.0.1:{free_port()}")
        assert (result.code, result.out) == (4, "")
        assert one_line(result.err)
        assert "AEGIS_URL" in result.err

    async def test_no_control_is_exit_4_and_says_how_to_start_one(self, nats_url: str) -> None:
        result = await run_cli("list-services", "--url", nats_url, "--prefix", "nobody")
        assert result.code == 4
        assert one_line(result.err)
        assert f"no control service answers at {nats_url}" in result.err
        assert "start one with: aegis-control serve" in result.err

    async def test_a_silent_control_is_exit_4_after_the_timeout(
        self, control: ScriptedControl
    ) -> None:
        control.answers["list-services"] = None
        result = await run_cli("list-services", "--timeout", "0.2", *control.args())
        assert result.code == 4
        assert "within 0.2 s" in result.err

    async def test_errors_are_json_when_json_is_asked_for(self, nats_url: str) -> None:
        result = await run_cli("list-services", "-o", "json", "--url", nats_url, "--prefix", "no")
        assert result.out == ""
        assert set(result.error) == {"code", "message", "hint", "exit_code"}
        assert (result.error["code"], result.error["exit_code"]) == ("no_control", 4)

    async def test_usage_errors_are_json_too(self) -> None:
        result = await run_cli("show-route", "--output=json")
        assert result.code == 2
        assert result.error["code"] == "usage"

    @pytest.mark.parametrize("body", [b"not json", b"{}", b'{"ok":true,"data":[{"x":1}]}'])
    async def test_an_answer_that_is_not_ours_is_exit_1(
        self, control: ScriptedControl, body: bytes
    ) -> None:
        control.answers["list-services"] = body
        result = await run_cli("list-services", *control.args())
        assert result.code == 1
        assert one_line(result.err)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["frob"],
            ["disconnect"],
            ["list-services", "--timeout", "0"],
            ["list-services", "--timeout", "soon"],
            ["list-services", "-o", "yaml"],
            ["list-services", "--prefix", "No.Good"],
            ["list-services", "--url", ":::"],
            [],
        ],
    )
    async def test_wrong_usage_is_exit_2(self, arguments: list[str]) -> None:
        result = await run_cli(*arguments)
        assert result.code == 2
        assert "Traceback" not in result.err

    async def test_a_password_is_never_printed(self) -> None:
        result = await run_cli("status", "--url", f"nats://ops:hunter2@127.0.0.1:{free_port()}")
        assert result.code == 4
        assert "hunter2" not in result.err

    async def test_wrong_credentials_are_exit_5(self, nats_url: str) -> None:
        url = nats_url.replace("://", "://nobody:wrong@")
        result = await run_cli("status", "--url", url)
        assert result.code == 5
        assert "refused the credentials" in result.err

    async def test_ctrl_c_is_exit_130_without_a_traceback(self, control: ScriptedControl) -> None:
        control.answers["list-services"] = None
        process = await start_cli("list-services", "--timeout", "60", *control.args())
        async with asyncio.timeout(20):
            await control.heard.wait()
        process.send_signal(signal.SIGINT)
        result = await end_of(process)
        assert result.code == 130
        assert "Traceback" not in result.err


class TestSharedOptions:
    async def test_they_stand_before_or_after_the_command(self, control: ScriptedControl) -> None:
        control.answers["list-services"] = ok([])
        before = await run_cli(*control.args(), "-o", "json", "list-services")
        after = await run_cli("list-services", *control.args(), "-o", "json")
        assert before == after == Result(0, "[]\n", "")

    async def test_they_come_from_the_environment_and_a_flag_wins(
        self, control: ScriptedControl
    ) -> None:
        control.answers["list-services"] = ok([])
        env = {"AEGIS_URL": control.url, "AEGIS_PREFIX": "elsewhere"}
        result = await run_cli("list-services", "--prefix", control.prefix, "-o", "json", env=env)
        assert result == Result(0, "[]\n", "")

    async def test_every_command_says_what_it_takes(self) -> None:
        result = await run_cli("failover", "--help")
        assert result.code == 0
        for option in ("--to", "--dry-run", "--yes", "--url", "--timeout", "--output"):
            assert option in result.out


async def _at_a_terminal(arguments: list[str], answer: str) -> Result:
    """Run ipc-cli on a pseudo-terminal of 80 columns and type `answer` when it asks."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from aegis_control.entrypoints.cli import main; main()",
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "80"},
    )
    os.close(theirs)
    typed = False
    shown = ""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        while chunk := await loop.run_in_executor(None, _read, ours):
            shown += chunk
            if not typed and "[y/N]" in shown:
                typed = True
                os.write(ours, f"{answer}\n".encode())
        code = await process.wait()
    os.close(ours)
    return Result(code, shown, "")


def _read(terminal: int) -> str:
    """Empty at the end: Linux reports the other side's close as an error."""
    try:
        return os.read(terminal, 4096).decode()
    except OSError:
        return ""
