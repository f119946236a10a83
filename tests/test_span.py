"""The reduction of a network to the span of its directions."""

import numpy as np
import pytest
from conftest import make_problem

from preluflow import _span, attacks
from preluflow._span import InBasis, in_span


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_attacks_in_the_span_are_attacks_in_the_whole_space(p):
    problem = make_problem(n=12, h=6, D=25, seed=4, gap=0.02)
    network = problem.network(p=p)
    reduced, Q = in_span(network)
    assert reduced.dim == 6
    X, Z = problem.X, problem.X @ Q
    y = np.sign(network.decision_function(X))
    f, gradient = network.value_and_input_gradient(X)
    g, slope = reduced.value_and_input_gradient(Z)
    np.testing.assert_allclose(g, f, rtol=0, atol=1e-12)
    np.testing.assert_allclose(slope @ Q.T, gradient, rtol=0, atol=1e-12)
    # The best of the steps is kept, and about its best a margin is flat: margins agree to rounding, and so the places
    # only to its square root.
    for options, near in (({}, 1e-9), ({"objective": "margin"}, np.sqrt(1e-14))):
        whole = attacks.pgd(network, X, y, eps=0.2, steps=30, **options)
        inside = attacks.pgd(reduced, Z, y, eps=0.2, steps=30, **options)
        scores = [np.asarray(network.decision_function(X + delta)) for delta in (inside.delta @ Q.T, whole.delta)]
        np.testing.assert_allclose(*scores, rtol=0, atol=1e-14)
        np.testing.assert_allclose(inside.delta @ Q.T, whole.delta, rtol=0, atol=near)
        np.testing.assert_array_equal(inside.success, whole.success)
        # In 30 steps no run comes back to an iterate, which would be a matter of rounding.
        assert inside.gradients == whole.gradients
    whole, inside = attacks.ddn(network, X, y, steps=60), attacks.ddn(reduced, Z, y, steps=60)
    # Where a gradient vanishes DDN draws a direction at random, and the two draw different ones.
    same = np.isclose(inside.norms, whole.norms, rtol=0, atol=1e-9)
    assert np.isfinite(whole.norms[same]).sum() >= 10


@pytest.mark.parametrize("dim", [25, 7, 6])
@pytest.mark.parametrize("eps", [0.05, 0.4])
def test_apgd_in_one_dimension_more_is_apgd_in_all(dim, eps):
    problem = make_problem(n=30, h=6, D=25, seed=4, gap=0.02)
    network = problem.network()
    reduced, Q = in_span(network)
    Z, y = problem.X @ Q, np.sign(network.decision_function(problem.X))
    padded = np.column_stack([Z, np.zeros((len(Z), dim - 6))])
    options = {"eps": eps, "steps": 25, "restarts": 2, "seed": 3}
    whole = attacks.apgd(InBasis(reduced), padded, y, **options)
    folded = _span.apgd(reduced, Z, y, dim=dim, **options)
    assert folded.delta.shape == (30, 7)
    np.testing.assert_array_equal(folded.success, whole.success)
    assert folded.gradients == whole.gradients
    np.testing.assert_allclose(folded.norms, whole.norms, rtol=0, atol=1e-9)
    np.testing.assert_allclose(folded.delta[:, :6], whole.delta[:, :6], rtol=0, atol=1e-7)
    outside = np.linalg.norm(whole.delta[:, 6:], axis=1)
    np.testing.assert_allclose(np.abs(folded.delta[:, 6]), outside, rtol=0, atol=1e-7)
    assert 0 < whole.success.sum() < 30


def test_a_network_narrower_than_its_span_is_reduced_to_the_whole_space():
    network = make_problem(h=9, D=4).network()
    reduced, Q = in_span(network)
    assert reduced.dim == 4
    X = np.random.default_rng(0).standard_normal((5, 4))
    np.testing.assert_allclose(reduced.decision_function(X @ Q), network.decision_function(X), rtol=0, atol=1e-12)


def test_the_other_coordinates_do_not_count():
    network = make_problem(h=6, D=5).network()
    wide = InBasis(network)
    X = np.random.default_rng(0).standard_normal((7, 9))
    np.testing.assert_array_equal(wide.decision_function(X), network.decision_function(X[:, :5]))
    np.testing.assert_array_equal(wide.input_gradient(X)[:, :5], network.input_gradient(X[:, :5]))
    assert not wide.input_gradient(X)[:, 5:].any()
