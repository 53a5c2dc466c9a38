"""Losses, gradients and bank on the golden inputs, computed on a device, beside their reference values.

`gpu.py` runs it; alone it prints how far a device is off, in units of the tolerances of `tests/golden/README.md`:

    python benchmarks/golden.py [cpu|cuda]
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.global_alignment import global_alignment_loss
from cmcgns.objectives.local_image import local_image_loss
from cmcgns.objectives.own_query import Sentences
from cmcgns.settings.config import BankSettings, ObjectiveSettings
from unchanged import GOLDEN, RELEASED

RELATIVE, VALUE, GRADIENT = 1e-4, 1e-5, 1e-6
SETTINGS: dict[str, dict[str, Any]] = {
    "described": {"false_negatives": "margin", "margin_weight": 1.0, "bank": {"rate": 0.05}},
    "released": RELEASED | {"margin_weight": 1e-4, "bank": {"rate": 1e-3}},
}


@dataclass(frozen=True)
class Comparison:
    """A value, what it should be, and the absolute tolerance."""

    name: str
    found: Tensor
    expected: Tensor
    tolerance: float

    @property
    def deviation(self) -> float:
        """Largest difference in units of what is allowed: at most 1 is good; 1e9 for what is no number."""
        found, expected = self.found.detach().cpu(), self.expected.detach().cpu()
        allowed = self.tolerance + RELATIVE * expected.abs()
        return float(((found - expected).abs() / allowed).nan_to_num(1e9, posinf=1e9).max())


def golden_values(device: str) -> Iterator[Comparison]:
    """Everything that is computed on the device, beside the golden values."""
    for size in ("small", "medium"):
        with np.load(GOLDEN / f"{size}.npz", allow_pickle=False) as arrays:
            golden = {key: torch.from_numpy(arrays[key]).to(device) for key in arrays.files}
        for arithmetic in SETTINGS:
            yield from local_report(golden, arithmetic, f"{size} {arithmetic}")
        yield from alignment(golden, size)


def objective(golden: dict[str, Tensor], arithmetic: str) -> CMCGNS:
    """The objective of an arithmetic, on the device of the golden values, its bank not yet started."""
    clusters, dim = golden["centroids_after_init"].shape
    switches = SETTINGS[arithmetic]
    bank = BankSettings(clusters=clusters, source="cross_modal", reseed=False, **switches["bank"])
    form = {
        "local": "own_query",
        "negatives": "cluster",
        "rarity": 0.0,
        "weight_matching": 0.0,
        "patch_positions": False,
        "unit_values": False,
        "bank": bank,
    }
    settings = ObjectiveSettings(dim=dim, reconstruction="off", **(switches | form))
    return CMCGNS(settings, (1, 1), 32).to(golden["z_sentence"].device)


def local_report(golden: dict[str, Tensor], arithmetic: str, name: str) -> Iterator[Comparison]:
    """L_report with its gradients, and the centroids, over all steps with one bank."""
    module, described = objective(golden, arithmetic), arithmetic == "described"
    module.bank.start(golden["described/centroids_after_init" if described else "centroids_after_init"])
    for step in range(1, len(golden["z_sentence"])):
        leaves = [golden[key][step].clone().requires_grad_() for key in ("z_sentence", "z_cross_modal")]
        z1, z2 = leaves if described else (functional.normalize(leaf, dim=-1) for leaf in leaves)
        real = torch.ones(len(z1), dtype=torch.bool, device=z1.device)
        rows = Sentences(z1, z2, real, golden["described/text_id"])
        module.bank.observe(z1, z2, real, rows.text)
        loss, _ = module.own_query_loss(rows)
        gradients = torch.autograd.grad(loss, leaves)
        if described:
            prefix = f"described/step{step}/"
            expected = golden[prefix + "keep_duplicates"] + golden[prefix + "margin_duplicates"]
            centroids = golden[prefix + "centroids"]
        else:
            prefix, expected = f"step{step}/", golden["local_report_loss"][step]
            centroids = golden["centroids"][step - 1]
        yield Comparison(f"{name}, step {step}: L_report", loss, expected, VALUE)
        yield Comparison(f"{name}, step {step}: centroids", module.bank.centroids.clone(), centroids, GRADIENT)
        for side, gradient in zip(("sentence", "cross_modal"), gradients, strict=True):
            key = f"{prefix}grad_{side}"
            yield Comparison(f"{name}, step {step}: gradient of {side}", gradient, golden[key], GRADIENT)


def alignment(golden: dict[str, Tensor], name: str) -> Iterator[Comparison]:
    """L_global; cross-modal attention; L_image with its gradient through the attention."""
    module = objective(golden, "described")
    for part, folder in ((module.attention, "attention/"), (module.predictor, "predictor/")):
        part.load_state_dict({k.removeprefix(folder): v for k, v in golden.items() if k.startswith(folder)})
    patches, sentences = golden["image_patches"].clone().requires_grad_(), golden["sentences"]
    real = torch.arange(sentences.shape[1], device=sentences.device) < golden["counts"][:, None]
    gathered, _ = module.attention.image_to_text(patches, sentences, real)
    attended, _ = module.attention.text_to_image(patches, sentences, real)
    loss = local_image_loss(patches, attended, module.predictor)
    (gradient,) = torch.autograd.grad(loss, [patches])
    whole = global_alignment_loss(golden["global/image"], golden["global/text"], golden["global/logit_scale"])
    yield Comparison(f"{name}: L_global", whole, golden["global/loss"], VALUE)
    yield Comparison(f"{name}: f_I2R", gathered, golden["image_to_text"], VALUE)
    yield Comparison(f"{name}: f_R2I", attended, golden["text_to_image"], VALUE)
    yield Comparison(f"{name}: L_image", loss, golden["local_image_loss"], VALUE)
    yield Comparison(f"{name}: gradient of f_I", gradient, golden["local_image_loss_grad_patches"], GRADIENT)


def summary(comparisons: Iterable[Comparison]) -> dict[str, Any]:
    """How many values were compared, the one that is furthest off, and all that are too far."""
    found = {comparison.name: comparison.deviation for comparison in comparisons}
    furthest = max(found, key=lambda name: found[name])
    wrong = [f"{name}: {value:.3g} times its tolerance" for name, value in found.items() if value > 1]
    return {"compared": len(found), "furthest": furthest, "deviation": found[furthest], "wrong": wrong}


def agreement(device: str) -> dict[str, Any]:
    """A device beside the golden values, and beside the CPU, in float32 without TF32."""
    torch.set_float32_matmul_precision("highest")
    on_device = list(golden_values(device))
    with_cpu = (
        Comparison(one.name, one.found, other.found, one.tolerance)
        for one, other in zip(on_device, golden_values("cpu"), strict=True)
    )
    return {"golden": summary(on_device), "cpu": summary(with_cpu)}


if __name__ == "__main__":
    print(json.dumps(agreement(*(sys.argv[1:] or ["cpu"])), indent=1))
