"""Sentences are cut where they end, and nowhere else; no word is lost."""

import importlib.util
import os
import random
import re
import time
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.data.reports.text import normalise_sentence, split_sentences, text_number

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
    "level without space": (
        "Fracture at T5.No edema. Clip at L2.Then more.",
        ["Fracture at T5.", "No edema.", "Clip at L2.", "Then more."],
    ),
    "removed mark without space": (
        "Old clip XXXX.In the apex a nodule.",
        ["Old clip XXXX.", "In the apex a nodule."],
    ),
    "removed marks": (
        "Called at 5 p.m. XXXX/XXXX. Normal chest x-XXXX. XXXX XXXX clear. Read by Dr. XXXX XXXX. Done.",
        [
            "Called at 5 p.m. XXXX/XXXX.",
            "Normal chest x-XXXX.",
            "XXXX XXXX clear.",
            "Read by Dr. XXXX XXXX.",
            "Done.",
        ],
    ),
    "title without space": ("Told Dr.Smith today. Done.", ["Told Dr.Smith today.", "Done."]),
    "hour that ends a sentence": ("Called at 5 p.m. The nurse came.", ["Called at 5 p.m.", "The nurse came."]),
    "more initials": ("Seen by J. A. Smith. Done.", ["Seen by J. A. Smith.", "Done."]),
    "that is": ("Fluid, i.e. Effusion, cf. CT, approx. 3 ml.", ["Fluid, i.e. Effusion, cf. CT, approx. 3 ml."]),
    "and others": ("Clips etc. are seen. Wires etc. No edema.", ["Clips etc. are seen.", "Wires etc.", "No edema."]),
    "place": ("Opacity in the sup. lobe. Edema, rt. side.", ["Opacity in the sup. lobe.", "Edema, rt. side."]),
    "capitals that are no title": ("Recommend MR. No effusion.", ["Recommend MR.", "No effusion."]),
    "vessel before a small letter": ("Tip in SVC. there is no edema.", ["Tip in SVC.", "there is no edema."]),
    "unit": (
        "Mass of 3 cm. in diameter. Now 4 cm. No edema.",
        ["Mass of 3 cm. in diameter.", "Now 4 cm.", "No edema."],
    ),
    "torn decimal": ("A 3. 5 cm mass. Rib 7. 5 mm nodule.", ["A 3. 5 cm mass.", "Rib 7.", "5 mm nodule."]),
    "range": ("Nodule of 5-7 mm. 3 - 4 mm before.", ["Nodule of 5-7 mm.", "3 - 4 mm before."]),
    "ellipsis": ("Opacity ... unchanged. Nodule... Edema.", ["Opacity ... unchanged.", "Nodule...", "Edema."]),
    "stops twice": ("No edema.. Heart normal . Clear. .", ["No edema..", "Heart normal .", "Clear."]),
    "bracket inside": ("Nodule (see above.) in the apex. Clear.", ["Nodule (see above.) in the apex.", "Clear."]),
    "square brackets": ("[Heart normal.&gt;] Lungs clear.", ["[Heart normal.&gt;]", "Lungs clear."]),
    "all capitals": (
        "CALLED DR. SMITH. LUNGS CLEAR.NO EDEMA. T5. NO. 3 VS. NO. 4.",
        ["CALLED DR. SMITH.", "LUNGS CLEAR.", "NO EDEMA.", "T5.", "NO. 3 VS. NO. 4."],
    ),
    "all small": (
        "nodule of 3 cm. seen at 5 p.m. today. opacity, bil. bases. any edema? no. clear",
        ["nodule of 3 cm.", "seen at 5 p.m. today.", "opacity, bil. bases.", "any edema?", "no.", "clear"],
    ),
    "no last stop": ("Heart normal. No edema", ["Heart normal.", "No edema"]),
    "forgotten stop": (
        "Normal chest There is edema No evidence of mass",
        ["Normal chest", "There is edema", "No evidence of mass"],
    ),
    "capital inside": ("Type that No doubt is seen on The film.", ["Type that No doubt is seen on The film."]),
    "addresses": (
        "See www.openi.org for more. Version 2.1.0 used.",
        ["See www.openi.org for more.", "Version 2.1.0 used."],
    ),
    "enumeration in small letters": ("1. heart large. 2. edema.", ["heart large.", "edema."]),
    "enumeration of numbers": (
        "1. Clear. 2. 8 mm nodule. 3. 1.7 cm mass.",
        ["Clear.", "8 mm nodule.", "1.7 cm mass."],
    ),
    "enumeration without spaces": ("1.Large heart. 2., Edema.3. Mass.", ["Large heart.", "Edema.", "Mass."]),
    "enumeration behind headings": (
        "Chest 1. Clear. Left foot 1. Normal.",
        ["Chest", "Clear.", "Left foot", "Normal."],
    ),
    "enumeration by lines": ("- Heart normal\n- No edema\n3 - 4 cm mass", ["Heart normal", "No edema 3 - 4 cm mass"]),
    "enumeration of letters": ("A. Heart: large. B. Lungs: clear.", ["A. Heart: large.", "B. Lungs: clear."]),
    "number inside an item of an enumeration": (
        "1. Fracture of rib 2. No effusion. 2. Edema.",
        ["Fracture of rib 2.", "No effusion.", "Edema."],
    ),
    "number behind a colon": ("Views: 2. Heart normal.", ["Views: 2.", "Heart normal."]),
    "short word": ("Opacity, bil. lower lobes.", ["Opacity, bil. lower lobes."]),
    "wrapped lines": ("The heart\nis normal.\n\nNO EDEMA", ["The heart is normal.", "NO EDEMA"]),
    "German": (
        "Herz nicht vergrößert. Ödem fehlt. Übrige Lunge frei.",
        ["Herz nicht vergrößert.", "Ödem fehlt.", "Übrige Lunge frei."],
    ),
    "Spanish": ("¿Derrame? Índice normal. Ángulos libres.", ["¿Derrame?", "Índice normal.", "Ángulos libres."]),
    "German ordinals": (
        "Am 3. Tag frei. Fraktur der 5. und 6. Rippe. 8. Rippe frei. Rippe 5 und 6. Kein Erguss. Am 12. 3. 2020.",
        [
            "Am 3. Tag frei.",
            "Fraktur der 5. und 6. Rippe.",
            "8. Rippe frei.",
            "Rippe 5 und 6.",
            "Kein Erguss.",
            "Am 12. 3. 2020.",
        ],
    ),
    "German abbreviations": (
        "V. a. Pneumonie, z. B. Viren, z.B. Grippe. Z. n. OP li. Lunge, ca. 3 ml bzw. Erguss. Frei.",
        ["V. a. Pneumonie, z. B. Viren, z.B. Grippe.", "Z. n. OP li. Lunge, ca. 3 ml bzw. Erguss.", "Frei."],
    ),
    "Spanish abbreviations": (
        "Vista por la Dra. Pérez. Nódulo de aprox. 3,5 cm, p. ej. Quiste. Base sup. libre. Costilla 7. Sin edema.",
        [
            "Vista por la Dra. Pérez.",
            "Nódulo de aprox. 3,5 cm, p. ej. Quiste.",
            "Base sup. libre.",
            "Costilla 7.",
            "Sin edema.",
        ],
    ),
    "Spanish ordinals": (
        "Fractura del 7.º arco. ¡Urgente! ¿Edema? No.",
        ["Fractura del 7.º arco.", "¡Urgente!", "¿Edema?", "No."],
    ),
    "Russian": ("Сердце не увеличено.Выпота нет. Норма.", ["Сердце не увеличено.", "Выпота нет.", "Норма."]),
    "Arabic": ("القلب طبيعي. هل يوجد انصباب؟ لا.", ["القلب طبيعي.", "هل يوجد انصباب؟", "لا."]),
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
    return words(re.sub(r"(?:^|(?<=[\s.]))\(?\d{1,2}[.)],?(?=\s|[A-Z])", " ", text))


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
    if sentences and name not in ("removed identifiers", "stops twice"):
        assert "".join(" ".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("name", REPORTS)
def test_sentences_are_not_split_again(name):
    for sentence in REPORTS[name][1]:
        assert split_sentences(sentence) == [sentence]


FRAGMENTS = [
    *(text for text, _ in REPORTS.values()),
    *("1.", " 2. ", "(3)", "4) ", "Dr.", "T5.", "3.5", " cm", ".", "..", "...", "?", "!)", "]", "\n", "\n\n", "\r\n"),
    *(
        "XXXX",
        "___",
        "der",
        "Rippe",
        "é",
        "ß",
        "。",
        "No",
        "no",
        "lungs",
        "a",
        "B",
        "p.m.",
        "\u00a0",
        "\t",
        "- ",
        ",",
    ),
]


LEFT_OUT = re.compile(r"(?:\(?\d{1,2}[.)],?|[\W_])*")  # marks, and stops that stand alone


def without_white_space(text):
    return "".join(text.split())


@pytest.mark.parametrize("seed", range(300))
def test_no_character_is_lost_apart_from_marks(seed):
    """Read side by side, text and sentences differ by marks and by stops that stand alone, and by nothing else."""
    chance = random.Random(seed)
    text = chance.choice(["", " "]).join(chance.choices(FRAGMENTS, k=chance.randint(1, 12)))
    rest = without_white_space(text)
    for sentence in split_sentences(text):
        before, found, rest = rest.partition(without_white_space(sentence))
        assert found, (text, sentence)
        assert LEFT_OUT.fullmatch(before), (text, before)
    assert LEFT_OUT.fullmatch(rest), (text, rest)


CHANGES = {
    "leading blank": lambda text: f" {text}",
    "lines around": lambda text: f"\n\n{text}\n",
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "old Macintosh line ends": lambda text: text.replace("\n", "\r"),
    "two blanks": lambda text: text.replace(" ", "  "),
    "no-break blanks": lambda text: text.replace(". ", ".\u00a0"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", REPORTS)
def test_white_space_does_not_change_the_sentences(name, change):
    text, expected = REPORTS[name]
    assert split_sentences(CHANGES[change](text)) == expected


@pytest.mark.parametrize("name", [name for name in REPORTS if "without" not in name and "forgotten" not in name])
def test_a_report_behind_another_splits_as_before(name):
    text, expected = REPORTS[name]
    assert split_sentences(f"Heart normal.\n\n{text}\n\nNormal chest.") == [
        "Heart normal.",
        *expected,
        "Normal chest.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        ".",
        "a. ",
        "e.g. ",
        "1. ",
        "1. A ",
        "1. a ",
        "- ",
        ".)",
        "(",
        "aaaa.",
        "aaaa There",
        "\n ",
        " ",
        "J. ",
        "。",
        "1.)",
    ],
)
def test_time_grows_with_the_length_only(text):
    started = time.process_time()
    split_sentences("word" + text * 20_000 + "x")
    assert time.process_time() - started < 20  # minutes, if a rule looked back over all that came before


@pytest.mark.real_data
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="needs the development data")
def test_genuine_reports_lose_no_word():
    folder = Path(os.environ["CMCGNS_DEV_DATA"])
    openi = pd.read_csv(folder / "iu_reports" / "iu_reports.csv", dtype=str, keep_default_na=False)
    notes = pd.read_csv(folder / "case_notes" / "pairs.csv", dtype=str, keep_default_na=False)
    texts = [f"{f}\n\n{i}" for f, i in zip(openi["findings"], openi["impression"], strict=True)]
    texts += notes["report"].tolist()
    for text in texts:
        check_nothing_is_lost(text)
    lengths = [len(sentence.split()) for text in texts for sentence in split_sentences(text)]
    assert 3 < sum(lengths) / len(lengths) < 15
    assert max(lengths) < 150


@pytest.mark.real_data
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="needs the development data")
def test_genuine_reports_are_cut_as_another_splitter_cuts_them():
    """The oracle knows no doubled stops, enumerations and forgotten stops: reports with those are left out."""
    oracle = pytest.importorskip("pysbd").Segmenter(language="en", clean=False)
    table = pd.read_csv(
        Path(os.environ["CMCGNS_DEV_DATA"]) / "iu_reports" / "iu_reports.csv", dtype=str, keep_default_na=False
    )
    simple = [text for text in table["findings"] if text and not re.search(r"[.]\s*[.]|\d[.)]\s|&|[.?!][A-Z]", text)][
        :400
    ]
    assert len(simple) > 200
    differ = [text for text in simple if [p.strip() for p in oracle.segment(text)] != split_sentences(text)]
    assert len(differ) < 0.02 * len(simple)


@pytest.fixture(scope="module")
def sample_program():
    path = Path(__file__).parents[3] / "benchmarks" / "sentence_sample.py"
    spec = importlib.util.spec_from_file_location("sentence_sample", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("wrong", "count", "low", "high"),
    [  # 0 and all: 1 - 0.025^(1/n) in closed form; the others from tables of the binomial distribution
        (0, 600, 0.0, 1 - 0.025 ** (1 / 600)),
        (600, 600, 0.025 ** (1 / 600), 1.0),
        (1, 1, 0.025, 1.0),
        (3, 600, 0.0010323095, 0.0145420421),
        (6, 600, 0.0036784164, 0.0216379557),
        (300, 600, 0.4592436803, 0.5407563197),
    ],
)
def test_the_interval_is_exact(sample_program, wrong, count, low, high):
    assert sample_program.interval(wrong, count) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_refuses_what_is_no_share(sample_program):
    for wrong, count in [(-1, 5), (6, 5), (0, 0)]:
        with pytest.raises(ValueError, match="is no share"):
            sample_program.interval(wrong, count)


def test_a_sample_is_drawn_by_seed_and_grows_without_changing(sample_program):
    texts = [f"Nodule {number}. Clear. Edema." for number in range(200)]
    drawn = sample_program.draw(texts, 20, seed=5)
    assert len(set(drawn)) > 10
    assert drawn == sample_program.draw(texts, 20, seed=5) != sample_program.draw(texts, 20, seed=6)
    assert len(sample_program.draw(texts, 10_000, seed=5)) == 600
    distinct = sample_program.draw(texts, 10_000, 5, distinct=True)
    assert len(distinct) == 202
    assert {"## >> Nodule 7. << Clear.", "Nodule 0. >> Clear. << Edema.", "Clear. >> Edema. << ##"} < set(distinct)


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
