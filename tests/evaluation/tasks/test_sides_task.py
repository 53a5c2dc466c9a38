"""Left against right, from report sentences to shares."""

from pathlib import Path

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import boxes_text
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.tasks import sides
from cmcgns.evaluation.tasks.sides import TASK, Statement, find_statements
from cmcgns.metrics.measure import Measure
from cmcgns.pretrained.prompts import load_prompts, names_one_side, swap_sides
from support.evaluation import figures, predict, protocol_of, tiny_run, write_pictures, write_set
from support.text_tasks import SIDE, Seer, frozen

PROTOCOL = protocol_of("sides", {"prompts": "phantom"})
TEXTS = ["Small left pleural effusion.", "There is a right pneumothorax. The heart is enlarged."]


@pytest.mark.parametrize(
    ("sentence", "swapped", "one"),
    [
        ("Left effusion.", "Right effusion.", True),
        ("A nodule in the RIGHT upper lobe.", "A nodule in the LEFT upper lobe.", True),
        ("Right greater than left.", "Left greater than right.", False),
        ("Upright film, leftward shift.", "Upright film, leftward shift.", False),
    ],
)
def test_sides_are_swapped_as_words_in_their_case(sentence: str, swapped: str, one: bool) -> None:
    assert swap_sides(sentence) == swapped
    assert swap_sides(swapped) == sentence
    assert names_one_side(sentence) is one


def found_in(*texts: str) -> list[Statement]:
    book = load_prompts("phantom")
    return find_statements(texts, book, book.labels())


def test_statements_are_stated_findings_on_one_side() -> None:
    said = found_in(TEXTS[0], "", TEXTS[1], "No left pleural effusion. Left lung is clear. Bilateral effusions.")
    assert [(one.image, one.label, one.sentence) for one in said] == [
        (0, "Effusion", "Small left pleural effusion."),
        (2, "Pneumothorax", "There is a right pneumothorax."),
    ]


def test_a_finding_on_both_sides_is_left_out() -> None:
    assert found_in("Left pleural effusion. Right pleural effusion.") == []
    assert found_in("Left pleural effusion. Bilateral effusions persist.") == []
    assert found_in("Left greater than right effusions.") == []
    assert len(found_in("Left pleural effusion. Right pneumothorax.")) == 2
    assert len(found_in("Left pleural effusion. left  pleural effusion")) == 1
    assert len(found_in("Left pleural effusion. No right pleural effusion.")) == 1


def test_a_finding_that_a_box_shows_on_the_other_side_is_left_out(tmp_path: Path) -> None:
    """Of a finding on both sides a report may name one: with the side swapped the sentence is true too."""
    left, right = {"x": 20, "y": 3, "width": 9, "height": 9}, {"x": 2, "y": 3, "width": 9, "height": 9}
    boxes = [
        boxes_text([left | {"label": "Effusion"}]),
        boxes_text([left | {"label": "Effusion"}, right | {"label": "Effusion"}]),
        boxes_text([left | {"label": "Effusion"}, right | {"label": "Nodule"}]),
        "[]",
    ]
    folder = write_set(tmp_path / "d", counts=(2, 2, 8), report=TEXTS[0], boxes=[boxes[i % 4] for i in range(12)])
    found = predict(PROTOCOL, folder, tiny_run())
    named = [row.split("\t")[0].rpartition("/")[2] for row in found.rows]
    assert named == [f"{number}.png" for number in (4, 6, 7, 8, 10, 11)]


def test_boxes_may_call_a_finding_by_any_of_its_names() -> None:
    text = ["Small left pleural effusion."]
    for name in ("Effusion", "Pleural Effusion", "pleural_effusion"):
        for source in ("built-in", "phantom"):
            book = load_prompts(source)
            assert find_statements(text, book, book.labels(), [{(name, "left")}])
            assert not find_statements(text, book, book.labels(), [{(name, "left"), (name, "right")}]), (name, source)


def test_figures_are_those_of_sentences_scored_one_by_one(tmp_path: Path) -> None:
    """A run with random weights, each image and sentence alone."""
    encoder = tiny_run()
    run = encoder.run
    reports = [TEXTS[number % 2] for number in range(12)]
    folder = write_set(tmp_path / "d", counts=(2, 2, 8), report=reports)
    predictions = predict(PROTOCOL, folder, encoder)
    test = TaskData(PROTOCOL, folder, encoder.image_size, encoder.resize).test
    wins = []
    for row, text in enumerate(reports[4:]):
        sentence = text.split(". ")[0].rstrip(".") + "."
        image = encoder.embed_pixels(test.pixels[row : row + 1], lambda _: None)[0]
        other = sentence.replace("left", "?").replace("right", "left").replace("?", "right")
        true, swapped = (float(image @ run.embed_text([each])[0]) for each in (sentence, other))
        wins.append(0.5 if abs(true - swapped) < 1e-6 else float(true > swapped))
        np.testing.assert_allclose(predictions.arrays["score_global"][row], [true, swapped], atol=1e-5)
    found = figures(PROTOCOL, predictions)
    assert found[Measure("side_accuracy_global")] == pytest.approx(np.mean(wins))
    assert found[Measure("side_accuracy_global", "Pneumothorax")] == pytest.approx(np.mean(wins[1::2]))
    weights = np.arange(8)
    expected = np.average(wins, weights=weights)
    assert figures(PROTOCOL, predictions, weights)[Measure("side_accuracy_global")] == pytest.approx(expected)


def write_sided(folder: Path, n: int = 40) -> Path:
    """White on the side that the report names: left in the report is right in the picture."""
    pictures = np.zeros((n, SIDE, SIDE), np.uint8)
    texts = []
    for number, pixels in enumerate(pictures):
        side = "left" if number % 2 else "right"
        pixels[:, SIDE // 2 :] = 255 * (side == "left")
        pixels[:, : SIDE // 2] = 255 * (side == "right")
        texts.append(f"Small {side} pleural effusion.")
    return write_pictures(folder, pictures, report=texts)


@pytest.mark.parametrize(("sense", "expected"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)])
def test_an_oracle_a_liar_and_the_blind(
    sense: float, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(_model: object, images, texts: list[str], by: str) -> np.ndarray:  # type: ignore[no-untyped-def]
        shown = images[:, 0, :, SIDE // 2 :].mean((1, 2)).sign().numpy()
        named = np.array([1.0 if "left" in text else -1.0 for text in texts])
        return sense * shown[:, None] * named * (-1 if by == "local" else 1)

    monkeypatch.setattr(Seer, "encode_texts", lambda _, texts: list(texts))
    monkeypatch.setattr(Seer, "lacks", lambda _, by: "no sum" if by == "sum" else "")
    monkeypatch.setattr(Seer, "text_scores", scores, raising=False)
    monkeypatch.setattr(sides, "_BATCH", 7)
    found = figures(PROTOCOL, predict(PROTOCOL, write_sided(tmp_path / "d"), frozen(Seer({}))))
    assert found[Measure("side_accuracy_global")] == found[Measure("side_accuracy_global", "Effusion")] == expected
    assert found[Measure("side_accuracy_local")] == 1 - expected
    assert Measure("side_accuracy_sum") not in found
    assert next(iter(found)) == Measure("side_accuracy_global")


def test_what_is_lacking_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = TaskData(PROTOCOL, write_set(tmp_path / "a"), SIDE, SIDE)
    assert TASK.lacks(silent, frozen(Seer({}))) == "no image of test has a report"
    folder = write_set(tmp_path / "b", report="The heart is enlarged.")
    data = TaskData(PROTOCOL, folder, SIDE, SIDE)
    assert "no report encoder" in TASK.lacks(data, frozen(None))
    pair = tiny_run()
    one_way = {"global": "its global embeddings mean nothing", "local": "", "sum": "no sum"}
    monkeypatch.setattr(pair.run, "lacks", one_way.__getitem__)
    assert TASK.lacks(data, pair) == ""
    one_way["local"] = "no local score"
    assert "its global embeddings mean nothing" in TASK.lacks(data, pair)
    with pytest.raises(UserError, match="no report of test states a finding on one side"):
        predict(PROTOCOL, folder, frozen(Seer({})))
