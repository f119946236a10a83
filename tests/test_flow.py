"""Gradient flow: the tableaus, the integrator against independent solutions, and everything a run promises."""

import dataclasses
import itertools
import math
import os
import signal
import threading
import warnings

import numpy as np
import pytest
import reference as ref
from conftest import assert_same_networks, assert_same_runs, assert_whole
from scipy.integrate import solve_ivp
from scipy.special import expi

import preluflow as pf
from preluflow._dispatch import core
from preluflow._trained_form import TrainedForm
from preluflow.flow import METHODS

ADAPTIVE = [name for name, method in METHODS.items() if method["control_order"] > 0]
each_method = pytest.mark.parametrize("method", METHODS)
each_adaptive = pytest.mark.parametrize("method", ADAPTIVE)
each_loss = pytest.mark.parametrize("loss", ref.LOSSES)
SLOPE = {"squared": 2.0, "exponential": 1.0, "logistic": 0.5}  # C of section 5


def flow(network, X, y, t1, **options):
    return pf.gradient_flow(network, X, y, t1=t1, **options)


def mixture(
    n=60, D=12, h=8, scale=0.3, *, alpha=0.1, kind="balanced", p=3.0, activation="prelu", dtype="float64", seed=0
):
    """(network, X, y, gmm) with K1 = 3, K2 = 2 and n/5 points a cluster."""
    gmm = pf.OrthonormalGMM(D, 3, 2, alpha, rng=seed)
    data = gmm.sample(n, balanced=True, dtype=dtype, rng=seed + 1)
    net = pf.initialize(h, D, scale, kind=kind, p=p, activation=activation, dtype=dtype, rng=seed + 2)
    return net, data.X, data.y, gmm


def distance(a, b):
    """Largest angle between directions, and difference of log ||w||, of two networks."""
    chords = np.linalg.norm(a.directions.astype(float) - b.directions.astype(float), axis=1)
    angles = 2.0 * np.arcsin(np.minimum(chords / 2.0, 1.0))
    return max(angles.max(), np.abs(a.log_norm - b.log_norm).max())


def looks(method, steps):
    """Gradients by which "rkc" looks for stiffness where there is none: two before step 8, one before 16, 24, ..."""
    return steps // 8 + 1 if method == "rkc" and steps >= 8 else 0


def ratio(network):
    """V_j / ||w_j||."""
    return network.sign * np.exp(network.log_abs_v - network.log_norm)


# ---- an independent solution in raw coordinates


def raw_field(W, v, X, y, activation, p, loss):
    """-grad L in (W, v), vectorised; pReLU through cosines, so that nothing underflows."""
    if activation == "tanh":
        phi = np.tanh(X @ W.T)
        r = ref.residual(phi @ v, y, loss)
        return v[:, None] * ((r[:, None] * (1.0 - phi**2)).T @ X), r @ phi
    if activation == "polynomial":
        Z = X @ W.T
        phi = ref.relu_power(Z, p)
        r = ref.residual(phi @ v, y, loss)
        return v[:, None] * ((r[:, None] * ref.relu_slope(Z, p)).T @ X), r @ phi
    norms = np.linalg.norm(W, axis=1)
    U = W / norms[:, None]
    C = X @ U.T
    power = ref.relu_power(C, p)
    r = ref.residual(power @ (norms * v), y, loss)
    along = (p - 1.0) * (r @ power)
    return v[:, None] * ((r[:, None] * ref.relu_slope(C, p)).T @ X - along[:, None] * U), norms * (r @ power)


def solve(network, X, y, t, loss="squared", rtol=1e-11):
    """The network at time t by scipy's DOP853 in raw coordinates."""
    shape, W, v = network.directions.shape, network.W, network.v
    scale = max(np.abs(W).max(), np.abs(v).max())

    def field(_, theta):
        W, v = theta[: -len(v0)].reshape(shape), theta[-len(v0) :]
        return np.concatenate([part.ravel() for part in raw_field(W, v, X, y, network.activation, network.p, loss)])

    v0 = v
    start = np.concatenate([W.ravel(), v])
    found = solve_ivp(field, (0.0, t), start, method="DOP853", rtol=rtol, atol=1e-13 * scale, t_eval=[t])
    assert found.success
    theta = found.y[:, -1]
    return pf.TwoLayerNetwork(theta[: -len(v)].reshape(shape), theta[-len(v) :], network.activation, network.p)


@pytest.mark.parametrize(("activation", "p"), ref.KINDS)
@each_loss
def test_the_vectorised_field_is_the_oracles(problem, activation, p, loss):
    data = problem(n=15, h=4, D=3, seed=8)
    W, v = ref.loss_gradient(data.W, data.v, data.X, data.y, activation, p, loss)
    found = raw_field(data.W, data.v, data.X, data.y, activation, p, loss)
    np.testing.assert_allclose(found[0], -W, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found[1], -v, rtol=1e-11, atol=1e-13)


# ---- tableaus: rooted trees


def rooted_trees(order):
    """Every rooted tree of that order, as the sorted tuple of its subtrees."""
    if order == 1:
        return [()]
    found = set()
    for parts in partitions(order - 1, order - 1):
        for children in itertools.product(*(rooted_trees(part) for part in parts)):
            found.add(tuple(sorted(children)))
    return sorted(found)


def partitions(total, largest):
    if total == 0:
        yield ()
    for first in range(min(total, largest), 0, -1):
        for rest in partitions(total - first, first):
            yield (first, *rest)


TREES = {order: rooted_trees(order) for order in range(1, 10)}


def size(tree):
    return 1 + sum(size(child) for child in tree)


def density(tree):
    return size(tree) * math.prod(density(child) for child in tree)


def stage_weight(tree, A):
    """The elementary weight of every stage, shape (stages,)."""
    found = np.ones(len(A))
    for child in tree:
        found = found * (A @ stage_weight(child, A))
    return found


def stages(method):
    """A of all stages, the new state and those for dense output among them: square, strictly lower triangular."""
    rows = [[], *method["a"], method["b"], *method["more"]]
    A = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        assert len(row) <= i
        A[i, : len(row)] = row
    return A


def worst(weights, A, order, theta=1.0):
    """Largest violation of the conditions of exactly that order by sum_i weights_i K_i at share theta."""
    weights = np.pad(weights, (0, len(A) - len(weights)))
    return max(abs(weights @ stage_weight(tree, A) - theta**order / density(tree)) for tree in TREES[order])


def order_of(weights, A, theta=1.0):
    """The order of sum_i weights_i K_i at share theta: up to which every condition holds to rounding."""
    order = 0
    while worst(weights, A, order + 1, theta) < 1e-12:
        order += 1
    return order


def dense_weights(method, theta):
    P = np.array(method["dense"])
    return P @ theta ** np.arange(1, P.shape[1] + 1)


def test_there_are_as_many_rooted_trees_as_cayley_counted():
    assert [len(TREES[order]) for order in TREES] == [1, 1, 2, 4, 9, 20, 48, 115, 286]


@each_method
def test_a_method_has_the_order_it_states(method):
    method = METHODS[method]
    A = stages(method)
    assert order_of(method["b"], A) == method["order"]
    c = A.sum(axis=1)
    s = len(method["b"])
    assert c[0] == 0.0
    assert c[s] == pytest.approx(1.0, abs=1e-13)
    b = np.array(method["b"])
    for k in range(1, method["order"] + 1):
        assert b @ c[:s] ** (k - 1) == pytest.approx(1 / k, abs=1e-13)


@pytest.mark.parametrize(
    ("method", "c"),
    [
        ("rk4", [0, 1 / 2, 1 / 2, 1, 1]),
        ("bosh3", [0, 1 / 2, 3 / 4, 1]),
        ("dopri5", [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1]),
        ("tsit5", [0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1]),
        ("dop853", [0, 0.0526001519587677, 0.0789002279381516, 0.1183503419072274, 0.2816496580927726, 1 / 3, 1 / 4,
                    4 / 13, 127 / 195, 3 / 5, 6 / 7, 1, 1, 1 / 10, 1 / 5, 7 / 9]),
    ],
)  # fmt: skip
def test_the_nodes_are_the_published_ones(method, c):
    np.testing.assert_allclose(stages(METHODS[method]).sum(axis=1), c, rtol=0, atol=1e-13)


@each_adaptive
def test_an_error_estimate_is_the_difference_to_a_method_of_lower_order(method):
    method = METHODS[method]
    A = stages(method)
    b = np.pad(method["b"], (0, 1))
    orders = []
    for e in np.array(method["e"]):
        assert len(e) == len(b)
        assert abs(e.sum()) < 1e-14
        orders.append(order_of(b - e, A))
    if len(orders) == 1:  # of order q - 1, so that the estimate is of order h^q
        assert orders == [method["order"] - 1]
        assert method["control_order"] == orders[0] + 1
    else:  # of order 5 and 3: h^6 h^6 / h^4
        assert orders == [5, 3]
        assert method["control_order"] == 2 * (orders[0] + 1) - (orders[1] + 1)


@each_method
def test_dense_output_has_the_order_it_states(method):
    method = METHODS[method]
    A = stages(method)
    assert len(method["dense"]) == len(A)
    found = [order_of(dense_weights(method, theta), A, theta) for theta in (0.15, 0.5, 0.83)]
    assert min(found) == method["dense_order"]


@each_method
def test_dense_output_meets_both_ends_of_the_step_with_the_field_there(method):
    method = METHODS[method]
    P, s = np.array(method["dense"]), len(method["b"])
    b = np.pad(method["b"], (0, len(P) - s))
    np.testing.assert_allclose(P.sum(axis=1), b, rtol=0, atol=5e-13)
    np.testing.assert_array_equal(P[:, 0], np.eye(len(P))[0])  # the slope at 0 is K_0
    np.testing.assert_allclose(P @ np.arange(1, P.shape[1] + 1), np.eye(len(P))[s], rtol=0, atol=5e-12)


# ---- order as observed


def smooth_problem(activation="prelu", p=3.0, seed=0):
    """Everything positive: no cosine comes near the kink, the field is analytic along the flow."""
    rng = np.random.default_rng(seed)
    X, W = rng.uniform(0.2, 0.5, (6, 4)), rng.uniform(0.3, 1.0, (4, 4))
    v = rng.choice([-1.0, 1.0], 4) * rng.uniform(0.3, 0.6, 4)
    return pf.TwoLayerNetwork(W, v, activation, p), X, np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])


def one_step(network, X, y, loss, method, h, shares):
    """States at those shares of one step of length h, whatever its error."""
    form = TrainedForm.check(network, None, "both")
    stepper = core.Flow64(form.start(), X, y[:, None], None, loss, method, 0.0, 1e3, 1e9, h, 0.0, "both", 1)
    assert stepper.advance() == "ok"
    assert stepper.end == h
    found = []
    for share in shares:
        found.append(form.network(stepper.state(share * h)))
    return found


def difference(a, b):
    return max(np.abs(a.W - b.W).max(), np.abs(a.v - b.v).max())


SMOOTH = [("prelu", 3.0, "squared"), ("prelu", 2.5, "logistic"), ("polynomial", 2.0, "exponential")] + [
    ("tanh", 3.0, loss) for loss in ("squared", "logistic")
]
# Steps short enough for the leading term of the error to lead, long enough for it to be above rounding.
LENGTHS = {"euler": 0.004, "rk4": 0.015, "bosh3": 0.02, "flow43": 0.04, "dopri5": 0.05, "tsit5": 0.0342}
PACES = [1.0, 5.0, 0.5, 0.45, 3.4]
STEPS = [(name, *kind, pace * h) for name, h in LENGTHS.items() for kind, pace in zip(SMOOTH, PACES, strict=True)] + [
    ("dop853", "prelu", 3.0, "squared", 0.173),
    ("dop853", "polynomial", 2.0, "exponential", 0.08),
    ("dop853", "polynomial", 2.0, "logistic", 0.6),
    ("dop853", "tanh", 3.0, "squared", 0.09),
]


@pytest.mark.parametrize(("method", "activation", "p", "loss", "h"), STEPS)
def test_the_error_of_a_step_is_of_the_order_stated(method, activation, p, loss, h):
    network, X, y = smooth_problem(activation, p)
    at_end, inside = [], []
    for step in (h, h / 2):
        end, between = one_step(network, X, y, loss, method, step, (1.0, 0.3))
        at_end.append(difference(end, solve(network, X, y, step, loss, rtol=1e-13)))
        inside.append(difference(between, solve(network, X, y, 0.3 * step, loss, rtol=1e-13)))
    order, dense = (np.log2(errors[0] / errors[1]) - 1.0 for errors in (at_end, inside))
    assert min(at_end + inside) > 2e-15  # above rounding
    assert order == pytest.approx(METHODS[method]["order"], abs=0.3)
    assert dense > METHODS[method]["dense_order"] - 0.3


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
@pytest.mark.parametrize(("kind", "pace"), list(zip(SMOOTH, PACES, strict=True)))
def test_the_error_of_a_run_with_fixed_steps_is_of_the_methods_order(method, order, kind, pace):
    *activation, loss = kind
    network, X, y = smooth_problem(*activation)
    t1 = 0.5 * pace
    exact = solve(network, X, y, t1, loss)
    errors = []
    for steps in (20, 40) if order > 1 else (200, 400):
        run = flow(network, X, y, t1, loss=loss, method=method, step=t1 / steps)
        assert (run.status, run.stats["accepted"], run.stats["rejected"]) == ("finished", steps, 0)
        assert run.stats["gradients"] == 1 + steps * order
        errors.append(difference(run.network, exact))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


# ---- against scipy in raw coordinates

PARITY = [  # activation, p, kind of initialisation, scale, loss, time
    ("prelu", 3.0, "balanced", 1e-2, "squared", 20.0),
    ("prelu", 3.0, "balanced", 1e-6, "squared", 45.0),
    ("prelu", 3.0, "gaussian", 1e-4, "exponential", 60.0),
    ("prelu", 3.0, "gaussian", 1e-2, "logistic", 60.0),
    ("prelu", 2.5, "gaussian", 1e-2, "squared", 20.0),
    ("prelu", 2.5, "balanced", 1e-4, "logistic", 90.0),
    ("polynomial", 3.0, "gaussian", 0.3, "squared", 20.0),
    ("polynomial", 2.5, "gaussian", 0.3, "exponential", 30.0),
    ("tanh", 3.0, "gaussian", 1e-2, "squared", 20.0),
    ("tanh", 3.0, "gaussian", 0.3, "logistic", 30.0),
]


@pytest.mark.parametrize(("activation", "p", "kind", "scale", "loss", "t1"), PARITY)
@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_the_flow_is_scipys_in_raw_coordinates(method, activation, p, kind, scale, loss, t1):
    network, X, y, _ = mixture(n=30, D=6, h=5, scale=scale, kind=kind, activation=activation, p=p)
    run = flow(network, X, y, t1, loss=loss, method=method, rtol=1e-9)
    exact = solve(network, X, y, t1, loss)
    assert run.status == "finished"
    assert run["loss"][1] < 0.8 * run["loss"][0]  # well into fitting
    assert distance(run.network, exact) < 1e-6
    np.testing.assert_allclose(run.network.v, exact.v, rtol=1e-6, atol=1e-6 * np.abs(exact.v).max())
    np.testing.assert_array_equal(run.network.sign, exact.sign)
    expected = ref.losses(ref.forward(exact.W, exact.v, X, activation, p), y, loss).mean()
    np.testing.assert_allclose(run["loss"][1], expected, rtol=1e-5)


# ---- conservation


@each_loss
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
def test_balancedness_is_conserved_to_tolerance(activation, loss):
    network, X, y, _ = mixture(scale=0.3, kind="gaussian", activation=activation)
    kappa = network.p if activation == "polynomial" else 1.0
    drifts = []
    for rtol in (1e-5, 1e-9):
        end = flow(network, X, y, 40.0, loss=loss, rtol=rtol).network
        drifts.append(np.abs((end.norms**2 - kappa * end.v**2) - (network.norms**2 - kappa * network.v**2)).max())
    assert np.abs(end.norms**2 - network.norms**2).max() > 0.1
    assert drifts[0] < 1e-4
    assert drifts[1] < 1e-8


@each_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [0.1, 1e-7])
def test_a_balanced_network_stays_balanced_exactly(loss, dtype, scale):
    network, X, y, _ = mixture(scale=scale, dtype=dtype)
    end = flow(network, X, y, 60.0, loss=loss).network
    assert np.abs(end.log_norm - network.log_norm).max() > 1.0
    np.testing.assert_array_equal(end.log_abs_v, end.log_norm)
    np.testing.assert_array_equal(end.sign, network.sign)


# ---- the solutions known at alpha = 0 (section 5)


@each_loss
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("scale", [1e-100, 1e-300])
def test_a_neuron_with_one_positive_cosine_aligns_as_proposition_4_says(loss, sign, scale):
    gmm, t = pf.OrthonormalGMM(8, 3, 2, 0.0, centers="canonical"), 6.0 / SLOPE[loss]
    start = np.array([0.05, 0.2, 0.5])
    U = np.zeros((3, 8))
    U[:, 0 if sign > 0 else 4] = start
    U[:, 6] = np.sqrt(1 - start**2)
    run = flow(
        pf.TwoLayerNetwork(scale * U, np.full(3, sign * scale)), gmm.centers, gmm.labels, t, loss=loss, rtol=1e-9
    )
    c = run.network.directions @ gmm.centers[0 if sign > 0 else 4]
    assert c[1] > 2 * start[1]
    growth = (np.arctanh(c) - 1 / c) - (np.arctanh(start) - 1 / start)
    np.testing.assert_allclose(growth, 3 * SLOPE[loss] * t / gmm.clusters, rtol=1e-6)


@each_loss
@pytest.mark.parametrize("p", [3.0, 2.5])
def test_neurons_align_as_section_5_says_whatever_their_cosines(loss, p):
    gmm, t = pf.OrthonormalGMM(9, 3, 2, 0.0, rng=3), 8.0 / SLOPE[loss]
    network = pf.initialize(10, 9, 1e-100, p=p, dtype="float64", rng=4)
    start = network.directions @ gmm.centers.T
    rate = SLOPE[loss] * p / gmm.clusters * network.sign[:, None]

    def field(_, flat):
        c = flat.reshape(start.shape)
        own = gmm.labels * ref.relu_power(c, p - 1.0)
        return (rate * (own - c * (gmm.labels * ref.relu_power(c, p)).sum(axis=1, keepdims=True))).ravel()

    expected = solve_ivp(field, (0.0, t), start.ravel(), method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    run = flow(network, gmm.centers, gmm.labels, t, loss=loss, rtol=1e-9)
    found = run.network.directions @ gmm.centers.T
    assert np.abs(found - start).max() > 0.3
    np.testing.assert_allclose(found, expected.reshape(start.shape), rtol=0, atol=1e-6)


def settled(Z0, t, K, loss):
    """Z_k at time t by section 5's equations."""
    if loss == "squared":
        return 1 / (1 + (1 / Z0 - 1) * np.exp(-4 * t / K))
    field = {"exponential": lambda _, Z: 2 / K * Z * np.exp(-Z), "logistic": lambda _, Z: 2 / K * Z / (1 + np.exp(Z))}
    return solve_ivp(field[loss], (0.0, t), Z0, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]


@each_loss
@pytest.mark.parametrize("p", [1.0, 2.7, 3.0])
def test_aligned_neurons_grow_as_equation_14_says(loss, p):
    gmm, t = pf.OrthonormalGMM(7, 3, 2, 0.0, centers="canonical"), 12.0
    cluster = np.array([0, 0, 1, 2, 3, 4, 4, 4])
    a = np.array([1e-7, 1e-3, 0.01, 1.3, 0.2, 0.1, 1e-12, 0.4])  # ||w_j||^2
    weights = np.sqrt(a)
    network = pf.TwoLayerNetwork(weights[:, None] * gmm.centers[cluster], weights * gmm.labels[cluster], p=p)
    end = flow(network, gmm.centers, gmm.labels, t, loss=loss, rtol=1e-9).network
    Z0, Z = (np.bincount(cluster, weights=squares) for squares in (a, end.norms**2))
    np.testing.assert_allclose(Z, settled(Z0, t, gmm.clusters, loss), rtol=1e-6)
    if loss == "exponential":
        np.testing.assert_allclose(expi(Z) - expi(Z0), 2 * t / gmm.clusters, rtol=1e-6)
    np.testing.assert_allclose(end.directions, gmm.centers[cluster], rtol=0, atol=1e-15)
    np.testing.assert_allclose(end.norms**2 / a, (Z / Z0)[cluster], rtol=1e-6)  # a cluster grows as one


# ---- no scale is small


@each_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_while_outputs_vanish_the_scale_does_not_matter(loss, dtype):
    ends = []
    t1 = 12.0 / SLOPE[loss]
    for scale in (1e-7, 1e-300):
        network, X, y, _ = mixture(scale=scale, dtype=dtype)
        run = flow(network, X, y, t1, loss=loss, rtol=1e-6, observe=pf.Observe(what=["loss", "margin"]))
        f = run.network.decision_function(X)
        assert np.abs(f).max() < 1e-9
        assert run.status == "finished"
        ends.append((network, run, np.abs(f).max()))
    (a, run_a, f), (b, run_b, _) = ends
    assert np.abs(run_a.network.directions - a.directions).max() > 0.3
    tolerance = 1e-12 + 100 * f
    np.testing.assert_allclose(run_a.network.directions, run_b.network.directions, rtol=0, atol=tolerance)
    growth_a, growth_b = run_a.network.log_norm - a.log_norm, run_b.network.log_norm - b.log_norm
    np.testing.assert_allclose(growth_a, growth_b, rtol=0, atol=tolerance)
    assert run_a.stats["gradients"] == run_b.stats["gradients"]


@pytest.mark.parametrize("scale", [1e-12, 1e-100, 1e-300])
def test_a_small_scale_only_delays_the_end(scale):
    # Aligned neurons of scale epsilon take log(1/epsilon) more; at the end the clusters are fitted all the same.
    gmm = pf.OrthonormalGMM(8, 2, 2, 0.0, rng=0)
    network = pf.initialize(12, 8, scale, nudge=0.5, centers=gmm, dtype="float64", rng=1)
    t1 = 5.0 * np.log(1 / scale)
    run = flow(network, gmm.centers, gmm.labels, t1, observe=pf.Observe(what=["loss"]))
    assert run.status == "finished"
    assert run["loss"][0] == pytest.approx(1.0, abs=1e-12)
    assert run["loss"][1] < 1e-6


# ---- threads and memory


@each_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_threads(method, dtype):
    # 4 n D h = 4e7: enough for a team of threads.
    network, X, y, gmm = mixture(n=2000, D=50, h=101, dtype=dtype)
    options = {"step": 0.2} if method in ("euler", "rk4") else {}
    observe = pf.Observe(every=0.7, gmm=gmm, what=["loss", "accuracy", "alignment"])
    runs = [
        flow(network, X, y, 2.0, method=method, observe=observe, num_threads=threads, **options)
        for threads in (1, 2, 3)
    ]
    assert runs[0].stats["accepted"] >= 2
    for run in runs[1:]:
        assert_same_runs(runs[0], run)


def test_a_memmap_is_used_without_a_copy(tmp_path):
    network, X, y, _ = mixture(n=9000)
    expected = flow(network, X, y, 3.0, observe=pf.Observe(every=1.0))
    stored = np.memmap(tmp_path / "X", dtype=np.float64, mode="w+", shape=X.shape)
    stored[...] = X
    stored.flush()
    readonly = np.memmap(tmp_path / "X", dtype=np.float64, mode="r", shape=X.shape)
    seen = []
    run = flow(network, readonly, y, 3.0, observe=pf.Observe(what=["loss", lambda at: seen.append(at.X) or 0.0]))
    assert all(np.shares_memory(X_seen, readonly) for X_seen in seen)
    assert_same_networks(run.network, expected.network)
    assert_same_runs(expected, flow(network, readonly, y, 3.0, observe=pf.Observe(every=1.0)))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_labels_of_any_real_dtype_and_data_in_any_order(dtype):
    network, X, y, _ = mixture()
    expected = flow(network, X, y, 3.0)
    assert_same_runs(expected, flow(network, np.asfortranarray(X), y.astype(dtype), 3.0))
    assert_same_runs(expected, flow(network, X, y.astype(int).tolist(), 3.0))


def test_the_starting_network_and_the_data_are_left_alone():
    network, X, y, _ = mixture()
    before = network.W.copy(), network.v.copy(), X.copy(), y.copy()
    flow(network, X, y, 3.0)
    for was, now in zip(before, (network.W, network.v, X, y), strict=True):
        np.testing.assert_array_equal(was, now)


# ---- stops


def test_times_asked_for_are_the_times_observed():
    network, X, y, _ = mixture()
    at = np.geomspace(0.01, 9.0, 13).tolist()
    run = flow(network, X, y, 10.0, observe=pf.Observe(every=2.5, at=at))
    expected = sorted({0.0, 2.5, 5.0, 7.5, 10.0, *at})
    np.testing.assert_array_equal(run.t, expected)
    assert_whole(run)
    assert run.iterations[0] == 0
    assert (np.diff(run.iterations) >= 0).all()
    assert run.iterations[-1] == run.stats["accepted"]
    assert run.stats["t"] == 10.0
    assert (np.diff(run["loss"]) < 0).all()


@pytest.mark.parametrize(
    ("every", "t0", "t1"), [(0.1, 0.0, 0.3), (0.1, 0.3, 0.6), (0.411, 0.0, 4.932), (0.7, 0.0, 2.1)]
)
def test_no_two_stops_are_the_same_but_for_rounding(every, t0, t1):
    times = pf.Observe(every=every).times(t0, t1)
    assert (times[0], times[-1]) == (t0, t1)
    np.testing.assert_allclose(np.diff(times), every, rtol=1e-9)


@each_method
@pytest.mark.parametrize("activation", ["prelu", "polynomial", "tanh"])
def test_states_between_steps_are_as_accurate_as_the_steps(method, activation):
    network, X, y, _ = mixture(scale=0.3, kind="gaussian", activation=activation, n=20, D=6, h=4)
    seen, at = [], [0.37, 1.1, 2.03, 3.3, 4.9]

    def keep(snapshot):
        seen.append(snapshot.network)
        return 0.0

    options = {"euler": {"step": 1e-3}, "rk4": {"step": 0.05}}.get(method, {"rtol": 1e-7})
    run = flow(network, X, y, 5.0, method=method, observe=pf.Observe(at=at, what=["loss", keep]), **options)
    errors = [difference(net, solve(network, X, y, t)) for net, t in zip(seen[1:], run.t[1:], strict=True)]
    assert difference(seen[0], network) < 1e-15
    assert max(errors) < (1e-3 if method == "euler" else 2e-6)
    expected = [ref.mean_loss(net.W, net.v, X, y, activation, 3.0, "squared") for net in seen]
    np.testing.assert_allclose(run["loss"], expected, rtol=1e-9)


@each_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stops_do_not_change_the_steps(method, dtype):
    network, X, y, gmm = mixture(dtype=dtype)
    options = {"step": 0.3} if method in ("euler", "rk4") else {}
    plain = flow(network, X, y, 20.0, method=method, **options)
    observe = pf.Observe(every=0.17, gmm=gmm, what=["loss", "accuracy", "alignment"])
    events = [pf.events.loss_below(0.5), pf.events.aligned(0.1)]
    busy = flow(network, X, y, 20.0, method=method, observe=observe, events=events, **options)
    assert len(busy.t) > 100
    assert_same_networks(plain.network, busy.network)
    for name in ("accepted", "rejected", "next_step", "t"):
        assert plain.stats[name] == busy.stats[name]
    np.testing.assert_array_equal(plain["loss"], busy["loss"][[0, -1]])


@each_method
@pytest.mark.parametrize("chosen", [False, True])
def test_gradients_and_forwards_are_counted_as_they_are_made(method, chosen):
    network, X, y, _ = mixture(scale=1e-4)
    fixed = method in ("euler", "rk4")
    options = {"step": 0.3} if fixed or chosen else {}
    at = np.linspace(0.05, 29.9, 40)
    run = flow(network, X, y, 30.0, method=method, observe=pf.Observe(at=at), **options)
    s, more = len(METHODS[method]["b"]), len(METHODS[method]["more"])
    inside = run.iterations[1:-1]
    taken = s * (run.stats["accepted"] + run.stats["rejected"]) + more * len(set(inside))
    taken += looks(method, run.stats["accepted"])
    assert run.stats["gradients"] == 1 + (not (fixed or chosen)) + taken
    assert run.stats["forwards"] == len(at)
    assert run.stats["iterations"] == run.stats["accepted"]
    without = flow(network, X, y, 30.0, method=method, observe=pf.Observe(at=at, what=["margin"]), **options)
    assert without.stats["forwards"] == len(at)
    nothing = flow(network, X, y, 30.0, method=method, observe=pf.Observe(at=at, what=["norms"]), **options)
    assert nothing.stats["forwards"] == 0


def test_the_last_fixed_step_is_cut_at_the_end():
    network, X, y, _ = mixture()
    for t1, steps in ((0.1, 1), (0.7, 3), (0.75, 3), (0.76, 4)):
        run = flow(network, X, y, t1, method="rk4", step=0.25)
        assert (run.stats["accepted"], run.stats["t"], run.stats["next_step"]) == (steps, t1, 0.25)
        assert distance(run.network, flow(network, X, y, t1, rtol=1e-8).network) < 1e-4


def test_the_first_step_is_the_one_given():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 3.0, step=0.01, max_steps=1)
    assert run.stats["t"] == 0.01


def test_a_rejected_step_is_counted():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 30.0, step=30.0)  # far too long a first step
    assert run.stats["rejected"] >= 1
    assert run.stats["gradients"] == 1 + 6 * (run.stats["accepted"] + run.stats["rejected"])
    tight = flow(network, X, y, 30.0, rtol=1e-9)
    assert distance(run.network, tight.network) < 2e-2


# ---- going on


@each_adaptive
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_goes_on_where_it_ended(method, dtype, tmp_path):
    network, X, y, _ = mixture(dtype=dtype)
    options = {"method": method, "rtol": 1e-4, "loss": "logistic"}
    whole = flow(network, X, y, 40.0, **options)
    first = flow(network, X, y, 17.3, **options)
    second = flow(first, X, y, 40.0, observe=pf.Observe(at=[20.0]), **options)
    assert first.stats["t"] == 17.3
    assert second.stats["t"] == 40.0
    np.testing.assert_array_equal(second.t, [17.3, 20.0, 40.0])
    assert distance(whole.network, first.network) > 0.1
    assert distance(whole.network, second.network) < 1e-3
    assert second["loss"][0] == pytest.approx(first["loss"][-1], rel=1e-6)
    s = len(METHODS[method]["b"])
    taken = s * (second.stats["accepted"] + second.stats["rejected"]) + len(METHODS[method]["more"])
    taken += looks(method, second.stats["accepted"])
    assert second.stats["gradients"] == 1 + taken  # no first step is looked for
    first.save(tmp_path / "first.npz")
    again = flow(pf.Run.load(tmp_path / "first.npz"), X, y, 40.0, observe=pf.Observe(at=[20.0]), **options)
    assert_same_runs(second, again)


def test_fixed_steps_go_on_as_if_they_had_never_stopped():
    network, X, y, _ = mixture()
    whole = flow(network, X, y, 8.0, method="rk4", step=0.25)
    first = flow(network, X, y, 3.0, method="rk4", step=0.25)
    second = flow(first, X, y, 8.0, method="rk4", step=0.25)
    assert (whole.stats["accepted"], first.stats["accepted"], second.stats["accepted"]) == (32, 12, 20)
    assert difference(whole.network, second.network) < 1e-12


def test_a_run_that_gave_up_goes_on():
    network, X, y, _ = mixture()
    whole, run = flow(network, X, y, 30.0, rtol=1e-6), flow(network, X, y, 30.0, rtol=1e-6, max_steps=7)
    parts = 1
    while run.status == "max_steps":
        run = flow(run, X, y, 30.0, rtol=1e-6, max_steps=7)
        parts += 1
    assert run.status == "finished"
    assert parts > 3
    assert run.stats["t"] == 30.0
    assert distance(run.network, whole.network) < 1e-4


# ---- accuracy


@pytest.fixture(scope="module")
def learning():
    """Five problems through both phases, each with its solution to 1e-10."""
    found = []
    for seed in range(5):
        gmm = pf.OrthonormalGMM(40, 2, 2, 0.1, rng=seed)
        data = gmm.sample(200, balanced=True, dtype="float64", rng=seed + 10)
        network = pf.initialize(30, 40, 1e-5, dtype="float64", rng=seed + 20)
        tight = flow(network, data.X, data.y, 50.0, rtol=1e-10, method="dop853")
        found.append((network, data.X, data.y, tight))
    return found


@each_adaptive
def test_the_end_is_as_accurate_as_asked(learning, method):
    errors = {}
    for rtol in (1e-2, 1e-3, 1e-5):
        errors[rtol] = []
        for network, X, y, tight in learning:
            run = flow(network, X, y, 50.0, rtol=rtol, method=method)
            errors[rtol].append(distance(run.network, tight.network))
            assert tight["loss"][-1] < 0.05 * tight["loss"][0]  # past convergence
    for rtol, found in errors.items():
        assert max(found) <= 20 * rtol
    for coarse, middle, fine in zip(*errors.values(), strict=True):
        assert coarse > middle > fine
        assert coarse > 100 * fine


def test_float32_follows_float64(learning):
    for network, X, y, tight in learning:
        run = flow(network.astype("float32"), X.astype(np.float32), y, 50.0, rtol=1e-6)
        assert run.network.dtype == np.float32
        assert distance(run.network, tight.network) < 1e-3


# ---- the late phase of exponential and logistic loss


@pytest.mark.parametrize("loss", ["exponential", "logistic"])
def test_a_long_time_is_reached_in_few_steps(loss):
    network, X, y, _ = mixture(scale=0.1, seed=5)
    at = np.geomspace(1.0, 1e6, 61)[:-1]
    observe = pf.Observe(at=at, what=["loss", "accuracy", "normalized_margin"])
    run = flow(network, X, y, 1e6, loss=loss, observe=observe)
    late = run.t >= 0.99e4
    slope = np.polyfit(np.log(run.t[late]), np.log(run["loss"][late]), 1)[0]
    margins = run["normalized_margin"][late]
    assert run.status == "finished"
    assert run.stats["gradients"] < 1500
    assert (np.diff(run["loss"]) < 0).all()
    assert -1.3 < slope < -0.7
    assert run["accuracy"][-1] == 1.0
    assert np.diff(margins).min() > -1e-3 * margins[-1]
    assert margins[-1] > 0


# ---- kinks, and neurons without a weight


@pytest.mark.parametrize("p", [1.0, 1.2])
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
def test_degrees_near_1_converge_as_the_tolerance_falls(activation, p):
    # At p = 1 neurons slide along the kinks of the field, in steps of about rtol.
    network, X, y, _ = mixture(scale=0.2, activation=activation, p=p, n=20, D=6, h=4)
    tight = flow(network, X, y, 6.0, rtol=1e-6)
    assert tight.status == "finished"
    assert tight["loss"][-1] < 0.8 * tight["loss"][0]
    errors = []
    for rtol in (1e-2, 1e-5):
        run = flow(network, X, y, 6.0, rtol=rtol)
        assert run.status == "finished"
        errors.append(distance(run.network, tight.network))
    assert errors[1] < errors[0] / 20
    assert errors[1] < 1e-3


@each_adaptive
@pytest.mark.parametrize("p", [1.5, 2.0])
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
def test_degrees_1_5_and_2_converge_to_scipys_solution(activation, p, method):
    network, X, y, _ = mixture(scale=0.2, activation=activation, p=p, n=20, D=6, h=4)
    exact = solve(network, X, y, 6.0, rtol=1e-9)
    errors = []
    for rtol in (1e-2, 1e-8):
        run = flow(network, X, y, 6.0, rtol=rtol, method=method)
        assert run.status == "finished"
        errors.append(distance(run.network, exact))
    assert distance(network, exact) > 0.3
    assert errors[1] < errors[0] / 50
    assert errors[1] < 1e-4


@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
@pytest.mark.parametrize("p", [1.0, 3.0])
def test_dead_neurons_stay_dead_exactly_and_do_not_disturb(activation, p):
    network, X, y, _ = mixture(activation=activation, p=p, h=6)
    W, v = network.W.copy(), network.v.copy()
    W[2], W[5], v[5] = 0.0, 0.0, 0.0
    run = flow(pf.TwoLayerNetwork(W, v, activation, p), X, y, 5.0, observe=pf.Observe(every=1.3))
    np.testing.assert_array_equal(run.network.W[[2, 5]], 0.0)
    np.testing.assert_array_equal(run.network.log_norm[[2, 5]], -np.inf)
    np.testing.assert_allclose(run.network.v[[2, 5]], v[[2, 5]], rtol=1e-15)
    alive = [0, 1, 3, 4]
    without = flow(pf.TwoLayerNetwork(W[alive], v[alive], activation, p), X, y, 5.0)
    np.testing.assert_allclose(run.network.W[alive], without.network.W, rtol=0, atol=1e-12)
    assert np.abs(without.network.W - W[alive]).max() > 0.1


def test_a_network_of_dead_neurons_goes_nowhere():
    _, X, y, _ = mixture()
    run = flow(pf.TwoLayerNetwork(np.zeros((3, 12)), [1.0, 0.0, -2.0]), X, y, 1e3)
    assert run.status == "finished"
    assert run.stats["accepted"] <= 3
    np.testing.assert_array_equal(run["loss"], 1.0)
    np.testing.assert_allclose(run.network.v, [1.0, 0.0, -2.0], rtol=1e-15)


@pytest.mark.parametrize(("activation", "p"), [("prelu", 3.0), ("prelu", 2.0), ("polynomial", 3.0), ("tanh", 3.0)])
def test_a_neuron_without_an_output_weight_gets_one(activation, p):
    network, X, y, _ = mixture(n=20, D=6, h=4, scale=0.3, kind="gaussian", activation=activation, p=p)
    v = network.v.copy()
    v[1] = 0.0
    network = pf.TwoLayerNetwork(network.W, v, activation, p)
    assert network.sign[1] == 0.0
    run = flow(network, X, y, 4.0, rtol=1e-9)
    exact = solve(network, X, y, 4.0)
    assert np.abs(exact.v[1]) > 1e-2
    np.testing.assert_allclose(run.network.v, exact.v, rtol=0, atol=1e-7)
    np.testing.assert_allclose(run.network.W, exact.W, rtol=0, atol=1e-7)


def test_a_tanh_neuron_without_input_weights_gets_them():
    _, X, y, _ = mixture(n=20, D=6)
    W, v = np.array([[0.0] * 6, [0.3, 0.1, -0.2, 0.1, 0.0, 0.3]]), np.array([0.4, -0.2])
    # Scipy's solution needs no norm of W here.
    network = pf.TwoLayerNetwork(W, v, "tanh")
    run, exact = flow(network, X, y, 4.0, rtol=1e-9), solve(network, X, y, 4.0)
    assert np.linalg.norm(exact.W[0]) > 0.1
    np.testing.assert_allclose(run.network.W, exact.W, rtol=0, atol=1e-7)
    np.testing.assert_allclose(run.network.v, exact.v, rtol=0, atol=1e-7)


# ---- progress and what is written down


def test_progress_changes_nothing_but_what_is_shown(capsys):
    network, X, y, _ = mixture()
    options = {"observe": pf.Observe(every=1.5), "events": [pf.events.loss_below(0.5, terminal=True)]}
    shown, plain = flow(network, X, y, 30.0, progress=True, **options), flow(network, X, y, 30.0, **options)
    assert_same_runs(shown, plain)
    assert "30.0" in capsys.readouterr().err


def test_the_config_says_what_decides_the_numbers(tmp_path):
    network, X, y, _ = mixture()
    flow(network, X, y, 3.0, loss="logistic", method="rk4", step=0.5, max_steps=99, num_threads=1).save(tmp_path / "r")
    found = pf.Run.load(tmp_path / "r").config
    expected = {
        "method": "rk4",
        "step": 0.5,
        "t0": 0.0,
        "t1": 3.0,
        "max_steps": 99,
        "loss": "logistic",
        "num_threads": 1,
    }
    expected |= {"n": 60, "dim": 12, "width": 8, "activation": "prelu", "p": 3.0, "dtype": "float64", "rtol": 1e-3}
    assert found == expected


# ---- how a run ends


def assert_consistent(run):
    """Whatever happened, what is kept is whole: records, a finite network, and the time it stands at."""
    assert_whole(run)
    assert np.isfinite(run.network.log_norm).all()
    assert np.isfinite(run.network.directions).all()
    assert np.isfinite(run.network.v).all()
    assert run.config["t0"] <= run.stats["t"] <= run.config["t1"]
    assert len(run.t) == 0 or run.t[-1] <= run.stats["t"]
    assert run.message


def test_finished():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 5.0)
    assert run.status == "finished"
    assert "5" in run.message
    np.testing.assert_array_equal(run.t, [0.0, 5.0])
    assert run.stats["t"] == 5.0
    assert_consistent(run)


@each_method
def test_no_time_is_a_run_of_one_stop(method):
    network, X, y, _ = mixture()
    run = flow(network, X, y, 0.0, method=method, step=0.1)
    assert run.status == "finished"
    np.testing.assert_array_equal(run.t, [0.0])
    assert (run.stats["accepted"], run.stats["gradients"]) == (0, 1)
    assert difference(run.network, network) < 1e-15
    later = flow(flow(network, X, y, 1.5, method=method, step=0.1), X, y, 1.5, method=method, step=0.1)
    assert later.status == "finished"
    np.testing.assert_array_equal(later.t, [1.5])


def test_max_steps():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 30.0, max_steps=4, observe=pf.Observe(every=0.1))
    assert run.status == "max_steps"
    assert run.stats["accepted"] == 4
    assert run.t[-1] == run.stats["t"] < 30.0
    assert_consistent(run)
    reached = flow(network, X, y, run.stats["t"])
    assert distance(run.network, reached.network) < 1e-12
    complete = flow(network, X, y, 30.0)
    exactly = flow(network, X, y, 30.0, max_steps=complete.stats["accepted"])
    assert exactly.status == "finished"


@pytest.mark.parametrize(
    ("dtype", "loss"), [("float32", "exponential"), ("float64", "exponential"), ("float32", "squared")]
)
def test_a_huge_fixed_step_is_not_finite(dtype, loss):
    network, X, y, _ = mixture(dtype=dtype, alpha=1.0)
    run = flow(network, X, -y, 1e9, loss=loss, method="euler", step=1e6, observe=pf.Observe(every=1e6))
    assert run.status == "not_finite"
    assert_consistent(run)
    assert np.isfinite(run["loss"]).all()


def test_a_field_that_is_not_finite_at_the_start_is_said_so():
    network = pf.TwoLayerNetwork([[1e3, 0.0]], [-1e3])
    run = flow(network, np.array([[1.0, 0.0]]), [1.0], 1.0, loss="exponential")
    assert run.status == "not_finite"
    assert run.stats["t"] == 0.0
    assert_same_networks(run.network, network)


def test_a_step_that_time_cannot_resolve_is_too_small():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 1.0)
    late = dataclasses.replace(run, stats={**run.stats, "t": 1e17})
    again = flow(late, X, y, 2e17)
    assert again.status == "step_too_small"
    assert again.stats["t"] == 1e17
    assert_consistent(again)
    assert difference(again.network, run.network) < 1e-15


def at_time(t, action):
    def observer(snapshot):
        if snapshot.t >= t:
            action()
        return snapshot.loss

    return observer


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("t", [0.0, 2.0, 5.0])
def test_ctrl_c_in_an_observer_keeps_what_was_done(t):
    network, X, y, gmm = mixture()
    what = ["loss", at_time(t, ctrl_c), "alignment"]
    run = flow(network, X, y, 5.0, observe=pf.Observe(every=1.0, what=what, gmm=gmm))
    assert run.status == "interrupted"
    np.testing.assert_array_equal(run.t, np.arange(t))
    assert run.stats["t"] == t
    assert_consistent(run)
    assert distance(run.network, flow(network, X, y, t, rtol=1e-8).network) < 1e-2
    resumed = flow(run, X, y, 5.0, rtol=1e-8)
    assert distance(resumed.network, flow(network, X, y, 5.0, rtol=1e-8).network) < 1e-2


def test_ctrl_c_between_stops_keeps_what_was_done():
    network, X, y, _ = mixture(n=500, dtype="float32")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    run = flow(network, X, y, 1e3, method="euler", step=1e-4, max_steps=10**8, num_threads=1)
    timer.join()
    assert run.status == "interrupted"
    assert 0.0 < run.stats["t"] < 1e3
    np.testing.assert_array_equal(run.t, [0.0])
    assert_consistent(run)
    assert run.stats["t"] == pytest.approx(1e-4 * run.stats["accepted"], rel=1e-2, abs=2e-4)
    reached = flow(network, X, y, run.stats["t"], rtol=1e-6)
    assert distance(run.network, reached.network) < 1e-2


def test_an_observer_that_fails_later_ends_the_run():
    network, X, y, _ = mixture()

    def fail():
        raise ZeroDivisionError("no luck")

    run = flow(network, X, y, 5.0, observe=pf.Observe(every=1.0, what=["loss", at_time(2.0, fail)]))
    assert run.status == "observer_failed"
    assert "ZeroDivisionError: no luck" in run.message
    np.testing.assert_array_equal(run.t, [0.0, 1.0])
    assert run.stats["t"] == 2.0
    assert_consistent(run)
    with pytest.raises(ZeroDivisionError, match="no luck"):
        flow(network, X, y, 5.0, observe=pf.Observe(what=[at_time(0.0, fail)]))


# ---- what goes in

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"t1": -1.0}, ValueError, "t1"),
        ({"t1": NAN}, ValueError, "t1"),
        ({"t1": INF}, ValueError, "t1"),
        ({"t1": "1"}, TypeError, "t1"),
        ({"t1": None}, TypeError, "t1"),
        ({"rtol": 1e-14}, ValueError, "rtol"),
        ({"rtol": 0.0}, ValueError, "rtol"),
        ({"rtol": NAN}, ValueError, "rtol"),
        ({"rtol": "fine"}, TypeError, "rtol"),
        ({"loss": "hinge"}, ValueError, "loss"),
        ({"method": "rk45"}, ValueError, "method"),
        ({"method": "rk4"}, ValueError, "step"),
        ({"method": "euler"}, ValueError, "step"),
        ({"method": "rk4", "step": 0.0}, ValueError, "step"),
        ({"step": -0.1}, ValueError, "step"),
        ({"step": NAN}, ValueError, "step"),
        ({"step": True}, TypeError, "step"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"max_steps": 2.5}, TypeError, "max_steps"),
        ({"num_threads": 0}, ValueError, "num_threads"),
        ({"events": ["loss_below"]}, TypeError, "events"),
        ({"events": [pf.events.loss_below(0.5), pf.events.loss_below(0.5)]}, ValueError, "events"),
        ({"events": [pf.events.aligned(0.1)]}, ValueError, "gmm"),
        ({"observe": "loss"}, TypeError, "observe"),
        ({"observe": pf.Observe(at=[1.5])}, ValueError, "at"),
    ],
)
def test_bad_input_is_refused_by_name(options, error, named):
    network, X, y, _ = mixture()
    with pytest.raises(error, match=rf"\b{named}\b"):
        pf.gradient_flow(network, X, y, **{"t1": 1.0, **options})


@pytest.mark.parametrize("stop", [-0.5, NAN])
def test_stops_that_no_flow_has_are_refused_when_asked_for(stop):
    with pytest.raises(ValueError, match=r"\bat\b"):
        pf.Observe(at=[stop])


def test_float32_cannot_be_asked_for_more_than_it_holds():
    network, X, y, _ = mixture(dtype="float32")
    with pytest.raises(ValueError, match="rtol must be at least 1e-06"):
        flow(network, X, y, 1.0, rtol=1e-7)
    assert flow(network, X, y, 1.0, rtol=1e-6).status == "finished"


def test_bad_data_is_refused_by_name():
    network, X, y, _ = mixture()
    with pytest.raises(TypeError, match="X has dtype float32"):
        flow(network, X.astype(np.float32), y, 1.0)
    with pytest.raises(ValueError, match="X must have shape"):
        flow(network, X[:, :-1], y, 1.0)
    with pytest.raises(ValueError, match="y must have shape"):
        flow(network, X, y[:-1], 1.0)
    with pytest.raises(ValueError, match="y must hold the labels"):
        flow(network, X, np.zeros_like(y), 1.0, loss="logistic")
    with pytest.raises(TypeError, match="network must be a TwoLayerNetwork"):
        flow(network.W, X, y, 1.0)


def test_only_a_flow_is_continued_and_only_forward():
    network, X, y, _ = mixture()
    descent = pf.gradient_descent(network, X, y, step=0.1, steps=3)
    with pytest.raises(
        ValueError, match="network must be a network or a run of gradient_flow, got a run of gradient_descent"
    ):
        flow(descent, X, y, 1.0)
    run = flow(network, X, y, 2.0)
    with pytest.raises(ValueError, match="t1 must be at least 2"):
        flow(run, X, y, 1.0)
    with pytest.raises(ValueError, match="at must be at least 2"):
        flow(run, X, y, 3.0, observe=pf.Observe(at=[1.0]))


# ---- data of another length


def digits(n=40, size=4, seed=0):
    """Raw pictures of size x size, 0 to 16, of two classes."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    shape = rng.integers(0, 17, (2, size * size))
    return np.clip(shape[(y > 0).astype(int)] + rng.integers(-3, 4, (n, size * size)), 0, 16).astype(float), y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_flow_that_gives_up_on_unscaled_data_says_so_once(dtype):
    X, y = digits()
    X = X.astype(dtype)
    network = pf.initialize(6, X.shape[1], 0.1, dtype=dtype, rng=0)
    length = np.median(np.linalg.norm(X, axis=1))
    with pytest.warns(RuntimeWarning, match="unscaled") as caught:
        run = pf.gradient_flow(network, X, y, t1=100.0, max_steps=20)
    assert run.status == "max_steps"
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert f"X / {length:.3g}" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The cure is one, and neither ordinary data nor a flow that reaches its end are warned of.
        scaled = (X / length).astype(dtype)
        assert pf.gradient_flow(network, scaled, y, t1=20.0, max_steps=400).status == "finished"
        assert pf.gradient_flow(network, scaled, y, t1=20.0, max_steps=2).status == "max_steps"
        assert pf.gradient_flow(network, X, y, t1=1e-9).status == "finished"
