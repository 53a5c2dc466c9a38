"""Names of projections."""

import pandas as pd
import pytest

from cmcgns.data.manifest import VIEWS
from cmcgns.data.vocabulary import normalise_view, normalise_views


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("AP", "AP"), ("pa", "PA"), ("AP Supine", "AP"), ("AP semi-erect", "AP"), ("Frontal", "FRONTAL"),
        ("L", "LATERAL"),
        ("LL", "LATERAL"), ("Lateral", "LATERAL"), ("", ""), ("?", ""), ("nan", ""), ("  ", ""), ("AP LLD", "OTHER"),
        ("RAO", "OTHER"), ("Other", "OTHER"), ("skyline", None),
    ],
)  # fmt: skip
def test_known_words(text: str, view: str | None) -> None:
    assert normalise_view(text) == view
    assert view is None or view in VIEWS


def test_unknown_words_are_reported() -> None:
    views, unknown = normalise_views(pd.Series(["AP", "skyline", "", "AP"], dtype="str"))
    assert list(views) == ["AP", "OTHER", "", "AP"]
    assert unknown == ["skyline"]
