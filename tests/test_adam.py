"""Adam, against torch's step for step, and where weights leave the range that torch's take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import preluflow as pf

N, D, H, BATCH = 30, 4, 6, 8  # a last batch of 6 points
EPOCHS = 13  # of 4 batches: 52 steps
KINDS = [("prelu", 1.0), ("prelu", 3.0), ("prelu", 1.5), ("polynomial", 2.0), ("polynomial", 2.7), ("tanh", 1.0)]
each_kind = pytest.mark.parametrize(("activation", "p"), KINDS)


@dataclass
class Problem:
    """Data, targets and a start of some size."""

    network: pf.TwoLayerNetwork
    X: np.ndarray
    y: np.ndarray
    loss: str

    @classmethod
    def make(cls, activation, p, outputs=1, loss=None, size=1.0, dtype="float64", seed=0):
        rng = np.random.default_rng(seed)
        W = size * 0.5 * rng.standard_normal((H, D))
        V = size * 0.5 * rng.standard_normal((H, outputs))
        X = rng.standard_normal((N, D))
        loss = loss or ("logistic" if outputs == 1 else "cross_entropy")
        if loss == "squared":
            y = rng.standard_normal((N, outputs) if outputs > 1 else N)
        else:
            y = rng.integers(0, outputs, N) if outputs > 1 else rng.choice([-1, 1], N)
        network = pf.TwoLayerNetwork(W, V[:, 0] if outputs == 1 else V, activation, p, dtype=dtype)
        return cls(network, X.astype(dtype), y, loss)

    def train(self, epochs=EPOCHS, batch=BATCH, rng=5, **options):
        return pf.adam(self.network, self.X, self.y, batch=batch, epochs=epochs, loss=self.loss, rng=rng, **options)


def raw(network, biases):
    """Weights as they are trained: W (h, D) or (h, D + 1), V (h, C), B (C,)."""
    W, V = network.directions.astype(np.float64) * network.norms[:, None], network.v.reshape(network.width, -1)
    B = np.zeros(V.shape[1]) if network.output_bias is None else network.output_bias
    if biases not in ("hidden", "both"):
        return W, V, B
    b = np.zeros(len(W)) if network.hidden_bias is None else network.hidden_bias
    if network.activation == "prelu":
        V = V * ((1.0 + b**2 / (W**2).sum(axis=1)) ** (0.5 * (network.p - 1.0)))[:, None]
    return np.column_stack([W, b]), V, B


def torch_adam(problem, *, biases=None, train="both", weight=None, epochs=EPOCHS, batch=BATCH, **options):
    """Weights after torch's Adam on the same batches, written out on raw weights."""
    torch = pytest.importorskip("torch")
    net = problem.network
    dtype = torch.float64 if net.dtype == np.float64 else torch.float32
    W, V, B = (torch.tensor(np.asarray(part), dtype=dtype) for part in raw(net, biases))
    X, y = torch.tensor(problem.X, dtype=dtype), torch.tensor(problem.y)
    if biases in ("hidden", "both"):
        X = torch.cat([X, torch.ones(len(X), 1, dtype=dtype)], dim=1)
    trained = [W] * (train != "outer") + [V] * (train != "inner")
    trained += [B] * (biases in ("output", "both") and train != "inner")
    for part in trained:
        part.requires_grad_(True)
    share = torch.ones(len(X), dtype=dtype) if weight is None else torch.tensor(weight / weight.mean(), dtype=dtype)

    def losses(rows):
        z = X[rows] @ W.T
        if net.activation == "tanh":
            phi = torch.tanh(z)
        else:
            phi = torch.relu(z) ** net.p
            if net.activation == "prelu":
                phi = phi / W.norm(dim=1) ** (net.p - 1.0)
        F = phi @ V + B
        if problem.loss == "cross_entropy":
            return torch.nn.functional.cross_entropy(F, y[rows], reduction="none")
        if problem.loss == "squared":
            return ((y[rows].reshape(F.shape).to(dtype) - F) ** 2).sum(dim=1)
        margin = y[rows] * F[:, 0]
        return torch.exp(-margin) if problem.loss == "exponential" else torch.nn.functional.softplus(-margin)

    optimizer = torch.optim.Adam(trained, **options)
    rng = np.random.default_rng(5)
    for _ in range(epochs):
        order = rng.permutation(len(X))
        for first in range(0, len(X), batch):
            rows = order[first : first + batch]
            optimizer.zero_grad()
            (share[rows] * losses(rows)).mean().backward()
            optimizer.step()
    return [part.detach().double().numpy() for part in (W, V, B)]


def assert_weights(network, biases, expected, rtol):
    for name, ours, theirs in zip("WVB", raw(network, biases), expected, strict=True):
        largest = max(float(np.abs(theirs).max()), 1e-300)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * largest, err_msg=name)


# ---- torch's, step for step


@each_kind
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("biases", [None, "both"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_fifty_steps_are_those_of_torch(activation, p, outputs, biases, decay):
    problem = Problem.make(activation, p, outputs)
    run = problem.train(step=0.02, biases=biases, weight_decay=decay)
    assert run.stats["iterations"] == 4 * EPOCHS
    assert run.status == "finished" and run.method == "adam"
    assert_weights(run.network, biases, torch_adam(problem, lr=0.02, biases=biases, weight_decay=decay), 1e-9)


@pytest.mark.parametrize("loss", ["squared", "exponential"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_every_loss_is_torchs(loss, outputs):
    if outputs > 1 and loss == "exponential":
        loss = "squared"
    problem = Problem.make("prelu", 3.0, outputs, loss)
    assert_weights(problem.train(step=0.02).network, None, torch_adam(problem, lr=0.02), 1e-9)


@each_kind
def test_single_precision_is_torchs_up_to_rounding(activation, p):
    problem = Problem.make(activation, p, dtype="float32")
    run = problem.train(step=0.02, biases="both", weight_decay=0.01)
    assert run.network.dtype == np.float32
    assert_weights(run.network, "both", torch_adam(problem, lr=0.02, biases="both", weight_decay=0.01), 2e-4)


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.5, 0.9), (0.3, 0.4)])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_rates_and_eps_are_torchs(betas, eps):
    problem = Problem.make("prelu", 2.0)
    run = problem.train(step=0.01, betas=betas, eps=eps)
    assert_weights(run.network, None, torch_adam(problem, lr=0.01, betas=betas, eps=eps), 1e-9)
    assert (run.config["beta1"], run.config["beta2"], run.config["eps"]) == (*betas, eps)


def test_the_defaults_are_torchs():
    problem = Problem.make("prelu", 3.0)
    assert_weights(problem.train().network, None, torch_adam(problem), 1e-9)


@pytest.mark.parametrize("train", ["inner", "outer"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_frozen_layer_stays_and_the_other_is_torchs(train, outputs):
    problem = Problem.make("prelu", 3.0, outputs)
    run = problem.train(step=0.02, biases="output", train=train, weight_decay=0.05)
    expected = torch_adam(problem, lr=0.02, biases="output", train=train, weight_decay=0.05)
    assert_weights(run.network, "output", expected, 1e-9)
    frozen = ["sign", "log_abs_v"] if train == "inner" else ["directions", "log_norm"]
    for name in frozen:
        np.testing.assert_array_equal(getattr(run.network, name), getattr(problem.network, name))
    assert (run.network.output_bias is None) == (train == "inner")


def test_weights_of_points_are_torchs():
    problem = Problem.make("prelu", 3.0)
    weight = np.random.default_rng(1).random(N)
    run = problem.train(step=0.02, sample_weight=weight)
    assert_weights(run.network, None, torch_adam(problem, lr=0.02, weight=weight), 1e-9)


# ---- beyond torch


@pytest.mark.parametrize(("size", "p"), [(1e-6, 3.0), (1e-12, 3.0), (1e-60, 3.0), (1e-60, 1.0), (1e-140, 1.0)])
def test_small_weights_are_torchs_in_double(size, p):
    """Squares of gradients are far below eps, as torch's are. (Of p = 3, torch's own cubes underflow at 1e-140.)"""
    problem = Problem.make("prelu", p, size=size, loss="squared")
    expected = torch_adam(problem, lr=0.02)
    assert_weights(problem.train(step=0.02).network, None, expected, 1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_whose_gradients_are_below_the_dtype_stay_as_they_are(dtype):
    start = pf.initialize(7, D, 1e-300, dtype=dtype, rng=0)
    problem = Problem.make("prelu", 3.0, dtype=dtype)
    run = pf.adam(start, problem.X, problem.y, step=1e-3, batch=N, epochs=2, loss="logistic", rng=0)
    end = run.network
    assert run.status == "finished"
    # Double holds a gradient of 1e-300: it moves weights by 1e-3 * 1e-300 / 1e-8 a step. Single does not; v is double.
    assert np.all(end.log_abs_v < np.log(1e-285)) and np.all(end.log_abs_v > np.log(1e-302))
    if dtype == "float32":
        np.testing.assert_array_equal(end.directions, start.directions)
        np.testing.assert_array_equal(end.log_norm, start.log_norm)
    else:
        assert np.all(end.log_norm < np.log(1e-285)) and np.all(end.log_norm > start.log_norm)


@pytest.mark.parametrize("size", [1e-37, 1e-44, 1e-200])
def test_neurons_below_single_precision_move_with_gradients_that_are_not(size):
    """Norms below float32 with output weights of 1: the weights are put together entry by entry, as double has them."""
    ends = []
    for dtype in ("float32", "float64"):
        problem = Problem.make("prelu", 3.0, dtype=dtype, loss="squared")
        log_norm = problem.network.log_norm + np.log(size)
        problem.network = problem.network.replace(log_norm=log_norm)
        ends.append(problem.train(epochs=2, step=1e-3).network)
    single, double = ends
    np.testing.assert_allclose(single.log_norm, double.log_norm, rtol=0, atol=1e-4)
    np.testing.assert_allclose(single.directions, double.directions, rtol=0, atol=1e-4)
    assert np.all(double.norms > 1e-6)


def test_a_neuron_put_together_keeps_what_it_was_where_the_update_is_smaller():
    """With eps far above gradients an update of 1e-45 is added to weights of 1e-38, not put in their place."""
    ends = []
    for dtype in ("float32", "float64"):
        problem = Problem.make("prelu", 3.0, dtype=dtype, loss="squared")
        problem.network = problem.network.replace(log_norm=problem.network.log_norm + np.log(1e-32))
        ends.append(problem.train(epochs=2, step=1e-3, eps=1e30).network)
    single, double = ends
    assert np.abs(double.log_norm - np.log(1e-32) - Problem.make("prelu", 3.0).network.log_norm).max() > 1e-3
    np.testing.assert_allclose(single.log_norm, double.log_norm, rtol=0, atol=1e-5)
    np.testing.assert_allclose(single.directions, double.directions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["prelu", "polynomial", "tanh"])
def test_a_dead_neuron_stays_dead_unless_it_has_a_gradient(activation):
    problem = Problem.make(activation, 2.0)
    W = problem.network.W.copy()
    W[2] = 0.0
    problem.network = pf.TwoLayerNetwork(W, problem.network.v, activation, 2.0)
    end = problem.train(step=0.02).network
    if activation == "tanh":
        assert_weights(end, None, torch_adam(problem, lr=0.02), 1e-9)
        assert end.norms[2] > 0.01
    else:
        assert np.isneginf(end.log_norm[2]) and not end.directions[2].any()
        assert np.isfinite(end.directions).all()


def test_a_gradient_whose_square_leaves_the_dtype_ends_the_run_at_the_last_state():
    problem = Problem.make("prelu", 3.0, dtype="float32", loss="squared")
    problem.y = 1e25 * problem.y
    run = problem.train()
    assert run.status == "not_finite" and run.stats["iterations"] == 0
    np.testing.assert_array_equal(run.network.directions, problem.network.directions)
    np.testing.assert_array_equal(run.network.log_abs_v, problem.network.log_abs_v)


def test_large_weights_are_not_cut_off():
    """Norms of 1e25, whose squares single precision does not hold, are summed in double."""
    ends = []
    for dtype in ("float32", "float64"):
        problem = Problem.make("prelu", 1.0, dtype=dtype, loss="logistic")
        start = problem.network.log_norm + np.log(1e25)
        problem.network = problem.network.replace(log_norm=start)
        ends.append(problem.train(step=1e22, epochs=2, train="inner").network)
    assert np.abs(ends[1].log_norm - start).max() > 1e-3
    np.testing.assert_allclose(ends[0].log_norm, ends[1].log_norm, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ends[0].directions, ends[1].directions, rtol=0, atol=1e-5)


# ---- manners


def test_bits_do_not_depend_on_threads_or_on_where_the_data_lie(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((700, 300)).astype(np.float32)
    y = rng.integers(0, 10, 700)
    np.save(tmp_path / "X.npy", X)
    start = pf.initialize(60, 300, 0.1, outputs=10, rng=0)  # several tasks of neurons' scalars
    options = {"batch": 300, "epochs": 2, "loss": "cross_entropy", "biases": "both", "rng": 1}
    first = pf.adam(start, X, y, num_threads=1, **options)
    for data, threads in ((X, 2), (X, None), (np.load(tmp_path / "X.npy", mmap_mode="r"), 2)):
        other = pf.adam(start, data, y, num_threads=threads, **options)
        for name in ("directions", "log_norm", "log_abs_v", "output_bias", "offsets"):
            np.testing.assert_array_equal(getattr(other.network, name), getattr(first.network, name))
        np.testing.assert_array_equal(other["loss"], first["loss"])


def test_epochs_are_observed_and_kept(tmp_path):
    problem = Problem.make("prelu", 3.0)
    run = problem.train(epochs=6, step=0.05, observe=pf.Observe(every=2), events=[pf.events.loss_below(1e-9)])
    np.testing.assert_array_equal(run["epoch"], [0, 2, 4, 6])
    np.testing.assert_array_equal(run.iterations, [0, 8, 16, 24])
    np.testing.assert_allclose(run.t, 0.05 * run.iterations)
    assert run["loss"][-1] < run["loss"][0]
    run.save(tmp_path / "run.npz")
    again = pf.Run.load(tmp_path / "run.npz")
    assert again.method == "adam"
    np.testing.assert_array_equal(again.network.directions, run.network.directions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be less than 1"),
        ({"betas": (-0.1, 0.9)}, r"betas\[0\] must be at least 0"),
        ({"betas": 0.9}, "betas must be a pair"),
        ({"eps": 0.0}, "eps must be greater than 0"),
        ({"eps": 1e-310}, "eps must be at least"),
        ({"batch": N + 1}, "batch must be at most"),
        ({"step": -1.0}, "step must be greater than 0"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Problem.make("prelu", 3.0).train(**options)
