"""Studies and an undisturbed run, for commands that are disturbed."""

from pathlib import Path

import pytest
import yaml

from cmcgns.phantom.dataset import write_dataset
from support.faults import Undisturbed, timed
from support.training import TRAIN, VALIDATION, tiny_recipe


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in this folder runs with `make test-faults` alone."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    data, recipe = folder / "data", folder / "tiny.yaml"
    write_dataset(data, {"train": TRAIN, "val": VALIDATION, "test": 8}, size=40)
    recipe.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    run = Undisturbed(data, recipe, folder / "run", 0)
    return Undisturbed(data, recipe, run.out, timed(run.pretrain(run.out)))
