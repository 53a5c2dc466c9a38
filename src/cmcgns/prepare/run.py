"""`cmcgns prepare`: a dataset's own folder in, a manifest with resized images out."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from cmcgns.common.claim import claimed
from cmcgns.common.errors import UserError, first_of
from cmcgns.common.files import expanded, write_json
from cmcgns.common.remote import not_here
from cmcgns.common.safe_text import terminal_text
from cmcgns.common.stored import naming_damage, read_json
from cmcgns.data.manifest import conform, write_manifest
from cmcgns.data.reports.section_rules import load_rules
from cmcgns.data.shards.write import write_shards
from cmcgns.prepare.image import ImageResult, ImageSettings, ImageTask
from cmcgns.prepare.report import describe_identifiers, summarise, write_prepare_page
from cmcgns.prepare.rows import manifest_rows
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions, SourceTable
from cmcgns.prepare.work import Engine, prepare_images

logger = logging.getLogger(__name__)

SHARDS = "shards"
_SHOWN_REASONS = 5
_WRITE_AGAIN = "delete it, and `cmcgns prepare` writes it again"
_NO_EFFECT = {  # option -> as the command line spells it, and why a dataset may not heed it
    "split": ("--split legacy", "no published program's split of it is known, or its splits are your own"),
    "seed": ("--seed", "none of its splits is drawn here"),
    "rules": ("--rules", "it has no reports"),
    "columns": ("--column", "it knows its own columns, those of `prepare table` are yours"),
    "dataset": ("--dataset", "it knows its own name, that of `prepare table` is yours"),
    "images": ("--images", "it knows where its images are, those of `prepare table` are yours"),
    "form": ("--separator or --encoding", "it knows its own tables, that of `prepare table` is yours"),
}


@dataclass(frozen=True)
class PrepareOptions(SourceOptions):
    """What the command line asks for.

    Attributes:
        size: long side of the stored images in pixels.
        lossless: PNG instead of JPEG.
        workers: processes.
        engine: where the work is done.
        shards: also write tar shards of so many images each; 0 writes none.
    """

    size: int = 512
    lossless: bool = False
    workers: int = 1
    engine: Engine = "pool"
    shards: int = 0


def prepare(name: str, root: Path, out: Path, options: PrepareOptions, console: Console | None = None) -> Path:
    """Read a dataset, prepare its images, write manifest and report. A second call does only what is missing.

    Args:
        name: of the source, e.g. `mimic-cxr`.
        root: the dataset's folder as downloaded.
        out: folder for `manifest.parquet`, `images/`, `masks/`, `report.html` and `report.json`.
        options: size, workers and so on.
        console: where progress is shown.

    Returns:
        Path of the manifest.

    Raises:
        UserError: unknown source, a layout that is not the dataset's, or no row left.
    """
    source = get_source(name)
    console = console or Console(stderr=True, highlight=False)
    if options.images:
        options = replace(options, images=expanded(options.images))  # no shell does it behind --images=
    _check_call(name, root, out, options)
    with claimed(out, "prepare"):
        table = source.read(root, options)
        console.print(terminal_text(f"{source.title}: {len(table.frame):,} images in {root}"))
        folder = options.images or (root if root.is_dir() else root.parent)
        settings = ImageSettings(str(folder.resolve()), str(out.resolve()), options.size, options.lossless)
        masks = table.frame.get("mask", [""] * len(table.frame))
        tasks = [ImageTask(*pair) for pair in zip(table.frame["source"], masks, strict=True)]
        results = prepare_images(tasks, settings, options.engine, options.workers, console)
        frame = _frame(name, root, table, results, options)
        manifest = write_manifest(frame, out / "manifest.parquet")
        summary = summarise(source, frame, table, _about(root, options))
        write_json(out / "report.json", summary)
        write_prepare_page(out / "report.html", summary, frame, out)
        shards = write_shards(out, out / SHARDS, options.shards) if options.shards else None
        _print_outcome(summary, table.notes, shards, out, console)
        console.print(
            terminal_text(
                f"{len(frame):,} images in {manifest}, {len(table.left_out):,} left out; see {out / 'report.html'}"
            )
        )
        return manifest


def _frame(
    name: str, root: Path, table: SourceTable, results: Mapping[str, ImageResult], options: PrepareOptions
) -> pd.DataFrame:
    """The manifest; rows without an image go to `table.left_out`."""
    frame = manifest_rows(table, results)
    if len(frame) == 0:
        first = {entry["reason"]: entry["where"] for entry in reversed(table.left_out)}
        reasons = "; ".join(f"{first[reason]}: {reason}" for reason in sorted(first)[:3])
        raise UserError(f"{root}: no image is left for a manifest ({reasons or 'the tables name none'})")
    if name != "table" and "split_rule" not in frame:  # a table's splits are its owner's
        frame["split_rule"] = options.split
    return conform(frame, "manifest.parquet")


def _print_outcome(
    summary: Mapping[str, Any], notes: Sequence[str], shards: Path | None, out: Path, console: Console
) -> None:
    for note in notes:
        console.print(terminal_text(f"note: {note}"))
    for line in describe_identifiers(summary["identifiers"]):
        console.print(terminal_text(f"warning: {line} (all are in report.json)"))
    if shards is not None:
        console.print(f"shards: {shards}")
    elif (out / SHARDS).is_dir():
        console.print(
            f"{out / SHARDS} is of an earlier call and was left as it is: give --shards again, or delete it"
        )
    reasons = summary["reasons"]
    for line in first_of(list(reasons), _SHOWN_REASONS, lambda reason: f"left out: {reasons[reason]:,} x {reason}"):
        console.print(terminal_text(line))


def read_column_names(pairs: Sequence[str]) -> dict[str, str]:
    """Names of columns as the command line takes them, `OURS=THEIRS` each.

    Raises:
        UserError: a pair without one of its halves.
    """
    names: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not (ours and theirs):
            raise UserError(f"--column {pair}: OURS=THEIRS is expected, for example image_path=Path")
        if ours in names:
            raise UserError(f"--column {ours} is given twice: {names[ours]} and {theirs}")
        names[ours] = theirs
    return names


def _check_call(name: str, root: Path, out: Path, options: PrepareOptions) -> None:
    if not root.exists():
        raise UserError(f"--root {root}: no such folder{not_here(root)}")
    if options.size < 32:
        raise UserError(f"--size {options.size} is too small for a radiograph; take 32 or more")
    if options.shards < 0:
        raise UserError(f"--shards {options.shards}: a number of images a shard is expected, e.g. 1000")
    _refuse_without_effect(name, options)
    if options.dataset and not re.fullmatch(r"[a-z0-9][a-z0-9-]*", options.dataset):
        raise UserError(f"--dataset {options.dataset}: lower-case letters, digits and hyphens are expected")
    if root.is_file() and name != "table":
        raise UserError(f"--root {root} is a file; {name} needs the folder that its files were unpacked in")
    for place in filter(None, (root, options.images)):
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(place)):
            raise UserError(f"--out {out} lies in the dataset's own folder {place}; choose another one")
    load_rules(options.rules)
    earlier = name
    if (out / "report.json").is_file():
        with naming_damage(out / "report.json", _WRITE_AGAIN):
            earlier = read_report(out)["source"]["name"]
    if earlier != name:
        raise UserError(f"--out {out} holds {earlier} already, which {name} would replace; choose another folder")


def _refuse_without_effect(name: str, options: PrepareOptions) -> None:
    """An option that the dataset's reader does not heed would be taken for one that it does."""
    heeded = set(get_source(name).uses)
    if options.split == "v1" and "seed-v1" in heeded:
        heeded.add("seed")
    for option in fields(SourceOptions):
        value, usual = getattr(options, option.name), getattr(SourceOptions(), option.name)
        if value != usual and option.name not in heeded:
            flag, reason = _NO_EFFECT[option.name]
            raise UserError(f"{flag} has no effect on {name}: {reason}; leave it out")


def _about(root: Path, options: PrepareOptions) -> dict[str, Any]:
    return {
        "root": root.name, "size": options.size, "lossless": options.lossless,
        "split": options.split, "seed": options.seed,
    }  # fmt: skip


def read_report(out: Path) -> dict[str, Any]:
    """The summary that `prepare` wrote.

    Raises:
        UserError: there is none.
    """
    file = out / "report.json"
    if not file.is_file():
        raise UserError(f"{file}: no such report; `cmcgns prepare` writes one")
    return read_json(file, _WRITE_AGAIN)
