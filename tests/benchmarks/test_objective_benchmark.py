"""The benchmark program runs at a small size and ends with its ratios."""

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "objective.py"
SMALL = ["--studies", "6", "--sentences", "4", "--patches", "4", "--dim", "32", "--clusters", "8"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *SMALL, "--repeats", "2", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prints_all_programs_and_both_ratios_last() -> None:
    result = run()
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for name, line in zip(("products", "ours", "plain"), lines, strict=False):
        assert re.fullmatch(rf"{name} +\d+\.\d ms +\d+ MB", line), line
        assert float(line.split()[1]) > 0
    assert re.fullmatch(r"ours / products, time: \d+\.\d\dx", lines[-3])
    time_ratio = re.fullmatch(r"plain / ours, time: (\d+\.\d)x", lines[-2])
    assert time_ratio is not None
    assert re.fullmatch(r"plain / ours, memory: \d+\.\dx", lines[-1])
    milliseconds = [float(line.split()[1]) for line in lines[:3]]
    assert float(time_ratio[1]) > 0
    assert abs(float(time_ratio[1]) - milliseconds[2] / milliseconds[1]) < 0.1 + 0.1 * float(time_ratio[1])


def test_patches_must_form_a_square() -> None:
    result = run("--patches", "6")
    assert result.returncode == 2
    assert "--patches 6 is no square" in result.stderr
