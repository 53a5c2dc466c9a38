"""`cmcgns check`: run the rules over one or more manifests, write what they found and cleaned copies."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cmcgns.check import tables, text, boxes, images  # isort: skip  # noqa: F401  # in the order of their rules

from cmcgns.check.boxes import box_table, clip_boxes
from cmcgns.check.image_facts import measure_images
from cmcgns.check.report import Report, Summary, print_report, report_json, write_page
from cmcgns.check.rule import RULES, Loaded
from cmcgns.common.claim import claimed
from cmcgns.common.errors import UserError, did_you_mean, shortened
from cmcgns.common.files import write_json
from cmcgns.common.safe_text import terminal_text
from cmcgns.data.manifest import read_manifest, write_manifest

_CLEANED = "manifest.cleaned.parquet"


def check_folders(
    folders: Sequence[Path], open_images: bool, skip: Sequence[str], out: Path | None, clean: bool
) -> int:
    """Check, print, write.

    Args:
        folders: prepared folders or manifests.
        open_images: also open the images.
        skip: rules that are not run.
        out: folder for `check.html` and `check.json`; None writes neither.
        clean: write cleaned manifests.

    Returns:
        The exit status: 1 if there is an error.

    Raises:
        UserError: no manifest, or an unknown rule.
    """
    console = Console()

    def say(message: str, style: str | None = None) -> None:
        console.print(terminal_text(message), style=style, highlight=False)

    with nullcontext() if out is None else claimed(out, "check"):
        columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not open_images) as progress:
            bar = progress.add_task("images", total=None)
            report = run_checks(folders, open_images, skip, lambda count: progress.advance(bar, count))
        print_report(report, console)
        if out is not None:
            write_json(out / "check.json", report_json(report))
            write_page(report, out / "check.html")
            say(f"written: {out / 'check.html'}, {out / 'check.json'}")
        for folder in folders if clean else []:
            place = _manifest_file(folder).parent
            is_ours = out is not None and place.resolve() == out.resolve()
            with nullcontext() if is_ours else claimed(place, "check --fix", option=""):
                cleaned = fix(folder, report)
            say(
                f"{cleaned.path}: {cleaned.rows:,} rows; {sum(cleaned.left_out.values()):,} left out, "
                f"boxes of {cleaned.clipped:,} rows clipped (row by row in {cleaned.account})"
            )
            if cleaned.rows == 0:
                say(f"{cleaned.path} has no row left: these folders hold the same studies", style="bold red")
        return report.exit_code


def print_rules() -> None:
    """Print every rule with its description."""
    table = Table("rule", "what it looks for")
    for name, rule in RULES.items():
        table.add_row(name, rule.description)
    Console().print(table)


def run_checks(
    folders: Sequence[Path],
    open_images: bool = True,
    skip: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Check manifests, each for itself and all together.

    Args:
        folders: folders with a `manifest.parquet`, or manifests.
        open_images: also open every stored image and mask; without it a million rows take seconds.
        skip: names of rules that are not run.
        progress: called with the number of images measured since the last call.

    Raises:
        UserError: no folder, a manifest that cannot be read, one named twice, or an unknown rule.
    """
    if unknown := [name for name in skip if name not in RULES]:
        raise UserError(
            f"--skip: no rule is called {shortened(unknown[0])!r}.{did_you_mean(unknown[0][:100], RULES)} "
            "`cmcgns check --list-rules` shows all"
        )
    for folder in folders:
        if (folder / "shards.json").is_file():
            raise UserError(f"{folder} holds shards: check the prepared folder that they were written from")
    files = [_manifest_file(folder) for folder in folders]
    if not files:
        raise UserError("nothing to check; name a folder with a manifest.parquet")
    if repeated := [file for file in files if [other.resolve() for other in files].count(file.resolve()) > 1]:
        raise UserError(f"{repeated[0]} is named twice; its rows would all be duplicates")
    frames = [read_manifest(file).reset_index(drop=True) for file in files]
    manifests = [Loaded(file, frame, box_table(frame)) for file, frame in zip(files, frames, strict=True)]
    chosen = [rule for rule in RULES.values() if rule.name not in skip and (open_images or not rule.opens_images)]
    if any(rule.opens_images for rule in chosen):
        manifests = [
            replace(each, images=measure_images(each.file.parent, each.frame["image_path"].tolist(), progress))
            for each in manifests
        ]
    findings = tuple(finding for rule in chosen for finding in rule.findings(manifests))
    return Report(tuple(map(_summarise, manifests)), findings, tuple(rule.name for rule in chosen))


def _manifest_file(folder: Path) -> Path:
    return folder / "manifest.parquet" if folder.is_dir() else folder


def _summarise(loaded: Loaded) -> Summary:
    datasets, splits = (
        {str(key): int(count) for key, count in loaded.frame[column].value_counts().sort_index().items()}
        for column in ("dataset", "split")
    )
    return Summary(loaded.file, len(loaded.frame), datasets, splits)


@dataclass(frozen=True)
class Cleaned:
    """A cleaned copy.

    Attributes:
        path: the cleaned manifest.
        account: JSON file that says, row by row, what was left out or changed and why.
        rows: of the cleaned manifest.
        left_out: rows left out, by the first rule that was against them.
        clipped: rows whose boxes were clipped.
    """

    path: Path
    account: Path
    rows: int
    left_out: dict[str, int]
    clipped: int


def fix(folder: Path, report: Report) -> Cleaned:
    """Write a manifest without the rows that findings of this report are against, beside the original, which stays.

    Rows with errors are left out. Of duplicates the first row stays; of a patient or picture in several splits the
    rows of test stay, else those of val. Boxes that stick out of the image are clipped.

    Args:
        folder: one of the folders (or manifests) that were checked.
        report: of a check that has seen this manifest as it is now.

    Raises:
        UserError: the report is about other manifests or another state of this one, or this one is a cleaned one.
    """
    file = _manifest_file(folder)
    summary = next((item for item in report.manifests if item.file.resolve() == file.resolve()), None)
    if summary is None:
        checked = ", ".join(str(item.file) for item in report.manifests)
        raise UserError(f"{file} was not checked (checked: {checked}); run the check on it first")
    if file.name == _CLEANED:
        raise UserError(
            f"{_CLEANED!r} is no name for a cleaned manifest beside {file}; the original is never touched"
        )
    frame = read_manifest(file).reset_index(drop=True)
    if len(frame) != summary.rows:
        raise UserError(f"{file} has {len(frame):,} rows, {summary.rows:,} when it was checked; check it again")
    reasons = _reasons(report, summary.file)
    kept = np.ones(len(frame), dtype=bool)
    kept[list(reasons)] = False
    clipped = {row: count for row, count in clip_boxes(frame).items() if kept[row]}
    out = file.with_name(_CLEANED)
    account = out.with_suffix(".json")
    write_manifest(frame[kept], out)
    paths = frame["image_path"].tolist()
    content = {
        "made_from": file.name,
        "rows_count_from": 1,
        "rows": len(frame),
        "rows_kept": int(kept.sum()),
        "left_out": [{"row": row + 1, "image_path": paths[row], "reasons": why} for row, why in reasons.items()],
        "boxes_clipped": [{"row": row + 1, "image_path": paths[row], "boxes": n} for row, n in clipped.items()],
    }
    write_json(account, content)
    left_out = Counter(texts[0].split(":")[0] for texts in reasons.values())
    return Cleaned(out, account, int(kept.sum()), left_out, len(clipped))


def _reasons(report: Report, file: Path) -> dict[int, list[str]]:
    """Row -> "rule: message" of every finding that leaves it out."""
    reasons: dict[int, list[str]] = {}
    for finding in report.findings:
        if finding.manifest == file:
            for row in finding.drop:
                reasons.setdefault(row, []).append(f"{finding.rule}: {finding.message}")
    return dict(sorted(reasons.items()))
