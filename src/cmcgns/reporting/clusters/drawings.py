"""Places of everything that the page's vector drawings show; `drawings.html.j2` writes them down."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmcgns.reporting.clusters.bank import History
from cmcgns.reporting.clusters.members import Cluster, DistinctSentences, Plane, by_share
from cmcgns.reporting.clusters.quality import Polarity

COLOURS = 12  # clusters that have a colour of their own; more could not be told apart
MOST_BARS, MOST_POINTS, MOST_LINES = 256, 2000, 512
WIDTH, HEIGHT, MAP_HEIGHT = 1000, 320, 640
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 16, 46
CANVAS = {"width": WIDTH, "height": HEIGHT, "map_height": MAP_HEIGHT, "left": LEFT, "right": WIDTH - RIGHT}
"""What `drawings.html.j2` has to know, in pixels."""


@dataclass(frozen=True)
class Axis:
    """Values along a side of a drawing.

    Attributes:
        low, high: values at its ends.
        start, end: where these are.
        ticks: values that are named, as text with their place.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def place(self, value: float) -> float:
        """Where a value is, to a tenth."""
        span = (self.high - self.low) or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)


def share_axis(largest: float) -> Axis:
    """An axis of per cent from 0 to a round value above the largest share, upwards."""
    top = max(largest * 100, 0.1)
    unit = 10 ** np.floor(np.log10(top))
    step = next(float(unit * part) for part in (0.2, 0.5, 1, 2, 5) if top / (unit * part) <= 5)
    count = int(np.ceil(top / step - 1e-9))
    axis = Axis(0.0, count * step, HEIGHT - BOTTOM, TOP)
    return Axis(
        axis.low, axis.high, axis.start, axis.end,
        [(axis.place(tick * step), f"{tick * step:.3g} %") for tick in range(count + 1)],
    )  # fmt: skip


def colours(clusters: Sequence[Cluster]) -> dict[int, int]:
    """Number of a cluster -> its colour, for those that hold most; the others have none."""
    held = by_share(each for each in clusters if each.state == "alive")
    return {each.number: place for place, each in enumerate(held[:COLOURS])}


@dataclass(frozen=True)
class Bar:
    """A cluster's share: of the training sentences as a bar, of the shown ones as a mark."""

    number: int
    state: str
    x: float
    width: float
    y: float
    shown: float
    title: str


@dataclass(frozen=True)
class Sizes:
    """Bars of the clusters, the fullest first."""

    axis: Axis
    bars: list[Bar]
    equal: float
    left_out: int


def draw_sizes(clusters: Sequence[Cluster]) -> Sizes:
    """Shares of the clusters, of which the `MOST_BARS` fullest are drawn."""
    order = by_share(clusters)
    total = max(1, sum(each.sentences for each in clusters))
    axis = share_axis(max(max(each.share, each.sentences / total) for each in clusters))
    step = (WIDTH - LEFT - RIGHT) / min(len(order), MOST_BARS)
    bars = [
        Bar(
            each.number, each.state, round(LEFT + step * place + 0.08 * step, 2), round(step * 0.84, 2),
            axis.place(100 * each.share), axis.place(100 * each.sentences / total),
            f"Cluster {each.number} ({each.state}): {each.share:.1%} in training, {each.sentences / total:.1%} here",
        )
        for place, each in enumerate(order[:MOST_BARS])
    ]  # fmt: skip
    return Sizes(axis, bars, axis.place(100 / len(clusters)), len(order) - len(bars))


@dataclass(frozen=True)
class Line:
    """A cluster's share over time."""

    colour: int | None
    points: str
    title: str


@dataclass(frozen=True)
class Course:
    """Lines of the clusters over the steps of a run; the coloured ones last, so that they lie on top."""

    share: Axis
    step: Axis
    lines: list[Line]
    equal: float


def draw_course(history: History, chosen: dict[int, int]) -> Course | None:
    """Shares over the steps; None without two epochs of them.

    Args:
        history: of the run.
        chosen: colour of some clusters, by their number.
    """
    if len(history) < 2:
        return None
    share = share_axis(float(history.shares.max()))
    first, last = int(history.steps[0]), int(history.steps[-1])
    across = Axis(first, last, LEFT, WIDTH - RIGHT)
    named = history.steps[::-1][:: -(-len(history) // 8)][::-1]  # at most eight epochs, the last one among them
    step = Axis(first, last, LEFT, WIDTH - RIGHT, [(across.place(value), f"{value:,}") for value in named])
    clusters = history.shares.shape[1]
    order = sorted(range(1, clusters + 1), key=lambda number: (number in chosen, -number))[-MOST_LINES:]
    lines = [
        Line(
            chosen.get(number),
            " ".join(
                f"{step.place(at)},{share.place(100 * value)}"
                for at, value in zip(history.steps, history.shares[:, number - 1], strict=True)
            ),
            f"Cluster {number}: {history.shares[0, number - 1]:.1%} to {history.shares[-1, number - 1]:.1%}",
        )
        for number in order
    ]  # fmt: skip
    return Course(share, step, lines, share.place(100 / clusters))


@dataclass(frozen=True)
class Dot:
    """A distinct sentence on the map."""

    x: float
    y: float
    size: float
    colour: int | None
    shape: Polarity
    title: str


@dataclass(frozen=True)
class Tag:
    """The number of a cluster, amid its sentences."""

    x: float
    y: float
    number: int


@dataclass(frozen=True)
class Map:
    """Dots of the sentences, the frequent ones first, so that rare ones lie on top."""

    dots: list[Dot]
    tags: list[Tag]
    left_out: int


def draw_map(
    plane: Plane, sentences: DistinctSentences, polarities: Sequence[Polarity], chosen: dict[int, int]
) -> Map:
    """The `MOST_POINTS` most frequent distinct sentences.

    Args:
        plane: where they lie.
        sentences: S of them.
        polarities: S, empty where not known.
        chosen: colour of some clusters, by their number.
    """
    x, y = _spread(plane.points[:, 0], 24, WIDTH - 24), _spread(plane.points[:, 1], MAP_HEIGHT - 24, 24)
    order = np.lexsort((np.arange(len(sentences)), -sentences.counts))[:MOST_POINTS]
    dots = [
        Dot(
            round(float(x[i]), 1), round(float(y[i]), 1), _size(int(sentences.counts[i])),
            chosen.get(int(sentences.cluster[i]) + 1), polarities[i],
            f"{sentences.texts[i]}\n{sentences.counts[i]} × · cluster {sentences.cluster[i] + 1} "
            f"({sentences.agreement[i]:.0%} of them) · cosine {sentences.cosine[i]:.2f}",
        )
        for i in order
    ]  # fmt: skip
    tags = []
    for number in chosen:
        own = sentences.cluster == number - 1
        if own.any():
            tags.append(Tag(round(float(np.median(x[own])), 1), round(float(np.median(y[own])), 1), number))
    return Map(dots, tags, len(sentences) - len(dots))


def _spread(values: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    span = float(np.ptp(values))
    return (
        start + (values - values.min()) / span * (end - start)
        if span > 0
        else np.full(len(values), (start + end) / 2)
    )


def _size(count: int) -> float:
    """Radius of a dot, whose area grows with the logarithm of the count."""
    return round(4 + 2.2 * float(np.sqrt(np.log1p(count))), 1)
