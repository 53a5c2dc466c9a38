"""One picture of the whole run, fit for a README."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmcgns.reporting.run_page.attention import SentenceMaps, enlarge
from cmcgns.reporting.run_page.curves import PANELS, Panel, bank_start, draw_panel, stage_change
from cmcgns.reporting.run_page.examples import Rebuilt
from cmcgns.reporting.run_page.material import Material
from cmcgns.reporting.run_page.tables import MEASURES
from cmcgns.reporting.style import (
    BLUE,
    FAINT,
    INK,
    OVERLAY,
    SMALL,
    TEXT,
    TITLE,
    cover,
    draw_boxes,
    new_figure,
    show_map,
    show_radiograph,
    style_plot,
    wrap,
)

# Shares between 0 and 1; a contrast-to-noise ratio has no place on their axis.
_BARS = tuple(
    measure
    for measure in MEASURES
    if measure.key in ("linear_auroc", "zero_shot_auroc", "report_to_image_r10", "grounding_pointing")
)
_LEFT, _RIGHT = 0.02, 0.655  # of the pictures


def draw_overview(
    material: Material, maps: list[SentenceMaps], rebuilt: list[Rebuilt], results: dict[str, Any]
) -> Figure:
    """1600 × 1000 pixels: sentences on radiographs, rebuilt images, curves, results.

    Without reconstructions there are twice as many radiographs; without maps these are plain.
    """
    figure = new_figure(16, 10)
    figure.set_dpi(100)
    title = "Radiographs and reports, pretrained together"
    figure.text(_LEFT, 0.949, title, fontsize=22, color=INK, fontweight="bold")
    subtitle = f"run “{material.model.recipe.name}”, {len(material)} studies of the split “{material.split}”"
    figure.text(_LEFT, 0.917, subtitle, fontsize=TEXT + 1.5, color=FAINT)
    _sentences(figure, material, maps, rows=1 if rebuilt else 2)
    if rebuilt:
        _rebuilt(figure, material, rebuilt)
    right = figure.add_gridspec(3, 1, left=0.715, right=0.985, top=0.915, bottom=0.065, hspace=0.5)
    figure.text(0.715, 0.972, _legend(material), fontsize=SMALL + 0.5, color=FAINT)
    for place, panel in enumerate(_panels(material)):
        draw_panel(figure.add_subplot(right[place]), panel, material.records)
    if results.get("pretrained"):
        _bars(figure.add_subplot(right[2]), results)
    return figure


def _sentences(figure: Figure, material: Material, maps: list[SentenceMaps], rows: int) -> None:
    grid = figure.add_gridspec(
        rows, 3, left=_LEFT, right=_RIGHT, top=0.797, bottom=0.462 if rows == 1 else 0.03, wspace=0.04, hspace=0.2
    )
    if not maps:
        for row in range(min(3 * rows, len(material))):
            show_radiograph(figure.add_subplot(grid[divmod(row, 3)]), material.fine_pixels(row))
        return
    _heading(figure, 0.867, "Where sentences look", "orange: attention weight, stretched · blue box: the finding")
    for number, example in enumerate(maps[: 3 * rows]):
        axes = figure.add_subplot(grid[divmod(number, 3)])
        show_radiograph(axes, material.fine_pixels(example.statement.row))
        values = example.weights
        show_map(axes, enlarge(values, 256), cmap=OVERLAY, vmin=float(values.min()), vmax=float(values.max()))
        draw_boxes(axes, example.statement.boxes, width=2.4)
        sentence = material.sentences[example.statement.row][example.statement.sentence]
        axes.set_title(wrap(f"“{sentence}”", 42, 2), fontsize=TEXT + 0.5, color=INK, loc="left", pad=7)


def _rebuilt(figure: Figure, material: Material, rebuilt: list[Rebuilt]) -> None:
    help_ = "with the report's help" if material.model.recipe.objective.reconstruction == "cross_modal" else ""
    _heading(figure, 0.418, "Hidden regions, rebuilt", help_)
    halves = figure.add_gridspec(1, 2, left=_LEFT, right=_RIGHT, top=0.385, bottom=0.02, wspace=0.045)
    for half in range(2):
        grid = halves[half].subgridspec(2, 3, wspace=0.04, hspace=0.05)
        for line, example in enumerate(rebuilt[half:4:2]):
            images = (example.original, example.original, example.right)
            for column, (image, head) in enumerate(zip(images, ("original", "hidden", "rebuilt"), strict=True)):
                axes = figure.add_subplot(grid[line, column])
                show_radiograph(axes, image, head if line == 0 else "")
                if column == 1:
                    cover(axes, example.hidden)
                draw_boxes(axes, material.boxes[example.row], width=1.3)


def _legend(material: Material) -> str:
    parts = ["faint: training"]
    if stage_change(material.records) is not None:
        parts.append("dashed: Stage II")
    if bank_start(material.records) is not None:
        parts.append("dotted: bank starts")
    return " · ".join(parts)


def _panels(material: Material) -> list[Panel]:
    """The two most telling curves that the run has."""
    logged = {key for record in material.records for key in record}
    wanted = ("Global alignment", "Retrieval, validation", "Total loss")
    by_title = {panel.title: panel for panel in PANELS if panel.curves[0][0] in logged}
    return [by_title[title] for title in wanted if title in by_title][:2]


def _heading(figure: Figure, height: float, title: str, note: str) -> None:
    drawn = figure.text(_LEFT, height, title, fontsize=TITLE + 1.5, color=INK, fontweight="bold")
    figure.canvas.draw()  # so that the width is known
    end = drawn.get_window_extent().transformed(figure.transFigure.inverted()).x1
    figure.text(end + 0.012, height, note, fontsize=TEXT, color=FAINT)


def _bars(axes: Axes, results: dict[str, Any]) -> None:
    style_plot(axes, "Test studies, 95 % intervals")
    for group, (kind, colour) in enumerate((("random", "#B4BDC6"), ("pretrained", BLUE))):
        if not results.get(kind):
            continue
        for place, measure in enumerate(_BARS):
            if measure.key not in results[kind]:
                continue
            found, x = results[kind][measure.key], place + (group - 0.5) * 0.36
            if found["value"] is None:
                continue
            low, high = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
            spread = [[found["value"] - low], [high - found["value"]]]
            axes.bar(x, found["value"], width=0.33, color=colour, label=kind if place == 0 else None)
            if found["low"] is not None:
                axes.errorbar(x, found["value"], yerr=spread, color=INK, linewidth=1.3, capsize=3)
            axes.text(x, high + 0.025, f"{found['value']:.2f}", ha="center", fontsize=SMALL, color=INK,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, zorder=4)  # fmt: skip
    for place, measure in enumerate(_BARS):
        chance = (results.get("chance") or {}).get(measure.key)
        if chance is None:
            continue
        name = "chance" if place == 0 else None
        axes.plot([place - 0.42, place + 0.42], [chance] * 2, color=INK, linestyle=":", linewidth=1.3, label=name)
    axes.set_xticks(range(len(_BARS)), [measure.short for measure in _BARS], fontsize=SMALL, color=INK)
    axes.set_ylim(0, 1.19)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(visible=False, axis="x")
    axes.legend(fontsize=SMALL, frameon=False, ncols=3, loc="upper right", labelcolor=INK, handlelength=1.4)
