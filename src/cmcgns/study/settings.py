"""What a study's YAML says, with its types and their meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cmcgns.settings.config import Positive, Settings, Side

SUMMARY = "mean of standardised differences"
"""Heading of the row that `summary` asks for."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")]  # they become folders
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
Seed = Annotated[int, Field(strict=True, ge=0, le=10**9)]
Share = Annotated[float, Field(gt=0, le=100)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Phantom(Settings):
    """Synthetic studies: for pretraining of one series, for judging of the next one."""

    train: Positive = 2000
    val: Positive = 200
    test: Positive = 500
    labelled: Positive | None = None
    """training studies of the series for judging; null: as many as `train`"""
    seed: Seed = 0
    """of the series for pretraining; the judged one has the next seed"""
    size: Side = 128
    """side of the images in pixels"""
    level: Literal["plain", "hard"] = "plain"
    """plain or hard studies; see docs/datasets.md"""


class PhantomData(Settings):
    """Data that the study draws itself."""

    phantom: Phantom = Phantom()


class CellSettings(Settings):
    """One row of the table."""

    name: Name
    recipe: str | None = None
    """null: the study's"""
    set: list[str] = Field([])
    """key=value, after those of the study"""
    seeds: list[Seed] = Field([])
    """training.seed; empty: the study's"""
    without: list[str] = Field([])
    """entries of `judge` that do not apply, such as zero-shot of what has no joint space of images and reports"""


class JudgeSettings(Settings):
    """One protocol that every cell is judged by."""

    protocol: str
    name: str = ""
    """what `measures` call it; empty: as `protocol`"""
    set: list[str] = Field([])
    """key=value of the protocol"""
    fractions: list[Share] = Field([])
    """per cent of the training patients; empty: the protocol's"""
    seeds: Positive | None = None
    """draws of the labels; null: the protocol's"""
    data: str | None = None
    """prepared dataset; null: the study's own"""


class MeasureSettings(Settings):
    """One column of the table."""

    protocol: str
    """name of an entry of `judge`"""
    measure: str
    fraction: Share | None = None
    """null: the only one, or that of what learns nothing"""
    title: str = ""
    """heading; empty: the measure and the fraction"""


class StudySettings(Settings):
    """A whole study."""

    name: Name
    data: PhantomData | str
    """prepared folder or table; or {phantom: {train: …, val: …, test: …}}"""
    recipe: str = "default"
    set: list[str] = Field([])
    """key=value of the recipe, for every cell"""
    cells: list[CellSettings] = Field([])
    """this or `grid`"""
    grid: dict[Label, dict[Label, list[str]]] = Field({})
    """{axis: {label: [key=value, …]}}"""
    seeds: list[Seed] = Field([0], min_length=1)
    """training.seed"""
    judge: list[JudgeSettings] = Field(min_length=1)
    measures: list[MeasureSettings] = Field(min_length=1)
    baseline: Annotated[list[str], BeforeValidator(_listed)] = Field(min_length=1)
    """name of the cell that the others are compared with, or several names"""
    difference: Literal["cell - baseline", "baseline - cell"] = "cell - baseline"
    """which one is taken from the other; the second where the baseline is what is to be judged"""
    summary: list[str] = Field([])
    """headings of the measures whose standardised differences are averaged in a last row; empty: no such row"""
    keep: Literal["none", "weights", "all"] = "weights"
    """what stays of a finished run besides its small files: none of its weights, the final ones, or its
    checkpoints too"""
