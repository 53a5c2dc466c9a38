"""Views are crops of the stored square, random by study and epoch alone."""

import numpy as np
import pytest
import torch

from cmcgns.data.pairs.batch import BatchRequest, TrainingOrder, evaluation_order
from cmcgns.data.pairs.dataset import PairDataset, normalise_pixels
from cmcgns.data.pairs.loader import make_loader
from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.settings.config import DataSettings
from support.batches import checked

STORED, SIZE, STUDIES = 20, 16, 30
TEXTS = [f"Study number {number}. Normal." if number % 2 else "Normal." for number in range(STUDIES)]


@pytest.fixture(scope="module")
def tokens():
    return tokenize_reports(TEXTS, train_tokenizer(TEXTS, 100), 12, 3)


def dataset(tokens, rows=range(STUDIES), fixed=False, **settings):
    # Every pixel tells its study, row and column apart.
    study, y, x = np.ogrid[:STUDIES, :STORED, :STORED]
    pixels = ((study * 5 + y * 7 + x * 3) % 256).astype(np.uint8)
    options = {"image_size": SIZE, "resize": STORED, "max_tokens": 12, "max_sentences": 3} | settings
    names = [f"s{number}" for number in range(STUDIES)]
    return PairDataset(pixels, tokens, names, np.array(rows), DataSettings(**options), fixed)


def ask(*rows, seed=None):
    return BatchRequest(np.array(rows), seed)


def offsets(data, image, study):
    """Where the crop of a study was taken from; none or several places fail."""
    pixels = normalise_pixels(data.images[study])
    slack = range(STORED - SIZE + 1)
    hits = [(y, x) for y in slack for x in slack if torch.equal(pixels[y : y + SIZE, x : x + SIZE], image[0])]
    assert len(hits) == 1
    return hits[0]


def test_gray_values_become_minus_one_to_one():
    values = normalise_pixels(np.array([0, 255, 51], dtype=np.uint8))
    assert torch.allclose(values, torch.tensor([-1.0, 1.0, -0.6]), atol=1e-6)
    assert (values[0], values[1]) == (-1, 1)


def test_evaluation_is_the_centre_every_time(tokens):
    data = dataset(tokens, intensity_jitter=0.5)
    first, second = data[ask(3, 5)], data[ask(3, 5)]
    assert torch.equal(first.images, second.images)
    assert [offsets(data, first.images[i], study) for i, study in enumerate((3, 5))] == [(2, 2), (2, 2)]


def test_random_crops_stay_inside_and_reach_every_place(tokens):
    data = dataset(tokens)
    found = [
        offsets(data, image, study)
        for seed in range(12)
        for study, image in enumerate(data[ask(*range(STUDIES), seed=seed)].images)
    ]
    assert {y for y, _ in found} == {x for _, x in found} == set(range(STORED - SIZE + 1))
    assert len(set(found)) == (STORED - SIZE + 1) ** 2


def test_without_random_crop_or_slack_the_view_is_the_centre(tokens):
    data = dataset(tokens, random_crop=False)
    assert torch.equal(data[ask(4, seed=1)].images, data[ask(4)].images)
    whole = dataset(tokens, image_size=STORED)
    assert torch.equal(whole[ask(4, seed=1)].images[0, 0], normalise_pixels(whole.images[4]))


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_a_view_depends_on_study_and_epoch_but_not_on_batch_or_rank(tokens, jitter):
    data = dataset(tokens, intensity_jitter=jitter)
    alone = {study: data[ask(study, seed=9)].images[0] for study in range(STUDIES)}
    for rank in range(2):
        for request in TrainingOrder(STUDIES, 5, 9, rank=rank, ranks=2):
            for study, image in zip(request.rows, data[request].images, strict=True):
                assert torch.equal(image, alone[int(study)])
    others = data[ask(*range(STUDIES), seed=10)].images
    assert sum(torch.equal(others[study], alone[study]) for study in range(STUDIES)) < STUDIES / 4


def kept(batch):
    return [row[mask].tolist() for row, mask in zip(batch.sentence_text, batch.sentence_mask, strict=True)]


def test_sentences_are_left_out_by_study_and_epoch_and_never_in_evaluation(tokens):
    data, plain = dataset(tokens, sentence_dropout=0.5), dataset(tokens)
    everyone = range(STUDIES)
    assert kept(checked(data[ask(*everyone)])) == kept(plain[ask(*everyone)])
    together = kept(checked(data[ask(*everyone, seed=4)]))
    assert together == [kept(checked(data[ask(study, seed=4)]))[0] for study in everyone]
    assert together != kept(data[ask(*everyone, seed=5)])
    counts = [
        len(kept(data[ask(*everyone, seed=seed)])[study]) for seed in range(40) for study in everyone if study % 2
    ]
    # Of two sentences one stays always, the other one in half of the epochs.
    assert np.mean(counts) == pytest.approx(0.75 * 1 + 0.25 * 2, abs=0.1)
    assert min(counts) == 1


def test_dropping_sentences_keeps_fixed_shapes(tokens):
    batch = checked(dataset(tokens, fixed=True, sentence_dropout=0.9)[ask(*range(8), seed=1)])
    assert (batch.token_ids.shape, batch.sentence_mask.shape) == ((8, 12), (8, 3))


def test_jitter_changes_contrast_and_brightness_within_the_range(tokens):
    data = dataset(tokens, random_crop=False, intensity_jitter=0.2)
    plain, changed = data[ask(*range(8))].images, data[ask(*range(8), seed=1)].images
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert (changed - plain).abs().max() <= 0.4 + 1e-6
    for before, after in zip(plain, changed, strict=True):
        inside = (after > -0.99) & (after < 0.99)
        slope = torch.linalg.lstsq(
            torch.stack([before[inside], torch.ones(int(inside.sum()))], 1), after[inside][:, None]
        ).solution.ravel()
        assert 0.8 - 1e-4 <= slope[0] <= 1.2 + 1e-4
        assert abs(slope[1]) <= 0.2 + 1e-4
        assert torch.allclose(after[inside], slope[0] * before[inside] + slope[1], atol=1e-4)


def test_rows_of_a_split_bring_their_own_image_text_and_name(tokens):
    data = dataset(tokens, rows=[20, 7, 11])
    batch = checked(data[ask(2, 0)])
    assert len(data) == 3
    assert batch.study_ids == ("s11", "s20")
    assert torch.equal(batch.images[1, 0], normalise_pixels(data.images[20, 2:18, 2:18]))
    expected = tokens.padded(np.array([11, 20]))
    assert batch.token_ids.tolist() == expected["token_ids"].tolist()
    assert batch.sentence_mask.tolist() == [[True, True], [True, False]]


def test_fixed_shapes_do_not_depend_on_the_rows(tokens):
    data = dataset(tokens, fixed=True)
    for rows in ([0], [1]):
        batch = checked(data[ask(*rows)])
        assert batch.token_ids.shape == (1, 12)
        assert batch.sentence_mask.shape == (1, 3)


def test_ranks_agree_on_few_shapes_that_fit_their_reports():
    texts = [" ".join(f"Word{k} seen." for k in range(1 + 7 * (number % 5 == 4))) for number in range(40)]
    long = tokenize_reports(texts, train_tokenizer(texts, 100), 64, 24)
    data = dataset(long, rows=range(30), fixed=True, max_tokens=64, max_sentences=24, sentence_dropout=0.3)
    shapes = set()
    for requests in zip(*(TrainingOrder(30, 4, 3, rank=rank, ranks=2) for rank in range(2)), strict=True):
        first, second = (data[request] for request in requests)
        for name in ("token_ids", "sentence_mask", "sentence_places"):
            assert getattr(first, name).shape == getattr(second, name).shape
        for batch in (first, second):
            shapes.add(batch.token_ids.shape[1:])
            real = batch.sentence_mask.flatten()
            assert real[batch.sentence_places].sum() == real.sum()
            assert real[batch.sentence_places][: int(real.sum())].all()
            assert len(set(batch.sentence_places.tolist())) == len(batch.sentence_places)
    assert shapes <= {(32,), (64,)}


def test_parts_of_a_batch_are_padded_to_their_own_longest(tokens):
    batch = dataset(tokens)[ask(*range(16))]
    counts = batch.token_mask.sum(1)[batch.token_order]
    assert counts.tolist() == sorted(batch.token_mask.sum(1).tolist())
    parts = counts.tensor_split(len(batch.token_lengths))
    assert [int(part.max()) <= length for part, length in zip(parts, batch.token_lengths, strict=True)] == [True] * 4
    assert batch.token_lengths[0] < batch.token_ids.shape[1] or counts[0] == counts[-1]


def test_a_batch_of_single_sentence_reports_is_whole(tokens):
    batch = checked(dataset(tokens)[ask(0, 2, 4)])
    assert batch.sentence_mask.tolist() == [[True]] * 3
    assert len(set(batch.sentence_text.ravel().tolist())) == 1


@pytest.mark.parametrize("order", [TrainingOrder(STUDIES, 7, 3, start=1), evaluation_order(STUDIES, 7)])
def test_workers_give_the_same_batches_in_the_same_order(tokens, order):
    data = dataset(tokens, intensity_jitter=0.1)
    here, there = list(make_loader(data, order)), list(make_loader(data, order, workers=2))
    assert len(here) == len(there) == len(order)
    for a, b in zip(here, there, strict=True):
        assert a.study_ids == b.study_ids
        for name in ("images", "token_ids", "token_mask", "token_sentence", "sentence_mask", "sentence_text"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_a_subset_has_the_images_and_reports_of_its_rows(tokens):
    whole = dataset(tokens)
    part = whole.subset(np.array([7, 2]))
    found, expected = part[ask(0, 1)], whole[ask(7, 2)]
    assert found.study_ids == ("s7", "s2")
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.token_ids, expected.token_ids)
    elsewhere = whole.subset(np.array([7, 2]), np.zeros((STUDIES, STORED, STORED), dtype=np.uint8))
    assert (elsewhere[ask(0, 1)].images == -1).all()
