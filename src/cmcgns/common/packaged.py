"""Files that come with the package, beside the code that reads them."""

from importlib import resources
from typing import Any

import yaml


def packaged_text(package: str, name: str) -> str:
    """The text of a file, which may lie in a folder of the package."""
    return resources.files(package).joinpath(name).read_text("utf-8")


def packaged_yaml(package: str, name: str) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(packaged_text(package, name))


def packaged_names(package: str, folder: str = "") -> list[str]:
    """Names of the YAML files of a folder, without their ending, in order."""
    files = resources.files(package).joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
