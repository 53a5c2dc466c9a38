"""The cluster bank: how full its clusters are, and what they mean."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from cmcgns.data.reports.text import normalise_sentence
from cmcgns.objectives.centroids import assign_two
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.reporting.run_page.curves import mark_events
from cmcgns.reporting.run_page.material import Material
from cmcgns.reporting.style import BLUE, FAINT, ORANGE, SMALL, VERMILION, add_legend, new_figure, style_plot

_DEAD = 0.05  # of an equal share: the log's own bound


@dataclass(frozen=True)
class Cluster:
    """A cluster in words.

    Attributes:
        number: its row in the bank.
        usage: share of the training sentences of about the last hundred steps.
        members: sentences of the shown studies that belong to it.
        typical: its most typical distinct sentences with their cosine to the centroid.
    """

    number: int
    usage: float
    members: int
    typical: list[tuple[str, float]]


def why_absent(material: Material) -> str:
    """Why there is nothing to show, or an empty text."""
    settings, method = material.model.recipe.objective, material.model.method
    if method is None or settings.weight_report == 0 or settings.negatives == "in_batch":
        return "The run was made without the cluster bank (no local report loss, or in-batch negatives)."
    if not method.bank.is_started:
        return (
            f"The bank never started: its conditions (mean cosine at most {settings.bank.start_cosine:g}, or step "
            f"{settings.bank.start_by_step}) were not met, so the loss used in-batch negatives throughout."
        )
    return ""


def bank_of(material: Material) -> ClusterBank:
    """The bank of the run; there is one where :func:`why_absent` is empty."""
    assert material.model.method is not None
    return material.model.method.bank


def bank_facts(material: Material) -> dict[str, float]:
    """How many clusters there are, were seeded, are dead and hold a sentence of these studies; how even they are.

    `effective` is the exponential of the entropy of the shares: the number of equal clusters that would be as even.
    """
    bank = bank_of(material)
    usage = bank.shares.numpy()
    z1 = F.normalize(torch.cat(material.sentence_features), dim=-1)
    _, own, _ = assign_two(z1, bank.centroids, bank.active)
    return {
        "clusters": bank.clusters,
        "seeded": int(bank.active.sum()),
        "dead": int((usage <= _DEAD / bank.clusters).sum()),
        "held": len(own.unique()),
        "largest": float(usage.max()),
        "effective": float(np.exp(-(usage * np.log(np.maximum(usage, 1e-12))).sum())),
    }


@torch.no_grad()
def largest_clusters(material: Material, count: int = 8, sentences: int = 4) -> list[Cluster]:
    """The fullest clusters that hold a sentence of the shown studies, with those nearest to the centroid.

    Equal texts are shown once.
    """
    bank = bank_of(material)
    z1 = F.normalize(torch.cat(material.sentence_features), dim=-1)
    texts = [sentence for report in material.sentences for sentence in report]
    cosines, own, _ = assign_two(z1, bank.centroids, bank.active)
    clusters = []
    held = set(own.tolist())
    fullest = [number for number in bank.shares.argsort(descending=True).tolist() if number in held]
    for number in fullest[:count]:
        members = (own == number).nonzero()[:, 0]
        nearest = members[cosines[members, number].argsort(descending=True)].tolist()
        typical: dict[str, tuple[str, float]] = {}
        for row in nearest:
            typical.setdefault(normalise_sentence(texts[row]), (texts[row], float(cosines[row, number])))
        clusters.append(Cluster(number, float(bank.shares[number]), len(nearest), list(typical.values())[:sentences]))
    return clusters


def draw_bank(material: Material) -> Figure:
    """Sorted cluster sizes beside the course of the dead share and of the largest cluster."""
    figure = new_figure(13, 4.1)
    sizes, course = figure.subplots(1, 2, width_ratios=(1.5, 1))
    figure.subplots_adjust(left=0.06, right=0.985, top=0.88, bottom=0.17, wspace=0.2)
    bank = bank_of(material)
    usage = np.sort(bank.shares.numpy())[::-1] * 100
    equal = 100 / bank.clusters
    colours = [FAINT if share <= _DEAD * equal else BLUE for share in usage]
    style_plot(sizes, "Cluster sizes", "cluster, fullest first", "share of sentences (%)")
    sizes.bar(np.arange(1, len(usage) + 1), usage, color=colours, width=0.82)
    sizes.axhline(equal, color=VERMILION, linewidth=1.4, linestyle="--")
    sizes.text(len(usage) + 0.5, equal, f"equal share {equal:.1f} % ", color=VERMILION, fontsize=SMALL, ha="right",
               va="bottom")  # fmt: skip
    sizes.set_xlim(0.3, len(usage) + 0.7)
    style_plot(course, "Over training", "optimiser step", "%")
    for key, name, colour in (("bank_dead", "dead centroids", FAINT), ("bank_largest", "largest cluster", ORANGE)):
        points = [
            (record["step"], 100 * record[key])
            for record in material.records
            if record["kind"] == "validation" and record.get("bank_started") and key in record
        ]
        steps, shares = [step for step, _ in points], [share for _, share in points]
        course.plot(steps, shares, color=colour, linewidth=2.2, marker="o", markersize=4.5, label=name)
    mark_events(course, material.records)
    course.set_ylim(bottom=-2)
    add_legend(course)
    return figure
