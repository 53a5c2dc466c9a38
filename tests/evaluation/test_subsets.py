"""Fractions of few patients: nested, whole patients, and both outcomes of every finding as far as can be."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cmcgns.evaluation.subsets import nested_fraction

LABEL = st.sampled_from([0.0, 1.0, np.nan])
ROWS = st.integers(1, 4).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(0, 12), st.lists(LABEL, min_size=classes, max_size=classes)), min_size=1, max_size=40
    )
)


@settings(max_examples=300, deadline=None)
@given(ROWS, st.integers(0, 5), st.floats(0.01, 1), st.floats(0.01, 1))
def test_smaller_fractions_lie_within_larger_ones_and_hold_both_outcomes(
    rows: list[tuple[int, list[float]]], seed: int, one: float, other: float
) -> None:
    groups, labels = np.array([patient for patient, _ in rows]), np.array([cells for _, cells in rows])
    small, large = (nested_fraction(groups, labels, share, seed) for share in sorted((one, other)))
    assert set(small.tolist()) <= set(large.tolist())
    patients = len(set(groups.tolist()))
    for taken, share in ((small, min(one, other)), (large, max(one, other))):
        chosen = set(groups[taken].tolist())
        assert len(chosen) == max(1, round(share * patients))
        assert not chosen & set(np.delete(groups, taken).tolist())  # whole patients
        if len(chosen) >= 2 * labels.shape[1]:
            for value in (0, 1):
                there, drawn = ((some == value).any(axis=0) for some in (labels, labels[taken]))
                assert (drawn >= there).all()


def test_two_patients_are_one_with_the_finding_and_one_without() -> None:
    labels = (np.arange(200) < 180).astype(float)[:, None]
    for seed in range(20):
        assert sorted(labels[nested_fraction(np.arange(200), labels, 0.01, seed), 0]) == [0.0, 1.0]
        assert labels[nested_fraction(np.arange(200), labels, 0.1, seed), 0].sum() in (17, 18, 19)
