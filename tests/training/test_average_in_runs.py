"""What a run keeps of the average encoder: its checkpoints all of it, its weights nothing."""

from pathlib import Path

import pytest

from cmcgns.models.checked_tensors import read_tensors
from cmcgns.pretrained import load
from support.training import STEPS, run, tiny_recipe


@pytest.mark.slow
@pytest.mark.parametrize("target", ["features", "text_map"])
def test_a_finished_run_leaves_the_average_in_its_checkpoints_alone(
    target: str, studies: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(objective__target=target)
    out = run(studies, tmp_path / "run", recipe)
    names = read_tensors(out / "model.safetensors")[0]
    assert not [name for name in names if "average" in name]
    last = sorted((out / "state").glob("step-*.safetensors"))[-1]
    kept = read_tensors(last)[0]
    assert int(kept["task.objective.average.updates"]) == STEPS  # Stage II alone moves it
    model = load(out)
    assert model.method is not None
    assert model.method.average is None
    again = run(studies, tmp_path / "again", recipe, init=out)
    assert (again / "model.safetensors").is_file()
