"""Reports cut into sections."""

import re

from cmcgns.data.reports.section_rules import READ, SectionRules, fold

_LINE = re.compile(r"[ \t]*(?:\d{1,2}[.)][ \t]+)?([^\W\d_][^:：]{0,79}?)[ \t]*([:：](?=(\s|$)?)|$)")
_GAP = "\ufdd0"  # no character of any language: where a mark stood


def split_sections(text: str, rules: SectionRules) -> dict[str, str]:
    """Cut a report into sections.

    Lines lose their indentation, several blank lines become one, and marks of removed identifiers go as the rules
    say; nothing else of the text is changed.

    Args:
        text: a report in any language.
        rules: from `load_rules`.

    Returns:
        Section -> text, in order of appearance, sections without text left out. What stands before the first heading
        is `preamble`. A heading that the rules do not know names its own section, in lower case.
    """
    texts: dict[str, list[str]] = {}
    for section, lines in _parts(text, rules):
        part = _tidy(lines)
        if part and part not in texts.setdefault(section, []):
            texts[section].append(part)
    sections = {name: "\n\n".join(parts) for name, parts in texts.items() if parts}
    if not any(name in sections for name in READ):
        sections |= _without_heading(sections, rules)
    cleaned = {name: remove_marks(part, rules).strip() for name, part in sections.items()}
    return {name: part for name, part in cleaned.items() if part}


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
    for pattern, replacement in _MENDING:
        marked = pattern.sub(replacement, marked)
    return marked


# Applied in this order; `~` is the gap.
_MENDING = tuple(
    (re.compile(pattern.replace("~", _GAP)), replacement.replace("~", _GAP))
    for pattern, replacement in (
        (r"[(\[{][ \t]*~[ \t]*[)\]}]", "~"),
        (r"~(?:[ \t]*[-–/:,&]?[ \t]*~)+", "~"),  # "___, ___ ___" is one gap
        (r"[(\[{][ \t]*~[ \t]*[)\]}]", "~"),
        (r"~['’]s\b", "~"),
        (r"(?<=\w)([-–/])~[-–/](?=\w)", r"\1"),  # "4-___-old"
        (r"(?<=\w)[-–/]~|~[-–/](?=\w)", "~"),  # "x-___", "___-year-old"
        (r"(\A\s*|[.!?:]\s*|\n[ \t]*\n\s*)~[ \t]*[,;:.]+", r"\1~"),  # a sentence without words
        (r"[,;][ \t]*~[ \t]*(?=[,.;:!?)\]]|\Z)", ""),
        (r"[ \t]*\n?[ \t]*~[ \t]*(?=[,.;:!?)\]]|\Z)", ""),
        (r"(?m)^[ \t]*~[ \t]*(?:\n|$)", ""),  # the line goes: it must not part the paragraph
        (r"(?m)[ \t]*~[ \t]*$|^[ \t]*~[ \t]*|(?<=[(\[])~[ \t]*", ""),
        (r"[ \t]+~[ \t]*|~[ \t]+", " "),
        (r"(?<=\w)~(?=\w)", " "),
        (r"~", ""),
    )
)


def _parts(text: str, rules: SectionRules) -> list[tuple[str, list[str]]]:
    """Sections in order with their lines; a section may come several times."""
    parts: list[tuple[str, list[str]]] = [("preamble", [])]
    lower, after_blank = text.islower(), True
    for raw in text.splitlines():
        line = "" if rules.ignored.fullmatch(raw.strip()) else raw
        if found := _line_heading(line, parts[-1][0], after_blank, lower, rules):
            parts.append((found[0], []))
            line = line[found[1] :]
        after_blank = not line.strip()
        start = 0
        for match in rules.inline.finditer(line):
            parts[-1][1].append(line[start : match.start()])
            parts.append((rules.plain[fold(match[1])], []))
            start = match.end()
        parts[-1][1].append(line[start:])
    return parts


def _line_heading(
    line: str, current: str, after_blank: bool, lower: bool, rules: SectionRules
) -> tuple[str, int] | None:
    """Section and end of the heading that a line starts with."""
    match = _LINE.match(line)
    if match is None:
        return None
    words, colon, end = match[1], match[2], match.end()
    if rules.mark is not None and (mark := rules.mark.search(words)):  # "WET READ VERSION #1 ___ 8:26 PM"
        words, colon, end = words[: mark.start()].rstrip(), "", match.start(1) + mark.start()
    capitals = words.isupper()
    folded = fold(words)
    # Wrapped prose may start a line with "findings:" or "history", but not with a capital.
    if folded in rules.plain and (capitals or ((colon or after_blank) and (lower or not words[0].islower()))):
        return rules.plain[folded], end
    if not (colon and capitals and match[3] is not None):
        return None
    for pattern, section in rules.patterns:
        if pattern.fullmatch(folded):
            return section, end
    return None if current in READ else (folded, end)


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
