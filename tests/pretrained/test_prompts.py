"""Sentences for every label of the public datasets, and what is refused."""

from pathlib import Path

import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.vocabulary import CHEXPERT_FINDINGS
from cmcgns.pretrained.prompts import Ensembles, LabelPrompts, load_prompts, speaks_of_side

NIH = [
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
]  # fmt: skip
VINDR = ["Aortic enlargement", "ILD", "Nodule/Mass", "Pleural effusion", "Pulmonary fibrosis", "Lung cavity"]
OTHERS = ["Normal", "COVID-19", "Lung Opacity", "Foreign Object"]


def test_labels_of_public_datasets_have_several_sentences_of_both_kinds() -> None:
    book = load_prompts()
    labels = [*CHEXPERT_FINDINGS, *NIH, *VINDR, *OTHERS, *load_prompts("phantom").entries]
    assert book.unknown(labels) == []
    assert all(min(len(book.of(label).positive), len(book.of(label).negative)) >= 3 for label in labels)


def test_no_sentence_both_states_and_denies_a_finding() -> None:
    for label, entry in load_prompts().entries.items():
        assert not set(entry.positive) & set(entry.negative), label


@pytest.mark.parametrize("label", ["PLEURAL EFFUSION", "pleural_effusion", "Effusion", " effusion"])
def test_case_underscores_and_other_names_make_no_difference(label: str) -> None:
    book = load_prompts()
    assert book.of(label) is book.of("Pleural Effusion")


def test_an_unknown_label_gets_the_template() -> None:
    book = load_prompts()
    assert book.unknown(["Edema", "Scimitar_Sign"]) == ["Scimitar_Sign"]
    entry = book.of("Scimitar_Sign")
    assert (entry.positive, entry.negative) == (("Scimitar Sign.",), ("No scimitar Sign.",))
    assert load_prompts("template").of("COPD").negative == ("No COPD.",)


def test_words_find_sentences_about_a_label() -> None:
    book = load_prompts()
    assert book.states("Small left pleural EFFUSION.", "Effusion")
    assert not book.states("A massive effusion.", "Mass")
    assert book.states("A scimitar sign is seen.", "Scimitar_Sign")


@pytest.mark.parametrize(
    "sentence",
    ["No pleural effusion.", "Without EFFUSION.", "Lungs are free of effusion.", "The effusion has resolved."],
)
def test_a_sentence_that_denies_a_finding_does_not_state_it(sentence: str) -> None:
    assert not load_prompts().states(sentence, "Effusion")
    assert load_prompts().states("Notable effusion.", "Effusion")


def test_a_sentence_that_names_one_side_does_not_speak_of_the_other() -> None:
    assert speaks_of_side("Small LEFT effusion.", "left")
    assert not speaks_of_side("Small LEFT effusion.", "right")
    for sentence in ("Small effusion.", "Effusions on the left and on the right."):
        assert speaks_of_side(sentence, "left")
        assert speaks_of_side(sentence, "right")
    for side in ("", None, "both"):
        assert speaks_of_side("Small left effusion.", side)


def test_the_phantoms_wording_is_a_source() -> None:
    book = load_prompts("phantom")
    assert "There is pulmonary edema." in book.of("Edema").positive
    assert book.states("Vascular congestion.", "Edema")


def test_a_file_and_a_mapping_replace_the_built_in_sentences(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("Goitre: {also: [Struma], positive: [There is a goitre.], negative: [No goitre.]}\n")
    assert load_prompts(str(file)).of("struma").positive == ("There is a goitre.",)
    assert load_prompts(str(file)).unknown(["Edema"]) == ["Edema"]
    own = {"Goitre": LabelPrompts(positive=("Goitre.",), negative=("No goitre.",))}
    assert load_prompts(own).of("goitre").positive == ("Goitre.",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Goitre: {positive: [Goitre.]}", "label Goitre.*negative"),
        ("Goitre: {positive: [], negative: [No.]}", "label Goitre"),
        ("Goitre: {positive: [Goitre.], negativ: [No goitre.], negative: [No.]}", "Did you mean negative"),
        ("Goitre: {positive: ['?!'], negative: [No.]}", "label Goitre has a prompt without a word"),
        ("A: {also: [b], positive: [A.], negative: [No.]}\nB: {positive: [B.], negative: [No.]}", "b is given twice"),
        ("- a", "a mapping"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"(?s){message}"):
        load_prompts(str(file))


def test_a_missing_file_names_the_choices() -> None:
    with pytest.raises(UserError, match="neither a file nor one of built-in, phantom, template"):
        load_prompts("bulit-in")


def test_ensembles_are_means_over_their_own_prompts_however_they_share_them() -> None:
    ensembles = Ensembles([("a", "b"), ("c",), ("b", "c", "a")])
    assert ensembles.texts == ["a", "b", "c"]
    values = torch.rand(4, 3, 5)
    a, b, c = values.unbind(1)
    expected = torch.stack([(a + b) / 2, c, (a + b + c) / 3], 1)
    torch.testing.assert_close(ensembles.mean(values), expected)
    torch.testing.assert_close(ensembles.mean(values[..., 0]), expected[..., 0])


def test_without_ensembles_a_book_has_the_first_sentence_of_each_kind() -> None:
    whole, book = load_prompts("phantom"), load_prompts("phantom", ensemble=False)
    assert book.labels() == whole.labels()
    for label in book.labels():
        assert book.of(label).positive == whole.of(label).positive[:1]
        assert book.of(label).negative == whole.of(label).negative[:1]
    facts = book.facts(["Edema", "Scimitar sign"], "positive")
    assert facts["prompts"] == "phantom"
    assert facts["sentences"] == {"Edema": [whole.of("Edema").positive[0]], "Scimitar sign": ["Scimitar sign."]}
    assert facts["labels_from_template"] == ["Scimitar sign"]
    assert whole.facts(["Edema"], "positive", "negative")["sentences"]["Edema"]["negative"] == list(
        whole.of("Edema").negative
    )
    assert "sentences" not in whole.facts(["Edema"])
