"""Method "rkc": Chebyshev's stages by their identities, and stiff flows against exact and independent solutions."""

import numpy as np
import pytest
from conftest import assert_same_networks
from test_flow import dense_weights, distance, order_of, stages

import preluflow as pf
from preluflow._dispatch import core

CHEBYSHEV = core.chebyshev_tableaus()
each_count = pytest.mark.parametrize("count", CHEBYSHEV)


# ---- the tableaus


@each_count
def test_chebyshev_stages_have_order_two_and_their_estimate_is_of_order_three(count):
    method, _ = CHEBYSHEV[count]
    A, e = stages(method), np.array(method["e"][0])
    assert len(method["b"]) == count
    assert order_of(method["b"], A) == method["order"] == 2
    assert len(e) == len(A)
    rounding = 4 * count * np.finfo(float).eps * np.abs(e).sum()  # of a recurrence of so many stages
    assert abs(e.sum()) < rounding
    assert abs(e @ A.sum(axis=1)) < rounding
    c = A.sum(axis=1)
    assert abs(e @ c**2) > 0.05
    assert method["control_order"] == 3
    assert np.diff(c).min() > -1e-14
    assert c[-1] == pytest.approx(1.0, abs=1e-12)


def stability(method, z):
    """The factor by which a step of y' = lambda y multiplies y, z = h lambda; and those of the stages, (s + 1, ...)."""
    found = []
    for row in ([], *method["a"], method["b"]):
        found.append(1.0 + z * sum((weight * R for weight, R in zip(row, found, strict=False)), np.zeros_like(z)))
    return np.array(found)


@each_count
def test_chebyshev_stages_are_stable_as_far_as_they_say(count):
    method, interval = CHEBYSHEV[count]
    z = -np.linspace(0.0, interval, 20_001)
    factors = stability(method, z)
    assert np.abs(factors).max() < 1.0 + 1e-12  # the stages within the step, too
    assert np.abs(factors[-1][z < -2.0]).max() < 0.97  # damped
    beyond = stability(method, -interval * np.linspace(1.0, 1.2, 1001))[-1]
    assert np.abs(beyond).max() > 1.0
    assert interval == pytest.approx(0.653 * (count**2 - 1), rel=1e-3)


@each_count
def test_dense_output_of_chebyshev_stages_is_hermites(count):
    method, _ = CHEBYSHEV[count]
    P = np.array(method["dense"])
    np.testing.assert_allclose(P.sum(axis=1), np.pad(method["b"], (0, 1)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(P[:, 0], np.eye(len(P))[0], rtol=0, atol=0)
    np.testing.assert_allclose(P @ [1, 2, 3], np.eye(len(P))[-1], rtol=0, atol=1e-13)
    A = stages(method)
    assert [order_of(dense_weights(method, theta), A, theta) for theta in (0.15, 0.5, 0.83)] == [2, 2, 2]
    assert method["dense_order"] == 2


# ---- a linear flow, whose solution is known


def linear_problem(seed=0, n=40, D=10, h=12, p=2.0):
    """Only V is trained: v' = -(2/n) Phi^T (Phi v - y). Features are positive, and so correlated."""
    rng = np.random.default_rng(seed)
    X, y = rng.uniform(0.2, 1.0, (n, D)), rng.standard_normal(n)
    net = pf.initialize(h, D, 0.5, kind="gaussian", p=p, activation="polynomial", dtype="float64", rng=seed + 1)
    Phi = np.maximum(X @ net.W.T, 0.0) ** p
    return net, X, y, Phi


@pytest.mark.parametrize("seed", range(5))
def test_a_stiff_linear_flow_meets_its_exact_solution_in_few_gradients(seed):
    net, X, y, Phi = linear_problem(seed)
    H, pull = 2.0 / len(y) * Phi.T @ Phi, 2.0 / len(y) * Phi.T @ y
    values, vectors = np.linalg.eigh(H)
    t1 = 1e4 / values[-1]
    decay = np.exp(-values * t1)
    along = -np.expm1(-values * t1) / np.where(values > 0, values, 1.0)
    exact = vectors @ (decay * (vectors.T @ net.v) + along * (vectors.T @ pull))
    run = pf.gradient_flow(net, X, y, t1=t1, train="outer", method="rkc", rtol=1e-4)
    assert run.status == "finished"
    scale = np.linalg.norm(net.W, axis=1)
    assert np.max(np.abs(run.network.v - exact) / np.maximum(scale, np.abs(exact))) < 30 * 1e-4
    # An explicit method of three stages needs 3 / 2.51 of lambda_max t1 = 10,000.
    assert run.stats["gradients"] < 1200
    assert run["loss"][-1] == pytest.approx(np.mean((Phi @ exact - y) ** 2), rel=1e-3)


@pytest.mark.parametrize("c", [1.0, 1e-3, 1e-6])
def test_stiffness_is_found_however_large_the_outer_weights_are(c):
    net, X, y, Phi = linear_problem()
    net = pf.TwoLayerNetwork(net.W * c, net.v / c**2, net.activation, net.p)
    t1 = 2e3 / np.linalg.eigvalsh(2.0 / len(y) * Phi.T @ Phi)[-1] / c**4
    run = pf.gradient_flow(net, X, y, t1=t1, train="outer", method="rkc")
    assert run.stats["gradients"] < 1000  # bosh3: 2573


# ---- flows that become stiff


def stiff_problem(kind, seed=0, n=120, D=20, h=12):
    """Data with a large common part, on which the largest eigenvalue is several times that of all others."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(D)
    centers = rng.standard_normal((4, D))
    X = centers[rng.integers(0, 4, n)] + 2.0 * common + 0.3 * rng.standard_normal((n, D))
    X /= np.linalg.norm(X, axis=1)[:, None]
    z = np.argmax((X - X.mean(axis=0)) @ centers.T, axis=1)
    options, y, outputs = {}, np.where(z < 2, 1.0, -1.0), 1
    activation, p = "prelu", 3.0
    if kind in ("polynomial", "tanh"):
        activation = kind
    if kind == "p2":
        p = 2.0
    if kind == "outputs":
        y, outputs = z % 3, 3
    if kind == "biases":
        options["biases"] = "both"
    if kind == "decay":
        options["weight_decay"] = 0.01
    if kind == "inner":
        options["train"] = "inner"
    net = pf.initialize(
        h, D, 0.3, kind="gaussian", p=p, activation=activation, outputs=outputs, dtype="float64", rng=seed + 1
    )
    return net, X, y, options


KINDS = ("prelu", "p2", "polynomial", "tanh", "outputs", "biases", "decay", "inner")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stiff_flow_is_followed_in_fewer_gradients(kind):
    net, X, y, options = stiff_problem(kind)
    t1 = 1000.0 if kind == "inner" else 300.0  # that one becomes stiff later
    exact = pf.gradient_flow(net, X, y, t1=t1, method="dop853", rtol=1e-8, **options).network
    found = {m: pf.gradient_flow(net, X, y, t1=t1, method=m, rtol=1e-3, **options) for m in ("bosh3", "rkc")}
    assert distance(found["rkc"].network, exact) < max(0.05, 2.0 * distance(found["bosh3"].network, exact))
    assert found["rkc"].stats["gradients"] < 0.75 * found["bosh3"].stats["gradients"]


def test_a_tighter_tolerance_comes_nearer():
    net, X, y, _ = stiff_problem("prelu")
    exact = pf.gradient_flow(net, X, y, t1=200.0, method="dop853", rtol=1e-9).network
    errors = [
        distance(pf.gradient_flow(net, X, y, t1=200.0, method="rkc", rtol=rtol).network, exact)
        for rtol in (1e-2, 1e-3, 1e-4, 1e-5)
    ]
    assert errors[0] > 5 * errors[2]
    assert errors[1] > 5 * errors[3]
    assert errors[3] < 1e-3


def test_bits_do_not_depend_on_threads():
    net, X, y, _ = stiff_problem("prelu", n=1500, D=130, h=40)  # enough work for two threads
    single = net.astype("float32"), X.astype("float32")
    plain = pf.gradient_flow(*single, y, t1=80.0, method="bosh3").stats["gradients"]
    for start, points in (single, (net, X)):
        one, two = (pf.gradient_flow(start, points, y, t1=80.0, method="rkc", num_threads=count) for count in (1, 2))
        assert_same_networks(one.network, two.network)
        assert one.stats["gradients"] == two.stats["gradients"]
        assert one.stats["gradients"] < 0.8 * plain


def test_between_the_ends_of_long_steps_the_flow_is_known():
    net, X, y, _ = stiff_problem("prelu")
    times = np.linspace(100.0, 380.0, 8)
    run = pf.gradient_flow(net, X, y, t1=400.0, method="rkc", dense=True)
    assert np.max(np.diff([step.begin for step in run.dense.steps])) > 20.0
    for t in times:
        exact = pf.gradient_flow(net, X, y, t1=t, method="dop853", rtol=1e-8).network
        assert distance(run.at(t), exact) < 0.02


def test_a_run_goes_on_where_it_was():
    net, X, y, _ = stiff_problem("prelu")
    whole = pf.gradient_flow(net, X, y, t1=400.0, method="rkc")
    half = pf.gradient_flow(net, X, y, t1=200.0, method="rkc")
    rest = pf.gradient_flow(half, X, y, t1=400.0, method="rkc", join=True)
    assert distance(rest.network, whole.network) < 0.02
    assert rest.stats["gradients"] < 1.5 * whole.stats["gradients"]


def test_where_nothing_is_stiff_it_is_bogacki_and_shampines():
    gmm = pf.OrthonormalGMM(12, 3, 2, 0.1, rng=0)
    data = gmm.sample(60, balanced=True, dtype="float64", rng=1)
    net = pf.initialize(8, 12, 1e-4, dtype="float64", rng=2)
    found = [pf.gradient_flow(net, data.X, data.y, t1=12.0, method=method) for method in ("bosh3", "rkc")]
    assert_same_networks(found[0].network, found[1].network)
    more = found[1].stats["gradients"] - found[0].stats["gradients"]
    assert 0 < more < 0.1 * found[0].stats["gradients"]
