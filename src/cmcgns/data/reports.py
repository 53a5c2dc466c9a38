"""Report text: sections to one text, text to sentences, sentences to comparable form."""

import hashlib
import re
import unicodedata

# A full stop after these does not end a sentence.
_ABBREVIATION = re.compile(
    r"dr|mr|mrs|ms|prof|st|vs|approx|no|nos|fig|figs|e\.g|i\.e|cf|al|a\.m|p\.m|ca|resp|incl|excl|max|min|sup|inf|ant|post"
)
_ENUMERATION = re.compile(r"(?:^|(?<=\s))\(?(\d{1,2})[.)]\s+(?=[A-ZÀ-Þ])")
_MARK_MAY_FOLLOW = re.compile(r"(?:^|[\n.!?:;])[\"')\]]*\s*$")
_BOUNDARY = re.compile(
    r"(?<=[.!?])\s+|(?<=[.!?][\"')\]])\s+|\n\s*\n|(?<=[。！？])|(?<=[a-zß-ÿ)][.!?])(?=[A-ZÀ-Þ][a-zß-ÿ])"
)
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
    for part in _remove_enumeration(text).strip().split("\n\n"):
        pieces += _join_false_ends(re.split(_BOUNDARY, part))
    cleaned = (" ".join(piece.split()) for piece in pieces)
    return [piece for piece in cleaned if re.search(r"[^\W_]", piece)]


def _remove_enumeration(text: str) -> str:
    """Replace "2. " by a blank line where it starts an item, but not in "the left rib 7. No effusion."."""
    number = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal number
        found = int(match[1])
        before = text[max(0, match.start() - 20) : match.start()]
        follows = _MARK_MAY_FOLLOW.search(before) and not _ABBREVIATION.fullmatch(_last_word(before.rstrip()))
        starts_list = found == 1 and re.search(r"\s\(?2[.)]\s", text[match.end() :])
        if not (follows or starts_list or (number and found == number + 1)):
            return match[0]
        number = found
        return "\n\n"

    return _ENUMERATION.sub(replace, text)


def _join_false_ends(pieces: list[str]) -> list[str]:
    """Undo cuts behind abbreviations and initials, and between a short word and a lower-case one ("bil. lungs")."""
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
    word = _last_word(before)
    if _ABBREVIATION.fullmatch(word) and word not in ("no", "max", "min", "st"):
        return True
    if word in ("no", "st", "max", "min"):  # "no. 3", but also "… or not? No."
        return after[:1].isdigit() or word == "st"
    # Many reports forget capitals, some have none: a lower-case word alone does not say that a sentence goes on.
    goes_on = after[:1].islower() and not before[:1].islower() and len(word) <= 3
    return goes_on or bool(_INITIAL.search(before))


def _last_word(text: str) -> str:
    match = _LAST_WORD.search(text)
    return match[1].lower() if match else ""


def normalise_sentence(sentence: str) -> str:
    """Lower case, single spaces, no closing punctuation: what makes two sentences the same text."""
    return " ".join(unicodedata.normalize("NFKC", sentence).casefold().split()).strip(" .!?;:,")


def text_number(text: str) -> int:
    """A positive 63-bit number; equal for equal text, on every machine and rank."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1 or 1


def join_sections(findings: str, impression: str) -> str:
    """Findings, then impression, as one text."""
    return "\n\n".join(part.strip() for part in (findings, impression) if part.strip())
