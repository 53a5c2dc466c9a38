"""Reports as files: Markdown, CSV, one HTML page, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cmcgns.common.files import write_text
from cmcgns.common.page import page_template
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.evaluation.results import ReliabilityCurve, ResultRow
from cmcgns.reporting.evaluation import markdown
from cmcgns.reporting.evaluation.build import primary_table
from cmcgns.reporting.evaluation.names import protocol_title, to_csv
from cmcgns.reporting.evaluation.notices import leak_notice, read_kept, statements
from cmcgns.reporting.evaluation.sections import make_sections
from cmcgns.reporting.evaluation.selection import Selection
from cmcgns.reporting.evaluation.tables import pictures_of
from cmcgns.reporting.style import save_pictures

_KINDS = ("fractions", "metrics", "classes", "subgroups", "reliability")


def write_report(
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
        rows: figures of any number of encoders and protocols.
        protocols: by the name in the rows; titles, published figures and notes come from them.
        failures: protocol, cell (empty: the whole protocol) and message.
        skipped: protocols (between commas) and the reason that they share.
        provenance: command, versions, hashes, … by name.
        reliability: curves for reliability diagrams.

    Returns:
        Path of `report.html`, one file that needs nothing else.
    """
    kept = read_kept(folder, rows)
    selection = Selection(kept.without_cautions(rows), protocols, failures)
    sections = make_sections(selection, reliability)
    content: dict[str, Any] = {
        "title": _title(selection),
        "lead": _lead(selection, failures, skipped),
        "leaks": leak_notice(selection, kept.cautions),
        "primary": primary_table(selection, kept) if rows else None,
        "statements": statements(selection),
        "sections": sections,
        "failures": list(failures),
        "skipped": list(skipped),
        "protocols": [_about(name, selection) for name in selection.protocols],
        "provenance": _flat(provenance or {}),
    }
    images = save_pictures(folder, {picture.name: picture.figure for picture in pictures_of(sections)}, _KINDS)
    write_text(folder / "results.csv", to_csv((field.name for field in fields(ResultRow)), map(asdict, rows)))
    write_text(folder / "report.md", markdown.render(**content))
    path = folder / "report.html"
    template = page_template("cmcgns.reporting.evaluation", "report.html.j2", "report.css", trim=True)
    write_text(path, template.render(images=images, **content))
    return path


def _title(selection: Selection) -> str:
    encoders = selection.encoders
    if not encoders:
        return "Evaluation: no results"
    return f"Evaluation of {encoders[0]}" if len(encoders) == 1 else f"Evaluation of {len(encoders)} encoders"


def _lead(selection: Selection, failures: Sequence[Any], skipped: Sequence[Any]) -> str:
    count = len(selection.protocols)
    done = f"{count} protocol{'s' if count != 1 else ''} with results"
    several = len(selection.encoders) > 1
    who = f"Frozen encoders: {', '.join(selection.encoders)}" if several else "Frozen encoder"
    left = sum(len(names.split(", ")) for names, _ in skipped)
    parts = [f"{len(failures)} failed" if failures else "", f"{left} skipped" if skipped else ""]
    missing = ", ".join(part for part in parts if part)
    return f"{who}; {done}{f' ({missing})' if missing else ''}."


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
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = " ".join(str(one) for one in value)
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
