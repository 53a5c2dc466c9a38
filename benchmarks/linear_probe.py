"""Speed of the linear probes on features of CheXpert's size: 190,000 × 2,048, 5 findings, 3 fractions × 3 seeds.

    python benchmarks/linear_probe.py --threads 2                 # both probes, full size: 1.6 GB on disk
    python benchmarks/linear_probe.py --rows 20000 --probe v1     # a tenth of it

Features are synthetic but as awkward as a ResNet's after the last ReLU and pooling: skewed, correlated (a power-law
spectrum), of very different scales, some dead; a tenth of the labels is missing, patients own three images each.
Use no more threads than there are idle cores: on busy ones they wait for each other and take several times as long.
Expected with --threads 1: 77 s of processor time for v1, about 110 s for legacy (whose 14 to 19 epochs end early: a
run of all 100 would take about six times as long).
Wanted, once features exist: v1 (logistic regression to convergence) within 180 s, legacy (AdamW) within 900 s.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cmcgns.evaluation.subsets import nested_fraction
from cmcgns.evaluation.task_settings.learned import LegacySettings
from cmcgns.evaluation.tasks.linear.legacy import LayerData, LayerHead
from cmcgns.evaluation.tasks.linear.probe import choose_dtype, fit_probe
from cmcgns.evaluation.tasks.train_head import Schedule, train_head
from cmcgns.metrics.ranking import mean_auroc

CLASSES, LATENT, CHUNK = 5, 256, 8192
COMMON = (0.16, 0.12, 0.07, 0.25, 0.4)
FRACTIONS, SEEDS = (0.01, 0.1, 1.0), (0, 1, 2)
LIMIT = {"v1": 180, "legacy": 900}


def write_features(file: Path, rows: int, width: int, seed: int) -> np.ndarray:
    """Write (rows, width) float32 features, a chunk at a time; returns their labels (rows, 5) in {0, 1, NaN}."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(0)  # equal mixing for training and validation
    spectrum = np.arange(1, LATENT + 1) ** -0.5
    mixing = (shape.normal(size=(LATENT, width)) * spectrum[:, None]).astype(np.float32)
    size, offset = np.exp(shape.normal(size=width)), shape.normal(-0.5, 1, size=width)
    dead = shape.random(width) < 0.02
    truth = shape.normal(size=(LATENT, CLASSES)) * spectrum[:, None] ** 0.5
    thresholds = np.quantile(shape.normal(size=(20_000, LATENT)) @ truth, 1 - np.array(COMMON), axis=0).diagonal()
    features = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(rows, width))
    labels = np.empty((rows, CLASSES))
    for start in range(0, rows, CHUNK):
        part = slice(start, min(start + CHUNK, rows))
        latent = rng.standard_normal((part.stop - start, LATENT), dtype=np.float32)
        noise = rng.standard_normal((part.stop - start, width), dtype=np.float32)
        before = latent @ mixing + 0.5 * noise + offset.astype(np.float32)
        features[part] = np.maximum(before, 0) * np.where(dead, 0, size).astype(np.float32)
        logits = latent @ truth
        labels[part] = logits + rng.logistic(size=logits.shape) * 0.7 * logits.std(axis=0) > thresholds
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return labels


@dataclass(frozen=True)
class Clock:
    """Seconds since it was made: of the clock, and of the processor, which other programs hardly change."""

    wall: float = field(default_factory=time.perf_counter)
    processor: float = field(default_factory=time.process_time)

    def read(self) -> tuple[float, float]:
        """Both."""
        return time.perf_counter() - self.wall, time.process_time() - self.processor


def report(name: str, spent: tuple[float, float], full: bool) -> None:
    """One line on the time."""
    seconds, processor = spent
    verdict = f"limit {LIMIT[name]} s: {'kept' if seconds <= LIMIT[name] else 'MISSED'}" if full else "not full size"
    threads = torch.get_num_threads()
    print(f"{name}: {seconds:.1f} s, {processor:.1f} s of processor time, {threads} threads ({verdict})", flush=True)


def time_v1(arrays: tuple[np.ndarray, ...], draws: dict[tuple[float, int], np.ndarray]) -> tuple[float, float]:
    """Fit every fraction and seed; equal rows once."""
    train, labels, val, val_labels = arrays
    clock = Clock()
    for (fraction, seed), rows in draws.items():
        if fraction == 1 and seed > 0:
            continue  # the same rows have the same solution
        one = Clock()
        probe = fit_probe(train, labels, val, val_labels, dtype=choose_dtype(len(rows), train.shape[1]), rows=rows)
        area = mean_auroc(probe.logits(val), val_labels)[0]
        seconds = one.read()[0]
        solved = "converged" if probe.converged else "NOT CONVERGED"
        print(
            f"  {fraction:4.0%} seed {seed}: AUROC {area:.4f}, L2 {probe.l2:g}, {solved}, {seconds:.1f} s", flush=True
        )
    return clock.read()


def time_legacy(arrays: tuple[np.ndarray, ...], draws: dict[tuple[float, int], np.ndarray]) -> tuple[float, float]:
    """Train every fraction and seed."""
    train, labels, val, val_labels = arrays
    clock = Clock()
    for (fraction, seed), rows in draws.items():
        one = Clock()
        settings = LegacySettings()
        head = LayerHead(LayerData(train, labels, rows, val, val_labels), settings, seed)
        trained = train_head(head, Schedule(settings.epochs, settings.patience, seed))
        area = mean_auroc(head.logits(val), val_labels)[0]
        seconds = one.read()[0]
        print(
            f"  {fraction:4.0%} seed {seed}: AUROC {area:.4f}, {trained.epochs} epochs, {seconds:.1f} s", flush=True
        )
    return clock.read()


def main() -> None:
    """Write features, then time both probes on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=190_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--probe", choices=("v1", "legacy", "both"), default="both")
    parser.add_argument("--folder", type=Path, help="where to put the features (deleted afterwards)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        files = Path(folder) / "train.npy", Path(folder) / "val.npy"
        labels, val_labels = (
            write_features(file, rows, options.width, seed)
            for seed, (file, rows) in enumerate(zip(files, (options.rows, 5000), strict=True), 1)
        )
        train, val = (np.load(file, mmap_mode="r") for file in files)
        patients = np.arange(options.rows) // 3
        draws = {
            (fraction, seed): nested_fraction(patients, labels, fraction, seed)
            for fraction in FRACTIONS
            for seed in SEEDS
        }
        full = options.rows >= 190_000 and options.width >= 2048
        if options.probe != "legacy":
            report("v1", time_v1((train, labels, val, val_labels), draws), full)
        if options.probe != "v1":
            report("legacy", time_legacy((train, labels, val, val_labels), draws), full)


if __name__ == "__main__":
    main()
