"""The command line answers bad input with one message, no traceback and exit status 2."""

import errno
import logging
import subprocess
import sys
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cmcgns
from cmcgns.cli import app
from cmcgns.settings.recipe import list_recipes

TINY = [
    "--set=data.image_size=32",
    "--set=data.resize=36",
    "--set=training.batch_size=2",
    "--set=data.val_fraction=0.3",
    "--accelerator=cpu",
]


@pytest.fixture
def folder(tmp_path):
    """Six good pairs."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(6):
        Image.fromarray(np.full((40, 30), 30 * number, dtype=np.uint8)).save(data / f"{number}.png")
    write(data, [(f"{number}.png", f"p{number}", f"Report {number}. Normal.") for number in range(6)])
    return data


def write(data, rows):
    pd.DataFrame(rows, columns=["image_path", "patient_id", "report"]).to_csv(data / "pairs.csv", index=False)


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(sys, "argv", ["cmcgns", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            app.main()
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return caught.value.code, output.err, output.out

    return call


def refuse(run, folder, *arguments, recipe="demo"):
    status, error, _ = run("pretrain", recipe, "--data", folder, "--dry-run", *TINY, *arguments)
    assert status == 2
    assert error.count("error: ") == 1
    return error[error.index("error: ") :]


def test_missing_image(run, folder):
    (folder / "3.png").unlink()
    message = refuse(run, folder)
    assert "row 4" in message
    assert str(folder / "3.png") in message
    assert "--set data.bad_images=leave_out" in message


@pytest.mark.parametrize("cut", [0, 60])
def test_unreadable_image(run, folder, cut):
    content = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(content[:cut])
    message = refuse(run, folder)
    assert "1 images cannot be read" in message
    assert "row 3" in message
    assert str(folder / "2.png") in message
    assert "--set data.bad_images=leave_out" in message


def test_data_that_is_not_there(run, folder):
    assert "no such file or folder" in refuse(run, folder / "nothing")
    assert "found: none" in refuse(run, folder.parent)


def test_missing_column(run, folder):
    table = pd.read_csv(folder / "pairs.csv").rename(columns={"report": "note"})
    table.to_csv(folder / "pairs.csv", index=False)
    message = refuse(run, folder)
    assert "found: image_path, patient_id, note" in message
    assert "--set data.columns.<ours>=<yours>" in message
    assert "column nte, which is not there" in refuse(run, folder, "--set", "data.columns.report=nte")


def test_duplicate_image(run, folder):
    write(folder, [("0.png", "p", "Normal."), ("1.png", "q", "Normal."), ("0.png", "r", "Normal.")])
    assert "stands in rows [1, 3]" in refuse(run, folder)


def test_too_few_studies_for_a_batch(run, folder):
    message = refuse(run, folder, "--set", "training.batch_size=64")
    assert "usable training studies: 4, which do not fill one batch of 64: set training.batch_size=4, or" in message
    write(folder, [(f"{number}.png", f"p{number}", "Normal.") for number in range(2)])  # one of them is held out
    for size in (2, 1):
        message = refuse(run, folder, "--set", f"training.batch_size={size}")
        assert "usable training studies: 1; its image would have no other report to be told apart from" in message
        assert "give at least 2" in message


def test_a_number_of_processes_is_refused_beside_ray(run, folder, tmp_path):
    words = ("prepare", "table", "--root", folder, "--out", tmp_path / "out", "--engine", "ray")
    status, error, _ = run(*words, "--workers", 4)
    assert status == 2
    assert "--workers 4 has no effect with --engine ray, which uses what the cluster has: leave out one" in error
    assert not (tmp_path / "out").exists()


def test_one_patient(run, folder):
    write(folder, [(f"{number}.png", "p", "Normal. Clear.") for number in range(6)])
    assert "one patient" in refuse(run, folder)


def test_misspelt_setting_wrong_type_and_bad_yaml(run, folder, tmp_path):
    assert "Did you mean training.batch_size" in refuse(run, folder, "--set", "training.batch_sise=2")
    assert "valid integer" in refuse(run, folder, "--set", "training.seed=few")
    assert "Did you mean demo" in refuse(run, folder, recipe="demoo")
    (tmp_path / "bad.yaml").write_text("a: [")
    assert "bad.yaml is not valid YAML" in refuse(run, folder, recipe=tmp_path / "bad.yaml")


def test_unknown_encoders(run, folder, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "Did you mean resnet18?" in refuse(run, folder, "--set", "image_encoder.name=resnett18")
    message = refuse(run, folder, "--set", "report_encoder.name=nobody/nothing")
    assert "report_encoder.name: nobody/nothing is neither a folder" in message


def test_weights_that_are_not_there(run, folder, tmp_path):
    message = refuse(run, folder, "--set", f"image_encoder.weights={tmp_path / 'w.pth'}")
    assert "w.pth: no such weights file" in message


def test_out_is_not_empty(run, folder, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    status, error, _ = run("pretrain", "demo", "--data", folder, "--out", out, *TINY)
    assert status == 2
    assert "is not empty, and what is there is no run (no config.yaml): choose another folder" in error
    assert [file.name for file in out.iterdir()] == ["mine.txt"]


def test_out_is_needed_and_resume_excludes_init(run, folder, tmp_path):
    status, error, _ = run("pretrain", "demo", "--data", folder)
    assert (status, "--out RUN is needed" in error) == (2, True)
    status, error, _ = run(
        "pretrain", "demo", "--data", folder, "--out", tmp_path / "r", "--resume", "--init", tmp_path / "s"
    )
    assert (status, "give one of them" in error) == (2, True)


@pytest.mark.parametrize("more", [("--devices=2",), ("--nodes=2",), ("--resume",)])
def test_a_dry_run_is_one_process_and_a_new_run(run, folder, more):
    assert "--dry-run looks at one process and a new run" in refuse(run, folder, *more)


def test_an_unknown_accelerator(run, folder):
    assert "accelerator tpu: there are auto, cpu, cuda, mps" in refuse(run, folder, "--accelerator", "tpu")


def test_a_dry_run_from_no_run(run, folder):
    assert f"{folder} is no run folder" in refuse(run, folder, "--init", folder)


@pytest.mark.parametrize("pair", ["image_path", "=Path", "image_path="])
def test_columns_are_pairs(run, folder, tmp_path, pair):
    status, error, _ = run("prepare", "table", "--root", folder, "--out", tmp_path / "o", "--column", pair)
    assert (status, f"error: --column {pair}: OURS=THEIRS is expected" in error) == (2, True)


def test_resuming_what_is_no_run(run, folder, tmp_path):
    status, error, _ = run("pretrain", "demo", "--data", folder, "--out", tmp_path / "r", "--resume", *TINY)
    assert (status, "holds no run yet: leave out --resume to start it" in error) == (2, True)
    assert not (tmp_path / "r").exists()


def test_help_names_every_verb_and_option(run):
    status, _, output = run("--help")
    assert status == 0
    verbs = {
        "prepare",
        "check",
        "phantom",
        "pretrain",
        "recipes",
        "bench",
        "evaluate",
        "compare",
        "protocols",
        "report",
        "clusters",
        "demo",
    }
    assert verbs <= set(output.split())
    status, _, output = run("pretrain", "--help")
    assert status == 0
    for option in ("--data", "--out", "--set", "--resume", "--init", "--dry-run"):
        assert option in output
    status, _, output = run("recipes")
    assert (status, output.split()) == (0, list_recipes())


def test_a_process_of_its_own_ends_the_same_way(tmp_path):
    program = "from cmcgns.cli.app import main; main()"
    command = [sys.executable, "-c", program, "pretrain", "dmo", "--data", str(tmp_path), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe dmo")
    assert "Traceback" not in done.stderr


def test_the_version_is_printed(run):
    code, _, output = run("--version")
    assert code == 0
    assert output.strip() == cmcgns.__version__ == metadata.version("cmcgns")


@pytest.mark.parametrize("verb", ["prepare", "check"])
@pytest.mark.parametrize("place", ["file", "file/below", "closed/below"])
def test_places_that_cannot_be_written_to_are_named_before_any_work(run, folder, tmp_path, verb, place, monkeypatch):
    (tmp_path / "file").touch()
    status, error, _ = run("prepare", "table", "--root", folder, "--out", tmp_path / "prepared", "--workers", 1)
    assert status == 0, error
    if place.startswith("closed"):  # a superuser may write anywhere: the system's refusal is played

        def refuse(self, *arguments, **options):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))

        monkeypatch.setattr("pathlib.Path.touch", refuse)
    words = {"prepare": ["prepare", "table", "--root", folder], "check": ["check", tmp_path / "prepared"]}[verb]
    status, error, _ = run(*words, "--out", tmp_path / place)
    assert status == 2
    assert f"error: --out {tmp_path / place}: cannot be written" in error


def test_messages_hold_no_control_characters_of_the_data(run, folder):
    write(folder, [("0.png\x1b[2J", "p", "Normal.")])
    assert "0.png\\x1b[2J" in refuse(run, folder)


def test_a_table_is_read_as_the_user_says(run, folder, tmp_path):
    table = (folder / "pairs.csv").read_text().replace(",", "~").replace("Report", "Befund für")
    (tmp_path / "own.csv").write_bytes(table.encode("cp1252"))
    root = ["prepare", "table", "--root", tmp_path / "own.csv", "--out", tmp_path / "out", "--workers", 1]
    status, error, _ = run(*root)
    assert status == 2
    assert "--encoding" in error
    status, error, _ = run(*root, "--encoding", "cp1252", "--separator", "~", "--images", folder)
    assert status == 0, error
    assert "6 images in" in error.replace("\n", " ")
    assert pd.read_parquet(tmp_path / "out" / "manifest.parquet")["report"][0] == "Befund für 0. Normal."
    status, error, _ = run("prepare", "nih", "--root", folder, "--out", tmp_path / "n", "--images", folder)
    assert "--images has no effect on nih" in error
