"""Credentials that end while an instance serves and callers call: named as such, and replaced without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aegis_sdk
import pytest
from aegis_sdk import OutcomeUnknown, RefusedByNats, Role
from aegis_sdk.nats import connection

from tests.adverse.support_doors import ADD, Guarded, totals
from tests.adverse.test_refusals import PASSWORD, until_refused, warnings
from tests.adverse.test_secrets import run_control
from tests.integration.cli.support import run_cli
from tests.integration.control.support import control, until
from tests.integration.login.support import Operator
from tests.scenarios.system import Process

LIVES_S = 3.0


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    server = Guarded(tmp_path)
    yield server
    server.stop()


async def test_credentials_that_expire_are_named_and_new_ones_in_their_place_are_taken_up(
    guarded: Guarded,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """G8: the server calls an expired login as it calls an unknown one, so the reason is told from the file."""
    monkeypatch.setattr(connection, "REFUSED_WAIT_S_MAX", 0.3)
    operator = Operator()
    guarded.start(*operator.sections())
    url = f"nats://{guarded.host}"
    lasting = str(operator.creds(tmp_path / "control.creds"))
    file = operator.creds(tmp_path / "app.creds", lives_s=LIVES_S)
    expired = r"app\.creds expired at 20"
    async with control(url, "aegis", creds=lasting):  # noqa: SIM117 - one after the other
        async with aegis_sdk.connect(url, credentials=str(file)) as aegis:
            instance = await aegis.serve(totals(), resources={"T-1": Role.AUTO})
            assert await aegis.request(ADD, 1, resource="T-1") == 1
            await until_refused(aegis)

            def reasons(event: str) -> list[str]:
                return [line["reason"] for line in warnings(caplog) if line["event"] == event]

            async def refused_for_good() -> bool:
                return any("Authorization Violation" in said for said in reasons("nats_refused"))

            await until(refused_for_good, "the server refuses the login itself")
            with pytest.raises(OutcomeUnknown, match=expired):
                await aegis.request(ADD, 1, resource="T-1", timeout_s=0.3, key="doubt")
            with pytest.raises(RefusedByNats, match=expired):
                async with aegis_sdk.connect(url, credentials=str(file)):
                    pass
            file.write_text("-----BEGIN NATS USER JWT-----\n")

            async def unreadable() -> bool:
                return any("app.creds holds no" in said for said in reasons("login_unreadable"))

            await until(unreadable, "the half-written file is named")
            operator.creds(file)
            assert await aegis.request(ADD, 1, resource="T-1", timeout_s=15.0) in (2, 3)
            assert not instance._link.hopeless.done()
    assert all("app.creds expired at 20" in said for said in reasons("nats_refused"))


async def test_tools_that_start_with_expired_credentials_end_with_their_code_and_name_the_file(
    guarded: Guarded, tmp_path: Path
) -> None:
    """Nothing says that no server answers, or that one should be started."""
    operator = Operator()
    guarded.start(*operator.sections())
    url = f"nats://{guarded.host}"
    login = ("--creds", str(operator.creds(tmp_path / "old.creds", lives_s=-5.0)))
    told = await run_cli("status", "--url", url, *login)
    arguments = ("serve", "--url", url, *login, "--no-wait", "--http-port", "0")
    said = await asyncio.to_thread(run_control, *arguments)
    for code, line in ((told.code, told.err), (said.returncode, said.stderr)):
        assert code == 5, line
        assert "old.creds expired at 20" in line
        assert "start one" not in line


@pytest.mark.slow
async def test_an_instance_whose_login_is_refused_for_good_ends_its_process_with_a_code(
    guarded: Guarded, tmp_path: Path
) -> None:
    """A password is in no file: its supervisor has to start it again. It takes the grace of 10 s."""
    guarded.start(PASSWORD.format("one"))
    async with control(f"nats://{guarded.host}", "aegis", user="c", password="c"):
        process = await Process.start(
            "instance",
            *("-m", "tests.adverse.serving", f"nats://u:one@{guarded.host}", "one"),
            folder=tmp_path,
        )
        try:
            await process.wait_for("ready", timeout_s=30.0)
            guarded.reload(PASSWORD.format("two"))
            async with asyncio.timeout(14.0):
                assert await process._process.wait() == 1
            assert process.logged("login_refused_for_good")
            assert "RefusedByNats: NATS refused: Authorization Violation" in process.log_text()
        finally:
            await process.kill()
