"""Whatever a report holds, ten times as much of it takes about ten times as long, not a hundred times."""

import time
from collections.abc import Callable

import pytest

from cmcgns.data.reports.identifiers import identifier_kinds
from cmcgns.data.reports.section_rules import list_rules, load_rules
from cmcgns.data.reports.sections import remove_marks, split_sections, without_own_heading
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.data.reports.tokenizer import encode_sentences, train_tokenizer

# Pieces of every alphabet that an expression knows, to be repeated without end.
PIECES = [
    "1", "12/", "1.", "1. ", "(2) A ", " ", "\t", "\n", " \n", "\n \n", ".", ". ", "?", "؟", "。", "a", "A", "A ",
    "aB", "(", ")", "[", "[**", "_", "___ ", "X", "XXXX ", "-", "- ", "*", "**a** ", "=", ":", "FINDINGS:",
    "FINDINGS ",
    "FINDINGS - ", "Findings. ", "Impression: a. ", "/", " / ", '"', "&gt;", "\u0301", "\u0315\u0300", "é", "心", "@",
    "a.b@", "\x1c", "\x00", "ﷺ", "There is ", "Dr. A. ", "z. B. ", "12:30 ", "<b>", "Wirbel",
]  # fmt: skip
FRAMES = [("", ""), ("___ ", "a"), ("FINDINGS: a\n", " ___"), ("a", ":")]
SMALL, LARGE, MOST = 1_000, 10_000, 25  # characters, characters, times as long


RULES = {name: load_rules(name) for name in list_rules()}


def cut(text: str) -> None:
    for rules in RULES.values():
        split_sections(text, rules)


def mend(text: str) -> None:
    remove_marks(text, RULES["english"])
    without_own_heading(text, "findings", RULES["english"])


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["No effusion.", "Heart normal."] * 3, 100)


def seconds(work: Callable[[str], object], text: str, times: int = 1) -> float:
    """Of this process alone; the least of several tries, for other work disturbs."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work(text)
        found.append(time.process_time() - started)
    return min(found)


def is_linear(work: Callable[[str], object], piece: str, before: str = "", after: str = "") -> bool:
    small, large = (before + piece * (size // len(piece)) + after for size in (SMALL, LARGE))
    # Below a twentieth of a second the clock and the caches decide; the square of 10,000 takes a second or more.
    if seconds(work, large) < 0.05:
        return True
    return seconds(work, large, 3) < MOST * max(seconds(work, small, 3), 0.002)


@pytest.mark.parametrize("work", [split_sentences, normalise_sentence, cut, mend, lambda t: identifier_kinds([t])])
def test_reports_are_cut_in_linear_time(work):
    slow = [(piece, *frame) for piece in PIECES for frame in FRAMES if not is_linear(work, piece, *frame)]
    assert slow == []


def test_reports_are_tokenized_in_linear_time(tokenizer):
    slow = [piece for piece in PIECES if not is_linear(lambda text: encode_sentences(tokenizer, [text]), piece)]
    assert slow == []


@pytest.mark.parametrize("piece", ["a", "ab", "1", "é", "心", "."])
def test_a_tokenizer_is_trained_in_linear_time_beside_an_endless_word(piece):
    assert is_linear(lambda text: train_tokenizer(["No effusion.", text, text + "."], 500), piece)


@pytest.mark.parametrize("name", list_rules())
def test_sixty_thousand_digits_take_no_minute(name):
    """Each of them was once tried as the first of a date whose end is missing."""
    report = "FINDINGS: " + "1" * 60_000 + " ___"
    assert seconds(lambda text: split_sections(text, RULES[name]), report) < 2
    assert seconds(split_sentences, report) < 2


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["1", " ", "a", "_", "No effusion seen. ", "FINDINGS: a\n", "2.\n"])
def test_ten_hundred_and_a_thousand_kilobytes_and_five_megabytes(piece, tokenizer):
    def everything(text: str) -> None:
        split_sections(text, RULES["english"])
        encode_sentences(tokenizer, split_sentences(text))
        identifier_kinds([text])

    taken = {
        size: seconds(everything, piece * (size // len(piece))) for size in (10_000, 100_000, 1_000_000, 5_000_000)
    }
    assert taken[100_000] < MOST * max(taken[10_000], 0.005)
    assert taken[1_000_000] < MOST * max(taken[100_000], 0.01)
    assert taken[5_000_000] < 12 * max(taken[1_000_000], 0.05)
