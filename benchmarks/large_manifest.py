"""Time and memory of a manifest with a million rows: build and write, check the table, open a data loader.

    python benchmarks/large_manifest.py --rows 1000000

Every step runs in a process of its own; memory is the largest resident set, imports included. The reports are the
synthetic studies' (2,000 different ones, repeated), the images an empty file of the right size: nothing is decoded.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

SIZE = 64


def build(folder: Path, rows: int) -> None:
    """A manifest as `prepare` writes it."""
    from cmcgns.data.manifest import write_manifest
    from cmcgns.phantom import make_study

    studies = [make_study(0, index, 32) for index in range(2000)]
    number = pd.Series(np.arange(rows)).astype("str")
    which = np.arange(rows) % len(studies)
    frame = pd.DataFrame(
        {
            "image_path": "images/" + number + ".jpg",
            "study_id": "big:s" + number,
            "patient_id": "big:p" + pd.Series(np.arange(rows) // 3).astype("str"),
            "dataset": "big",
            "view": "PA",
            "split": pd.Series(np.where(np.arange(rows) // 3 % 20 == 0, "val", "train"), dtype="str"),
            "findings": pd.Series([study.findings_text for study in studies], dtype="str")[which].to_numpy(),
            "impression": pd.Series([study.impression for study in studies], dtype="str")[which].to_numpy(),
            "sha256": number.str.zfill(64),
            "width": 512, "height": 512, "label_Edema": which % 2,
        }
    )  # fmt: skip
    write_manifest(frame, folder / "manifest.parquet")


def check(folder: Path) -> None:
    """The rules that need no image."""
    from cmcgns.check.run import run_checks

    run_checks([folder], open_images=False)


def load(folder: Path) -> None:
    """Rows, word pieces, data set, and the first hundred batches of a shuffled epoch."""
    from cmcgns.data.images.read import without_read_ahead
    from cmcgns.data.pairs.batch import TrainingOrder
    from cmcgns.data.pairs.dataset import PairDataset
    from cmcgns.data.pairs.loader import make_loader
    from cmcgns.data.pairs.rows import read_pairs
    from cmcgns.data.reports.tokenizer import train_tokenizer
    from cmcgns.data.reports.tokens import tokenize_reports
    from cmcgns.settings.config import DataSettings

    settings = DataSettings(image_size=SIZE, resize=SIZE)
    pairs = read_pairs(folder, settings, look_for_files=False, everything=False)
    texts = pairs.frame["text"]
    tokenizer = train_tokenizer(texts[:2000], 1000)
    tokens = tokenize_reports(texts, tokenizer, settings.max_tokens, settings.max_sentences)
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (len(pairs.frame), SIZE, SIZE))
    images = without_read_ahead(np.load(folder / "images.npy", mmap_mode="r"))
    names = pairs.frame["study_id"].tolist()
    dataset = PairDataset(images, tokens, names, np.arange(len(names)), settings)
    order = TrainingOrder(len(names), 64, 1)
    for step, batch in enumerate(make_loader(dataset, order)):
        assert len(batch) == 64
        if step == 99:
            return


def measure(name: str, folder: Path, rows: int) -> None:
    """Run one step in a process of its own and print its figures."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder), "--rows", str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:<6} {figures['seconds']:7.1f} s {figures['megabytes']:7.0f} MB", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--step", choices=("build", "check", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is None:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("build", "check", "load"):
                measure(name, Path(folder), options.rows)
        return
    started = time.perf_counter()
    if options.step == "build":
        build(options.folder, options.rows)
    else:
        {"check": check, "load": load}[options.step](options.folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - started, "megabytes": peak}))


if __name__ == "__main__":
    main()
