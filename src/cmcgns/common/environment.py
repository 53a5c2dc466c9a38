"""Versions, hardware and command: what a reader needs to run something again."""

import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any

import torch

_PACKAGES = ("cmcgns", "torch", "torchvision", "timm", "transformers", "tokenizers", "lightning", "numpy", "pandas")


def describe_environment() -> dict[str, Any]:
    """When, with which command, on what; no name of the machine, and no path but the command's own."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["cmcgns", *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
    }
