"""Attacks: known answers, no false claims, never below the certificate, parity with torch and foolbox."""

import numpy as np
import pytest
from conftest import Wells

import preluflow as pf
from preluflow import _scores, _searches, attacks

BALL = {
    "fgsm": attacks.fgsm,
    "pgd": lambda *a, **k: attacks.pgd(*a, **{"steps": 300, **k}),
    "pgd-margin": lambda *a, **k: attacks.pgd(*a, **{"steps": 100, "objective": "margin", **k}),
    "apgd": attacks.apgd,
}
MINIMAL = {
    "ddn": lambda *a, **k: attacks.ddn(*a, **{"steps": 300, **k}),
    "fmn": lambda *a, **k: attacks.fmn(*a, **{"steps": 300, **k}),
    "minimal_norm": lambda *a, **k: attacks.minimal_norm(*a, **{"ddn_steps": 50, **k}),
}


class Linear:
    """f = <w,x> + b, by the protocol and nothing else."""

    def __init__(self, w, b):
        self.w, self.b = np.asarray(w, dtype=float), b

    def decision_function(self, X):
        return X @ self.w + self.b

    def input_gradient(self, X):
        return np.tile(self.w, (len(X), 1))


class Flat:
    """f = 1 everywhere: no gradient, and nothing to find."""

    def decision_function(self, X):
        return np.ones(len(X))

    def input_gradient(self, X):
        return np.zeros_like(X)


class Hidden:
    """A network of which the attacks see the protocol only."""

    def __init__(self, network):
        network = network.astype("float64")
        self.decision_function, self.input_gradient = network.decision_function, network.input_gradient


def sign_margins(network, X, y, delta):
    """Return y f at X + delta for a two-layer network of any scale, in float64."""
    return y * network.rescaled()[0].astype("float64").decision_function(X.astype("float64") + delta)


def run_all(classifier, X, y, eps, centers=None, labels=None):
    """Name, result and largest norm allowed of every attack."""
    for name, attack in BALL.items():
        yield name, attack(classifier, X, y, eps=eps), eps
    for name, attack in MINIMAL.items():
        yield name, attack(classifier, X, y), np.inf
    if centers is not None:
        given = {"centers": centers, "center_labels": labels}
        yield "swap", attacks.swap(classifier, X, y, **given), np.inf
        yield "minimal_norm with centres", attacks.minimal_norm(classifier, X, y, ddn_steps=50, **given), np.inf


@pytest.fixture(scope="module")
def linear():
    """A linear classifier, points of which the first five are wrong, and labels."""
    rng = np.random.default_rng(0)
    classifier = Linear(rng.standard_normal(30), 0.3)
    X = rng.standard_normal((80, 30))
    y = np.where(classifier.decision_function(X) > 0, 1, -1)
    y[:5] *= -1
    return classifier, X, y


@pytest.fixture(scope="module")
def trained():
    """A small net learned by the flow at little noise, fresh points, the mixture, and the bracket."""
    gmm = pf.OrthonormalGMM(120, 3, 2, 0.1, rng=0)
    data = gmm.sample(500, balanced=True, rng=1)
    network = pf.gradient_flow(pf.initialize(40, 120, 1e-6, rng=2), data.X, data.y, t1=80.0, rtol=1e-2).network
    fresh = gmm.sample(100, rng=3)
    return network, fresh, gmm, pf.robust_radius(network, fresh.X, fresh.y)


# ---- known answers


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", BALL)
def test_a_linear_classifier_breaks_exactly_beyond_its_radius(linear, name, norm):
    classifier, X, y = linear
    dual = np.linalg.norm(classifier.w, 2 if norm == "l2" else 1)
    radius = np.maximum(y * classifier.decision_function(X), 0) / dual
    options = {"steps": 2000} if name == "pgd" else {}
    for eps in np.quantile(radius[5:], [0.2, 0.5]):
        found = BALL[name](classifier, X, y, eps=eps, norm=norm, **options)
        clear = np.abs(radius / eps - 1) > 1e-9
        np.testing.assert_array_equal(found.success[clear], (radius < eps)[clear])
        assert found.norms.max() <= eps
        assert not found.delta[:5].any()
        assert found.accuracy == pytest.approx(np.mean(radius > eps), abs=0.02)


def test_minimal_norms_of_a_linear_classifier(linear):
    classifier, X, y = linear
    radius = np.maximum(y * classifier.decision_function(X), 0) / np.linalg.norm(classifier.w)
    found = attacks.ddn(classifier, X, y)
    assert found.success.all()
    assert np.all(found.norms >= radius * (1 - 1e-12))
    np.testing.assert_allclose(found.norms, radius, rtol=1e-3)
    np.testing.assert_allclose(attacks.minimal_norm(classifier, X, y, ddn_steps=20).norms, radius, rtol=1e-9)
    assert found.gradients == 75 * 1000  # the five points that are wrong need none


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_minimal_norms_of_two_clusters_are_the_nearest_cluster_radius(p):
    gmm = pf.OrthonormalGMM(30, 1, 1, 0.3, rng=0)
    data = gmm.sample(60, dtype="float64", rng=1)
    network = pf.classifiers.cluster_prelu(gmm, p)
    exact = pf.theory.nearest_cluster_radius(gmm, data.X, data.y)
    given = {"centers": gmm.centers, "center_labels": gmm.labels}
    np.testing.assert_allclose(attacks.swap(network, data.X, data.y, **given).norms, exact, rtol=1e-6)
    np.testing.assert_allclose(attacks.minimal_norm(network, data.X, data.y, **given).norms, exact, rtol=1e-6)
    np.testing.assert_allclose(attacks.ddn(network, data.X, data.y).norms, exact, rtol=3e-3)


@pytest.mark.parametrize("rule", ["Bayes", "NearestCluster"])
def test_minimal_norms_of_the_rules_of_the_mixture(rule):
    gmm = pf.OrthonormalGMM(100, 3, 2, 0.3, rng=0)
    data = gmm.sample(40, dtype="float64", rng=3)
    exact = pf.theory.nearest_cluster_radius(gmm, data.X, data.y)
    found = attacks.minimal_norm(
        getattr(pf.classifiers, rule)(gmm), data.X, data.y, centers=gmm.centers, center_labels=gmm.labels, ddn_steps=50
    )
    # Bayes is the nearest-cluster rule up to alpha^2/D log K.
    np.testing.assert_allclose(found.norms, exact, rtol=1e-6 if rule == "NearestCluster" else 1e-3)


# ---- what holds of every attack


def test_no_attack_claims_what_it_did_not_do(trained):
    network, fresh, gmm, bracket = trained
    y = fresh.y.astype(float)
    y[:3] *= -1  # wrong to begin with
    for name, found, limit in run_all(network, fresh.X, y, 0.72, gmm.centers, gmm.labels):
        margin = sign_margins(network, fresh.X, y, found.delta)
        np.testing.assert_array_equal(found.success, margin <= 0, err_msg=name)
        assert found.success[:3].all() and not found.delta[:3].any(), name
        length = np.linalg.norm(found.delta, axis=1)
        assert length.max() <= limit, name
        np.testing.assert_array_equal(found.norms[found.success], length[found.success], err_msg=name)
        right = np.arange(len(y)) >= 3
        assert np.all((found.norms >= bracket.lower)[right & found.success]), name
        assert found.delta.dtype == found.norms.dtype == np.float64
        assert found.accuracy == np.mean(~found.success)


def test_gradient_attacks_overstate_what_a_swap_breaks(trained):
    network, fresh, gmm, bracket = trained
    X, y = fresh.X, fresh.y
    swapped = attacks.swap(network, X, y, centers=gmm.centers, center_labels=gmm.labels)
    broken = np.mean(swapped.norms > 0.72)
    papers = attacks.pgd(network, X, y, eps=0.72, steps=500).accuracy
    assert broken <= 0.05
    assert papers > 0.9  # a theorem allows 0.6
    assert all(BALL[name](network, X, y, eps=0.72).accuracy >= broken for name in BALL)
    # Without knowing the neurons it finds what the attack on the neurons finds.
    np.testing.assert_allclose(swapped.norms, bracket.upper, rtol=1e-4)


def test_the_protocol_is_enough(trained):
    network, fresh, gmm, _ = trained
    X, y = fresh.X[:20].astype("float64"), fresh.y[:20]
    pairs = zip(
        run_all(network, X, y, 0.72, gmm.centers, gmm.labels),
        run_all(Hidden(network), X, y, 0.72, gmm.centers, gmm.labels),
        strict=True,
    )
    for (name, seen, _), (_, hidden, _) in pairs:
        np.testing.assert_array_equal(seen.success, hidden.success, err_msg=name)
        np.testing.assert_allclose(seen.norms, hidden.norms, rtol=1e-5, err_msg=name)


def test_tiny_networks_are_attacked_like_large_ones(trained):
    network, fresh, gmm, _ = trained
    X, y = fresh.X[:20], fresh.y[:20]
    for factor in (1e-30, 1e-300):
        tiny = network.replace(log_abs_v=network.log_abs_v + np.log(factor))
        pairs = zip(
            run_all(tiny, X, y, 0.75, gmm.centers, gmm.labels),
            run_all(network, X, y, 0.75, gmm.centers, gmm.labels),
            strict=True,
        )
        for (name, small, _), (_, large, _) in pairs:
            if name == "pgd":  # exp(-y f) is flat: the papers' attack sees nothing, and says so
                assert small.accuracy == 1.0
                assert small.norms.max() < 1e-20
            else:
                np.testing.assert_array_equal(small.success, large.success, err_msg=name)
                np.testing.assert_allclose(small.norms, large.norms, rtol=1e-4, err_msg=name)


def test_results_depend_on_the_seed_alone(trained, monkeypatch):
    network, fresh, gmm, _ = trained
    X, y = fresh.X[:40], fresh.y[:40]
    given = {"centers": gmm.centers, "center_labels": gmm.labels}

    def everything(seed):
        return {
            "pgd": attacks.pgd(network, X, y, eps=0.9, steps=20, restarts=2, seed=seed),
            "linf": attacks.pgd(network, X, y, eps=0.1, norm="linf", steps=5, restarts=2, seed=seed),
            "apgd": attacks.apgd(network, X, y, eps=0.9, restarts=1, seed=seed),
            "swap": attacks.swap(network, X, y, seed=seed, **given),
            "minimal_norm": attacks.minimal_norm(network, X, y, ddn_steps=30, seed=seed, **given),
        }

    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = everything(0)
    np.random.seed(2)  # noqa: NPY002
    again, other = everything(0), everything(1)
    monkeypatch.setattr(_searches, "_ROWS", 7)
    blocks = everything(0)
    for name, found in first.items():
        np.testing.assert_array_equal(found.delta, again[name].delta, err_msg=name)
        np.testing.assert_array_equal(found.success, blocks[name].success, err_msg=name)
        np.testing.assert_allclose(found.delta, blocks[name].delta, atol=1e-6, err_msg=name)
        assert found.gradients == again[name].gradients
    assert np.abs(first["apgd"].delta - other["apgd"].delta).max() > 1e-3


@pytest.mark.parametrize("name", ["pgd", "pgd-margin", "apgd"])
def test_restarts_never_make_it_worse(trained, name):
    network, fresh, _, _ = trained
    options = {"eps": 0.9, "steps": 25}
    once = BALL[name](network, fresh.X, fresh.y, **options)
    more = BALL[name](network, fresh.X, fresh.y, restarts=3, **options)
    assert np.all(more.success | ~once.success)
    np.testing.assert_array_equal(more.delta[once.success], once.delta[once.success])
    margins = [sign_margins(network, fresh.X, fresh.y, found.delta) for found in (once, more)]
    assert np.all(margins[1] <= margins[0])


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", BALL)
def test_bounds_hold_to_the_last_bit(name, norm):
    rng = np.random.default_rng(5)
    classifier = Linear(rng.standard_normal(12), -0.1)
    X = rng.uniform(0.1, 0.7, (50, 12))
    X[0] = 0.1
    X[1, ::2] = 0.7
    y = np.where(classifier.decision_function(X) > 0, 1, -1)
    found = BALL[name](classifier, X, y, eps=0.3, norm=norm, bounds=(0.1, 0.7))
    moved = X + found.delta
    assert 0.1 <= moved.min() and moved.max() <= 0.7
    assert found.norms.max() <= 0.3
    free = BALL[name](classifier, X, y, eps=0.3, norm=norm)
    assert np.all(free.success | ~found.success)
    assert found.success.any()


def test_ddn_stays_within_bounds(linear):
    classifier, X, y = linear
    bounds = (-4.0, 4.0)
    found = attacks.ddn(classifier, X, y, bounds=bounds, steps=200)
    moved = X + found.delta
    assert -4.0 <= moved.min() and moved.max() <= 4.0
    assert found.success.mean() > 0.9


def test_where_nothing_is_found_nothing_is_claimed():
    X, y = np.random.default_rng(0).standard_normal((5, 4)), np.array([1, 1, 1, 1, -1])
    for name, found, limit in run_all(Flat(), X, y, 0.5, np.eye(4), [1, 1, -1, -1]):
        np.testing.assert_array_equal(found.success, [False] * 4 + [True], err_msg=name)
        assert not np.isnan(found.delta).any(), name
        if np.isinf(limit):
            assert not found.delta.any(), name
            np.testing.assert_array_equal(found.norms, [np.inf] * 4 + [0.0], err_msg=name)


def test_one_neuron_whose_gradient_vanishes_beyond_the_boundary():
    network = pf.TwoLayerNetwork([[2.0, 0.0]], [5.0], p=3.0)
    X, y = np.array([[3.0, 4.0], [1.0, -1.0], [-1.0, 0.0]]), [1, 1, 1]
    found = attacks.minimal_norm(network, X, y, centers=[[1.0, 0.0]], center_labels=[1])
    np.testing.assert_allclose(found.norms, [3.0, 1.0, 0.0], rtol=1e-9)
    for name, attack, _ in run_all(network, X, y, 1.5):
        if name == "pgd":
            continue  # plain gradient steps fade as f does
        np.testing.assert_array_equal(attack.success[1:], True, err_msg=name)


# ---- how the algorithms go


def torch_pgd(network, X, y, eps, steps, step, exponential):
    """PGD as it is usually written, one point's loss at a time summed; returns every iterate."""
    torch = pytest.importorskip("torch")
    U = torch.from_numpy(network.directions.astype("float64"))
    c = torch.from_numpy(network.sign * network.contributions)
    x, label = torch.from_numpy(X), torch.from_numpy(y)
    delta, path = torch.zeros_like(x), []
    for _ in range(steps + 1):
        path.append(delta.detach().numpy().copy())
        delta = delta.detach().requires_grad_()
        margin = label * (torch.relu((x + delta) @ U.T) ** network.p @ c)
        (torch.exp(-margin) if exponential else -margin).sum().backward()
        gradient = delta.grad if exponential else delta.grad / delta.grad.norm(dim=1, keepdim=True)
        delta = delta.detach() + step * gradient
        delta = delta * torch.clamp(eps / delta.norm(dim=1, keepdim=True), max=1.0)
    return path


@pytest.mark.parametrize("steps", [1, 5, 31, 32, 33, 34, 65, 400])
@pytest.mark.parametrize("stop_early", [True, False])
def test_pgd_that_comes_back_to_an_iterate_ends_as_if_it_went_on(steps, stop_early):
    X, y, size, ball = np.random.default_rng(0).normal(size=(40, 2)), np.ones(40), 0.07, _searches.Ball(0.6, "l2", None)
    y[::7] = -1.0  # wrong to begin with
    found = attacks.pgd(Wells(), X, y, eps=ball.eps, steps=steps, step=size, objective="margin", stop_early=stop_early)
    right = y * Wells().decision_function(X) > 0
    for i in np.flatnonzero(right):
        delta, best, lowest = np.zeros((1, 2)), None, np.inf
        for _ in range(steps + 1):
            margin = Wells().decision_function(X[i : i + 1] + delta)[0]
            if margin < lowest:
                best, lowest = delta, margin
            if stop_early and lowest <= 0:
                break
            uphill = ball.steepest(-Wells().input_gradient(X[i : i + 1] + delta))
            delta = ball.project(X[i : i + 1], delta + size * uphill)
        np.testing.assert_array_equal(found.delta[i], best[0])
    assert steps < 400 or found.gradients < 0.6 * steps * right.sum()


@pytest.mark.parametrize("objective", ["exponential", "margin"])
def test_pgd_goes_step_for_step_as_in_torch(trained, objective):
    network, fresh, _, _ = trained
    X, y = fresh.X[:10].astype("float64"), fresh.y[:10].astype("float64")
    network = network.astype("float64")
    path = torch_pgd(network, X, y, 0.7, 60, 0.1, objective == "exponential")
    margins = np.array([sign_margins(network, X, y, delta) for delta in path])
    for steps in (1, 2, 5, 20, 60):
        found = attacks.pgd(network, X, y, eps=0.7, steps=steps, objective=objective, stop_early=False)
        best = np.argmin(margins[: steps + 1], axis=0)
        lowest = np.array([path[k][i] for i, k in enumerate(best)])
        np.testing.assert_allclose(
            sign_margins(network, X, y, found.delta), margins[best, range(10)], rtol=1e-9, atol=1e-11
        )
        same = np.abs(np.diff(np.sort(margins[: steps + 1], axis=0)[:2], axis=0))[0] > 1e-9  # the best is unique
        assert same.any() or steps > 20
        np.testing.assert_allclose(found.delta[same], lowest[same], atol=1e-10)


def test_pgd_goes_as_in_foolbox(trained):
    torch, foolbox = pytest.importorskip("torch"), pytest.importorskip("foolbox")
    network, fresh, _, _ = trained
    module = network.astype("float64").to_torch()

    class Logits(torch.nn.Module):
        def forward(self, x):
            f = module(x)
            return torch.stack([-f, f], dim=1)

    X, y = fresh.X[:10].astype("float64"), fresh.y[:10]
    model = foolbox.PyTorchModel(Logits().eval(), bounds=(-100, 100))
    labels = torch.from_numpy((y > 0).astype("int64"))
    attack = foolbox.attacks.L2PGD(abs_stepsize=0.05, steps=8, random_start=False)
    _, moved, success = attack(model, torch.from_numpy(X), labels, epsilons=0.5)
    found = attacks.pgd(network, X, y, eps=0.5, steps=8, step=0.05, objective="margin", stop_early=False)
    # Eight short steps downhill: the last iterate is the best one.
    np.testing.assert_allclose(found.delta, moved.detach().numpy() - X, atol=1e-6)
    np.testing.assert_array_equal(found.success, success.numpy())


def test_checkpoints_are_the_published_ones():
    assert _searches._checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


# ---- several outputs


class Outputs:
    """W_2 tanh(W_1 x + b_1) + W_0 x + b_0 with C outputs, by the protocol and nothing else; linear without W_1."""

    def __init__(self, W0, b0, W1=None, b1=None, W2=None, classes=None):
        self.linear, self.hidden = (W0, b0), None if W1 is None else (W1, b1, W2)
        if classes is not None:
            self.classes = classes

    @classmethod
    def random(cls, dim, classes, hidden=0, rng=0):
        rng = np.random.default_rng(rng)
        parts = [rng.standard_normal((classes, dim)) / dim**0.5, 0.3 * rng.standard_normal(classes)]
        if hidden:
            parts += [2.0 * rng.standard_normal((hidden, dim)) / dim**0.5, 0.3 * rng.standard_normal(hidden)]
            parts += [rng.standard_normal((classes, hidden)) / hidden**0.5]
        return cls(*parts)

    def decision_function(self, X):
        F = X @ self.linear[0].T + self.linear[1]
        return F if self.hidden is None else F + np.tanh(X @ self.hidden[0].T + self.hidden[1]) @ self.hidden[2].T

    def input_gradient(self, X, weights):
        gradient = weights @ self.linear[0]
        if self.hidden is None:
            return gradient
        W1, b1, W2 = self.hidden
        return gradient + ((weights @ W2) / np.cosh(X @ W1.T + b1) ** 2) @ W1

    def torch(self):
        torch = pytest.importorskip("torch")
        W0, b0, W1, b1, W2 = (torch.from_numpy(part) for part in (*self.linear, *self.hidden))
        return lambda x: x @ W0.T + b0 + torch.tanh(x @ W1.T + b1) @ W2.T


class Pair:
    """Outputs (0, f) of a classifier of one."""

    classes = (3, 1)

    def __init__(self, classifier):
        self.classifier = classifier

    def decision_function(self, X):
        f = self.classifier.decision_function(X)
        return np.stack([np.zeros_like(f), f], axis=1)

    def input_gradient(self, X, weights):
        return weights[:, 1:] * self.classifier.input_gradient(X)


def labelled(classifier, n, dim, wrong=0, rng=1):
    """Points, what the classifier takes them for, and the first few labels wrong."""
    X = np.random.default_rng(rng).standard_normal((n, dim))
    F = classifier.decision_function(X)
    y = np.argmax(F, axis=1)
    y[:wrong] = (y[:wrong] + 1) % F.shape[1]
    return X, y


def pair_radii(classifier, X, y):
    """Exact distance of each point to the boundary of every pair of classes of linear outputs, (n, C)."""
    W, _ = classifier.linear
    F, rows = classifier.decision_function(X), np.arange(len(X))
    length = np.linalg.norm(W[y][:, None] - W, axis=2)
    gap = F[rows, y][:, None] - F
    return np.where(np.arange(len(W)) == y[:, None], np.inf, gap / np.where(length > 0, length, 1.0))


def test_minimal_norms_of_linear_outputs():
    classifier = Outputs.random(8, 5)
    X, y = labelled(classifier, 60, 8, wrong=4)
    radii = np.maximum(pair_radii(classifier, X, y).min(axis=1), 0.0)
    nearest = pair_radii(classifier, X, y).argmin(axis=1)
    for name, found, rtol in (
        ("ddn", attacks.ddn(classifier, X, y, rivals=4), 1e-3),
        ("fmn", attacks.fmn(classifier, X, y, rivals=4), 1e-4),
        ("minimal_norm", attacks.minimal_norm(classifier, X, y, ddn_steps=20, rivals=4), 1e-9),
    ):
        assert found.success.all(), name
        np.testing.assert_allclose(found.norms, radii, rtol=rtol, err_msg=name)
        clear = np.sort(pair_radii(classifier, X, y), axis=1)[:, :2]
        clear = clear[:, 1] > clear[:, 0] * 1.01
        np.testing.assert_array_equal(found.reached[clear & (radii > 0)], nearest[clear & (radii > 0)], err_msg=name)
    predicted = classifier.decision_function(X[:4]).argmax(axis=1)
    np.testing.assert_array_equal(found.reached[:4], predicted)  # wrong to begin with: what they are taken for


def test_within_a_ball_linear_outputs_are_not_broken_below_their_radius():
    classifier = Outputs.random(8, 4)
    X, y = labelled(classifier, 60, 8)
    radii = pair_radii(classifier, X, y).min(axis=1)
    eps = float(np.median(radii))
    for name, attack in BALL.items():
        for objective in (None,) if name in ("fgsm", "pgd-margin") else ("margin", "cross_entropy", "dlr"):
            options = {} if objective is None else {"objective": objective, "steps": 100}
            found = attack(classifier, X, y, eps=eps, **options)
            assert not found.success[radii > eps * (1 + 1e-9)].any(), name
            assert found.success[radii < 0.9 * eps].mean() > 0.8, (name, objective)
            np.testing.assert_array_equal(found.reached[~found.success], y[~found.success], err_msg=name)
            np.testing.assert_array_equal(
                found.reached, classifier.decision_function(X + found.delta).argmax(axis=1), err_msg=name
            )


def test_two_outputs_are_their_difference_bit_for_bit(trained):
    network, fresh, gmm, _ = trained
    one = Hidden(network.rescaled()[0])
    X, y = fresh.X[:30].astype("float64"), fresh.y[:30].copy()
    y[0] *= -1
    two, named = Pair(one), np.where(y > 0, 1, 3)
    centers = {"centers": gmm.centers, "center_labels": gmm.labels}
    renamed = {"centers": gmm.centers, "center_labels": np.where(gmm.labels > 0, 1, 3)}
    tasks = {name: (attack, {"eps": 0.74}, {"eps": 0.74}) for name, attack in BALL.items()}
    del tasks["pgd"]  # its default objective is another of several outputs; see the next two
    for objective in ("exponential", "cross_entropy"):
        options = {"eps": 0.74, "steps": 100, "objective": objective, "restarts": 1}
        tasks[f"pgd {objective}"] = (attacks.pgd, options, options)
    tasks |= {name: (attack, {}, {"rivals": 0}) for name, attack in MINIMAL.items()}
    tasks["swap"] = (attacks.swap, centers, {**renamed, "rivals": 0})
    for name, (attack, options, others) in tasks.items():
        single, double = attack(one, X, y, **options), attack(two, X, named, **others)
        np.testing.assert_array_equal(single.delta, double.delta, err_msg=name)
        np.testing.assert_array_equal(single.success, double.success, err_msg=name)
        np.testing.assert_array_equal(np.where(single.reached > 0, 1, 3), double.reached, err_msg=name)
        np.testing.assert_array_equal(single.reached != y, single.success, err_msg=name)


def test_names_and_order_of_the_classes_do_not_matter():
    plain = Outputs.random(6, 4, hidden=9, rng=3)
    X, y = labelled(plain, 40, 6)
    order, names = np.array([2, 0, 3, 1]), np.array([7, -2, 40, 5])  # output k is now called names[k]
    W0, b0 = plain.linear
    W1, b1, W2 = plain.hidden
    other = Outputs(W0[order], b0[order], W1, b1, W2[order], classes=names)
    renamed = names[np.argsort(order)[y]]
    for name, attack in (("ddn", MINIMAL["ddn"]), ("minimal_norm", MINIMAL["minimal_norm"])):
        first, second = attack(plain, X, y), attack(other, X, renamed)
        np.testing.assert_allclose(first.norms, second.norms, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(names[np.argsort(order)[first.reached]], second.reached, err_msg=name)
    other.classes_ = other.classes  # as scikit-learn has it
    del other.classes
    np.testing.assert_array_equal(attacks.ddn(other, X, renamed, steps=50).success, True)


def test_the_shortest_attack_of_several_outputs_is_minimal_norm():
    classifier = Outputs.random(10, 6, hidden=30, rng=5)
    X, y = labelled(classifier, 60, 10)
    ours = attacks.minimal_norm(classifier, X, y, rivals=5)
    for other in (
        attacks.ddn(classifier, X, y, steps=500, rivals=5),
        attacks.ddn(classifier, X, y, steps=500, objective="margin"),
        attacks.fmn(classifier, X, y, steps=500, rivals=5),
    ):
        assert np.all(ours.norms <= other.norms * 1.001)
    moved = classifier.decision_function(X + ours.delta)
    np.testing.assert_array_equal(ours.success, True)
    rows = np.arange(len(X))
    assert np.all(moved[rows, ours.reached] >= moved[rows, y])
    assert np.all(ours.reached != y)


def test_points_of_one_class_alone():
    """A block without rivals of some class: nothing is asked of the classifier for no points."""

    class Strict(Outputs):
        def input_gradient(self, X, weights):
            assert len(X)
            return super().input_gradient(X, weights)

    classifier = Strict(*Outputs.random(5, 3).linear)
    X, y = labelled(classifier, 60, 5)
    for c in range(3):
        some = y == c
        radii = pair_radii(classifier, X[some], y[some]).min(axis=1)
        found = attacks.minimal_norm(classifier, X[some], y[some], rivals=2)
        np.testing.assert_allclose(found.norms, radii, rtol=1e-9)


def test_scores_have_the_gradients_they_claim():
    rng = np.random.default_rng(0)
    F, own = rng.standard_normal((30, 5)), rng.integers(0, 5, 30)
    for name, score in _scores.SCORES.items():
        for scale in (1e-3, 1.0, 20.0):
            weights = score(F, own, scale)[1]
            for c in range(5):
                step = np.zeros(5)
                step[c] = 1e-6
                slope = (score(F + step, own, scale)[0] - score(F - step, own, scale)[0]) / 2e-6
                np.testing.assert_allclose(weights[:, c], slope, atol=1e-6, err_msg=f"{name} {scale}")
    found = _scores.soft_margin(F, own, 1.0)[0] - np.log(4)
    entropy = np.log(np.exp(F - F[range(30), own][:, None]).sum(axis=1))
    np.testing.assert_allclose(np.log1p(np.exp(-found)), entropy, rtol=1e-12)


@pytest.mark.parametrize("scale", [np.exp(-700.0), np.exp(700.0)])
@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_the_cross_entropy_goes_on_where_its_exponentials_do_not(scale, size):
    F = size * np.array([[1.0, 0.5, -0.5, 0.5], [0.0, 0.0, 0.0, 0.0], [3.0, -1.0, -2.0, 1.0]])
    value, weights = _scores.soft_margin(F, np.array([0, 1, 0]), scale)
    assert np.isfinite(value).all() and np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(axis=1), 0.0, atol=1e-15)
    np.testing.assert_array_equal(weights[[0, 1, 2], [0, 1, 0]], 1.0)


# ---- several outputs: how the algorithms go in torch


def torch_cross_entropy(model, x, y):
    torch = pytest.importorskip("torch")
    return torch.nn.functional.cross_entropy(model(x), y, reduction="none")


def torch_dlr(model, x, y):
    """As in the authors' code (autopgd_base.py), without its 1e-12."""
    logits = model(x)
    ranked, order = logits.sort(dim=1)
    first = (order[:, -1] == y).double()
    own = logits[range(len(y)), y]
    other = ranked[:, -2] * first + ranked[:, -1] * (1.0 - first)
    return -(own - other) / (ranked[:, -1] - ranked[:, -3])


def torch_gradient(loss, model, x, y):
    x = x.detach().requires_grad_()
    value = loss(model, x, y)
    value.sum().backward()
    return value.detach(), x.grad


def torch_ball(delta, eps):
    return delta * (eps / delta.norm(dim=1, keepdim=True)).clamp(max=1.0)


@pytest.fixture(scope="module")
def smooth():
    """Four outputs of a tanh network, points, labels, and both as torch has them."""
    torch = pytest.importorskip("torch")
    classifier = Outputs.random(12, 4, hidden=20, rng=7)
    X, y = labelled(classifier, 40, 12)
    return classifier, X, y, classifier.torch(), torch.from_numpy(X), torch.from_numpy(y)


def test_pgd_on_cross_entropy_goes_as_in_torch(smooth):
    classifier, X, y, model, x, label = smooth
    path = [0.0 * x]
    for _ in range(15):
        delta = path[-1]
        path.append(torch_ball(delta + 0.05 * torch_gradient(torch_cross_entropy, model, x + delta, label)[1], 0.4))
    found = attacks.pgd(classifier, X, y, eps=0.4, steps=15, step=0.05, stop_early=False)
    margins = np.array([_scores.margin(classifier.decision_function(X + d.numpy()), y, 1.0)[0] for d in path])
    best = margins.argmin(axis=0)
    np.testing.assert_allclose(found.delta, [path[k][i].numpy() for i, k in enumerate(best)], atol=1e-10)
    assert (best == 15).mean() > 0.5


@pytest.mark.parametrize("objective", ["cross_entropy", "dlr"])
def test_apgd_goes_as_in_torch(smooth, objective):
    """Algorithm 1 of Croce and Hein, point by point, from the same start."""
    classifier, X, y, model, x, label = smooth
    torch = pytest.importorskip("torch")
    loss = torch_cross_entropy if objective == "cross_entropy" else torch_dlr
    eps, steps = 0.1, 30
    ball = _searches.Ball(eps, "l2", None)
    points, data = _searches.prepared(classifier, X)
    start = ball.start(_searches.Points(points, data, y, np.arange(len(X))), 3, 0)
    found = attacks.apgd(classifier, X, y, eps=eps, steps=steps, objective=objective, seed=3)
    robust = np.flatnonzero(~found.success)
    assert 10 < len(robust)
    for i in robust:
        at, target = x[i : i + 1], label[i : i + 1]
        delta = torch.from_numpy(start[i : i + 1])
        value, gradient = torch_gradient(loss, model, at + delta, target)
        best, top, top_gradient, previous = delta, float(value), gradient, delta
        size, rises, halved, top_then, last = 2 * eps, 0, False, float(value), 0
        lowest = [_scores.margin(classifier.decision_function(X[i : i + 1] + delta.numpy()), y[i : i + 1], 1.0)[0][0]]
        for k in range(1, steps + 1):
            ahead = torch_ball(delta + size * gradient / gradient.norm(), eps)
            weight = 0.75 if k > 1 else 1.0
            ahead = torch_ball(delta + weight * (ahead - delta) + (1 - weight) * (delta - previous), eps)
            previous, delta, before = delta, ahead, float(value)
            value, gradient = torch_gradient(loss, model, at + delta, target)
            lowest.append(
                _scores.margin(classifier.decision_function(X[i : i + 1] + delta.numpy()), y[i : i + 1], 1.0)[0][0]
            )
            rises += float(value) > before
            if float(value) > top:
                best, top, top_gradient = delta, float(value), gradient
            if k in _searches._checkpoints(steps) and k < steps:
                stuck = rises < 0.75 * (k - last) or (not halved and top_then == top)
                if stuck:
                    size, delta, gradient, value = size / 2, best, top_gradient, torch.tensor(top)
                halved, top_then, rises, last = stuck, top, 0, k
        margin = _scores.margin(classifier.decision_function(X[i : i + 1] + found.delta[i]), y[i : i + 1], 1.0)[0][0]
        assert margin == pytest.approx(min(lowest), rel=1e-7)


@pytest.mark.parametrize("objective", ["cross_entropy", "margin"])
def test_ddn_goes_as_in_torch(smooth, objective):
    classifier, X, y, model, x, label = smooth
    torch = pytest.importorskip("torch")

    def loss(model, x, y):
        if objective == "cross_entropy":
            return torch_cross_entropy(model, x, y)
        logits = model(x)
        own = torch.nn.functional.one_hot(y, 4).bool()
        return logits.masked_fill(own, -np.inf).max(dim=1).values - logits[own]

    steps, gamma = 40, 0.05
    delta, radius = torch.zeros_like(x), torch.ones(len(x), dtype=torch.float64)
    shortest = torch.full((len(x),), np.inf, dtype=torch.float64)
    for k in range(steps + 1):
        wrong = model(x + delta).argmax(dim=1) != label
        shortest = torch.where(wrong, torch.minimum(shortest, delta.norm(dim=1)), shortest)
        gradient = torch_gradient(loss, model, x + delta, label)[1]
        rate = 0.01 + 0.99 * (1 + np.cos(np.pi * k / steps)) / 2
        delta = delta + rate * gradient / gradient.norm(dim=1, keepdim=True)
        radius = torch.where(wrong, radius * (1 - gamma), radius * (1 + gamma))
        delta = delta * (radius / delta.norm(dim=1))[:, None]
    found = attacks.ddn(classifier, X, y, steps=steps, objective=objective)
    np.testing.assert_allclose(found.norms, shortest.numpy(), rtol=1e-8)
    assert np.isfinite(found.norms).mean() > 0.9


def test_fmn_goes_as_in_torch(smooth):
    """Algorithm 1 of Pintor et al. for l2."""
    classifier, X, y, model, x, label = smooth
    torch = pytest.importorskip("torch")
    own = torch.nn.functional.one_hot(label, 4).bool()

    def loss(model, x, y):
        logits = model(x)
        return logits.masked_fill(own, -np.inf).max(dim=1).values - logits[own]

    steps, delta = 40, torch.zeros_like(x)
    radius = torch.full((len(x),), np.inf, dtype=torch.float64)
    shortest = radius.clone()
    for k in range(steps + 1):
        value, gradient = torch_gradient(loss, model, x + delta, label)
        wrong, length = value >= 0, delta.norm(dim=1)
        shortest = torch.where(wrong, torch.minimum(shortest, length), shortest)
        cosine = (1 + np.cos(np.pi * k / steps)) / 2
        share, rate = 0.001 + 0.049 * cosine, 0.01 + 0.99 * cosine
        grown = torch.where(torch.isfinite(shortest), radius * (1 + share), length + value.abs() / gradient.norm(dim=1))
        radius = torch.where(wrong, torch.minimum(radius * (1 - share), shortest), grown)
        delta = delta + rate * gradient / gradient.norm(dim=1, keepdim=True)
        delta = delta * (radius / delta.norm(dim=1)).clamp(max=1.0)[:, None]
    found = attacks.fmn(classifier, X, y, steps=steps)
    np.testing.assert_allclose(found.norms, shortest.numpy(), rtol=1e-8)
    assert np.isfinite(found.norms).mean() > 0.9


# ---- bad input


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pgd", {"X": np.full((2, 3), np.nan)}, "X must be finite"),
        ("pgd", {"X": np.ones(3)}, "2 dimensions"),
        ("pgd", {"y": [1, 0]}, "labels"),
        ("pgd", {"eps": 0.0}, "eps"),
        ("pgd", {"eps": np.inf}, "eps"),
        ("pgd", {"norm": "l1"}, "norm"),
        ("pgd", {"steps": 0}, "steps"),
        ("pgd", {"step": -0.1}, "step"),
        ("pgd", {"objective": "logistic"}, "objective"),
        ("pgd", {"normalize": "yes"}, "normalize"),
        ("pgd", {"stop_early": 1}, "stop_early"),
        ("pgd", {"restarts": -1}, "restarts"),
        ("pgd", {"seed": 1.5}, "seed"),
        ("pgd", {"bounds": (1.0, 0.0)}, "bounds"),
        ("pgd", {"bounds": 3.0}, "bounds"),
        ("pgd", {"bounds": (2.0, 3.0)}, "X must lie within bounds"),
        ("pgd", {"classifier": object()}, "decision_function"),
        ("apgd", {"rho": 1.5}, "rho"),
        ("apgd", {"momentum": 0.0}, "momentum"),
        ("ddn", {"gamma": 1.0}, "gamma"),
        ("ddn", {"init_eps": 0.0}, "init_eps"),
        ("swap", {"centers": np.ones((2, 4))}, "centers must have shape"),
        ("swap", {"centers": np.zeros((2, 3))}, "centers must not be 0"),
        ("swap", {"center_labels": [1, 2]}, "center_labels"),
        ("swap", {"starts": 0}, "starts"),
        ("minimal_norm", {"center_labels": None}, "together"),
        ("minimal_norm", {"ddn_steps": 0}, "ddn_steps"),
        ("minimal_norm", {"rivals": -1}, "rivals"),
        ("pgd", {"objective": "dlr"}, "three outputs"),
        ("apgd", {"objective": "exponential"}, "objective"),
        ("apgd", {"objective": "dlr"}, "three outputs"),
        ("ddn", {"objective": "dlr"}, "objective"),
        ("ddn", {"rivals": -1}, "rivals"),
        ("fmn", {"step": 0.0}, "step"),
        ("fmn", {"gamma": 1.0}, "gamma"),
        ("fmn", {"steps": 0}, "steps"),
    ],
)
def test_bad_input_is_refused(name, change, message):
    arguments = {"classifier": Linear(np.ones(3), 0.0), "X": np.ones((2, 3)), "y": [1, 1]}
    if name in ("pgd", "apgd"):
        arguments["eps"] = 0.5
    if name in ("swap", "minimal_norm"):
        arguments |= {"centers": np.eye(3)[:2], "center_labels": [1, -1]}
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(attacks, name)(**arguments | change)


def test_a_classifier_that_returns_nonsense_is_named():
    broken = Linear(np.ones(3), 0.0)
    broken.decision_function = lambda X: np.ones((len(X), 2))
    with pytest.raises(ValueError, match="decision_function must return shape"):
        attacks.fgsm(broken, np.ones((2, 3)), [1, 1], eps=0.1)
    broken.decision_function = lambda X: np.full(len(X), np.nan)
    with pytest.raises(ValueError, match="not finite"):
        attacks.fgsm(broken, np.ones((2, 3)), [1, 1], eps=0.1)


@pytest.mark.parametrize(
    ("classes", "y", "message"),
    [
        (None, [0, 3], "y must hold the classes"),
        (None, [0.5, 1], "y must hold the classes"),
        (None, [0, 1, 2], "y must have shape"),
        (None, ["a", "b"], "y must hold members"),
        ([4, 5, 6], [0, 1], r"y must hold the classes \[4, 5, 6\]"),
        ([0, 1], [0, 1], "classes must be 3 distinct integers"),
        ([0, 1, 1], [0, 1], "classes must be 3 distinct integers"),
        ([0.5, 1, 2], [0, 1], "classes must be integers"),
        (["a", "b", "c"], [0, 1], "classes must be integers"),
    ],
)
def test_labels_are_members_of_the_classes(classes, y, message):
    classifier = Outputs.random(4, 3)
    if classes is not None:
        classifier.classes = classes
    with pytest.raises((TypeError, ValueError), match=message):
        attacks.fgsm(classifier, np.ones((2, 4)), y, eps=0.1)


def test_classes_of_one_output_name_its_signs(linear):
    classifier, X, y = linear
    named = Linear(classifier.w, classifier.b)
    named.classes_ = np.array([8, 2])
    first, second = attacks.ddn(classifier, X, y, steps=50), attacks.ddn(named, X, np.where(y > 0, 2, 8), steps=50)
    np.testing.assert_array_equal(first.delta, second.delta)
    np.testing.assert_array_equal(np.where(first.reached > 0, 2, 8), second.reached)
    with pytest.raises(ValueError, match=r"y must hold the classes \[8, 2\]"):
        attacks.ddn(named, X, y, steps=50)
