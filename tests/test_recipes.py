"""The papers' searches as their authors ran them: parity with loops in torch, and what they get wrong."""

import numpy as np
import pytest
from conftest import Wells

import preluflow as pf
from preluflow import _recipes, attacks
from preluflow.classifiers import Bayes, Linear, TorchClassifier, class_average_relu, cluster_prelu


@pytest.fixture(scope="module")
def gmm():
    return pf.OrthonormalGMM(40, 3, 2, 0.5, rng=0)


@pytest.fixture(scope="module")
def data(gmm):
    return gmm.sample(120, rng=1)


def near_clusters(gmm, scale=1.0, p=3.0, width=30, noise=0.3, activation="prelu"):
    """Neurons scattered about the centres, of norms that differ; f is about ``scale``."""
    rng = np.random.default_rng(3)
    k = np.arange(width) % gmm.clusters
    W = gmm.centers[k] + noise * rng.standard_normal((width, gmm.dim)) / np.sqrt(gmm.dim)
    v = scale * gmm.labels[k] * gmm.clusters / width * rng.uniform(0.5, 1.5, width)
    return pf.TwoLayerNetwork(W, v, activation, p, dtype="float32")


@pytest.fixture
def torch():
    """Torch, of one thread: these problems are small."""
    module = pytest.importorskip("torch")
    before = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(before)


# ---- PGD


def torch_outputs(torch, network):
    """The network as one writes it in torch, float32, from its weights W and v."""
    W, v = torch.from_numpy(network.W), torch.from_numpy(network.v.astype(np.float32))
    powers = W.norm(dim=1) ** (network.p - 1) if network.activation == "prelu" else torch.ones(len(W))
    return lambda x: (torch.relu(x @ W.T) ** network.p / powers) @ v


def torch_pgd(torch, outputs, X, y, eps, steps, step=0.1):
    """Write down the authors' attack, as the issue states it: the last delta, and which points are right there."""
    x, label = torch.from_numpy(X.astype(np.float32)), torch.from_numpy(y.astype(np.float32))
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        torch.exp(-label * outputs(x + delta)).mean().backward()
        delta = delta.detach() + step * delta.grad / (delta.grad.norm(dim=1, keepdim=True) + 1e-7)
        delta = delta * torch.clamp(eps / delta.norm(dim=1, keepdim=True), max=1.0)
    return delta.numpy(), (label * outputs(x + delta) > 0).numpy()


@pytest.mark.parametrize("kind", ["prelu", "relu", "polynomial", "large"])
@pytest.mark.parametrize("eps", [0.1, 0.6])
def test_pgd_goes_as_the_loop_in_torch(torch, gmm, data, kind, eps):
    options = {"relu": {"p": 1.0}, "polynomial": {"activation": "polynomial"}, "large": {"scale": 12.0}}
    network = near_clusters(gmm, **options.get(kind, {}))
    for steps in (1, 7, 60):
        delta, right = torch_pgd(torch, torch_outputs(torch, network), data.X, data.y, eps, steps)
        found = attacks.pgd(network, data.X, data.y, eps=eps, steps=steps, recipe="mv24")
        # Of a ReLU network, and where steps of 0.1 go to and fro, rounding may decide for a point which side it is on.
        apart = np.linalg.norm(found.delta - delta, axis=1)
        assert np.median(apart) < 3e-6 * eps
        assert np.quantile(apart, 0.9) < 3e-4 * eps
        sure = apart < 1e-3 * eps
        np.testing.assert_array_equal(found.success[sure], ~right[sure])
        np.testing.assert_allclose(found.norms, np.linalg.norm(found.delta, axis=1))
        assert found.norms.max() <= eps


def test_steps_vanish_in_the_ratio_that_float32_and_the_floor_say(gmm, data):
    # Far below the floor a step is step * g / 1e-7, g = exp(-y f) ||grad f|| / n.
    network = near_clusters(gmm, scale=25.0)
    f, gradient = network.value_and_input_gradient(data.X)
    g = np.exp(-data.y * f) * np.linalg.norm(gradient, axis=1) / len(f)
    found = attacks.pgd(network, data.X, data.y, eps=0.5, steps=1, recipe="mv24")
    far = (g < 1e-4 * 1e-7) & (g > 1e-30)
    assert far.sum() > 20
    np.testing.assert_allclose(found.norms[far], 0.1 * g[far] / 1e-7, rtol=1e-3)
    near = g > 1e-3
    np.testing.assert_allclose(found.norms[near], 0.1, rtol=1e-3)


def test_a_network_times_a_hundred_looks_robust_and_is_not(gmm, data):
    network = near_clusters(gmm)
    larger = near_clusters(gmm, scale=100.0)
    accuracies = [attacks.pgd(each, data.X, data.y, eps=0.9, steps=300, recipe="mv24") for each in (network, larger)]
    truth = [pf.robust_radius(each, data.X, data.y).accuracy([0.9])[1][0] for each in (network, larger)]
    assert truth[0] == truth[1] < 0.05
    assert accuracies[1].accuracy > 0.9
    assert np.median(accuracies[1].norms) < 1e-6
    assert np.median(accuracies[0].norms) == pytest.approx(0.9)


def test_points_depend_on_each_other_by_their_number_alone(gmm, data):
    network = near_clusters(gmm, scale=25.0)
    options = {"eps": 0.5, "steps": 30, "recipe": "mv24"}
    whole = attacks.pgd(network, data.X, data.y, **options)
    part = attacks.pgd(network, data.X[:50], data.y[:50], batch=len(data.X), **options)
    alone = attacks.pgd(network, data.X[:50], data.y[:50], **options)
    # A row's gradient may end on another bit in another place of the block.
    np.testing.assert_allclose(part.delta, whole.delta[:50], atol=1e-5)
    np.testing.assert_array_equal(part.success, whole.success[:50])
    assert np.abs(alone.delta - part.delta).max() > 1e-3
    more = attacks.pgd(network, np.tile(data.X, (9, 1)), np.tile(data.y, 9), batch=len(data.X), **options)
    np.testing.assert_allclose(more.delta, np.tile(whole.delta, (9, 1)), atol=1e-5)  # over blocks
    assert whole.gradients == 30 * len(data.X)


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 34, 65, 66, 67, 600, 601])
def test_runs_that_come_back_end_where_all_steps_end(steps):
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    found = attacks.pgd(Wells(), X, np.ones(40), eps=0.6, steps=steps, step=0.07, recipe="mv24")
    delta = np.zeros_like(X)
    for _ in range(steps):
        at = (X + delta).astype(np.float64)
        f, gradient = (each.astype(np.float32) for each in (Wells().decision_function(at), Wells().input_gradient(at)))
        g = (np.float32(1 / 40) * np.exp(-f) * np.float32(-1.0))[:, None] * gradient
        delta = _recipes.moved(delta, g, 0.07)
        length = np.linalg.norm(delta.astype(np.float64), axis=1)
        delta[length > 0.6] *= (0.6 / length[length > 0.6]).astype(np.float32)[:, None]
    np.testing.assert_allclose(found.delta, delta, rtol=0, atol=1e-7)
    assert found.gradients < 0.5 * steps * len(X) or steps < 600


def test_the_last_iterate_is_judged_and_no_other():
    # |x| < 1 is right: at steps of 0.7 from 0.9 in a ball of 0.75 the point is outside, and after a second step back.
    class Bump:
        def decision_function(self, X):
            return np.where(np.abs(X[:, 0] - 0.9) < 0.4, 1.0, -1.0)

        def input_gradient(self, X):
            return np.where(X > 1.0, 1.0, -1.0)

    X, y = np.array([[0.9]]), np.ones(1)
    for steps in (1, 2, 3, 4, 2000, 2001):
        found = attacks.pgd(Bump(), X, y, eps=0.75, steps=steps, step=0.7, recipe="mv24")
        assert found.success[0] == (steps % 2 == 1)
        assert found.norms[0] == pytest.approx(0.7 * (steps % 2), abs=1e-5 if steps < 10 else 1e-3)
        assert found.reached[0] == (-1 if steps % 2 else 1)


def test_points_that_are_wrong_are_attacked_like_the_rest(gmm, data):
    network = near_clusters(gmm)
    found = attacks.pgd(network, data.X, -data.y, eps=0.3, steps=40, recipe="mv24")
    wrong = -data.y * network.decision_function(data.X) < 0
    assert wrong.all()
    assert found.success.all()
    np.testing.assert_allclose(found.norms, 0.3, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float64_networks_and_points_are_taken_as_float32(gmm, data, dtype):
    network = near_clusters(gmm)
    options = {"eps": 0.5, "steps": 25, "recipe": "mv24"}
    found = attacks.pgd(network, data.X, data.y, **options)
    other = attacks.pgd(network.astype(dtype), data.X.astype("float64"), data.y, **options)
    np.testing.assert_array_equal(found.delta, other.delta)
    np.testing.assert_array_equal(found.success, other.success)


def test_outputs_that_underflow_float32_are_errors_and_those_that_overflow_it_are_not(gmm, data):
    # Not rescaled: exp(-y f) = 1 of all, f = 0 in float32; and of the largest, 0 in float32.
    network = cluster_prelu(gmm)
    tiny, huge = (network.replace(log_abs_v=network.log_abs_v + log) for log in (-300.0, 300.0))
    right = data.y * network.decision_function(data.X.astype("float64")) > 0
    found = attacks.pgd(tiny, data.X, data.y, eps=0.5, steps=5, recipe="mv24")
    assert found.success.all()
    assert np.all(found.norms < 1e-30)
    found = attacks.pgd(huge, data.X, data.y, eps=0.5, steps=5, recipe="mv24")
    np.testing.assert_array_equal(found.success, ~right)
    assert np.isfinite(found.delta).all()


def test_other_classifiers_are_rounded_to_float32(torch, gmm, data):
    options = {"eps": 0.4, "steps": 20, "recipe": "mv24"}
    network = near_clusters(gmm)
    own = attacks.pgd(network, data.X, data.y, **options)
    wrapped = attacks.pgd(TorchClassifier(network.to_torch()), data.X, data.y, **options)
    assert np.quantile(np.abs(own.delta - wrapped.delta).max(axis=1), 0.8) < 1e-4
    w = np.arange(1.0, gmm.dim + 1.0) / gmm.dim
    delta, right = torch_pgd(torch, lambda x: x @ torch.from_numpy(w.astype(np.float32)), data.X, data.y, 0.4, 20)
    found = attacks.pgd(Linear(w), data.X, data.y, **options)
    np.testing.assert_allclose(found.delta, delta, atol=1e-5)
    assert np.mean(found.success == ~right) > 0.99
    assert attacks.pgd(Bayes(gmm), data.X, data.y, **options).norms.max() <= 0.4


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [
        ("norm", "linf", "'l2'"),
        ("objective", "margin", "None"),
        ("normalize", True, "None"),
        ("normalize", False, "None"),
        ("restarts", 1, "0"),
        ("bounds", (-9.0, 9.0), "None"),
        ("stop_early", False, "True"),
    ],
)
def test_what_contradicts_the_recipe_is_refused(gmm, data, name, value, own):
    with pytest.raises(ValueError, match=f"{name} must be {own} with recipe 'mv24'"):
        attacks.pgd(cluster_prelu(gmm), data.X, data.y, eps=0.1, recipe="mv24", **{name: value})


def test_recipes_that_are_not_and_options_without_one_are_refused(gmm, data):
    network = cluster_prelu(gmm)
    with pytest.raises(ValueError, match="recipe must be one of 'mv24', got 'mv25'"):
        attacks.pgd(network, data.X, data.y, eps=0.1, recipe="mv25")
    with pytest.raises(ValueError, match="batch must be None without a recipe"):
        attacks.pgd(network, data.X, data.y, eps=0.1, batch=100)
    two = pf.TwoLayerNetwork(np.eye(gmm.dim)[:2], np.eye(2))
    with pytest.raises(ValueError, match="classifier must have one output for recipe 'mv24', got 2"):
        attacks.pgd(two, data.X, np.zeros(len(data.X)), eps=0.1, recipe="mv24")
    for option in ({"batches": 2}, {"scale": 1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be None without a recipe"):
            pf.distance_estimate(network, gmm, **option)
    assert attacks.pgd(network, data.X, data.y, eps=0.1, recipe="mv24", objective="exponential", steps=1, seed=3)


# ---- the distance's estimator


def torch_estimate(torch, network, gmm, rng, batches, batch, steps, step=0.01, scale=None):
    """Write down the authors' estimator, in float32: (c, the largest |c f - F|)."""
    target = (class_average_relu(gmm) if network.p == 1 else cluster_prelu(gmm, network.p)).astype("float32")
    f, F = torch_outputs(torch, network), torch_outputs(torch, target)
    generator = np.random.default_rng(rng)
    if scale is None:
        X = np.concatenate([gmm.sample(batch, dtype="float32", rng=generator).X for _ in range(batches)])
        X = torch.from_numpy(X)
        scale = float((f(X) * F(X)).mean() / (f(X) ** 2).mean())
    largest = 0.0
    for _ in range(batches):
        x = torch.from_numpy(generator.standard_normal((batch, gmm.dim)).astype(np.float32) / np.float32(gmm.dim**0.5))
        x = x / x.norm(dim=1, keepdim=True)
        for _ in range(steps):
            x = x.detach().requires_grad_()
            ((scale * f(x) - F(x)) ** 2).mean().backward()
            x = x.detach() + step * x.grad / (x.grad.norm(dim=1, keepdim=True) + 1e-7)
            x = x / x.norm(dim=1, keepdim=True)
        largest = max(largest, float((scale * f(x) - F(x)).abs().max().detach()))
    return scale, largest


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("kind", ["prelu", "relu", "polynomial", "small"])
def test_estimate_goes_as_the_loop_in_torch(torch, gmm, kind, scale):
    options = {"relu": {"p": 1.0}, "polynomial": {"activation": "polynomial"}, "small": {"scale": 1e-4}}
    network = near_clusters(gmm, **options.get(kind, {}))
    for steps in (0, 5, 80):
        effort = {"batches": 2, "batch": 50, "steps": steps}
        _, expected = torch_estimate(torch, network, gmm, 7, scale=scale, **effort)
        found = pf.distance_estimate(network, gmm, rng=7, recipe="mv24", scale=scale, **effort)
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_fitted_scale_undoes_any_scale(gmm):
    network = near_clusters(gmm)
    effort = {"rng": 7, "recipe": "mv24", "batches": 1, "batch": 50, "steps": 20}
    value = pf.distance_estimate(network, gmm, **effort)
    for log in (-500.0, -50.0, 50.0, 500.0):
        other = network.replace(log_abs_v=network.log_abs_v + log)
        assert pf.distance_estimate(other, gmm, **effort) == pytest.approx(value, rel=1e-4)
    assert pf.distance_estimate(cluster_prelu(gmm, 3.0), gmm, **effort) < 1e-5
    assert pf.distance_estimate(class_average_relu(gmm), gmm, **effort) < 1e-5


@pytest.mark.parametrize("log", [-800.0, -400.0, 0.0, 400.0, 700.0])
def test_the_scale_is_that_of_least_squares(log):
    rng = np.random.default_rng(0)
    f, F = rng.standard_normal((2, 200))
    sign, log_c = _recipes.best_fit(-f * np.exp(max(log, -700.0)), F)
    assert sign == -np.sign(f @ F)
    assert log_c == pytest.approx(np.log(abs(f @ F) / (f @ f)) - max(log, -700.0))
    assert _recipes.best_fit(np.zeros(3), F[:3]) == (0.0, -np.inf)
    assert _recipes.best_fit(np.array([1.0, 1.0]), np.array([1.0, -1.0])) == (0.0, -np.inf)


def test_from_a_zero_network_the_estimate_finds_the_distance_of_one(gmm):
    # sup |0 - F^(3)| = 1, at the centres.
    dead = cluster_prelu(gmm)
    dead = dead.replace(sign=0.0 * dead.sign, log_abs_v=np.full(gmm.clusters, -np.inf))
    effort = {"recipe": "mv24", "batches": 1, "batch": 200}
    low, high = (pf.distance_estimate(dead, gmm, steps=steps, **effort) for steps in (3, 600))
    assert low < 0.6
    assert high == pytest.approx(1.0, abs=1e-4)
    assert pf.distance_estimate(dead, gmm, steps=600, scale=1.0, **effort) == pytest.approx(1.0, abs=1e-4)


def test_at_scale_one_the_estimate_is_below_the_bracket(gmm):
    for seed in range(3):
        network = pf.initialize(30, gmm.dim, 0.3, rng=seed)
        found = pf.distance_estimate(network, gmm, recipe="mv24", batches=2, batch=100, steps=300, scale=1.0)
        bracket = pf.distance_bracket(network, gmm)
        assert 0.5 * bracket.lower < found <= bracket.upper * (1 + 1e-5)


def test_observed_estimates_are_by_the_recipe_asked_for(gmm, data):
    options = {"recipe": "mv24", "batches": 1, "batch": 20, "steps": 5, "scale": 1.0}
    look = pf.Observe(every=1, what=["distance_estimate"], gmm=gmm, estimator=options, networks=True)
    start = pf.initialize(10, gmm.dim, 0.1, rng=0)
    run = pf.gradient_descent(start, data.X, data.y, step=0.1, steps=2, observe=look)
    expected = [pf.distance_estimate(network, gmm, **options) for network in run.networks]
    np.testing.assert_array_equal(run["distance_estimate"], expected)
