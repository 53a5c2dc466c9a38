"""Which sentence states which finding, and which studies are shown."""

import re
from dataclasses import dataclass

from cmcgns.inspect.material import Box, Material

_WORDS = {
    "Effusion": r"effusion|pleural fluid",
    "Pneumothorax": r"pneumothorax",
    "Consolidation": r"consolidation|airspace|pneumonia|focal opacity",
    "Nodule": r"nodul",
    "Cardiomegaly": r"cardiomegaly|\bheart\b|\bcardiac\b",
    "Edema": r"edema|congestion",
    "Foreign Object": r"pacemaker|catheter|central line|tube|foreign|\bring\b|coin",
}
_DENIED = re.compile(r"\b(no|not|without|normal|unremarkable|clear|sharp|within normal limits|resolved)\b", re.I)


@dataclass(frozen=True)
class Statement:
    """A sentence that states a finding, and the boxes of what it names."""

    row: int
    sentence: int
    label: str
    boxes: tuple[Box, ...]


def statements(material: Material) -> list[Statement]:
    """All sentences that state a finding with a box, in order; a sentence of two findings counts once for each."""
    found = []
    for row, boxes in enumerate(material.boxes):
        for label in dict.fromkeys(box.label for box in boxes):
            for number, sentence in enumerate(material.sentences[row]):
                named = _named(sentence, label, boxes)
                if named:
                    found.append(Statement(row, number, label, named))
    return found


def choose_statements(material: Material, count: int) -> list[Statement]:
    """The first statement of every label, then the second ones, no study twice: nothing is chosen by its result."""
    by_label: dict[str, list[Statement]] = {}
    for statement in statements(material):
        by_label.setdefault(statement.label, []).append(statement)
    chosen: list[Statement] = []
    while len(chosen) < count and any(by_label.values()):
        for label in sorted(by_label):
            taken = {statement.row for statement in chosen}
            by_label[label] = [statement for statement in by_label[label] if statement.row not in taken]
            if by_label[label] and len(chosen) < count:
                chosen.append(by_label[label].pop(0))
    return chosen


def choose_rows(material: Material, count: int) -> list[int]:
    """Studies to show: those of the chosen statements, or the first ones where no finding has a box."""
    rows = [statement.row for statement in choose_statements(material, count)]
    return rows or list(range(min(count, len(material))))


def _named(sentence: str, label: str, boxes: list[Box]) -> tuple[Box, ...]:
    words = _WORDS.get(label, re.escape(label.lower()))
    if not re.search(words, sentence, re.I) or _DENIED.search(sentence):
        return ()
    sides = {side for side in ("left", "right") if re.search(rf"\b{side}\b", sentence, re.I)}
    return tuple(
        box
        for box in boxes
        if box.label == label and (not sides or box.side in sides or box.side not in ("left", "right"))
    )
