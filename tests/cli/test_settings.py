"""Settings: every problem at once, with its place and what is allowed; never a traceback."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from seawall.kernel.error import Misconfigured
from seawall.router import Settings as RouterSettings
from seawall.settings import host_port, load_resolved, read
from seawall.store import pool

ROOT = Path(__file__).resolve().parents[2]


def problems(tmp_path: Path, text: str | bytes, **environment: str) -> list[str]:
    file = tmp_path / "seawall.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Misconfigured) as caught:
        read({}, config=file, environment=environment)
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "seawall.toml"
    file.write_text('listen = "127.0.0.1:1"\nadmin = "127.0.0.1:1"\nlog_level = "debug"\n[router]\nbatch_records = 7\n')
    found = read(
        {"listen": "127.0.0.1:3", "admin": None},
        config=file,
        environment={
            "SEAWALL_LISTEN": "127.0.0.1:2",
            "SEAWALL_ADMIN": "127.0.0.1:2",
            "SEAWALL_STORE_CONNECTIONS_MAX": "9",
        },
    )
    assert (found.program.listen, found.program.admin, found.program.log_level) == (
        "127.0.0.1:3",
        "127.0.0.1:2",
        "debug",
    )
    assert found.of("router", RouterSettings).batch_records == 7
    assert found.of("store", pool.Settings, dsn="x").connections_max == 9
    origins = {v.key: v.origin for v in found.values.values()}
    assert origins["listen"] == "--listen" and origins["admin"] == "SEAWALL_ADMIN"
    assert origins["router.batch_records"] == f"{file}:5" and origins["collector"] == "default"


def test_all_problems_are_told_together_with_place_and_range(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        'listen = "host:70000"\nlog_level = 3\ntypo = 1\n[router]\nbatch_records = -1\n[nowhere]\nx = 1\n',
        SEAWALL_STORE_CONNECTIONS_MAX="many",
    )
    assert len(found) == 6
    assert any(
        p.startswith("seawall.toml:5: router.batch_records = -1: must be a whole number, from 1 to") for p in found
    )
    assert any(p.startswith("SEAWALL_STORE_CONNECTIONS_MAX: store.connections_max = 'many': must be") for p in found)
    assert any(p.startswith("seawall.toml:3: typo: unknown; ") for p in found)
    assert any(p.startswith("seawall.toml:6: nowhere: unknown; ") for p in found)


def test_the_collectors_name_has_a_place_beside_the_table_of_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "seawall.toml"
    file.write_text('[collector]\nhead_s = 3\nname = "east"\n')
    found = read({}, config=file, environment={})
    assert found.program.collector == "east"
    assert {v.key: v.origin for v in found.values.values()}["collector"] == f"{file}:3"
    assert problems(tmp_path, 'collector = "east"\n[collector]\nhead_s = 3\n') == [
        "seawall.toml:1: collector can't stand beside a table [collector]: write it as name in that table"
    ]
    (problem,) = problems(tmp_path, '[collector]\nname = "East!"\n')
    assert problem.startswith("seawall.toml:2: collector = 'East!': must be 1 to 32 of")


@pytest.mark.parametrize("value", ["0", "-1", "1e309", "inf", "nan", "true", '"5"', "2.5", "[]", "{}", "1979-05-27"])
def test_a_number_that_is_none_or_out_of_range_is_refused(tmp_path: Path, value: str) -> None:
    [found] = problems(tmp_path, f"[router]\nbatch_records = {value}\n")
    assert "router.batch_records" in found and "must be a whole number" in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        ("listen = ", "is not TOML"),
        ("listen = 1\nlisten = 2\n", "is not TOML"),
        ("a" * (1024 * 1024 + 1), "is larger than"),
        ("x = " + "[" * 5000, "is not TOML"),
        ("a: !!python/object:os.system x", "is not TOML"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_settings_file_is_one_problem(tmp_path: Path, text: str | bytes, said: str) -> None:
    [found] = problems(tmp_path, text)
    assert said in found


def test_a_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes('\ufefflog_level = "error"\r\n[router]\r\nbatch_records = 3\r\n'.encode())
    assert read({}, config=file, environment={}).program.log_level == "error"


def test_a_file_that_anybody_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "seawall.toml"
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(Misconfigured, match="chmod o-w"):
        read({}, config=file, environment={})


def test_a_link_to_itself_and_a_missing_secret_file_are_problems(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(Misconfigured, match="can't be read"):
        read({}, config=loop, environment={})
    with pytest.raises(Misconfigured, match="dsn_file"):
        read({}, config=None, environment={"SEAWALL_DSN_FILE": str(tmp_path / "none")})


def test_a_secret_comes_from_its_file_without_one_final_newline_and_is_hidden(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://u:secret@h/d\n")
    found = read({}, config=None, environment={"SEAWALL_DSN_FILE": str(file)})
    assert found.program.dsn == "postgresql://u:secret@h/d"
    assert "secret@" not in repr([v.shown for v in found.values.values()])


def test_a_wrong_secret_is_not_shown_in_the_problem(tmp_path: Path) -> None:
    [found] = problems(tmp_path, "dsn = 123456789\n")
    assert "(hidden)" in found and "123456789" not in found


def test_foreign_variables_with_our_prefix_are_left_alone() -> None:
    assert read({}, config=None, environment={"SEAWALL_SERVICE_HOST": "10.0.0.1", "SEAWALL_LISTEN": ""}) is not None


def test_a_room_gets_from_the_parents_file_what_the_parent_read(tmp_path: Path) -> None:
    first = read({"log_level": "debug"}, config=None, environment={"SEAWALL_ROUTER_BATCH_RECORDS": "3"})
    file = tmp_path / "resolved"
    file.write_text(first.resolved("postgresql://a", "postgresql://b"))
    again = load_resolved(file)
    assert again.of("router", RouterSettings) == first.of("router", RouterSettings)
    assert (again.program.dsn, again.program.worker_dsn, again.program.log_level) == (
        "postgresql://a",
        "postgresql://b",
        "debug",
    )


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[[1]]", "nonsense"])
def test_a_damaged_parents_file_is_misconfigured(tmp_path: Path, text: str) -> None:
    file = tmp_path / "resolved"
    file.write_text(text)
    with pytest.raises(Misconfigured):
        load_resolved(file)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("h:65535", ("h", 65535)), ("h:65536", None),
        ("h:-1", None), ("h:", None), (":80", None), ("80", None), ("h:8²", None), ("", None),
    ],
)  # fmt: skip
def test_addresses_are_host_and_port(text: str, found: tuple[str, int] | None) -> None:
    assert host_port(text) == found


def test_every_setting_has_help_and_stands_on_its_page() -> None:
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "tool" / "settings.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text("utf-8") == tool.page(), "run: python tool/settings.py"
    values = read({}, config=None, environment={}).values.values()
    assert not [v.key for v in values if not v.help.endswith((".", "s"))]
    assert all(math.isfinite(v.value) for v in values if isinstance(v.value, float))


@pytest.mark.parametrize("name", ["dsn", "worker_dsn"])
def test_a_dsn_that_is_none_is_refused_at_its_place_and_not_shown(tmp_path: Path, name: str) -> None:
    broken = "postgresql://u:s3cret/pw@127.0.0.1:5432/x"
    [found] = problems(tmp_path, f'listen = "127.0.0.1:1"\n{name} = "{broken}"\n')
    assert found.startswith(f"seawall.toml:2: {name} = (hidden): must be postgresql://") and "%2F" in found
    file = tmp_path / "secret"
    file.write_text(broken)
    [named] = problems(tmp_path, f'{name}_file = "{file}"\n')
    assert named.startswith(f"secret: {name} = (hidden): must be")
    for part in ("s3cret", "pw", "127.0.0.1"):
        assert part not in found + named
