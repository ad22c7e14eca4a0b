"""What no file of the project may contain: addresses of registries, paths of somebody's machine, secrets, bulk."""

from __future__ import annotations

import re

from .source import ROOT, report, tracked

FILE_BYTES_MAX = 1_000_000

# Written with ~ for what divides their parts, so that this file doesn't contain what it forbids.
HOSTS = [h.replace("~", ".") for h in ("pypi~org", "pythonhosted~org", "registry~npmjs", "crates~io", "proxy~golang")]
PATHS = [p.replace("~", "/") for p in ("~work~main", "~work~shared", "~tmp~brief", "~root~.pyenv", "~home~runner")]
WORDS = re.compile(r"co-authored~by|\bclau~de\b|\banthro~pic\b|suba~gent".replace("~", "-?"), re.IGNORECASE)
KEYS = re.compile(r"-----BEGIN (RSA |EC |OPENSSH )?PRIVATE ?KEY-----|\bghp_[A-Za-z0-9]{36}|\bAKIA[0-9A-Z]{16}")


def test_no_file_carries_addresses_paths_or_keys() -> None:
    findings = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "replace")
        lock = path.suffix == ".lock"
        for number, line in enumerate(text.splitlines(), 1):
            at = f"{path.relative_to(ROOT)}:{number}"
            found = [w for w in (*HOSTS, *PATHS) if w in line.lower()]
            found += [m.group() for m in (WORDS.search(line), KEYS.search(line)) if m]
            if lock and "://" in line:
                found.append("an address in a lock file")
            findings += [f"{at} {w!r}; leave it out" for w in found]
    assert not findings, report(findings, "Not for the repository")


def test_no_large_or_generated_file_is_tracked() -> None:
    findings = []
    for path in tracked():
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            findings.append(f"{path.relative_to(ROOT)}:1 {size:,} bytes; generate it, or keep a smaller one")
        if path.suffix in (".pyc", ".so", ".whl", ".gz"):
            findings.append(f"{path.relative_to(ROOT)}:1 is generated; ignore it")
    assert not findings, report(findings, "Bulk")


def test_lock_files_pin_with_hashes() -> None:
    findings = []
    for path in sorted((ROOT / "requirements").glob("*.lock")):
        blocks = re.split(r"\n(?=\S)", path.read_text())
        for block in blocks:
            name = block.split("==")[0].strip()
            if name and ("==" not in block or "--hash=sha256:" not in block):
                findings.append(f"{path.relative_to(ROOT)}:1 {name} has no version or no hash")
    assert not findings, report(findings, "Locks")
