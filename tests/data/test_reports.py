"""Sentences are cut where they end, and nowhere else; no word is lost."""

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.data.reports import join_sections, normalise_sentence, split_sentences, text_number

REPORTS = {
    "decimals": ("A 3.5 cm mass. No effusion.", ["A 3.5 cm mass.", "No effusion."]),
    "levels": ("Compression at T5. Unchanged since 2.5.2010.", ["Compression at T5.", "Unchanged since 2.5.2010."]),
    "titles": (
        "Discussed with Dr. Smith at 5 p.m. today. Done.",
        ["Discussed with Dr. Smith at 5 p.m. today.", "Done."],
    ),
    "initials": ("Called Dr. A. Smith. Read back.", ["Called Dr. A. Smith.", "Read back."]),
    "latin": ("Opacities, e.g. Edema vs. Pneumonia. Clear.", ["Opacities, e.g. Edema vs. Pneumonia.", "Clear."]),
    "number word": ("See image no. 3. Normal.", ["See image no. 3.", "Normal."]),
    "no as an answer": ("Any edema? No. Clear lungs.", ["Any edema?", "No.", "Clear lungs."]),
    "one word": ("Normal. Cardiomegaly. Stable.", ["Normal.", "Cardiomegaly.", "Stable."]),
    "enumeration": ("1. Cardiomegaly. 2. Nodule of 3.5 cm.", ["Cardiomegaly.", "Nodule of 3.5 cm."]),
    "enumeration without stops": ("1. Cardiomegaly 2. Nodule 3. Edema", ["Cardiomegaly", "Nodule", "Edema"]),
    "enumeration behind a title": ("Chest 1. Small heart 2. Edema", ["Chest", "Small heart", "Edema"]),
    "enumeration in brackets": ("(1) Large heart.\n(2) Edema.", ["Large heart.", "Edema."]),
    "number that ends a sentence": ("Fracture of rib 7. No effusion.", ["Fracture of rib 7.", "No effusion."]),
    "two digits": ("Old fracture of T 12. Normal.", ["Old fracture of T 12.", "Normal."]),
    "no space": ("Lungs are clear.No effusion.Heart normal.", ["Lungs are clear.", "No effusion.", "Heart normal."]),
    "brackets": ("Small nodule (See above.) Normal heart.", ["Small nodule (See above.)", "Normal heart."]),
    "quotes": ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
    "lower case": (
        "heart is normal. lungs are clear. no edema",
        ["heart is normal.", "lungs are clear.", "no edema"],
    ),
    "lower case after capitals": ("No pneumothorax. heart is normal.", ["No pneumothorax.", "heart is normal."]),
    "short word": ("Opacity, bil. lower lobes.", ["Opacity, bil. lower lobes."]),
    "wrapped lines": ("The heart\nis normal.\n\nNO EDEMA", ["The heart is normal.", "NO EDEMA"]),
    "German": (
        "Herz nicht vergrößert. Ödem fehlt. Übrige Lunge frei.",
        ["Herz nicht vergrößert.", "Ödem fehlt.", "Übrige Lunge frei."],
    ),
    "Spanish": ("¿Derrame? Índice normal. Ángulos libres.", ["¿Derrame?", "Índice normal.", "Ángulos libres."]),
    "German without space": ("Herz groß.Übrige Lunge frei.", ["Herz groß.", "Übrige Lunge frei."]),
    "Chinese": ("心影不大。双肺清晰。", ["心影不大。", "双肺清晰。"]),
    "removed identifiers": ("___. XXXX unchanged. Seen by ___.", ["XXXX unchanged.", "Seen by ___."]),
    "no words": ("... - ___ \n\n .", []),
    "nothing": ("", []),
}


@pytest.mark.parametrize("name", REPORTS)
def test_pitfall_reports_sentences(name):
    text, expected = REPORTS[name]
    assert split_sentences(text) == expected


def words(text):
    return Counter(re.findall(r"[^\W_]+", text))


def without_marks(text):
    """Words that are no enumeration mark, by a rule that only takes away too many."""
    return words(re.sub(r"(?:^|(?<=\s))\(?\d{1,2}[.)](?=\s)", " ", text))


def check_nothing_is_lost(text):
    kept = words(" ".join(split_sentences(text)))
    lost, invented = words(text) - kept, kept - words(text)
    assert not invented
    assert not without_marks(text) - kept
    assert all(re.fullmatch(r"\d{1,2}", word) for word in lost)


@pytest.mark.parametrize("name", REPORTS)
def test_no_word_is_lost(name):
    check_nothing_is_lost(REPORTS[name][0])


@pytest.mark.parametrize("name", [name for name in REPORTS if "enumeration" not in name])
def test_splitting_changes_white_space_only(name):
    text, sentences = REPORTS[name]
    if sentences and name != "removed identifiers":
        assert "".join(" ".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("name", REPORTS)
def test_sentences_are_not_split_again(name):
    for sentence in REPORTS[name][1]:
        assert split_sentences(sentence) == [sentence]


@pytest.mark.real_data
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="needs the development data")
def test_genuine_reports_lose_no_word():
    folder = Path(os.environ["CMCGNS_DEV_DATA"])
    openi = pd.read_csv(folder / "iu_reports" / "iu_reports.csv", dtype=str, keep_default_na=False)
    notes = pd.read_csv(folder / "case_notes" / "pairs.csv", dtype=str, keep_default_na=False)
    texts = [join_sections(f, i) for f, i in zip(openi["findings"], openi["impression"], strict=True)]
    texts += notes["report"].tolist()
    for text in texts:
        check_nothing_is_lost(text)
    lengths = [len(sentence.split()) for text in texts for sentence in split_sentences(text)]
    assert 3 < sum(lengths) / len(lengths) < 15
    assert max(lengths) < 150


@pytest.mark.parametrize(
    "same",
    ["no pleural effusion", "No  pleural\neffusion.", " NO PLEURAL EFFUSION!", "No pleural\u00a0effusion ."],
)
def test_trivial_differences_do_not_make_another_sentence(same):
    assert normalise_sentence(same) == "no pleural effusion"


def test_unicode_spellings_are_the_same_sentence_and_other_words_are_not():
    assert normalise_sentence(unicodedata.normalize("NFD", "Herz groß, Ödem")) == normalise_sentence(
        "HERZ GROSS, ÖDEM"
    )
    assert normalise_sentence("no effusion") != normalise_sentence("effusion")
    assert normalise_sentence("3.5 cm") != normalise_sentence("35 cm")


def test_text_numbers_are_stable_positive_and_fit_into_an_int64():
    assert text_number("no pleural effusion") == 2361798861040601404
    numbers = {text_number(str(number)) for number in range(2000)}
    assert len(numbers) == 2000
    assert all(0 < number < 2**63 for number in numbers)


def test_sections_are_joined_by_a_blank_line_that_ends_a_sentence():
    assert split_sentences(join_sections(" Heart normal ", "No edema\n")) == ["Heart normal", "No edema"]
    assert join_sections("", "A.") == "A."
    assert join_sections(" ", "") == ""
