"""What a person sees: everything fits into a narrow terminal, and no line is broken in a file."""

import io

import pytest
from rich.console import Console

from cmcgns.training.journal import RunConsole

FIGURES = {"loss": 12.106, "global": 1.378, "image": -0.862, "report": 3.571, "reconstruction": 0.159, "tau": 0.1}


def console(terminal: bool) -> tuple[RunConsole, io.StringIO]:
    out = io.StringIO()
    run = RunConsole(console=Console(file=out, force_terminal=terminal, width=80, highlight=False))
    run.terms = ("loss", "global", "image", "report", "reconstruction")
    return run, out


def test_a_bar_of_80_columns_shows_count_speed_time_and_every_term() -> None:
    run, out = console(terminal=True)
    run.start_stage("reconstruction", 1116, 806)
    for _ in range(3):
        run.step(32, FIGURES)
    run.epoch("reconstruction", 1, 5, FIGURES)
    run.end_stage()
    text = out.getvalue()
    assert "809/1116" in text
    assert "pairs/s" in text
    assert "left" in text
    assert "loss 12.106  global 1.378  image -0.862  report 3.571  reconstruction 0.159" in text
    assert "…" not in text


def test_an_epoch_shorter_than_the_log_s_interval_has_a_speed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("cmcgns.training.journal.time.perf_counter", lambda: now[0])
    run, out = console(terminal=False)
    run.start_stage("alignment", 8, 0)
    for seconds, speed in ((0.5, "64"), (0.25, "128")):
        run.restart_clock()
        for _ in range(4):
            now[0] += seconds
            run.step(32, None)
        run.stop_clock()
        now[0] += 1000  # validation
        run.epoch("alignment", 1, 2, FIGURES)
        assert f"[{speed} pairs/s]" in out.getvalue().splitlines()[-1]


def test_a_file_has_one_line_for_an_epoch() -> None:
    run, out = console(terminal=False)
    run.start_stage("alignment", 100, 0)
    run.step(32, FIGURES)
    run.epoch("alignment", 1, 5, FIGURES | {"report_to_image_r10": 0.25})
    run.say("step 3: [a message] with brackets that is long enough to be wrapped by a terminal of eighty columns")
    run.end_stage()
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "report→image R@10 0.250" in lines[1]
    assert "[a message]" in lines[2]
