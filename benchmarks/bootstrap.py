"""Seconds of a patient-clustered bootstrap of the mean AUROC on a test set the size of CheXpert's training set.

    python benchmarks/bootstrap.py

200,000 images of about 65,000 patients, 14 classes of 2 to 30 % prevalence, 2,000 resamples: the time from scores to
the interval, sorting and drawing included, must stay within 60 s on two cores. The areas of a few resamples are then
computed by scikit-learn (`roc_auc_score` with `sample_weight`), which must agree to 1e-6; without scikit-learn this
is left out. Scores are rounded so that there are ties. Exit code 1 if a limit is missed.

Expected: 12 s of processor time, on one thread as on two (`OMP_NUM_THREADS=1`, `2`); largest difference below 1e-12.
The clock says more on a busy machine, and less with two threads on an idle one.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from cmcgns.metrics.intervals import measure_intervals
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.metrics.ranking import RankedScores, mean_over_classes
from cmcgns.metrics.resamples import count_chunks
from cmcgns.reporting.evaluation.names import interval_text

TOLERANCE = 1e-6


def material(rows: int, classes: int, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties and labels, (rows, classes), and patient ids, (rows,)."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, patients, size=rows)
    labels = (rng.random((rows, classes)) < np.linspace(0.02, 0.3, classes)).astype(np.float64)
    ill = 0.7 * rng.normal(size=(patients, classes))[groups]
    scores = np.round(ill + 0.7 * rng.normal(size=(rows, classes)) + labels, 4)
    return scores.astype(np.float32), labels, groups


def largest_difference(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, resamples: int) -> float:
    """From scikit-learn, over all classes of some resamples."""
    from sklearn.metrics import roc_auc_score

    counts = np.concatenate(list(count_chunks(groups, resamples, seed=1)))
    found = RankedScores(scores, labels).auroc(counts)
    expected = [
        [roc_auc_score(labels[:, c], scores[:, c], sample_weight=row) for c in range(labels.shape[1])]
        for row in counts
    ]
    return float(np.abs(found - np.array(expected)).max())


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--patients", type=int, default=68_500, help="of which about 65,000 have an image")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds")
    parser.add_argument("--compared", type=int, default=5, help="resamples that scikit-learn computes too")
    options = parser.parse_args()
    scores, labels, groups = material(options.rows, options.classes, options.patients)
    start, processor = time.perf_counter(), time.process_time()
    ranked = RankedScores(scores, labels)
    measures = Measures((Measure("auroc"),), lambda counts: mean_over_classes(ranked.auroc(counts))[:, None])
    found = measure_intervals([measures], groups, resamples=options.resamples, logit=False)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    size = f"{options.rows:,} rows of {len(np.unique(groups)):,} patients × {options.classes} classes"
    with_threads = f"{seconds:.1f} s with {torch.get_num_threads()} threads"
    print(f"{options.resamples:,} resamples of {size}: {with_threads} (limit {options.limit:g} s)")
    print(f"{processor:.1f} s of processor time, which other work on the machine does not change")
    print(f"mean AUROC {interval_text(*found.mean.records()[0][:3], '{:.4f}'.format)}")
    failed = seconds > options.limit
    try:
        difference = largest_difference(scores, labels, groups, options.compared)
    except ImportError:
        print("scikit-learn is not installed: not compared")
        return int(failed)
    print(f"largest difference from scikit-learn on {options.compared} resamples: {difference:.1e} ({TOLERANCE:g})")
    return int(failed or not difference <= TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
