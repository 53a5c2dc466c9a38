"""Sentences drawn at random from a table of reports, to be read by eye: how often does the splitter cut wrongly?

    python benchmarks/sentence_sample.py iu_reports.csv --seed 104 --sentences 600
    python benchmarks/sentence_sample.py iu_reports.csv --seed 102 --sentences 600 --distinct
    python benchmarks/sentence_sample.py --sentences 600 --wrong 2

The first prints every sentence on a numbered line between the ends of its two neighbours; `>>` and `<<` are the cuts,
`##` is an end of the report. A sentence is wrong if it begins or ends where no sentence does, or if it runs two
together. The last gives the share and its exact (Clopper-Pearson) 95 % interval. The rules and what was found are in
docs/sentences.md.

The table needs the columns `findings` and `impression`. Drawn are sentences of the whole collection, without
replacement and each as often as it stands there, so that the share is the one training meets; with `--distinct` each
wording once, which leaves out the phrases that every report repeats and is the harder sample. Draw with a seed that
no rule was written on: once a sample has been read, it belongs to development.

Expected: 3,955 reports are read, split and drawn from in about 2 s.
"""

import argparse
import math
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cmcgns.data.reports.text import split_sentences

NEIGHBOUR = 45  # characters of a neighbour that are shown


def read_reports(path: Path) -> list[str]:
    """Findings and impression of each row as one text, in the order of the table."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["findings", "impression"])
    return (table["findings"].str.strip() + "\n\n" + table["impression"].str.strip()).str.strip().tolist()


def draw(texts: list[str], count: int, seed: int, distinct: bool = False) -> list[str]:
    """Sentences with their neighbours, each on one line.

    Args:
        texts: reports.
        count: sentences to draw; all of them, if there are fewer.
        seed: the same seed draws the same sentences from the same texts and rules.
        distinct: every wording counts once, where it stands first.
    """
    reports = [split_sentences(text) for text in texts]
    places = [(report, place) for report, sentences in enumerate(reports) for place in range(len(sentences))]
    if distinct:
        places = list({reports[report][place]: (report, place) for report, place in reversed(places)}.values())
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    return [show(reports[report], place) for report, place in chosen]


def show(sentences: list[str], place: int) -> str:
    """One sentence between the ends of its neighbours."""
    before = sentences[place - 1][-NEIGHBOUR:] if place else "##"
    after = sentences[place + 1][:NEIGHBOUR] if place + 1 < len(sentences) else "##"
    return f"{before} >> {sentences[place]} << {after}"


def interval(wrong: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of a share: the shares under which the tail beyond ``wrong`` is too small.

    Args:
        wrong: hits, 0 to ``count``.
        count: trials, at least 1.
        level: coverage between 0 and 1.
    """
    if not 0 <= wrong <= count or count < 1:
        raise ValueError(f"{wrong} of {count} is no share")
    tail = (1 - level) / 2
    low = bisect(lambda share: 1 - at_most(wrong - 1, count, share) > tail) if wrong else 0.0
    high = bisect(lambda share: at_most(wrong, count, share) < tail) if wrong < count else 1.0
    return low, high


def at_most(hits: int, count: int, share: float) -> float:
    """Probability of at most ``hits`` in ``count`` trials, each a hit with probability ``share`` in (0, 1)."""
    ways = (math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(hits + 1))
    logs = (way + k * math.log(share) + (count - k) * math.log1p(-share) for k, way in enumerate(ways))
    return math.fsum(math.exp(value) for value in logs)


def bisect(reached: Callable[[float], bool]) -> float:
    """The share in (0, 1) from which on ``reached`` holds, to 15 digits."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return (low + high) / 2


def main() -> None:
    """Draw, or judge what was read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?", help="csv with the columns findings and impression")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentences", type=int, default=600, help="sentences drawn, or read")
    parser.add_argument("--distinct", action="store_true", help="draw from different wordings, each once")
    parser.add_argument("--wrong", type=int, help="how many of them were cut wrongly")
    arguments = parser.parse_args()
    if arguments.wrong is not None:
        low, high = interval(arguments.wrong, arguments.sentences)
        share = arguments.wrong / arguments.sentences
        print(f"{arguments.wrong} of {arguments.sentences}: {share:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    elif arguments.table:
        lines = draw(read_reports(arguments.table), arguments.sentences, arguments.seed, arguments.distinct)
        print("\n".join(f"{number:4d}  {line}" for number, line in enumerate(lines, start=1)))
    else:
        parser.error("name a table to draw from, or the number of wrong sentences with --wrong")


if __name__ == "__main__":
    main()
