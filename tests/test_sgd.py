import signal

import numpy as np
import pytest
import reference as ref
from conftest import assert_same_networks, assert_same_runs, assert_whole

import preluflow as pf


def sgd(network, X, y, **options):
    return pf.sgd(network, X, y, **{"step": 0.1, "batch": 16, "epochs": 3, "rng": 0, **options})


def naive_sgd(data, activation, p, loss, step, batch, epochs, seed):
    """(W, v) after mini-batches without replacement; a short last batch is a mean over its own points."""
    W, v, generator, n = data.W, data.v, np.random.default_rng(seed), len(data.y)
    for _ in range(epochs):
        order = generator.permutation(n)
        for first in range(0, n, batch):
            rows = order[first : first + batch]
            W, v, _ = ref.descend(W, v, data.X[rows], data.y[rows], activation, p, loss, step, 1)
    return W, v


@pytest.mark.parametrize(("activation", "p"), [("prelu", 1.0), ("prelu", 3.0), ("polynomial", 2.7), ("tanh", 3.0)])
@pytest.mark.parametrize("loss", ref.LOSSES)
@pytest.mark.parametrize(("n", "h", "batch"), [(40, 6, 40), (40, 6, 16), (9, 70, 1), (300, 6, 130)])
def test_parity_with_the_oracle(problem, activation, p, loss, n, h, batch):
    data = problem(n=n, h=h, D=5, seed=6)
    run = sgd(data.network(activation, p), data.X, data.y, loss=loss, step=0.02, batch=batch, rng=9)
    W, v = naive_sgd(data, activation, p, loss, 0.02, batch, 3, 9)
    assert run.status == "finished"
    np.testing.assert_allclose(run.network.W, W, rtol=0, atol=1e-10)
    np.testing.assert_allclose(run.network.v, v, rtol=0, atol=1e-10)
    expected = [ref.mean_loss(*theta, data.X, data.y, activation, p, loss) for theta in ((data.W, data.v), (W, v))]
    np.testing.assert_allclose(run["loss"], expected, rtol=1e-10)


@pytest.mark.parametrize("activation", ["prelu", "polynomial", "tanh"])
@pytest.mark.parametrize("loss", ref.LOSSES)
def test_parity_with_torch_over_two_epochs(problem, activation, loss):
    torch = pytest.importorskip("torch")
    data = problem(n=110, h=12, D=7, seed=3)
    network = data.network(activation, 3.0)
    run = sgd(network, data.X, data.y, loss=loss, step=0.05, batch=25, epochs=2, rng=4)  # last batch: 10 points
    criterion = {
        "squared": lambda f, y: ((y - f) ** 2).mean(),
        "exponential": lambda f, y: torch.exp(-y * f).mean(),
        "logistic": lambda f, y: torch.nn.functional.softplus(-y * f).mean(),
    }[loss]
    module, generator = network.to_torch(), np.random.default_rng(4)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    X, y = torch.from_numpy(data.X), torch.from_numpy(np.asarray(data.y, dtype=float))
    for _ in range(2):
        for rows in torch.from_numpy(generator.permutation(110)).split(25):
            optimizer.zero_grad()
            criterion(module(X[rows]), y[rows]).backward()
            optimizer.step()
    again = pf.TwoLayerNetwork.from_torch(module)
    np.testing.assert_allclose(run.network.W, again.W, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.network.v, again.v, rtol=0, atol=1e-12)
    assert run.stats["iterations"] == 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 30, 700])
def test_the_loss_at_a_stop_is_that_of_all_the_data(dtype, batch):
    # More points than a batch, and than the kernel's buffers hold.
    data = pf.OrthonormalGMM(20, 2, 2, 0.3, rng=0).sample(1100, dtype=dtype, rng=1)
    network = pf.initialize(40, 20, 0.3, kind="gaussian", dtype=dtype, rng=2)
    run = sgd(network, data.X, data.y, batch=batch, epochs=1, step=0.01, observe=pf.Observe(every=1))
    expected = [net.loss_gradient(data.X, data.y).loss for net in (network, run.network)]
    np.testing.assert_allclose(run["loss"], expected, rtol=1e-12)


def test_stops_count_epochs_and_time_counts_iterations(small):
    network, data, _ = small
    run = sgd(network, data.X, data.y, batch=25, epochs=5, observe=pf.Observe(every=2, at=[3]))
    np.testing.assert_array_equal(run["epoch"], [0, 2, 3, 4, 5])
    np.testing.assert_array_equal(run.iterations, 3 * run["epoch"])  # 60 points: batches of 25, 25 and 10
    np.testing.assert_allclose(run.t, 0.1 * run.iterations, rtol=1e-15)
    assert run.stats["epochs"] == 5
    assert run.stats["iterations"] == 15


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "h", "D", "batch"), [(3000, 200, 30, 100), (3000, 70, 100, 2999), (50, 3, 2, 7)])
def test_bits_do_not_depend_on_threads(n, h, D, batch, dtype):
    # An epoch of the first two is 7e7 flops or more: enough for a team of threads (Team::run in parallel.hpp).
    data = pf.OrthonormalGMM(D, 1, 1, 0.3, rng=0).sample(n, dtype=dtype, rng=1)
    network = pf.initialize(h, D, 0.05, dtype=dtype, rng=2)
    runs = [sgd(network, data.X, data.y, batch=batch, num_threads=threads) for threads in (1, 2, 3)]
    for run in runs[1:]:
        assert_same_runs(runs[0], run)


def test_the_order_is_the_generators(small):
    network, data, _ = small
    one, same, other = (sgd(network, data.X, data.y, rng=rng) for rng in (0, np.random.default_rng(0), 1))
    assert_same_runs(one, same)
    assert np.abs(one.network.W - other.network.W).max() > 1e-6


def test_scale_does_not_matter(small):
    network, data, _ = small
    shift = np.log(1e-300)
    tiny = network.replace(log_norm=network.log_norm + shift, log_abs_v=network.log_abs_v + shift)
    small_ = network.replace(log_norm=network.log_norm + np.log(1e-8), log_abs_v=network.log_abs_v + np.log(1e-8))
    ends = [sgd(start, data.X, data.y).network.directions for start in (tiny, small_)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-12)


def test_a_huge_step_is_not_finite(small):
    network, data, _ = small
    run = sgd(network, data.X, data.y, step=1e6, epochs=50, loss="exponential", observe=pf.Observe(every=1))
    assert run.status == "not_finite"
    assert run.stats["epochs"] < 50
    assert_whole(run)


def test_ctrl_c_keeps_what_was_done(small):
    network, data, _ = small

    def stop(at):
        if at.iteration > 4:
            signal.raise_signal(signal.SIGINT)
        return 0.0

    run = sgd(network, data.X, data.y, epochs=9, observe=pf.Observe(every=1, what=["loss", stop]))
    assert run.status == "interrupted"
    np.testing.assert_array_equal(run["epoch"], [0, 1])
    assert_whole(run)
    assert_same_networks(run.network, sgd(network, data.X, data.y, epochs=2).network)
