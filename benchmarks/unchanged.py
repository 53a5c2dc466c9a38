"""What a change of structure must not change: figures and files, as one JSON of hashes and numbers.

    python benchmarks/unchanged.py before.json                        # before the change
    python benchmarks/unchanged.py after.json --against before.json   # after it; status 1 where they differ

Both on one machine, for floating point differs among processors; about one minute. Written down:

- `objective`: every loss and gradient of the objective benchmark's inputs, for each switch of the ablation;
- `golden`: the same on the golden inputs, in the described and the released arithmetic;
- `trees`: manifest and images of every public dataset's layout, prepared with both kinds of split;
- `phantom`: manifest, images and masks of the synthetic studies;
- `run`: weights and log of a tiny pretraining through both stages;
- `judged`: predictions and `results.csv` of that run under every protocol of the demo.

What was changed on purpose is listed in CHANGELOG.md.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import objective as benchmark
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.own_query import Sentences
from cmcgns.phantom import write_dataset
from cmcgns.phantom.trees import tree_names, write_tree
from cmcgns.prepare.sources import get_source
from cmcgns.settings.config import BankSettings, ObjectiveSettings

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
SWITCHES: list[dict[str, Any]] = [
    {},
    {"negatives": "in_batch"},
    {"negatives": "hard"},
    *({"false_negatives": kind} for kind in ("keep", "margin", "mask")),
    {"duplicates": False},
    {"attention": "softmax"},
    {"sentence_gradient": 1.0},
    {"weight_image": 0.0},
    {"weight_report": 0.0},
]
RELEASED = {
    "arithmetic": "released",
    "sentence_gradient": 1.0,
    "tau": 1.0,
    "learn_tau": False,
    "false_negatives": "margin",
    "duplicates": False,
}
PUBLISHED: dict[str, Any] = {
    "local": "own_query",
    "negatives": "cluster",
    "centroid_negatives": True,
    "rarity": 0.0,
    "weight_matching": 0.0,
    "weight_image": 0.02,
    "weight_report": 0.2,
    "false_negatives": "soft",
    "patch_positions": False,
    "unit_values": False,
    "sentence_gradient": 0.0,
}
RECIPE = [
    "data.image_size=64",
    "data.resize=72",
    "image_encoder.name=resnet10t",
    "image_encoder.channels=1",
    "image_encoder.output_stride=16",
    "image_encoder.options={channels: [8, 16, 24, 32], stem_width: 8}",
    "report_encoder={layers: 1, width: 32, heads: 2, vocabulary: 400}",
    "objective.dim=32",
    "objective.negatives=cluster",
    "objective.reconstruction=cross_modal",
    "objective.decoder_width=16",
    "objective.bank={clusters: 8, start_from_step: 0, start_by_step: 10, check_every: 2}",
    "alignment={epochs: 3, learning_rate: 1.0e-3}",
    "reconstruction={epochs: 2, learning_rate: 1.0e-3}",
    "training={batch_size: 8, log_every: 3}",
]
PROTOCOLS = {
    "linear/v1,knn/v1,phantom-zero-shot/v1,retrieval/v1,phantom-grounding/v1": [],
    "phantom-detection/v1": ["settings.epochs=2", "settings.head_width=16", "settings.confidence_floor=0"],
    "phantom-segmentation/v1": ["settings.epochs=2", "settings.unet_channels=[16,8,8,8,8]"],
}


def bytes_hash(content: bytes) -> str:
    """Short hash of bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def array_hash(values: Any) -> str:
    """Short hash of an array's shape, type and content."""
    array = np.ascontiguousarray(values)
    content = "\n".join(map(str, array.ravel())).encode() if array.dtype.kind in "OU" else array.tobytes()
    return bytes_hash(f"{array.shape} {array.dtype}".encode() + content)


def frame_hash(frame: pd.DataFrame) -> str:
    """Short hash of a table: columns and cells as text."""
    return bytes_hash(frame.to_csv(index=False).encode())


def files_hash(folder: Path, pattern: str) -> str:
    """Short hash of all files below a folder: names and content."""
    files = sorted(file for file in folder.rglob(pattern) if file.is_file())
    return bytes_hash("".join(f"{f.relative_to(folder)} {bytes_hash(f.read_bytes())}\n" for f in files).encode())


def losses_of(module: CMCGNS, features: Features, batch: Batch) -> dict[str, Any]:
    """Losses as numbers, gradients of inputs and parameters as hashes."""
    losses, metrics = module(lambda _: features, batch, 0)
    losses["loss"].backward()
    leaves = {name: value for name, value in vars(features).items() if isinstance(value, torch.Tensor)}
    gradients = {
        name: array_hash(value.grad.numpy())
        for name, value in (*leaves.items(), *module.named_parameters())
        if value.grad is not None
    }
    return {name: float(value.detach()).hex() for name, value in (losses | metrics).items()} | gradients


def bank_settings(clusters: int) -> BankSettings:
    """Of the published form."""
    return BankSettings(clusters=clusters, source="cross_modal", reseed=False)


def objective() -> Iterator[tuple[str, Any]]:
    """Losses and gradients of the benchmark's inputs, small, for every switch."""
    sizes = benchmark.Sizes(studies=8, sentences=4, patches=16, dim=32, clusters=6)
    for switch in SWITCHES:
        torch.manual_seed(0)
        settings = ObjectiveSettings(
            dim=sizes.dim, reconstruction="off", bank=bank_settings(sizes.clusters), **(PUBLISHED | switch)
        )
        module = CMCGNS(settings, (4, 4), 128)
        inputs = benchmark.Inputs.random(sizes)
        text = torch.arange(32).view(8, 4) % 30 + 1
        yield json.dumps(switch), with_bank(module, inputs, sizes, text)


def with_bank(module: CMCGNS, inputs: benchmark.Inputs, sizes: benchmark.Sizes, text: torch.Tensor) -> dict[str, Any]:
    """Losses of one step of a bank that has started, and where its centroids are afterwards."""
    module.bank.start(inputs.centroids)
    real = torch.ones(text.shape, dtype=torch.bool)
    none = torch.zeros(text.shape, dtype=torch.long)
    images = torch.zeros(sizes.studies, 1, 1, 1)
    batch = Batch(images, none, real, none, real, text, torch.arange(sizes.studies), text)
    return losses_of(module, inputs.features(), batch) | {"centroids": array_hash(module.bank.centroids.numpy())}


def golden() -> Iterator[tuple[str, Any]]:
    """Local report loss on golden sentences, in both arithmetics."""
    for name in ("small", "medium"):
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        z1, z2 = (values[key][1].clone().requires_grad_() for key in ("z_sentence", "z_cross_modal"))
        centroids = torch.nn.functional.normalize(values["centroids"][0], dim=-1)
        rows = Sentences(z1, z2, torch.ones(len(z1), dtype=torch.bool), values["described/text_id"])
        for arithmetic, switch in (("described", {}), ("released", RELEASED)):
            bank = bank_settings(len(centroids))
            settings = ObjectiveSettings(dim=z1.shape[1], reconstruction="off", bank=bank, **(PUBLISHED | switch))
            module = CMCGNS(settings, (2, 2), 64)
            module.bank.start(centroids)
            loss, margin = module.own_query_loss(rows)
            gradients = torch.autograd.grad(loss, (z1, z2))
            found = {"loss": float(loss.detach()).hex(), "margin": float(margin.detach()).hex()}
            yield (
                f"{name} {arithmetic}",
                found | {f"z{n + 1}": array_hash(g.numpy()) for n, g in enumerate(gradients)},
            )


def trees(work: Path) -> Iterator[tuple[str, Any]]:
    """Manifest and images of every dataset's tree under the rules of splitting that it has."""
    for name in tree_names():
        root = write_tree(name, work / "trees" / name, 24, seed=1, size=64)
        for rule in ("v1", "legacy") if "split" in get_source(name).uses else ("v1",):
            out = work / "prepared" / f"{name}-{rule}"
            call("prepare", name, "--root", root, "--out", out, "--size", "48", "--split", rule, "--workers", "1")
            yield f"{name} {rule}", described(out)


def described(folder: Path) -> dict[str, Any]:
    """Hashes of a prepared folder."""
    frame = pd.read_parquet(folder / "manifest.parquet")
    pictures = {kind: files_hash(folder, f"*.{kind}") for kind in ("jpg", "png")}
    return {"rows": len(frame), "manifest": frame_hash(frame)} | pictures


def run(work: Path) -> Iterator[tuple[str, Any]]:
    """Weights and log of a tiny run on synthetic studies."""
    from safetensors.torch import load_file

    write_dataset(work / "phantom", {"train": 64, "val": 16, "test": 40}, seed=5, size=72)
    options = [word for setting in RECIPE for word in ("--set", setting)]
    call("pretrain", "default", "--data", work / "phantom", "--out", work / "run", "--accelerator", "cpu", *options)
    weights = load_file(work / "run" / "model.safetensors")
    yield "weights", {name: array_hash(value.numpy()) for name, value in sorted(weights.items())}
    lines = (work / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    yield "log", [json.loads(line) for line in lines]


def judged(work: Path) -> Iterator[tuple[str, Any]]:
    """Predictions and figures of the tiny run."""
    for number, (protocols, settings) in enumerate(PROTOCOLS.items()):
        out = work / f"judged-{number}"
        options = [word for setting in settings for word in ("--set", setting)]
        call(
            "evaluate", work / "run", "--protocol", protocols, "--data", work / "phantom", "--out", out,
            "--fractions", "50,100", "--seeds", "1", "--device", "cpu", *options,
        )  # fmt: skip
        yield f"results {number}", (out / "results.csv").read_text("utf-8").splitlines()
        for file in sorted(out.rglob("*.npz")):
            with np.load(file, allow_pickle=False) as arrays:
                yield (
                    f"{number} {file.relative_to(out)}",
                    {name: array_hash(arrays[name]) for name in sorted(arrays.files)},
                )


def call(*words: str | Path) -> None:
    """Run a verb in a process of its own, with one thread and a cache of its own."""
    command = [sys.executable, "-c", "from cmcgns.cli.app import main; main()", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stdout[-3000:]}")


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Places at which two nested records differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(before.get(key), after.get(key), f"{where} / {key}")
    elif before != after:
        yield f"{where}: {str(before)[:150]} -> {str(after)[:150]}"


def main(arguments: list[str]) -> int:
    """Write the record; compare it with another one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path, help="an earlier record")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["CMCGNS_CACHE"] = str(work / "cache")
        parts: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
            "objective": objective,
            "golden": golden,
            "run": lambda: run(work),
            "phantom": lambda: iter([("manifest", described(work / "phantom"))]),
            "judged": lambda: judged(work),
            "trees": lambda: trees(work),
        }
        for name, part in parts.items():
            record[name] = dict(part())
            print(f"{name}: {len(record[name])}", flush=True)
    options.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
    if options.against is None:
        return 0
    found = list(differences(json.loads(options.against.read_text("utf-8")), record))
    print("\n".join(found) or "nothing has changed")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
