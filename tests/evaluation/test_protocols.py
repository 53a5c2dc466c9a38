"""Protocols: what is shipped is complete, what is wrong is named, what is changed carries another name."""

from pathlib import Path

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Predictions
from cmcgns.evaluation.protocols import list_protocols, load_protocol, protocol_titles
from cmcgns.evaluation.tasks import get_task
from cmcgns.pretrained import prompts
from cmcgns.pretrained.prompts import packaged_prompts


def test_titles_need_no_task() -> None:
    assert protocol_titles() == {name: load_protocol(name).title for name in list_protocols()}


TABLE = ["chexpert-linear", "rsna-linear", "covidx-linear", "rsna-detection", "object-cxr-detection"]
TABLE += ["siim-segmentation", "rsna-segmentation"]


@pytest.mark.parametrize("name", list_protocols())
def test_shipped_protocols_load_and_carry_their_name(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.id == name
    assert protocol.title
    assert protocol.primary in protocol.task_settings.figures


@pytest.mark.parametrize("name", TABLE)
def test_the_papers_table_has_both_families(name: str) -> None:
    legacy, v1 = load_protocol(f"{name}/legacy"), load_protocol(f"{name}/v1")
    assert (legacy.split.rule, v1.split.rule) == ("legacy", "v1")
    assert legacy.anchors
    assert not v1.anchors  # published values were not made this way
    assert (legacy.image_size, legacy.dataset) == (224, v1.dataset)
    assert legacy.sha256 != v1.sha256


def test_beyond_the_paper() -> None:
    assert {"nih-linear/v1", "zero-shot/v1", "retrieval/v1", "grounding/v1", "knn/v1"} <= set(list_protocols())


def test_a_file_states_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: rsna-linear/v1\nid: mine/v2\nsplit: {test: [val], val: []}\nseeds: 5\n")
    mine, base = load_protocol(str(file)), load_protocol("rsna-linear/v1")
    assert (mine.id, mine.seeds, mine.labels) == ("mine/v2", 5, base.labels)
    assert mine.title == f"{base.title} (mine/v2)"
    assert (mine.split.test, mine.split.train, mine.split.rule) == (["val"], ["train"], "v1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: rsna-linear/v1\nseeds: 5\n", "needs an `id` of its own"),
        ("base: rsna-linear/v1\nid: rsna-linear/v1\n", "needs an `id` of its own"),
        ("id: a/v1\ntitle: a\ntask: linear\nlables: [a]\n", "lables is no setting. Did you mean labels"),
        ("id: a/v1\ntitle: a\ntask: liner\n", "task: "),
        ("id: A b\ntitle: a\ntask: linear\n", "id: "),
        ("id: a/v1\ntitle: a\ntask: linear\nsettings: {solvr: adamw}\n", "solvr is no setting. Did you mean solver"),
        ("id: a/v1\ntitle: a\ntask: linear\nfractions: [0]\n", "fractions"),
        ("[1, 2]", "mapping of settings"),
        ("id: a/v1\nid: b/v1\n", "given twice"),
        ("base: linear/v1\nid: nih-linear/v1\n", "nih-linear/v1 comes with the package"),
        ("base: wrong.yaml\nid: a/v1\n", "is its own `base`"),
    ],
)
def test_a_wrong_file_is_explained(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        load_protocol(str(file))


def test_a_change_on_the_command_line_changes_id_and_hash() -> None:
    plain, changed = load_protocol("linear/v1"), load_protocol("linear/v1", ["split.test=[val]"])
    assert changed.id.startswith("linear/v1+")
    assert changed.sha256 != plain.sha256
    assert load_protocol("linear/v1", ["split.test=[val]"]).id == changed.id
    assert load_protocol("linear/v1", ["split.test=[train]"]).id != changed.id


@pytest.mark.parametrize("name", ["prompts.yaml", "prompts.txt", "prompts"])
def test_a_file_of_prompts_becomes_part_of_the_protocol(name: str, tmp_path: Path) -> None:
    prompts = tmp_path / name
    hashes = []
    for sentence in ("Fluid.", "Fluid is seen."):
        prompts.write_text(f"Edema: {{positive: [{sentence}], negative: [No fluid.]}}\n")
        protocol = load_protocol("zero-shot/v1", [f"settings.prompts={prompts}"])
        assert protocol.settings["prompts"]["Edema"]["positive"] == [sentence]
        hashes.append(protocol.sha256)
    assert hashes[0] != hashes[1]
    with pytest.raises(UserError, match="no such file"):
        load_protocol("zero-shot/v1", ["settings.prompts=missing.yaml"])
    with pytest.raises(UserError, match="neither a file nor one of built-in, phantom, template"):
        load_protocol("zero-shot/v1", [f"settings.prompts={'x' * 5000}"])


def test_prompts_of_the_home_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").write_text("Edema: {positive: [Fluid.], negative: [No fluid.]}\n")
    assert "Edema" in load_protocol("zero-shot/v1", ["settings.prompts=~/mine"]).settings["prompts"]


@pytest.mark.parametrize("iou", [0.4, 0.500001, 0.75])
def test_a_figure_of_an_overlap_is_known_where_it_is_made(iou: float) -> None:
    protocol = load_protocol("detection/v1", [f"settings.ious=[{iou}]", f"primary=ap{iou * 100:.0f}"])
    nothing = {name: np.zeros((0, 4)) for name in ("boxes", "truth_boxes")} | {"scores": np.zeros(0)}
    nothing |= {name: np.zeros(0, dtype=np.int64) for name in ("image", "truth_image")}
    how = {"ious": np.array([iou]), "skip_empty": np.array(False), "max_detections": np.array(100)}
    made = get_task("detection").measures(Predictions(np.arange(2), np.arange(2), nothing | how, {}))
    assert [each.metric for each in made.of] == protocol.task_settings.figures


@pytest.mark.parametrize("name", ["zero-shot/v1", "phantom-sides/v1"])
def test_another_wording_of_the_packages_prompts_is_another_protocol(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, other = load_protocol(name), load_protocol("linear/v1")
    before, untouched = protocol.sha256, other.sha256
    book = dict(packaged_prompts(str(protocol.task_settings.model_dump()["prompts"])))
    monkeypatch.setattr(prompts, "packaged_prompts", lambda name: book | {"Mole": {"positive": ["A mole."]}})
    assert protocol.sha256 != before
    assert other.sha256 == untouched
    monkeypatch.setattr(prompts, "packaged_prompts", lambda name: book)
    assert protocol.sha256 == before


def test_a_base_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("base: rsna-linear/v1\nid: first/v1\nseeds: 5\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\nid: second/v1\nfractions: [100]\n")
    found = load_protocol(str(tmp_path / "second.yaml"))
    assert (found.id, found.seeds, found.fractions, found.dataset) == ("second/v1", 5, [100], "rsna")


CHEXPERT_UNCERTAIN = {"Atelectasis": 1, "Cardiomegaly": 0, "Consolidation": 0, "Edema": 1, "Pleural Effusion": 1}
ANCHORS = {  # MGCA ResNet-50 and ViT-B/16 at 1, 10, 100 %
    "chexpert-linear": ([87.6, 88.0, 88.2], [88.8, 89.1, 89.7]),
    "rsna-linear": ([88.6, 89.1, 89.9], [88.6, 89.5, 90.0]),
    "covidx-linear": ([72.0, 83.5, 90.5], [74.8, 84.8, 92.3]),
    "siim-segmentation": ([49.7, 59.3, 64.2], [60.1, 65.4, 69.6]),
    "rsna-segmentation": ([63.0, 68.3, 69.8], [69.3, 70.0, 72.3]),
    "rsna-detection": ([12.9, 16.8, 24.9], None),
    "object-cxr-detection": ([None, 12.1, 19.2], None),
}


@pytest.mark.parametrize("name", ANCHORS)
def test_published_figures(name: str) -> None:
    anchors = load_protocol(f"{name}/legacy").anchors
    assert (anchors["MGCA ResNet-50"], anchors.get("MGCA ViT-B/16")) == ANCHORS[name]


@pytest.mark.parametrize("name", ["chexpert-linear/v1", "chexpert-linear/legacy", "chexpert-knn/v1"])
def test_chexperts_uncertain_and_empty_labels(name: str) -> None:
    protocol = load_protocol(name)
    assert (protocol.uncertain, protocol.empty_labels) == (CHEXPERT_UNCERTAIN, "negative")
    assert protocol.labels == list(CHEXPERT_UNCERTAIN)


def test_a_name_without_a_version_means_v1() -> None:
    assert load_protocol("rsna-linear").id == "rsna-linear/v1"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("knn/v1", ["primary=aurok"], "makes no aurok with these settings. Did you mean auroc?"),
        ("knn/v1", ["primary=brier"], "task knn makes no brier with these settings. Choose one"),
        ("linear/v1", ["primary=accuracy"], "auroc, auprc, brier, ece"),
        ("retrieval/v1", ["settings.ks=[1, 3]"], "no report_to_image_r@10 .* Did you mean report_to_image_r@"),
        ("detection/v1", ["settings.ious=[0.6]", "primary=ap50"], "no ap50 .*: map, recall@100$"),
        ("retrieval/v1", ["primary=image_to_image_p@5"], "no image_to_image_p@5"),
    ],
)
def test_a_figure_that_is_not_made_is_no_primary_one(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_protocol(name, overrides)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("linear/v1", ["primary=accuracy", "settings.outcome=multiclass"]),
        ("retrieval/v1", ["primary=image_to_image_p@5", "settings.classes=true"]),
        ("detection/v1", ["primary=recall@7", "settings.max_detections=7"]),
    ],
)
def test_settings_say_which_figures_are_made(name: str, overrides: list[str]) -> None:
    assert load_protocol(name, overrides).primary == overrides[0].partition("=")[2]
