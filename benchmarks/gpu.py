"""What only a GPU can tell, in one call of at most 8 minutes that prints one JSON.

    PYTHONPATH=src python benchmarks/gpu.py --out gpu.json          # on one GPU; without a network
    PYTHONPATH=src python benchmarks/gpu.py --parts golden,resume   # some parts only
    python benchmarks/gpu.py --device cpu --tiny                    # does the script work? Toy sizes, half a minute

Every part has a process and a time limit of its own: one that fails, hangs or breaks the GPU's context is recorded
with its error, and the others go on. What does not fit into the time is skipped, and the JSON says so.

- `machine`: versions and the card; without it nothing else is tried.
- `resnet50`, `vit`: the training step of ResNet-50 or ViT-B/16 with BERT-base (random weights, 224 px, 128 tokens,
  bf16, batch 128) beside its encoders alone, in both stages; memory; where the host waits for the GPU.
- `golden`: losses, gradients and bank beside the reference values and beside the CPU (`golden.py`).
- `resume`: a tiny run, stopped and resumed, against one that was not, in every bit, with deterministic algorithms.
- `demo`: 200 steps of the recipe `demo` in bf16 through both stages on synthetic studies; is every figure finite?
- `tests`: the tests marked `gpu`.

Status 1 if a part failed. Progress goes to the standard error.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Seconds that each may take at most; on one H100 together about a third of it is expected.
PARTS = {"machine": 90, "resnet50": 110, "vit": 110, "golden": 40, "resume": 70, "demo": 80, "tests": 80}
SECONDS = 470  # of the whole call
SHORTEST = 15  # with less left no part is begun
LIBRARIES = ["lightning.fabric", "timm", "transformers", "pandas", "torch.utils.tensorboard"]


def work(name: str, device: str, tiny: bool, file: Path) -> None:
    """Run a part in this process, and write what it found."""
    os.dup2(2, 1)  # the standard output is the JSON's alone
    try:
        import gpu_parts

        found = getattr(gpu_parts, name)(gpu_parts.Options(device, tiny))
    except BaseException as error:  # whatever it is, it goes into the JSON
        trace = traceback.format_exc()
        print(trace, file=sys.stderr)
        found = {"wrong": [f"{type(error).__name__}: {error}"], "traceback": trace.splitlines()[-20:]}
    file.write_text(json.dumps(found, allow_nan=False), "utf-8")


def attempt(name: str, device: str, tiny: bool, folder: Path, limit: float) -> dict[str, Any]:
    """A part's figures with its status: ok, failed (then `wrong` says what is) or skipped (then there is a `reason`).

    Args:
        name: of the part.
        device: cuda or cpu.
        tiny: at toy sizes.
        folder: for what it found.
        limit: seconds after which it is ended.
    """
    begin, file = time.perf_counter(), folder / f"{name}.json"
    process = multiprocessing.get_context("forkserver").Process(target=work, args=(name, device, tiny, file))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        found: dict[str, Any] = {"wrong": [f"not done after {limit:.0f} s"]}
    elif file.is_file():
        found = json.loads(file.read_text("utf-8"))
    else:
        found = {"wrong": [f"the process ended with status {process.exitcode}"]}
    status = "failed" if found.get("wrong") else "skipped" if "reason" in found else "ok"
    return {"status": status, "seconds": round(time.perf_counter() - begin, 1)} | found


def prepare_environment(folder: Path, tiny: bool) -> None:
    """What the parts inherit: no hub, a cache of their own, the package where it is not installed."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "CMCGNS_CACHE": str(folder / "cache"), "TOKENIZERS_PARALLELISM": "false"}
    if tiny:  # threads would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if importlib.util.find_spec("cmcgns") is None:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        sys.path.append(str(ROOT / "src"))


def main(arguments: Sequence[str]) -> int:
    """Run the parts in turn; print the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: whether it works, not how fast it is")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--out", type=Path, help="write the JSON to this file too, after every part")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cpu" and not chosen.tiny:
        parser.error("--device cpu needs --tiny: the steps of full size would take hours")
    names = list(dict.fromkeys(["machine", *chosen.parts.split(",")]))
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts: no part is called {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    begin, parts = time.perf_counter(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        prepare_environment(Path(folder), chosen.tiny)
        multiprocessing.get_context("forkserver").set_forkserver_preload(LIBRARIES)
        for name in names:
            limit = min(PARTS[name], SECONDS - (time.perf_counter() - begin))
            if parts and parts["machine"]["status"] == "failed":
                parts[name] = {"status": "skipped", "reason": "the machine will not do"}
            elif limit < SHORTEST:
                parts[name] = {"status": "skipped", "reason": f"the {SECONDS} s of the call are over"}
            else:
                parts[name] = attempt(name, chosen.device, chosen.tiny, Path(folder), limit)
            print(f"{name}: {parts[name]['status']}", file=sys.stderr, flush=True)
            text = as_json(chosen, time.perf_counter() - begin, parts)
            if chosen.out is not None:
                chosen.out.write_text(text + "\n", "utf-8")
    print(text)
    return int(any(part["status"] == "failed" for part in parts.values()))


def as_json(chosen: argparse.Namespace, seconds: float, parts: dict[str, Any]) -> str:
    """What is known so far."""
    failed = [name for name, part in parts.items() if part["status"] == "failed"]
    record = {"device": chosen.device, "tiny": chosen.tiny, "seconds": round(seconds, 1), "failed": failed}
    return json.dumps(record | {"parts": parts}, indent=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
