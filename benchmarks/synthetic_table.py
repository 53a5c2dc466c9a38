"""The table of docs/results.md: random encoder, global term alone, full method, on the demo's synthetic studies.

    python benchmarks/synthetic_table.py runs/ --seeds 4 --fresh 8   # trains what is missing: 8 runs

Both arms use the recipe `demo` with the same number of epochs; the global arm sets the weights of the local terms
to 0 and the reconstruction off. Two tables: one on the demo's own 500 test studies, one on fresh test sets of 500
beside it (retrieval ranks within a set). Intervals: patient-clustered bootstrap of the test
studies, the mean over seeds within every resample; differences are paired by test patient and by seed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from cmcgns.data.phantom import prompts
from cmcgns.demo import COUNTS, make_studies
from cmcgns.evaluation.bootstrap import Interval, Statistic, bootstrap_interval, interval_text, paired_difference
from cmcgns.evaluation.fractions import nested_fraction
from cmcgns.evaluation.metrics import FloatArray, RankedScores, mean_over_classes
from cmcgns.evaluation.probe import LinearProbe, fit_probe
from cmcgns.evaluation.report_use import report_use
from cmcgns.evaluation.retrieval import chance_recall, recall_at_k
from cmcgns.evaluation.study_set import StudySet, read_study_set
from cmcgns.evaluation.zero_shot import zero_shot_scores
from cmcgns.pretrained import Pretrained, load, random_twin
from cmcgns.recipe import load_recipe
from cmcgns.training.pretrain import pretrain
from cmcgns.training.run_folder import RunFolder

ARMS = {
    "global": ["objective.weight_image=0", "objective.weight_report=0", "objective.reconstruction=off"],
    "full": [],
}
MEASURES = ("linear probe, 10 % of the labels, mean AUROC", "zero-shot, mean AUROC", "report -> image, R@10")


@dataclass(frozen=True)
class Scores:
    """What one encoder says about every test study.

    Attributes:
        linear: (n, C) logits of the probe, one array a draw of the labels.
        zero_shot: (n, C).
        recall: (n,) hits of report -> image at 10.
        chance: expected recall at 10 of a random ranking.
    """

    linear: list[FloatArray]
    zero_shot: FloatArray
    recall: FloatArray
    chance: float


@dataclass(frozen=True)
class Judged:
    """What the runs of one arm say about a number of test sets, one after the other.

    Attributes:
        runs: scores of all studies, one a training seed.
        labels: (n, C).
        patients: (n,) distinct among the sets.
    """

    runs: Sequence[Scores]
    labels: FloatArray
    patients: np.ndarray

    def statistics(self) -> list[Statistic]:
        """One statistic a column of the table; means over seeds (and classes) within every resample."""
        linear = [logits for run in self.runs for logits in run.linear]
        return [
            self._mean_auroc(linear),
            self._mean_auroc([run.zero_shot for run in self.runs]),
            self._mean_recall(np.mean([run.recall for run in self.runs], axis=0)),
        ]

    def _mean_auroc(self, scores: Sequence[FloatArray]) -> Statistic:
        ranked = [RankedScores(each, self.labels) for each in scores]
        return lambda counts: np.mean([mean_over_classes(each.auroc(counts)) for each in ranked], axis=0)

    def _mean_recall(self, hits: FloatArray) -> Statistic:
        return lambda counts: counts @ hits / counts.sum(1)


def fit_probes(model: Pretrained, data: Path, fraction: float = 0.1, draws: int = 3) -> list[LinearProbe]:
    """Linear probes on a share of the training patients' labels; validation chooses their L2 strength."""
    train, validation = (read_study_set(data, split, model) for split in ("train", "val"))
    learned, chosen = train.embed(model).pooled, validation.embed(model).pooled
    chosen_rows = [nested_fraction(train.patients, train.labels, fraction, seed) for seed in range(draws)]
    return [fit_probe(learned[rows], train.labels[rows], chosen, validation.labels) for rows in chosen_rows]


def score(model: Pretrained, probes: Sequence[LinearProbe], test: StudySet) -> Scores:
    """Score the studies of one test set."""
    found = test.embed(model)
    wanted = [prompts()[name] for name in test.label_names]
    positive = [model.embed_text(list(texts)) for texts, _ in wanted]
    negative = [model.embed_text(list(texts)) for _, texts in wanted]
    ids = found.report_text
    return Scores(
        linear=[probe.logits(found.pooled) for probe in probes],
        zero_shot=zero_shot_scores(found.image, positive, negative),
        recall=recall_at_k(found.report, found.image, ids, ids, (10,))[10],
        chance=chance_recall(ids, ids, 10),
    )


def together(parts: Sequence[Scores]) -> Scores:
    """Scores of several test sets as if they were one; recalls are of each set alone."""
    return Scores(
        linear=[np.concatenate(logits) for logits in zip(*(part.linear for part in parts), strict=True)],
        zero_shot=np.concatenate([part.zero_shot for part in parts]),
        recall=np.concatenate([part.recall for part in parts]),
        chance=float(np.mean([part.chance for part in parts])),
    )


def row(name: str, intervals: Sequence[Interval]) -> str:
    """A line of a Markdown table."""
    return f"| {name} | " + " | ".join(interval_text(each) for each in intervals) + " |"


def train_missing(folder: Path, data: Path, seeds: int) -> None:
    """Train every run that is not there yet; interrupted ones go on."""
    for seed in range(seeds):
        for arm, overrides in ARMS.items():
            out = folder / f"{arm}-{seed}"
            recipe = load_recipe("demo", [*overrides, f"training.seed={seed}"])
            if (out / "model.safetensors").exists():
                if RunFolder(out).read_recipe() != recipe:
                    raise SystemExit(f"{out} was trained with other settings: choose another folder")
            else:
                pretrain(recipe, data, out, resume=(out / "config.yaml").exists())


def judge(model: Pretrained, data: Path, tests: Sequence[Path]) -> tuple[Scores, FloatArray, np.ndarray]:
    """Scores, labels and patients of all studies of the test sets."""
    probes = fit_probes(model, data)
    sets = [read_study_set(folder, "test", model) for folder in tests]
    patients = [np.char.add(f"{place}/", np.asarray(each.patients, str)) for place, each in enumerate(sets)]
    scores = together([score(model, probes, each) for each in sets])
    return scores, np.concatenate([each.labels for each in sets]), np.concatenate(patients)


def print_table(folder: Path, data: Path, tests: Sequence[Path], seeds: int) -> None:
    """The table of all arms on some test sets."""
    runs: dict[str, list[Scores]] = {"random": [], "global": [], "full": []}
    for seed in range(seeds):
        for arm in ARMS:
            model = load(folder / f"{arm}-{seed}")
            found, labels, patients = judge(model, data, tests)
            runs[arm].append(found)
        runs["random"].append(judge(random_twin(model), data, tests)[0])
    print(f"\n{len(labels)} test studies in {len(tests)} sets, {seeds} seeds of the training")
    print("| encoder | " + " | ".join(MEASURES) + " |\n|---|---|---|---|")
    measured = {name: Judged(each, labels, patients).statistics() for name, each in runs.items()}
    for name, columns in measured.items():
        print(row(name, [bootstrap_interval(each, patients) for each in columns]))
    for first, second in (("full", "random"), ("full", "global")):
        pairs = zip(measured[first], measured[second], strict=True)
        print(row(f"{first} - {second}", [paired_difference(a, b, patients) for a, b in pairs]))
    print(f"chance of R@10: {runs['full'][0].chance:.3f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, help="studies that were drawn before (default: FOLDER/data)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=0, help="how many more test sets of 500 studies are drawn")
    options = parser.parse_args()
    console = Console(stderr=True)
    data = make_studies(options.data or options.folder / "data", COUNTS, 0, console)
    train_missing(options.folder, data, options.seeds)
    print_table(options.folder, data, [data], options.seeds)
    for seed in range(options.seeds):
        model = load(options.folder / f"full-{seed}")
        use = report_use(model, read_study_set(data, "test", model))["difference"]
        print(f"seed {seed}: L1 inside hidden findings, other report - right one: {interval_text(use, 4)}")
    fresh = [
        make_studies(options.folder / f"test-{seed}", {"test": COUNTS["test"]}, seed, console)
        for seed in range(1, options.fresh + 1)
    ]
    if fresh:
        print_table(options.folder, data, fresh, options.seeds)


if __name__ == "__main__":
    main()
