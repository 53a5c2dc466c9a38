"""What each sentence of the synthetic reports says: by its template, for both levels, apart from any study."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from cmcgns.data.reports.text import normalise_sentence
from cmcgns.phantom.findings import FINDINGS
from cmcgns.phantom.hard.findings import HARD_FINDINGS
from cmcgns.phantom.hard.language import HARD_WORDING
from cmcgns.phantom.language import IN_LUNG, WORDING


class SentenceTruth(NamedTuple):
    """The labels that a sentence states or denies, where, and to which degree.

    Side is right, left or both, and none if it is left open; degree is mild, moderate, …, and empty if none is given.
    """

    stated: frozenset[str]
    denied: frozenset[str]
    side: str
    degree: str = ""


def sentence_truth(sentence: str) -> SentenceTruth | None:
    """What a sentence of a synthetic report says; None of one that no level writes.

    Case, blanks and the closing stop make no difference. A hedged statement states its finding, for it is there.
    """
    return _look_up(normalise_sentence(sentence))


@lru_cache(maxsize=65536)
def _look_up(sentence: str) -> SentenceTruth | None:
    for pattern, truth in _templates():
        if match := pattern.fullmatch(sentence):
            groups = match.groupdict()
            return truth._replace(side=groups.get("side") or truth.side, degree=groups.get("degree") or "")
    return None


_FIELDS = {  # every value that a place in a template takes
    "side": "(?P<side>right|left)",
    "degree": "(?P<degree>mild|moderate|severe|small|large)",
    "size": r"\d\.\d",
    "place": "(?:(?:upper|mid|lower) zone|retrocardiac region|costophrenic angle|base|hemithorax|apical|apicolateral|"
    "apicobasal|perihilar|diffuse|chest wall|superior vena cava|trachea)",
}


@lru_cache(maxsize=1)
def _templates() -> list[tuple[re.Pattern[str], SentenceTruth]]:
    found = []
    for text, truth in (*_plain(), *_hard()):
        parts = re.split(r"\{(\w+)\}", normalise_sentence(text))
        pattern = "".join(_FIELDS[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
        found.append((re.compile(pattern), truth))
    return found


def _states(label: str, texts: Iterable[str], side: str = "none") -> Iterator[tuple[str, SentenceTruth]]:
    for text in texts:
        yield text, SentenceTruth(frozenset({label}), frozenset(), side)


def _denies(text: str, labels: Iterable[str] = ()) -> tuple[str, SentenceTruth]:
    return text, SentenceTruth(frozenset(), frozenset(labels), "none")


def _plain() -> Iterator[tuple[str, SentenceTruth]]:
    for kind, side in (("positive", "none"), ("bilateral", "both")):
        for label, wordings in WORDING[kind].items():
            # Edema has one wording, in which no side is told.
            yield from _states(label, _all(wordings), "none" if label == "Edema" else side)
    for texts in WORDING["objects"].values():
        yield from _states("Foreign Object", texts)
    for text, labels in (*WORDING["normal"].items(), *WORDING["rest_impressions"].items()):
        yield _denies(text, labels)
    for number, text in enumerate(WORDING["normal_impressions"]):
        yield _denies(text, [label for label in FINDINGS if label != "Foreign Object" or number >= 2])
    for kind, texts in WORDING["sided"].items():
        for text in texts:
            yield _denies(text, ["Effusion"] if kind == "Effusion" else IN_LUNG)


def _hard() -> Iterator[tuple[str, SentenceTruth]]:
    for label in HARD_FINDINGS:
        yield from _states(label, [*HARD_WORDING[label]["stated"], *HARD_WORDING[label]["held_out"]])
        for text in HARD_WORDING[label]["denied"]:
            yield _denies(text, [label])
    for text, labels in HARD_WORDING["joint"].items():
        yield _denies(text, labels)
    for text in HARD_WORDING["neutral"]:
        yield _denies(text)


def _all(wordings: dict[str, Any]) -> list[str]:
    return [text for texts in wordings.values() for text in texts]
