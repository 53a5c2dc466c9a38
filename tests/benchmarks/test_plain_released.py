"""The plain program must give the released values; only then is its speed worth comparing."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
Golden = dict[str, Tensor]


def load_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_released", ROOT / "benchmarks" / "plain_released.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plain = load_program()


@pytest.fixture(params=["small", "medium"])
def golden(request: pytest.FixtureRequest) -> Golden:
    with np.load(ROOT / "tests" / "golden" / f"{request.param}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def section(golden: Golden, prefix: str) -> Golden:
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def assert_value(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def assert_gradient(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def step_vectors(golden: Golden, step: int) -> tuple[Tensor, Tensor]:
    z_sentence, z_cross_modal = golden["z_sentence"][step].clone(), golden["z_cross_modal"][step].clone()
    return z_sentence.requires_grad_(), z_cross_modal.requires_grad_()


def later_steps(golden: Golden) -> range:
    return range(1, golden["z_sentence"].shape[0])


def fresh_state(golden: Golden) -> "plain.PlainState":
    clusters = golden["centroids_after_init"].shape[0]
    return plain.PlainState(clusters=clusters, first_index=int(golden["init_first_index"]))


def attend(golden: Golden, image_patches: Tensor) -> "plain.Attended":
    weights = section(golden, "attention/")
    return plain.attend(image_patches, golden["sentences"], golden["counts"], weights)


def test_attention_gives_the_golden_vectors_and_weights(golden: Golden) -> None:
    attended = attend(golden, golden["image_patches"])
    for study, count in enumerate(golden["counts"].tolist()):
        assert_value(attended.image_to_text[study], golden["image_to_text"][study, :count])
        assert_value(attended.image_to_text_weights[study], golden["attention_image_to_text"][study, :count])
        assert_value(attended.text_to_image[study], golden["text_to_image"][study])
        text_weights = golden["attention_text_to_image"][study, :, :count]
        assert_value(attended.text_to_image_weights[study], text_weights)


def test_local_image_loss_and_its_gradient_through_the_attention(golden: Golden) -> None:
    patches = golden["image_patches"].clone().requires_grad_()
    text_to_image = attend(golden, patches).text_to_image
    loss = plain.local_image_loss(patches, text_to_image, section(golden, "predictor/"))
    loss.backward()
    assert_value(loss, golden["local_image_loss"])
    assert_gradient(patches.grad, golden["local_image_loss_grad_patches"])


def test_global_loss(golden: Golden) -> None:
    loss = plain.global_loss(golden["global/image"], golden["global/text"], golden["global/logit_scale"])
    assert_value(loss, golden["global/loss"])


def test_seeding_follows_the_chain_of_least_similar_pairs(golden: Golden) -> None:
    seeds = golden["centroids_after_init"]
    first_index = int(golden["init_first_index"])
    assert_value(plain.seed_bank(golden["z_cross_modal"][0], seeds.shape[0], first_index), seeds)


def test_seeding_crashes_when_a_batch_holds_fewer_sentences_than_clusters() -> None:
    with pytest.raises(ValueError, match="seeding 5 clusters needs as many sentences, got 4"):
        plain.seed_bank(torch.eye(4), clusters=5, first_index=0)


def test_centroids_move_by_sums_over_all_steps(golden: Golden) -> None:
    centroids = golden["centroids_after_init"]
    for step in later_steps(golden):
        centroids = plain.update_bank(centroids, golden["z_cross_modal"][step], rate=1e-3)
        # Tighter than the rule for values: one update moves a coordinate by little more than atol 1e-5.
        torch.testing.assert_close(centroids, golden["centroids"][step - 1], rtol=0, atol=1e-6)


def test_update_adds_the_sum_and_leaves_empty_centroids_alone() -> None:
    centroids = torch.eye(3)[:2]
    members = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.0, 0.6]])
    expected = torch.tensor([[0.9 + 0.18, 0.0, 0.06], [0.0, 1.0, 0.0]])
    assert_value(plain.update_bank(centroids, members, rate=0.1), expected)


def test_nearest_and_second_nearest_centroid(golden: Golden) -> None:
    for step in later_steps(golden):
        z_sentence = golden["z_sentence"][step]
        cluster_index, hard_index = plain.hard_negatives(z_sentence, golden["centroids"][step - 1])
        assert cluster_index == golden["cluster_index"][step - 1].tolist()
        assert hard_index == golden["hard_negative_index"][step - 1].tolist()


def test_false_negatives_are_the_others_of_the_cluster(golden: Golden) -> None:
    for clusters, mask in zip(golden["cluster_index"].tolist(), golden["false_negative_mask"], strict=True):
        assert plain.false_negative_weights(clusters) == mask.tolist()


def test_cross_entropy_with_multiplied_logits(golden: Golden) -> None:
    for step in later_steps(golden):
        z_sentence, z_cross_modal = step_vectors(golden, step)
        hard = golden["centroids"][step - 1][golden["hard_negative_index"][step - 1]]
        cosines = plain.broadcast_cosines(z_sentence, z_cross_modal)
        loss = plain.cross_entropy(cosines, z_sentence, hard, own_weight=3.0)
        assert_value(loss, golden["ce_multiplicative_w3"][step])


def test_margin_loss_and_its_gradients(golden: Golden) -> None:
    for step in later_steps(golden):
        z_sentence, z_cross_modal = step_vectors(golden, step)
        mask = golden["false_negative_mask"][step - 1].float().tolist()
        loss = plain.margin_loss(plain.broadcast_cosines(z_sentence, z_cross_modal), mask)
        loss.backward()
        assert_value(loss, golden["bml_loss"][step])
        assert_gradient(z_sentence.grad, golden[f"step{step}/grad_bml_sentence"])
        assert_gradient(z_cross_modal.grad, golden[f"step{step}/grad_bml_cross_modal"])


def test_margin_loss_charges_alpha_for_an_empty_set() -> None:
    assert_value(plain.margin_loss(torch.eye(3), [[0.0] * 3] * 3), torch.tensor(0.2))


def test_local_report_loss_over_all_steps_with_one_state(golden: Golden) -> None:
    state = fresh_state(golden)
    for step in range(golden["z_sentence"].shape[0]):
        z_sentence, z_cross_modal = step_vectors(golden, step)
        losses = plain.local_report_loss(z_sentence, z_cross_modal, state)
        assert_value(losses["cross_entropy"], golden["ce_multiplicative_w3"][step])
        assert_value(losses["margin"], golden["bml_loss"][step])
        assert_value(losses["local_report"], golden["local_report_loss"][step])
        if step == 0:
            assert_value(state.centroids, golden["centroids_after_init"])
            continue
        torch.testing.assert_close(state.centroids, golden["centroids"][step - 1], rtol=0, atol=1e-6)
        losses["local_report"].backward()
        assert_gradient(z_sentence.grad, golden[f"step{step}/grad_sentence"])
        assert_gradient(z_cross_modal.grad, golden[f"step{step}/grad_cross_modal"])


def test_the_bank_starts_only_once_the_mean_cosine_is_low_enough(golden: Golden) -> None:
    mean_cosine = golden["avg_cos"][0].item()
    for offset, starts in ((-1e-3, False), (1e-3, True)):
        state = fresh_state(golden)
        state.start_at = mean_cosine + offset
        plain.local_report_loss(golden["z_sentence"][0], golden["z_cross_modal"][0], state)
        assert (state.centroids is not None) == starts


def plain_step(golden: Golden, image_patches: Tensor, state: "plain.PlainState") -> dict[str, Tensor]:
    losses: dict[str, Tensor] = plain.plain_step(
        image_patches,
        golden["sentences"],
        golden["counts"],
        section(golden, "attention/"),
        section(golden, "predictor/"),
        golden["global/image"],
        golden["global/text"],
        golden["global/logit_scale"],
        state,
    )
    return losses


def golden_pairs(golden: Golden) -> tuple[Tensor, Tensor]:
    """The real sentences and what they gather, picked by mask instead of by loop."""
    real = torch.arange(golden["sentences"].shape[1]) < golden["counts"][:, None]
    return golden["sentences"][real], functional.normalize(golden["image_to_text"][real], dim=-1)


def test_first_step_is_in_batch_and_seeds_the_bank(golden: Golden) -> None:
    z_sentence, z_cross_modal = golden_pairs(golden)
    in_batch = functional.cross_entropy(z_sentence @ z_cross_modal.T, torch.arange(len(z_sentence)))
    state = fresh_state(golden)
    state.start_at = 1.0
    losses = plain_step(golden, golden["image_patches"], state)
    assert set(losses) == {"loss", "global", "local_image", "cross_entropy", "margin", "local_report"}
    assert_value(losses["global"], golden["global/loss"])
    assert_value(losses["local_image"], golden["local_image_loss"])
    assert_value(losses["local_report"], in_batch)
    assert_value(losses["loss"], golden["global/loss"] + golden["local_image_loss"] + in_batch)
    assert state.centroids is not None
    assert_value(state.centroids[0], z_cross_modal[state.first_index])


def test_second_step_uses_the_bank_and_reaches_every_input(golden: Golden) -> None:
    inputs = {key: value.clone() for key, value in golden.items()}
    trained = [key for key in inputs if key.startswith(("attention/", "predictor/", "global/"))]
    trained = [key for key in trained if key != "global/loss"] + ["image_patches", "sentences"]
    for key in trained:
        inputs[key].requires_grad_()
    state = fresh_state(golden)
    state.start_at = 1.0
    plain_step(golden, golden["image_patches"], state)
    losses = plain_step(inputs, inputs["image_patches"], state)
    losses["loss"].backward()
    assert losses["margin"] > 0
    assert state.centroids is not None
    assert not state.centroids.requires_grad
    weighted_margin = 1e-4 * losses["margin"]
    terms = losses["global"] + losses["local_image"] + losses["cross_entropy"] + weighted_margin
    assert_value(losses["loss"], terms)
    for key in trained:
        gradient = inputs[key].grad
        assert gradient is not None, key
        assert math.isfinite(gradient.abs().sum().item()), key
        assert gradient.abs().sum() > 0, key
