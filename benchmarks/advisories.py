"""Known vulnerabilities of the pinned versions.

    python benchmarks/advisories.py

Asks pip-audit about `constraints.txt`, some 20 seconds with a network. Fails where an advisory names one of the
versions; without a network, and of packages that the index does not know, it says that nothing was found out.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120


def ask() -> tuple[str, str]:
    """What pip-audit answers, and what it complains of."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {SECONDS} s"
    return done.stdout, done.stderr


def judge(answer: str, complaint: str) -> tuple[int, list[str]]:
    """The exit status and what to print."""
    try:
        packages: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (complaint.strip().splitlines() or ["pip-audit gave no answer"])[-1]
        return 0, [f"advisories: NOT CHECKED ({last[:200]})"]
    found = [
        f"{package['name']} {package['version']}: {advisory['id']} (mended in {advisory.get('fix_versions')})"
        for package in packages
        for advisory in package.get("vulns", [])
    ]
    unknown = sum("skip_reason" in package for package in packages)
    asked = f"{len(packages) - unknown} of {len(packages)} pinned packages"
    lines = [*found, f"advisories: {asked} looked up, {len(found)} known vulnerabilities"]
    if unknown:
        lines.append(f"advisories: NOT CHECKED: {unknown} packages, which this index does not know")
    return int(bool(found)), lines


if __name__ == "__main__":
    status, lines = judge(*ask())
    print("\n".join(lines))
    sys.exit(status)
