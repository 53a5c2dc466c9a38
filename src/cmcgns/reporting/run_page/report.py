"""The page to look at after a run: what was learned, shown on studies that were not trained on."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cmcgns.common.files import make_folder, write_text
from cmcgns.common.page import page_template
from cmcgns.objectives.objective import describe_read
from cmcgns.pretrained import load
from cmcgns.reporting.clusters.bank import Records, bank_start
from cmcgns.reporting.run_page.examples import show_retrieval
from cmcgns.reporting.run_page.heat_maps import Example, Scale, quoted, show_heat_maps, show_overlay
from cmcgns.reporting.run_page.reconstructions import DRAWS, Rebuilt, show_reconstructions
from cmcgns.reporting.run_page.results import (
    describe_recipe,
    draw_bars,
    duration,
    headline,
    interval,
    is_clear,
    per_label,
)
from cmcgns.reporting.run_page.studies import EncodedStudies, encode_studies
from cmcgns.reporting.run_page.training import (
    Panel,
    draw_panel,
    panels_of,
    show_bank,
    show_curves,
    stage_change,
)
from cmcgns.reporting.style import (
    FAINT,
    INK,
    SMALL,
    TEXT,
    TITLE,
    cover,
    draw_boxes,
    new_figure,
    save_pictures,
    show_radiograph,
    wrap,
)
from cmcgns.training.journal import read_metrics
from cmcgns.training.run_folder import RunFolder

Sections = dict[str, dict[str, Any]]


def write_run_page(run: Path, manifest: Path, results: dict[str, Any], out: Path, images: Path | None = None) -> Path:
    """Write a page about a finished run: one HTML file that needs nothing else, and its pictures as PNG.

    Args:
        run: folder of a finished run.
        manifest: table or folder of pairs; studies of its test split that the run did not train on are shown, else
            of validation, else of the whole.
        results: `pretrained`, `random` and `difference` (:func:`cmcgns.demo.summarise_judgements`),
            `report_use` (:func:`cmcgns.evaluation.report_use.report_use`, or None), `seconds` by name and `counts`
            by split. What is missing stays out of the page, which then says so.
        out: folder to fill with `report.html` and `pictures/`.
        images: folder where the table's image paths start, see :func:`encode_studies`.

    Returns:
        Path of `report.html`.

    Raises:
        UserError: no finished run, data that cannot be read, only studies that were trained on, or a folder that
            cannot be written.
    """
    model = load(run)
    make_folder(out)
    folder = RunFolder(run)
    provenance = folder.read_provenance()  # a damaged one is said before minutes are spent
    studies = encode_studies(model, manifest, images)
    records = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    sections = _sections(studies, records, results)
    _save_pictures(sections, out)
    page = _render(studies, results, provenance=provenance, **sections)
    path = out / "report.html"
    write_text(path, page)
    return path


def _sections(studies: EncodedStudies, records: Records, results: dict[str, Any]) -> Sections:
    """What each part of the page shows; a part without a picture says why."""
    sections = {
        "curves": show_curves(records, studies.model.method is not None),
        "reconstructions": show_reconstructions(studies),
        "maps": show_heat_maps(studies),
        "bank": show_bank(studies, records),
        "retrieval": show_retrieval(studies),
    }
    rebuilt = sections["reconstructions"].get("examples", [])
    sections["overview"] = {"picture": draw_overview(studies, records, sections["maps"], rebuilt, results)}
    return sections


def _save_pictures(sections: Sections, out: Path) -> None:
    """Write every figure, and put its file in its place."""
    figures = {name: section["picture"] for name, section in sections.items() if "picture" in section}
    for name, picture in save_pictures(out, figures, kinds=()).items():
        sections[name]["picture"] = picture


def _render(studies: EncodedStudies, results: dict[str, Any], **parts: Any) -> str:
    recipe = studies.model.recipe
    return page_template("cmcgns.reporting.run_page", "report.html.j2").render(
        studies=studies,
        recipe=recipe,
        summary=describe_recipe(recipe),
        settings=describe_read(recipe),
        headline=headline(results),
        labels=per_label(results),
        results=results,
        interval=interval,
        duration=duration,
        clear=is_clear,
        masks=DRAWS,
        synthetic=studies.is_synthetic,
        **parts,
    )


_LEFT, _RIGHT = 0.02, 0.655  # of the pictures


def draw_overview(
    studies: EncodedStudies,
    records: Records,
    maps: dict[str, Any],
    rebuilt: list[Rebuilt],
    results: dict[str, Any],
) -> Figure:
    """1600 × 1000 pixels: sentences on radiographs, rebuilt images, curves, results.

    Without reconstructions there are twice as many radiographs; without maps they stand below their reports; without
    results there is one curve more.
    """
    figure = new_figure(16, 10)
    figure.set_dpi(100)
    title = "Radiographs and reports, pretrained together"
    figure.text(_LEFT, 0.949, title, fontsize=22, color=INK, fontweight="bold")
    subtitle = f"run “{studies.model.recipe.name}”, {studies.shown}"
    figure.text(_LEFT, 0.917, subtitle, fontsize=TEXT + 1.5, color=FAINT)
    rows = 1 if rebuilt else 2
    if "examples" in maps:
        _heat_maps(figure, studies, maps["examples"], maps["scale"], rows)
    else:
        _studies(figure, studies, rows)
    if rebuilt:
        _rebuilt(figure, studies, rebuilt)
    right = figure.add_gridspec(3, 1, left=0.715, right=0.985, top=0.915, bottom=0.065, hspace=0.5)
    figure.text(0.715, 0.972, _legend(records), fontsize=SMALL + 0.5, color=FAINT)
    judged = bool(results.get("pretrained"))
    published = studies.model.method is not None
    for place, panel in enumerate(overview_panels(records, published, 2 if judged else 3)):
        draw_panel(figure.add_subplot(right[place]), panel, records)
    if judged:
        draw_bars(figure.add_subplot(right[2]), results)
    return figure


def _heat_maps(figure: Figure, studies: EncodedStudies, examples: list[Example], scale: Scale, rows: int) -> None:
    """Pairs of one study: a sentence of its own report, and one of a finding that it does not have."""
    note = (
        "left: of its own report · right: of a finding that is not there · one scale for all · blue box: the finding"
    )
    _heading(figure, 0.867, "Where sentences belong", note)
    pairs = figure.add_gridspec(
        rows, 2, left=_LEFT, right=_RIGHT, top=0.775, bottom=_bottom(rows), wspace=0.045, hspace=0.2
    )
    for number, example in enumerate(examples[: 2 * rows]):
        pair = pairs[divmod(number, 2)].subgridspec(1, 2, wspace=0.03)
        for column, heat in enumerate((example.present, example.absent)):
            axes = figure.add_subplot(pair[column])
            show_radiograph(axes, studies.fine_pixels(example.statement.row))
            if heat is not None:
                show_overlay(axes, heat.values, scale)
            if column == 0:
                draw_boxes(axes, example.statement.boxes, width=2.0)
            axes.set_title(quoted(heat), fontsize=TEXT - 0.5, color=INK, loc="left", pad=6)


def _studies(figure: Figure, studies: EncodedStudies, rows: int) -> None:
    grid = figure.add_gridspec(
        rows, 3, left=_LEFT, right=_RIGHT, top=0.797, bottom=_bottom(rows), wspace=0.04, hspace=0.2
    )
    _heading(figure, 0.867, "Studies", "below the first sentence of their reports")
    for row in range(min(3 * rows, len(studies))):
        axes = figure.add_subplot(grid[divmod(row, 3)])
        show_radiograph(axes, studies.fine_pixels(row))
        quote = wrap(f"“{studies.sentences[row][0]}”", 42, 2)
        axes.set_title(quote, fontsize=TEXT + 0.5, color=INK, loc="left", pad=7)


def _bottom(rows: int) -> float:
    return 0.475 if rows == 1 else 0.03


def _rebuilt(figure: Figure, studies: EncodedStudies, rebuilt: list[Rebuilt]) -> None:
    help_ = "with the report's help" if studies.model.recipe.objective.reconstruction == "cross_modal" else ""
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
                draw_boxes(axes, studies.boxes[example.row], width=1.3)


def _legend(records: Records) -> str:
    parts = ["faint: training"]
    if stage_change(records) is not None:
        parts.append("dashed: Stage II")
    if bank_start(records) is not None:
        parts.append("dotted: bank starts")
    return " · ".join(parts)


def overview_panels(records: Records, published: bool, count: int) -> list[Panel]:
    """The most telling curves that the run has, as :func:`panels_of` names them."""
    found = panels_of(records, published)
    wanted = ("global", "report_to_image_r10", "loss")
    by_curve = {panel.curves[0][0]: panel for panel in found}
    first = [by_curve[key] for key in wanted if key in by_curve]
    return [*first, *(panel for panel in found if panel not in first)][:count]


def _heading(figure: Figure, height: float, title: str, note: str) -> None:
    drawn = figure.text(_LEFT, height, title, fontsize=TITLE + 1.5, color=INK, fontweight="bold")
    figure.canvas.draw()  # so that the width is known
    end = drawn.get_window_extent().transformed(figure.transFigure.inverted()).x1
    figure.text(end + 0.012, height, note, fontsize=TEXT, color=FAINT)
