"""An option of `prepare` either changes what a dataset's reader gives, or is refused."""

import io
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from cmcgns.common.errors import UserError
from cmcgns.data.delimited import TextFormat
from cmcgns.phantom.trees import tree_names, write_tree
from cmcgns.prepare.run import PrepareOptions, prepare
from cmcgns.prepare.sources import get_source, source_names
from cmcgns.prepare.sources.base import SourceOptions
from support.trees import write_image, write_text

OTHER = {"split": "legacy", "seed": 5, "rules": "german", "columns": {"view": "place"}, "dataset": "mine"}
OTHER |= {"images": Path(), "form": TextFormat(encoding="cp1252")}
HEEDED = {
    "mimic-cxr": {"split", "rules"},
    "openi": {"split", "seed", "rules"},
    "chexpert": {"split", "seed"},
    "rsna": {"split", "seed"},
    "covidx": {"split", "seed"},
    "siim": {"split", "seed"},
    "object-cxr": {"split", "seed"},
    "nih": {"seed"},
    "vindr": {"seed"},
    "table": {"seed", "rules", "columns", "dataset", "images", "form"},
}
SAME_UNDER_BOTH = {("mimic-cxr", "split"), ("openi", "split")}  # the official split is the published one
ONLY_MARKS = ("openi", "rules")  # its reports come in sections; the marks of all languages are alike


def quiet():
    return Console(file=io.StringIO())


def test_the_table_names_every_source_and_option():
    assert list(HEEDED) == source_names()
    assert set(OTHER) == {field.name for field in fields(SourceOptions)}


@pytest.mark.parametrize(("name", "option"), [(n, o) for n in HEEDED for o in OTHER if o not in HEEDED[n]])
def test_an_option_without_effect_is_refused(name, option, tmp_path):
    options = PrepareOptions(**{option: OTHER[option]})
    flag = {"columns": "--column", "form": "--separator or --encoding"}.get(option, f"--{option}")
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match=f"{flag}.* has no effect on {name}"):
        prepare(name, tmp_path / "root", tmp_path / "out", options, quiet())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["rsna", "siim", "object-cxr"])
def test_published_splits_have_no_seed(name, tmp_path):
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match=f"--seed has no effect on {name}"):
        prepare(name, tmp_path / "root", tmp_path / "out", PrepareOptions(split="legacy", seed=5), quiet())


def read(name, root, **options):
    return get_source(name).read(root, SourceOptions(**options)).frame.reset_index(drop=True)


def table(root):
    write_text(
        root / "own.csv",
        "image_path,place,report",
        *(f'images/{n}.png,AP,"Befund: Groß. IMPRESSION: Clear."' for n in range(9)),
    )
    for n in range(9):
        write_image(root / "images" / f"{n}.png", n)
    return root


@pytest.mark.parametrize("name", list(HEEDED))
def test_every_other_option_has_an_effect(name, tmp_path):
    root = tmp_path / "root"
    root = table(root) if name not in tree_names() else write_tree(name, root, 40, size=64)
    usual = read(name, root)
    for option in HEEDED[name]:
        if (name, option) in SAME_UNDER_BOTH or (name, option) == ONLY_MARKS:
            continue
        other = read(name, root, **{option: OTHER[option]})
        with pytest.raises(AssertionError):
            pd.testing.assert_frame_equal(usual, other)


def test_a_parquet_file_has_no_separator(tmp_path):
    write_image(tmp_path / "a.png")
    pd.DataFrame({"image_path": ["a.png"]}).to_parquet(tmp_path / "own.parquet")
    with pytest.raises(UserError, match="no effect on it has --separator or --encoding: a parquet file"):
        read("table", tmp_path, form=TextFormat(";"))


@pytest.mark.parametrize(
    ("column", "options", "words"),
    [
        ("dataset", {"dataset": "mine"}, "--dataset: its column dataset"),
        ("split", {"seed": 3}, "--seed: its column split"),
        ("view", {"rules": "german"}, "--rules: it has no report"),
    ],
)
def test_a_table_may_leave_an_option_nothing_to_do(column, options, words, tmp_path):
    cell = {"dataset": "clinic", "split": "train", "view": "AP"}[column]
    write_text(tmp_path / "own.csv", f"image_path,{column}", f"a.png,{cell}", f"b.png,{cell}")
    for name in "ab":
        write_image(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=words):
        read("table", tmp_path, **options)
