"""The table of synthetic results scores a run with the prompts of the synthetic studies."""

from pathlib import Path

import numpy as np
import pytest

from cmcgns.data.manifest import LABEL, label_columns
from cmcgns.phantom import FINDINGS, write_dataset
from cmcgns.pretrained import load
from cmcgns.pretrained.prompts import load_prompts
from cmcgns.pretrained.zero_shot import prompt_prototype
from cmcgns.training.pretrain import pretrain
from support.training import tiny_recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_scores_are_those_of_the_phantom_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import synthetic_table

    data = tmp_path / "data"
    write_dataset(data, {"train": 40, "val": 16, "test": 16}, size=48)
    recipe = tiny_recipe(alignment__epochs=1, reconstruction__epochs=0, objective__reconstruction="off")
    model = load(pretrain(recipe, data, tmp_path / "run", quiet=True))
    found = synthetic_table.score(model, synthetic_table.fit_probes(model, data, 1.0, 1), data)
    images = synthetic_table.embedded(model, synthetic_table.read_study_set(data, "test", model)).image
    prompts = load_prompts("phantom")
    names = sorted(FINDINGS)
    texts = [[list(getattr(prompts.of(name), kind)) for name in names] for kind in ("positive", "negative")]
    states, denies = (
        images @ np.stack([prompt_prototype(model.embed_text(each)) for each in kind]).T for kind in texts
    )
    expected = states - denies
    labels = label_columns(synthetic_table.read_study_set(data, "test", model).frame)
    order = [labels.index(f"{LABEL}{name}") for name in names]
    np.testing.assert_allclose(found.zero_shot[:, order], expected, atol=1e-6)
    assert np.isfinite(found.linear[0]).all()
    assert set(found.recall) <= {0.0, 1.0}
