"""Which protocols are run on which prepared dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest
from cmcgns.evaluation.data import dataset_of, result_name, split_rules
from cmcgns.evaluation.protocols import EvaluationProtocol, list_protocols, load_protocol
from cmcgns.evaluation.results import slug
from cmcgns.settings.recipe import describe_settings

ALL = "all"
Pair = tuple[EvaluationProtocol, Path]


@dataclass(frozen=True)
class _Dataset:
    """What a manifest says about itself: name, rule of its splits, columns."""

    name: str
    rule: str
    columns: frozenset[str]


def choose(names: str, folders: Sequence[Path], overrides: Sequence[str] = (), finetune: bool = False) -> list[Pair]:
    """Protocols with the data that each is run on.

    Args:
        names: ids or YAML files between commas, or `all`: of every dataset its own protocols, and the general ones
            for the tasks that it has no protocol of its own for.
        folders: prepared datasets.
        overrides: `key=value`, for every protocol.
        finetune: linear protocols train the encoder as well.

    Raises:
        UserError: a protocol whose dataset is not there, or no protocol at all.
    """
    if not folders:
        raise UserError("--data: name at least one prepared dataset")
    datasets = {folder: _facts(folder) for folder in folders}
    if names.strip() == ALL:
        everything = [pair for folder in datasets for pair in _all_of(folder, datasets[folder], overrides, finetune)]
        return _check_names_differ(_of_one_copy(everything, datasets), datasets)
    pairs: list[Pair] = []
    for name in dict.fromkeys(part.strip() for part in names.split(",") if part.strip()):
        protocol = _load(name, overrides, finetune)
        found = [folder for folder, dataset in datasets.items() if protocol.dataset in ("", dataset.name)]
        if not found:
            there = ", ".join(f"{folder} ({dataset.name})" for folder, dataset in datasets.items())
            raise UserError(f"{protocol.id} needs {protocol.dataset}; --data names {there}")
        if protocol.dataset and len(found) > 1:
            found = _of_rule(protocol, found, datasets)
        pairs += [(protocol, folder) for folder in found]
    if not pairs:
        raise UserError("--protocol: name protocols between commas, or all; `cmcgns protocols list` shows them")
    return _check_names_differ(pairs, datasets)


def refuse_without_effect(
    pairs: Sequence[Pair], finetune: bool, fractions: Sequence[float], seeds: int | None
) -> None:
    """Raise if an option would change nothing, because none of the protocols heeds it.

    Raises:
        UserError: names the option and the protocols.
    """
    names = ", ".join(dict.fromkeys(protocol.id for protocol, _ in pairs))
    if finetune and not any(protocol.task == "linear" for protocol, _ in pairs):
        raise UserError(f"--finetune is for linear protocols, and there is none among {names}: leave it out")
    learns = any(protocol.learns for protocol, _ in pairs)
    for option, value in (("--fractions", fractions), ("--seeds", seeds)):
        if value and not learns:
            raise UserError(f"{option} is for protocols that learn from labels, unlike {names}: leave it out")


def _of_one_copy(pairs: list[Pair], datasets: dict[Path, _Dataset]) -> list[Pair]:
    """With `all`, a general protocol is run on the v1 copy of a dataset that is also there with legacy splits."""
    proper = {dataset.name for dataset in datasets.values() if dataset.rule == "v1"}
    return [
        (protocol, folder)
        for protocol, folder in pairs
        if protocol.dataset or datasets[folder].rule != "legacy" or datasets[folder].name not in proper
    ]


def _check_names_differ(pairs: list[Pair], datasets: dict[Path, _Dataset]) -> list[Pair]:
    """Results are kept by protocol and dataset: two pairs of one name would overwrite each other."""
    first: dict[str, Pair] = {}
    for protocol, folder in pairs:
        name = result_name(protocol, datasets[folder].name)
        before, there = first.setdefault(slug(name), (protocol, folder))
        if there != folder and before.id == protocol.id:
            held = " and ".join(dict.fromkeys((datasets[there].name, datasets[folder].name)))
            raise UserError(
                f"{protocol.id}: {there} and {folder} both hold {held}, so that their results would "
                "have one name: name one of them with --data (and the other one with another --out)"
            )
        if before is not protocol:
            ids = " and ".join(dict.fromkeys((before.id, protocol.id)))
            raise UserError(
                f"--protocol: the results of two protocols ({ids}) would have one name, {slug(name)}; "
                "give one of the files another id"
            )
    return pairs


def _of_rule(protocol: EvaluationProtocol, folders: list[Path], datasets: dict[Path, _Dataset]) -> list[Path]:
    """Of several copies of a dataset the one that was prepared with the protocol's split rule."""
    fitting = [folder for folder in folders if datasets[folder].rule in (protocol.split.rule, "")]
    if len(fitting) != 1:
        raise UserError(f"{protocol.id}: which of {', '.join(map(str, folders))}? Name one of them with --data")
    return fitting


def _all_of(folder: Path, dataset: _Dataset, overrides: Sequence[str], finetune: bool) -> list[Pair]:
    protocols = [_load(name, overrides, finetune) for name in list_protocols()]
    rules = (dataset.rule or "v1", "any")
    own = [each for each in protocols if each.dataset == dataset.name and each.split.rule in rules]
    own = [each for each in own if each.split.column in dataset.columns]  # CheXpert without its 5x200 list
    tasks = {each.task for each in own if "5x200" not in each.id}
    general = [each for each in protocols if not each.dataset and each.task not in tasks]
    return [(protocol, folder) for protocol in (*own, *general)]


def _load(name: str, overrides: Sequence[str], finetune: bool) -> EvaluationProtocol:
    protocol = load_protocol(name, overrides)
    if finetune and protocol.task == "linear":
        return load_protocol(name, [*overrides, "settings.finetune=true"])
    return protocol


def _facts(folder: Path) -> _Dataset:
    frame = read_manifest(folder)
    rules = split_rules(frame)
    return _Dataset(
        dataset_of(frame, folder), rules[0] if len(rules) == 1 else "", frozenset(map(str, frame.columns))
    )


def describe_protocol(name: str, overrides: Sequence[str] = ()) -> str:
    """A protocol as YAML, with the defaults of its task, and what each setting means as a comment."""
    protocol = load_protocol(name, overrides)
    complete = protocol.model_copy(update={"settings": protocol.task_settings})
    return f"{describe_settings(complete)}\n# sha256 {protocol.sha256}"
