"""The model card shows names as text, whatever they hold, and which parts of the method a run had."""

import pytest

from cmcgns.settings.recipe import load_recipe
from cmcgns.training.run_folder import RunFolder


def test_a_recipe_s_name_is_no_markup(tmp_path):
    recipe = load_recipe("demo").model_copy(update={"name": "<img src=x onerror=alert(1)>\n# [a](http://b) {recipe}"})
    RunFolder(tmp_path).write_card(recipe)
    first = (tmp_path / "card.md").read_text("utf-8").splitlines()[0]
    assert first == r"# &lt;img src=x onerror=alert(1)&gt; \# \[a\](http://b) {recipe}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [],
            "L_global, L_report (query_matched, negatives in_batch), L_match, "
            "L_re (cross_modal, 50% of the features hidden, pixels rebuilt)",
        ),
        (["objective.weight_report=0", "objective.reconstruction='off'"], "L_global"),
        (
            ["objective.negatives=cluster", "objective.weight_image=0.02"],
            "L_global, L_image, L_report (query_matched, negatives cluster, 96 clusters, false negatives mask), "
            "L_match, L_re (cross_modal, 50% of the features hidden, pixels rebuilt)",
        ),
        (
            ["objective.negatives=hard", "objective.weight_reconstruction=0"],
            "L_global, L_report (query_matched, negatives hard, 96 clusters), L_match",
        ),
    ],
)
def test_it_says_which_losses_there_were(changes, said, tmp_path):
    RunFolder(tmp_path).write_card(load_recipe("demo", changes))
    assert f"| objective | {said} |" in (tmp_path / "card.md").read_text("utf-8").splitlines()
