"""Pretrained image weights of others: the encoder is found in the file, renamed where needed, loaded strictly."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cmcgns.common.errors import UserError, first_of, shortened
from cmcgns.models.layouts import BY_FILTER, Tensors, spellings
from cmcgns.models.positions import interpolate_positions
from cmcgns.models.weight_files import read_state_dict

logger = logging.getLogger(__name__)

_HEADS = ("fc.", "head.", "heads.", "classifier.", "head_dist.", "pooler.", "mask_token", "decoder_")
_DEPTH = 12  # dots of a prefix
_SHOWN, _LETTERS = 2, 120  # keys in a list, and of each
_OPTION = "--prefix P, or image_encoder.weights_prefix=P in a recipe"


@dataclass
class _Reading:
    """A way to read a file as the encoder.

    Attributes:
        prefix: below which the keys lie.
        spelling: the program that names layers so; empty for timm.
        tensors: under the encoder's names.
        head: keys that are left out.
        changes: what was done to tensors.
    """

    prefix: str
    spelling: str
    tensors: Tensors
    head: list[str]
    changes: list[str] = field(default_factory=list)


def load_image_weights(body: nn.Module, path: Path, channels: int, prefix: str = "") -> None:
    """Load a state dict of another program into a timm backbone without a head.

    The keys of the encoder may lie below any prefix and be spelled as in timm, torchvision, transformers, CLIP or
    EfficientNet-PyTorch. A classification head is left out, a first layer of one or three channels is made to fit,
    the position embedding of another image size is interpolated; all else must match. The log says what was done.

    Args:
        body: is filled.
        path: file or folder, as :func:`read_state_dict` takes it.
        channels: of the images.
        prefix: where a file holds several encoders: the keys of the wanted one begin so.

    Raises:
        UserError: several encoders, or none that fits; lists missing, unexpected and misshapen keys.
    """
    tensors = read_state_dict(path)
    inside, start = _below_prefix(tensors, prefix, path)
    wanted = body.state_dict()
    readings = list(_readings(inside, body, start))
    for reading in readings:
        _adapt(reading, body, wanted, channels)
    found = _choose(readings, wanted, path)
    check_keys(found.tensors, wanted, str(path), _hint(found, inside, start))
    for key, value in found.tensors.items():
        if not value.float().isfinite().all():
            raise UserError(f"{path}: {key} holds NaN or infinite values; the training that wrote it had failed")
        if key.endswith("running_var") and bool((value.float() < 0).any()):
            raise UserError(f"{path}: {key} is below 0, which no variance is; the file is damaged or was edited")
    body.load_state_dict(found.tensors)
    _report(found, tensors, path)


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def check_keys(tensors: dict[str, Tensor], wanted: dict[str, Tensor], source: str, hint: str = "") -> None:
    """Refuse tensors that do not fit exactly.

    Raises:
        UserError: with the keys.
    """
    # Old files lack the counter, which only matters for BatchNorm without momentum.
    counters = {key for key in wanted if key.endswith("num_batches_tracked")} - tensors.keys()
    tensors |= {key: wanted[key] for key in counters}
    found = [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in _problems(tensors, wanted).items() if keys]
    if found:
        raise UserError(f"{source} does not fit the model:\n  " + "\n  ".join(found) + hint)


def _problems(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    both = [key for key in wanted if key in tensors]
    shapes = {key: (tuple(tensors[key].shape), tuple(wanted[key].shape)) for key in both}
    return {
        "missing": sorted(key for key in wanted.keys() - tensors.keys() if not key.endswith("num_batches_tracked")),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "other shape": [
            f"{key} {ours} instead of {theirs}" for key, (ours, theirs) in shapes.items() if ours != theirs
        ],
        "no fractions": [
            f"{key} {tensors[key].dtype}"
            for key in both
            if wanted[key].is_floating_point() and not tensors[key].is_floating_point()
        ],
    }


def _plain(key: str) -> str:
    """A key of a stranger's file as a message shows it: short, and without signs that steer a terminal."""
    short = shortened(key, _LETTERS)
    return short if short.isprintable() else ascii(short)


def _some(keys: list[str]) -> str:
    return ", ".join(first_of(keys, _SHOWN, _plain))


def _prefixes(tensors: Mapping[str, Tensor]) -> Counter[str]:
    """How many keys lie below each prefix that ends in a dot, and below none."""
    count: Counter[str] = Counter()
    for key in tensors:
        parts = key.split(".")[:-1][:_DEPTH]
        count.update(["", *(".".join(parts[: number + 1]) + "." for number in range(len(parts)))])
    return count


def _below_prefix(tensors: Tensors, prefix: str, path: Path) -> tuple[Tensors, str]:
    """What lies below a prefix that a user named, without the names of the groups around it if he likes."""
    if not prefix:
        return tensors, ""
    name = prefix.rstrip(".") + "."
    ends = [each for each in _prefixes(tensors) if each == name or each.endswith(f".{name}")]
    ends = [each for each in ends if not any(each != other and each.startswith(other) for other in ends)]
    if not ends:
        raise UserError(f"{path}: no key lies below {prefix}; the keys begin with {_groups(tensors)}")
    if len(ends) > 1 and name not in ends:
        raise UserError(f"{path}: {prefix} is not unique: {_some(ends)}; give a longer one")
    start = name if name in ends else ends[0]
    return below(tensors, start), start


def _readings(tensors: Tensors, body: nn.Module, start: str) -> Iterator[_Reading]:
    """Wherever enough keys lie together to be the encoder, in every spelling."""
    wanted = body.state_dict().keys()
    enough = len(wanted) / 2
    for prefix, count in _prefixes(tensors).items():
        if prefix and count < enough:
            continue
        for spelling, renamed in spellings(below(tensors, prefix), body):
            head = [key for key in renamed if key not in wanted and key.startswith(_HEADS)]
            kept = {key: value for key, value in renamed.items() if key not in head}
            if wanted & kept.keys() or (not prefix and not spelling):
                yield _Reading(start + prefix, spelling, kept, head)


def _adapt(reading: _Reading, body: Any, wanted: Mapping[str, Tensor], channels: int) -> None:
    for key, value in reading.tensors.items():
        target = wanted.get(key)
        if target is None or value.shape == target.shape or value.ndim != target.ndim:
            continue
        if value.ndim == 4 and {value.shape[1], target.shape[1]} == {1, 3} and target.shape[1] == channels:
            # A gray image repeated to three channels meets the sum of the three filters.
            three = channels == 3
            reading.tensors[key] = value.repeat(1, 3, 1, 1) / 3 if three else value.sum(1, keepdim=True)
            change = "one channel spread over three" if three else "three channels summed to one"
            reading.changes.append(f"{key}: {change}")
    grid = getattr(getattr(body, "patch_embed", None), "grid_size", None)
    if grid is not None:
        changed = interpolate_positions(reading.tensors, wanted, tuple(grid))
        reading.changes += [f"{name}: interpolated from {sizes}" for name, sizes in changed.items()]


def _choose(readings: list[_Reading], wanted: Mapping[str, Tensor], path: Path) -> _Reading:
    """The reading that has all of the encoder; the one that comes nearest if there is none."""
    problems = [(_problems(reading.tensors, wanted), reading) for reading in readings]
    whole = [(len(found.pop("unexpected")), reading) for found, reading in problems]
    whole = [each for each, (found, _) in zip(whole, problems, strict=True) if not any(found.values())]
    if not whole:
        return max(readings, key=lambda reading: _matches(reading.tensors, wanted))
    named = {reading.prefix for _, reading in whole if reading.spelling != BY_FILTER}
    # A filter may find the encoder from further up; what lies around it is better known from below.
    prefixes = dict.fromkeys(
        reading.prefix
        for _, reading in whole
        if reading.prefix in named or not any(other.startswith(reading.prefix) for other in named)
    )
    if len(prefixes) > 1:
        shown = ", ".join(_plain(prefix) or "no prefix" for prefix in prefixes)
        raise UserError(
            f"{path} holds {len(prefixes)} encoders that fit, below {shown}; choose one as P: {_OPTION}. Published "
            "programs judge the teacher, not the student, and the query encoder, not the key or momentum encoder"
        )
    return min(
        ((extra, reading) for extra, reading in whole if reading.prefix in prefixes), key=lambda each: each[0]
    )[1]


def _matches(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[int, int]:
    same = [key for key in tensors if key in wanted]
    return sum(tensors[key].shape == wanted[key].shape for key in same), len(same)


def _hint(reading: _Reading, inside: Tensors, start: str) -> str:
    """Where the encoder was looked for, for the end of a message."""
    lines = []
    if reading.prefix or reading.spelling:
        spelled = f", read as {reading.spelling}" if reading.spelling else ""
        lines.append(f"this is what lies below {_plain(reading.prefix) or 'no prefix'}{spelled}, which comes nearest")
    whole = [prefix for prefix, count in _prefixes(inside).items() if prefix and count == len(inside)]
    if whole:
        lines.append(f"all keys stand below {_plain(start + max(whole, key=len))}")
    lines.append(f"the keys begin with {_groups(inside)}; to look below one prefix P alone: {_OPTION}")
    return "\n  " + "\n  ".join(lines)


def _groups(tensors: Mapping[str, Tensor]) -> str:
    groups = Counter(first + dot for first, dot, _ in (key.partition(".") for key in tensors))
    return _some([f"{name[:60]} ({count})" for name, count in groups.items()])


def _report(found: _Reading, tensors: Tensors, path: Path) -> None:
    done = [f"below {_plain(found.prefix)}"] if found.prefix else []
    done += [f"spelled as {found.spelling}"] if found.spelling else []
    done += found.changes
    outside = {key: value for key, value in tensors.items() if not key.startswith(found.prefix)}
    done += [f"not used: {_groups(outside)}"] if outside else []
    logger.info(
        "loaded %d tensors from %s (%s)",
        len(found.tensors), path, "; ".join([*done, f"head left out: {_some(found.head) or 'none'}"]),
    )  # fmt: skip
