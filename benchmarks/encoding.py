"""Time of the image's attention pool and of the report encoder, each beside the plain way of computing the same.

    python benchmarks/encoding.py [--threads 2] [--repeats 10]

Forward and backward, float32 on the CPU. The pool: 16 images of 49 tokens, 2,048 wide, beside torch's attention,
which maps every token to a key and a value. The report encoder: 4 layers of 256, 32 reports of which the longest has
256 word pieces and the mean 47, beside the whole batch padded to the longest. Both run in turn; medians, and the
median of their ratios.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from cmcgns.data.reports.tokens import length_groups
from cmcgns.models.model import AttentionPool
from cmcgns.models.report_encoder import ReportEncoder
from cmcgns.settings.config import ReportEncoderSettings
from in_turn import Step, time_in_turn

IMAGES, TOKENS, WIDTH, HEADS = 16, 49, 2048, 8
REPORTS, LONGEST, VOCABULARY, PARTS, MULTIPLE = 32, 256, 8000, 4, 8


def pools() -> tuple[Step, Step]:
    """Ours, and torch's attention of the mean token."""
    ours, plain = AttentionPool(WIDTH, heads=HEADS), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    tokens = torch.randn(IMAGES, TOKENS, WIDTH, requires_grad=True)

    def attend() -> None:
        mean = tokens.mean(1, keepdim=True)
        everything = torch.cat([mean, tokens], 1)
        plain(mean, everything, everything, need_weights=False)[0].sum().backward()

    return lambda: ours(tokens).sum().backward(), attend


def report_encoders() -> tuple[Step, Step]:
    """In parts of like length, and all padded to the longest."""
    encoder = ReportEncoder(ReportEncoderSettings(dropout=0.0), VOCABULARY, LONGEST)
    lengths = np.random.default_rng(0).lognormal(3.4, 0.8, REPORTS).clip(8, LONGEST).astype(int)
    lengths[0] = LONGEST
    ids = torch.randint(5, VOCABULARY, (REPORTS, LONGEST))
    mask = torch.arange(LONGEST) < torch.from_numpy(lengths)[:, None]
    order, longest = length_groups(lengths, PARTS, MULTIPLE, LONGEST)
    parts = list(zip(torch.from_numpy(order).tensor_split(len(longest)), longest, strict=True))
    print(f"mean length {lengths.mean():.0f}, parts of {', '.join(str(length) for length in longest)}")

    def in_parts() -> None:
        sum_of([encoder(ids[rows, :length], mask[rows, :length]) for rows, length in parts]).backward()

    return in_parts, lambda: sum_of([encoder(ids, mask)]).backward()


def sum_of(tensors: list[Tensor]) -> Tensor:
    """A scalar that wants every gradient."""
    return torch.stack([tensor.sum() for tensor in tensors]).sum()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for name, steps in (("attention pool", pools()), ("report encoder", report_encoders())):
        print(f"{name}: {time_in_turn(*steps, options.repeats, warm_up=2)}")


if __name__ == "__main__":
    main()
