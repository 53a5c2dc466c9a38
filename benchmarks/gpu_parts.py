"""The parts of `gpu.py`: each takes the options and gives its figures, with what is wrong under `wrong`."""

import contextlib
import importlib.metadata
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import cmcgns
from cmcgns.common.processes import Stopped
from cmcgns.phantom import write_dataset
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.bench import bench_step, random_batch, random_task
from cmcgns.training.journal import read_metrics
from cmcgns.training.launch import launch
from cmcgns.training.pretrain import pretrain
from cmcgns.training.step import build_optimizer, training_step
from golden import agreement
from unchanged import RECIPE

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(cmcgns.__file__).parent
TESTS = "tests/benchmarks/test_gpu_benchmark.py"
WHOLE = ["objective.negatives=cluster", "objective.reconstruction=cross_modal"]  # every part, more than the default
STEP = [*WHOLE, "data.max_tokens=128", "training.batch_size=128", "training.precision=bf16-mixed"]
TINY_STEP = [*WHOLE, "data.max_tokens=32", "training.batch_size=4", "training.precision=bf16-mixed"]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Where, and whether at toy sizes."""

    device: str = "cuda"
    tiny: bool = False


def number(value: float) -> float | None:
    """The value, for JSON, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def machine(options: Options) -> Figures:
    """The versions, and the card if there is one."""
    packages = ("torch", "torchvision", "timm", "transformers", "lightning", "numpy")
    found: Figures = {name: importlib.metadata.version(name) for name in packages}
    found |= {"python": platform.python_version(), "cpus": os.cpu_count(), "cuda": torch.version.cuda}
    if options.device == "cuda":
        properties = torch.cuda.get_device_properties(0)  # raises where there is none
        found |= {"gpu": properties.name, "memory_mib": properties.total_memory / 2**20}
    return found


def training_step_of(recipe: Recipe, options: Options, stage: Any) -> Callable[[], Any]:
    """A step as the loop takes it, on random data. All that is known here of the inside of training is in it."""
    fabric, training = launch(recipe, 1, 1, options.device), recipe.training
    task = random_task(recipe, None if options.tiny else "bert-base")
    task.set_stage(stage)
    module, optimizer = fabric.setup(task, build_optimizer(task, getattr(recipe, stage)))
    words = task.model.report_encoder.config["vocab_size"]
    batch = random_batch(recipe, training.batch_size, words).to(fabric.device)
    return lambda: training_step(fabric, module, task, optimizer, [batch], seed=0, clip=training.clip)


def synchronisations(step: Callable[[], Any], watch: Callable[[str], Any]) -> dict[str, int]:
    """How often the host waits for the GPU in a step, by the innermost line of this project on the way there.

    Args:
        step: what is watched; warmed up before.
        watch: `torch.cuda.set_sync_debug_mode`. PyTorch says that it does not see every wait.
    """
    found: Counter[str] = Counter()

    def note(message: Any, _: Any, filename: str, lineno: int, *__: Any) -> None:
        if "synchronizing" in str(message) and "prototype" not in str(message):
            frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_stack()]
            ours = [(file.relative_to(PACKAGE), line) for file, line in frames if file.is_relative_to(PACKAGE)]
            found[" < ".join(f"{file}:{line}" for file, line in [(Path(filename).name, lineno), *ours[-1:]])] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        watch("warn")
        try:
            step()
        finally:
            watch("default")
    return dict(found)


def measure_step(options: Options, settings: Sequence[str]) -> Figures:
    """The step of an image encoder in both stages, with these settings."""
    recipe, stages = load_recipe("default", settings), ("alignment", "reconstruction")
    found: Figures = {"image_encoder": recipe.image_encoder.name, "wrong": []}
    for stage in stages:
        figures = bench_step(
            recipe,
            device=options.device,
            steps=2 if options.tiny else 20,
            stage=stage,
            report_config=None if options.tiny else "bert-base",
        )
        step = training_step_of(recipe, options, stage)
        losses = [float(step()["loss"]) for _ in range(3)]
        found[stage] = asdict(figures) | {"loss": number(losses[-1])}
        if not all(map(math.isfinite, losses)):
            found["wrong"].append(f"{stage}: the loss is {losses}")
        if options.device == "cuda":
            waits = synchronisations(step, torch.cuda.set_sync_debug_mode)
            found[stage]["synchronisations"] = waits
            found["wrong"] += [f"{stage}: the host waits {n} times at {place}" for place, n in waits.items()]
    return found


def resnet50(options: Options) -> Figures:
    """ResNet-50 + BERT-base."""
    return measure_step(options, [*RECIPE, *TINY_STEP] if options.tiny else ["image_encoder.name=resnet50", *STEP])


def vit(options: Options) -> Figures:
    """ViT-B/16 + BERT-base."""
    if options.tiny:
        return measure_step(options, [*RECIPE, *TINY_STEP, "image_encoder={name: test_vit, channels: 1}"])
    return measure_step(options, ["image_encoder.name=vit_base_patch16_224", *STEP])


def golden(options: Options) -> Figures:
    """Agreement with the golden values and with the CPU."""
    found = agreement(options.device)
    return found | {"wrong": [f"{which}: {line}" for which in found for line in found[which]["wrong"]]}


def resume(options: Options) -> Figures:
    """Bits of a run that was stopped and resumed; operations without a deterministic form are named and allowed."""
    refused = ""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    for warn_only in (False, True):
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
        try:
            with tempfile.TemporaryDirectory() as folder:
                return stopped_and_resumed(options, Path(folder)) | {"refused": refused}
        except RuntimeError as error:
            if warn_only or "deterministic" not in str(error):
                raise
            refused = str(error).splitlines()[0]
        finally:
            torch.use_deterministic_algorithms(False)
    raise AssertionError("not reached")


def stopped_and_resumed(options: Options, folder: Path) -> Figures:
    """Run to the end; run, stop after the first checkpoint, resume; compare weights and logs."""
    recipe = load_recipe("default", [*RECIPE, "training.checkpoint_every=3"])
    write_dataset(folder / "data", {"train": 32 if options.tiny else 64, "val": 8}, seed=5, size=72)
    whole, stopped = folder / "whole", folder / "stopped"
    pretrain(recipe, folder / "data", whole, accelerator=options.device, quiet=True)

    def stop() -> None:
        while not list(stopped.glob("state/step-*.safetensors")):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    found: Figures = {"wrong": ["the run ended before it was stopped"]}
    with contextlib.suppress(Stopped):
        pretrain(recipe, folder / "data", stopped, accelerator=options.device, quiet=True)
        return found
    at = max(path.stem for path in stopped.glob("state/step-*.safetensors"))
    pretrain(recipe, folder / "data", stopped, accelerator=options.device, quiet=True, resume=True)
    first, second = (load_file(run / "model.safetensors") for run in (whole, stopped))
    differing = [name for name, value in first.items() if not torch.equal(value, second[name])]
    if (whole / "metrics.jsonl").read_bytes() != (stopped / "metrics.jsonl").read_bytes():
        differing.append("metrics.jsonl")
    return {"tensors": len(first), "stopped_at": at, "wrong": [f"{name} differs" for name in differing]}


def demo(options: Options) -> Figures:
    """The recipe `demo` in bf16; its bank starts early, or 200 steps would never see it."""
    batch, epochs, start = (8, (2, 1), 1) if options.tiny else (32, (7, 3), 60)
    batches = 2 if options.tiny else 20  # an epoch
    settings = [
        f"alignment.epochs={epochs[0]}",
        f"reconstruction.epochs={epochs[1]}",
        f"training={{batch_size: {batch}, precision: bf16-mixed, log_every: 1}}",
        f"objective.bank.start_from_step={start}",
        f"objective.bank.start_by_step={start + 1}",
        *WHOLE,
    ]
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "run"
        write_dataset(data, {"train": batch * batches, "val": 2 * batch}, size=72)
        begin = time.perf_counter()
        pretrain(load_recipe("demo", settings), data, out, accelerator=options.device, quiet=True)
        records = read_metrics(out / "metrics.jsonl")
        seconds = time.perf_counter() - begin
    figures = [record for record in records if record["kind"] != "event"]
    numbers = [(r["step"], name, x) for r in figures for name, x in r.items() if isinstance(x, float)]
    wrong = [f"step {step}: {name} is {x}" for step, name, x in numbers if not math.isfinite(x)]
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    if len(losses) != sum(epochs) * batches:
        wrong.append(f"{len(losses)} steps instead of {sum(epochs) * batches}")
    if not any("bank started" in record.get("message", "") for record in records):
        wrong.append("the bank did not start")
    ends = {"first_loss": number(losses[0]), "last_loss": number(losses[-1])}
    return {"steps": len(losses), "run_seconds": seconds, **ends, "wrong": wrong[:20]}


def tests(options: Options) -> Figures:
    """The tests marked `gpu`, in a process of their own."""
    if options.device == "cpu":
        return {"reason": "they need a GPU"}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider", TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=75)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return {"summary": lines[-1] if lines else "", "wrong": lines[-40:] if done.returncode else []}
