"""A flow between its stops, kept; and continued runs that are joined with what they continue."""

import numpy as np
import pytest
from conftest import assert_same_networks, assert_same_runs, assert_whole

import preluflow as pf
from preluflow import results
from preluflow.events import Event, loss_below

METHODS = ("tsit5", "dopri5", "bosh3", "flow43", "dop853", "rkc", "rk4", "euler")
KINDS = [("prelu", 3.0), ("prelu", 1.0), ("polynomial", 2.7), ("tanh", 3.0)]


@pytest.fixture
def mixture(gmm):
    """(network, X, y) of a kind and dtype, with a neuron that never moves."""

    def make(activation="prelu", p=3.0, dtype="float64", scale=0.2):
        data = gmm.sample(60, balanced=True, dtype=dtype, rng=1)
        network = pf.initialize(8, gmm.dim, scale, activation=activation, p=p, dtype="float64", rng=2)
        W, v = network.W.copy(), network.v.copy()
        W[3] = 0.0
        if activation == "tanh":
            v[3] = 0.0
        return pf.TwoLayerNetwork(W, v, activation, p, dtype=dtype), data.X, data.y

    return make


def flow(problem, t1, **options):
    if options.get("method") in ("rk4", "euler"):
        options.setdefault("step", 0.3)
    return pf.gradient_flow(*problem, t1=t1, **options)


def assert_near(a, b):
    """The same network but for a few roundings in its dtype."""
    digits = 4e-7 if a.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(a.directions, b.directions, rtol=0, atol=digits)
    for name in ("log_norm", "log_abs_v"):
        # Of tanh networks lengths are those of phi, which is kept in the dtype.
        logs = digits if a.activation == "tanh" else 1e-11
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=max(logs, 1e-11))
    np.testing.assert_array_equal(a.sign, b.sign)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("activation", "p"), KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_is_what_a_stop_there_would_have_seen(mixture, method, activation, p, dtype):
    problem = mixture(activation, p, dtype)
    look = pf.Observe(at=np.linspace(0.0, 9.0, 23), networks=True)
    run = flow(problem, 9.0, method=method, dense=True, observe=look)
    for t, network in zip(run.t, run.networks, strict=True):
        assert_near(run.at(t), network)
        assert run.at(t).dtype == np.dtype(dtype)
    assert run.at(9.0) is run.network
    assert_same_runs(run, flow(problem, 9.0, method=method, observe=look))


def test_dense_costs_no_gradients_but_for_dop853(mixture):
    problem = mixture()
    for method in METHODS:
        plain, dense = (flow(problem, 6.0, method=method, dense=dense).stats for dense in (False, True))
        more = 3 * dense["accepted"] if method == "dop853" else 0
        assert dense["gradients"] == plain["gradients"] + more
        assert "dense_bytes" not in plain


def test_the_memory_dense_takes_is_stated(mixture):
    run = flow(mixture(dtype="float32"), 6.0, dense=True)
    width, dim = run.network.directions.shape
    assert run.stats["dense_bytes"] == run.stats["accepted"] * 5 * width * (4 * dim + 16)


@pytest.mark.parametrize("scale", [1e-7, 1e-300])
def test_at_any_scale(mixture, scale):
    run = flow(mixture(scale=scale), 8.0, dense=True, observe=pf.Observe(every=1.3, networks=True))
    for t, network in zip(run.t, run.networks, strict=True):
        assert_near(run.at(t), network)


@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_dense_survives_a_file(mixture, method, tmp_path):
    run = flow(mixture(dtype="float32"), 6.0, method=method, dense=True)
    run.save(tmp_path / "run.npz")
    again = pf.Run.load(tmp_path / "run.npz")
    for t in np.linspace(0.0, 6.0, 17):
        assert_same_networks(again.at(t), run.at(t))
    assert_same_networks(again.at(6.0), again.network)


def test_a_run_that_took_no_step_or_ended_early(mixture, tmp_path):
    problem = mixture()
    still = flow(problem, 0.0, dense=True)
    still.save(tmp_path / "run.npz")
    for run in (still, pf.Run.load(tmp_path / "run.npz")):
        assert run.at(0.0) is run.network
        with pytest.raises(ValueError, match=r"\bt\b.*at most 0"):
            run.at(0.1)
    ended = flow(problem, 20.0, dense=True, events=[Event("stop", lambda at: at.t - 3.3, terminal=True)])
    assert ended.at(ended.stats["t"]) is ended.network
    assert_near(ended.at(np.nextafter(ended.stats["t"], 0.0)), ended.network)
    with pytest.raises(ValueError, match=r"\bt\b.*at most 3\.3"):
        ended.at(3.4)


def test_what_is_not_kept_cannot_be_asked_for(mixture):
    problem = mixture()
    with pytest.raises(ValueError, match="dense=True"):
        flow(problem, 1.0).at(0.5)
    descent = pf.gradient_descent(*problem, step=0.1, steps=1)
    with pytest.raises(ValueError, match=r"gradient_descent.*dense=True"):
        descent.at(0.1)
    with pytest.raises(ValueError, match="at least 0"):
        flow(problem, 1.0, dense=True).at(-0.5)


# ---- files


def stored(mixture):
    run = flow(mixture(), 3.0, dense=True, observe=pf.Observe(every=1.0, networks=True))
    return run.arrays(), run.meta()


def put(array, value):
    result = array.copy()
    result[(-1,) * result.ndim] = value
    return result


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("networks.U", lambda a: a[:-1]),
        ("networks.U", lambda a: 2 * a),
        ("networks.U", lambda a: a.astype("float32")),
        ("networks.U", lambda a: a[:, :-1]),
        ("networks.sign", lambda a: put(a, 0.5)),
        ("networks.log_norm", lambda a: put(a, np.nan)),
        ("networks.log_abs_v", lambda a: a[..., None]),
        ("dense.t", lambda a: a[::-1]),
        ("dense.t", lambda a: put(a, np.nan)),
        ("dense.t", lambda a: a + 10.0),
        ("dense.t", lambda a: a[:, :1]),
        ("dense.t", lambda a: np.delete(a, 1, axis=0)),
        ("dense.phi", lambda a: put(a, np.inf)),
        ("dense.phi", lambda a: a[:, :1]),
        ("dense.phi", lambda a: a[..., :-1]),
        ("dense.phi", lambda a: a.astype("float32")),
        ("dense.phi", lambda a: a.astype(str)),
        ("dense.l", lambda a: put(a, np.nan)),
        ("dense.rho", lambda a: a[:-1]),
        ("networks.other", lambda a: np.zeros(3)),
        ("dense.other", lambda a: np.zeros(3)),
        ("networks", lambda a: np.zeros(3)),
    ],
)
def test_a_file_spoilt_is_refused(mixture, name, spoil, tmp_path):
    arrays, meta = stored(mixture)
    arrays[name] = spoil(arrays.get(name))
    results.write_npz(tmp_path / "run.npz", "run", arrays, meta)
    with pytest.raises(ValueError, match=r"run\.npz.*damaged"):
        pf.Run.load(tmp_path / "run.npz")


@pytest.mark.parametrize("name", ["networks.U", "networks.sign", "dense.t", "dense.phi", "dense.rho"])
def test_a_part_that_is_missing_is_refused_by_name(mixture, name, tmp_path):
    arrays, meta = stored(mixture)
    del arrays[name]
    results.write_npz(tmp_path / "run.npz", "run", arrays, meta)
    with pytest.raises(ValueError, match=rf"run\.npz.*{name}"):
        pf.Run.load(tmp_path / "run.npz")


def test_dense_needs_the_time_of_its_end(mixture, tmp_path):
    arrays, meta = stored(mixture)
    del meta["stats"]["t"]
    results.write_npz(tmp_path / "run.npz", "run", arrays, meta)
    with pytest.raises(ValueError, match=r"run\.npz.*'t'"):
        pf.Run.load(tmp_path / "run.npz")


# ---- joined


LOOK = pf.Observe(every=1.0, what=["loss", "norms"], networks=True)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_joined_run_is_one_run(mixture, through_a_file, tmp_path):
    problem = mixture()
    events = [loss_below(0.95), loss_below(0.5), loss_below(5.0)]
    first = flow(problem, 5.0, dense=True, observe=LOOK, events=events)
    start = first
    if through_a_file:
        first.save(tmp_path / "run.npz")
        start = pf.Run.load(tmp_path / "run.npz")
    options = {"dense": True, "observe": LOOK, "events": events}
    apart = flow((start, *problem[1:]), 15.0, **options)
    both = flow((start, *problem[1:]), 15.0, join=True, **options)
    assert (apart.t[0], both.t[0]) == (5.0, 0.0)
    np.testing.assert_array_equal(both.t, np.arange(16.0))
    np.testing.assert_array_equal(both.t, [*first.t, *apart.t[1:]])
    np.testing.assert_array_equal(both.iterations, [*first.iterations, *(apart.iterations[1:] + first.iterations[-1])])
    for name in ("loss", "norms"):
        np.testing.assert_array_equal(both[name], np.concatenate([first[name], apart[name][1:]]))
    assert len(both.networks) == len(both.t)
    for name in ("accepted", "gradients", "forwards", "iterations"):
        assert both.stats[name] == first.stats[name] + apart.stats[name]
    assert both.stats["seconds"] > first.stats["seconds"]
    assert (both.stats["t"], both.stats["next_step"]) == (15.0, apart.stats["next_step"])
    assert (both.config["t0"], both.config["t1"]) == (0.0, 15.0)
    # What was so at the seam had been noted, or is no news.
    whole = flow(problem, 15.0, events=events)
    for name, times in both.events.items():
        np.testing.assert_allclose(times, whole.events[name], rtol=1e-2, err_msg=name)
    for t, network in zip(both.t, both.networks, strict=True):
        assert_near(both.at(t), network)
    both.save(tmp_path / "both.npz")
    assert_same_runs(pf.Run.load(tmp_path / "both.npz"), both)
    assert_whole(both)


def test_a_run_ended_by_an_event_or_in_between_is_joined(mixture):
    problem = mixture()
    stop = Event("stop", lambda at: at.t - 2.5, terminal=True)
    ended = flow(problem, 9.0, observe=LOOK, events=[stop], dense=True)
    joined = flow((ended, *problem[1:]), 4.0, observe=LOOK, join=True, dense=True)
    np.testing.assert_allclose(joined.t, [0.0, 1.0, 2.0, 2.5, 3.0, 4.0], rtol=1e-3)
    assert joined.events["stop"].tolist() == [ended.stats["t"]]
    # The last step of the first reaches beyond its end, where the second counts.
    for t, network in zip(joined.t, joined.networks, strict=True):
        assert_near(joined.at(t), network)


def test_what_cannot_be_joined_is_refused_before_work(mixture):
    problem = mixture()
    first = flow(problem, 2.0, observe=LOOK, dense=True)

    def go_on(start=first, **options):
        return flow((start, *problem[1:]), 3.0, **{"observe": LOOK, "dense": True, "join": True, **options})

    for options, named in (
        ({"start": problem[0]}, "join.*run"),
        ({"loss": "logistic"}, "loss.*squared"),
        ({"dense": False}, "dense=True"),
        ({"method": "bosh3"}, "method"),
        ({"observe": pf.Observe(every=1.0, what=["loss", "norms"])}, "networks"),
    ):
        with pytest.raises(ValueError, match=named):
            go_on(**options)
    with pytest.raises(TypeError, match=r"join.*norms.*observe"):
        go_on(observe=pf.Observe(what=["loss"], networks=True))
    assert go_on().status == "finished"


@pytest.mark.parametrize("method", METHODS[:5])
@pytest.mark.parametrize("p", [1.0, 3.0])
def test_directions_of_neurons_that_grow_by_orders_of_magnitude_within_a_step(method, p):
    """While f = 0 a neuron on two orthonormal inputs of its sign turns one way: to their sum, or for p > 2 the nearer.

    Steps become longer than polynomials of weights can follow: these pass 0 where weights grow e^5 times or more, and
    directions between the ends of a step were turned round.
    """
    W = 1e-40 * np.array([[1.0, 0.6, 0.3, 0.0]])
    start = pf.TwoLayerNetwork(W, [np.linalg.norm(W)], p=p)
    end = 60.0 if p == 1.0 else 30.0
    look = pf.Observe(at=np.linspace(0.0, end, 301), networks=True)
    more = {"step": 5.0 if p == 1.0 else 0.5} if method == "rk4" else {}
    run = pf.gradient_flow(start, np.eye(2, 4), np.ones(2), t1=end, method=method, observe=look, dense=True, **more)
    growth = max(abs(step.l[1:].sum()) for step in run.dense.steps)
    assert growth > 5.0 or p == 3.0 or (method == "tsit5" and growth > 3.0)
    axis = np.array([1.0, 1.0, 0.0, 0.0]) / np.sqrt(2.0) if p == 1.0 else np.eye(4)[0]
    cosines = np.array([network.directions[0] @ axis for network in run.networks])
    assert np.all(np.diff(cosines) > -1e-3)
    assert cosines[-1] > 1.0 - 1e-5
    np.testing.assert_allclose(run["loss"], 1.0, rtol=1e-6)
    for t, network in zip(run.t, run.networks, strict=True):
        np.testing.assert_allclose(run.at(t).directions, network.directions, rtol=0, atol=1e-12)
