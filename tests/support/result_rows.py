"""Made-up results of all protocols, as an evaluation would leave them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cmcgns.evaluation.compare import Comparison, ComparisonRow
from cmcgns.evaluation.figures import ReliabilityCurve
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.evaluation.results import ResultRow

CHEXPERT = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
NIH = (
    *CHEXPERT, "Emphysema", "Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural Thickening", "Pneumonia",
    "Pneumothorax",
)  # fmt: skip
MGCA = {"MGCA ResNet-50": [87.6, 88.0, 88.2], "MGCA ViT-B/16": [88.8, 89.1, 89.7]}
COVIDX = {"MGCA ResNet-50": [72.0, 83.5, 90.5]}
PARTIAL = {"MGCA ResNet-50": [None, 12.1, 19.2]}
GROUPS = ("sex=F", "sex=M", "age=0-39", "age=40-59", "age=60-79", "age=80+", "view=AP", "view=PA")
WITH_GROUPS = ("chexpert-linear/v1", "nih-linear/v1", "chexpert-zero-shot/v1")
ENCODERS = (("cm-cgns, ResNet-50", 0.0), ("random:resnet50", -0.22))

R_AT = {f"{way}_r@{k}": 0.1 + 0.03 * k for way in ("report_to_image", "image_to_report") for k in (1, 5, 10)}
BOXES = {"map": 0.22, "ap50": 0.31, "recall@100": 0.62, "sensitivity@1fp": 0.55}
MASKS = {"dice_positive": 0.55, "dice_all": 0.78, "iou_positive": 0.45, "iou_all": 0.7}
PLACES = {"pointing_similarity": 0.61, "pointing_attention": 0.5, "cnr_similarity": 1.21, "miou_similarity": 0.24}
AREAS = {"auroc": 0.87, "auprc": 0.6, "brier": 0.14, "ece": 0.05}


class Kind(NamedTuple):
    title: str
    task: str
    dataset: str
    n: int
    patients: int
    metrics: dict[str, float]
    labels: tuple[str, ...] = ()
    anchors: dict[str, list[float | None]] = {}  # noqa: RUF012


KINDS = {
    "chexpert-linear": Kind("CheXpert, linear", "linear", "chexpert", 202, 200, AREAS, CHEXPERT, MGCA),
    "rsna-linear": Kind("RSNA pneumonia, linear", "linear", "rsna", 4003, 2741, AREAS, ("Pneumonia",), MGCA),
    "covidx-linear": Kind(
        "COVIDx, linear", "linear", "covidx", 400, 400, {"accuracy": 0.83, "macro_f1": 0.8}, (), COVIDX
    ),
    "nih-linear": Kind("ChestX-ray14, linear", "linear", "nih", 25596, 2797, {"auroc": 0.8, "auprc": 0.3}, NIH),
    "nih-knn": Kind("ChestX-ray14, 20 nearest neighbours", "knn", "nih", 25596, 2797, {"auroc": 0.72}, NIH),
    "rsna-detection": Kind("RSNA pneumonia, detection", "detection", "rsna", 5337, 5337, BOXES, (), PARTIAL),
    "object-cxr-detection": Kind("Object-CXR, detection", "detection", "object-cxr", 1000, 1000, BOXES, (), PARTIAL),
    "siim-segmentation": Kind("SIIM pneumothorax, segmentation", "segmentation", "siim", 1607, 1607, MASKS, (), MGCA),
    "rsna-segmentation": Kind("RSNA pneumonia, segmentation", "segmentation", "rsna", 5337, 5337, MASKS, (), MGCA),
    "chexpert-zero-shot": Kind("CheXpert, zero-shot", "zero_shot", "chexpert", 202, 200, AREAS, CHEXPERT),
    "retrieval": Kind("Image and report", "retrieval", "mimic-cxr", 3858, 293, R_AT),
    "ms-cxr-grounding": Kind("MS-CXR, phrase grounding", "grounding", "ms-cxr", 1162, 851, PLACES, CHEXPERT[:3]),
}


def make_protocol(
    name: str, title: str, task: str, dataset: str, anchors: dict[str, list[float | None]]
) -> EvaluationProtocol:
    legacy = name.endswith("legacy")
    notes = ["Most validation rows stay in training, as in the published program."] if legacy else []
    return EvaluationProtocol(id=name, title=title, task=task, dataset=dataset, anchors=anchors, notes=notes)  # type: ignore[arg-type]


def make_protocols() -> dict[str, EvaluationProtocol]:
    """All protocols as v1, those with published figures as legacy too; anchors in both, to be shown in one."""
    found = {}
    for base, kind in KINDS.items():
        for version in ("v1", "legacy") if kind.anchors else ("v1",):
            name = f"{base}/{version}"
            asked = "" if base == "retrieval" else kind.dataset
            key = name if asked else f"{name}@{kind.dataset}"
            found[key] = make_protocol(name, kind.title, kind.task, asked, kind.anchors)
    return found


def make_rows(encoders: Sequence[tuple[str, float]] = ENCODERS[:1]) -> list[ResultRow]:
    rng = np.random.default_rng(0)
    return [
        row
        for name, protocol in make_protocols().items()
        for number, (encoder, offset) in enumerate(encoders)
        for row in _of_protocol(name, protocol, encoder, f"{number}a7c" * 16, offset, rng)
    ]


def make_failures() -> list[tuple[str, str, str]]:
    return [
        ("rsna-detection/legacy", "1-percent-seed-2", "OutOfMemoryError: tried to allocate 2.1 GiB"),
        ("mine/v3", "", "no column split_detection,\nwhich mine/v3 takes its splits from"),
    ]


def make_skipped() -> list[tuple[str, str]]:
    return [
        ("report-5x200/v1", "the encoder has no report encoder"),
        ("ms-cxr-grounding/v2", "no row has a box & a phrase"),
    ]


def make_reliability() -> list[ReliabilityCurve]:
    predicted = np.linspace(0.05, 0.95, 10)
    counts = tuple(int(900 / (1 + 3 * k)) for k in range(10))
    return [ReliabilityCurve("chexpert-linear/v1", 100.0, tuple(predicted), tuple(predicted**1.2), counts)]


def _of_protocol(
    name: str, protocol: EvaluationProtocol, encoder: str, sha: str, offset: float, rng: np.random.Generator
) -> Iterator[ResultRow]:
    base = protocol.id.partition("/")[0]
    _, task, dataset, n, patients, metrics, labels, _ = KINDS[base]
    split = hashlib.sha256(name.encode()).hexdigest()
    leakage = "12 of 2,741 test patients were in pretraining" if name == "rsna-linear/v1" and not offset else ""
    start = ResultRow(
        name, task, dataset, split, encoder, sha, "", n=n, patients=patients, resamples=2000, leakage=leakage
    )
    fractions = (1.0, 10.0, 100.0) if protocol.learns else (None,)
    for metric, level in metrics.items():
        for fraction in fractions:
            gain = {1.0: -0.08, 10.0: -0.03, 100.0: 0.0, None: 0.0}[fraction]
            for label in ("", *labels):
                first = metric == next(iter(metrics))
                row = replace(start, metric=metric, label=label, fraction=fraction, primary=first)
                if len(labels) == 1:  # one class: its figure is the mean over classes
                    rng = np.random.default_rng(seed_of(f"{name}{metric}{fraction}{encoder}"))
                shift = 0 if not label or len(labels) == 1 else 0.06 * np.sin(len(label))
                yield from _with_seeds(row, max(0.02, level + gain + offset * min(level, 1) + shift), rng)
                if not label and first and name in WITH_GROUPS:
                    for group in GROUPS:
                        yield _group(row, group, level + gain + offset, rng)


def _with_seeds(row: ResultRow, level: float, rng: np.random.Generator) -> Iterator[ResultRow]:
    half = 1.2 / np.sqrt(row.n)
    if row.label == "Hernia":
        note = "Hernia: no positive among the test rows of this release"
        yield replace(row, note=note, seeds=3)
        return
    values = level + 0.006 * rng.normal(size=3 if row.fraction is not None else 1)
    if row.protocol == "rsna-detection/legacy" and row.fraction == 1:
        values = values[:2]
    if row.fraction is not None:
        for seed, value in enumerate(values):
            yield replace(row, value=float(value), low=value - half, high=value + half, seed=seed)
    mean, note = float(values.mean()), ""
    if row.metric == "auroc" and not row.label and row.dataset == "nih":
        note = "mean over 13 of 14 classes: Hernia has no positive"
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    yield replace(row, value=mean, low=mean - half, high=mean + 1.1 * half, sd=sd, seeds=len(values), note=note)


def _group(row: ResultRow, group: str, level: float, rng: np.random.Generator) -> ResultRow:
    share = 0.03 if group == "age=80+" else 0.06 if group == "age=0-39" else 0.45
    patients = int(row.patients * share)
    row = replace(
        row, group=group, n=int(row.n * share), patients=patients, seeds=3 if row.fraction is not None else 1
    )
    if patients < 10:
        return replace(row, note="one class is missing in this subgroup")
    half = 1.2 / np.sqrt(row.n)
    value = float(np.clip(level + half * rng.normal(scale=0.5), 0.1, 0.97))
    return replace(row, value=value, low=value - half, high=min(value + half, 1.0), sd=0.007)


def seed_of(text: str) -> int:
    """The same in every process."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def make_comparison() -> Comparison:
    rows = make_rows(ENCODERS)
    mean = [row for row in rows if row.seed is None and not row.group]
    pairs = {}
    for row in mean:
        pairs.setdefault((row.protocol, row.fraction, row.metric, row.label), []).append(row)
    found = []
    for a, b in pairs.values():
        if a.value is None or b.value is None:
            numbers = (None, None, None)
        else:
            value, half = (a.value - b.value) * 0.1, 1.5 / np.sqrt(a.n)
            numbers = (value, value - half, value + half)
        clear = numbers[1] is not None and numbers[2] is not None and (numbers[1] > 0 or numbers[2] < 0)
        names = ("protocol", "dataset", "fraction", "metric", "label", "primary", "n", "patients", "resamples")
        shared = {name: getattr(a, name) for name in names}
        figures = dict(zip(("difference", "low", "high"), numbers, strict=True))
        found.append(ComparisonRow(a=a.value, b=b.value, seeds=3, clear=clear, **shared, **figures))
    return Comparison(
        "cm-cgns, ResNet-50", "MGCA <again>", tuple(found), ("siim-segmentation/v1 was run for one alone",)
    )


def read_results(folder: Path) -> list[ResultRow]:
    """Rows of `results.jsonl`."""
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    return [ResultRow(**json.loads(line)) for line in lines]
