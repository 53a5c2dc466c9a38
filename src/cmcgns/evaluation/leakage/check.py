"""The leakage guard: everything a test set shares with what came before it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.array_cache import cache_folder
from cmcgns.data.manifest import SYNTHETIC
from cmcgns.data.vocabulary import twins_between
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage.fingerprints import Fingerprints, fingerprints_of, same_pictures, seen_fingerprints
from cmcgns.evaluation.leakage.overlap import PRETRAINING, Caution, Kind, Leakage, Overlap
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import SeenFile, open_seen

logger = logging.getLogger(__name__)

# RSNA's and SIIM's images come from NIH ChestX-ray14, a part of COVIDx from RSNA.
_FROM_NIH = {"nih", "rsna", "siim", "covidx"}
# Collected at one place each; whatever else there is may hold public cases, as COVIDx does.
_OF_THEIR_OWN = {"mimic-cxr", "openi", "chexpert", "object-cxr", "vindr", SYNTHETIC}
# Datasets of images without patients, whose image ids other datasets take for patients' (COVIDx does so).
_IMAGE_IDS = r"(?:rsna|siim):"


def find_overlaps(
    test: Fingerprints, other: Fingerprints, cache: Path, progress: Callable[[float], None]
) -> list[tuple[int, Overlap]]:
    """Everything that two sets of images share, with the row of the test image.

    Returns:
        Row of the test image and what was found about it: patients first, then files, then pictures.
    """
    people = _join(people_of(test.frame), people_of(other.frame), other.frame)
    files = _join(_keys(test.frame["sha256"]), _keys(other.frame["sha256"]), other.frame)
    pairs, correlations = same_pictures(test, other, cache, progress)
    mine, theirs = (each.frame["sha256"].to_numpy()[pairs[:, end]] for end, each in enumerate((test, other)))
    new = (mine != theirs) | (mine == "")  # the same file has been found already
    drawn = [each.frame["dataset"].to_numpy()[pairs[:, end]] == SYNTHETIC for end, each in enumerate((test, other))]
    new &= ~(drawn[0] & drawn[1])  # drawings are told apart by ids and files alone
    found = list(_overlaps("patient", people, test, other)) + list(_overlaps("file", files, test, other))
    return found + list(_overlaps("picture", pairs[new], test, other, correlations[new]))


def people_of(frame: pd.DataFrame) -> pd.DataFrame:
    """`row` and `key` of the people in it; ids carry their dataset's name, empty ones are left out."""
    patients, studies = _with_dataset(frame, "patient_id"), _with_dataset(frame, "study_id")
    return pd.concat([_keys(patients), _keys(studies.where(studies.str.match(_IMAGE_IDS), ""))]).drop_duplicates()


def _with_dataset(frame: pd.DataFrame, column: str) -> pd.Series:
    """Ids with the name of their dataset before a colon, if they have none and it is known."""
    ids, datasets = frame[column], frame["dataset"]
    bare = (ids != "") & ~ids.str.contains(":", regex=False) & (datasets != "")
    return ids.mask(bare, datasets + ":" + ids)


def _keys(values: pd.Series) -> pd.DataFrame:
    table = pd.DataFrame({"row": np.arange(len(values)), "key": values.to_numpy()})
    return table[table["key"] != ""]


def _join(test: pd.DataFrame, other: pd.DataFrame, frame: pd.DataFrame) -> NDArray[np.int64]:
    """(p, 2) rows with equal keys: for every test row the first one of each place."""
    other = other.assign(where=frame["where"].to_numpy()[other["row"]]).drop_duplicates(["key", "where"])
    both = test.merge(other, on="key", suffixes=("", "_other")).drop_duplicates(["row", "where"])
    pairs: NDArray[np.int64] = both[["row", "row_other"]].to_numpy(dtype=np.int64)
    return pairs


def _overlaps(
    kind: Kind,
    pairs: NDArray[np.int64],
    test: Fingerprints,
    other: Fingerprints,
    correlations: NDArray[np.float32] | None = None,
) -> Iterator[tuple[int, Overlap]]:
    mine = test.frame.iloc[pairs[:, 0]]
    theirs = other.frame.iloc[pairs[:, 1]]
    values = [None] * len(pairs) if correlations is None else [round(float(value), 4) for value in correlations]
    columns = [mine[name] for name in ("image_path", "study_id", "patient_id")]
    columns += [theirs[name] for name in ("where", "study_id", "patient_id")]
    for row, value, *cells in zip(pairs[:, 0].tolist(), values, *columns, strict=True):
        image, study, patient, where, other_study, other_patient = map(str, cells)
        yield row, Overlap(kind, image, study, patient, where, other_study, other_patient, value)


def cautions_about_ids(test: pd.DataFrame, other: pd.DataFrame, name: str) -> Iterator[Caution]:
    """What comparing ids cannot show.

    Args:
        test: rows with patient_id, study_id, dataset.
        other: the same of the other images.
        name: of the other images.
    """
    for (one, mine), (another, theirs) in product(_prefixes(test), _prefixes(other)):
        comparable = mine == theirs and (one == another or mine == {"nih"})
        if not comparable and (why := _shared_images(one, another)):
            both = f"{one} (test) and {another} ({name}) both" if one != another else f"{one}, in test and in {name},"
            text = f"{both} {why}, but their ids cannot be compared: only files and pictures were"
            mapping = "; with RSNA's mapping `cmcgns prepare rsna` names NIH's patients"
            yield Caution("datasets", text + mapping if "rsna" in (one, another) else text)
    for frame, whose in ((test, "test"), (other, name)):
        missing = int((frame["patient_id"] == "").sum())
        if missing:
            yield Caution("ids", f"{missing:,} of {len(frame):,} {whose} images name no patient")
    patients = [_with_dataset(frame, "patient_id") for frame in (test, other)]
    twins = twins_between(*patients)
    if len(twins):
        yield Caution(
            "ids",
            f"{twins['id'].nunique():,} test patients have ids that differ from {name} ones in leading zeros, case "
            f"or blanks alone (first: {twins['id'][0]!r} and {twins['other'][0]!r}); spell alike what is the same",
        )
    bare = patients[1][(patients[1] != "") & ~patients[1].str.contains(":", regex=False)]
    if len(bare):
        yield Caution(
            "ids",
            f"{len(bare):,} {name} images have patient ids without a dataset's name (first: {bare.iloc[0]}), which "
            "match no prepared dataset's: fill the column `dataset`",
        )


def _prefixes(frame: pd.DataFrame) -> list[tuple[str, set[str]]]:
    """Datasets in alphabetical order, each with the names that its patients' ids begin with."""
    prefix = _with_dataset(frame, "patient_id").str.extract("^([^:]*):", expand=False).fillna("")
    dataset = frame["dataset"].mask(frame["dataset"] == "", prefix)
    return [(str(name), set(values)) for name, values in prefix.groupby(dataset) if name]


def _shared_images(one: str, another: str) -> str:
    """Why two datasets may hold the same images; empty if they do not."""
    if {one, another} <= _FROM_NIH:
        return "hold images of NIH ChestX-ray14"
    public = "covidx" in (one, another) and not {one, another} & _OF_THEIR_OWN
    return "may hold the same public cases" if public else ""


_OTHERS = {"train": "training", "val": "validation"}


def check_leakage(
    data: TaskData,
    encoder: FrozenEncoder,
    cache: Path | None = None,
    progress: Callable[[str, float], None] = lambda _text, _share: None,
) -> Leakage:
    """Compare the test images with those of pretraining and, if the protocol uses them, of training and validation.

    By patient, by file hash, and by picture: 256-bit hashes within 8 bits propose, thumbnails decide.

    Args:
        data: as the protocol sees it.
        encoder: its run folder says what it has seen.
        cache: folder for signatures and comparisons; by default in the user's cache.
        progress: called with a line of text and a share in [0, 1].

    Raises:
        UserError: the run's `seen.parquet` is damaged, or images cannot be read.
    """
    folder = (cache or cache_folder() / "evaluation") / "leakage"
    seen, cautions = _seen_by(encoder)
    test = fingerprints_of({"test": data.test}, folder, _counter(progress, len(data.test)))
    others = {PRETRAINING: seen_fingerprints(seen)} if seen else {}
    sets = {name: getattr(data, part) for part, name in _OTHERS.items() if part in data.protocol.parts}
    if sets:
        total = sum(map(len, sets.values()))
        others["training"] = fingerprints_of(sets, folder, _counter(progress, total))
    found: list[tuple[int, Overlap]] = []
    for name, other in others.items():
        found += find_overlaps(test, other, folder, partial(progress, f"comparing with {name}"))
        cautions += cautions_about_ids(test.frame, other.frame, name)
        if name == PRETRAINING and other.without_picture:
            missing = f"{other.without_picture:,} of {len(other.frame):,} pretraining pictures are not noted"
            why = "blank, or streamed from shards"
            text = f"{missing} ({why}): they were compared by ids and file hashes alone"
            cautions.append(Caution("pictures", text))
    if (data.frame["patient_id"] == data.frame["study_id"]).all():
        cautions.append(Caution("ids", "image-level split: whose images these are is not known"))
    findings = [each for _, each in sorted(found, key=lambda pair: pair[0])]
    cautions = list(dict.fromkeys(cautions))
    for caution in cautions:
        logger.info("%s, leakage: %s", data.name, caution.text)
    return Leakage(data.name, findings, cautions, data.split_rule == "legacy", len(data.test))


def _counter(progress: Callable[[str, float], None], total: int) -> Callable[[int], None]:
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        progress("fingerprints of images", done / max(1, total))

    return count


def _seen_by(encoder: FrozenEncoder) -> tuple[SeenFile | None, list[Caution]]:
    if encoder.seen_nothing:
        return None, []
    run = encoder.pretrained.folder if encoder.pretrained is not None else None
    seen = open_seen(RunFolder(run).seen) if run else None
    if seen is None:
        why = f": its run folder has no {RunFolder(run).seen.name}" if run else ""
        return None, [Caution("unknown", f"what {encoder.name} was pretrained on is not known{why}")]
    return seen, [Caution("unknown", f"it is not known {each}") for each in seen.unknown]
