"""What messages say."""

from cmcgns.common.errors import did_you_mean


def test_the_nearest_name_is_offered_and_none_where_none_is_near():
    assert did_you_mean("trainng", ["data", "training"]) == " Did you mean training?"
    assert did_you_mean("xyz", ["data", "training"]) == ""
    assert did_you_mean("clip", ["rival-mgca", "rival-clip"]) == " Did you mean rival-clip?"
    assert did_you_mean("r", ["rival-mgca"]) == ""
