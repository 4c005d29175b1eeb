"""Logits that are not finite never become an accuracy."""

import numpy as np
import pytest

from training.errors import TrainingError

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_end_an_evaluation_with_an_error(value):
    """Sorted, logits of nothing but NaN are the first classes: in a split sorted by class, a plausible share."""
    import mindspore as ms

    from training.data.pipeline import Batch
    from training.network import repvgg
    from training.run.evaluation import evaluate

    network = repvgg.build("RepVGG-Smoke", 3)
    batch = Batch(np.zeros((4, 3, 16, 16), np.float32), np.zeros(4, np.int32), 3)
    assert evaluate(network, [batch])[0] == 3
    network.classifier.bias.set_data(ms.Tensor([0.0, value, 0.0], ms.float32))
    with pytest.raises(TrainingError, match="the logits of 3 of 3 images are not finite, so there is no accuracy"):
        evaluate(network, [batch])
