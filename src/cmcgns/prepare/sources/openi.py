"""Open-i: the chest radiographs and reports of Indiana University, as XML and PNG or in the csv form."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree  # nosec B405 # bounded, and without document types

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.reports.section_rules import load_rules
from cmcgns.data.reports.sections import remove_marks
from cmcgns.data.reports.text import MAX_REPORT
from cmcgns.data.tables import read_table
from cmcgns.data.vocabulary import parse_views
from cmcgns.prepare.sources.base import (
    PLACE,
    OtherLayout,
    SourceOptions,
    SourceTable,
    by_name,
    existing_files,
    find_optional,
)
from cmcgns.prepare.sources.cells import draw_splits, finish, read_rows

COLUMNS = ("study", "findings", "impression", "mesh")
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def read_xml(root: Path) -> tuple[pd.DataFrame, SourceTable]:
    """All reports of `ecgen-radiology`, and the images that they name.

    Returns:
        One row per report (`COLUMNS`), and one per image: study, name, view. A file that is no report is left out
        with the reason.

    Raises:
        UserError: there is no such folder.
    """
    folder = find_optional(root, "ecgen-radiology/", "*/ecgen-radiology/")
    if folder is None:
        raise OtherLayout(f"{root}: neither ecgen-radiology (of NLMCXR_reports.tgz) nor indiana_reports.csv is there")
    reports: list[dict[str, str]] = []
    images: list[dict[str, str]] = []
    table = SourceTable()
    seen: set[str] = set()
    for file in sorted(folder.glob("*.xml")):
        where = file.relative_to(root).as_posix()
        try:
            report, found = _parse(file)
            if report["study"] in seen:
                raise UserError("the report is there twice")
        except UserError as error:
            table.also_left_out([where], str(error))
            continue
        seen.add(report["study"])
        reports.append(report)
        images += [image | {"study": report["study"], PLACE: f"{where} ({image['name']})"} for image in found]
    table.frame = pd.DataFrame(images, columns=["study", "name", "view", PLACE], dtype="str")
    table.notes.append(
        "view: the XML form states none per image; known only where the caption names a single one, else empty"
    )
    return pd.DataFrame(reports, columns=list(COLUMNS), dtype="str"), table


class _Builder(ElementTree.TreeBuilder):
    """Refuses document types before their entities can be expanded."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002 - the parser's call
        raise UserError("it declares a document type, as reports never do; entities are not expanded")


def _parse(file: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """A report and its images.

    Raises:
        UserError: too large, no XML, or with a document type; the message does not name the file.
    """
    with file.open("rb") as content:
        data = content.read(MAX_REPORT + 1)
    if len(data) > MAX_REPORT:
        raise UserError(f"it has more than {MAX_REPORT:,} bytes")
    parser = ElementTree.XMLParser(target=_Builder())  # nosec B314 # likewise
    try:
        parser.feed(data)
        tree = parser.close()
    except UserError:
        raise
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"it is no readable XML ({error})") from error
    uid = tree.find("uId")
    study = (uid.get("id", "") if uid is not None else "").removeprefix("CXR") or file.stem
    report = {
        "study": study,
        "findings": "\n\n".join(_abstract(tree, "FINDINGS")),
        "impression": "\n\n".join(_abstract(tree, "IMPRESSION")),
        "mesh": "; ".join(_text(major) for major in tree.iterfind("MeSH/major")),
    }
    images = [
        {"name": f"{image.get('id', '').strip()}.png", "view": _stated_view(image.findtext("caption") or "")}
        for image in tree.iter("parentImage")
    ]
    return report, images


def _abstract(tree: ElementTree.Element, label: str) -> Iterator[str]:
    texts = (_text(part) for part in tree.iter("AbstractText") if part.get("Label", "").upper() == label)
    return (text for text in texts if text)


def _text(element: ElementTree.Element) -> str:
    return "".join(element.itertext()).strip()


def _stated_view(caption: str) -> str:
    """The view, if the caption names just one: "Xray Chest PA and Lateral" is about both images of a study."""
    words = set(caption.upper().replace(",", " ").split())
    views = {"PA", "AP", "LATERAL"} & words
    return views.pop() if len(views) == 1 else ""


def read(root: Path, options: SourceOptions) -> SourceTable:
    """Every image of a report with findings or an impression.

    Args:
        root: the folder with `indiana_reports.csv`, or with `ecgen-radiology`.
        options: the seed of the split by patient, and the rules for marks.

    Raises:
        UserError: neither form is there, or a table that cannot be read.
    """
    reports, table = read_either(root)
    rules = load_rules(options.rules)
    # Drawn from all reports, so that the split does not depend on which images are there.
    reports["split"] = draw_splits("openi:CXR" + reports["study"], options.seed, FRACTIONS)
    for section in ("findings", "impression"):
        reports[section] = [remove_marks(text, rules).strip() for text in reports[section]]
    _join(root, table, reports)
    table.frame["dataset"] = "openi"
    table.frame["study_id"] = "openi:CXR" + table.frame["study"]
    table.frame["patient_id"] = table.frame["study_id"]
    table.notes.append(
        f"split: none is published; drawn by patient with seed {options.seed} (80 % train, 10 % val, 10 % test), "
        "under v1 and legacy alike; every report counts as a patient, because patients are not named"
    )
    return finish(table, "mesh")


def read_either(root: Path) -> tuple[pd.DataFrame, SourceTable]:
    """The reports and images of a folder in one of the two forms, as :func:`read_xml` gives them.

    Raises:
        UserError: neither form is there, or a table that cannot be read.
    """
    return _read_csv(root) if (root / "indiana_reports.csv").is_file() else read_xml(root)


def _join(root: Path, table: SourceTable, reports: pd.DataFrame) -> None:
    """Give every image its file and its report; leave out what lacks one."""
    images = pd.Series(by_name(existing_files(root, table=table), (".png",)), dtype="str").sort_values()
    table.also_left_out(images[~images.index.isin(table.frame["name"])], "no report names it")
    pictured = reports["study"].isin(table.frame["study"])
    table.also_left_out("CXR" + reports.loc[~pictured, "study"], "the report names no image")
    table.frame["source"] = table.frame["name"].map(images)
    table.frame = table.frame.merge(reports, on="study", how="left").assign(row=range(len(table.frame)))
    frame = table.frame
    for reason, bad in (
        ("the image is named twice", frame.duplicated("name")),
        ("the image is not there", frame["source"].isna()),
        ("its report is not there", frame["split"].isna()),
        ("its report has neither findings nor impression", frame["findings"] + frame["impression"] == ""),
    ):
        table.leave_out(bad.loc[table.frame["row"]], reason)
    table.frame = table.frame.drop(columns="row")


def _read_csv(root: Path) -> tuple[pd.DataFrame, SourceTable]:
    listed = read_table(root / "indiana_reports.csv", ("uid", "MeSH", "findings", "impression"))
    table = SourceTable()
    images = read_rows(root / "indiana_projections.csv", table, ("uid", "filename", "projection"))
    table.frame = pd.DataFrame(
        {
            "study": images["uid"].str.strip(),
            "name": images["filename"].str.strip(),
            "view": parse_views(images["projection"])[0],
            PLACE: images[PLACE],
        }
    )
    reports = listed.rename(columns={"uid": "study", "MeSH": "mesh"})[list(COLUMNS)]
    repeated = reports.duplicated("study")
    table.also_left_out(
        (f"indiana_reports.csv, row {row + 1}" for row in repeated.index[repeated]), "the uid stands there twice"
    )
    return reports[~repeated].reset_index(drop=True), table
