"""Scores by what sentences see in an image, and what a run's own validation says of maps and scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.pretrained import Pretrained
from cmcgns.training.joint_scores import JointScores, _ends, _mean_area, _statements


@pytest.fixture
def matched(run: Path) -> Pretrained:
    """A run of the query-matched form, with round deviations."""
    model = cmcgns.load(run)
    assert model.recipe.objective.local == "query_matched"
    model.scores = JointScores("pooled", deviation={"global": 0.5, "local": 0.25})
    return model


@pytest.fixture
def published(run: Path) -> Pretrained:
    """A run as if it had been made with the published form."""
    model = cmcgns.load(run)
    objective = model.recipe.objective.model_copy(update={"local": "own_query"})
    model.recipe = model.recipe.model_copy(update={"objective": objective})
    assert model.method is not None
    model.method.settings = objective
    return model


LABELS = {"Edema": (["Edema.", "Wet lungs."], ["No edema."]), "Normal": (["Normal."], ["Ill.", "Sick."])}


def cosine(model: Pretrained, image: torch.Tensor, text: str) -> float:
    """Of a text with what it sees in one image."""
    assert model.method is not None
    patches = model.task.model.project_patches(model.task.model.image_encoder.tokens(image[None]))
    query = F.normalize(model.encode_texts([text])[0], dim=-1)
    seen, _ = model.method.attention.image_to_text(patches, query[None], torch.ones(1, 1).bool())
    return float(F.cosine_similarity(seen[0, 0], query[0], dim=0))


def test_zero_shot_by_local_scores_is_the_mean_difference_of_cosines(matched: Pretrained, images: list[Path]) -> None:
    found = matched.zero_shot(images[:3], LABELS, by="local")
    assert matched.method is not None
    tau = 1 / float(matched.method.report_scale())
    for path in images[:3]:
        picture = matched.images([path])[0]
        for label, (states, denies) in LABELS.items():
            means = [np.mean([cosine(matched, picture, text) for text in side]) for side in (states, denies)]
            expected = 1 / (1 + np.exp((means[1] - means[0]) / tau))
            assert found.loc[str(path), label] == pytest.approx(expected, abs=1e-5)


def test_sum_takes_both_over_their_spread(matched: Pretrained, images: list[Path]) -> None:
    found = matched.zero_shot(images[:1], LABELS, by="sum")
    picture, embedded = matched.images(images[:1])[0], matched.embed_image(images[:1])
    for label, (states, denies) in LABELS.items():
        means = []
        for side in (states, denies):
            local = np.mean([cosine(matched, picture, text) for text in side])
            means.append(0.5 * (local / 0.25 + (embedded @ matched.embed_text(side).T).mean() / 0.5))
        assert found.loc[str(images[0]), label] == pytest.approx(1 / (1 + np.exp(means[1] - means[0])), abs=1e-5)


def test_what_a_run_cannot_score_is_said(published: Pretrained, images: list[Path]) -> None:
    model = published
    with pytest.raises(
        UserError, match=r"no score by local: the run has objective\.local own_query, and only a loss that has every"
    ):
        model.zero_shot(images[:1], ["Edema"], by="local")
    with pytest.raises(UserError, match="by is 'both'; choose global, local, sum"):
        model.zero_shot(images[:1], ["Edema"], by="both")  # type: ignore[arg-type]


def test_sum_needs_what_validation_said(matched: Pretrained, images: list[Path]) -> None:
    matched.scores = JointScores("pooled")
    with pytest.raises(UserError, match=r"the run folder has no scores\.json"):
        matched.zero_shot(images[:1], ["Edema"], by="sum")


def test_a_run_keeps_what_validation_said_and_ground_follows_it(run: Path, images: list[Path]) -> None:
    kept = json.loads((run / "scores.json").read_text("utf-8"))
    assert kept["map"] == max(kept["present"], key=kept["present"].get)
    assert set(kept["present"]) == {"pooled", "patches", "attention", "gated", "joint"}
    assert all(0 < value < 2 for value in kept["deviation"].values())
    model = cmcgns.load(run)
    for kind in ("attention", "patches"):
        model.scores = JointScores(kind)
        expected = model.ground(images[0], "Normal.", kind=kind)
        np.testing.assert_array_equal(model.ground(images[0], "Normal."), expected)


def test_gated_map_of_a_phrase(matched: Pretrained, published: Pretrained, images: list[Path]) -> None:
    picture = matched.images(images[:1])[0]
    tokens = matched.task.model.image_encoder.tokens(picture[None])
    found = matched.patch_maps(tokens, matched.encode_texts(["Normal."]), "gated")[0, 0]
    assert matched.method is not None
    attention, query = matched.method.attention, F.normalize(matched.encode_texts(["Normal."])[0], dim=-1)
    patches = matched.task.model.project_patches(tokens)
    weights = attention.image_to_text(patches, query[None], torch.ones(1, 1).bool())[1][0, 0]
    values = F.normalize(attention.image_value(patches)[0], dim=-1)
    torch.testing.assert_close(found, weights * (values @ query[0]))
    with pytest.raises(UserError, match=r"no map of kind gated: the run has objective\.local own_query"):
        published.ground(images[0], "Normal.", kind="gated")


def test_joint_map_is_high_where_both_readings_find_the_phrase(
    matched: Pretrained, published: Pretrained, images: list[Path]
) -> None:
    tokens, phrases = (
        matched.task.model.image_encoder.tokens(matched.images(images[:2])),
        matched.encode_texts(LABELS),
    )
    gated, pooled, joint = (matched.patch_maps(tokens, phrases, kind) for kind in ("gated", "pooled", "joint"))
    agree = (gated > 0) & (pooled > 0)
    assert 0 < agree.float().mean() < 1
    torch.testing.assert_close(joint, torch.where(agree, gated * pooled, 0.0))
    with pytest.raises(UserError, match=r"no map of kind joint: the run has objective\.local own_query"):
        published.ground(images[0], "Normal.", kind="joint")
    objective = matched.task.objective
    objective.settings = objective.settings.model_copy(update={"weight_global": 0.0})
    with pytest.raises(UserError, match=r"no map of kind joint: the run has objective\.weight_global 0"):
        matched.ground(images[0], "Normal.", kind="joint")


def test_colours_begin_above_seven_in_ten_images_that_do_not_state_a_rare_sentence(run: Path) -> None:
    stated = np.zeros((1000, 4), dtype=bool)
    stated[:100, 0] = stated[50:150, 1] = stated[:600, 2] = True  # the third is common, the fourth nobody states
    largest = np.where(stated, 2.0, 0.0).astype(np.float32) + np.linspace(0, 1, 1000, dtype=np.float32)[:, None]
    largest[:, 2] += 100
    low, high = _ends(largest, stated)
    rare, said = largest[:, :2], stated[:, :2]
    assert (rare[~said] <= low).mean() == pytest.approx(0.7, abs=0.01)
    assert (rare[said] <= high).mean() == pytest.approx(0.7, abs=0.01)
    assert _ends(largest[:, 2:], stated[:, 2:])[0] > 100  # no rare one: by those that there are
    falling = _ends(-largest, stated)
    assert falling[0] == falling[1]  # never the wrong way round
    model = cmcgns.load(run)
    assert model.map_range == tuple(json.loads((run / "scores.json").read_text("utf-8"))["shown"][model.map])
    model.scores = JointScores("pooled")
    assert model.map_range is None


@pytest.mark.parametrize("content", ["{", '{"map": "other"}', '{"maps": "pooled"}', "[]"])
def test_a_damaged_file_is_named_with_the_way_out(run: Path, content: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "scores.json").unlink()
    assert cmcgns.load(copy).map == "pooled"  # of a run that is older than the file
    (copy / "scores.json").write_text(content, "utf-8")
    with pytest.raises(UserError, match=r"scores\.json is damaged .*take the file away"):
        cmcgns.load(copy)


def test_presence_is_the_mean_area_over_sentences_that_some_reports_state() -> None:
    texts = ["Edema. Normal heart.", "normal heart", "Normal heart. No effusion.", "Edema."]
    said, stated = _statements(texts)
    assert said == ["Normal heart.", "Edema.", "No effusion."]
    assert stated.tolist() == [[True, True, False], [True, False, False], [True, False, True], [False, True, False]]
    scores = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = np.mean([roc_auc_score(stated[:, k], scores[:, k]) for k in range(3)])
    assert _mean_area(scores, stated) == pytest.approx(expected)
    assert np.isnan(_mean_area(scores, np.ones((4, 3), dtype=bool)))


REPORTS = ["Edema. The heart is large.", "Normal.", "Left effusion. No pneumothorax. Small heart."]


def test_a_reports_local_score_is_the_mean_over_sentences_as_encoded_within_it(
    matched: Pretrained, images: list[Path]
) -> None:
    pictures = matched.images(images[:3])
    found = matched.report_scores([pictures[:2], pictures[2:]], REPORTS, "local")
    assert matched.method is not None
    net, data = matched.task.model, matched.recipe.data
    for m, text in enumerate(REPORTS):
        tokens = tokenize_reports([text], matched.tokenizer, data.max_tokens, data.max_sentences).padded(np.arange(1))
        names = ("token_ids", "token_mask", "token_sentence", "sentence_mask")
        sentences = net.encode_report(*(torch.from_numpy(tokens[name]) for name in names))[0][0]
        assert len(sentences) == text.count(".")
        for n, picture in enumerate(pictures):
            patches = net.project_patches(net.image_encoder.tokens(picture[None]))
            each = []
            for sentence in F.normalize(sentences, dim=-1):
                seen, _ = matched.method.attention.image_to_text(
                    patches, sentence[None, None], torch.ones(1, 1).bool()
                )
                each.append(float(F.cosine_similarity(seen[0, 0], sentence, dim=0)))
            assert found[n, m] == pytest.approx(np.mean(each), abs=1e-5)


def test_the_sum_of_a_report_takes_both_over_their_spread(matched: Pretrained, images: list[Path]) -> None:
    pictures = matched.images(images[:3])
    local, both = (matched.report_scores([pictures], REPORTS, by) for by in ("local", "sum"))
    cosines = matched.embed_tensors(pictures) @ matched.embed_text(REPORTS).T
    np.testing.assert_allclose(both, 0.5 * (local / 0.25 + cosines / 0.5), atol=1e-5)
    with pytest.raises(UserError, match=r"text 1 .* holds no words"):
        matched.report_scores([pictures], ["Edema.", " ?! "], "local")
