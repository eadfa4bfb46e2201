"""Ridge regression: a linear map from one modality to the other.

Hoerl and Kennard, "Ridge Regression", Technometrics 1970.
"""

from asif_jax.methods.linear import Weights, linear_method
from asif_jax.methods.method import Method


def ridge(*, penalty: float = 1.0) -> Method:
    """Cosine of y - m_y and the prediction C_yx (C_xx + penalty I)^-1 (x - m_x).

    The first modality by name (the image) predicts the second (the text).

    Args:
      penalty: how much of the mean variance is added to every variance.

    Returns:
      The method.

    Example:
      >>> ridge(penalty=3.0).settings
      {'penalty': 3.0}
    """
    return linear_method(
        "ridge",
        {"penalty": penalty},
        shrinkage=lambda sums, modality: penalty,
        weights=Weights(first=1.0, whole=True, share=1.0),
        whiten=(True, False),
    )
