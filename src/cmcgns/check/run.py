"""Run the checks over one or more manifests."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmcgns.check import tables, text, boxes, image_rules, near  # isort: skip  # noqa: F401

from cmcgns.check.image_facts import measure_images
from cmcgns.check.rule import RULES, SEVERITIES, Finding, Loaded, Severity
from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest


@dataclass(frozen=True)
class Summary:
    """What was checked: the file, its number of rows, and rows by data set and by split."""

    file: Path
    rows: int
    datasets: dict[str, int]
    splits: dict[str, int]


@dataclass(frozen=True)
class Report:
    """Outcome of a check.

    Attributes:
        manifests: what was checked.
        findings: in the order of the rules.
        ran: names of the rules that ran.
    """

    manifests: tuple[Summary, ...]
    findings: tuple[Finding, ...]
    ran: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 if there is an error, else 0."""
        return int(any(finding.severity == "error" for finding in self.findings))

    @property
    def severities(self) -> dict[Severity, int]:
        """Number of findings by severity."""
        counts = Counter(finding.severity for finding in self.findings)
        return {severity: counts[severity] for severity in SEVERITIES}

    @property
    def by_rule(self) -> dict[str, list[Finding]]:
        """Findings by rule, rules with errors first; rules without a finding are not there."""
        grouped: dict[str, list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity)):
            grouped.setdefault(finding.rule, []).append(finding)
        return grouped


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
        raise UserError(f"unknown rule {unknown[0]!r}; the rules are {', '.join(RULES)}")
    for folder in folders:
        if (folder / "shards.json").is_file():
            raise UserError(f"{folder} holds shards: check the prepared folder that they were written from")
    files = [folder / "manifest.parquet" if folder.is_dir() else folder for folder in folders]
    if not files:
        raise UserError("nothing to check; name a folder with a manifest.parquet")
    if repeated := [file for file in files if [other.resolve() for other in files].count(file.resolve()) > 1]:
        raise UserError(f"{repeated[0]} is named twice; its rows would all be duplicates")
    manifests = [Loaded(file, read_manifest(file).reset_index(drop=True)) for file in files]
    chosen = [rule for rule in RULES.values() if rule.name not in skip and (open_images or not rule.opens_images)]
    if any(rule.opens_images for rule in chosen):
        manifests = [_with_images(loaded, progress) for loaded in manifests]
    findings = tuple(finding for rule in chosen for finding in rule.check(manifests))
    return Report(tuple(map(_summarise, manifests)), findings, tuple(rule.name for rule in chosen))


def _with_images(loaded: Loaded, progress: Callable[[int], None] | None) -> Loaded:
    paths = loaded.frame["image_path"].tolist()
    return replace(loaded, images=measure_images(loaded.file.parent, paths, progress))


def _summarise(loaded: Loaded) -> Summary:
    counts = {name: loaded.frame[name].value_counts().sort_index() for name in ("dataset", "split")}
    datasets, splits = (
        {str(key): int(value) for key, value in counts[name].items()} for name in ("dataset", "split")
    )
    return Summary(loaded.file, len(loaded.frame), datasets, splits)
