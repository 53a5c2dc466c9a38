"""Any text at all goes through sections, sentences and word pieces, and nothing of it is lost on the way."""

import re

import hypothesis
import numpy as np
from hypothesis import strategies as st

from cmcgns.data.reports.section_rules import list_rules, load_rules
from cmcgns.data.reports.sections import split_sections
from cmcgns.data.reports.text import normalise_sentence, split_sentences, text_number
from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.data.reports.tokens import tokenize_reports

RULES = {name: load_rules(name) for name in list_rules()}
TOKENIZER = train_tokenizer(["No effusion.", "The heart is normal.", "Kein Erguß."] * 2, 200)
PIECES = st.sampled_from(
    ["FINDINGS:", "Impression -", "**Findings**", "Befund:", "HALLAZGOS:", "\n", "\n\n", ". ", " 2. ", "3.5 cm",
     "Dr. ", "___", "XXXX", "[**x**]", "No effusion.", "Kein Erguß", "心脏正常。", "e\u0301", "\u0315", "\U0001e900",
     "\x00", "\x85"]
)  # fmt: skip
REPORTS = st.lists(PIECES | st.text(max_size=12), max_size=30).map("".join)
settings = hypothesis.settings(max_examples=150, deadline=None)


@settings
@hypothesis.given(REPORTS, st.sampled_from(list_rules()))
def test_sections_add_no_word(report, name):
    sections = split_sections(report, RULES[name])
    assert all(text.strip() == text and text for text in sections.values())
    words = set(re.findall(r"[^\W_]+", report))
    # A mark within a word parts it; every part was there before.
    assert all(
        any(word in given for given in words) for text in sections.values() for word in re.findall(r"[^\W_]+", text)
    )


@settings
@hypothesis.given(REPORTS)
def test_sentences_keep_every_letter(report):
    letters = [letter for letter in report if letter.isalpha()]
    assert [letter for sentence in split_sentences(report) for letter in sentence if letter.isalpha()] == letters


@settings
@hypothesis.given(st.lists(REPORTS, min_size=1, max_size=4), st.integers(3, 40), st.integers(1, 8))
def test_no_sentence_within_the_bounds_is_lost(reports, max_tokens, max_sentences):
    tokens = tokenize_reports(reports, TOKENIZER, max_tokens, max_sentences)
    for row, report in enumerate(reports):
        sentences = split_sentences(report)
        owners = tokens.token_sentence[tokens.token_offsets[row] : tokens.token_offsets[row + 1]]
        kept = tokens.sentence_text[tokens.sentence_offsets[row] : tokens.sentence_offsets[row + 1]]
        assert owners[0] == owners[-1] == -1
        assert sorted(set(owners[1:-1].tolist())) == list(range(len(kept)))  # each has a word piece of its own
        assert (np.diff(owners[1:-1]) >= 0).all()
        assert len(owners) <= max_tokens
        assert kept.tolist() == [text_number(normalise_sentence(text)) for text in sentences[: len(kept)]]
        if len(kept) < min(len(sentences), max_sentences):
            assert len(owners) == max_tokens
