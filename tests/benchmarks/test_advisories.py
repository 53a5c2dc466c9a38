"""Advisories fail the check, no network does not, and neither is silent."""

import importlib.util
import json
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks" / "advisories.py"
spec = importlib.util.spec_from_file_location("advisories", FILE)
advisories = importlib.util.module_from_spec(spec)
spec.loader.exec_module(advisories)

FINE = {"name": "numpy", "version": "2.4.6", "vulns": []}
BAD = {"name": "pillow", "version": "1.0", "vulns": [{"id": "CVE-2099-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "x", "skip_reason": "not found"}


def test_an_advisory_fails_and_is_named():
    status, lines = advisories.judge(json.dumps({"dependencies": [FINE, BAD]}), "")
    assert status == 1
    assert "pillow 1.0: CVE-2099-1" in lines[0]


def test_what_could_not_be_looked_up_is_said():
    status, lines = advisories.judge(json.dumps({"dependencies": [FINE, UNKNOWN]}), "")
    assert (status, lines[0]) == (0, "advisories: 1 of 2 pinned packages looked up, 0 known vulnerabilities")
    assert "NOT CHECKED: 1 packages" in lines[1]


def test_no_network_does_not_fail_but_is_said():
    for answer in ("", "Traceback", "[]"):
        status, lines = advisories.judge(answer, "a\nConnectionError: no route")
        assert (status, lines) == (0, ["advisories: NOT CHECKED (ConnectionError: no route)"])
