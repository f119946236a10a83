"""What all methods share: events and ends of descent and SGD, what observers may return, and who holds whom."""

import gc

import numpy as np
import pytest
import reference as ref
from conftest import assert_same_networks, assert_same_runs, assert_whole

import preluflow as pf
from preluflow import _driver
from preluflow.events import Event, accuracy_reached, aligned, loss_below, normalized_margin_reached


def train(method, small, *, length=12, **options):
    """A run of ``length`` iterations, epochs or units of time; four iterations an epoch."""
    network, data, _ = small
    if method == "gradient_descent":
        return pf.gradient_descent(network, data.X, data.y, step=0.1, steps=length, **options)
    if method == "sgd":
        return pf.sgd(network, data.X, data.y, step=0.05, batch=15, epochs=length, rng=0, **options)
    return pf.gradient_flow(network, data.X, data.y, t1=length, **options)


METHODS = ("gradient_descent", "sgd", "gradient_flow")
each_method = pytest.mark.parametrize("method", METHODS)
each_descent = pytest.mark.parametrize("method", METHODS[:2])


# ---- events


@each_descent
@pytest.mark.parametrize("loss", ref.LOSSES)
def test_an_event_is_noted_at_the_first_iteration_or_epoch_at_which_it_is_so(small, method, loss):
    every = train(method, small, length=20, loss=loss, observe=pf.Observe(every=1))
    level = float(every["loss"][7])
    seldom = pf.Observe(every=9)
    run = train(method, small, length=20, loss=loss, events=[loss_below(level), loss_below(1e-9)], observe=seldom)
    first = int(np.argmax(every["loss"] <= level))
    assert run.events[f"loss_below_{level:g}"].tolist() == [every.t[first]]
    assert run.events["loss_below_1e-09"].shape == (0,)


@each_descent
def test_looking_for_events_changes_no_number(small, method):
    _, _, gmm = small
    look = pf.Observe(every=3, gmm=gmm)
    events = [loss_below(0.5), accuracy_reached(0.9), aligned(0.5), normalized_margin_reached(0.1)]
    plain, watched = train(method, small, observe=look), train(method, small, observe=look, events=events)
    assert_same_runs(plain, watched)
    assert list(watched.events) == [event.name for event in events]
    for name in ("iterations", "t"):
        assert watched.stats[name] == plain.stats[name]


def test_looking_at_the_loss_of_descent_costs_no_gradients(small):
    plain, watched = train(METHODS[0], small), train(METHODS[0], small, events=[loss_below(0.01)])
    assert watched.stats["gradients"] == plain.stats["gradients"]


@each_descent
def test_a_terminal_event_ends_descent_where_it_happens(small, method):
    every = train(method, small, length=20, observe=pf.Observe(every=1))
    stop = Event("late", lambda at: at.t - every.t[5], terminal=True)
    run = train(method, small, length=20, events=[stop], observe=pf.Observe(every=4))
    assert (run.status, run.stats["t"]) == ("event", every.t[5])
    assert "late" in run.message
    np.testing.assert_array_equal(run.t, every.t[[0, 4, 5]])
    np.testing.assert_array_equal(run["loss"], every["loss"][[0, 4, 5]])
    assert_same_networks(run.network, train(method, small, length=5).network)
    assert_whole(run)


def test_one_call_of_sgd_is_as_many_as_epochs(small):
    """The loop that experiments used to need, and its numbers."""
    network, data, _ = small
    rng, epochs = np.random.default_rng(3), 0
    while epochs < 30 and network.loss_gradient(data.X, data.y).loss > 0.6:
        network = pf.sgd(network, data.X, data.y, step=0.05, batch=16, epochs=1, rng=rng).network
        epochs += 1
    stop = loss_below(0.6, terminal=True)
    run = pf.sgd(small[0], data.X, data.y, step=0.05, batch=16, epochs=30, rng=3, events=[stop])
    assert 0 < epochs < 30
    assert run.stats["epochs"] == epochs
    np.testing.assert_allclose(run.network.W, network.W, rtol=0, atol=1e-13)


@each_descent
def test_what_is_so_at_the_start_is_noted_there(small, method):
    run = train(method, small, events=[loss_below(1e9)])
    assert run.events["loss_below_1e+09"].tolist() == [0.0]
    ended = train(method, small, events=[loss_below(1e9, terminal=True)])
    assert (ended.status, ended.stats["t"], ended.t.tolist()) == ("event", 0.0, [0.0])


@each_descent
def test_every_crossing_from_below_is_noted_and_none_from_above(small, method):
    # iteration is odd or even, epochs by fours
    unit = 1 if method == "gradient_descent" else 4
    wave = Event("wave", lambda at: 1.0 if (at.iteration // unit) % 3 == 1 else -1.0)
    run = train(method, small, events=[wave])
    every = train(method, small, observe=pf.Observe(every=1))
    assert run.events["wave"].tolist() == every.t[[1, 4, 7, 10]].tolist()


@each_descent
def test_events_of_descent_are_saved(small, method, tmp_path):
    run = train(method, small, events=[loss_below(1e9)])
    run.save(tmp_path / "run.npz")
    assert pf.Run.load(tmp_path / "run.npz").events["loss_below_1e+09"].tolist() == [0.0]


@each_descent
def test_an_event_that_fails_keeps_the_descent(small, method):
    event = Event("mine", lambda at: 1 / 0 if at.t > 0.3 else -1.0)
    run = train(method, small, events=[event], observe=pf.Observe(every=1))
    assert run.status == "observer_failed"
    assert "mine" in run.message
    assert_whole(run)
    assert run.t[-1] < run.stats["t"] <= 0.4 + 1e-12


# ---- observers that end a run, or find nothing


@each_method
def test_stop_iteration_ends_a_run_with_what_it_found(small, method):
    seen = []

    def enough(at):
        seen.append(at.t)
        if len(seen) == 3:
            raise StopIteration
        return None

    run = train(method, small, observe=pf.Observe(every=2, what=["loss", enough]))
    whole = train(method, small, observe=pf.Observe(every=2))
    assert run.status == "stopped"
    assert "enough" in run.message
    assert list(run) == (["epoch", "loss"] if method == "sgd" else ["loss"])
    np.testing.assert_array_equal(run.t, whole.t[:3])
    np.testing.assert_array_equal(run["loss"], whole["loss"][:3])
    assert run.stats["t"] == run.t[-1]


@each_method
def test_stop_iteration_may_bring_a_value_and_else_leaves_its_stop_out(small, method):
    bring = ()

    def number(at):
        if at.iteration >= 3:
            raise StopIteration(*bring)
        return at.t

    for more in ([-1.0], []):
        bring = tuple(more)
        run = train(method, small, observe=pf.Observe(every=1, what=["loss", number]))
        assert run.status == "stopped"
        assert_whole(run)
        kept = len(run.t) - len(more)
        np.testing.assert_array_equal(run["number"], [*run.t[:kept], *more])
        assert run.stats["t"] > run.t[-1] or more


@each_method
def test_stop_iteration_at_the_first_stop_and_from_an_event(small, method):
    def at_once(at):
        raise StopIteration

    run = train(method, small, observe=pf.Observe(what=["loss", at_once]))
    assert (run.status, run.stats["t"], run.t.tolist()) == ("stopped", 0.0, [0.0])
    assert_same_networks(run.network, small[0])

    def later(at):
        if at.t > 0.25:
            raise StopIteration
        return -1.0

    run = train(method, small, events=[Event("mine", later)])
    assert run.status == "stopped"
    assert "mine" in run.message


@each_method
def test_an_observer_may_return_none(small, method):
    seen = []
    run = train(method, small, observe=pf.Observe(every=4, what=["loss", lambda at: seen.append(at.t)]))
    assert run.status == "finished"
    assert "<lambda>" not in run
    np.testing.assert_array_equal(seen, run.t)


@pytest.mark.parametrize("values", [(None, 1.0), (1.0, None)])
def test_an_observer_returns_none_always_or_never(small, values):
    def fickle(at):
        return values[at.iteration > 4]

    run = train("gradient_descent", small, observe=pf.Observe(every=3, what=["loss", fickle]))
    assert run.status == "observer_failed"
    assert_whole(run)
    assert len(run.t) == 2


# ---- who holds whom


def reachable(start):
    """Everything that an object holds, directly or not, but for modules and what they hold."""
    seen, left = {}, [start]
    while left:
        value = left.pop()
        if id(value) in seen or isinstance(value, type) or type(value).__name__ in ("module", "function"):
            continue
        seen[id(value)] = value
        left += gc.get_referents(value)
    return seen.values()


@each_method
def test_nothing_the_driver_calls_holds_the_driver(small, method, monkeypatch):
    drivers, kept = [], []
    make = _driver.Driver.__init__

    def spy(self, *arguments, **options):
        make(self, *arguments, **options)
        drivers.append(self)

    monkeypatch.setattr(_driver.Driver, "__init__", spy)
    train(method, small, events=[Event("e", lambda at: kept.append(at) or -1.0)], observe=pf.Observe(every=5))
    (driver,) = drivers
    for part in (driver.stepper, driver.recorder, driver.accounts, driver.task, *kept):
        assert not any(isinstance(value, _driver.Driver) for value in reachable(part))
    assert kept[-1].evaluate()[0] == pytest.approx(kept[-1].loss)


# ---- networks of the stops


@each_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_networks_of_the_stops_are_kept_and_saved(small, method, dtype, tmp_path):
    network, data, gmm = small
    seen = []
    problem = (network.astype(dtype), pf.Dataset(data.X.astype(dtype), data.y, data.z), gmm)
    look = pf.Observe(every=5, what=["loss", lambda at: seen.append(at.network)], networks=True)
    run = train(method, problem, observe=look)
    assert len(run.networks) == len(run.t) == len(seen) == 4
    run.save(tmp_path / "run.npz")
    again = pf.Run.load(tmp_path / "run.npz")
    for kept, loaded, one in zip(run.networks, again.networks, seen, strict=True):
        assert_same_networks(kept, one)
        assert_same_networks(loaded, one)
        assert loaded.dtype == np.dtype(dtype)
    assert_same_networks(run.networks[-1], run.network)
    assert train(method, problem).networks == ()


def test_networks_that_no_memory_holds_are_refused(small):
    wide = pf.initialize(20_000, 12, 0.1, dtype="float64", rng=0)
    with pytest.raises(ValueError, match="networks"):
        train("gradient_descent", (wide, *small[1:]), length=10**6, observe=pf.Observe(every=1, networks=True))
