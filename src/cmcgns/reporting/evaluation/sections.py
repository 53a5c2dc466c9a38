"""What is on the page, in which order."""

from __future__ import annotations

from collections.abc import Sequence

from cmcgns.evaluation.results import ReliabilityCurve
from cmcgns.reporting.evaluation import build, forest, plots
from cmcgns.reporting.evaluation.names import (
    DESCRIPTIONS,
    TASKS,
    ProtocolName,
    fraction_name,
    metric_name,
    protocol_title,
    version_rank,
)
from cmcgns.reporting.evaluation.selection import Selection, sources
from cmcgns.reporting.evaluation.tables import Fold, Part, Picture, Section, Table, chunks

LEGACY_TEXT = (
    "The legacy protocols repeat what published programs did, slips included (see the protocols' notes), so that a "
    "figure can stand beside published ones. They are not the v1 figures' equals: never compare across the two."
)
_BLOCKS = 3  # protocols side by side in a table
_FOLD = 12  # longer tables are shown on demand


def make_sections(selection: Selection, reliability: Sequence[ReliabilityCurve] = ()) -> list[Section]:
    """A chapter for each task, v1 before legacy, then calibration."""
    sections = [_task_section(selection, task, names) for task, names in _by_task(selection).items()]
    calibration = _calibration(selection, reliability)
    return sections + ([calibration] if calibration.parts else [])


def _by_task(selection: Selection) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in selection.protocols:
        grouped.setdefault(selection.tasks[name], []).append(name)
    return grouped


def _task_section(selection: Selection, task: str, names: list[str]) -> Section:
    section = Section(task.replace("_", "-"), TASKS.get(task, task), DESCRIPTIONS.get(task, ""))
    versions = dict.fromkeys(ProtocolName.parse(name).version for name in names)
    for version in sorted(versions, key=version_rank):
        of = [name for name in names if ProtocolName.parse(name).version == version]
        section.parts += _version_parts(selection, task, version, of)
    return section


def _version_parts(selection: Selection, task: str, version: str, names: list[str]) -> list[Part]:
    """One version of a task: what its protocols were measured on and the paper's tables, then each protocol."""
    legacy = version.startswith("legacy")
    alone = len(names) == 1 and not legacy  # then it needs no heading above its own
    slug = f"{task}-{version.replace('+', '-')}"
    if alone:
        part = Part(protocol_title(names[0], selection.about), names[0])
    else:
        part = Part(f"{'Legacy protocols' if legacy else 'Protocols'} {'' if legacy else version}".strip())
    part.text, part.sources = LEGACY_TEXT if legacy else "", sources(selection, names)
    part.blocks = _shared_blocks(selection, slug, names, not alone)
    own = [
        Part(protocol_title(name, selection.about), name, blocks=_protocol_blocks(selection, name)) for name in names
    ]
    if alone:
        part.blocks += own.pop().blocks
    return [part, *(one for one in own if one.blocks)]


def _shared_blocks(selection: Selection, slug: str, names: list[str], named: bool) -> list[Table | Picture | Fold]:
    """The paper's tables of what learns, and its plots."""
    learning = [name for name in names if selection.learns(name)]
    tables = (
        build.main_table(selection, group, "By share of the labels", named) for group in chunks(learning, _BLOCKS)
    )
    blocks: list[Table | Picture | Fold] = [*tables]
    if any(len(selection.fractions(name)) > 1 for name in learning):
        figure = plots.draw_fractions(selection, learning)
        caption = "Points are means over seeds, whiskers 95 % intervals over test patients."
        if any(ProtocolName.parse(name).is_legacy and _anchors(selection, name) for name in learning):
            caption += " Gray: published figures, copied, without intervals, for orientation only."
        blocks.append(Picture(f"fractions-{slug}", figure, "Value against share of the labels", caption))
    has_masks_or_boxes = selection.tasks[names[0]] in ("detection", "segmentation")
    if has_masks_or_boxes and any(build.further_metrics(selection, name) for name in learning):
        figure = plots.draw_bars(selection, learning)
        caption = "At the largest share of the labels; whiskers are 95 % intervals over test patients."
        blocks.append(Picture(f"metrics-{slug}", figure, "Metrics of each protocol", caption))
    return blocks


def _anchors(selection: Selection, name: str) -> bool:
    return name in selection.about and bool(selection.about[name].anchors)


def _protocol_blocks(selection: Selection, name: str) -> list[Table | Picture | Fold]:
    """Classes of one protocol; further metrics and subgroups on demand."""
    primary, metrics = selection.primary(name), build.further_metrics(selection, name)
    blocks: list[Table | Picture | Fold] = []
    further: list[Table | Picture] = []
    if not selection.learns(name):
        blocks += _short(build.metric_table(selection, name, [primary, *metrics], "All metrics"))
    elif metrics:
        further.append(build.metric_table(selection, name, metrics, "Over all classes"))
    if selection.labels(name, primary):
        figure = forest.draw_classes(selection, name)
        caption = f"{metric_name(primary)} of each class{_at(selection, name)}, with 95 % intervals."
        blocks.append(Picture(f"classes-{_slug(name)}", figure, "Figures of each class with intervals", caption))
        blocks += _short(build.class_table(selection, name))
    others = [metric for metric in selection.metrics(name) if metric != primary and selection.labels(name, metric)]
    if others:
        further.append(build.class_metrics_table(selection, name, others))
    if further:
        listed = ", ".join(map(metric_name, dict.fromkeys([*(metrics if selection.learns(name) else []), *others])))
        by_class = "" if selection.learns(name) else " by class"
        blocks.append(Fold(f"Further metrics{by_class}: {listed}", tuple(further)))
    return blocks + _subgroups(selection, name)


def _short(table: Table) -> list[Table | Picture | Fold]:
    """A table as it is, a long one on demand."""
    return [table if len(table.lines) <= _FOLD else Fold(table.title, (table,))]


def _subgroups(selection: Selection, name: str) -> list[Table | Picture | Fold]:
    primary = metric_name(selection.primary(name))
    inside: list[Table | Picture] = []
    if selection.groups_with_figures(name):
        figure = forest.draw_subgroups(selection, name)
        caption = (
            f"{primary} in subgroups of the test set{_at(selection, name)}, with 95 % intervals; the line is "
            "everyone's figure. Intervals of two subgroups that overlap or not are no test of their difference."
        )
        inside.append(Picture(f"subgroups-{_slug(name)}", figure, "Forest plot of subgroups", caption))
    groups = selection.groups(name, selection.primary(name))
    if not groups:
        return []
    inside.append(build.subgroup_table(selection, name))
    kinds = ", ".join(dict.fromkeys(group.partition("=")[0] for group in groups))
    return [Fold(f"Subgroups: {kinds}", tuple(inside))]


def _calibration(selection: Selection, reliability: Sequence[ReliabilityCurve]) -> Section:
    section = Section(
        "calibration",
        "Calibration",
        "Whether a predicted probability of 0.8 is right in 8 of 10 cases. Lower is better for both figures.",
    )
    for name in selection.protocols:
        part = Part(protocol_title(name, selection.about), name)
        if metrics := build.calibration_metrics(selection, name):
            part.blocks.append(build.metric_table(selection, name, metrics, "Calibration"))
        if curves := [curve for curve in reliability if curve.protocol == name]:
            caption = "Observed share of positives against predicted probability; on the diagonal the two agree. "
            caption += "The area of a point grows with the number of predictions in its bin."
            figure = plots.draw_reliability(curves)
            part.blocks.append(Picture(f"reliability-{_slug(name)}", figure, "Reliability diagram", caption))
        section.parts += [part] if part.blocks else []
    return section


def _at(selection: Selection, name: str) -> str:
    fraction = selection.fractions(name)[-1]
    return "" if fraction is None else f" at {fraction_name(fraction)} of the labels"


def _slug(name: str) -> str:
    """A file name of a protocol's name."""
    return "".join(sign if sign.isalnum() or sign in "-." else "-" for sign in name)
