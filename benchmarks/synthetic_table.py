"""The table of docs/results.md: random encoder, global term alone, full method, on the demo's synthetic studies.

    python benchmarks/synthetic_table.py runs/ --seeds 8 --fresh 8   # trains what is missing: 16 runs

Both arms use the recipe `demo` with the same number of epochs; the global arm sets the weights of the local terms
to 0 and the reconstruction off. Two tables: one on the demo's own 500 test studies, one on fresh test sets of 500
beside it (retrieval ranks within a set). Intervals: patient-clustered bootstrap of the test
studies, the mean over seeds within every resample; differences are paired by test patient and by seed.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from cmcgns.data.manifest import LABEL, label_columns
from cmcgns.data.pairs.batch import Batch, evaluation_order
from cmcgns.data.pairs.loader import make_loader
from cmcgns.demo import COUNTS, make_studies
from cmcgns.evaluation.report_use import report_use
from cmcgns.evaluation.study_set import StudySet, read_study_set
from cmcgns.evaluation.subsets import nested_fraction
from cmcgns.evaluation.tasks.linear.probe import LinearProbe, fit_probe
from cmcgns.metrics.interval_table import IntervalTable
from cmcgns.metrics.intervals import measure_intervals, paired_intervals
from cmcgns.metrics.measure import Array, Measure, Measures
from cmcgns.metrics.ranking import FloatArray, RankedScores, mean_over_classes
from cmcgns.metrics.retrieval import chance_recall, recall_at_k
from cmcgns.models.freeze import eval_mode
from cmcgns.models.model import ImageReportModel
from cmcgns.pretrained import Pretrained, load, random_twin
from cmcgns.pretrained.prompts import Ensembles, load_prompts
from cmcgns.pretrained.zero_shot import prototype_cosines
from cmcgns.reporting.evaluation.names import interval_text
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.pretrain import pretrain
from cmcgns.training.run_folder import RunFolder

ARMS = {
    "global": ["objective.weight_image=0", "objective.weight_report=0", "objective.reconstruction=off"],
    "full": [],
}
Floats = NDArray[np.float32]
MEASURES = ("linear probe, 10 % of the labels, mean AUROC", "zero-shot, mean AUROC", "report -> image, R@10")


@dataclass(frozen=True)
class Scores:
    """What one encoder says about every test study, and what is true of them.

    Attributes:
        linear: (n, C) logits of the probe, one array a draw of the labels.
        zero_shot: (n, C).
        recall: (n,) hits of report -> image at 10, within the study's own test set.
        chance: expected recall at 10 of a random ranking.
        labels: (n, C).
        patients: (n,) distinct among test sets.
    """

    linear: list[FloatArray]
    zero_shot: FloatArray
    recall: FloatArray
    chance: float
    labels: FloatArray
    patients: np.ndarray


Runs = dict[str, list[list[Scores]]]
"""By arm, seed of the training and test set."""


def together(parts: Sequence[Scores]) -> Scores:
    """Scores of several test sets as if they were one."""
    return Scores(
        linear=[np.concatenate(logits) for logits in zip(*(part.linear for part in parts), strict=True)],
        zero_shot=np.concatenate([part.zero_shot for part in parts]),
        recall=np.concatenate([part.recall for part in parts]),
        chance=float(np.mean([part.chance for part in parts])),
        labels=np.concatenate([part.labels for part in parts]),
        patients=np.concatenate([part.patients for part in parts]),
    )


def measures(seeds: Sequence[Scores]) -> Measures:
    """A figure for each column of the table; means over seeds (and classes) within every resample."""
    labels = seeds[0].labels
    ranked = [
        [RankedScores(logits, labels) for each in seeds for logits in each.linear],
        [RankedScores(each.zero_shot, labels) for each in seeds],
    ]
    hits = np.mean([each.recall for each in seeds], axis=0)

    def compute(counts: Array) -> FloatArray:
        areas = [np.mean([mean_over_classes(each.auroc(counts)) for each in column], axis=0) for column in ranked]
        return np.stack([*areas, counts @ hits / counts.sum(1)], axis=1)

    return Measures(tuple(map(Measure, MEASURES)), compute)


def fit_probes(model: Pretrained, data: Path, fraction: float = 0.1, draws: int = 3) -> list[LinearProbe]:
    """Linear probes on a share of the training patients' labels; validation chooses their L2 strength."""
    train, validation = (read_study_set(data, split, model) for split in ("train", "val"))
    learned, chosen = embedded(model, train).pooled, embedded(model, validation).pooled
    labels, wanted = labels_of(train), labels_of(validation)
    chosen_rows = [nested_fraction(train.patients, labels, fraction, seed) for seed in range(draws)]
    return [fit_probe(learned[rows], labels[rows], chosen, wanted) for rows in chosen_rows]


@dataclass(frozen=True)
class Embeddings:
    """Row i of everything belongs to study i.

    Attributes:
        image: (n, D) unit image embeddings.
        report: (n, D) unit report embeddings.
        pooled: (n, C) the backbone's own pooled features, for probes.
        report_text: (n,) equal numbers mean equal reports.
    """

    image: Floats
    report: Floats
    pooled: Floats
    report_text: NDArray[np.int64]


@torch.no_grad()
def embed(model: ImageReportModel, batches: Iterable[Batch], device: torch.device | str = "cpu") -> Embeddings:
    """Embed every batch with the model in eval mode; the mode is put back afterwards."""
    parts: list[tuple[torch.Tensor, ...]] = []
    with eval_mode(model):
        for host_batch in batches:
            batch = host_batch.to(device)
            pooled, tokens = model.image_encoder(batch.images)
            words = model.encode_words(batch.token_ids, batch.token_mask, batch.token_order, batch.token_lengths)
            _, report = model.pool_report(words, batch.token_sentence, batch.sentence_mask)
            row = (model.pool_image(tokens), report, pooled)
            parts.append((*(tensor.float().cpu() for tensor in row), host_batch.report_text))
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    return Embeddings(*columns)


def embedded(model: Pretrained, studies: StudySet) -> Embeddings:
    """Embeddings of all studies, in order."""
    loader = make_loader(studies.dataset, evaluation_order(len(studies.dataset), 64))
    return embed(model.task.model, loader, model.device)


def labels_of(studies: StudySet) -> FloatArray:
    """(n, C) 1, 0 or NaN."""
    return studies.frame[label_columns(studies.frame)].astype(float).to_numpy()


def score(model: Pretrained, probes: Sequence[LinearProbe], folder: Path) -> Scores:
    """Score the studies of one test set."""
    test = read_study_set(folder, "test", model)
    found = embedded(model, test)
    prompts = load_prompts("phantom")
    wanted = [prompts.of(name.removeprefix(LABEL)) for name in label_columns(test.frame)]
    ensembles = Ensembles([each.positive for each in wanted] + [each.negative for each in wanted])
    cosines = prototype_cosines(found.image, model.embed_text(ensembles.texts), ensembles.places)
    states, denies = np.split(cosines, 2, axis=1)
    ids = found.report_text
    return Scores(
        linear=[probe.logits(found.pooled) for probe in probes],
        zero_shot=states - denies,
        recall=recall_at_k(found.report, found.image, ids, ids, (10,))[10],
        chance=chance_recall(ids, ids, 10),
        labels=labels_of(test),
        patients=np.char.add(f"{folder}/", np.asarray(test.patients, str)),
    )


def row(name: str, table: IntervalTable) -> str:
    """A line of a Markdown table."""
    return f"| {name} | " + " | ".join(interval_text(*record[:3]) for record in table.records()) + " |"


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


def judge(folder: Path, data: Path, tests: Sequence[Path], seeds: int) -> Runs:
    """Score all runs, and the random start of each, on all test sets."""
    runs: Runs = {"random": [], "global": [], "full": []}
    for seed in range(seeds):
        trained = {arm: load(folder / f"{arm}-{seed}") for arm in ARMS}
        for arm, model in ({"random": random_twin(trained["full"])} | trained).items():
            probes = fit_probes(model, data)
            runs[arm].append([score(model, probes, test) for test in tests])
    return runs


def print_table(runs: Runs, tests: slice) -> None:
    """The table of all arms on some of the test sets."""
    found = {arm: [together(sets[tests]) for sets in seeds] for arm, seeds in runs.items()}
    full, alone = found["full"], found["global"]
    patients = full[0].patients
    print(f"\n{len(patients)} test studies, {len(full)} seeds of the training; chance of R@10 {full[0].chance:.3f}")
    print("| encoder | " + " | ".join(MEASURES) + " |\n|---|---|---|---|")
    measured = {arm: measures(seeds) for arm, seeds in found.items()}
    for arm, columns in measured.items():
        print(row(arm, measure_intervals([columns], patients, logit=False).mean))
    for first, second in (("full", "random"), ("full", "global")):
        paired = paired_intervals([measured[first]], [measured[second]], patients)
        print(row(f"{first} - {second}", paired.difference))
    by_seed = [a.recall.mean() - b.recall.mean() for a, b in zip(full, alone, strict=True)]
    print("R@10, full - global, by seed: " + ", ".join(f"{each:+.3f}" for each in by_seed))


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
    fresh = [
        make_studies(options.folder / f"test-{seed}", {"test": COUNTS["test"]}, seed, console)
        for seed in range(1, options.fresh + 1)
    ]
    train_missing(options.folder, data, options.seeds)
    runs = judge(options.folder, data, [data, *fresh], options.seeds)
    print_table(runs, slice(0, 1))
    if fresh:
        print_table(runs, slice(1, None))
    for seed in range(options.seeds):
        model = load(options.folder / f"full-{seed}")
        use = report_use(model, read_study_set(data, "test", model))["difference"]
        print(
            f"seed {seed}: L1 inside hidden findings, other report - right one: "
            f"{interval_text(use['value'], use['low'], use['high'], '{:.4f}'.format)}"
        )


if __name__ == "__main__":
    main()
