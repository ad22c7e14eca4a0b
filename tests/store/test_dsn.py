"""A DSN leads where the driver goes, and one whose password would be taken for something else is refused unseen."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from seawall.kernel.error import Misconfigured, Unavailable
from seawall.store.driver import Settings, connect
from seawall.store.dsn import shown, target
from seawall.testing.postgres import Database


@pytest.mark.parametrize(
    ("dsn", "where", "user", "secret"),
    [
        ("postgresql://h/d", "h:5432/d", "", False),
        ("postgres://u:p@h:6/d?sslmode=require", "h:6/d", "u", True),
        ("postgresql://u:a:b%2F%40%23@[::1]:3,h1:1,h2/d", "[::1]:3,h1:1,h2:5432/d", "u", True),
        ("postgresql://h1,h2/d?port=7", "h1:5432,h2:5432/d", "", False),
        ("postgresql:///d?host=h1,h2:9&port=7,8", "h1:7,h2:9/d", "", False),
        ("postgresql:///d?host=h1,h2&port=7", "h1:7,h2:7/d", "", False),
        ("postgresql:///d?host=/run/pg&port=7&user=me%40x", "/run/pg:7/d", "me@x", False),
        ("postgresql://u@%2Frun%2Fpg/d%20e", "/run/pg:5432/d e", "u", False),
        ("postgresql:///d?user=me@cloud&password=a@b", "default host/d", "me@cloud", True),
        ("postgresql://u:p@/d", "default host/d", "u", True),
        ("postgresql://:7/d", ":7/d", "", False),
        ("postgresql://", "default host/", "", False),
        ("postgresql://h?dbname=d", "h:5432/d", "", False),
        ("postgresql:///d?service=main", "default host/d", "", False),
        ("postgresql://u@h/d?sslpassword=x", "h:5432/d", "u", True),
        ("postgresql://u:@h/d", "h:5432/d", "u", False),
    ],
)
def test_a_dsn_leads_where_the_driver_goes(dsn: str, where: str, user: str, secret: bool) -> None:
    found = target(dsn)
    assert (found.shown, found.user, found.secret) == (where, user, secret)
    assert shown(dsn) == where


LEAKY = [
    "postgresql://u:s3cret/pw@127.0.0.1:1/x",
    "postgresql://u:s3cret#pw@127.0.0.1:1/x",
    "postgresql://u:s3cret?pw@127.0.0.1:1/x",
    "postgresql://u:s3cret@pw@127.0.0.1:1/x",
    "postgresql://u:s3c[ret@127.0.0.1:1/x",
    "postgresql://u:s3c]ret@127.0.0.1:1/x",
    "postgresql://u:s3c\u2100ret@127.0.0.1:1/x",
    "postgresql://u:1/s3cret@127.0.0.1:1/x",
    "postgresql://u:1#s3cret@127.0.0.1:1/x",
    "postgresql://u:1?s3=cret@127.0.0.1:1/x",
    "postgresql://u:1@h:2/s3cret@127.0.0.1:1/x",
    "postgresql:u:s3cret@127.0.0.1:1/x",
    "postgresql://u@h/x?password=s3#cret",
    "postgresql://u@h/x?s3cret",
    "postgresql://u@h,/x",
    "postgresql://u@h:0/x",
    "postgresql://u@h:65536/x",
    "postgresql://u@h:s3cret/x",
    "postgresql:///x?host=h&port=s3cret",
    "postgresql:///x?host=h1,h2,h3&port=1,2",
    "postgresql://[s3cret/x",
    "s3cret://u@h/x",
    "host=h password=s3cret dbname=x",
    "s3cret",
]


@pytest.mark.parametrize("dsn", LEAKY)
def test_what_is_no_dsn_is_refused_without_repeating_any_of_it(dsn: str) -> None:
    with pytest.raises(Misconfigured, match="percent-encoded") as caught:
        target(dsn)
    assert "s3" not in str(caught.value) and caught.value.__suppress_context__
    assert shown(dsn) == "(not understood)"


@pytest.mark.parametrize("dsn", LEAKY)
async def test_connecting_by_what_is_no_dsn_is_unavailable_and_tells_nothing_of_it(dsn: str) -> None:
    with pytest.raises(Unavailable, match="percent-encoded") as caught:
        await connect(Settings(dsn=dsn), role="t", timeout_s=1.0)
    assert "s3" not in str(caught.value) and caught.value.__suppress_context__


async def test_what_libpqs_own_files_and_variables_say_wrong_is_unavailable_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = tmp_path / "pg_service.conf"
    service.write_text("password=s3cret\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    with pytest.raises(Unavailable, match="MissingSectionHeaderError") as caught:
        await connect(Settings(dsn="postgresql:///x?service=main"), role="t", timeout_s=1.0)
    assert "s3cret" not in str(caught.value) and caught.value.__suppress_context__
    monkeypatch.setenv("PGPORT", "s3cret")
    with pytest.raises(Unavailable, match="ValueError") as caught:
        await connect(Settings(dsn="postgresql://h/x"), role="t", timeout_s=1.0)
    assert "s3cret" not in str(caught.value) and caught.value.__suppress_context__


async def test_every_form_that_the_driver_takes_connects(database: Database) -> None:
    host = database.dsn.partition("host=")[2]
    name = database.dsn.partition("@/")[2].partition("?")[0]
    for dsn in (
        database.dsn,
        f"postgresql://seawall:any@{quote(host, safe='')}/{name}",
        f"postgres:///{name}?user=seawall&host={host}",
        f"postgresql://seawall@/{name}?host=/nonexistent,{host}&port=1,5432",
        f"postgresql://seawall@127.0.0.1:1,{quote(host, safe='')}/{name}?target_session_attrs=any",
    ):
        connection = await connect(Settings(dsn=dsn), role="t", timeout_s=5.0)
        assert await connection.fetchval("select current_database()") == name
        await connection.close()
