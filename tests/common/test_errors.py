"""What messages say."""

import pytest

from cmcgns.common.errors import did_you_mean, one_line


def test_the_nearest_name_is_offered_and_none_where_none_is_near():
    assert did_you_mean("trainng", ["data", "training"]) == " Did you mean training?"
    assert did_you_mean("xyz", ["data", "training"]) == ""
    assert did_you_mean("clip", ["rival-mgca", "rival-clip"]) == " Did you mean rival-clip?"
    assert did_you_mean("r", ["rival-mgca"]) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two\n  lines", "two lines"),
        ("", "ValueError"),
        (
            "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False`",
            "their code is not run",
        ),
        ("please set the option `trust_remote_code=True` to remove this error.", "asks for code of its own"),
        ("contains custom code which must be executed", "asks for code of its own"),
    ],
)
def test_a_librarys_error_is_one_line_without_advice_to_run_code(text: str, said: str) -> None:
    found = one_line(ValueError(text))
    assert said in found
    assert "\n" not in found
    assert not {"weights_only", "trust_remote_code"} & set(found.replace("=", " ").split())
