"""The leakage guard: everything a test set shares with what came before it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from cmcgns.data.images import cache_folder
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage.compare import compare
from cmcgns.evaluation.leakage.found import PRETRAINING, Caution, Leakage, Overlap
from cmcgns.evaluation.leakage.kin import cautions_about_ids
from cmcgns.evaluation.leakage.sides import Side, image_side, seen_side
from cmcgns.evaluation.task_data import TaskData
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen_file import SeenFile, open_seen

logger = logging.getLogger(__name__)

Report = Callable[[str, float], None]
_RANDOM = "random"  # what names of random encoders begin with; without a run they have seen nothing


def check_leakage(
    data: TaskData, encoder: FrozenEncoder, cache: Path | None = None, progress: Report | None = None
) -> Leakage:
    """Compare the test images with those of pretraining and, if the protocol learns, of training and validation.

    By patient, by file hash, and by picture: 256-bit hashes within 8 bits propose, thumbnails decide.

    Args:
        data: as the protocol sees it.
        encoder: its run folder says what it has seen.
        cache: folder for signatures and comparisons; by default in the user's cache.
        progress: called with a line of text and a share in [0, 1].

    Raises:
        UserError: the run's `seen.parquet` is damaged, or images cannot be read.
    """
    folder, tell = (cache or cache_folder() / "evaluation") / "leakage", progress or (lambda _text, _share: None)
    seen, cautions = _seen_by(encoder)
    test = image_side({"test": data.test}, folder, _counter(tell, len(data.test)))
    sides = {PRETRAINING: seen_side(seen)} if seen else {}
    if data.protocol.learns:
        total = len(data.train) + len(data.val)
        sets = {"training": data.train, "validation": data.val}
        sides["training"] = image_side(sets, folder, _counter(tell, total))
    found: list[tuple[int, Overlap]] = []
    for name, side in sides.items():
        found += compare(test, side, folder, lambda share, name=name: tell(f"comparing with {name}", share))  # type: ignore[misc]
        cautions += cautions_about_ids(test.frame, side.frame, name)
        cautions += _about_pictures(side) if name == PRETRAINING else []
    if (data.frame["patient_id"] == data.frame["study_id"]).all():
        cautions.append(Caution("ids", "image-level split: whose images these are is not known"))
    findings = [each for _, each in sorted(found, key=lambda pair: pair[0])]
    cautions = list(dict.fromkeys(cautions))
    for caution in cautions:
        logger.info("%s, leakage: %s", data.name, caution.text)
    return Leakage(data.name, findings, cautions, data.split_rule == "legacy", len(data.test))


def _counter(tell: Report, total: int) -> Callable[[int], None]:
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        tell("fingerprints of images", done / max(1, total))

    return count


def _seen_by(encoder: FrozenEncoder) -> tuple[SeenFile | None, list[Caution]]:
    run = encoder.pretrained.folder if encoder.pretrained is not None else None
    if run is None:
        if encoder.name.startswith(_RANDOM):
            return None, []
        return None, [Caution("unknown", f"what {encoder.name} was pretrained on is not known")]
    seen = open_seen(RunFolder(run).seen)
    if seen is None:
        text = f"what {encoder.name} was pretrained on is not known: its run folder has no {RunFolder(run).seen.name}"
        return None, [Caution("unknown", text)]
    return seen, [Caution("unknown", f"it is not known {each}") for each in seen.unknown]


def _about_pictures(side: Side) -> list[Caution]:
    if side.without_picture == 0:
        return []
    text = f"{side.without_picture:,} of {len(side.frame):,} pretraining pictures are not noted"
    why = "blank, or streamed from shards"
    return [Caution("pictures", f"{text} ({why}): they were compared by ids and file hashes alone")]
