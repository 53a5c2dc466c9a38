"""Reports cut into sections."""

import re
from collections.abc import Callable

from cmcgns.data.reports.section_rules import READ, SectionRules, fold

# Reports come from anywhere: every expression here takes time in proportion to its text, whatever stands in it. Hence
# the possessive quantifiers (`*+`), and `(?<![ \t])`, without which a run of blanks were tried from each of them.
_LINE = re.compile(r"[ \t]*+(?:\d{1,2}[.)][ \t]++)?([^\W\d_][^:：]{0,79}?)[ \t]*+([:：](?=(\s|$)?)|$)")
# "FINDINGS - clear", "Findings.", "**Findings** clear", "- **Findings:** clear", "## Findings", "[FINDINGS] clear".
_OTHER_FORM = re.compile(
    r"[ \t]*+(?:[-•>][ \t]++)?(?:\d{1,2}[.)][ \t]++)?(?P<open>[*#=]{1,6}[ \t]*+|\[|<\w{1,6}>)?"
    r"(?P<words>[^\W\d_][\w /&()#'’-]{0,60}?)(?P<close>[ \t]*+(?:[*#=]{1,6}|\]|</\w{1,6}>))?"
    r"[ \t]*+(?P<mark>[:：]|[-–—.;](?=[ \t]|$)|$|(?<=[*#=\]>])(?=.)|(?<=[*#=\]>][ \t])(?=.))"
    r"(?:[ \t]*+(?:[*=]{1,6}|</\w{1,6}>))?"
)
_CLOSED = re.compile(r"[.!?:;。！？][)\]\"'*]*$")  # how a line ends that nothing is left to be said of
_AROUND = " \t*#=[]-–—.:：;"  # what may stand around the words of a heading
_GAP = "\ufdd0"  # no character of any language: where a mark stood


def split_sections(text: str, rules: SectionRules) -> dict[str, str]:
    """Cut a report into sections.

    Lines lose their indentation, several blank lines become one, and marks of removed identifiers go as the rules
    say; nothing else of the text is changed.

    Returns:
        Section -> text, in order of appearance, sections without text left out. What stands before the first heading
        is `preamble`. A heading that the rules do not know names its own section, in lower case.
    """
    texts: dict[str, dict[str, None]] = {}  # of each section its parts, once each, in order
    for section, lines in _parts(text, rules):
        if part := _tidy(lines):
            texts.setdefault(section, {})[part] = None
    sections = {name: "\n\n".join(parts) for name, parts in texts.items() if parts}
    if not any(name in sections for name in READ):
        sections |= _without_heading(sections, rules)
    cleaned = {name: remove_marks(part, rules).strip() for name, part in sections.items()}
    return {name: part for name, part in cleaned.items() if part}


def has_heading(text: str, rules: SectionRules) -> bool:
    """Whether a report names its findings or its impression."""
    return any(section in READ for section, _ in _parts(text, rules))


def without_own_heading(text: str, section: str, rules: SectionRules) -> str:
    """Findings or impression without the heading that may open them ("FINDINGS: Clear."), and without marks."""
    text = text.strip()
    line = text.partition("\n")[0]
    found = _line_heading(line, section, "", text.islower(), rules)
    if found and found[0] in READ and fold(line[: found[1]].strip(_AROUND)) in rules.plain:
        text = text[found[1] :]
    return remove_marks(text, rules).strip()


def remove_marks(text: str, rules: SectionRules) -> str:
    """Take marks of removed identifiers out of a text, or replace them, as the rules say.

    "CT from ___, no change (Dr. ___)." -> "CT from, no change (Dr.)."; a text without marks comes back as it is.
    """
    if rules.mark is None:
        return text
    if replacement := rules.marks.replace:
        return rules.mark.sub(lambda _: replacement, text)
    marked = rules.mark.sub(_GAP, text)
    if _GAP not in marked:
        return text
    for pattern, put in _MENDING:
        marked = pattern.sub(put, marked)
    return marked


def _without_a_word(match: re.Match[str]) -> str:
    """A gap that was all of a sentence takes the sentence's stop along."""
    space, start = match[1], match.start()
    begins = start == 0 or match.string[start - 1] in ".!?:" or re.search(r"\n[ \t]*+\n", space)
    return space + _GAP if begins else match[0]


# Applied in this order; `~` is the gap.
_MENDING: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern.replace("~", _GAP)), put.replace("~", _GAP) if isinstance(put, str) else put)
    for pattern, put in (
        (r"[(\[{][ \t]*+~[ \t]*+[)\]}]", "~"),
        (r"~(?:[ \t]*+(?:[-–/:,&][ \t]*+)?~)+", "~"),  # "___, ___ ___" is one gap
        (r"[(\[{][ \t]*+~[ \t]*+[)\]}]", "~"),
        (r"~['’]s\b", "~"),
        (r"(?<=\w)([-–/])~[-–/](?=\w)", r"\1"),  # "4-___-old"
        (r"(?<=\w)[-–/]~|~[-–/](?=\w)", "~"),  # "x-___", "___-year-old"
        (r"((?<!\s)\s*+)~[ \t]*+[,;:.]+", _without_a_word),
        (r"[,;][ \t]*+~[ \t]*+(?=[,.;:!?)\]]|\Z)", ""),
        (r"(?<![ \t])[ \t]*+\n?[ \t]*+~[ \t]*+(?=[,.;:!?)\]]|\Z)", ""),
        (r"(?m)^[ \t]*+~[ \t]*+(?:\n|$)", ""),  # the line goes: it must not part the paragraph
        (r"(?m)(?<![ \t])[ \t]*+~[ \t]*+$|^[ \t]*+~[ \t]*+|(?<=[(\[])~[ \t]*+", ""),
        (r"(?<![ \t])[ \t]++~[ \t]*+|~[ \t]++", " "),
        (r"(?<=\w)~(?=\w)", " "),
        (r"~", ""),
    )
)


def _parts(text: str, rules: SectionRules) -> list[tuple[str, list[str]]]:
    """Sections in order with their lines; a section may come several times."""
    parts: list[tuple[str, list[str]]] = [("preamble", [])]
    lower, before = text.islower(), ""
    for raw in text.splitlines():
        line = "" if rules.ignored.fullmatch(raw.strip()) else raw
        if found := _line_heading(line, parts[-1][0], before, lower, rules):
            parts.append((found[0], []))
            line = line[found[1] :]
        before = line.strip()
        start = 0
        for match in rules.inline.finditer(line):
            heading = match["capitals"] or match["words"] or match["bracketed"]
            section = rules.plain.get(fold(heading))
            if section and not heading[0].islower() and not _goes_on(line[: match.start()], section, text):
                parts[-1][1].append(line[start : match.start()])
                parts.append((section, []))
                start = match.end()
        parts[-1][1].append(line[start:])
    return parts


def _goes_on(before: str, section: str, text: str) -> bool:
    """Whether a word that may be a heading is the end of other words in capitals: "TWO VIEWS:" is none."""
    last = before.split()[-1:] if section not in READ and not text.isupper() else []
    return bool(last) and last[0].isupper() and last[0][-1].isalnum()


def _line_heading(line: str, current: str, before: str, lower: bool, rules: SectionRules) -> tuple[str, int] | None:
    """Section and end of the heading that a line starts with.

    Args:
        line: as it stands.
        current: section that it would belong to.
        before: what the line before leaves to its section, stripped.
        lower: the report has no capitals.
        rules: name the headings.
    """
    match = _LINE.match(line)
    if match is None:
        return _other_heading(line, before, lower, rules)
    words, colon, end = match[1], match[2], match.end()
    if rules.mark is not None and (mark := rules.mark.search(words)):  # "WET READ VERSION #1 ___ 8:26 PM"
        words, colon, end = words[: mark.start()].rstrip(), "", match.start(1) + mark.start()
    capitals = words.isupper()
    folded = fold(words)
    # Wrapped prose may start a line with "findings:" or "history", but not with a capital.
    alone = colon or not before or _CLOSED.search(before[-20:])
    if folded in rules.plain and (capitals or (alone and (lower or not words[0].islower()))):
        return rules.plain[folded], end
    if not (colon and capitals and match[3] is not None):
        return _other_heading(line, before, lower, rules)
    for pattern, section in rules.patterns:
        if pattern.fullmatch(folded):
            return section, end
    return _other_heading(line, before, lower, rules) or (None if current in READ else (folded, end))


def _other_heading(line: str, before: str, lower: bool, rules: SectionRules) -> tuple[str, int] | None:
    """Section and end of a plain heading in marked letters, or with a dash or a full stop in place of the colon."""
    match = _OTHER_FORM.match(line)
    section = rules.plain.get(fold(match["words"])) if match else None
    if match is None or section is None or (match["words"][0].islower() and not lower):
        return None
    mark, marked = match["mark"], bool(match["open"]) and (bool(match["close"]) or "#" in match["open"])
    if mark in ".;" and not (marked or match["words"].isupper()):
        # "Klinik." may be the last word of a wrapped sentence, but not where a sentence has just ended.
        return (section, match.end()) if mark and (not before or _CLOSED.search(before[-20:])) else None
    return section, match.end()


def _without_heading(sections: dict[str, str], rules: SectionRules) -> dict[str, str]:
    """Findings of a report that names neither findings nor impression, and what is left of their section."""
    if rules.without_heading == "nothing":
        return {}
    for name in reversed(sections):
        paragraphs = sections[name].split("\n\n")
        first = 1
        if name == "preamble":  # its first paragraph belongs to no heading, but may be a title in capitals
            first = next((i for i, part in enumerate(paragraphs) if part.upper() != part), len(paragraphs))
        if name in rules.without_heading_not_from or first >= len(paragraphs):
            continue
        if rules.without_heading == "last_paragraph":
            first = len(paragraphs) - 1
        return {name: "\n\n".join(paragraphs[:first]), "findings": "\n\n".join(paragraphs[first:])}
    return {}


def _tidy(lines: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.strip() for line in lines)).strip()
