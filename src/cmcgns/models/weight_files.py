"""Weights in files of others: safetensors or PyTorch, in one file or in shards; nothing in them is ever run."""

import json
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError  # nosec B403 # to catch it
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cmcgns.common.errors import UserError, one_line, shortened
from cmcgns.common.files import explain, not_the_file
from cmcgns.common.remote import is_url, location_of
from cmcgns.models.checked_tensors import has_checksum, read_tensors

MAX_ENTRIES = 100_000
"""Tensors, numbers and groups that a weights file may name."""
MAX_UNPACKED = 2
"""How many times its own size a weights file may unpack to; PyTorch does not compress."""
MAX_INDEX_BYTES = 16 * 2**20
"""Size of the list of shards."""

_DEPTH = 6  # groups within groups, such as {"state_dict": {"teacher": …}}
_NAMES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".tar")
_PYTORCH = (b"PK", b"\x80")  # an archive, and a pickle as until version 1.5


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, or of the one model in a folder.

    Groups within groups become names with dots: {"state_dict": {"fc.bias": …}} gives `state_dict.fc.bias`. What is no
    tensor is left out.

    Args:
        path: safetensors or PyTorch file, a list of shards (`….index.json`), or a folder that holds one of these.

    Raises:
        UserError: nothing there, unreadable, more than tensors, or no tensor at all.
    """
    try:
        path = _model_in(path) if path.is_dir() else path
        if not path.is_file():
            place = location_of(path)
            hint = "; weights are a file or folder on this machine, no URL: fetch it, and name its path"
            raise UserError(f"{place}: no such weights file{hint if is_url(place) else ''}")
    except OSError as error:  # a folder that may not be read, a name that no disk can hold
        raise UserError(explain(error, shortened(path), "read")) from error
    tensors = _read_shards(path) if path.name.endswith(".index.json") else _read_file(path)
    if not tensors:
        raise UserError(f"{path} holds no tensors under names")
    return tensors


def _model_in(folder: Path) -> Path:
    for usual in _NAMES:
        for name in (usual, f"{usual}.index.json"):
            if (folder / name).is_file():
                return folder / name
    found = sorted(file for file in folder.iterdir() if file.name.endswith(_ENDINGS) and file.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(file.name for file in found[:8])
        raise UserError(f"{folder} holds several weights files ({shown}); name one of them")
    raise UserError(f"{folder} is a folder without a weights file ({', '.join(_NAMES[:2])} or one *.pth)")


def _read_shards(index: Path) -> dict[str, Tensor]:
    """What an `….index.json` lists; its shards lie beside it."""
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise UserError(f"{index}: more than {MAX_INDEX_BYTES:,} bytes are no list of shards")
    try:
        files = dict(json.loads(index.read_text("utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{index}: not a readable list of shards ({one_line(error)})") from error
    tensors: dict[str, Tensor] = {}
    for name in sorted(map(str, set(files.values()))):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise UserError(f"{index} names the shard {shortened(name)!r}, which is not beside it; fetch all of them")
        tensors |= _read_file(index.parent / name)
    if lost := [key for key in files if key not in tensors]:
        raise UserError(f"{index} lists {len(lost)} tensors that no shard holds, the first {shortened(lost[0])}")
    return {key: tensors[key] for key in files}


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if reason := not_the_file(head) if head else "an empty file; was its download cut off?":
            raise UserError(f"{path}: no weights but {reason}")
        if path.suffix == ".safetensors" or _begins_as_safetensors(head, path.stat().st_size):
            # Of a run: whatever opens it finds damage.
            content: Any = read_tensors(path)[0] if has_checksum(path) else load_file(path)
        elif head.startswith(_PYTORCH):
            content = _read_pickle(path)
        else:
            raise UserError(
                f"{path}: not a readable weights file: neither safetensors nor PyTorch (begins {head[:16]!r})"
            )
    except UserError:
        raise
    except UnpicklingError as error:  # torch's own message recommends to run the code
        raise UserError(
            f"{path}: no weights file, or one that holds more than tensors{_foreign(path)}, and its code is not run; "
            "save the state dict of the model alone, best as .safetensors"
        ) from error
    except Exception as error:
        raise UserError(f"{path}: not a readable weights file ({one_line(error)})") from error
    found = _walk(content, str(path)) if isinstance(content, Mapping) else ()
    tensors: dict[str, Tensor] = {}
    for name, tensor in found:
        where = f"{path}: {shortened(name)}"
        if name in tensors:
            raise UserError(f"{where} stands there twice, as one name and in groups; which one is meant?")
        tensors[name] = _checked(tensor.detach(), where)
    return tensors


def _begins_as_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size


def _read_pickle(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any("/code/" in entry.filename for entry in entries):
            raise UserError(
                f"{path}: a program of TorchScript, which is not run; save the state dict of its model alone"
            )
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > MAX_UNPACKED * path.stat().st_size:
            raise UserError(f"{path}: unpacks to {unpacked:,} bytes; PyTorch does not compress weights")
    # Many programs keep their command line beside the weights; a namespace is plain data.
    with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
        warnings.simplefilter("ignore")  # of torch, on archives that it then refuses
        return torch.load(path, map_location="cpu", weights_only=True)


def _foreign(path: Path) -> str:
    """The classes that a file asks for, found without making them."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no archive, or a broken one
        return ""
    names = sorted({*names} - {"argparse.Namespace"})
    return f" ({shortened(', '.join(names))})" if names else ""


def _walk(content: Mapping[Any, Any], where: str) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor, in the order of the file; groups may hold themselves, so that their number is bounded."""
    left = MAX_ENTRIES
    waiting: list[Iterator[tuple[str, Any, int]]] = [iter([("", content, 0)])]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        name, value, depth = entry
        left -= 1
        if left < 0:
            raise UserError(f"{where}: names more than {MAX_ENTRIES:,} things")
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping) and depth < _DEPTH:
            waiting.append(_below(value, f"{name}." if name else "", depth + 1))


def _below(group: Mapping[Any, Any], above: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    for key, value in group.items():
        if isinstance(key, str):  # optimisers number their tensors
            yield above + key, value, depth


def _checked(tensor: Tensor, where: str) -> Tensor:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    # A few bytes may pose as a tensor of any size, which the first operation would write out.
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(
            f"{where} is no plain tensor (sparse, quantised, without values, or repeated); save it densely"
        )
    return tensor
