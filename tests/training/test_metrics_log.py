"""metrics.jsonl is cut back to the checkpoint."""

from pathlib import Path

from cmcgns.training.journal import MetricsLog, read_metrics


def test_log_is_cut_back_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("train", step=1, loss=0.5)
    length = log.sync()
    assert length == path.stat().st_size
    log.write("train", step=2, loss=0.25)
    log.close()
    again = MetricsLog(path, length)
    assert again.sync() == length
    again.write("event", message="größer")
    again.close()
    assert read_metrics(path) == [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "event", "message": "größer"},
    ]


def test_half_a_line_after_the_checkpoint_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("train", step=1)
    length = log.sync()
    log.close()
    with path.open("a") as file:
        file.write('{"kind": "tr')
    MetricsLog(path, length).close()
    assert read_metrics(path) == [{"kind": "train", "step": 1}]


def test_new_run_starts_with_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n")
    MetricsLog(path).close()
    assert path.read_text() == ""
