"""Rows that can be trained on, those that are left out, and which of them train and validate."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow

from cmcgns.common.errors import UserError, shortened
from cmcgns.common.remote import is_url
from cmcgns.data.manifest import REPORT_COLUMNS
from cmcgns.data.pairs.table import (
    TABLE_NAMES,
    check_ids,
    fill_columns,
    read_columns,
    usual_splits,
    warn_about_reports,
)
from cmcgns.data.paths import images_folder
from cmcgns.data.reports.text import MAX_REPORT, split_sentences
from cmcgns.data.tables import find_table, has_nul
from cmcgns.data.vocabulary import is_frontal, parse_views
from cmcgns.settings.config import DataSettings

logger = logging.getLogger(__name__)


@dataclass
class PairTable:
    """Rows that can be trained on.

    Attributes:
        frame: columns image_path (absolute), study_id, patient_id, view, split, dataset, text, row (1-based row of
            the source, header not counted) and whatever else the source has but the columns of the report: `text`
            stands for them.
        source: the table that was read.
        images: folder where its relative image paths start.
        left_out: rows that are not used: row, image_path, reason.
    """

    frame: pd.DataFrame
    source: Path
    images: Path
    left_out: list[dict[str, object]] = field(default_factory=list)

    def leave_out(self, bad: pd.Series, reason: str) -> None:
        """Take rows out, remember and log them.

        Args:
            bad: Boolean, aligned with the frame, whose rows are numbered from 0 again afterwards.
            reason: in words.
        """
        rows = self.frame[bad]
        if len(rows) == 0:
            return
        self.left_out += [
            {"row": int(row), "image_path": str(path), "reason": reason}
            for row, path in zip(rows["row"], rows["image_path"], strict=True)
        ]
        shown = ", ".join(str(row) for row in rows["row"][:5])
        logger.warning("%s: %d rows left out: %s (rows %s…)", self.source.name, len(rows), reason, shown)
        self.frame = self.frame[~bad].reset_index(drop=True)


def read_pairs(
    path: Path,
    settings: DataSettings,
    *,
    look_for_files: bool = True,
    everything: bool = True,
    for_training: bool = False,
) -> PairTable:
    """Read a csv or parquet table, or the one table of a folder.

    A table without splits is one of training rows. Where only some rows have a split, the others belong to none and
    are left out.

    Args:
        path: table or folder; relative image paths start at the table's folder, or at `data.images`.
        settings: columns, views, which text, how the table is written.
        look_for_files: whether every image has to be there (URLs are taken to be); not for members of shards.
        everything: also read columns that pretraining does not know (from a parquet table; they cost memory).
        for_training: rows that belong neither to the training nor to the validation split are dropped before their
            reports and images are looked at.

    Raises:
        UserError: no table, missing columns, repeated images, missing image files.
    """
    table = find_table(path, TABLE_NAMES)
    frame = read_columns(table, settings, everything)
    frame["row"] = range(1, len(frame) + 1)
    images = images_folder(settings.images, table, "data.images")
    pairs = PairTable(fill_columns(frame, table, images), table, images)
    pairs.leave_out(has_nul(pairs.frame), "NUL bytes: the file is damaged")
    check_ids(pairs.frame, table)
    pairs.frame["split"] = usual_splits(pairs.frame["split"], (settings.train_split, settings.val_split))
    pairs.leave_out(pairs.frame["split"] == "", "no split (empty, while other rows have one)")
    if for_training:
        _keep_used(pairs, settings)
    if settings.views == "frontal":
        _keep_frontal(pairs)
    pairs.frame["text"] = choose_text(pairs.frame, settings.text)
    pairs.frame = pairs.frame.drop(columns=list(REPORT_COLUMNS))  # `text` has them: a quarter of the memory
    pairs.leave_out(~_has_sentence(pairs.frame["text"]), "empty report")
    pairs.leave_out(pairs.frame["text"].str.len() > MAX_REPORT, f"report of more than {MAX_REPORT:,} characters")
    warn_about_reports(pairs.frame, table.name)
    if look_for_files:
        _check_files(pairs, settings.bad_images)
    if len(pairs.frame) == 0:
        why = "; the reasons stand above" if pairs.left_out else ": the table is empty"
        raise UserError(f"{table}: no row is left to train on{why}")
    pyarrow.default_memory_pool().release_unused()  # intermediate columns: half as much again as the rows
    return pairs


def _keep_used(pairs: PairTable, settings: DataSettings) -> None:
    """Drop the rows of other splits: a missing image of theirs, say, is no reason to stop."""
    rows_of_split(pairs, settings.train_split)
    used = pairs.frame["split"].isin([settings.train_split, settings.val_split])
    for split, number in pairs.frame.loc[~used, "split"].value_counts().items():
        logger.info("%s: %d rows of split %s are not used", pairs.source.name, number, split)
    pairs.frame = pairs.frame[used].reset_index(drop=True)


def choose_text(frame: pd.DataFrame, kind: str) -> pd.Series:
    """The text of each row: findings, then impression (a missing one leaves no gap), or the whole report.

    Args:
        frame: columns findings, impression, report; text.
        kind: sections, report, or auto (sections where a row has them).

    Returns:
        (n,) text.
    """
    sections = (frame["findings"].str.strip() + "\n\n" + frame["impression"].str.strip()).str.strip()
    if kind == "sections":
        return sections
    report = frame["report"].str.strip()
    return report if kind == "report" else sections.where(sections != "", report)


def _keep_frontal(pairs: PairTable) -> None:
    pairs.leave_out(~is_frontal(pairs.frame["view"]), "not a frontal view (data.views=all keeps it)")
    views, unknown = parse_views(pairs.frame["view"])
    number = (~views.isin(("AP", "PA", "FRONTAL"))).sum()
    if number:
        logger.log(
            logging.WARNING if unknown else logging.INFO,
            "%s: %d rows have no known view and are kept as frontal (%s)",
            pairs.source.name, number, ", ".join(map(repr, unknown[:5])) or "none is stated",
        )  # fmt: skip


def _has_sentence(texts: pd.Series) -> pd.Series:
    # Every text with a letter has one; only the others ("1.", "?") are worth the splitter's time.
    found = texts.str.contains(r"[^\W\d_]").to_numpy(dtype=bool, copy=True)
    found[~found] = [bool(split_sentences(text)) for text in texts[~found]]
    return pd.Series(found, index=texts.index)


def _check_files(pairs: PairTable, bad_images: str) -> None:
    paths = pairs.frame["image_path"]
    found = (is_url(path) or os.path.isfile(path) for path in paths)  # noqa: PTH113 - takes names of any length
    missing = ~pd.Series(np.fromiter(found, bool, len(paths)), index=paths.index)
    if not missing.any():
        return
    if bad_images == "leave_out":
        pairs.leave_out(missing, "image file is missing")
        return
    rows = pairs.frame[missing]
    foreign = rows["image_path"].str.contains(r"/[A-Za-z]:/").any()
    hint = " (those of a Windows machine have to be made relative)" if foreign else ""
    listed = "\n  ".join(
        f"row {r}: {shortened(p, 400)}" for r, p in zip(rows["row"][:10], rows["image_path"][:10], strict=True)
    )
    raise UserError(
        f"{pairs.source}: {len(rows)} image files are missing:\n  {listed}\n"
        f"Correct the paths{hint}, name the folder where they start with --set data.images=DIR, or leave these rows "
        "out with --set data.bad_images=leave_out"
    )


def rows_of_split(pairs: PairTable, split: str, way_out: str = "") -> pd.DataFrame:
    """The rows of one split, with their indices in the table.

    Args:
        pairs: the table.
        split: its name.
        way_out: of the message.

    Raises:
        UserError: it has no row; names the splits that there are.
    """
    rows = pairs.frame[pairs.frame["split"] == split]
    if len(rows) == 0:
        found = ", ".join(sorted(pairs.frame["split"].unique()))
        raise UserError(f"{pairs.source}: no row has split {split} (found: {found}){way_out}")
    return rows


def assign_splits(pairs: PairTable, settings: DataSettings, seed: int) -> tuple[pd.Index, pd.Index]:
    """Training and validation rows.

    Without rows of the validation split (or with `val_split: null`) a fraction of the training patients is held
    out, drawn by the seed.

    Returns:
        Two row indices of `pairs.frame`.

    Raises:
        UserError: no training row, or no second patient to hold out.
    """
    frame, name = pairs.frame, pairs.source.name
    train = rows_of_split(pairs, settings.train_split).index
    if settings.val_split is not None:
        val = frame.index[frame["split"] == settings.val_split]
        if len(val):
            _warn_about_shared_patients(pairs, train, val, settings)
            return train, val
        logger.warning("%s: no row has split %s", name, settings.val_split)
    return _hold_out(pairs, train, settings.val_fraction, seed)


def _warn_about_shared_patients(pairs: PairTable, train: pd.Index, val: pd.Index, settings: DataSettings) -> None:
    patients = pairs.frame["patient_id"]
    shared = set(patients.loc[train]) & set(patients.loc[val])
    if shared:
        logger.warning(
            "%s: %d patients are in both %s and %s, for example %s: the validation losses are too good",
            pairs.source.name, len(shared), settings.train_split, settings.val_split, min(shared),
        )  # fmt: skip


def _hold_out(pairs: PairTable, train: pd.Index, fraction: float, seed: int) -> tuple[pd.Index, pd.Index]:
    """The training rows without those of some patients, and the rows of these."""
    rows = pairs.frame.loc[train, "patient_id"]
    patients = pd.Series(sorted(rows.unique()))  # sorted: the order of the table must not matter
    if len(patients) < 2:
        raise UserError(
            f"{pairs.source}: all training rows belong to one patient; none can be held out. Look at patient_id, or "
            "name validation rows in a column split and with --set data.val_split=NAME"
        )
    fewest = 2 if len(patients) > 3 else 1  # with a single study L_global is 0 and cannot choose among epochs
    wanted = min(max(fewest, round(fraction * len(patients))), len(patients) - 1)
    held_out = patients.sample(wanted, random_state=np.random.default_rng(seed))
    is_val = rows.isin(held_out)
    logger.info("%s: %d of %d training patients held out", pairs.source.name, len(held_out), len(patients))
    return train[~is_val], train[is_val]
