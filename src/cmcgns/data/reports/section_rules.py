"""Rules for cutting reports into sections: a YAML file that users can edit; see data/reports/rules/english.yaml."""

import difflib
import re
import unicodedata
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from cmcgns.common.errors import UserError
from cmcgns.settings.yaml import UniqueKeys

READ = ("findings", "impression")


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


class RuleFile(_Strict):
    """A rule file as users write it; data/rules/english.yaml explains the keys."""

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


@dataclass(frozen=True)
class SectionRules:
    """A rule file made ready for use by `load_rules`.

    Attributes:
        plain: folded heading -> section.
        patterns: expressions for folded headings and their sections, in order.
        inline: a plain heading in capitals and its colon, anywhere.
        ignored: lines that only separate.
        without_heading: where findings come from in a report without sections.
        not_from: sections they never come from.
        marks: expression of marks, or none.
        replace: put in place of marks.
    """

    plain: dict[str, str]
    patterns: tuple[tuple[re.Pattern[str], str], ...]
    inline: re.Pattern[str]
    ignored: re.Pattern[str]
    without_heading: str
    not_from: frozenset[str]
    marks: re.Pattern[str] | None
    replace: str


def list_rules() -> list[str]:
    """Names of the rule files that come with the package."""
    folder = resources.files("cmcgns.data.reports") / "rules"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_rules(name_or_path: str | Path) -> SectionRules:
    """Read a rule file.

    Args:
        name_or_path: `english`, `spanish`, `german`, or the path of a YAML file.

    Raises:
        UserError: no such file, no valid YAML, an unknown key, a wrong expression; names file and key.
    """
    name = str(name_or_path)
    try:
        settings = UniqueKeys(_rule_text(name)).get_single_data()
        return _compile(RuleFile.model_validate(settings if settings is not None else {}))
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name} is not valid YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(str(key) for key in item['loc'])}: {_explain(dict(item))}" for item in error.errors()]
        raise UserError(f"rule file {name}:\n  " + "\n  ".join(lines)) from None


def fold(words: str) -> str:
    """Comparable form of a heading: lower case, no accents, single blanks, none around a slash."""
    bare = words
    if not words.isascii():
        bare = "".join(c for c in unicodedata.normalize("NFKD", words) if not unicodedata.combining(c))
    return re.sub(r"\s*/\s*", "/", " ".join(bare.casefold().split()))


def _expression(entry: str) -> str | None:
    """What stands between slashes."""
    return entry[1:-1] if len(entry) > 2 and entry[0] == entry[-1] == "/" else None


def _check(expression: str) -> str:
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{expression!r} is no regular expression: {error}") from None
    return expression


def _compile(file: RuleFile) -> SectionRules:
    entries = [(entry, section) for section, listed in file.headings.items() for entry in listed]
    plain = {fold(entry): section for entry, section in entries if not _expression(entry)}
    capitals = {
        _flexible(form.upper()) for entry, _ in entries if not _expression(entry) for form in (entry, fold(entry))
    }
    lines = [_expression(line) or re.escape(line) for line in file.ignore_lines]
    return SectionRules(
        plain=plain,
        patterns=tuple((re.compile(found), section) for entry, section in entries if (found := _expression(entry))),
        inline=re.compile(rf"(?<=[\s.;,)\]])({'|'.join(sorted(capitals, key=len, reverse=True))})[ \t]*[:：]"),
        ignored=re.compile("|".join(f"(?:{line})" for line in lines) if lines else r"(?!)"),
        without_heading=file.without_heading,
        not_from=frozenset(file.without_heading_not_from),
        marks=re.compile(file.marks.pattern) if file.marks.pattern else None,
        replace=file.marks.replace,
    )


def _flexible(words: str) -> str:
    return r"[ \t]+".join(re.escape(word) for word in words.split())


def _rule_text(name: str) -> str:
    if name in list_rules():
        return (resources.files("cmcgns.data.reports") / "rules" / f"{name}.yaml").read_text("utf-8")
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path.read_text("utf-8-sig")
    near = difflib.get_close_matches(name, list_rules(), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"no rule file {name}: give the path of a .yaml file or one of {', '.join(list_rules())}.{hint}")


def _explain(item: dict[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return f"no such key; known are {', '.join(RuleFile.model_fields)}, and pattern and replace below marks"
    return str(item["msg"]).removeprefix("Value error, ")
