"""PostgreSQL's programs get what they need to connect, and nobody else on the machine gets the password."""

from __future__ import annotations

from pathlib import Path

import pytest

from seawall.kernel.error import Misconfigured, Unavailable
from seawall.machine.program import run_program, split_secrets


@pytest.mark.parametrize(
    ("dsn", "address", "password"),
    [
        ("postgresql://me@h/d", "postgresql://me@h/d", None),
        ("postgresql://me:s3@h/d", "postgresql://me@h/d", "s3"),
        ("postgres://me:s%403@[::1]:5,h2:6/d?sslmode=require", "postgres://me@[::1]:5,h2:6/d?sslmode=require", "s@3"),
        ("postgresql://me@h/d?password=s3&sslmode=require", "postgresql://me@h/d?sslmode=require", "s3"),
        ("postgresql://me@h/d?sslmode=require&pass%77ord=s%26+3", "postgresql://me@h/d?sslmode=require", "s& 3"),
        ("postgresql:///d?host=/run/x&user=me&password=s3", "postgresql:///d?host=/run/x&user=me", "s3"),
        ("postgresql://me:a@h/d?password=b", "postgresql://me@h/d", "a"),
        ("host=h user=me dbname=d", "host=h user=me dbname=d", None),
        ("host=h password=s3 dbname=d", "host=h dbname=d", "s3"),
        (r"host = h password = 's\'3 \\x' dbname='a b'", "host = h dbname='a b'", "s'3 \\x"),
        (r"password=s\ 3 host=h", "host=h", "s 3"),
    ],
)  # fmt: skip
def test_a_password_is_taken_out_of_every_form_of_a_dsn(dsn: str, address: str, password: str | None) -> None:
    rest, secrets = split_secrets(dsn)
    assert rest == address
    assert secrets == ({} if password is None else {"PGPASSWORD": password})


@pytest.mark.parametrize("dsn", ["host", "postgresqlx://me@h", "host=h 'x", "password='s3"])
def test_what_is_no_dsn_is_refused_without_repeating_it(dsn: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        split_secrets(dsn)
    assert "s3" not in str(raised.value)


@pytest.mark.parametrize("dsn", ["postgresql://me@h/d?sslpassword=s3", "host=h sslpassword=s3"])
def test_a_passphrase_that_only_an_argument_could_carry_is_refused(dsn: str) -> None:
    with pytest.raises(Misconfigured, match="sslpassword") as raised:
        split_secrets(dsn)
    assert "s3" not in str(raised.value)


async def test_a_program_has_libpqs_variables_and_the_password_and_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nenv > {tmp_path}/environment\n')
    program.chmod(0o755)
    for name, value in {
        "HOME": "/home/me", "PGPASSFILE": "/x/pgpass", "PGSSLROOTCERT": "/x/root.crt", "SEAWALL_DSN": "postgresql://o",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    dsn = "postgresql://me@h/d?sslmode=verify-full&password=s3cret"
    await run_program([str(program), "--quiet"], dsn, lambda _: None, lambda: "", timeout_s=10)
    assert (tmp_path / "arguments").read_text() == "--quiet --dbname postgresql://me@h/d?sslmode=verify-full\n"
    lines = (tmp_path / "environment").read_text().splitlines()
    wanted = {"HOME=/home/me", "PGPASSFILE=/x/pgpass", "PGSSLROOTCERT=/x/root.crt", "PGPASSWORD=s3cret"}
    assert wanted <= set(lines)
    assert not any(line.startswith("SEAWALL") for line in lines)


async def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho no such table >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match=r"pg_dump.*exit status 3: no such table"):
        await run_program([str(program)], "host=h", lambda _: None, lambda: "", timeout_s=10)


async def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match=r"not done in 0\.2 s"):
        await run_program([str(program)], "host=h", lambda _: None, lambda: "", timeout_s=0.2)
