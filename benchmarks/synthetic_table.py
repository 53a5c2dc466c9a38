"""The table of docs/results.md: random encoder, global term alone, full method, on the demo's synthetic studies.

    python benchmarks/synthetic_table.py runs/ --seeds 3        # trains what is missing, 7 runs' worth of minutes

Both arms use the recipe `demo` with the same number of epochs; the global arm sets the weights of the local terms
to 0 and the reconstruction off. Intervals: patient-clustered bootstrap of the test studies, the mean over seeds
within every resample; differences are paired by test patient and by seed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from cmcgns.data.phantom import prompts
from cmcgns.demo import COUNTS, make_studies
from cmcgns.evaluation.bootstrap import Interval, Statistic, bootstrap_interval, paired_difference
from cmcgns.evaluation.judge import Scores, interval_text, report_use, score
from cmcgns.evaluation.metrics import FloatArray, RankedScores, mean_over_classes
from cmcgns.evaluation.study_set import StudySet, read_study_set
from cmcgns.pretrained import load, random_twin
from cmcgns.recipe import load_recipe
from cmcgns.training.pretrain import pretrain
from cmcgns.training.run_folder import RunFolder

ARMS = {
    "global": ["objective.weight_image=0", "objective.weight_report=0", "objective.reconstruction=off"],
    "full": [],
}
MEASURES = ("linear probe, 10 % of the labels, mean AUROC", "zero-shot, mean AUROC", "report -> image, R@10")


def mean_auroc_statistic(scores: Sequence[FloatArray], test: StudySet) -> Statistic:
    """Mean over classes, then over score arrays (seeds of training and of the label draw), in every resample."""
    ranked = [RankedScores(each, test.labels) for each in scores]
    return lambda counts: np.mean([mean_over_classes(each.auroc(counts)) for each in ranked], axis=0)


def mean_recall_statistic(hits: Sequence[FloatArray]) -> Statistic:
    """Mean of the hits over studies and seeds, in every resample."""
    values = np.mean(hits, axis=0)
    return lambda counts: counts @ values / counts.sum(1)


def statistics(runs: Sequence[Scores], test: StudySet) -> list[Statistic]:
    """One statistic a row of the table."""
    linear = [logits for run in runs for logits in run.linear]
    return [
        mean_auroc_statistic(linear, test),
        mean_auroc_statistic([run.zero_shot for run in runs], test),
        mean_recall_statistic([run.recall for run in runs]),
    ]


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, help="studies that were drawn before (default: FOLDER/data)")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    data = make_studies(options.data or options.folder / "data", COUNTS, 0, Console())
    train_missing(options.folder, data, options.seeds)
    scores: dict[str, list[Scores]] = {"random": [], "global": [], "full": []}
    uses = []
    for seed in range(options.seeds):
        for arm in ARMS:
            model = load(options.folder / f"{arm}-{seed}")
            train, validation, test = (read_study_set(data, split, model) for split in ("train", "val", "test"))
            scores[arm].append(score(model, train, validation, test, prompts()))
            if arm == "full":
                uses.append(report_use(model, test))
                scores["random"].append(score(random_twin(model), train, validation, test, prompts()))
    print("| encoder | " + " | ".join(MEASURES) + " |\n|---|---|---|---|")
    measured = {name: statistics(runs, test) for name, runs in scores.items()}
    for name, all_of_it in measured.items():
        print(row(name, [bootstrap_interval(each, test.patients) for each in all_of_it]))
    for first, second in (("full", "random"), ("full", "global")):
        pairs = zip(measured[first], measured[second], strict=True)
        print(row(f"{first} - {second}", [paired_difference(a, b, test.patients) for a, b in pairs]))
    print(f"chance of R@10: {scores['full'][0].chance:.3f}")
    for seed, use in enumerate(uses):
        print(
            f"seed {seed}: L1 inside hidden findings, other report - right one: {interval_text(use['difference'], 4)}"
        )


if __name__ == "__main__":
    main()
