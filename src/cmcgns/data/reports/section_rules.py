"""Rules for cutting reports into sections: a YAML file that users can edit; see data/reports/rules/english.yaml."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from cmcgns.common.packaged import packaged_names
from cmcgns.settings.yaml import named_text, parse_mapping, validated

READ = ("findings", "impression")
# Sections that a heading in small letters may open within a line; "Note: …" is a sentence of the findings.
_TOLD = (*READ, "comparison", "indication", "history", "examination", "technique")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Marks(_Strict):
    """What stands for removed identifiers.

    Attributes:
        pattern: regular expression; empty: marks are kept.
        replace: put in its place; if empty, blanks and punctuation around it are mended.
    """

    pattern: str = ""
    replace: str = ""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return _check(pattern)


class SectionRules(_Strict):
    """A rule file as users write it (rules/english.yaml explains the keys), and the expressions it stands for."""

    headings: dict[str, list[str]]
    without_heading: Literal["body", "last_paragraph", "nothing"] = "last_paragraph"
    without_heading_not_from: list[str] = []
    ignore_lines: list[str] = []
    marks: Marks = Marks()

    @field_validator("headings")
    @classmethod
    def _names_each_heading_once(cls, headings: dict[str, list[str]]) -> dict[str, list[str]]:
        if missing := [name for name in READ if not headings.get(name)]:
            raise ValueError(f"needs at least one heading for {missing[0]}")
        owner: dict[str, str] = {}
        for section, entries in headings.items():
            for entry in entries:
                if not fold(entry):
                    raise ValueError(f"{section} has an empty entry")
                if owner.setdefault(fold(entry), section) != section:
                    raise ValueError(f"{entry!r} is listed under {owner[fold(entry)]} and under {section}")
                _check(_expression(entry) or "")
        return headings

    @field_validator("ignore_lines")
    @classmethod
    def _lines_compile(cls, lines: list[str]) -> list[str]:
        return [line for line in lines if _check(_expression(line) or "") is not None]

    @cached_property
    def _entries(self) -> list[tuple[str, str]]:
        """Headings and expressions with their sections, in order."""
        return [(entry, section) for section, listed in self.headings.items() for entry in listed]

    @cached_property
    def _plain_entries(self) -> list[str]:
        return [entry for entry, _ in self._entries if not _expression(entry)]

    @cached_property
    def plain(self) -> dict[str, str]:
        """Folded heading -> section."""
        return {fold(entry): section for entry, section in self._entries if not _expression(entry)}

    @cached_property
    def patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """Expressions for folded headings and their sections, in order."""
        return [(re.compile(found), section) for entry, section in self._entries if (found := _expression(entry))]

    @cached_property
    def inline(self) -> re.Pattern[str]:
        """A plain heading within a line: in `capitals` with its colon or brackets, or as `words` behind a stop."""
        capitals = _any_of(form.upper() for entry in self._plain_entries for form in (entry, fold(entry)))
        told = (entry for entry in self._plain_entries if self.plain[fold(entry)] in _TOLD)
        words = _any_of(form for entry in told for form in (entry, fold(entry)))
        before, after = r"(?:\*\*|<\w{1,6}>)?", r"(?:\*\*|</\w{1,6}>)?"
        colon = rf"{after}[ \t]*+[:：]{after}"
        return re.compile(
            rf"(?<=[\s.;,)\]>]){before}(?P<capitals>{capitals}){colon}"
            rf"|(?<=[.!?;:>]\s){before}(?P<words>(?i:{words})){colon}(?=\s|$)"
            rf"|(?<=\s)\[(?P<bracketed>{capitals})\]"
        )

    @cached_property
    def ignored(self) -> re.Pattern[str]:
        """Lines that only separate."""
        lines = [f"(?:{_expression(line) or re.escape(line)})" for line in self.ignore_lines]
        return re.compile("|".join(lines) or r"(?!)")

    @cached_property
    def mark(self) -> re.Pattern[str] | None:
        """What stands for a removed identifier, if marks go."""
        return re.compile(self.marks.pattern) if self.marks.pattern else None


def list_rules() -> list[str]:
    """Names of the rule files that come with the package."""
    return packaged_names("cmcgns.data.reports", "rules")


def load_rules(name_or_path: str | Path) -> SectionRules:
    """Read a rule file.

    Args:
        name_or_path: `english`, `spanish`, `german`, or the path of a YAML file.

    Raises:
        UserError: no such file, no valid YAML, an unknown key, a wrong expression; names file and key.
    """
    name = str(name_or_path)
    text = named_text("rule file", name, "cmcgns.data.reports", "rules")
    return validated(SectionRules, parse_mapping(text, name), f"rule file {name}")


def fold(words: str) -> str:
    """Comparable form of a heading: lower case, no accents, single blanks, none around a slash."""
    bare = words
    if not words.isascii():
        bare = "".join(c for c in unicodedata.normalize("NFKD", words) if not unicodedata.combining(c))
    return re.sub(r"\s*/\s*", "/", " ".join(bare.casefold().split()))


def _any_of(headings: Iterable[str]) -> str:
    """An expression for headings, the longest first, with any blanks between their words."""
    spaced = {r"[ \t]++".join(map(re.escape, heading.split())) for heading in headings}
    return "|".join(sorted(spaced, key=len, reverse=True)) or "(?!)"


def _expression(entry: str) -> str | None:
    """What stands between slashes."""
    return entry[1:-1] if len(entry) > 2 and entry[0] == entry[-1] == "/" else None


def _check(expression: str) -> str:
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{expression!r} is no regular expression: {error}") from None
    return expression
