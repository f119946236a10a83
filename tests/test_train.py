import itertools
import os
import signal
import threading

import numpy as np
import pytest
import reference as ref
from conftest import assert_same_networks, assert_same_runs, assert_whole, make_problem
from hypothesis import given, settings
from hypothesis import strategies as st

import preluflow as pf

each_kind = pytest.mark.parametrize(("activation", "p"), ref.KINDS)
each_loss = pytest.mark.parametrize("loss", ref.LOSSES)


def descend(network, X, y, **options):
    return pf.gradient_descent(network, X, y, **{"step": 0.1, "steps": 50, **options})


# ---- parity


@each_kind
@each_loss
def test_fifty_steps_are_the_oracles_raw_descent(problem, activation, p, loss):
    data = problem(n=40, h=6, D=5, seed=3)
    run = descend(data.network(activation, p), data.X, data.y, loss=loss, observe=pf.Observe(every=1, what=["loss"]))
    W, v, curve = ref.descend(data.W, data.v, data.X, data.y, activation, p, loss, 0.1, 50)
    assert run.status == "finished"
    np.testing.assert_array_equal(run.iterations, np.arange(51))
    np.testing.assert_allclose(run.t, 0.1 * np.arange(51), rtol=1e-14)
    np.testing.assert_allclose(run["loss"], curve, rtol=1e-10)
    np.testing.assert_allclose(run.network.W, W, rtol=0, atol=1e-10)
    np.testing.assert_allclose(run.network.v, v, rtol=0, atol=1e-10)
    assert np.abs(W - data.W).max() > 1e-2  # it moved


@each_loss
@pytest.mark.parametrize(("activation", "p"), [("prelu", 1.0), ("prelu", 3.0), ("polynomial", 1.5), ("tanh", 3.0)])
def test_float32_follows_the_oracle(problem, activation, p, loss):
    data = problem(n=40, h=6, D=5, seed=3, gap=0.02)
    network, X = data.network(activation, p, "float32"), data.X.astype(np.float32)
    run = descend(network, X, data.y, loss=loss, steps=20)
    W, v, curve = ref.descend(
        network.W.astype(float), network.v, X.astype(float), data.y, activation, p, loss, step=0.1, steps=20
    )
    np.testing.assert_allclose(run["loss"], curve[[0, -1]], rtol=1e-5)
    np.testing.assert_allclose(run.network.W, W, rtol=0, atol=2e-5)
    np.testing.assert_allclose(run.network.v, v, rtol=0, atol=2e-5)


@each_kind
@each_loss
def test_fifty_steps_are_torchs_autograd_and_sgd(problem, activation, p, loss):
    torch = pytest.importorskip("torch")
    data = problem(n=40, h=6, D=5, seed=4)
    W, v = (torch.tensor(array, requires_grad=True) for array in (data.W, data.v))
    X, y = torch.tensor(data.X), torch.tensor(data.y)
    optimizer = torch.optim.SGD([W, v], lr=0.1)
    curve = []
    for _ in range(51):
        z = X @ W.T
        if activation == "tanh":
            hidden = torch.tanh(z)
        else:
            hidden = torch.relu(z) ** p
            if activation == "prelu":
                hidden = hidden / W.norm(dim=1) ** (p - 1.0)
        f = hidden @ v
        if loss == "squared":
            value = ((y - f) ** 2).mean()
        elif loss == "exponential":
            value = torch.exp(-y * f).mean()
        else:
            value = torch.nn.functional.softplus(-y * f).mean()
        curve.append(value.item())
        if len(curve) < 51:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    run = descend(data.network(activation, p), data.X, data.y, loss=loss, observe=pf.Observe(every=1, what=["loss"]))
    np.testing.assert_allclose(run["loss"], curve, rtol=1e-10)
    np.testing.assert_allclose(run.network.W, W.detach().numpy(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(run.network.v, v.detach().numpy(), rtol=0, atol=1e-10)


@settings(max_examples=60)
@given(
    n=st.sampled_from([1, 2, 3, 127, 128, 129, 255, 257]),
    h=st.sampled_from([1, 2, 63, 64, 65, 129]),
    D=st.sampled_from([1, 2, 3, 8, 17]),
    kind=st.sampled_from(ref.KINDS),
    loss=st.sampled_from(ref.LOSSES),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_every_shape_agrees_with_the_oracle(n, h, D, kind, loss, threads, seed):
    check_against_oracle(n, h, D, kind, loss, threads, seed)


@pytest.mark.parametrize("n", [2047, 2048, 2049, 8192, 8193, 16500])
def test_sizes_at_the_edges_of_stripes_and_chunks_agree_with_the_oracle(n):
    check_against_oracle(n, 5, 3, ("prelu", 3.0), "squared", 2, n)


def check_against_oracle(n, h, D, kind, loss, threads, seed):
    data = make_problem(n, h, D, seed)
    W, v, X, y = data.W, data.v, data.X, data.y
    network = data.network(*kind)
    W_gradient, v_gradient = ref.loss_gradient(W, v, X, y, *kind, loss)
    found = network.loss_gradient(X, y, loss=loss, num_threads=threads)
    scale = max(1.0, np.abs(W_gradient).max(), np.abs(v_gradient).max())
    np.testing.assert_allclose(found.loss, ref.mean_loss(W, v, X, y, *kind, loss), rtol=1e-11)
    np.testing.assert_allclose(found.W, W_gradient, rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(found.v, v_gradient, rtol=0, atol=1e-11 * scale)
    step = 0.1 / scale
    run = descend(network, X, y, loss=loss, step=step, steps=2, num_threads=threads)
    W2, v2, _ = ref.descend(W, v, X, y, *kind, loss, step, 2)
    np.testing.assert_allclose(run.network.W, W2, rtol=0, atol=1e-11)
    np.testing.assert_allclose(run.network.v, v2, rtol=0, atol=1e-11)


# ---- conservation


def conserved(network, kappa):
    return network.norms**2 - kappa * network.v**2


@each_loss
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_balancedness_is_conserved_to_first_order_in_the_step(problem, activation, p, loss):
    data = problem(n=40, h=6, D=5, seed=5)
    network, kappa = data.network(activation, p), p if activation == "polynomial" else 1.0
    drifts = []
    for halvings in (0, 1, 2):
        run = descend(network, data.X, data.y, loss=loss, step=0.01 / 2**halvings, steps=100 * 2**halvings)
        drifts.append(np.abs(conserved(run.network, kappa) - conserved(network, kappa)))
    moved = np.abs(run.network.norms**2 - network.norms**2)
    assert drifts[0].max() < 0.05 * moved.max()
    for coarse, fine in itertools.pairwise(drifts):
        assert coarse.max() / fine.max() == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
def test_one_step_breaks_balancedness_by_the_square_of_the_gradient(problem, activation):
    # The first-order terms cancel exactly: Q(1) - Q(0) = step^2 (||dL/dw||^2 - kappa (dL/dv)^2).
    data, p, step = problem(n=40, h=6, D=5), 3.0, 0.1
    network, kappa = data.network(activation, p), p if activation == "polynomial" else 1.0
    gradient = network.loss_gradient(data.X, data.y)
    after = descend(network, data.X, data.y, step=step, steps=1).network
    expected = step**2 * (np.sum(gradient.W**2, axis=1) - kappa * gradient.v**2)
    np.testing.assert_allclose(conserved(after, kappa) - conserved(network, kappa), expected, rtol=0, atol=1e-14)


# ---- bits


@pytest.mark.parametrize(("n", "h", "D", "steps"), [(5000, 200, 30, 3), (300, 70, 17, 8), (9000, 65, 3, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_threads(n, h, D, steps, dtype):
    gmm = pf.OrthonormalGMM(D, 2, 1, 0.3, rng=0)
    data = gmm.sample(n, dtype=dtype, rng=1)
    network = pf.initialize(h, D, 0.05, dtype=dtype, rng=2)
    observe = pf.Observe(every=2, what=sorted(pf.observe.OBSERVERS), gmm=gmm)
    runs = [descend(network, data.X, data.y, steps=steps, observe=observe, num_threads=k) for k in (1, 2, 3)]
    gradients = [network.loss_gradient(data.X, data.y, num_threads=k) for k in (1, 2, 3)]
    for k in (1, 2):
        assert_same_runs(runs[0], runs[k])
        assert gradients[0].loss == gradients[k].loss
        for name in ("outputs", "residual", "W", "v"):
            np.testing.assert_array_equal(getattr(gradients[0], name), getattr(gradients[k], name))


@pytest.mark.parametrize(("n", "h", "D"), [(300, 70, 17), (7, 3, 2), (40, 1, 9), (1, 5, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_where_the_data_lies_in_memory(problem, n, h, D, dtype):
    data = problem(n=n, h=h, D=D)
    network, runs = data.network("prelu", 1.5, dtype), []
    for offset in range(4):
        memory = np.empty(n * D + offset, dtype=dtype)
        X = memory[offset:].reshape(n, D)
        X[...] = data.X
        runs.append(descend(network, X, data.y, steps=5))
    for run in runs[1:]:
        assert_same_runs(runs[0], run)


def test_stops_do_not_change_the_run(small):
    network, data, _ = small
    plain = descend(network, data.X, data.y)
    watched = descend(network, data.X, data.y, observe=pf.Observe(every=1, at=[7], what=["accuracy", "norms"]))
    assert_same_networks(plain.network, watched.network)
    assert (plain.stats["iterations"], plain.stats["gradients"]) == (50, 51)
    assert (watched.stats["iterations"], watched.stats["gradients"]) == (50, 51)


# ---- scale


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-12)])
def test_descent_at_1e_300_moves_directions_like_1e_7(dtype, tolerance):
    gmm = pf.OrthonormalGMM(30, 3, 2, 0.1, rng=0)
    data = gmm.sample(100, balanced=True, dtype=dtype, rng=1)
    starts = [pf.initialize(20, 30, epsilon, dtype=dtype, rng=2) for epsilon in (1e-7, 1e-300)]
    runs = [descend(start, data.X, data.y, step=0.2, steps=60) for start in starts]
    assert [run.status for run in runs] == ["finished", "finished"]
    cosine = np.einsum("jd,jd->j", starts[1].directions.astype(float), runs[1].network.directions.astype(float))
    assert cosine.min() < 0.9  # neurons turned far
    f = runs[0].network.decision_function(data.X)  # at 1e-7 the dynamics feel it, at 1e-300 it is 0
    tolerance += 10 * np.abs(f).max()
    assert tolerance < 1e-5
    np.testing.assert_allclose(runs[0].network.directions, runs[1].network.directions, rtol=0, atol=tolerance)
    growth = [run.network.log_norm - start.log_norm for run, start in zip(runs, starts, strict=True)]
    np.testing.assert_allclose(growth[0], growth[1], rtol=0, atol=10 * tolerance)
    np.testing.assert_array_equal(runs[1]["loss"], 1.0)  # f is 0 to float64


# ---- how a run ends


def test_finished(small):
    network, data, _ = small
    run = descend(network, data.X, data.y, steps=7)
    assert run.status == "finished"
    assert "7" in run.message
    np.testing.assert_array_equal(run.iterations, [0, 7])
    assert run["loss"][1] < run["loss"][0]


def test_no_steps_is_a_run_of_one_stop(small):
    network, data, _ = small
    run = descend(network, data.X, data.y, steps=0)
    assert run.status == "finished"
    np.testing.assert_array_equal(run.iterations, [0])
    assert_same_networks(run.network, network)


@pytest.mark.parametrize(("dtype", "loss"), [("float32", "exponential"), ("float64", "exponential")])
def test_a_huge_step_is_not_finite(small, dtype, loss):
    network, data, _ = small
    network, X = network.astype(dtype), data.X.astype(dtype)
    run = descend(network, X, data.y, step=1e6, steps=100, loss=loss, observe=pf.Observe(every=1))
    assert run.status == "not_finite"
    assert str(run.stats["iterations"]) in run.message
    assert run.stats["iterations"] < 100
    assert_whole(run)
    assert np.isfinite(run["loss"][:-1]).all()


def test_a_run_that_ends_at_an_infinite_loss_has_not_finished():
    # One step throws f from 8 to 1e8 and more, on a point that has both labels; no second step would notice.
    network = pf.TwoLayerNetwork([[1.0]], [8.0], "tanh")
    run = descend(network, np.array([[2.0], [2.0]]), [1.0, -1.0], step=1e6, steps=1, loss="exponential")
    assert not np.isfinite(run["loss"][-1])
    assert run.status == "not_finite"


def test_a_gradient_too_large_to_square_is_no_crash():
    # exp(-y f) = e^442: the gradient is a float64, its squared norm is not.
    network = pf.TwoLayerNetwork([[1.0, 1.0]], [-1.0])
    run = descend(network, np.array([[4.8, 4.8]]), [1.0], step=1.0, steps=1, loss="exponential")
    assert run.status in ("finished", "not_finite")
    assert_whole(run)


def at_iteration(iteration, action):
    def observer(snapshot):
        if snapshot.iteration == iteration:
            action()
        return snapshot.loss

    return observer


@pytest.mark.parametrize("iteration", [0, 20])
def test_ctrl_c_in_an_observer_keeps_what_was_done(small, iteration):
    network, data, gmm = small
    stop = at_iteration(iteration, lambda: signal.raise_signal(signal.SIGINT))
    run = descend(network, data.X, data.y, observe=pf.Observe(every=10, what=["loss", stop, "alignment"], gmm=gmm))
    assert run.status == "interrupted"
    assert str(iteration) in run.message
    np.testing.assert_array_equal(run.iterations, np.arange(0, iteration, 10))
    assert_whole(run)
    assert_same_networks(run.network, descend(network, data.X, data.y, steps=iteration).network)


def test_ctrl_c_between_stops_keeps_what_was_done():
    gmm = pf.OrthonormalGMM(50, 2, 2, 0.1, rng=0)
    data, network = gmm.sample(400, rng=1), pf.initialize(20, 50, 0.1, rng=2)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    run = descend(network, data.X, data.y, step=0.01, steps=10**7, num_threads=1)
    timer.join()
    assert run.status == "interrupted"
    done = run.stats["iterations"]
    assert 0 < done < 10**7
    np.testing.assert_array_equal(run.iterations, [0])
    assert_whole(run)
    assert_same_networks(run.network, descend(network, data.X, data.y, step=0.01, steps=done, num_threads=1).network)


def test_an_observer_that_fails_later_ends_the_run(small):
    network, data, _ = small

    def fail():
        raise ZeroDivisionError("no luck")

    run = descend(network, data.X, data.y, observe=pf.Observe(every=10, what=["loss", at_iteration(20, fail)]))
    assert run.status == "observer_failed"
    assert "ZeroDivisionError: no luck" in run.message
    np.testing.assert_array_equal(run.iterations, [0, 10])
    assert_whole(run)
    with pytest.raises(ZeroDivisionError, match="no luck"):
        descend(network, data.X, data.y, observe=pf.Observe(what=[at_iteration(0, fail)]))


# ---- what goes in


def test_the_starting_network_and_the_data_are_left_alone(small):
    network, data, _ = small
    before = network.W.copy(), network.v.copy(), data.X.copy(), data.y.copy()
    descend(network, data.X, data.y)
    for was, now in zip(before, (network.W, network.v, data.X, data.y), strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_memmap_is_used_without_a_copy(small, tmp_path):
    network, data, _ = small
    X = np.memmap(tmp_path / "X", dtype=np.float64, mode="w+", shape=data.X.shape)
    X[...] = data.X
    X.flush()
    readonly = np.memmap(tmp_path / "X", dtype=np.float64, mode="r", shape=data.X.shape)
    seen = []
    run = descend(network, readonly, data.y, observe=pf.Observe(what=["loss", lambda at: seen.append(at.X) or 0.0]))
    assert all(np.shares_memory(X_seen, readonly) for X_seen in seen)
    assert_same_networks(run.network, descend(network, data.X, data.y).network)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_labels_of_any_real_dtype_and_data_in_any_order(small, dtype):
    network, data, _ = small
    expected = descend(network, data.X, data.y)
    assert_same_runs(expected, descend(network, np.asfortranarray(data.X), data.y.astype(dtype)))
    assert_same_runs(expected, descend(network, data.X, data.y.astype(int).tolist()))
