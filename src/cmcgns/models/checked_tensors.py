"""Tensors in safetensors files with a checksum: whole, or named as damaged."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cmcgns.common.errors import UserError, one_line
from cmcgns.common.files import NO_SPACE, write_atomically

_CHECKSUM = "sha256"
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


class DamagedWeights(UserError):
    """A weights file whose content is not what was written."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], kind: str, about: Mapping[str, Any]) -> None:
    """Write tensors, what is said about them, and the checksum of both.

    Args:
        path: the file; an old one stays as it is until the new one is whole.
        tensors: by name, on any device.
        kind: name under which `about` stands in the file.
        about: facts by name, as JSON has them.

    Raises:
        UserError: the disk is full, or refuses the file.
    """
    on_host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # One entry alone: safetensors writes several in an order of its own, and equal runs have equal files.
    metadata = {kind: json.dumps({**about, _CHECKSUM: _checksum(on_host, kind, about)})}

    def write(temporary: Path) -> None:
        try:
            save_file(on_host, temporary, metadata=metadata)
        except SafetensorError as error:  # it wraps what the system says
            found = _SYSTEM_ERROR.search(str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error

    try:
        write_atomically(path, write)
    except UserError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_SPACE:
            size = sum(value.nbytes for value in on_host.values())
            raise UserError(f"{error}; the file needs {size:,} bytes") from error.__cause__
        raise


def read_tensors(path: Path, verify: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and what was said about them; files of earlier versions have no checksum to be compared.

    Args:
        path: the file.
        verify: compare the checksum, which takes as long as hashing all of it; false where that was done just before.

    Raises:
        UserError: no such file; as `DamagedWeights`, one that is torn or has another checksum.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        with safe_open(path, "pt") as file:
            kind, text = next(iter((file.metadata() or {}).items()), ("", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        about = dict(json.loads(text))
    except (SafetensorError, ValueError, TypeError) as error:
        raise DamagedWeights(f"{path} is damaged ({one_line(error)})") from error
    stated = about.pop(_CHECKSUM, None)
    if verify and stated is not None and stated != _checksum(tensors, kind, about):
        raise DamagedWeights(f"{path} is damaged (its content has another checksum than when it was written)")
    return tensors, about


def has_checksum(path: Path) -> bool:
    """Whether a file is safetensors with a checksum of `write_tensors`."""
    try:
        with safe_open(path, "pt") as file:
            return any(f'"{_CHECKSUM}": "' in text for text in (file.metadata() or {}).values())
    except SafetensorError:
        return False


def _checksum(tensors: Mapping[str, Tensor], kind: str, about: Mapping[str, Any]) -> str:
    """SHA-256 over what is said, and over names, types, shapes and bytes in the order of the names."""
    digest = hashlib.sha256(f"{kind}\0{json.dumps(about, sort_keys=True)}\0".encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
