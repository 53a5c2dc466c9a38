"""What is wrong with a study's file is said with its key, before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cmcgns.common.errors import UserError
from cmcgns.common.packaged import packaged_names
from cmcgns.study.load import load_plan
from cmcgns.study.settings import SUMMARY
from support.study import PARTS, study_content

JUDGE = study_content()["judge"]
MEASURE = study_content()["measures"][1]


def load(folder: Path, **changes: Any) -> Any:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in study_content(**changes).items() if v is not None}))
    return load_plan(str(file))


def test_jobs_are_seed_by_seed_with_the_overrides_of_study_and_cell(tmp_path: Path) -> None:
    plan = load(tmp_path)
    assert [job.name for job in plan.jobs] == ["full-seed-0", "global-seed-0", "full-seed-1", "global-seed-1"]
    recipe = plan.jobs[3].recipe
    assert (recipe.training.batch_size, recipe.objective.weight_report, recipe.training.seed) == (4, 0, 1)
    assert plan.jobs[0].recipe.objective.weight_report > 0
    assert plan.judging[0].protocol.fractions == [10, 100]
    assert plan.columns[1].fraction is None


def test_a_cell_may_have_a_recipe_of_its_own(tmp_path: Path) -> None:
    plan = load(tmp_path, cells=[{"name": "global"}, {"name": "demo", "recipe": "demo"}])
    assert [job.recipe.name for job in plan.jobs[:2]] == ["small-cpu", "demo"]


def test_a_group_of_settings_may_be_given_first_and_a_part_of_it_then(tmp_path: Path) -> None:
    cells = [{"name": "full"}, {"name": "global", "set": ["objective.bank={clusters: 8}", "objective.bank.rate=0.3"]}]
    bank = load(tmp_path, cells=cells).jobs[1].recipe.objective.bank
    assert (bank.clusters, bank.rate) == (8, 0.3)


def test_a_grid_is_the_product_of_its_axes(tmp_path: Path) -> None:
    grid = {"mask": {"m25": ["objective.mask_ratio=0.25"], "m50": []}, "mu": {"one": ["objective.mu=1"], "three": []}}
    plan = load(tmp_path, cells=None, grid=grid, baseline="m50+three")
    assert [cell.name for cell in plan.cells] == ["m25+one", "m25+three", "m50+one", "m50+three"]
    assert (plan.jobs[0].recipe.objective.mask_ratio, plan.jobs[0].recipe.objective.mu) == (0.25, 1)


def test_what_is_chosen(tmp_path: Path) -> None:
    plan = load(tmp_path)
    assert [job.name for job in plan.chosen(["global"], [1])] == ["global-seed-1"]
    assert plan.chosen() == list(plan.jobs)
    with pytest.raises(UserError, match=r"--cells: there is no fulll. Did you mean full?"):
        plan.chosen(["fulll"])
    with pytest.raises(UserError, match="--seeds 7: the study has 0, 1"):
        plan.chosen(seeds=[7])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"baselin": "full"}, "baselin is no setting. Did you mean baseline?"),
    ({"name": "a/b"}, "name: String should match pattern"),
    ({"cells": [{"name": "full", "sets": []}]}, r"cells, entry 1:\s+sets is no setting. Did you mean set?"),
    ({"cells": [{"name": "../x"}]}, r"cells, entry 1:\s+name: String should match"),
    ({"cells": [{"name": "Full"}, {"name": "full"}]}, "cells: full is there 2 times; names must differ"),
    ({"cells": None}, "give either cells or grid"),
    ({"grid": {"a": {"b": []}}}, "give either cells or grid"),
    ({"cells": None, "grid": {"a": {"b": []}, "c": {}}}, "grid: an axis has no labels"),
    ({"cells": None, "grid": {"a": {"b c": []}}}, "grid"),
    ({"seeds": []}, "seeds"),
    ({"seeds": [1, 1]}, "seeds: 1 is there 2 times"),
    ({"seeds": [True]}, "seeds"),
    ({"baseline": "globa"}, r"baseline: there is no globa. Did you mean global.? Known: full, global"),
    ({"baseline": ["global", "ful"]}, r"baseline: there is no ful. Did you mean full.? Known: full, global"),
    ({"baseline": ["global", "global"]}, "baseline: global is there 2 times"),
    ({"baseline": []}, "baseline"),
    ({"recipe": "dmo"}, "cell full: no recipe dmo"),
    ({"set": ["objective.tauu=1"]}, r"full: recipe small-cpu:\s+objective.tauu is no setting. Did you mean"),
    ({"cells": [{"name": "global", "set": ["objective.mu=0"]}]}, r"cell global: recipe small-cpu:\s+objective.mu"),
    ({"cells": [{"name": "global", "set": ["objective.mu"]}]}, "cell global: --set objective.mu: expected key=value"),
    ({"set": ["objective.name=simclr"]}, "cell full: .*simclr"),
    ({"set": ["training.seed=3"]}, "training.seed is what `seeds` lists"),
    ({"data": {"phantom": {"trian": 3}}}, r"data:\s+phantom.trian is no setting. Did you mean phantom.train?"),
    ({"data": None}, "data: Field required"),
    ({"judge": []}, "judge"),
    ({"judge": [{"protocol": "liner/v1"}]}, "judge: no protocol is called liner/v1. Did you mean linear/v1?"),
    ({"judge": [{"protocol": "linear/v1", "set": ["taks=x"]}]}, "judge: protocol linear/v1:\\s+taks is no setting"),
    ({"judge": [{"protocol": "linear/v1", "fractions": [0]}]}, r"judge, entry 1:\s+fractions.0"),
    ({"judge": [{"protocol": "retrieval/v1", "fractions": [10]}]}, "retrieval/v1 learns from no labels"),
    ({"judge": [*JUDGE, dict(JUDGE[0], fractions=[1])]}, "judge: linear/v1 is there 2 times"),
    ({"judge": [*JUDGE, {"protocol": "linear", "name": "again"}]}, "judge: linear/v1 on data is there 2 times"),
    ({"measures": []}, "measures"),
    ({"measures": [MEASURE | {"protocol": "knn/v1"}]}, "measures: protocol: there is no knn/v1"),
    ({"measures": [MEASURE | {"measure": "auroc"}]}, "retrieval/v1: measure: there is no auroc.* Known: report_to"),
    ({"measures": [MEASURE | {"fraction": 10}]}, "measures: retrieval/v1: fraction 10.*: judge has none"),
    ({"measures": [{"protocol": "linear/v1", "measure": "auroc"}]}, "fraction null: judge has 10, 100"),
    ({"measures": [MEASURE, dict(MEASURE)]}, "measures: title: R@10 is there 2 times"),
    ({"measures": [MEASURE, MEASURE | {"title": "again"}]}, "retrieval/v1 report_to_image_r@10 is there 2 times"),
    ({"measures": [MEASURE | {"title": SUMMARY}]}, "title: mean of standardised differences is that of `summary`"),
    ({"measures": [MEASURE], "summary": ["R@10", "R@10"]}, "summary: R@10 is there 2 times"),
    ({"keep": "some"}, "keep"),
    ({"set": ["training={seed: 4}"]}, "training.seed is what `seeds` lists"),
    ({"set": [*PARTS, "objective.mask=tokens"]}, "full: objective.mask=tokens: ResNet cannot leave patches out"),
    ({"set": [*PARTS, "objective.mask_ratio=1"]}, "cell full: objective.mask_ratio=1 hides all"),
    ({"cells": [{"name": "full"}, {"name": "global"}]}, "cells: full and global are the same recipe: leave one out"),
    (
        {"cells": [{"name": "full"}, {"name": "global", "set": ["objective.mu=2", "objective.mu=4"]}]},
        "cell global: `set` gives objective.mu twice",
    ),
    (
        {
            "cells": None, "baseline": "x+y",
            "grid": {"a": {"x": ["objective.bank.clusters=8"]}, "b": {"y": ["objective.bank={}"]}},
        },
        "cell x.y: `set` gives objective.bank.clusters and objective.bank twice",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_bad_studies(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"(?s)study .*{said}"):
        load(tmp_path, **changes)


def test_a_name_that_is_none() -> None:
    with pytest.raises(UserError, match=r"no study smok: .*Did you mean smoke?"):
        load_plan("smok")


@pytest.mark.parametrize("name", packaged_names("cmcgns.study", "studies"))
def test_shipped_studies_resolve(name: str) -> None:
    plan = load_plan(name)
    assert plan.settings.name == name
    assert len({str(job.decisive) for job in plan.jobs}) == len(plan.jobs)  # no two cells are the same
