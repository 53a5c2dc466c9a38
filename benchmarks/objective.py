"""Time and memory of the Stage I objective, forward and backward, against its own matrix products and plain code.

    python benchmarks/objective.py

Compared at 64 studies of 8 sentences and 49 patches, 768 wide, 128 centroids, float32 on the CPU, the bank
started: attention, the three losses and the bank's update, without encoders, pools and decoder.

- ours: `cmcgns.objectives`.
- products: the matrix products that no implementation can avoid, forward and backward, and nothing else.
- plain: `plain_released.py`, the released arithmetic written the obvious way (loops over studies, cosines by
  broadcasting, weights as nested lists). It is two to three times lighter than the program it stands for.

Each runs in a process of its own; the figures are medians after a warm-up. Memory is the highest resident set
above the level after the imports: inputs, parameters, gradients and temporaries.

Expected on 2 idle cores x86-64, `--threads 2` (docs/results.md): plain / ours about 6x to 7x in time and 9x in
memory; ours / products 0.9x to 1.3x in time. Ours takes 0.4 to 0.5 s and 200 MB a step, plain 2.4 to 3.2 s and
1780 MB; allow half a minute in all.
"""

import argparse
import contextlib
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import plain_released
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.settings.config import BankSettings, ObjectiveSettings

Step = Callable[[], None]
PROGRAMS = ("products", "ours", "plain")


@dataclass(frozen=True)
class Sizes:
    """Studies B, sentences a study M, patches P (a square grid), width D, centroids K."""

    studies: int = 64
    sentences: int = 8
    patches: int = 49
    dim: int = 768
    clusters: int = 128


@dataclass(frozen=True)
class Inputs:
    """The same random features for every program; all of them want gradients."""

    patches: Tensor
    sentences: Tensor
    image_global: Tensor
    report_global: Tensor
    centroids: Tensor

    @classmethod
    def random(cls, sizes: Sizes) -> "Inputs":
        """Unit vectors of a fixed seed."""
        generator = torch.Generator().manual_seed(0)

        def unit(*shape: int) -> Tensor:
            return functional.normalize(torch.randn(*shape, sizes.dim, generator=generator), dim=-1)

        return cls(
            unit(sizes.studies, sizes.patches).requires_grad_(),
            unit(sizes.studies, sizes.sentences).requires_grad_(),
            unit(sizes.studies).requires_grad_(),
            unit(sizes.studies).requires_grad_(),
            unit(sizes.clusters),
        )

    def features(self) -> Features:
        """What the encoders would have given; nobody asks for word pieces."""
        words = torch.zeros(len(self.sentences), 1, 1)
        local, pooled = (self.patches, self.sentences), (self.image_global, self.report_global)
        return Features(*local, words, words[..., 0].bool(), *pooled)


def objective(sizes: Sizes) -> CMCGNS:
    """Stage I with all weights 1; every program takes its parameters from here."""
    torch.manual_seed(0)
    settings = ObjectiveSettings(
        dim=sizes.dim,
        weight_image=1.0,
        weight_report=1.0,
        reconstruction="off",
        sentence_gradient=1.0,
        local="own_query",  # as published, like the plain program
        patch_positions=False,
        unit_values=False,
        false_negatives="margin",
        rarity=0.0,
        weight_matching=0.0,
        bank=BankSettings(clusters=sizes.clusters, source="cross_modal", reseed=False),
    )
    side = math.isqrt(sizes.patches)
    return CMCGNS(settings, (side, side), 32 * side)


def ours(sizes: Sizes, inputs: Inputs) -> Step:
    """The objective of this package."""
    module = objective(sizes)
    module.bank.start(inputs.centroids)
    shape = (sizes.studies, sizes.sentences)
    real = torch.ones(shape, dtype=torch.bool)
    none = torch.zeros(shape, dtype=torch.long)
    text = torch.arange(real.numel()).view(shape)
    images = torch.zeros(sizes.studies, 1, 1, 1)
    batch = Batch(images, none, real, none, real, text, torch.arange(sizes.studies), text)
    features = inputs.features()

    def step() -> None:
        losses, _ = module(lambda _: features, batch, 0)
        losses["loss"].backward()
        module.zero_grad(set_to_none=True)

    return step


def module_grid(sizes: Sizes) -> tuple[int, int]:
    """(h, w) of the patches."""
    return math.isqrt(sizes.patches), math.isqrt(sizes.patches)


def plain(sizes: Sizes, inputs: Inputs) -> Step:
    """The plain program with the same parameters."""
    module = objective(sizes)
    attention, predictor = dict(module.attention.named_parameters()), dict(module.predictor.named_parameters())
    counts = torch.full((sizes.studies,), sizes.sentences)
    scale = torch.tensor(10.0, requires_grad=True)
    state = plain_released.PlainState(centroids=inputs.centroids, clusters=sizes.clusters)

    def step() -> None:
        losses = plain_released.plain_step(
            inputs.patches,
            inputs.sentences,
            counts,
            attention,
            predictor,
            inputs.image_global,
            inputs.report_global,
            scale,
            state,
        )
        losses["loss"].backward()
        module.zero_grad(set_to_none=True)

    return step


def products(sizes: Sizes, inputs: Inputs) -> Step:
    """Left @ right of every product of the objective; two more for each that back-propagates to both sides."""
    b, m, p, d, k = sizes.studies, sizes.sentences, sizes.patches, sizes.dim, sizes.clusters
    patches, sentences = inputs.patches.detach().flatten(0, 1), inputs.sentences.detach().flatten(0, 1)
    square, down, up = torch.randn(d, d), torch.randn(d, d // 2), torch.randn(d // 2, d)
    hidden, patch_like, sentence_like = torch.randn(b * p, d // 2), patches.view(b, p, d), sentences.view(b, m, d)
    membership = torch.randn(k, b * m)
    both = [
        *[(patches, square)] * 3,  # query, key and value of the image
        *[(sentences, square)] * 3,  # and of the report
        (sentence_like, patch_like.transpose(1, 2)),  # sentence looks at image: scores, values
        (torch.randn(b, m, p), patch_like),
        (patch_like, sentence_like.transpose(1, 2)),  # patch looks at report
        (torch.randn(b, p, m), sentence_like),
        *[(patches, down)] * 2,  # predictor, of f_I and of f_R2I
        *[(hidden, up)] * 2,
        (sentences, sentences.T),  # z1 · z2
        (inputs.image_global.detach(), inputs.report_global.detach().T),
    ]
    to_centroids = inputs.centroids.T

    @torch.no_grad()
    def step() -> None:
        for left, right in both:
            gradient = left @ right  # stands for the gradient, which has the same shape
            gradient @ right.transpose(-1, -2)
            left.transpose(-1, -2) @ gradient
        (sentences @ to_centroids) @ to_centroids.T  # z1 · C, whose centroids are constants
        sentences @ to_centroids  # assignment of z2
        membership @ sentences

    return step


def measure(name: str, sizes: Sizes, repeats: int) -> dict[str, float]:
    """Median seconds of a step, and MB above the level after the imports."""
    before = reset_peak()
    inputs = Inputs.random(sizes)
    step = {"ours": ours, "plain": plain, "products": products}[name](sizes, inputs)
    leaves = (inputs.patches, inputs.sentences, inputs.image_global, inputs.report_global)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        for leaf in leaves:
            leaf.grad = None
    return {"seconds": statistics.median(seconds[1:]), "megabytes": peak() - before}


def reset_peak() -> float:
    """Forget the highest resident set so far, where the system can; the level now in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak() -> float:
    """Highest resident set in MB."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run_alone(name: str, arguments: list[str]) -> dict[str, float]:
    """Measure one program in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--program", name]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output))


def main(arguments: list[str]) -> None:
    """Parse, measure, print; both ratios come last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", choices=PROGRAMS, help="measure only this one, in this process, as JSON")
    for name, value in vars(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    sizes = Sizes(**{name: getattr(options, name) for name in vars(Sizes())})
    if module_grid(sizes)[0] ** 2 != sizes.patches:
        parser.error(f"--patches {sizes.patches} is no square")
    torch.set_num_threads(options.threads)
    if options.program is not None:
        print(json.dumps(measure(options.program, sizes, options.repeats)))
        return
    found = {name: run_alone(name, arguments) for name in PROGRAMS}
    for name, figures in found.items():
        print(f"{name:9} {1000 * figures['seconds']:8.1f} ms {figures['megabytes']:8.0f} MB")
    time_of, memory_of = ({name: found[name][key] for name in PROGRAMS} for key in ("seconds", "megabytes"))
    print(f"ours / products, time: {time_of['ours'] / time_of['products']:.2f}x")
    print(f"plain / ours, time: {time_of['plain'] / time_of['ours']:.1f}x")
    print(f"plain / ours, memory: {memory_of['plain'] / max(memory_of['ours'], 1):.1f}x")


if __name__ == "__main__":
    main(sys.argv[1:])
