"""The page to look at after a run: what was learned, shown on studies that were not trained on."""

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_text
from cmcgns.common.page import page_template
from cmcgns.pretrained import load
from cmcgns.reporting.run_page import attention, bank, curves, examples, tables
from cmcgns.reporting.run_page.material import Floats, Material, gather
from cmcgns.reporting.run_page.overview import draw_overview
from cmcgns.reporting.style import save_picture
from cmcgns.training.run_folder import RunFolder


def thumbnail(image: Floats) -> Markup:
    """An (S, S) image in [-1, 1] as PNG data for a page."""
    buffer = io.BytesIO()
    Image.fromarray(((image + 1) * 127.5).round().clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return Markup("data:image/png;base64,") + Markup(base64.b64encode(buffer.getvalue()).decode())


def write_report(run: Path, manifest: Path, results: dict[str, Any], out: Path) -> Path:
    """Write a page about a finished run: one HTML file that needs nothing else, and its pictures as PNG.

    Args:
        run: folder of a finished run.
        manifest: table or folder of pairs; studies of its test split that the run did not train on are shown, else
            of validation, else of the whole.
        results: `pretrained`, `random` and `difference` (:func:`cmcgns.demo.summarise_judgements`),
            `report_use` (:func:`cmcgns.evaluation.report_use.report_use`, or None), `seconds` by name and `counts`
            by split.
            What is missing stays out of the page, which then says so.
        out: folder to fill with `report.html` and `pictures/`.

    Returns:
        Path of `report.html`.

    Raises:
        UserError: no finished run, data that cannot be read, only studies that were trained on, or a folder that
            cannot be written.
    """
    model = load(run)
    pictures = _Pictures(_writable(out))
    material = gather(model, RunFolder(run), manifest)
    sections = {
        "curves": _curves(material, pictures),
        "reconstructions": _reconstructions(material, pictures),
        "attention": _attention(material, pictures),
        "bank": _bank(material, pictures),
        "retrieval": _retrieval(material, pictures),
    }
    overview = draw_overview(
        material, sections["attention"].get("maps", []), sections["reconstructions"].get("examples", []), results
    )
    recipe = material.model.recipe
    page = page_template("cmcgns.reporting.run_page", "report.html.j2").render(
        material=material,
        recipe=recipe,
        summary=tables.describe_recipe(recipe),
        settings=yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False),
        overview=pictures.add("overview", overview),
        headline=tables.headline(results),
        labels=tables.per_label(results),
        results=results,
        interval=tables.interval,
        duration=tables.duration,
        clear=tables.leaves_out_zero,
        masks=examples.DRAWS,
        synthetic=material.source == "phantom",
        **sections,
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def _writable(out: Path) -> Path:
    """The folder of pictures, made before minutes are spent on them."""
    try:
        (out / "pictures").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out / "pictures"
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}); choose another folder") from None


class _Pictures:
    """Writes figures as files and hands them to the page as data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, figure: Figure) -> Markup:
        content = save_picture(figure, self.folder / f"{name}.png").read_bytes()
        return Markup("data:image/png;base64,") + Markup(base64.b64encode(content).decode())


def _curves(material: Material, pictures: _Pictures) -> dict[str, Any]:
    if not curves.has_curves(material.records):
        return {"absent": "Nothing was logged: the run was shorter than training.log_every, or has no metrics.jsonl."}
    return {
        "picture": pictures.add("curves", curves.draw_curves(material.records)),
        "swapped": any("report_swapped" in record for record in material.records),
    }


def _reconstructions(material: Material, pictures: _Pictures) -> dict[str, Any]:
    if absent := examples.why_absent(material):
        return {"absent": absent}
    rebuilt = examples.rebuild_examples(material)
    figure = examples.draw_reconstructions(material, rebuilt)
    return {"examples": rebuilt, "picture": pictures.add("reconstructions", figure)}


def _attention(material: Material, pictures: _Pictures) -> dict[str, Any]:
    if absent := attention.why_absent(material):
        return {"absent": absent}
    maps = attention.attention_examples(material)
    return {
        "maps": maps,
        "picture": pictures.add("attention", attention.draw_attention(material, maps)),
        "localisation": attention.localisation(material),
    }


def _bank(material: Material, pictures: _Pictures) -> dict[str, Any]:
    if absent := bank.why_absent(material):
        return {"absent": absent}
    return {
        "picture": pictures.add("bank", bank.draw_bank(material)),
        "facts": bank.bank_facts(material),
        "start": curves.bank_start(material.records),
        "clusters": bank.largest_clusters(material),
    }


def _retrieval(material: Material, pictures: _Pictures) -> dict[str, Any]:
    if material.model.recipe.objective.weight_global == 0:
        return {"absent": "The run was made without the global loss (weight 0), so whole reports were not aligned."}
    found = examples.images_for_reports(material)
    reverse = examples.reports_for_images(material)
    return {
        "picture": pictures.add("retrieval", examples.draw_retrieval(material, found)),
        "reverse": [(item, thumbnail(material.fine_pixels(item.row))) for item in reverse],
    }
