"""Sentences that state or deny a finding: the file `prompts.yaml` beside this one, a user's own, or a template."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.common.files import expanded
from cmcgns.common.packaged import packaged_text
from cmcgns.data.reports.text import split_sentences
from cmcgns.settings.config import Settings
from cmcgns.settings.yaml import parse_mapping, read_mapping_file, validated

Sentences = Annotated[tuple[str, ...], Field(min_length=1)]


class LabelPrompts(Settings):
    """What is said of one label."""

    also: tuple[str, ...] = ()
    """other names of the same label"""
    positive: Sentences
    """sentences that state the finding"""
    negative: Sentences
    """sentences that deny it"""
    words: tuple[str, ...] = ()
    """a sentence about it holds one; empty: the label and its names"""


PromptSource = str | dict[str, LabelPrompts]
"""`built-in`, `phantom` (wording of the synthetic studies), `template`, a YAML file, or the prompts themselves."""
PACKAGED = {"built-in": "prompts.yaml", "phantom": "prompts-phantom.yaml"}
"""File in this package by the name that protocols give it."""
_FIRST = {
    "built-in": "19e3a646c80467ba426bc1f9085be97bc1a72376c523d58a89cfc6aac3bae87e",
    "phantom": "faeec4c4899687bd2491198b39f1673b31a6e32db87f21eb748f6e138109b115",
}
SOURCES = (*PACKAGED, "template")
_DENIED = re.compile(
    r"\b(?:no|not|without|normal|unremarkable|clear|sharp|resolved|free of|negative for|within normal limits)\b",
    re.IGNORECASE,
)
_SIDE = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class PromptBook:
    """Prompts by label.

    Attributes:
        name: where they are from.
        entries: by label in lower case with single blanks; other names are keys of their own.
    """

    name: str
    entries: Mapping[str, LabelPrompts]

    def knows(self, label: str) -> bool:
        """Whether the label has sentences of its own; else :meth:`of` fills the template."""
        return _key(label) in self.entries

    def of(self, label: str) -> LabelPrompts:
        """Sentences of a label; of an unknown one `{label}.` and `No {label}.`."""
        found = self.entries.get(_key(label))
        if found is not None:
            return found
        name = " ".join(label.replace("_", " ").split())
        inside = name if name[:2].isupper() else name[:1].lower() + name[1:]  # "No COPD.", but "No calcification."
        return LabelPrompts(positive=(f"{name}.",), negative=(f"No {inside}.",))

    def labels(self) -> list[str]:
        """One name of each entry, with a capital letter."""
        found: dict[int, str] = {}
        for key, entry in self.entries.items():
            found.setdefault(id(entry), key.capitalize())
        return list(found.values())

    def unknown(self, labels: Iterable[str]) -> list[str]:
        """Labels that only the template serves."""
        return [label for label in labels if not self.knows(label)]

    def facts(self, labels: Sequence[str], *said: str) -> dict[str, Any]:
        """For the record of a result: where its prompts are from, and the sentences themselves.

        Args:
            labels: that were asked for.
            said: which sentences were used, `positive`, or it and `negative`; by default none is written down.
        """
        facts: dict[str, Any] = {"prompts": self.name}
        if said:
            each = {label: {kind: list(getattr(self.of(label), kind)) for kind in said} for label in labels}
            facts["sentences"] = each if len(said) > 1 else {label: kinds[said[0]] for label, kinds in each.items()}
        return facts | {"labels_from_template": self.unknown(labels)}

    def states(self, sentence: str, label: str) -> bool:
        """Whether a sentence states the label: it holds one of its words, and none that denies or calls normal."""
        entry = self.of(label)
        words = "|".join(map(re.escape, entry.words or (label.replace("_", " "), *entry.also)))
        return bool(re.search(rf"\b(?:{words})\b", sentence, re.IGNORECASE)) and not _DENIED.search(sentence)


class Ensembles:
    """Prompts whose scores or maps are averaged; what several ensembles share is encoded once.

    Args:
        prompts: of each of C ensembles.

    Attributes:
        texts: K distinct prompts.
        places: of each ensemble the numbers of its prompts.
    """

    def __init__(self, prompts: Iterable[Sequence[str]]) -> None:
        ensembles = list(prompts)
        self.texts = list(dict.fromkeys(text for each in ensembles for text in each))
        number = {text: n for n, text in enumerate(self.texts)}
        self.places = [[number[text] for text in each] for each in ensembles]

    def mean(self, values: Tensor) -> Tensor:
        """(B, K, …) of the texts -> (B, C, …) of the ensembles."""
        return torch.stack([values[:, each].mean(1) for each in self.places], 1)


def speaks_of_side(sentence: str, side: str | None) -> bool:
    """Whether what a sentence says may be on a side: it names that side, both or none.

    Args:
        sentence: of a report.
        side: left or right; anything else may be meant by every sentence.
    """
    named = {word.lower() for word in _SIDE.findall(sentence)}
    return not named or side in named or side not in ("left", "right")


def names_one_side(sentence: str) -> bool:
    """Whether a sentence speaks of one side alone."""
    return speaks_of_side(sentence, "left") != speaks_of_side(sentence, "right")


def swap_sides(sentence: str) -> str:
    """Left for right and right for left, in the same case."""

    def other(found: re.Match[str]) -> str:
        word = found.group()
        side = "right" if word.lower() == "left" else "left"
        return side.upper() if word.isupper() else side.capitalize() if word[0].isupper() else side

    return _SIDE.sub(other, sentence)


def load_prompts(source: PromptSource = "built-in", ensemble: bool = True) -> PromptBook:
    """Prompts by name, from a file or as they stand.

    Args:
        source: see :data:`PromptSource`.
        ensemble: false: only the first sentence of each kind.

    Raises:
        UserError: no such file, wrong keys, a label given twice, or a sentence without a word; names it.
    """
    if not isinstance(source, str):
        return _book("the protocol's own prompts", source, ensemble)
    if source == "template":
        return PromptBook(source, {})
    if source in PACKAGED:
        return _book(source, _validate(packaged_prompts(source), PACKAGED[source]), ensemble)
    path = expanded(source)
    if not path.is_file():
        raise UserError(f"prompts: {source} is neither a file nor one of {', '.join(SOURCES)}")
    return _book(str(path), read_prompts(path), ensemble)


@cache
def packaged_prompts(name: str) -> dict[str, Any]:
    """What a file of this package says, by label; `name` is one of `PACKAGED`."""
    return parse_mapping(packaged_text("cmcgns.pretrained", PACKAGED[name]), PACKAGED[name])


def later_wording(name: str) -> str | None:
    """Hash of a packaged file that is worded otherwise than at first; None if it is not, or is none of the package.

    Protocols name such a file and do not state it, so their hashes hold this. At first they held nothing.
    """
    if name not in PACKAGED:
        return None
    found = hashlib.sha256(json.dumps(packaged_prompts(name), sort_keys=True).encode()).hexdigest()
    return None if found == _FIRST[name] else found


def read_prompts(path: Path) -> dict[str, LabelPrompts]:
    """Prompts of a user's own file, by label as it is spelt there.

    Raises:
        UserError: unreadable, or wrong keys; names file and label.
    """
    return _validate(read_mapping_file(path), str(path))


def _validate(content: Mapping[Any, Any], where: str) -> dict[str, LabelPrompts]:
    return {str(label): validated(LabelPrompts, value, f"{where}, label {label}") for label, value in content.items()}


def _book(name: str, labels: Mapping[str, LabelPrompts], ensemble: bool) -> PromptBook:
    entries: dict[str, LabelPrompts] = {}
    for label, entry in labels.items():
        for text in (*entry.positive, *entry.negative):
            if not split_sentences(text):
                raise UserError(f"{name}: label {label} has a prompt without a word: {text!r}")
        first = {"positive": entry.positive[:1], "negative": entry.negative[:1]}
        kept = entry if ensemble else entry.model_copy(update=first)
        for key in map(_key, (label, *entry.also)):
            if key in entries:
                raise UserError(f"{name}: label {key} is given twice (names and other names must be unlike)")
            entries[key] = kept
    return PromptBook(name, entries)


def _key(label: str) -> str:
    return " ".join(label.replace("_", " ").casefold().split())
