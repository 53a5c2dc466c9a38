"""Open-i's reports in the form that the National Library of Medicine gives them: one XML file each."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from cmcgns.data.sources.base import SourceTable
from cmcgns.errors import UserError

MAX_REPORT = 1_000_000  # bytes; real ones have some ten thousand
COLUMNS = ("study", "findings", "impression", "mesh")


def read_xml(root: Path) -> tuple[pd.DataFrame, SourceTable]:
    """All reports of `ecgen-radiology`, and the images that they name.

    Args:
        root: the folder with `ecgen-radiology`, or one above it.

    Returns:
        One row per report (`COLUMNS`), and one per image: study, name, view, where. A file that is no report is left
        out with the reason.

    Raises:
        UserError: there is no such folder.
    """
    folder = next(
        (path for path in (root / "ecgen-radiology", *root.glob("*/ecgen-radiology")) if path.is_dir()), None
    )
    if folder is None:
        raise UserError(f"{root}: neither ecgen-radiology (of NLMCXR_reports.tgz) nor indiana_reports.csv is there")
    reports: list[dict[str, str]] = []
    images: list[dict[str, str]] = []
    left_out: list[dict[str, str]] = []
    seen: set[str] = set()
    for file in sorted(folder.glob("*.xml")):
        where = file.relative_to(root).as_posix()
        try:
            report, found = _parse(file)
            if report["study"] in seen:
                raise UserError("the report is there twice")
        except UserError as error:
            left_out.append({"where": where, "reason": str(error)})
            continue
        seen.add(report["study"])
        reports.append(report)
        images += [image | {"study": report["study"], "where": f"{where} ({image['name']})"} for image in found]
    frame = pd.DataFrame(images, columns=["study", "name", "view", "where"], dtype="str")
    note = "view: the XML form states none per image; known only where the caption names a single one, else empty"
    return pd.DataFrame(reports, columns=list(COLUMNS), dtype="str"), SourceTable(frame, left_out, [note])


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
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(data)
        tree = parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise error if isinstance(error, UserError) else UserError(f"it is no readable XML ({error})") from error
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
