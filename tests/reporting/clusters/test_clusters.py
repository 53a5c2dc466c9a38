"""What the page of the clusters is computed from: known answers on tiny, hand-made banks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.objectives.centroids import assign_two
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.phantom import sentence_truth
from cmcgns.reporting.clusters.bank import read_history
from cmcgns.reporting.clusters.drawings import colours, draw_course, draw_map, draw_sizes, share_axis
from cmcgns.reporting.clusters.members import Cluster, describe_clusters, distinct_sentences, fullest, principal_plane
from cmcgns.reporting.clusters.purity import Labels, label_extremes, label_shares, read_labels
from cmcgns.reporting.clusters.quality import measure_quality, polarity
from cmcgns.reporting.clusters.sentences import ClusteredSentences, clustered
from cmcgns.settings.config import BankSettings
from cmcgns.training.run_folder import RunFolder

AXES = torch.eye(4)
REPORTS = [["Effusion.", "Clear."], ["effusion", "Edema."], ["Clear.", "Clear."], ["Effusion."]]
# Cosines to the axes: 1 for all but the second "effusion" (0.8 to the first) and the last "Clear." (on the third).
VECTORS = torch.stack([
    AXES[0], AXES[1], torch.tensor([0.8, 0.6, 0, 0]), AXES[2], AXES[1], torch.tensor([0, 0.6, 0.8, 0]), AXES[0],
])  # fmt: skip


def assign_sentences(
    reports: list[list[str]], vectors: Tensor, centroids: Tensor, active: Tensor | None = None
) -> ClusteredSentences:
    active = torch.ones(len(centroids), dtype=torch.bool) if active is None else active
    parts = [(each, assign_two(each, centroids, active), torch.ones(len(each)).bool()) for each in vectors.split(2)]
    return clustered(reports, parts)


@pytest.fixture
def bank() -> ClusterBank:
    """Four centroids, the last one not seeded; the third is dead, the first holds three quarters."""
    bank = ClusterBank(4, BankSettings(clusters=4, start_from_step=0, start_by_step=1))
    bank.start(AXES[:3])
    bank.watched.fill_(1.0)
    bank.usage.copy_(torch.tensor([0.75, 0.24, 0.01, 0.0]))
    return bank


@pytest.fixture
def found(bank: ClusterBank) -> ClusteredSentences:
    return assign_sentences(REPORTS, VECTORS, bank.centroids, bank.active)


def test_sentences_know_their_wording_image_and_cluster(found: ClusteredSentences) -> None:
    assert found.texts == ["Effusion.", "Clear.", "Edema."]
    assert found.text.tolist() == [0, 1, 0, 2, 1, 1, 0]
    assert found.image.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert found.cluster.tolist() == [0, 1, 0, 2, 1, 2, 0]
    assert found.cosine.tolist() == pytest.approx([1, 1, 0.8, 1, 1, 0.8, 1])


def test_clusters_hold_what_is_assigned_to_them(bank: ClusterBank, found: ClusteredSentences) -> None:
    clusters = describe_clusters(bank, found)
    assert [each.number for each in clusters] == [1, 2, 3, 4]
    assert [each.state for each in clusters] == ["alive", "alive", "dead", "not seeded"]
    assert [each.share for each in clusters] == pytest.approx([0.75, 0.24, 0.01, 0])
    assert [(each.sentences, each.images) for each in clusters] == [(3, 3), (2, 2), (2, 2), (0, 0)]
    assert clusters[0].cosine == pytest.approx(2.8 / 3)
    assert clusters[3].cosine is None
    (effusion,) = clusters[0].wordings
    assert (effusion.text, effusion.count) == ("Effusion.", 3)
    assert effusion.cosine == pytest.approx(2.8 / 3)
    assert [each.text for each in clusters[2].wordings] == ["Edema.", "Clear."]  # the nearest first
    assert clusters[3].wordings == ()
    assert [each.number for each in fullest(reversed(clusters))] == [1, 2, 3]


def test_a_wording_belongs_to_the_cluster_that_holds_most_of_it(found: ClusteredSentences) -> None:
    distinct = distinct_sentences(found)
    assert distinct.texts == ["Effusion.", "Clear.", "Edema."]
    assert distinct.counts.tolist() == [3, 3, 1]
    assert distinct.cluster.tolist() == [0, 1, 2]
    assert distinct.agreement.tolist() == pytest.approx([1, 2 / 3, 1])
    assert distinct.cosine.tolist() == pytest.approx([2.8 / 3, 1, 1])
    torch.testing.assert_close(distinct.vectors[1], F.normalize(torch.tensor([0, 2.6, 0.8, 0]), dim=0))


def test_of_equally_frequent_clusters_the_first_is_taken() -> None:
    found = assign_sentences([["A."], ["A."]], AXES[[1, 0]], AXES)
    assert distinct_sentences(found).cluster.tolist() == [0]


def test_purity_is_the_prevalence_among_the_images_of_a_cluster(found: ClusteredSentences) -> None:
    nan = float("nan")
    labels = Labels(["Effusion", "Edema", "Mass"], np.array([[1, 0, 0], [1, 1, 0], [0, nan, 0], [0, 0, 0.0]]))
    assert labels.base == {"Effusion": 0.5, "Edema": pytest.approx(1 / 3)}  # nobody has a mass
    effusion, edema = label_shares(found, 0, labels)  # images 0, 1 and 3
    assert (effusion.label, effusion.images, effusion.positives) == ("Effusion", 3, 2)
    assert (effusion.prevalence, effusion.lift, effusion.recall) == pytest.approx((2 / 3, 4 / 3, 1))
    assert (edema.label, edema.images, edema.lift) == ("Edema", 3, pytest.approx(1))
    third = {
        share.label: share for share in label_shares(found, 2, labels)
    }  # images 1 and 2, of which one is unknown
    assert (third["Edema"].images, third["Edema"].lift) == (1, pytest.approx(3))
    assert label_shares(found, 3, labels) == []


def test_extremes_need_enough_images() -> None:
    reports = [["A."]] * 6 + [["B."]] * 6 + [["C."]] * 4
    vectors = torch.cat([AXES[:1].expand(6, 4), AXES[1:2].expand(6, 4), AXES[2:3].expand(4, 4)])
    found = assign_sentences(reports, vectors, AXES)
    labels = Labels(["X"], np.array([[1.0]] * 3 + [[0.0]] * 9 + [[1.0]] * 4))
    (extreme,) = label_extremes([label_shares(found, k, labels) for k in range(4)], labels)
    assert extreme.most is not None
    assert extreme.least is not None
    assert (extreme.most[0], extreme.most[1].prevalence) == (1, 0.5)  # the third is pure, but of four images
    assert (extreme.least[0], extreme.least[1].prevalence) == (2, 0)


def test_labels_are_read_as_the_manifest_writes_them() -> None:
    frame = pd.DataFrame({"row": [1, 2, 3, 4], "label_A": ["1", "0", "", "-1"], "label_B": [1.0, None, -1, 0]})
    labels = read_labels(frame, Path("t.csv"))
    assert labels.names == ["A", "B"]
    np.testing.assert_array_equal(labels.values[:, 0], [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(labels.values[:, 1], [1, np.nan, np.nan, 0])
    assert read_labels(frame[["row"]], Path("t.csv")).values.shape == (4, 0)


@pytest.mark.parametrize("cell", ["yes", "2", "0.5"])
def test_a_wrong_label_is_named(cell: str) -> None:
    frame = pd.DataFrame({"row": [1, 2], "label_Mass": ["1", cell]})
    with pytest.raises(UserError, match=rf"^t\.csv, row 2: label_Mass is {cell}; 1, 0, -1 \(uncertain\) or nothing"):
        read_labels(frame, Path("t.csv"))


def test_the_plane_is_that_of_a_slow_eigendecomposition() -> None:
    vectors = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors *= torch.tensor([5, 3, 1, 1, 1, 1])
    plane = principal_plane(vectors)
    centred = vectors.numpy() - vectors.numpy().mean(0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    for axis in range(2):
        expected = centred @ directions[:, -1 - axis]
        expected *= np.sign(expected[np.abs(expected).argmax()])
        np.testing.assert_allclose(plane.points[:, axis], expected, atol=1e-8)
    assert plane.explained == pytest.approx(tuple(values[::-1][:2] / values.sum()))


def test_points_on_one_place_or_line_have_a_plane() -> None:
    assert np.isfinite(principal_plane(AXES[[0, 0, 0]]).points).all()
    assert principal_plane(AXES[[0, 0, 0]]).explained == (0, 0)
    line = principal_plane(AXES[:2])
    assert np.abs(line.points[:, 0]) == pytest.approx([0.5**0.5] * 2)
    assert np.abs(line.points[:, 1]) == pytest.approx([0, 0])


def test_polarity_is_the_truth_of_the_sentence() -> None:
    assert polarity("No pleural effusion.", sentence_truth) == "denies"
    assert polarity("Large right pneumothorax.", sentence_truth) == "states"
    assert polarity("Words that no level writes.", sentence_truth) == ""
    assert polarity("No pleural effusion.", None) == ""


def test_quality_is_that_of_a_count_by_hand() -> None:
    """Of three reports in one cluster two say the same in other words, and one denies it."""
    reports = [["Large right pneumothorax."], ["There is a large right pneumothorax."], ["No pneumothorax."]]
    assert all(sentence_truth(sentence) for report in reports for sentence in report)
    found = assign_sentences(reports, AXES[[0, 0, 0]], AXES[:2])
    assert found.second.tolist() == [1, 1, 1]
    quality = measure_quality(found, sentence_truth)
    # Six pairs of a sentence and another report: two say the same, four contradict.
    # With a single cluster chance does as well.
    assert quality["false_negative_precision"] == pytest.approx((2 / 6, 2 / 6))
    assert quality["false_negative_recall"] == (1, 1)
    assert quality["false_negative_contradict"] == pytest.approx((4 / 6, 4 / 6))
    assert quality["cluster_contradict"] == pytest.approx((4 / 6, 4 / 6))
    assert measure_quality(found, None) == {}
    assert measure_quality(assign_sentences([["?!"]], AXES[:1], AXES[:2]), sentence_truth) == {}


def test_true_clusters_are_better_than_dealt_ones() -> None:
    texts = [
        "Large right pneumothorax.",
        "There is a large right pneumothorax.",
        "No pneumothorax.",
        "There is no pneumothorax.",
    ]
    vectors = AXES[[0, 0, 1, 1]]
    found = assign_sentences([[text] for text in texts], vectors, AXES[:2])
    quality = measure_quality(found, sentence_truth)
    assert quality == measure_quality(found, sentence_truth)  # dealt by a seed
    for name, best in (("false_negative_precision", 1), ("false_negative_recall", 1), ("cluster_contradict", 0)):
        value, chance = quality[name]
        assert value == best != chance
    assert quality["hard_negative_precision"][0] == 1  # the second nearest holds the denials


def log(*shares: object) -> list[dict[str, object]]:
    records = [
        {"kind": "clusters", "stage": "alignment", "step": 10 * n, "shares": each} for n, each in enumerate(shares, 1)
    ]
    return [{"kind": "train", "step": 1, "stage": "alignment"}, *records]


def test_history_is_read_from_the_log(tmp_path: Path) -> None:
    history = read_history(log([0.5, 0.5], [0.9, 0.1]), 2, RunFolder(tmp_path))
    assert history.steps.tolist() == [10, 20]
    assert history.shares.tolist() == [[0.5, 0.5], [0.9, 0.1]]
    assert len(read_history(log(), 2, RunFolder(tmp_path))) == 0


@pytest.mark.parametrize("shares", [[0.5, 0.25, 0.25], "half", None])
def test_a_log_of_another_bank_is_refused(shares: object, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"metrics\.jsonl: a record of the clusters \(step 10\) does not fit the bank of 2"
    ):
        read_history(log(shares), 2, RunFolder(tmp_path))


def clusters_of(*shares: float, sentences: int = 10) -> list[Cluster]:
    return [
        Cluster(n, "dead" if share < 0.01 else "alive", share, sentences, 5, 0.5, ())
        for n, share in enumerate(shares, 1)
    ]


def test_bars_stand_in_order_of_size_and_end_at_their_share() -> None:
    drawn = draw_sizes(clusters_of(0.2, 0.5, 0.0))
    assert [(bar.number, bar.state) for bar in drawn.bars] == [(2, "alive"), (1, "alive"), (3, "dead")]
    assert drawn.bars[0].y == drawn.axis.place(50)
    assert drawn.bars[2].y == drawn.axis.start
    assert {bar.shown for bar in drawn.bars} == {drawn.axis.place(100 / 3)} == {drawn.equal}
    assert all(bar.x + bar.width <= drawn.bars[place + 1].x for place, bar in enumerate(drawn.bars[:-1]))


@pytest.mark.parametrize(("largest", "last"), [(0.16, "20 %"), (1.0, "100 %"), (0.003, "0.3 %"), (0.0, "0.1 %")])
def test_axes_end_at_a_round_value_above_the_largest(largest: float, last: str) -> None:
    axis = share_axis(largest)
    assert axis.ticks[0][1] == "0 %"
    assert axis.ticks[-1][1] == last
    assert len(axis.ticks) <= 6


def test_only_the_fullest_living_clusters_have_colours() -> None:
    chosen = colours(clusters_of(*[0.02 + 0.001 * n for n in range(20)], 0.0))
    assert list(chosen) == list(range(20, 8, -1))
    assert list(chosen.values()) == list(range(12))


def test_lines_follow_the_log(tmp_path: Path) -> None:
    history = read_history(log([0.5, 0.5], [0.75, 0.25], [1.0, 0.0]), 2, RunFolder(tmp_path))
    course = draw_course(history, {1: 0})
    assert course is not None
    first = next(line for line in course.lines if line.title.startswith("Cluster 1:"))
    assert [float(part) for part in first.points.split()[-1].split(",")] == [course.step.end, course.share.place(100)]
    assert first.title == "Cluster 1: 50.0% to 100.0%"
    assert [text for _, text in course.step.ticks] == ["10", "20", "30"]
    assert draw_course(read_history(log([0.5, 0.5]), 2, RunFolder(tmp_path)), {}) is None


def test_every_dot_lies_on_the_map_and_says_its_sentence(found: ClusteredSentences) -> None:
    distinct = distinct_sentences(found)
    drawn = draw_map(principal_plane(distinct.vectors), distinct, ["states", "denies", ""], {1: 0, 2: 1})
    assert [dot.title.split("\n")[0] for dot in drawn.dots] == ["Effusion.", "Clear.", "Edema."]
    assert "3 × · cluster 2 (67% of them)" in drawn.dots[1].title
    assert [(dot.colour, dot.shape) for dot in drawn.dots] == [(0, "states"), (1, "denies"), (None, "")]
    assert all(0 <= dot.x <= 1000 and 0 <= dot.y <= 640 for dot in drawn.dots)
    assert [(tag.number, tag.x, tag.y) for tag in drawn.tags] == [
        (1, drawn.dots[0].x, drawn.dots[0].y), (2, drawn.dots[1].x, drawn.dots[1].y),
    ]  # fmt: skip
    assert drawn.left_out == 0
