"""What a batch norm gets, and that training begins where inference is once it knows."""

from dataclasses import replace

import numpy as np
import pytest

from weights.layout import BATCH_NORM_EPS
from weights.split import restate
from weights.variants import Variant

pytestmark = pytest.mark.usefixtures("cpu")


PLAIN = Variant((8, 8, 16, 16, 16), (1, 2, 2, 0, 0), strides=(1, 1, 2, 2, 1))
KINDS = {
    "plain": PLAIN,
    "groups": replace(PLAIN, groups=2),
    "squeeze": replace(PLAIN, widths=(16, 16, 32, 32, 32), squeeze_excite=True),
    "qarepvgg": replace(PLAIN, block="qarepvgg"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_with_measured_statistics_training_computes_what_inference_does(kind):
    import mindspore as ms

    from training.network import moments, repvgg

    network = repvgg.RepVGG(KINDS[kind], 3)
    images = np.random.default_rng(0).normal(1, 2, (6, 3, 16, 16)).astype(np.float32)
    batch = ms.Tensor(images)
    expected = network.set_train(False)(batch).asnumpy()

    parameters = repvgg.weights(network)
    measured = moments.measure(network, map(ms.Tensor, np.split(images, 2)))
    weights = {name: parameter.asnumpy() for name, parameter in parameters.items()}
    for name, array in restate(weights, measured, BATCH_NORM_EPS).items():
        parameters[name].set_data(ms.Tensor(array))

    np.testing.assert_allclose(network.set_train(False)(batch).asnumpy(), expected, atol=1e-4 * expected.std())
    np.testing.assert_allclose(network.set_train(True)(batch).asnumpy(), expected, atol=1e-3 * expected.std())
