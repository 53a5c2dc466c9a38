"""The rows that a protocol talks about: splits, fractions, images, labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import parse_boxes
from cmcgns.data.manifest import LABEL, REPORT_COLUMNS, label_columns, read_manifest
from cmcgns.data.vocabulary import is_frontal
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import UNCERTAIN, ImageSet, image_set_of, labels_of, masks_sha256, pixels_sha256
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.subsets import RULE, nested_fraction
from cmcgns.evaluation.task_settings.base import PARTS, Target
from cmcgns.metrics.ranking import FloatArray, IntArray

_NOTHING = r"\s*(?:\[\s*\])?\s*"
"""A cell without a mask, or without a box."""
_HINTS = {
    "train": "`cmcgns prepare` writes splits, and `--set split.train=[NAME]` names another one",
    "val": "`--set split.val=[]` takes validation patients out of train",
    "test": "`--set split.test=[val] --set split.val=[]` tests on val and takes validation patients out of train",
}


class TaskData:
    """One prepared dataset as one protocol sees it.

    Args:
        protocol: splits, labels, views.
        folder: with `manifest.parquet`, or the manifest.
        image_size: side of the encoder's input.
        resize: long side of an image before the crop; equal to `image_size` for protocols that use whole images.

    Attributes:
        frame: rows of all three splits, with a column `part`.
        split_rule: v1, legacy, or any where nobody says.
        label_names: C names.

    Raises:
        UserError: a split without rows, labels that the manifest does not have, or splits of another rule.
    """

    def __init__(self, protocol: EvaluationProtocol, folder: Path, image_size: int, resize: int) -> None:
        self.protocol, self.folder = protocol, folder
        self.image_size, self.resize = image_size, image_size if protocol.whole_image else resize
        frame = read_manifest(folder)
        self.dataset = _check_dataset(frame, folder, protocol)
        self.split_rule = _check_rule(frame, folder, protocol)
        if protocol.views == "frontal":
            frame = frame[is_frontal(frame["view"])]
        self.frame = _with_parts(frame, folder, protocol).reset_index(drop=True)
        _check_test_rows(self.frame, folder)
        self.label_names = _label_names(self.frame, folder, protocol)
        _check_labels(self.frame, folder, self.label_names)

    @property
    def name(self) -> str:
        """For tables: the protocol's id, and the dataset where the protocol does not say which."""
        return result_name(self.protocol, self.dataset)

    @cached_property
    def split_sha256(self) -> str:
        """Of which image is in which part; the same for everyone who prepared the same data in the same way."""
        rows = (self.frame["part"] + " " + self.frame["study_id"] + " " + self.frame["source"]).sort_values()
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @cached_property
    def content_sha256(self) -> str:
        """Of everything of the data that enters a result: what the rows say, pixels of images, mask files."""
        columns = ["part", "image_path", "sha256", "study_id", "patient_id", "width", "height", "boxes", "mask_path"]
        columns += [*REPORT_COLUMNS, *(f"{LABEL}{name}" for name in self.label_names)]
        digest = hashlib.sha256(f"{self.split_sha256} {self.image_size} {self.resize}".encode())
        hashes = pd.util.hash_pandas_object(self.frame[columns].astype("str"), index=False)
        digest.update(hashes.to_numpy().tobytes())
        for images in (getattr(self, part) for part in self.protocol.parts):
            digest.update(f"{pixels_sha256(images)} {masks_sha256(images)}".encode())
        return digest.hexdigest()

    @cached_property
    def train(self) -> ImageSet:
        """Training rows; all of them, a fraction is :meth:`fraction_rows`."""
        return self._part("train")

    @cached_property
    def val(self) -> ImageSet:
        """Validation rows: they choose strengths and epochs."""
        return self._part("val")

    @cached_property
    def test(self) -> ImageSet:
        """Test rows: they choose nothing."""
        return self._part("test")

    @cached_property
    def prevalence(self) -> FloatArray:
        """(C,) share of positives among the training rows that have the label; NaN where none has.

        No image is opened: tasks that learn nothing ask too. Of them the training split is often empty.
        """
        train, protocol = self._rows("train"), self.protocol
        labels = labels_of(train, self.label_names, protocol.uncertain, protocol.empty_labels == "negative")
        known = (~np.isnan(labels)).sum(axis=0)
        return np.asarray(
            np.divide((labels == 1).sum(axis=0), known, out=np.full(len(known), np.nan), where=known > 0)
        )

    def counts(self) -> dict[str, int]:
        """Images of each part."""
        return {part: len(self._rows(part)) for part in PARTS}

    def lacks_labels(self, parts: Sequence[str] = PARTS) -> str:
        """Which of some parts has no label at all; empty if all have."""
        columns = [LABEL + name for name in self.label_names]
        if not columns:
            return "the manifest has no labels (columns label_…)"
        bare = (part for part in parts if self._rows(part)[columns].isna().all(axis=None))
        part = next(bare, "") if self.protocol.empty_labels == "unknown" else ""
        return f"no image of {part} has a label" if part else ""

    def lacks_reports(self) -> str:
        """Whether no test image has a report; empty if some have."""
        silent = (self._rows("test")[list(REPORT_COLUMNS)] == "").all(axis=None)
        return "no image of test has a report" if silent else ""

    def lacks_boxes(self, parts: Sequence[str]) -> str:
        """Which of some parts has no box; empty if all have."""
        part = self._part_without("boxes", parts)
        return f"no image of {part} has a box" if part else ""

    def lacks_targets(self, kind: Target, parts: Sequence[str]) -> str:
        """Which of some parts has no box, or no mask; empty if all have."""
        column = "mask_path" if kind == "masks" else "boxes"
        part = self._part_without(column, parts)
        return f"no image of {part} has {kind} (column {column})" if part else ""

    def lacks_regions(self, kind: Target, parts: Sequence[str]) -> str:
        """Why there are no regions of findings to judge; empty if some image of each part has one."""
        if kind == "masks" and len(self.label_names) != 1:
            return (
                f"masks show one finding, and there are {len(self.label_names)} labels: name theirs with "
                "--set 'labels=[NAME]', or take settings.target=boxes"
            )
        if reason := self.lacks_targets(kind, parts):
            return reason
        wanted = ", ".join(self.protocol.labels)
        return "" if self.region_names(kind) else f"no box is of the protocol's labels ({wanted})"

    def region_names(self, kind: Target) -> tuple[str, ...]:
        """Findings with regions, of those that the protocol names or else of all; of masks the only label."""
        if kind == "masks":
            return tuple(self.label_names[:1])
        cells = self.frame["boxes"][self._stated("boxes")]
        found = {str(box.get("label", "")) for text in cells for box in parse_boxes(text, f"{self.folder}: boxes")}
        wanted = self.protocol.labels
        return tuple(name for name in wanted if name in found) if wanted else tuple(sorted(found))

    def fraction_rows(self, cell: Cell, strata: np.ndarray | None = None) -> IntArray:
        """Row numbers of `train` that a cell may learn from.

        Smaller fractions of one seed lie within larger ones, stratified by the labels.

        Args:
            cell: fraction and seed.
            strata: (n, C) 1, 0 or NaN, in place of the labels (boxes or masks that are there or not).
        """
        labels = self.train.labels if strata is None else strata
        rows = len(self.train)
        if cell.fraction is None or cell.fraction == 100:
            return np.arange(rows)
        groups = self.train.patients if self.protocol.fraction_of == "patients" else np.arange(rows).astype(str)
        return nested_fraction(groups, labels, cell.fraction / 100, cell.seed or 0)

    def _rows(self, part: str) -> pd.DataFrame:
        return self.frame[self.frame["part"] == part]

    def _stated(self, column: str) -> pd.Series:
        """(n,) whether a row has a box, or a mask."""
        return ~self.frame[column].str.fullmatch(_NOTHING)

    def _part_without(self, column: str, parts: Sequence[str]) -> str:
        """The first part in which no row has one; empty if there is none."""
        there = set(self.frame["part"][self._stated(column)])
        return next((part for part in parts if part not in there), "")

    def _part(self, part: str) -> ImageSet:
        frame, protocol = self._rows(part).reset_index(drop=True), self.protocol
        base = self.folder if self.folder.is_dir() else self.folder.parent
        return image_set_of(
            frame, base, self.resize, self.label_names, protocol.uncertain, protocol.empty_labels == "negative"
        )


def work_key(data: TaskData, encoder: FrozenEncoder, *more: str) -> str:
    """Key of finished and unfinished work: equal ones give equal predictions.

    Args:
        data: splits, images, labels, boxes and masks, and the protocol.
        encoder: both of its halves.
        more: what else a piece of work depends on, such as its cell.
    """
    rule = f"subsets {RULE}" if data.protocol.learns else ""
    about = (encoder.sha256, data.protocol.sha256, data.content_sha256, rule, *more)
    return hashlib.sha256(" ".join(about).encode()).hexdigest()


def result_name(protocol: EvaluationProtocol, dataset: str) -> str:
    """Protocol and dataset; the latter where the protocol does not say it."""
    return protocol.id if protocol.dataset else f"{protocol.id}@{dataset}"


def dataset_of(frame: pd.DataFrame, folder: Path) -> str:
    """What a prepared dataset is called, and its results with it: by its manifest, else by its folder."""
    return "+".join(sorted({str(name) for name in frame["dataset"]})) or folder.absolute().name


def split_rules(frame: pd.DataFrame) -> list[str]:
    """The rules by which the splits of a manifest were made."""
    return sorted({str(rule) for rule in frame["split_rule"]} - {""})


def _check_dataset(frame: pd.DataFrame, folder: Path, protocol: EvaluationProtocol) -> str:
    """Its name; by its folder alone no data is taken for that of a protocol."""
    name = dataset_of(frame, folder)
    if protocol.dataset and set(frame["dataset"]) != {protocol.dataset}:
        found = f"{name}, by its folder's name alone" if name == protocol.dataset else name
        raise UserError(f"{protocol.id} is about {protocol.dataset}, but {folder} holds {found}")
    return name


def _check_rule(frame: pd.DataFrame, folder: Path, protocol: EvaluationProtocol) -> str:
    """The rule of the splits; a legacy protocol on v1 splits (or the other way round) would be neither."""
    wanted, column = protocol.split.rule, protocol.split.column
    if column not in frame:
        raise UserError(f"{folder}: no column {column}, from which {protocol.id} takes its splits")
    found = split_rules(frame)
    if wanted != "any" and found and found != [wanted]:
        raise UserError(
            f"{folder} was prepared with --split {found[0]}, but {protocol.id} needs {wanted}: prepare it once more "
            f"into another folder with --split {wanted}"
        )
    return found[0] if len(found) == 1 else wanted


def _with_parts(frame: pd.DataFrame, folder: Path, protocol: EvaluationProtocol) -> pd.DataFrame:
    """The rows of the three splits, with a column `part`."""
    split = protocol.split
    values = frame[split.column].fillna("").astype(str)
    part = pd.Series("", index=frame.index, dtype="str")
    wanted = {"train": split.train, "val": split.val, "test": split.test}
    for name, names in wanted.items():
        part[values.isin(names)] = name
    if not split.val:
        part[_held_out(frame[part == "train"], split.validation_share, split.seed)] = "val"
    frame = frame.assign(part=part)
    for name in PARTS:
        if name not in set(part) and name in protocol.parts:
            there = ", ".join(sorted(set(values) - {""})) or "none"
            asked = ", ".join(wanted[name]) or name
            what = f"{protocol.id} needs rows of split {asked} for {name}, column {split.column} has: {there}"
            raise UserError(f"{folder}: {what}. {_HINTS[name]}")
    return frame[part != ""]


def _check_test_rows(frame: pd.DataFrame, folder: Path) -> None:
    """Every test row counts once, by the file that it is about, and has a place in the subgroups."""
    test = frame[frame["part"] == "test"]
    if len(wrong := test[(test["age"] < 0).fillna(value=False)]):
        raise UserError(f"{folder}: age is {wrong['age'].iloc[0]} in {wrong['study_id'].iloc[0]}: years, or nothing")
    names = test["source"].where(test["source"] != "", test["image_path"])
    twice = names[names.duplicated()]
    if len(twice):
        raise UserError(
            f"{folder}: {len(twice):,} test rows name the same file (column source) as another one, first: "
            f"{twice.iloc[0]}; leave one row of each in the manifest"
        )


def _check_labels(frame: pd.DataFrame, folder: Path, names: list[str]) -> None:
    for name in names:
        values = frame[f"{LABEL}{name}"]
        wrong = frame[values.notna() & ~values.isin([0, 1, UNCERTAIN])]
        if len(wrong):
            row = wrong.iloc[0]
            raise UserError(
                f"{folder}: {LABEL}{name} is {row[LABEL + name]} in {row['study_id']} ({len(wrong):,} such rows); "
                "labels are 1, 0, -1 (uncertain) or empty"
            )


def _held_out(train: pd.DataFrame, share: float, seed: int) -> pd.Index:
    """Rows of a share of the training patients, drawn by patient."""
    patients = np.array(sorted(set(train["patient_id"])))
    drawn = np.random.default_rng(seed).permutation(patients)[: max(1, round(share * len(patients)))]
    return train.index[train["patient_id"].isin(drawn)]


def _label_names(frame: pd.DataFrame, folder: Path, protocol: EvaluationProtocol) -> list[str]:
    there = [name.removeprefix(LABEL) for name in label_columns(frame)]
    missing = [name for name in (*protocol.labels, *protocol.uncertain) if name not in there]
    if missing:
        found = ", ".join(there) or "none"
        raise UserError(f"{folder}: {protocol.id} needs the label {missing[0]} (found: {found})")
    return list(protocol.labels) or there
