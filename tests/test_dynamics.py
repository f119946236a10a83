"""Known solutions of gradient flow at alpha = 0 (docs/mathematics.md#nominal); descent meets them with small steps."""

import numpy as np
import pytest
from scipy.special import expi

import preluflow as pf


def flow_limit(network, X, y, t, loss, quantity):
    """``quantity`` of the network at time t: descent at two steps, extrapolated to step 0."""
    values = []
    for steps in (2000, 4000):
        run = pf.gradient_descent(network, X, y, step=t / steps, steps=steps, loss=loss, num_threads=1)
        values.append(quantity(run.network))
    np.testing.assert_allclose(values[0], values[1], rtol=0.05)
    return 2 * values[1] - values[0]


@pytest.mark.parametrize(("loss", "C"), [("squared", 2.0), ("exponential", 1.0), ("logistic", 0.5)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_neuron_aligns_as_proposition_4_says(loss, C, sign):
    # One positive cosine, of its own class, p = 3: artanh(c) - 1/c grows by 3 C t / K.
    gmm = pf.OrthonormalGMM(8, 2, 2, 0.0, rng=0)
    centre = gmm.centers[0 if sign > 0 else 2]
    away = np.linalg.qr(np.vstack([gmm.centers, np.ones(8)]).T)[0][:, 4]  # no cosine with any centre
    c0, t = 0.2, 6.0 / C
    u = c0 * centre + np.sqrt(1 - c0**2) * away
    network = pf.TwoLayerNetwork([1e-200 * u], [sign * 1e-200])
    c = flow_limit(network, gmm.centers, gmm.labels, t, loss, lambda end: float(end.directions[0] @ centre))
    assert c > 2 * c0
    growth = (np.arctanh(c) - 1 / c) - (np.arctanh(c0) - 1 / c0)
    assert growth == pytest.approx(3 * C * t / gmm.clusters, rel=1e-5)


def settled_squared(Z0, t, K):
    return 1 / (1 + (1 / Z0 - 1) * np.exp(-4 * t / K))


def time_exponential(Z0, Z, K):
    return K / 2 * (expi(Z) - expi(Z0))


@pytest.mark.parametrize("p", [1.0, 2.7, 3.0])
def test_the_loss_falls_as_the_logistic_equation_says(p):
    gmm, Z0, t = pf.OrthonormalGMM(6, 2, 1, 0.0, centers="canonical"), np.array([0.01, 0.2, 0.05]), 2.0
    weights = np.sqrt(Z0)
    network = pf.TwoLayerNetwork(weights[:, None] * gmm.centers, weights * gmm.labels, p=p)
    found = flow_limit(network, gmm.centers, gmm.labels, t, "squared", lambda end: end.norms**2)
    np.testing.assert_allclose(found, settled_squared(Z0, t, gmm.clusters), rtol=1e-5)


def test_the_exponential_loss_grows_as_the_exponential_integral_says():
    gmm, Z0, t = pf.OrthonormalGMM(6, 2, 1, 0.0, centers="canonical"), np.array([0.1, 0.4, 1.0]), 2.0
    weights = np.sqrt(Z0)
    network = pf.TwoLayerNetwork(weights[:, None] * gmm.centers, weights * gmm.labels)
    Z = flow_limit(network, gmm.centers, gmm.labels, t, "exponential", lambda end: end.norms**2)
    np.testing.assert_allclose(time_exponential(Z0, Z, gmm.clusters), t, rtol=1e-5)
