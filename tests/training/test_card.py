"""The model card shows names as text, whatever they hold."""

from cmcgns.settings.recipe import load_recipe
from cmcgns.training.run_folder import RunFolder


def test_a_recipe_s_name_is_no_markup(tmp_path):
    recipe = load_recipe("demo").model_copy(update={"name": "<img src=x onerror=alert(1)>\n# [a](http://b) {recipe}"})
    RunFolder(tmp_path).write_card(recipe)
    first = (tmp_path / "card.md").read_text("utf-8").splitlines()[0]
    assert first == r"# &lt;img src=x onerror=alert(1)&gt; \# \[a\](http://b) {recipe}"
