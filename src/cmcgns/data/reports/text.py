"""Report text: sections to one text, text to sentences, sentences to comparable form."""

import hashlib
import re
import unicodedata
from typing import Literal

MAX_REPORT = 1_000_000  # characters; real reports have a few thousand
_LONG, _MOST_ACCENTS = 1000, 30  # characters

# English, German and Spanish words whose full stop never ends a sentence: a name, a number or a noun follows.
_NEVER_ENDS = re.compile(
    r"dra?|mrs?|ms|prof|sra?|hr|fr|st|vs|approx|aprox|ca|figs?|e\.g|i\.e|cf|resp|incl|excl|bds|li|re|bzw|ggf|"
    r"evtl|vgl|inkl|z\.b|d\.h|p\.ej|ej"
)
# Words whose full stop ends a sentence unless a small letter follows ("at 5 p.m. today", "inf. lobe").
_MAY_END = re.compile(r"a\.m|p\.m|al|etc|usw|max|min|sup|inf|ant|post|lat|lob|bil|bilat|rt|lt|pt|izq|der|dcha")
_BEFORE_NUMBER = re.compile(r"nos?|nr|max|min")  # "no. 3", but also "Any edema? No."

# A stop with what closes it, then white space or a stuck word ("effusion.No"); full-width stops need neither. English
# openings that nobody writes within a sentence stand for a stop that was forgotten.
_STOP = re.compile(  # in time in proportion to the text, as every expression here: a run of stops is tried once
    r"""(?<![.!?…؟۔।])[.!?…؟۔।]+(?:["')\]>»”’]|&gt;)*(?:(?P<space>\s+)|(?=[^\W\d_]{2}))|[。！？｡]+[」』”’]*\s*"""
    r"""|(?<=[a-z]{4})(?P<forgotten>\s+)(?=(?:There (?:is|are)|The (?:lungs are|heart is)|No evidence)\b)"""
)
_LAST_WORD = re.compile(r"([\w.]*\w)\.+[\"')\]>»”’]*$")
_WITHOUT_VOWEL = re.compile(r"[b-df-hj-np-tv-xz]+")  # "mm.", "hx.", "wk."
# Letters of a name ("Dr. A. Smith", "by J. A. Smith"), a capital that opens a sentence ("B. Lungs: clear."), "z. B.".
_INITIAL = re.compile(
    r"(?:(?:^|\b(?:[Dd]r|DR|[Mm]rs?|[Mm]s|[Pp]rof)\.? |\b(?:by|with) )(?:[A-Z]\. ?)*[A-Z]|\bz\. B)\.$"
)

# German ordinals: "am 3. Tag", "der 5. und 6. Rippe"; but "zwischen Rippe 5 und 6. Kein Erguss."
_ORDINAL = re.compile(r"\b(?:der|die|das|de[mns]|am|im|vom|zum|zur|beim) \d{1,2}\.$")
_ORDINAL_NOUN = re.compile(
    r"(?:und|bis|oder)\b|Rippe|Tage?s?\b|Woche|Monat|Jahr|Lebens|Interkostal|ICR|[HBL]WK|\w*[Ww]irbel|"
    r"(?:Jan|Febr|April|Mai|Jun|Jul|August|Septem|Okto|Novem|Dezem)(?:uar|i|ber|)\b|März"
)
# A number torn in two: "a 3. 5 cm mass", "vom 12. 3. 2020"; but "fracture of rib 7. 5 mm nodule".
_TORN_NUMBER = re.compile(
    r"(?:\b(?:an?|of|is|by|x|to|than|about|approximately|measur(?:es|ed|ing)|am|vom|von|de|mit)|\d\.) \d{1,2}\.$",
    re.IGNORECASE,
)

# "2. ", "(2) ", "2) ", "2., ", "2.Nodule", "effusion.2. Nodule", and "- " at the start of a line.
_MARK = re.compile(
    r"(?:^|(?<=\s)|(?<=[^\W\d_]{2}\.)|(?<=\.\.))"
    r"(?:\(?(\d{1,2})[.)],?(?:\s+|(?=[A-ZÀ-Þ][a-zß-ÿ]))(?=\S)|[-*•–]\s+(?=[^\W\d_]))"
)
_SENTENCE_BEFORE = re.compile(r"(?:^|[\n.!?:;…])[\"')\]]*\s*$")
_LINE_BEFORE = re.compile(r"(?:^|\n)\s*$")
_HEADING_BEFORE = re.compile(r"(?:^|[\n.!?])\s*[^\W\d_]+(?: [^\W\d_]+)?\s+$")
# Words that take a number: "1. Fracture of rib 2. No effusion." holds one mark.
_TAKES_NUMBER = re.compile(
    r"\b(?:and|or|to|through|of|the|at|in|by|on|with|than|ribs?|levels?|segments?|zone|grade|stage|type|images?|views?|"
    r"series|number|no\.|day|vertebra\w*|[tlcs]|de[rmns]|die|das|am|im|vom|zum|zur|beim|und|oder|bis|rippen?|costillas?|"
    r"vértebras?|grado|tipo|y|o|de|la)\s+$",
    re.IGNORECASE,
)


def split_sentences(text: str) -> list[str]:
    """Split a report into sentences.

    Decimals ("3.5 cm"), levels ("T5."), titles ("Dr.") and enumerations ("2. Nodule") do not cut a sentence;
    one-word sentences ("Cardiomegaly.") stay. Line breaks inside a sentence are joined, blank lines end one.

    Args:
        text: any language; nothing but white space is changed.

    Returns:
        Sentences in order, without enumeration marks and without pieces that hold no letter and no digit;
        empty for text without a letter or digit.
    """
    lines = "\n".join(" ".join(line.split()) for line in text.splitlines())  # single blanks, for the rules
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", _remove_marks(lines)))
    pieces = (piece.strip() for paragraph in paragraphs for piece in _cut(paragraph))
    return [piece for piece in pieces if re.search(r"[^\W_]", piece)]


def _remove_marks(text: str) -> str:
    """Put a blank line in place of a mark that starts an item, but not in "the left rib 7. No effusion."."""
    number = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal number
        before = text[max(0, match.start() - 80) : match.start()]
        after = text[match.end() : match.end() + 1000]
        if match[1] is None:
            return "\n\n" if _LINE_BEFORE.search(before) else match[0]
        found = int(match[1])
        if not _starts_item(found, number, before, after):
            return match[0]
        number = found
        return "\n\n"

    return _MARK.sub(replace, text)


def _starts_item(found: int, number: int, before: str, after: str) -> bool:
    """Whether ``found``, behind the item ``number`` (0: none yet), is a mark: by its place and by the count."""
    if _ORDINAL_NOUN.match(after):
        return False
    counts_on = found in (1, number + 1)
    if _SENTENCE_BEFORE.search(before) and not _wants_more(_last_word(before.rstrip()).lower(), "1"):
        # A line or sentence that opens with some number may go on with it ("3. 5 cm"), unless the numbers count on.
        return counts_on or (after[:1].isupper() and not before.rstrip().endswith(":"))
    if not after[:1].isupper() or _TAKES_NUMBER.search(before):
        return False
    if found == 1:
        return bool(_HEADING_BEFORE.search(before) or re.search(r"\s\(?2[.)]\s", after))
    return number > 0 and counts_on


def _cut(text: str) -> list[str]:
    pieces, start = [], 0
    for match in _STOP.finditer(text):
        before = text[max(start, match.end() - 80) : match.end()].strip()
        after = text[match.end() : match.end() + 20]
        small = text[start : start + 1].islower()
        if match["forgotten"] or _ends(before, after, small, stuck=not match["space"]):
            pieces.append(text[start : match.end()])
            start = match.end()
    return [*pieces, text[start:]]


def _ends(before: str, after: str, small: bool, stuck: bool) -> bool:
    """Whether a sentence ends between two stretches of text.

    Args:
        before: the last 80 characters of the sentence, up to and with its stop.
        after: what follows behind white space.
        small: the sentence opens with a small letter, as in texts without capitals.
        stuck: no white space follows the stop.
    """
    word = _last_word(before)
    if after[:1].islower() and before.endswith(("...", "…", ".)", ".]")):  # "opacity ... unchanged"
        return False
    if not word:  # "?", "!", "。", " ."
        return not stuck or after[:1].isupper() or before[-1] in "。！？｡」』"
    if stuck and not (after[:1].isupper() and len(word) > 1):  # "www.site.org", "A.Smith"
        return False
    # An abbreviation in capitals is another word unless all is in capitals: "Recommend MR. No effusion."
    known = word.lower() if word != word.upper() or word == "DR" or after[:2].isupper() else word
    letter = len(word) == 1 and word.islower()  # German "V. a. Pneumonie", "Z. n. Operation"
    initial = word[-2:-1] in ("", ".") and _INITIAL.search(before)
    if letter or initial or _wants_more(known, after):
        return False
    if _MAY_END.fullmatch(known):
        return not (after[:1].islower() or after.startswith(("XXXX", "___")))
    if word.isdecimal():
        return not _number_goes_on(before, after)
    # Many reports forget capitals, some have none: a small letter alone does not say that a sentence goes on, only
    # behind an abbreviation in a sentence that opened with a capital.
    return small or not after[:1].islower() or not (_WITHOUT_VOWEL.fullmatch(word) or len(word) == 1)


def _wants_more(word: str, after: str) -> bool:
    number_follows = after[:1].isdigit() and _BEFORE_NUMBER.fullmatch(word.lower())
    return bool(number_follows or _NEVER_ENDS.fullmatch(word))


def _number_goes_on(before: str, after: str) -> bool:
    ordinal = _ORDINAL.search(before) or _ORDINAL_NOUN.match(after)
    return bool(ordinal or (after[:1].isdigit() and _TORN_NUMBER.search(before)))


def _last_word(text: str) -> str:
    match = _LAST_WORD.search(text[-40:])
    return match[1] if match else ""


def normalise_sentence(sentence: str) -> str:
    """Lower case, single spaces, no closing punctuation: what makes two sentences the same text."""
    return " ".join(compose(sentence, "NFKC").casefold().split()).strip(" .!?;:,")


def compose(text: str, form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """Letters and their accents as one character, however the text was written (UAX #15).

    In a long text of a letter's accents only the first 30 stay, as in its stream-safe format: putting them in order
    takes time with the square of their number.
    """
    if text.isascii():
        return text
    if len(text) > _LONG:
        run, kept = 0, []
        for character in text:
            run = run + 1 if unicodedata.combining(character) else 0
            if run <= _MOST_ACCENTS:
                kept.append(character)
        text = "".join(kept)
    return unicodedata.normalize(form, text)


def text_number(text: str) -> int:
    """A positive 63-bit number; equal for equal text, on every machine and rank."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1 or 1
