import pytest

from asif_jax.tuning import rule_of_thumb


@pytest.mark.parametrize(
    ("pairs", "k", "p"), [(1, 1, 4.0), (344, 69, 4.0), (3995, 799, 4.0), (3996, 800, 8.0)]
)
def test_rule_of_thumb(pairs, k, p):
    assert rule_of_thumb(pairs) == (k, p)


def test_no_pairs():
    with pytest.raises(ValueError, match="got 0"):
        rule_of_thumb(0)
