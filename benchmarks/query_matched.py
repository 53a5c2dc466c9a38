"""Time of query-matched L_report, forward and backward, beside the matrix products that it cannot avoid.

    python benchmarks/query_matched.py [--threads 2]

64 studies of 8 sentences and 49 patches, 768 wide, 128 centroids, float32 on the CPU, fixed sentences, the bank
started: clusters as negatives, false negatives masked. Both run in turn in one process; medians of both, and the
median of their ratios. Wanted: at most 1.5.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.query_matched import Statements, matched_report
from cmcgns.settings.config import BankSettings, ObjectiveSettings
from in_turn import time_in_turn

STUDIES, SENTENCES, PATCHES, DIM, CLUSTERS = 64, 8, 49, 768, 128


def unit(*shape: int) -> Tensor:
    """Random unit vectors."""
    return functional.normalize(torch.randn(*shape), dim=-1)


def ours() -> Callable[[], None]:
    """The term as a training step computes it."""
    bank_settings = BankSettings(clusters=CLUSTERS)
    settings = ObjectiveSettings(
        local="query_matched", false_negatives="mask", dim=DIM, rarity=1.0, bank=bank_settings
    )
    attention, bank = CrossModalAttention(DIM), ClusterBank(DIM, bank_settings)
    bank.start(unit(CLUSTERS, DIM), unit(CLUSTERS, DIM))
    bank.usage.fill_(1 / CLUSTERS)
    bank.watched.fill_(1.0)
    patches = unit(STUDIES, PATCHES, DIM).requires_grad_()
    mask = torch.ones(STUDIES, SENTENCES, dtype=torch.bool)
    text = torch.arange(1, 1 + mask.numel()).view(mask.shape)
    z1, scale = unit(mask.numel(), DIM), torch.tensor(10.0, requires_grad=True)

    def step() -> None:
        rows = Statements.of(z1, mask, text).assigned(z1, bank.centroids, bank.active)
        matched_report(settings, bank, attention, patches, rows, text, scale).loss.backward()
        patches.grad = None
        attention.zero_grad(set_to_none=True)

    return step


def products() -> Callable[[], None]:
    """Left @ right of each product, and one more for every side that wants a gradient."""
    patches, asked = torch.randn(STUDIES * PATCHES, DIM), torch.randn(STUDIES * SENTENCES + CLUSTERS, DIM)
    square, image = torch.randn(DIM, DIM), torch.randn(STUDIES, PATCHES, DIM)
    weights = torch.rand(STUDIES, PATCHES, len(asked))
    gram = torch.randn(STUDIES, PATCHES, PATCHES)
    both = [(patches, square)] * 2 + [(patches, asked.T), (image, image.transpose(1, 2)), (gram, weights)]
    one = [(asked, square), (patches, asked.T)]  # inputs that are fixed: sentences and centroids

    @torch.no_grad()
    def step() -> None:
        for sides, backward in ((both, 2), (one, 1)):
            for left, right in sides:
                result = left @ right
                result @ right.transpose(-1, -2)
                if backward == 2:
                    left.transpose(-1, -2) @ result

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"ours beside the products: {time_in_turn(ours(), products(), options.repeats, warm_up=5)}")


if __name__ == "__main__":
    main()
