"""Classifiers: gradients against finite differences, radii against brute force, witnesses, torch parity, bad input."""

import builtins
import math

import numpy as np
import pytest
import reference as ref
from scipy.optimize import minimize
from scipy.special import logsumexp

import preluflow as pf
from preluflow import theory
from preluflow.classifiers import Bayes, Classifier, Linear, NearestCluster, TorchClassifier, fit_linear

ROOT2 = math.sqrt(2.0)


@pytest.fixture(scope="module")
def mixture():
    """K1 = 5, K2 = 3 in R^12, so noisy that several clusters matter at many points."""
    return pf.OrthonormalGMM(12, 5, 3, 1.0, rng=0)


def spread_out(gmm, n, seed, scale=1.0):
    """Points whose inner products with the centres are all of one order, and random labels."""
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((n, gmm.dim)), rng.choice([-1.0, 1.0], n)


def unit(rng, shape):
    d = rng.standard_normal(shape)
    return d / np.linalg.norm(d, axis=-1, keepdims=True)


def each(gmm):
    return [Linear(np.arange(1.0, gmm.dim + 1), -0.3), Bayes(gmm), NearestCluster(gmm)]


# ---- what they share


def test_all_fit_the_protocol_and_networks_do(mixture):
    for classifier in [*each(mixture), pf.classifiers.cluster_prelu(mixture)]:
        assert isinstance(classifier, Classifier)
    assert not isinstance(mixture, Classifier)


def test_gradients_are_finite_differences(mixture):
    X, _ = spread_out(mixture, 6, 0)
    for classifier in each(mixture):
        value, gradient = classifier.value_and_input_gradient(X)
        np.testing.assert_array_equal(value, classifier.decision_function(X))
        np.testing.assert_array_equal(gradient, classifier.input_gradient(X))
        for x, slope in zip(X, gradient, strict=True):
            found = ref.central_difference(lambda z, f=classifier: f.decision_function(z[None])[0], x)
            np.testing.assert_allclose(slope, found, rtol=1e-6, atol=1e-7)


def test_results_are_float64_and_any_real_dtype_is_taken(mixture):
    X, y = spread_out(mixture, 9, 1, scale=3.0)
    for classifier in each(mixture):
        for given in (X.astype(np.float32), np.rint(X).astype(np.int64), X.astype(np.longdouble), X[:, ::-1]):
            exact = classifier.decision_function(given.astype(np.float64))
            assert exact.dtype == np.float64
            np.testing.assert_allclose(classifier.decision_function(given), exact, rtol=0, atol=1e-12)
            for result in (classifier.input_gradient(given), classifier.certified_radius(given, y.astype(int))):
                assert result.dtype == np.float64


def test_many_points_are_evaluated_in_blocks(mixture):
    X = mixture.sample(5000, rng=0).X
    for classifier in each(mixture):
        f = classifier.decision_function(X)
        np.testing.assert_allclose(f[4090:4110], classifier.decision_function(X[4090:4110]), atol=1e-11)


def test_labels_are_signs_and_zero_is_minus_one():
    classifier = Linear([1.0, 0.0], 1.0)
    np.testing.assert_array_equal(classifier.predict([[0.0, 5.0], [-1.0, 2.0], [-2.0, 0.0]]), [1, -1, -1])


def test_what_is_shown_is_short(mixture):
    assert repr(Linear([1.0, 2.0], 0.5)) == "Linear(dim=2, b=0.5)"
    assert repr(Bayes(mixture)) == f"Bayes({mixture!r})"


# ---- linear


def test_linear_known_answers():
    classifier = Linear([3.0, 4.0], 5.0)
    X, y = np.array([[0.0, 0.0], [1.0, 3.0], [-5.0, 0.0], [-5.0, 0.0]]), np.array([1, 1, 1, -1])
    np.testing.assert_allclose(classifier.decision_function(X), [5, 20, -10, -10])
    np.testing.assert_allclose(classifier.certified_radius(X, y), [1, 4, 0, 2], rtol=2e-9)
    np.testing.assert_allclose(
        classifier.nearest_error(X, y)[[0, 2, 3]], [[-0.6, -0.8], [0, 0], [1.2, 1.6]], rtol=1e-11
    )


@pytest.mark.parametrize("scale", [1e-280, 1.0, 1e200])
def test_linear_witnesses_reach_the_boundary_at_any_scale(scale):
    rng = np.random.default_rng(0)
    classifier = Linear(scale * rng.standard_normal(50))
    X, y = rng.standard_normal((2000, 50)), rng.choice([-1.0, 1.0], 2000)
    y[0], X[1] = 1.0, 1e-14 * X[1]
    d, lower = classifier.nearest_error(X, y), classifier.certified_radius(X, y)
    assert np.all(y * classifier.decision_function(X + d) <= 0)
    assert np.all(np.linalg.norm(d, axis=1) >= lower)
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), lower, rtol=2e-9, atol=1e-12)


# ---- linear baseline


@pytest.mark.parametrize("loss", ref.LOSSES)
def test_fit_linear_separates_the_mixture(loss):
    gmm = pf.OrthonormalGMM(100, 3, 2, 0.2, rng=0)
    data = gmm.sample(1000, rng=1)
    fitted = fit_linear(data.X, data.y, loss=loss, step=0.2, batch=50, epochs=30, rng=2)
    assert fitted.b == 0.0
    assert np.all(fitted.predict(data.X) == data.y)
    # A linear classifier can do no better than 1/sqrt(K) = 0.447 at the centres, and this one is near it.
    assert 0.4 < np.median(fitted.certified_radius(data.X, data.y)) < 0.46


@pytest.mark.parametrize("loss", ref.LOSSES)
def test_fit_linear_takes_the_steps_of_sgd(problem, loss):
    data = problem(n=11, D=4)
    w, rng = np.zeros(4), np.random.default_rng(5)
    point = {
        "squared": lambda w, x, y: (y - w @ x) ** 2,
        "exponential": lambda w, x, y: np.exp(-y * (w @ x)),
        "logistic": lambda w, x, y: np.log1p(np.exp(-y * (w @ x))),
    }[loss]
    for _ in range(3):
        order = rng.permutation(11)
        for rows in (order[:4], order[4:8], order[8:]):
            w = w - 0.1 * ref.central_difference(
                lambda w, rows=rows: np.mean([point(w, data.X[i], data.y[i]) for i in rows]), w
            )
    fitted = fit_linear(data.X, data.y, loss=loss, step=0.1, batch=4, epochs=3, rng=5)
    np.testing.assert_allclose(fitted.w, w, rtol=0, atol=1e-8)


def test_fit_linear_finds_the_logistic_optimum(problem):
    data = problem(n=60, D=4)  # random labels: not separable

    def risk(w):
        return np.mean(np.logaddexp(0.0, -data.y * (data.X @ w)))

    fitted = fit_linear(data.X, data.y, step=1.0, batch=60, epochs=2000)
    np.testing.assert_allclose(fitted.w, minimize(risk, np.zeros(4), tol=1e-12).x, atol=1e-5)


def test_fit_linear_is_seeded(problem):
    data = problem(n=40, D=5)
    options = {"step": 0.5, "batch": 7, "epochs": 3}
    first, again, other = (fit_linear(data.X, data.y, rng=seed, **options).w for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("loss", ref.LOSSES)
def test_fit_linear_stops_when_settled(loss):
    gmm = pf.OrthonormalGMM(40, 3, 2, 0.1, rng=0)
    data = gmm.sample(200, rng=1)
    options = {"loss": loss, "step": 0.1, "batch": 20, "rng": 2}
    settled = fit_linear(data.X, data.y, epochs=10_000, until_settled=True, **options)
    losses = [math.log(2) if loss == "logistic" else 1.0]  # at w = 0
    for epochs in range(1, 2000):
        fitted = fit_linear(data.X, data.y, epochs=epochs, **options)
        losses.append(pf.network.mean_loss(loss, data.y, fitted.decision_function(data.X)))
        change = abs(losses[-1] - losses[epochs - epochs // 10])
        right = np.all(fitted.predict(data.X) == data.y)
        if np.array_equal(fitted.w, settled.w):
            break
        assert not (epochs >= 10 and right and change < 0.01 * losses[0])
    assert epochs >= 10
    assert right
    assert change < 0.01 * losses[0]


# ---- Bayes


def naive_bayes(gmm, X):
    with np.errstate(over="raise"):
        powers = np.exp(gmm.dim * (X @ gmm.centers.T) / gmm.alpha**2)
    return powers[:, : gmm.positive].sum(axis=1), powers[:, gmm.positive :].sum(axis=1)


def test_bayes_is_the_papers_rule(mixture):
    X, _ = spread_out(mixture, 400, 2)
    plus, minus = naive_bayes(mixture, X)
    f = Bayes(mixture).decision_function(X)
    np.testing.assert_array_equal(np.sign(f), np.sign(plus - minus))
    np.testing.assert_allclose(f, np.log(plus / minus), rtol=0, atol=1e-12)


def test_bayes_is_the_log_posterior_odds(mixture):
    X, _ = spread_out(mixture, 50, 3)
    distances = ((X[:, None, :] - mixture.centers) ** 2).sum(axis=2)
    logs = -distances * mixture.dim / (2 * mixture.alpha**2)
    odds = logsumexp(logs[:, :5], axis=1) - logsumexp(logs[:, 5:], axis=1)
    np.testing.assert_allclose(Bayes(mixture).decision_function(X), odds, rtol=0, atol=1e-11)


def test_bayes_does_not_overflow():
    gmm = pf.OrthonormalGMM(100, 5, 3, 0.01, rng=0)  # D / alpha^2 = 1e6
    classifier, nearest = Bayes(gmm), NearestCluster(gmm)
    X, y = np.concatenate([gmm.sample(50, dtype="float64", rng=1).X, spread_out(gmm, 50, 2)[0]]), np.ones(100)
    value, gradient = classifier.value_and_input_gradient(X)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(value / 1e6, nearest.decision_function(X), atol=3e-6)
    np.testing.assert_allclose(classifier.certified_radius(X, y), nearest.certified_radius(X, y), atol=3e-6)


def bayes_attacked(classifier, X, y, starts):
    """Distances at which Bayes errs, along the given directions: bisection on whole rays."""
    best = np.full(len(X), np.inf)
    for d in starts:
        low, high = np.zeros(len(X)), np.full(len(X), 20.0)
        errs = y * classifier.decision_function(X + high[:, None] * d) <= 0
        for _ in range(50):
            middle = 0.5 * (low + high)
            wrong = y * classifier.decision_function(X + middle[:, None] * d) <= 0
            low, high = np.where(wrong, low, middle), np.where(wrong, middle, high)
        best = np.where(errs, np.minimum(best, high), best)
    return best


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_bayes_certificate_holds_and_is_tight(alpha):
    gmm = pf.OrthonormalGMM(12, 5, 3, alpha, rng=0)
    classifier, rng = Bayes(gmm), np.random.default_rng(3)
    X, y = spread_out(gmm, 300, 4)
    y = np.where(rng.random(300) < 0.8, classifier.predict(X), y).astype(float)
    lower = classifier.certified_radius(X, y)
    margin = y * classifier.decision_function(X)
    assert np.all((lower > 0) == (margin > 0))
    # Never below the Lipschitz form, and not above the length of anything that errs.
    assert np.all(lower >= np.maximum(margin, 0) * alpha**2 / (12 * ROOT2) * (1 - 2e-9))
    slope = -y[:, None] * classifier.input_gradient(X)
    starts = [slope / np.linalg.norm(slope, axis=1, keepdims=True), *unit(rng, (30, 300, 12))]
    for k in range(3 + 5):  # swaps of the strongest own centre for each other one, and of own for own
        own = np.argmax(np.where(gmm.labels == y[:, None], X @ gmm.centers.T, -np.inf), axis=1)
        starts.append((gmm.centers[k] - gmm.centers[own]) / ROOT2)
    right = margin > 0
    nearest = NearestCluster(gmm).nearest_error(X, y)
    lengths = np.linalg.norm(nearest, axis=1, keepdims=True)
    starts.append(np.where(lengths > 0, nearest / np.where(lengths > 0, lengths, 1.0), starts[0]))
    for start in [starts[0], *starts[-9:]]:  # follow the gradient at the boundary: the worst direction
        d = start
        for _ in range(5):
            reach = np.minimum(bayes_attacked(classifier, X, y, [d]), 20.0)
            g = -y[:, None] * classifier.input_gradient(X + reach[:, None] * d)
            d = g / np.linalg.norm(g, axis=1, keepdims=True)
            starts.append(d)
    upper = bayes_attacked(classifier, X, y, starts)
    assert np.all(lower[right] <= upper[right])
    assert np.median(lower[right] / upper[right]) > {0.3: 0.999, 1.0: 0.98, 3.0: 0.75}[alpha]  # measured


def test_bayes_certificate_beats_the_simple_ones(mixture):
    X, _ = spread_out(mixture, 3000, 5)
    classifier = Bayes(mixture)
    y = classifier.predict(X).astype(float)
    tau = mixture.alpha**2 / mixture.dim
    lower = classifier.certified_radius(X, y)
    lipschitz = np.abs(classifier.decision_function(X)) * tau / ROOT2
    # The exact distance to {max own <= max other + tau log K}, by section 6 with the other side raised.
    raised = []
    for x, label in zip(X @ mixture.centers.T, y, strict=True):
        own, other = x[mixture.labels == label], x[mixture.labels != label]
        canonical = pf.OrthonormalGMM(len(own) + 1, len(own), 1, 1.0, centers="canonical")
        level = other.max() + tau * math.log(len(other))
        raised.append(theory.nearest_cluster_radius(canonical, [[*own, level]], [1.0])[0])
    assert np.all(lower >= np.maximum(lipschitz, raised) * (1 - 2e-9))
    assert np.mean(lower > 1.02 * np.maximum(lipschitz, raised)) > 0.2


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_bayes_accuracy_is_the_nearest_cluster_quadrature(alpha):
    gmm = pf.OrthonormalGMM(300, 6, 4, alpha, rng=0)
    data = gmm.sample(10_000, dtype="float64", rng=1)
    lower = Bayes(gmm).certified_radius(data.X, data.y)
    # The two rules' margins differ by tau log max(K1, K2) at most (eq. 4), hence so do the distances.
    apart = alpha**2 / 300 * math.log(6)
    assert np.abs(lower - theory.nearest_cluster_radius(gmm, data.X, data.y)).max() <= apart + 1e-9
    for r in (0.3, 0.5, 0.6, 0.65, 0.69, 0.7):
        low, exact, high = theory.nearest_cluster_accuracy(gmm, [r + apart, r, max(r - apart, 0.0)])
        error = 4.5 * math.sqrt(exact * (1 - exact) / len(data)) + 1.0 / len(data)
        assert low - error < np.mean(lower >= r) < high + error


# ---- nearest cluster


def test_nearest_cluster_is_the_nearest_centre(mixture):
    X, _ = spread_out(mixture, 300, 6)
    nearest = np.argmin(((X[:, None, :] - mixture.centers) ** 2).sum(axis=2), axis=1)
    np.testing.assert_array_equal(NearestCluster(mixture).predict(X), mixture.labels[nearest])


@pytest.mark.parametrize("sizes", [(5, 3), (1, 1), (1, 6), (6, 1)])
def test_nearest_cluster_witness_is_of_the_exact_length_and_flips(sizes):
    gmm = pf.OrthonormalGMM(9, *sizes, 0.5, rng=0)
    classifier = NearestCluster(gmm)
    X, y = spread_out(gmm, 2000, 7)
    X[0], X[1] = 0.0, gmm.centers[0]
    radius, d = theory.nearest_cluster_radius(gmm, X, y), classifier.nearest_error(X, y)
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), radius, rtol=0, atol=1e-12)
    assert np.all(y * classifier.decision_function(X + d) <= 0)
    assert np.all([label * classifier.decision_function([z])[0] <= 0 for z, label in zip(X + d, y, strict=True)])
    np.testing.assert_allclose(classifier.certified_radius(X, y), radius, rtol=2e-9)
    assert np.all(classifier.certified_radius(X, y) <= np.linalg.norm(d, axis=1))
    wrong = y * classifier.decision_function(X) <= 0
    assert np.all(d[wrong] == 0)
    assert 0.2 < wrong.mean() < 0.8


def test_no_perturbation_of_nearest_cluster_is_shorter(mixture):
    classifier, rng = NearestCluster(mixture), np.random.default_rng(8)
    X, _ = spread_out(mixture, 200, 9)
    y = classifier.predict(X).astype(float)
    lower, best = classifier.certified_radius(X, y), classifier.nearest_error(X, y)
    slope = -y[:, None] * classifier.input_gradient(X) / ROOT2
    for trial in range(500):
        d = slope if trial == 0 else best + rng.exponential(0.1) * unit(rng, X.shape)
        d = d / np.linalg.norm(d, axis=1, keepdims=True) * lower[:, None]
        assert np.all(y * classifier.decision_function(X + d) > 0)


def test_centres_that_are_nearly_orthonormal_keep_the_promises():
    rng = np.random.default_rng(0)
    centers = np.eye(6, 10) + 3e-6 * rng.standard_normal((6, 10))
    gmm = pf.OrthonormalGMM(10, 4, 2, 0.5, centers=centers)
    X, y = spread_out(gmm, 500, 1)
    for classifier in (Bayes(gmm), NearestCluster(gmm)):
        d = NearestCluster(gmm).nearest_error(X, y)
        wrong = y * classifier.decision_function(X + d) <= 0
        assert np.all(classifier.certified_radius(X, y)[wrong] <= np.linalg.norm(d[wrong], axis=1))
    assert wrong.all()


# ---- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_module_is_the_network(torch, problem, dtype):
    data = problem(n=20, h=6, D=5, gap=0.02)
    network = data.network(dtype=dtype)
    module = network.to_torch()
    classifier = TorchClassifier(module, batch=7)
    value, gradient = classifier.value_and_input_gradient(data.X)
    assert value.dtype == gradient.dtype == np.float64
    digits = {"float32": 1e-5, "float64": 1e-13}[dtype]
    X = data.X.astype(dtype)
    np.testing.assert_allclose(value, network.decision_function(X), rtol=0, atol=digits)
    np.testing.assert_allclose(gradient, network.input_gradient(X), rtol=0, atol=digits)
    np.testing.assert_array_equal(classifier.decision_function(data.X), value)
    np.testing.assert_array_equal(classifier.input_gradient(data.X), gradient)
    np.testing.assert_array_equal(classifier.predict(data.X), np.where(value > 0, 1, -1))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert isinstance(classifier, Classifier)
    assert repr(classifier) == "TorchClassifier(TwoLayerModule)"


def test_torch_module_is_left_as_it_was(torch):
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), torch.nn.Linear(8, 1)
    )
    module.train()
    module[1].eval()
    module[0].weight.grad = torch.ones(8, 4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    classifier, X = TorchClassifier(module), np.random.default_rng(0).standard_normal((10, 4))
    with torch.inference_mode():
        first = classifier.value_and_input_gradient(X)
    np.testing.assert_array_equal(classifier.input_gradient(X), first[1])  # no dropout
    assert first[0].shape == (10,)
    assert [part.training for part in module.modules()] == [True, True, False, True, True]
    assert torch.equal(module[0].weight.grad, torch.ones(8, 4))
    assert module[3].weight.grad is None
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())

    def fail(*_):
        raise RuntimeError("inside")

    module[3].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="inside"):
        classifier.decision_function(X)
    assert [part.training for part in module.modules()] == [True, True, False, True, True]


def test_torch_module_without_parameters_takes_the_dtype_it_is_given(torch):
    class Sum(torch.nn.Module):
        def forward(self, x):
            self.seen = x.dtype
            return x.sum(dim=1)

    module = Sum()
    for dtype, seen in ((None, torch.float32), ("float64", torch.float64), (np.float32, torch.float32)):
        value, gradient = TorchClassifier(module, dtype=dtype).value_and_input_gradient([[1.0, 2.0], [3.0, 4.0]])
        np.testing.assert_array_equal(value, [3.0, 7.0])
        np.testing.assert_array_equal(gradient, np.ones((2, 2)))
        assert module.seen == seen


def test_torch_modules_that_are_no_classifiers_are_refused(torch):
    class Module(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    X = np.ones((3, 2))
    for function, message in (
        (lambda x: x, r"shape \(3,\) or \(3, 1\) for 3 points, got shape \(3, 2\)"),
        (lambda x: x.sum(), r"got shape \(\)"),
        (lambda x: (x, x), "got tuple"),
        (lambda x: x[:, 0] * float("nan"), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            TorchClassifier(Module(function)).decision_function(X)
    for function in (lambda x: x[:, 0].detach(), lambda x: torch.ones(3, requires_grad=True)):
        with pytest.raises(ValueError, match="differentiable"):
            TorchClassifier(Module(function)).input_gradient(X)
    with pytest.raises(TypeError, match="module"):
        TorchClassifier(lambda x: x)
    with pytest.raises(ValueError, match="batch"):
        TorchClassifier(Module(None), batch=0)
    with pytest.raises(ValueError, match="dtype"):
        TorchClassifier(Module(None), dtype="int32")
    with pytest.raises(ValueError, match="X must be finite"):
        TorchClassifier(Module(lambda x: x[:, 0])).decision_function([[np.nan, 1.0]])


def test_without_torch_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "torch":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"preluflow\[torch\]"):
        TorchClassifier(object())


# ---- bad input


@pytest.mark.parametrize("method", ["decision_function", "input_gradient", "predict"])
def test_bad_points_are_refused(mixture, method):
    for classifier in each(mixture):
        call = getattr(classifier, method)
        for X, error, message in (
            (np.ones(12), ValueError, "X must have 2 dimensions"),
            (np.ones((3, 11)), ValueError, r"X must have shape \(n, 12\)"),
            (np.empty((0, 12)), ValueError, "X must not be empty"),
            (np.full((2, 12), np.nan), ValueError, "X must be finite"),
            (np.ones((2, 12), dtype=complex), TypeError, "X must hold real numbers"),
        ):
            with pytest.raises(error, match=message):
                call(X)


def test_bad_labels_are_refused(mixture):
    X = np.ones((2, 12))
    for classifier in each(mixture):
        for name in ("certified_radius", "nearest_error"):
            if hasattr(classifier, name):
                for y in ([1.0, 0.0], [1.0], [1.0, np.nan]):
                    with pytest.raises(ValueError, match="y must"):
                        getattr(classifier, name)(X, y)
                with pytest.raises(ValueError, match=r"X must have shape \(n, 12\)"):
                    getattr(classifier, name)(X[:, :5], [1.0, 1.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Linear([0.0, 0.0]), ValueError, "w must not be zero"),
        (lambda: Linear([[1.0, 0.0]]), ValueError, "w must have 1 dimension"),
        (lambda: Linear([1.0, np.inf]), ValueError, "w must be finite"),
        (lambda: Linear([1.0], np.nan), ValueError, "b must be finite"),
        (lambda: Bayes(pf.OrthonormalGMM(5, 2, 2, 0.0)), ValueError, "alpha > 0"),
        (lambda: Bayes(pf.OrthonormalGMM(5, 2, 2, 1e-160)), ValueError, "alpha > 0"),
        (lambda: Bayes(np.eye(3)), TypeError, "gmm must be"),
        (lambda: NearestCluster(None), TypeError, "gmm must be"),
    ],
)
def test_bad_parameters_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "loss"),
        ({"step": 0.0}, "step"),
        ({"batch": 0}, "batch"),
        ({"batch": 9}, "batch must be at most"),
        ({"epochs": 0}, "epochs"),
        ({"y": np.zeros(8)}, "y must"),
        ({"loss": "squared", "step": 1e200}, "step must be small enough"),
    ],
)
def test_fit_linear_refuses(problem, change, message):
    data = problem(n=8)
    options = {"X": data.X, "y": data.y, "step": 0.1, "batch": 4, "epochs": 5, **change}
    with pytest.raises(ValueError, match=message):
        fit_linear(options.pop("X"), options.pop("y"), **options)


# ---- linear, of several outputs


def several(C=4, D=6, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.permutation(20)[:C] - 10
    return pf.classifiers.Linear(rng.standard_normal((C, D)), rng.standard_normal(C), classes=classes), rng


def test_outputs_and_gradients_of_several():
    linear, rng = several()
    X, weights = rng.standard_normal((30, 6)), rng.standard_normal((30, 4))
    F = X @ linear.w.T + linear.b
    np.testing.assert_allclose(linear.decision_function(X), F, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(linear.predict(X), linear.classes[np.argmax(F, axis=1)])
    _, slopes = linear.value_and_input_gradient(X, weights)
    np.testing.assert_allclose(slopes, weights @ linear.w, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(linear.input_gradient(X, weights), slopes)
    with pytest.raises(ValueError, match="weights must be given"):
        linear.input_gradient(X)
    one = pf.classifiers.Linear(linear.w[0], 0.3)
    np.testing.assert_allclose(one.input_gradient(X, weights[:, 0]), weights[:, :1] * one.w, rtol=1e-15)


@pytest.mark.parametrize("C", [2, 3, 7])
def test_the_radius_of_several_is_exact(C):
    linear, rng = several(C)
    X, y = rng.standard_normal((60, 6)), linear.classes[rng.integers(C, size=60)]
    radius, d = linear.certified_radius(X, y), linear.nearest_error(X, y)
    right = linear.predict(X) == y
    assert right.any()
    assert not right.all()
    np.testing.assert_array_equal(radius[~right], 0.0)
    np.testing.assert_array_equal(d[~right], 0.0)
    lengths = np.linalg.norm(d, axis=1)
    assert np.all(radius <= lengths)
    np.testing.assert_allclose(radius, lengths, rtol=1e-8)
    own = np.searchsorted(np.sort(linear.classes), y)
    own = np.argsort(linear.classes)[own]
    F = linear.decision_function(X + d)
    rows = np.arange(60)
    mine = F[rows, own].copy()
    F[rows, own] = -np.inf
    assert np.all(mine <= F.max(axis=1))
    np.testing.assert_array_equal(linear.predict(X + 0.999 * d)[right], y[right])


def test_two_outputs_are_their_difference():
    linear, rng = several(2)
    one = pf.classifiers.Linear(linear.w[1] - linear.w[0], linear.b[1] - linear.b[0], classes=linear.classes)
    X = rng.standard_normal((40, 6))
    np.testing.assert_array_equal(linear.predict(X), one.predict(X))
    y = one.predict(X)
    np.testing.assert_allclose(linear.certified_radius(X, y), one.certified_radius(X, y), rtol=1e-12)
    np.testing.assert_allclose(linear.nearest_error(X, y), one.nearest_error(X, y), rtol=0, atol=1e-12)


def test_equal_rows_are_decided_by_their_biases():
    linear = pf.classifiers.Linear([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.5, 0.0, 0.0])
    X = np.array([[2.0, 0.0]])
    np.testing.assert_allclose(linear.certified_radius(X, [0]), 2.5 / np.sqrt(2), rtol=1e-8)
    np.testing.assert_array_equal(linear.certified_radius(X, [1]), 0.0)
    np.testing.assert_array_equal(linear.nearest_error(X, [1]), 0.0)
    for X, y in (([[2.0, 0.0]], [0]), ([[1.0, 3.0]], [2])):
        radius, d = linear.certified_radius(X, y), linear.nearest_error(X, y)
        np.testing.assert_allclose(np.linalg.norm(d, axis=1), radius, rtol=1e-8)


def test_bad_linear_classifiers_of_several_are_refused():
    Linear = pf.classifiers.Linear
    for arguments, message in (
        (([[1.0, 2.0], [1.0, 2.0]],), "w must not be the same in all rows"),
        (([[1.0, 2.0], [1.0, 3.0]], [1.0, 2.0, 3.0]), r"b must be a number or have shape \(2,\)"),
        (([1.0, 2.0], 0.0), r"classes must have shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Linear(*arguments, classes=[1, 2, 3] if "classes" in message else None)
    with pytest.raises(ValueError, match=r"y must hold the labels 5, 3, but y\[0\] is 4"):
        Linear([1.0, 2.0], classes=[5, 3]).certified_radius([[1.0, 1.0]], [4])


def test_as_classifier_returns_ours_unchanged(gmm):
    for classifier in (pf.TwoLayerNetwork([[1.0]], [1.0]), pf.classifiers.Linear([1.0]), pf.classifiers.Bayes(gmm)):
        assert pf.classifiers.as_classifier(classifier) is classifier
    for wrong in (None, 3, pf.classifiers.Linear, "relu"):
        with pytest.raises(TypeError, match="classifier must be a TwoLayerNetwork or have decision_function"):
            pf.classifiers.as_classifier(wrong)


def test_as_classifier_reads_torch_modules(torch):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    assert pf.classifiers.as_classifier(module).num_outputs == 2
    network = pf.TwoLayerNetwork([[1.0]], [1.0])
    assert pf.classifiers.as_classifier(network.to_torch()).plain
