"""Reports cut into sections, and marks of removed identifiers taken out."""

import os
import re
import time
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.reports.section_rules import SectionRules, list_rules, load_rules
from cmcgns.data.reports.sections import has_heading, remove_marks, split_sections

MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough.  // eval for pneumonia

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  Heart size
 is normal.

 No effusion.

 IMPRESSION:

 1. No acute process.
 2. 3.5 mm nodule at T5.
"""


@pytest.fixture(scope="module")
def english() -> SectionRules:
    return load_rules("english")


def test_a_report_of_mimic_cxr(english: SectionRules) -> None:
    assert split_sections(MIMIC, english) == {
        "examination": "CHEST (PA AND LAT)",
        "indication": "F with cough.  // eval for pneumonia",
        "technique": "Chest PA and lateral",
        "findings": "The lungs are clear.  Heart size\nis normal.\n\nNo effusion.",
        "impression": "1. No acute process.\n2. 3.5 mm nodule at T5.",
    }


def test_line_ends_do_not_matter(english: SectionRules) -> None:
    assert split_sections(MIMIC.replace("\n", "\r\n"), english) == split_sections(MIMIC, english)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FINDINGS: Clear.\nIMPRESSION: Normal.", {"findings": "Clear.", "impression": "Normal."}),
        ("Findings: Clear.\nImpression: Normal.", {"findings": "Clear.", "impression": "Normal."}),
        ("FINDINGS\nClear.\n\nIMPRESSION\nNormal.", {"findings": "Clear.", "impression": "Normal."}),
        ("findings: clear.\nimpression: normal.", {"findings": "clear.", "impression": "normal."}),
        (
            "HISTORY: Cough. FINDINGS: Clear. IMPRESSION: Normal.",
            {"history": "Cough.", "findings": "Clear.", "impression": "Normal."},
        ),
        ("CLINICAL HISTORY: Cough. IMPRESSION:Normal.", {"history": "Cough.", "impression": "Normal."}),
        ("FINDINGS AND IMPRESSION: Clear.", {"impression": "Clear."}),
        ("FINDINGS/IMPRESSION: Clear.", {"impression": "Clear."}),
        ("FINDINGS / IMPRESSION:\nClear.", {"impression": "Clear."}),
        ("CONCLUSION: Clear.", {"impression": "Clear."}),
        ("IMPRESSON: Clear.", {"impression": "Clear."}),
        ("IMPRESSION: Clear.\nIMPRESSION: Stable.", {"impression": "Clear.\n\nStable."}),
        ("IMPRESSION: Clear.\nIMPRESSION: Clear.", {"impression": "Clear."}),
        ("CHEST, TWO VIEWS: Clear.", {"findings": "Clear."}),
        ("FINDINGS: TWO VIEWS: Clear.", {"findings": "TWO VIEWS: Clear."}),
        ("FINDINGS: PRIOR STUDY: Clear. IMPRESSION: Old.", {"findings": "PRIOR STUDY: Clear.", "impression": "Old."}),
        ("CHEST PA AND LATERAL FINDINGS: Clear. IMPRESSION: Old.", {"findings": "Clear.", "impression": "Old."}),
        ("PA AND LATERAL VIEWS OF THE CHEST: Clear.", {"findings": "Clear."}),
        ("PORTABLE AP CHEST RADIOGRAPH:\nClear.", {"findings": "Clear."}),
        ("COMPARISON CHEST FILMS: None.\nFINDINGS: Clear.", {"comparison": "None.", "findings": "Clear."}),
        ("REASON FOR EXAM: Cough.\nIMPRESSION: Clear.", {"indication": "Cough.", "impression": "Clear."}),
        # A title that looks like a heading has no text, so it is no section.
        ("CHEST, PA LATERAL:\n\nDATE: Today.\n\nIMPRESSION: Clear.", {"date": "Today.", "impression": "Clear."}),
        # Unknown headings in capitals: text of the findings, else a section of their own.
        ("FINDINGS:\nLUNGS: Clear.\nHEART: Normal.", {"findings": "LUNGS: Clear.\nHEART: Normal."}),
        ("PRIORITY: stat\nFINDINGS: Clear.", {"priority": "stat", "findings": "Clear."}),
        # Wrapped prose and times are no headings.
        (
            "FINDINGS: We discussed the\nfindings: all is\nhistory\nat 6:53 P.M. today.",
            {"findings": "We discussed the\nfindings: all is\nhistory\nat 6:53 P.M. today."},
        ),
        ("FINDINGS: Chest: clear. Left knee: intact.", {"findings": "Chest: clear. Left knee: intact."}),
        ("FINDINGS: Clear.\nNOTIFICATION: Dr. ___ at ___:53.", {"findings": "Clear.", "notification": "Dr. at."}),
        ("FINDINGS: Clear.\nRECOMMENDATION(S): CT.", {"findings": "Clear.", "recommendations": "CT."}),
        ("", {}),
        (" \n\t\n", {}),
        ("IMPRESSION:", {}),
    ],
)  # fmt: skip
def test_headings(text: str, expected: dict[str, str], english: SectionRules) -> None:
    assert split_sections(text, english) == expected


BOTH = {"findings": "The lungs are clear.", "impression": "Normal."}


@pytest.mark.parametrize(
    "text",
    [
        "FINDINGS - The lungs are clear.\nIMPRESSION - Normal.",
        "Findings – The lungs are clear.\nImpression – Normal.",
        "Findings.\nThe lungs are clear.\nImpression.\nNormal.",
        "FINDINGS. The lungs are clear.\nIMPRESSION. Normal.",
        "FINDINGS;\nThe lungs are clear.\nIMPRESSION;\nNormal.",
        "Findings\nThe lungs are clear.\nImpression\nNormal.",
        "**FINDINGS**\nThe lungs are clear.\n\n**IMPRESSION**\nNormal.",
        "**Findings:** The lungs are clear.\n**Impression**: Normal.",
        "- **Findings:** The lungs are clear.\n- **Impression:** Normal.",
        "## Findings\nThe lungs are clear.\n## Impression\nNormal.",
        "[FINDINGS] The lungs are clear. [IMPRESSION] Normal.",
        "<b>FINDINGS:</b> The lungs are clear. <b>IMPRESSION:</b> Normal.",
        "1. FINDINGS: The lungs are clear.\n2. IMPRESSION: Normal.",
        "FINDINGS:The lungs are clear.IMPRESSION:Normal.",
        "Findings: The lungs are clear. Impression: Normal.",
        "FINDINGS：The lungs are clear.\nIMPRESSION：Normal.",
    ],
)
def test_other_forms_of_headings(text: str, english: SectionRules) -> None:
    assert split_sections(text, english) == BOTH
    assert has_heading(text, english)


@pytest.mark.parametrize(
    "text",
    [
        "Findings are consistent with pneumonia. Impression is unchanged.",
        "The heart is normal. Findings consistent with edema.\nFindings discussed with team.",
        "Discussed in the\nImpression of\nhistory",
        "There is a comparison. Note: a skin fold.",
        "Findings-related discussion. Impression-like opacity.",
    ],
)
def test_prose_is_no_heading(text: str, english: SectionRules) -> None:
    assert split_sections(text, english) == {"findings": text}
    assert not has_heading(text, english)


def test_a_german_noun_that_a_line_begins_with_is_no_heading() -> None:
    text = "Befund\nHerz normal, im\nVergleich. Kein Erguss.\nBeurteilung\nNormal."
    assert split_sections(text, load_rules("german")) == {
        "findings": "Herz normal, im\nVergleich. Kein Erguss.",
        "impression": "Normal.",
    }


def test_marks_in_brackets_go_too(english: SectionRules) -> None:
    assert remove_marks("Seen by Dr. [**Last Name (STitle) 44**] on [**2118-6-2**].", english) == "Seen by Dr. on."


@pytest.mark.parametrize("heading", ["WET READ: ___ 9:39 PM", "WET READ VERSION #1 ___ 9:39 PM", "WET READ:"])
def test_a_wet_read_is_no_findings_and_ends_at_the_final_report(heading: str, english: SectionRules) -> None:
    text = f"{heading}\n Edema.\n{'_' * 78}\n{' ' * 33}FINAL REPORT\n HISTORY: Cough.\n\n Clear lungs."
    sections = split_sections(text, english)
    assert sections["wet_read"].endswith("Edema.")
    assert sections["history"] == "Cough."
    assert sections["findings"] == "Clear lungs."
    assert "impression" not in sections


def test_addenda_stay_apart_unless_the_rules_say_otherwise(english: SectionRules, tmp_path: Path) -> None:
    text = "ADDENDUM\n Seen by two readers.\n______\n FINAL REPORT\n IMPRESSION: Normal.\n ADDENDUM: Now a nodule."
    expected = {"addendum": "Seen by two readers.\n\nNow a nodule.", "impression": "Normal."}
    assert split_sections(text, english) == expected
    file = tmp_path / "mine.yaml"
    file.write_text(
        "headings: {findings: [findings], impression: [impression, addendum], preamble: [final report]}\n"
    )
    assert split_sections("IMPRESSION: Normal.\nADDENDUM: Now a nodule.", load_rules(file)) == {
        "impression": "Normal.\n\nNow a nodule."
    }


def test_without_headings_the_body_becomes_findings(english: SectionRules) -> None:
    report = "FINAL REPORT\nAP CHEST, 6:53 P.M.\n\nHISTORY: Cough.\n\nCompared.\n\nClear lungs.\n\nWET READ: ok\n\nok"
    assert split_sections(report, english) == {
        "preamble": "AP CHEST, 6:53 P.M.",
        "history": "Cough.",
        "wet_read": "ok\n\nok",
        "findings": "Compared.\n\nClear lungs.",
    }
    assert split_sections("Clear lungs.\n\nNormal heart.", english) == {"findings": "Clear lungs.\n\nNormal heart."}
    assert split_sections("CHEST PA\n\nClear lungs.", english) == {"preamble": "CHEST PA", "findings": "Clear lungs."}
    assert split_sections("INDICATION: Cough.", english) == {"indication": "Cough."}


@pytest.mark.parametrize(
    ("setting", "findings"), [("last_paragraph", "Second."), ("body", "First.\n\nSecond."), ("nothing", None)]
)
def test_what_is_taken_without_headings_is_a_setting(setting: str, findings: str | None, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "headings: {findings: [findings], impression: [impression], history: [history]}\n"
        f"without_heading: {setting}\n"
    )
    sections = split_sections("HISTORY: Cough.\n\nFirst.\n\nSecond.", load_rules(file))
    assert sections.get("findings") == findings
    assert sections["history"].startswith("Cough.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("___ year old man", "year old man"),
        ("___-year-old man", "year-old man"),
        ("CT from ___.", "CT from."),
        ("CT from ___, no change.", "CT from, no change."),
        ("Dr. ___ by Dr. ___ on ___ at ___:53.", "Dr. by Dr. on at."),
        ("Dr. ___ (___) called", "Dr. called"),
        ("by Dr. Smith, ___, by phone", "by Dr. Smith, by phone"),
        ("seen by Smith, ___.", "seen by Smith."),
        ("___, ___ ___ PM", "PM"),
        ("on 02/010/XXXX at 9:__pm", "on at pm"),
        ("Normal. XXXX. Clear.", "Normal. Clear."),
        ("No XXXX effusion.", "No effusion."),
        ("Normal chest x-XXXX.", "Normal chest x."),
        ("a 4-XXXX-old boy", "a 4-old boy"),
        ("XXXX's film", "film"),
        ("p___WET", "p WET"),
        ("___M with cough", "M with cough"),
        ("as of\n___. Clear\nlungs", "as of. Clear\nlungs"),
        ("as of\n___\nclear", "as of\nclear"),
        ("___", ""),
        ("XXXX XXXX", ""),
        # Not marks.
        ("T4_5 and XXX and AXXXXB", "T4_5 and XXX and AXXXXB"),
        ("Größe 3,5 cm; 心脏正常。 L’œdème , é ( ) .. ", "Größe 3,5 cm; 心脏正常。 L’œdème , é ( ) .. "),
    ],
)
def test_marks(text: str, expected: str, english: SectionRules) -> None:
    assert remove_marks(text, english) == expected
    assert remove_marks(expected, english) == expected


def test_marks_can_be_replaced_or_kept(tmp_path: Path) -> None:
    head = "headings: {findings: [findings], impression: [impression]}\n"
    file = tmp_path / "mine.yaml"
    file.write_text(head + "marks: {pattern: '_{3}', replace: 'somebody\\1'}\n")
    assert remove_marks("by ___ , ___.", load_rules(file)) == "by somebody\\1 , somebody\\1."
    file.write_text(head)
    assert remove_marks("by ___.", load_rules(file)) == "by ___."


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "spanish",
            "INDICACIÓN CLÍNICA: Disnea.\nHALLAZGOS: Índice torácico normal.\nIMPRESION DIAGNOSTICA: Sin lesión.",
            {"indication": "Disnea.", "findings": "Índice torácico normal.", "impression": "Sin lesión."},
        ),
        (
            "spanish",
            "TÉCNICA: PA. HALLAZGOS: Normal. CONCLUSIÓN: Normal.",
            {"technique": "PA.", "findings": "Normal.", "impression": "Normal."},
        ),
        (
            "german",
            "Fragestellung: Pneumonie?\nBefund:\nHerz nicht vergrößert.\n\nBEURTEILUNG\nKein Erguß.",
            {"indication": "Pneumonie?", "findings": "Herz nicht vergrößert.", "impression": "Kein Erguß."},
        ),
        (
            "german",
            "VORLÄUFIGER BEFUND: Erguss.\nRÖNTGENBEFUND: Kein Erguss. ERGÄNZUNG: Gesehen.",
            {"wet_read": "Erguss.", "findings": "Kein Erguss.", "addendum": "Gesehen."},
        ),
    ],
)
def test_other_languages(language: str, text: str, expected: dict[str, str]) -> None:
    assert split_sections(text, load_rules(language)) == expected


def test_every_rule_file_of_the_package_is_valid() -> None:
    assert list_rules() == ["english", "german", "spanish"]
    for name in list_rules():
        assert {"findings", "impression", "addendum", "comparison"} <= set(load_rules(name).plain.values())


HEADINGS = "headings: {findings: [findings], impression: [impression]}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("headings: [", "not valid YAML"),
        ("", "headings: Field required"),
        ("- a", "a mapping of settings is expected"),
        ("headings: {findings: [findings]}", "headings: needs at least one heading for impression"),
        ("headings: {findings: [a], impression: ['/(/']}", "headings: '(' is no regular expression"),
        ("headings: {findings: [a], impression: [À]}", "'À' is listed under findings and under impression"),
        ("headings: {findings: [a], impression: ['']}", "impression has an empty entry"),
        (f"{HEADINGS}\nmark: {{}}", "mark is no setting. Did you mean marks?"),
        (f"{HEADINGS}\nmarks: {{pattern: '['}}", "marks.pattern: '[' is no regular expression"),
        (f"{HEADINGS}\nwithout_heading: all", "without_heading: Input should be"),
        (f"{HEADINGS}\nignore_lines: ['/*/']", "ignore_lines: '*' is no regular expression"),
        (f"{HEADINGS}\n{HEADINGS}", "headings is given twice"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_wrong_rule_file_is_explained(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_rules(file)
    assert str(file) in str(caught.value)


def test_an_unknown_rule_file_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean english"):
        load_rules("englisch")
    with pytest.raises(UserError, match="german"):
        load_rules("missing.yaml")


def test_a_long_line_takes_no_long_time(english: SectionRules) -> None:
    for text in (
        "A " * 100_000,
        "___ " * 50_000,
        "A, B " * 20_000 + ":",
        "\n".join(["FINDINGS: a"] * 5000),
        "(" * 50_000,
    ):
        started = time.process_time()
        split_sections(text, english)
        assert time.process_time() - started < 20, text[:10]


def test_synthetic_reports_in_mimic_layout(english: SectionRules) -> None:
    """Headings that the reports show at line starts are found; no word is lost or added."""
    try:
        files = [file for file in metadata.files("radlabels") or [] if file.match("synthetic_reports/*.txt")]
    except metadata.PackageNotFoundError:
        pytest.skip("the package radlabels is not installed")
    assert len(files) == 1000
    for file in files:
        text = Path(str(file.locate())).read_text("utf-8")
        sections = split_sections(text, english)
        for name, heading in (("findings", "FINDINGS"), ("impression", "IMPRESSION"), ("comparison", "COMPARISON")):
            match = re.search(rf"^[ ]*{heading}:[ \n]*(?![^\n]+:)([a-zA-Z]+)", text, re.MULTILINE)
            if match:
                assert match[1] in sections[name], file.name
        kept = re.findall(r"[^\W_]+", " ".join(sections.values()))
        assert len(kept) <= len(re.findall(r"[^\W_]+", text))
        assert set(kept) <= set(re.findall(r"[^\W_]+", text)), file.name


@pytest.mark.real_data
def test_marks_of_genuine_reports_leave_every_other_word(english: SectionRules) -> None:
    folder = os.environ.get("CMCGNS_DEV_DATA")
    if not folder:
        pytest.skip("CMCGNS_DEV_DATA is not set")
    reports = pd.read_csv(Path(folder) / "iu_reports" / "iu_reports.csv", keep_default_na=False)
    texts = pd.concat([reports["findings"], reports["impression"]])
    assert texts.str.contains("XXXX").sum() > 2000
    for text in texts:
        cleaned = remove_marks(text, english)
        if "XXXX" not in text:
            assert cleaned == text
            continue
        assert not re.search(r"\bX{4,}\b| [.,;:)]|\( | {2}", cleaned.replace("  ", " ")) or re.search(
            r" [.,;:)]|\( ", text
        )
        words = [word for word in re.findall(r"[A-Za-z]+", text) if not re.fullmatch(r"X{4,}", word)]
        left = re.findall(r"[A-Za-z]+", cleaned)
        assert [word for word in words if word != "s"] == [word for word in left if word != "s"]
