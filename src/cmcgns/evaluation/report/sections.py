"""What is on the page, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from cmcgns.evaluation.report import build, forest, plots
from cmcgns.evaluation.report.names import (
    DESCRIPTIONS,
    TASKS,
    ProtocolName,
    fraction_name,
    metric_name,
    protocol_title,
    version_rank,
)
from cmcgns.evaluation.report.reliability import ReliabilityCurve
from cmcgns.evaluation.report.selection import Selection
from cmcgns.evaluation.report.tables import Table, chunks

LEGACY_TEXT = (
    "The legacy protocols repeat what published programs did, slips included (see the protocols' notes), so that a "
    "figure can stand beside published ones. They are not the v1 figures' equals: never compare across the two."
)
_BLOCKS = 3  # protocols side by side in a table


@dataclass(frozen=True)
class Picture:
    """A plot with its words."""

    name: str
    figure: Figure
    alt: str
    caption: str

    @property
    def width(self) -> int:
        """On the page, in pixels."""
        return round(self.figure.get_figwidth() * 98)


@dataclass
class Part:
    """Tables and pictures under one heading; `code` is a protocol's name where it is about one."""

    title: str
    code: str = ""
    text: str = ""
    blocks: list[Table | Picture] = field(default_factory=list)


@dataclass
class Section:
    """A chapter of the page."""

    anchor: str
    title: str
    text: str = ""
    parts: list[Part] = field(default_factory=list)


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
    """The paper's tables of one version of a task, then what else there is of each protocol."""
    legacy = version.startswith("legacy")
    slug = f"{task}-{version.replace('+', '-')}"
    part = Part(f"{'Legacy protocols' if legacy else 'Protocols'} {'' if legacy else version}".strip())
    part.text = LEGACY_TEXT if legacy else ""
    learning = [name for name in names if selection.learns(name)]
    for group in chunks(learning, _BLOCKS):
        part.blocks.append(build.main_table(selection, group, "By share of the labels"))
    if any(len(selection.fractions(name)) > 1 for name in learning):
        figure = plots.draw_fractions(selection, learning)
        caption = "Points are means over seeds, whiskers 95 % intervals over test patients."
        if any(ProtocolName.parse(name).is_legacy and _anchors(selection, name) for name in learning):
            caption += " Gray: published figures, copied, without intervals, for orientation only."
        part.blocks.append(Picture(f"fractions-{slug}", figure, "Value against share of the labels", caption))
    if task in ("detection", "segmentation") and any(len(build.further_metrics(selection, n)) for n in learning):
        figure = plots.draw_bars(selection, learning)
        caption = "At the largest share of the labels; whiskers are 95 % intervals over test patients."
        part.blocks.append(Picture(f"metrics-{slug}", figure, "Metrics of each protocol", caption))
    rest = [_protocol_part(selection, name) for name in names]
    return [one for one in (part, *rest) if one.blocks]


def _anchors(selection: Selection, name: str) -> bool:
    return name in selection.about and bool(selection.about[name].anchors)


def _protocol_part(selection: Selection, name: str) -> Part:
    """Further metrics, classes and subgroups of one protocol."""
    part = Part(protocol_title(name, selection.about), name)
    metrics = build.further_metrics(selection, name)
    if not selection.learns(name):
        shown = [selection.primary(name), *metrics]
        part.blocks.append(build.metric_table(selection, name, shown, "All metrics"))
    elif metrics:
        part.blocks.append(build.metric_table(selection, name, metrics, "Further metrics"))
    primary, slug = selection.primary(name), _slug(name)
    at = _at(selection, name)
    if selection.labels(name, primary):
        figure = forest.draw_classes(selection, name)
        caption = f"{metric_name(primary)} of each class{at}, with 95 % intervals."
        part.blocks.append(Picture(f"classes-{slug}", figure, "Figures of each class with intervals", caption))
        part.blocks.append(build.class_table(selection, name))
    others = [metric for metric in selection.metrics(name) if metric != primary and selection.labels(name, metric)]
    if others:
        part.blocks.append(build.class_metrics_table(selection, name, others))
    if selection.groups_with_figures(name):
        figure = forest.draw_subgroups(selection, name)
        caption = (
            f"{metric_name(primary)} in subgroups of the test set{at}, with 95 % intervals; the line is everyone's "
            "figure. Intervals of two subgroups that overlap or not are no test of their difference."
        )
        part.blocks.append(Picture(f"subgroups-{slug}", figure, "Forest plot of subgroups", caption))
    if selection.groups(name, primary):
        part.blocks.append(build.subgroup_table(selection, name))
    return part


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


def pictures_of(sections: Iterable[Section]) -> list[Picture]:
    """All pictures, in the order of the page."""
    blocks = (block for section in sections for part in section.parts for block in part.blocks)
    return [block for block in blocks if isinstance(block, Picture)]
