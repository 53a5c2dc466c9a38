"""Judge a run on real radiographs: retrieval on its own training pairs, and one label by a linear probe.

    cmcgns pretrain small-cpu --data case_notes --out runs/notes
    python benchmarks/real_pairs.py runs/notes --pairs case_notes --labels nih/labels.csv --label Pneumonia

`--pairs` is the table the run was trained on; equal reports count as right. `--labels` is a csv with image_path
(relative to the csv), patient_id, split (train, val) and a 0/1 column for the label; `val` is the test split, and a
fifth of the training patients chooses the probe's L2 strength. The random encoder has the same architecture.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cmcgns.data.images.place import centre_crop
from cmcgns.data.images.read import load_images
from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.dataset import normalise_pixels
from cmcgns.data.pairs.loader import make_loader
from cmcgns.evaluation.tasks.linear.probe import fit_probe
from cmcgns.metrics.intervals import mean_interval, measure_intervals, paired_intervals
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.metrics.ranking import RankedScores, mean_over_classes
from cmcgns.metrics.retrieval import chance_recall, recall_at_k
from cmcgns.pretrained import Pretrained, load, random_twin
from cmcgns.reporting.evaluation.names import interval_text
from cmcgns.training.data import prepare_data
from synthetic_table import embed


@dataclass(frozen=True)
class Labelled:
    """A table of labelled images: which rows train, choose and test, and the label of each."""

    paths: list[str]
    patients: NDArray[np.object_]
    part: NDArray[np.object_]
    labels: NDArray[np.float64]


def read_labelled(table: Path, label: str, seed: int) -> Labelled:
    """Read the csv; a fifth of the training patients becomes `choose`."""
    frame = pd.read_csv(table)
    part = frame["split"].to_numpy(dtype=object)
    patients = frame["patient_id"].astype(str).to_numpy(dtype=object)
    train = np.unique(patients[part == "train"])
    chosen = np.random.default_rng(seed).choice(train, len(train) // 5, replace=False)
    part[(part == "train") & np.isin(patients, chosen)] = "choose"
    paths = [str(table.parent / path) for path in frame["image_path"]]
    return Labelled(paths, patients, part, frame[[label]].to_numpy(dtype=np.float64))


@torch.no_grad()
def pooled_features(model: Pretrained, paths: list[str]) -> NDArray[np.float32]:
    """(n, C) pooled features of the backbone."""
    data = model.recipe.data
    pixels, errors = load_images(paths, data.resize)
    assert not errors, errors
    parts = []
    for start in range(0, len(paths), 64):
        images = normalise_pixels(centre_crop(pixels[start : start + 64], data.image_size))[:, None]
        parts.append(model.task.model.image_encoder(images.to(model.device))[0].cpu())
    return torch.cat(parts).numpy()


def probe_scores(model: Pretrained, table: Labelled) -> NDArray[np.float64]:
    """(tests, 1) logits of a probe on frozen features."""
    features = pooled_features(model, table.paths)
    rows = {name: table.part == name for name in ("train", "choose", "val")}
    probe = fit_probe(
        features[rows["train"]], table.labels[rows["train"]], features[rows["choose"]], table.labels[rows["choose"]]
    )
    return probe.logits(features[rows["val"]])


def mean_area(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> Measures:
    """The mean AUROC."""
    ranked = RankedScores(scores, labels)
    return Measures((Measure("auroc"),), lambda counts: mean_over_classes(ranked.auroc(counts))[:, None])


def retrieval_on_training_pairs(model: Pretrained, run: Path, pairs: Path) -> None:
    """Print recall at 1 in both directions, with intervals, and chance."""
    prepared = prepare_data(model.recipe, pairs, run / "tokenizer")
    train = prepared.train
    found = embed(model.task.model, make_loader(train, evaluation_order(len(train), 32)))
    ids = found.report_text
    patients = prepared.pairs.frame["patient_id"].to_numpy(dtype=object)[train.rows]
    for name, query, gallery in (
        ("image -> report", found.image, found.report),
        ("report -> image", found.report, found.image),
    ):
        hits = recall_at_k(query, gallery, ids, ids, (1,))[1]
        mean = mean_interval(hits, patients)
        print(f"{name} R@1 on {len(ids)} training pairs: {interval_text(mean.value, mean.low, mean.high)}")
    print(f"chance: {chance_recall(ids, ids, 1):.3f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--label", default="Pneumonia")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load(options.run)
    if options.pairs:
        retrieval_on_training_pairs(model, options.run, options.pairs)
    if options.labels:
        table = read_labelled(options.labels, options.label, options.seed)
        tests = table.part == "val"
        labels, patients = table.labels[tests], table.patients[tests]
        ours, random = (mean_area(probe_scores(each, table), labels) for each in (model, random_twin(model)))
        print(f"{options.label}: {int(labels.sum())} positive of {len(labels)} test images")
        for name, measures in (("pretrained", ours), ("random    ", random)):
            found = measure_intervals([measures], patients, logit=False).mean
            print(f"{name} AUROC {interval_text(*found.records()[0][:3])}")
        paired = paired_intervals([ours], [random], patients).difference
        print(f"difference       {interval_text(*paired.records()[0][:3])}")


if __name__ == "__main__":
    main()
