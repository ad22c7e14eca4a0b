"""``sql``: bounded, by secret, and silent about values."""

from __future__ import annotations

import logging
from typing import Any

import asyncpg
import pytest

from seawall.step import StepDeclined, StepRefused, StepUnavailable, secret, sql
from seawall.testing.postgres import Database
from step.rig import serving, toolbox

DB = secret("reports")
HIDDEN = "hunter2-value"


@pytest.fixture
def secrets(database: Database) -> dict[str, str]:
    return {"reports": database.dsn}


async def test_rows_come_back_as_json_has_them(secrets: dict[str, str]) -> None:
    async with toolbox(secrets=secrets):
        found = await sql(
            "select $1::int as n, 'é' as t, 1.5::numeric as d, true as b, null as nothing, '\\x00ff'::bytea as raw,"
            " '2026-01-02'::date as day, array[1,2] as list, 'NaN'::float8 as nan, '{}'::jsonb as j, (1,'x') as pair",
            7, dsn=DB,
        )  # fmt: skip
    assert found["rows"] == [
        {"n": 7, "t": "é", "d": "1.5", "b": True, "nothing": None, "raw": "AP8=", "day": "2026-01-02", "list": [1, 2],
         "nan": "nan", "j": "{}", "pair": [1, "x"]}
    ]  # fmt: skip


async def test_a_change_is_committed_and_one_that_fails_is_not(secrets: dict[str, str]) -> None:
    async with toolbox(secrets=secrets):
        await sql("create table note (id int primary key, text text)", dsn=DB)
        done = await sql("insert into note values ($1, $2)", 1, "a", dsn=DB)
        assert done == {"rows": [], "status": "INSERT 0 1"}
        back = await sql("insert into note select generate_series(2, 9) returning id", dsn=DB)
        assert [row["id"] for row in back["rows"]] == list(range(2, 10))
        with pytest.raises(StepDeclined, match="more than 3 rows"):
            await sql("insert into note select generate_series(10, 19) returning id", dsn=DB, rows_max=3)
        assert (await sql("select count(*) as n from note", dsn=DB))["rows"] == [{"n": 9}]


async def test_read_only_changes_nothing(secrets: dict[str, str]) -> None:
    async with toolbox(secrets=secrets):
        with pytest.raises(StepDeclined, match="25006"):
            await sql("create table t (id int)", dsn=DB, read_only=True)


@pytest.mark.parametrize(
    ("statement", "args", "error", "says"),
    [
        ("select nothing", (), StepDeclined, "42703"),
        ("select $1::int", (HIDDEN,), StepDeclined, "22000"),
        ("select $1::int", (), StepDeclined, "don't fit"),
        ("select ($1::text)::int", (HIDDEN,), StepDeclined, "22P02"),
        ("select 1; select 2", (), StepDeclined, "42601"),
        ("insert into secretive values ($1)", (HIDDEN,), StepDeclined, "23505.*constraint secretive_pkey"),
        ("select pg_sleep(9)", (), StepUnavailable, "57014|didn't answer"),
        ("select repeat('x', 300000) from generate_series(1, 9)", (), StepDeclined, "larger than"),
        ("select pg_terminate_backend(pg_backend_pid())", (), StepUnavailable, "57P01|08003|no connection"),
    ],
)
async def test_errors_are_told_by_state_and_never_by_value(
    statement: str, args: tuple[Any, ...], error: type[Exception], says: str, secrets: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    admin = await asyncpg.connect(secrets["reports"])
    await admin.execute(f"create table secretive (t text primary key); insert into secretive values ('{HIDDEN}')")
    await admin.close()
    async with toolbox(secrets=secrets):
        with pytest.raises(error, match=says) as caught:
            await sql(statement, *args, dsn=DB, timeout_s=0.5 if "sleep" in statement else 20.0)
    assert HIDDEN not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None or HIDDEN not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("statement", "given"),
    [("", {}), ("select 1", {"timeout_s": 0}), ("select 1", {"timeout_s": 999}), ("select 1", {"rows_max": 0}),
     ("select 1", {"dsn": "postgresql://u:p@h/d"}), ("select 1", {"dsn": secret("missing")}),
     ("select 1", {"dsn": secret("nonsense")})],
    ids=str,
)  # fmt: skip
async def test_what_makes_no_sense_is_refused(statement: str, given: dict[str, Any]) -> None:
    async with toolbox(secrets={"reports": "postgresql://u:p@127.0.0.1:1/d", "nonsense": "mysql://p@ss@h"}):
        with pytest.raises(StepRefused) as caught:
            await sql(statement, **{"dsn": DB, **given})
    assert "p@" not in str(caught.value)


async def test_a_server_that_is_away_or_hangs_is_tried_later_and_nothing_was_sent() -> None:
    async with serving() as gone:
        pass
    async with toolbox(secrets={"reports": f"postgresql://u:p@127.0.0.1:{gone.port}/d"}, connect_s=0.3):
        with pytest.raises(StepUnavailable) as caught:
            await sql("select 1", dsn=DB)
        assert not caught.value.sent

    async with serving() as silent:
        dsn = f"postgresql://u:p@127.0.0.1:{silent.port}/d"
        async with toolbox(secrets={"reports": dsn}, connect_s=0.3):
            with pytest.raises(StepUnavailable) as caught:
                await sql("select 1", dsn=DB, timeout_s=0.3)
            assert not caught.value.sent
