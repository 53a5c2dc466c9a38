"""Synthetic studies in the public datasets' official layouts, so that all that reads them can be tried without them.

Folders, file names, tables and their columns are the datasets'; pictures, labels and reports are drawings of chests.
"""

from collections.abc import Callable
from pathlib import Path

from cmcgns.common.claim import claimed, holds_anything
from cmcgns.common.errors import UserError, did_you_mean
from cmcgns.phantom.trees import layouts
from cmcgns.phantom.trees.cases import Case, make_cases

__all__ = ["tree_names", "write_tree"]

FEWEST_STUDIES = 8  # fewer may leave a part of a dataset without a patient

_WRITERS: dict[str, Callable[[Path, list[Case]], None]] = {
    "mimic-cxr": layouts.write_mimic_cxr,
    "openi": layouts.write_openi,
    "chexpert": layouts.write_chexpert,
    "rsna": layouts.write_rsna,
    "covidx": layouts.write_covidx,
    "siim": layouts.write_siim,
    "object-cxr": layouts.write_object_cxr,
    "nih": layouts.write_nih,
    "vindr": layouts.write_vindr,
}
_VIEWS = {"vindr": "PA"}  # a dataset of one view


def tree_names() -> list[str]:
    """Names that `write_tree` knows; they are those of `cmcgns prepare`."""
    return list(_WRITERS)


def write_tree(name: str, out: Path, studies: int, seed: int = 0, size: int = 128) -> Path:
    """Write a small copy of a public dataset, filled with synthetic studies.

    Trees of the same seed show the same studies; take another seed for a dataset that must share none. `nih`, `rsna`
    and a part of `covidx` then also agree about ids, because these real datasets share images as well.

    Args:
        name: of the dataset, as in `cmcgns prepare`.
        out: folder to fill; must be empty or not there.
        studies: number of studies, 8 or more; some datasets have several images of a study.
        seed: names the series of studies.
        size: height and width of the images in pixels, 32 or more.

    Returns:
        The folder: what `cmcgns prepare NAME --root` takes.

    Raises:
        UserError: an unknown name, a folder with something in it, a number out of range, or pydicom is missing.
    """
    if name not in _WRITERS:
        hint = did_you_mean(name, _WRITERS)
        raise UserError(f"no tree is called {name!r}.{hint} There are {', '.join(_WRITERS)}.")
    if studies < FEWEST_STUDIES:
        raise UserError(f"studies is {studies}; take {FEWEST_STUDIES} or more")
    cases = make_cases(studies, seed, size, _VIEWS.get(name))
    with claimed(out, "phantom tree"):
        if holds_anything(out):
            raise UserError(f"{out} is there already and not an empty folder; choose another one")
        _WRITERS[name](out, cases)
    return out
