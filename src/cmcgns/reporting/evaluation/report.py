"""The report of an evaluation: its chapters in order, and its files (Markdown, CSV, one HTML page, pictures)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmcgns.common.safe_text import write_rows
from cmcgns.evaluation.figures import ReliabilityCurve
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.evaluation.results import ResultRow, slug
from cmcgns.reporting.evaluation import build, plots
from cmcgns.reporting.evaluation.names import (
    DESCRIPTIONS,
    TASKS,
    metric_name,
    of_the_labels,
    protocol_title,
    version_of,
    version_rank,
)
from cmcgns.reporting.evaluation.notices import leak_notice, read_records, statements
from cmcgns.reporting.evaluation.pages import write_pages
from cmcgns.reporting.evaluation.selection import Selection, sources
from cmcgns.reporting.evaluation.tables import Fold, Part, Picture, Section, Table, pictures_of

LEGACY_TEXT = (
    "The legacy protocols repeat what published programs did, slips included (see the protocols' notes), so that a "
    "figure can stand beside published ones. They are not the v1 figures' equals: never compare across the two."
)
_BLOCKS = 3  # protocols side by side in a table
_FOLD = 12  # longer tables are shown on demand
_KINDS = ("fractions", "metrics", "classes", "subgroups", "reliability")  # of pictures

Blocks = list[Table | Picture | Fold]


def write_evaluation(
    folder: Path,
    rows: Sequence[ResultRow],
    protocols: Mapping[str, EvaluationProtocol],
    failures: Sequence[tuple[str, str, str]] = (),
    skipped: Sequence[tuple[str, str]] = (),
    provenance: Mapping[str, Any] | None = None,
    reliability: Sequence[ReliabilityCurve] = (),
) -> Path:
    """Write `report.md`, `results.csv`, `report.html` and `pictures/`.

    Args:
        folder: to write into; pictures of an earlier report are removed. What an evaluation kept there says what
            the leakage guard could not see, and what a random ranking gets in retrieval.
        rows: figures of one encoder and any number of protocols.
        protocols: by the name in the rows; titles, published figures and notes come from them.
        failures: protocol, cell (empty: the whole protocol) and message.
        skipped: protocols (between commas) and the reason that they share.
        provenance: command, versions, hashes, … by name.
        reliability: curves for reliability diagrams, at most one a protocol.

    Returns:
        Path of `report.html`, one file that needs nothing else.
    """
    kept = read_records(folder, rows)
    selection = Selection(kept.without_cautions(rows), protocols, failures)
    sections = _sections(selection, reliability)
    content: dict[str, Any] = {
        "title": _title(selection),
        "lead": _lead(selection, failures, skipped),
        "leaks": leak_notice(selection, kept.cautions),
        "primary": build.primary_table(selection, kept) if rows else None,
        "statements": statements(selection),
        "sections": sections,
        "failures": list(failures),
        "skipped": list(skipped),
        "protocols": [_about(name, selection) for name in selection.protocols],
        "provenance": _flat(provenance or {}),
    }
    write_rows(folder / "results.csv", ResultRow, rows)
    figures = {picture.name: picture.figure for picture in pictures_of(sections)}
    return write_pages(folder, "report", content, figures, _KINDS)


def _title(selection: Selection) -> str:
    return f"Evaluation of {selection.encoder}" if selection.rows else "Evaluation: no results"


def _lead(selection: Selection, failures: Sequence[Any], skipped: Sequence[Any]) -> str:
    count = len(selection.protocols)
    done = f"{count} protocol{'s' if count != 1 else ''} with results"
    left = sum(len(names.split(", ")) for names, _ in skipped)
    parts = [f"{len(failures)} failed" if failures else "", f"{left} skipped" if skipped else ""]
    missing = ", ".join(part for part in parts if part)
    return f"Frozen encoder; {done}{f' ({missing})' if missing else ''}."


def _about(name: str, selection: Selection) -> dict[str, Any]:
    """What a reader can know of a protocol."""
    about = selection.about.get(name)
    title = protocol_title(name, selection.about)
    if about is None:
        return {"name": name, "title": title, "facts": {"definition": "not at hand"}, "notes": []}
    uncertain = ", ".join(f"{label} {value:g}" for label, value in about.uncertain.items())
    facts = {
        "data": " ".join(part for part in (about.dataset or "any", about.release) if part),
        "splits": f"rule {about.split.rule}, column {about.split.column}",
        "labels": ", ".join(about.labels) or "all that the data have",
        "uncertain labels": uncertain,
        "views": about.views,
        "image size": f"{about.image_size} px" if about.image_size else "the encoder's own",
        "fractions": f"of {about.fraction_of}" if about.learns else "",
        "definition": f"sha256 {about.sha256[:16]}",
    }
    return {"name": name, "title": title, "facts": facts, "notes": about.notes}


def _flat(provenance: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Names and values as text, nested ones joined."""
    flat: dict[str, str] = {}
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        else:
            flat[f"{prefix}{key}"] = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return flat


def _sections(selection: Selection, reliability: Sequence[ReliabilityCurve] = ()) -> list[Section]:
    """A chapter for each task, v1 before legacy, then calibration."""
    tasks = dict.fromkeys(selection.tasks[name] for name in selection.protocols)
    return [_task_section(selection, task) for task in tasks] + _calibration(selection, reliability)


def _task_section(selection: Selection, task: str) -> Section:
    names = [name for name in selection.protocols if selection.tasks[name] == task]
    section = Section(task.replace("_", "-"), TASKS.get(task, task), DESCRIPTIONS.get(task, ""))
    for version in sorted(dict.fromkeys(map(version_of, names)), key=version_rank):
        of = [name for name in names if version_of(name) == version]
        section.parts += _version_parts(selection, task, version, of)
    return section


def _version_parts(selection: Selection, task: str, version: str, names: list[str]) -> list[Part]:
    """One version of a task: what its protocols were measured on and the paper's tables, then each protocol."""
    legacy = version.startswith("legacy")
    alone = len(names) == 1 and not legacy  # then it needs no heading above its own
    stem = f"{task}-{version.replace('+', '-')}"
    title = "Legacy protocols" if legacy else f"Protocols {version}".strip()
    title, code = (protocol_title(names[0], selection.about), names[0]) if alone else (title, "")
    part = Part(title, code, LEGACY_TEXT if legacy else "", sources(selection, names))
    part.blocks = _shared_blocks(selection, stem, names, not alone)
    own = {name: _protocol_blocks(selection, name) for name in names}
    if alone:
        part.blocks += own.pop(names[0])
    return [part, *(Part(protocol_title(name, selection.about), name, blocks=of) for name, of in own.items() if of)]


def _shared_blocks(selection: Selection, stem: str, names: list[str], named: bool) -> Blocks:
    """The paper's tables of what learns, and its plots."""
    learning = [name for name in names if selection.learns(name)]
    groups = (learning[start : start + _BLOCKS] for start in range(0, len(learning), _BLOCKS))
    blocks: Blocks = [build.main_table(selection, of, named) for of in groups]
    if any(len(selection.fractions(name)) > 1 for name in learning):
        figure = plots.draw_fractions(selection, learning)
        caption = "Points are means over seeds, whiskers 95 % intervals over test patients."
        if any(selection.published(name) for name in learning):
            caption += " Gray: published figures, copied, without intervals, for orientation only."
        blocks.append(Picture(f"fractions-{stem}", figure, "Value against share of the labels", caption))
    has_masks_or_boxes = selection.tasks[names[0]] in ("detection", "segmentation")
    if has_masks_or_boxes and any(build.further_metrics(selection, name) for name in learning):
        figure = plots.draw_bars(selection, learning)
        caption = "At the largest share of the labels; whiskers are 95 % intervals over test patients."
        blocks.append(Picture(f"metrics-{stem}", figure, "Metrics of each protocol", caption))
    return blocks


def _protocol_blocks(selection: Selection, name: str) -> Blocks:
    """Classes of one protocol; further metrics and subgroups on demand."""
    primary, metrics = selection.primary(name), build.further_metrics(selection, name)
    blocks: Blocks = []
    further: list[Table | Picture] = []
    if not selection.learns(name):
        blocks.append(_short(build.metric_table(selection, name, [primary, *metrics], "All metrics")))
    elif metrics:
        further.append(build.metric_table(selection, name, metrics, "Over all classes"))
    if selection.labels(name, primary):
        figure = plots.draw_classes(selection, name)
        caption = f"{metric_name(primary)} of each class{_at(selection, name)}, with 95 % intervals."
        blocks.append(Picture(f"classes-{slug(name)}", figure, "Figures of each class with intervals", caption))
        blocks.append(_short(build.class_table(selection, name)))
    others = [metric for metric in selection.metrics(name) if metric != primary and selection.labels(name, metric)]
    if others:
        further.append(build.class_metrics_table(selection, name, others))
    if further:
        listed = ", ".join(map(metric_name, dict.fromkeys([*(metrics if selection.learns(name) else []), *others])))
        by_class = "" if selection.learns(name) else " by class"
        blocks.append(Fold(f"Further metrics{by_class}: {listed}", tuple(further)))
    return blocks + _subgroups(selection, name)


def _short(table: Table) -> Table | Fold:
    """A table as it is, a long one on demand."""
    return table if len(table.lines) <= _FOLD else Fold(table.title, (table,))


def _subgroups(selection: Selection, name: str) -> Blocks:
    primary = metric_name(selection.primary(name))
    inside: list[Table | Picture] = []
    if selection.groups_with_figures(name):
        figure = plots.draw_subgroups(selection, name)
        caption = (
            f"{primary} in subgroups of the test set{_at(selection, name)}, with 95 % intervals; the line is "
            "everyone's figure. Intervals of two subgroups that overlap or not are no test of their difference."
        )
        inside.append(Picture(f"subgroups-{slug(name)}", figure, "Forest plot of subgroups", caption))
    groups = selection.groups(name, selection.primary(name))
    if not groups:
        return []
    inside.append(build.subgroup_table(selection, name))
    kinds = ", ".join(dict.fromkeys(group.partition("=")[0] for group in groups))
    return [Fold(f"Subgroups: {kinds}", tuple(inside))]


def _calibration(selection: Selection, reliability: Sequence[ReliabilityCurve]) -> list[Section]:
    text = "Whether a predicted probability of 0.8 is right in 8 of 10 cases. Lower is better for both figures."
    section = Section("calibration", "Calibration", text)
    for name in selection.protocols:
        part = Part(protocol_title(name, selection.about), name)
        if metrics := build.calibration_metrics(selection, name):
            part.blocks.append(build.metric_table(selection, name, metrics, "Calibration"))
        for curve in (one for one in reliability if one.protocol == name):
            caption = "Observed share of positives against predicted probability; on the diagonal the two agree. "
            caption += "The area of a point grows with the number of predictions in its bin."
            figure = plots.draw_reliability(curve, selection.encoder)
            part.blocks.append(Picture(f"reliability-{slug(name)}", figure, "Reliability diagram", caption))
        section.parts += [part] if part.blocks else []
    return [section] if section.parts else []


def _at(selection: Selection, name: str) -> str:
    """` at 100 % of the labels`, the largest share; empty for what learns nothing."""
    return f" at {of_the_labels(selection.fractions(name)[-1])}" if selection.learns(name) else ""
