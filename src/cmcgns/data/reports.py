"""Report text: sections to one text, text to sentences, sentences to comparable form."""

import hashlib
import re

# A full stop after these does not end a sentence.
_ABBREVIATION = re.compile(
    r"dr|mr|mrs|ms|prof|st|vs|approx|no|nos|fig|figs|e\.g|i\.e|cf|al|a\.m|p\.m|ca|resp|incl|excl|max|min|sup|inf|ant|post"
)
_ENUMERATION = re.compile(r"(?:^|(?<=\s))\(?\d{1,2}[.)]\s+(?=[A-ZÀ-Þ])")
_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n\s*\n|(?<=[a-zà-ÿ)][.!?])(?=[A-ZÀ-Þ][a-zà-ÿ])")
_INITIAL = re.compile(r"\b(?:[Dd]r|[Mm]rs?|[Mm]s|[Pp]rof)\.? [A-Z]\.$")  # "Dr. A. Smith"
_LAST_WORD = re.compile(r"([\w.]+)\.[\"')\]]*$")


def split_sentences(text: str) -> list[str]:
    """Split a report into sentences.

    Decimals ("3.5 cm"), levels ("T5."), titles ("Dr.") and enumerations ("2. Nodule") do not cut a sentence;
    one-word sentences ("Cardiomegaly.") stay. Line breaks inside a sentence are joined, blank lines end one.

    Args:
        text: any language; nothing but white space is changed.

    Returns:
        Sentences in order, without enumeration marks; empty for text without a letter or digit.
    """
    pieces: list[str] = []
    for part in _ENUMERATION.sub("\n\n", text).strip().split("\n\n"):
        pieces += _join_false_ends(re.split(_BOUNDARY, part))
    cleaned = (" ".join(piece.split()) for piece in pieces)
    return [piece for piece in cleaned if re.search(r"\w", piece)]


def _join_false_ends(pieces: list[str]) -> list[str]:
    """Undo cuts behind abbreviations, single letters and before lower-case words."""
    joined: list[str] = []
    for piece in pieces:
        if joined and _is_false_end(joined[-1], piece):
            joined[-1] = f"{joined[-1]} {piece}"
        else:
            joined.append(piece)
    return joined


def _is_false_end(before: str, after: str) -> bool:
    if not before.endswith((".", '."', ".)", ".]")) or not after:
        return False
    match = _LAST_WORD.search(before)
    word = match[1].lower() if match else ""
    if _ABBREVIATION.fullmatch(word) and word not in ("no", "max", "min", "st"):
        return True
    if word in ("no", "st", "max", "min"):  # "no. 3", but also "… or not? No."
        return after[:1].isdigit() or word == "st"
    return after[:1].islower() or bool(_INITIAL.search(before))


def normalise_sentence(sentence: str) -> str:
    """Lower case, single spaces, no closing punctuation: what makes two sentences the same text."""
    return " ".join(sentence.casefold().split()).strip(" .!?;:,")


def text_number(text: str) -> int:
    """A positive 63-bit number; equal for equal text, on every machine and rank."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1 or 1


def join_sections(findings: str, impression: str) -> str:
    """Findings, then impression, as one text."""
    return "\n\n".join(part.strip() for part in (findings, impression) if part.strip())
