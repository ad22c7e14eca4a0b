"""The systemd unit that we ship leaves little to a process that was taken over."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "docs" / "deploy" / "seawall.service"
EXPOSURE_MAX = 20
"""Tenths, by `systemd-analyze security`: 1.5 as it is, 9.2 without its hardening."""

SET = {
    "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict", "ProtectHome": "yes",
    "PrivateTmp": "yes", "PrivateDevices": "yes", "PrivateUsers": "yes", "LimitCORE": "0", "UMask": "0077",
    "SystemCallFilter": "@system-service", "StateDirectoryMode": "0700", "RestrictSUIDSGID": "yes",
    "RestrictNamespaces": "yes", "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
}  # fmt: skip


def test_the_unit_takes_away_what_is_not_needed() -> None:
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    given = {name: value for name, _, value in lines}
    assert {name: given.get(name) for name in SET} == SET


def test_the_unit_leaves_what_is_needed() -> None:
    """`MemoryDenyWriteExecute=` would break ctypes and PostgreSQL, `ProcSubset=pid` our own looks at the machine."""
    given = {line.partition("=")[0] for line in UNIT.read_text().splitlines()}
    assert given.isdisjoint({"MemoryDenyWriteExecute", "ProcSubset", "PrivateNetwork", "DynamicUser"})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_the_units_exposure_is_low() -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
