"""Events of a flow: found where they happen, in order, and kept with the run."""

import signal

import numpy as np
import pytest
import reference as ref
from conftest import assert_same_networks, assert_whole
from scipy.optimize import brentq

import preluflow as pf
from preluflow._dispatch import core
from preluflow._trained_form import TrainedForm
from preluflow.events import (
    Event,
    accuracy_reached,
    aligned,
    clusters_fitted,
    loss_below,
    normalized_margin_reached,
)

each_method = pytest.mark.parametrize("method", ["tsit5", "dopri5", "bosh3", "flow43", "dop853", "rkc", "rk4", "euler"])


def mixture(n=60, D=12, h=8, scale=0.1, *, alpha=0.1, nudge=None, dtype="float64", seed=0):
    gmm = pf.OrthonormalGMM(D, 3, 2, alpha, rng=seed)
    data = gmm.sample(n, balanced=True, dtype=dtype, rng=seed + 1)
    net = pf.initialize(h, D, scale, nudge=nudge, centers=gmm if nudge else None, dtype=dtype, rng=seed + 2)
    return net, data.X, data.y, gmm


def flow(network, X, y, t1, *events, method="tsit5", **options):
    if method in ("rk4", "euler"):
        options.setdefault("step", 0.4)
    return pf.gradient_flow(network, X, y, t1=t1, events=events, method=method, **options)


def step_around(network, X, y, t1, t, method, rtol=1e-3):
    """Beginning and end of the step in which t lies."""
    kind = core.Flow32 if network.dtype == np.float32 else core.Flow64
    first = 0.4 if method in ("rk4", "euler") else 0.0
    start = TrainedForm.check(network, None, "both").start()
    stepper = kind(start, X, y.astype(float)[:, None], None, "squared", method, 0.0, t1, rtol, first, 0.0, "both", 1)
    while stepper.end < t:
        assert stepper.advance() == "ok"
    return stepper.begin, stepper.end


def passing(t):
    """The event that time passes t."""
    return Event(f"t_{t:g}", lambda at: at.t - t)


# ---- where


@each_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_event_is_located_to_a_ten_thousandth_of_a_step(method, dtype):
    network, X, y, _ = mixture(dtype=dtype)
    plain = flow(network, X, y, 60.0, method=method)
    level = 0.6
    (t,) = flow(network, X, y, 60.0, loss_below(level), method=method).events["loss_below_0.6"]
    begin, end = step_around(network, X, y, 60.0, t, method)
    assert begin < t <= end
    before = max(t - 1.01e-4 * (end - begin), begin)
    look = flow(network, X, y, 60.0, method=method, observe=pf.Observe(at=[before, t], what=["loss"]))
    assert plain["loss"][0] > level > plain["loss"][1]
    assert look["loss"][2] <= level < look["loss"][1]
    assert_same_networks(look.network, plain.network)


@pytest.mark.parametrize("level", [0.9, 0.5, 0.25])
def test_the_time_is_that_of_an_accurate_solution(level):
    network, X, y, _ = mixture()

    def excess(t):
        end = pf.gradient_flow(network, X, y, t1=t, rtol=1e-10, method="dop853").network
        return ref.mean_loss(end.W, end.v, X, y, "prelu", 3.0, "squared") - level

    exact = brentq(excess, 1.0, 100.0, xtol=1e-9)
    (t,) = flow(network, X, y, 100.0, loss_below(level), rtol=1e-7).events[f"loss_below_{level:g}"]
    begin, end = step_around(network, X, y, 100.0, t, "tsit5", rtol=1e-7)
    assert t == pytest.approx(exact, abs=1e-4 * (end - begin) + 1e-4)
    (rough,) = flow(network, X, y, 100.0, loss_below(level)).events[f"loss_below_{level:g}"]
    assert rough == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("value", [np.sqrt, np.square, np.exp, lambda x: x**9])
def test_any_shape_of_function_is_located(value):
    network, X, y, _ = mixture()
    crossed = 7.77
    event = Event("late", lambda at: float(value(at.t) - value(crossed)))
    (t,) = flow(network, X, y, 20.0, event).events["late"]
    begin, end = step_around(network, X, y, 20.0, crossed, "tsit5")
    assert 0.0 <= t - crossed <= 1.01e-4 * (end - begin)


@pytest.mark.parametrize("before", [-1e-300, -1.0, -1e300, -np.inf])
def test_a_function_that_jumps_is_located(before):
    network, X, y, _ = mixture()
    (t,) = flow(network, X, y, 20.0, Event("jump", lambda at: before if at.t < 7.77 else 1.0)).events["jump"]
    begin, end = step_around(network, X, y, 20.0, 7.77, "tsit5")
    assert 0.0 <= t - 7.77 <= 1.01e-4 * (end - begin)


def test_a_function_that_is_nan_never_happens():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 5.0, Event("never", lambda at: np.nan))
    assert run.events["never"].shape == (0,)


def test_every_crossing_from_below_is_kept_and_none_from_above():
    network, X, y, _ = mixture()
    event = Event("wave", lambda at: np.sin(at.t))
    run = flow(network, X, y, 20.0, event, method="rk4", step=0.5)
    np.testing.assert_allclose(run.events["wave"], [0.0, 2 * np.pi, 4 * np.pi, 6 * np.pi], rtol=0, atol=1e-4)


# ---- what


def test_accuracy_reached():
    network, X, y, _ = mixture(scale=0.1, alpha=0.5, h=30, seed=2)
    levels = (0.7, 0.9, 1.0)
    events = [accuracy_reached(level) for level in levels[:2]] + [accuracy_reached()]
    run = flow(network, X, y, 80.0, *events)
    assert [event.name for event in events] == ["accuracy_reached_0.7", "accuracy_reached_0.9", "accuracy_reached_1"]
    for event, level in zip(events, levels, strict=True):
        t = run.events[event.name][0]
        begin, end = step_around(network, X, y, 80.0, t, "tsit5")
        look = flow(network, X, y, 80.0, observe=pf.Observe(at=[t - 1.01e-4 * (end - begin), t], what=["accuracy"]))
        assert look["accuracy"][1] < level <= look["accuracy"][2]


def test_accuracy_is_reached_where_outputs_underflow():
    network, X, y, _ = mixture(scale=1e-300, nudge=0.5, h=20)
    run = flow(network, X, y, 30.0, accuracy_reached())
    assert (run.network.decision_function(X) == 0.0).all()
    (t,) = run.events["accuracy_reached_1"][:1]
    assert 0.0 <= t < 30.0
    scaled = run.network.rescaled()[0]
    assert (y * scaled.decision_function(X) > 0).all()


@pytest.mark.parametrize("tau", [0.5, 0.05])
def test_aligned(tau):
    network, X, y, gmm = mixture(scale=1e-5, nudge=0.3, h=12)
    name = f"aligned_{tau:g}"
    run = flow(network, X, y, 60.0, aligned(tau, terminal=True), observe=pf.Observe(gmm=gmm))

    def least(net):  # the least own-class cosine of a neuron outside the void
        cosines = net.directions @ gmm.centers.T
        own = np.where(np.sign(net.v)[:, None] == gmm.labels, cosines, -1.0).max(axis=1)
        return own[own > 0].min()

    (t,) = run.events[name]
    assert run.status == "event"
    assert run.stats["t"] == t > 0.0
    assert least(network) < 1 - tau
    assert 1 - tau <= least(run.network) < 1 - tau + 1e-3


def test_alignment_with_a_centre_of_the_other_class_does_not_count():
    gmm = pf.OrthonormalGMM(6, 1, 1, 0.0, centers="canonical")
    rival, void = [0.1, 0.99, 0, 0, 0, 0], [-0.1, 0.0, 1.0, 0, 0, 0]
    for rows, happened in (([[1.0, 0, 0, 0, 0, 0], void], True), ([rival, void], False)):
        network = pf.TwoLayerNetwork(rows, [1.0, 1.0])
        run = flow(network, gmm.centers, gmm.labels, 0.0, aligned(0.05), observe=pf.Observe(gmm=gmm))
        assert run.events["aligned_0.05"].tolist() == ([0.0] if happened else [])


def test_clusters_fitted():
    network, X, y, gmm = mixture(scale=1e-3, alpha=0.05, nudge=0.5, h=20, n=200)
    run = flow(network, X, y, 200.0, clusters_fitted(0.1, terminal=True), observe=pf.Observe(gmm=gmm))
    assert run.status == "event"

    def worst(net):
        cosines = net.directions @ gmm.centers.T
        own = np.where(np.sign(net.v)[:, None] == gmm.labels, cosines, -1.0)
        sums = np.zeros(gmm.clusters)
        for j in range(net.width):
            if own[j].max() > 0:
                sums[own[j].argmax()] += net.norms[j] ** 2
        return np.abs(sums - 1.0).max()

    assert worst(network) > 0.9
    assert worst(run.network) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("loss", ["exponential", "logistic"])
def test_normalized_margin_reached(loss):
    network, X, y, _ = mixture(nudge=0.5, h=12)
    margins = pf.gradient_flow(network, X, y, t1=1e4, loss=loss, observe=pf.Observe(what=["normalized_margin"]))
    start, last = margins["normalized_margin"]
    level = 0.5 * (max(start, 0.0) + last)
    run = flow(network, X, y, 1e4, normalized_margin_reached(level, terminal=True), loss=loss)
    assert run.status == "event"
    net = run.network
    margin = (y * ref.forward(net.W, net.v, X, "prelu", 3.0)).min() / ((net.W**2).sum() + (net.v**2).sum())
    assert start < level
    assert margin == pytest.approx(level, rel=1e-3)


def test_an_event_sees_what_an_observer_sees():
    network, X, y, gmm = mixture()
    seen = []

    def value(at):
        seen.append((at.t, at.iteration, at.loss, at.network, at.start, at.gmm))
        return at.t - 4.4

    run = flow(network, X, y, 10.0, Event("mine", value, needs_gmm=True), observe=pf.Observe(gmm=gmm))
    assert len(run.events["mine"]) == 1
    times = [t for t, *_ in seen]
    assert times[0] == 0.0
    assert max(times) == 10.0
    assert len(set(times)) > run.stats["accepted"]
    for _, _, loss, net, start, mixture_ in seen:
        assert start is network
        assert mixture_ is gmm
        assert loss == pytest.approx(ref.mean_loss(net.W, net.v, X, y, "prelu", 3.0, "squared"), rel=1e-10)
    # Looking costs passes forward only, and only between steps.
    assert run.stats["forwards"] == len(seen) - 1 - run.stats["accepted"]
    assert run.stats["gradients"] == flow(network, X, y, 10.0).stats["gradients"]


# ---- when a run ends


@each_method
def test_a_terminal_event_ends_the_run_where_it_happened(method):
    network, X, y, _ = mixture()
    observe = pf.Observe(every=0.25, what=["loss", "norms"])
    run = flow(network, X, y, 60.0, loss_below(0.5, terminal=True), method=method, observe=observe)
    (t,) = run.events["loss_below_0.5"]
    assert run.status == "event"
    assert "loss_below_0.5" in run.message
    assert run.stats["t"] == run.t[-1] == t < 60.0
    np.testing.assert_array_equal(run.t[:-1], 0.25 * np.arange(len(run.t) - 1))
    assert run.t[-2] < t <= run.t[-2] + 0.25
    assert_whole(run)
    assert run["loss"][-1] <= 0.5 < run["loss"][-2]
    here = ref.mean_loss(run.network.W, run.network.v, X, y, "prelu", 3.0, "squared")
    assert run["loss"][-1] == pytest.approx(here, rel=1e-10)
    np.testing.assert_array_equal(run["norms"][-1], run.network.norms)
    look = flow(network, X, y, 60.0, method=method, observe=pf.Observe(at=[t], what=["loss", "norms"]))
    np.testing.assert_array_equal(look["norms"][1], run["norms"][-1])


def test_a_run_goes_on_after_a_terminal_event(tmp_path):
    network, X, y, _ = mixture()
    first = flow(network, X, y, 60.0, loss_below(0.5, terminal=True), rtol=1e-6)
    first.save(tmp_path / "first.npz")
    whole = flow(network, X, y, 60.0, rtol=1e-6)
    for start in (first, pf.Run.load(tmp_path / "first.npz")):
        second = flow(start, X, y, 60.0, loss_below(0.3), rtol=1e-6)
        assert (second.status, second.t[0], second.stats["t"]) == ("finished", first.stats["t"], 60.0)
        np.testing.assert_allclose(second.network.W, whole.network.W, rtol=0, atol=2e-5)
        (t,) = second.events["loss_below_0.3"]
        assert t > first.stats["t"]


@pytest.mark.parametrize("terminal", [False, True])
def test_what_has_happened_already_is_noted_at_the_start(terminal):
    network, X, y, _ = mixture()
    run = flow(network, X, y, 5.0, loss_below(2.0, terminal=terminal), loss_below(1e-9))
    np.testing.assert_array_equal(run.events["loss_below_2"], [0.0])
    assert run.events["loss_below_1e-09"].shape == (0,)
    assert run.status == ("event" if terminal else "finished")
    assert run.stats["t"] == (0.0 if terminal else 5.0)
    np.testing.assert_array_equal(run.t, [0.0] if terminal else [0.0, 5.0])
    assert run.stats["accepted"] == 0 or not terminal


def test_no_time_still_notes_what_is_so():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 0.0, loss_below(2.0), loss_below(0.1))
    assert {name: times.tolist() for name, times in run.events.items()} == {"loss_below_2": [0.0], "loss_below_0.1": []}


def test_two_events_in_one_step_are_taken_in_time_order():
    network, X, y, _ = mixture()
    begin, end = step_around(network, X, y, 30.0, 11.0, "tsit5")
    early, late = begin + 0.3 * (end - begin), begin + 0.6 * (end - begin)
    first, second = passing(early), passing(late)
    stop = Event("stop", lambda at: at.t - 0.5 * (early + late), terminal=True)
    both = flow(network, X, y, 30.0, second, first)
    for name, t in ((first.name, early), (second.name, late)):
        np.testing.assert_allclose(both.events[name], [t], rtol=0, atol=1.01e-4 * (end - begin))
    # A terminal event between them ends the run: the later has not happened, whatever the order they are given in.
    for events in ((second, stop, first), (first, stop, second)):
        run = flow(network, X, y, 30.0, *events)
        assert run.status == "event"
        assert "stop" in run.message
        np.testing.assert_array_equal(run.events[first.name], both.events[first.name])
        assert run.events[second.name].shape == (0,)
        np.testing.assert_array_equal(run.events["stop"], [run.stats["t"]])
    # And what happens after the last stop of a step is noted all the same.
    stops = pf.Observe(at=np.linspace(begin, end, 5)[1:-1])
    again = flow(network, X, y, 30.0, second, first, observe=stops)
    assert {name: times.tolist() for name, times in again.events.items()} == {
        name: times.tolist() for name, times in both.events.items()
    }


def test_events_beyond_the_time_reached_are_not_noted():
    network, X, y, _ = mixture()
    run = flow(network, X, y, 30.0, passing(29.0), max_steps=3)
    assert run.status == "max_steps"
    assert run.stats["t"] < 29.0
    assert run.events["t_29"].shape == (0,)


def test_events_are_saved_with_the_run(tmp_path):
    network, X, y, _ = mixture()
    run = flow(network, X, y, 60.0, loss_below(0.5), loss_below(1e-9))
    run.save(tmp_path / "run.npz")
    again = pf.Run.load(tmp_path / "run.npz")
    assert list(again.events) == ["loss_below_0.5", "loss_below_1e-09"]
    for name, times in run.events.items():
        np.testing.assert_array_equal(again.events[name], times)
        assert again.events[name].dtype == np.float64
    assert len(again.events["loss_below_0.5"]) == 1


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError("no luck"), "observer_failed"), (None, "interrupted")]
)
def test_an_event_that_fails_later_keeps_the_run(error, status):
    network, X, y, _ = mixture()

    def value(at):
        if at.t > 4.3:
            if error is None:
                signal.raise_signal(signal.SIGINT)
            else:
                raise error
        return -1.0

    run = flow(network, X, y, 20.0, Event("mine", value), observe=pf.Observe(every=0.5))
    assert run.status == status
    if error is not None:
        assert "mine" in run.message
        assert "ZeroDivisionError: no luck" in run.message
    assert_whole(run)
    begin, _ = step_around(network, X, y, 20.0, 4.3, "tsit5")
    assert run.stats["t"] == begin  # the step in which it failed is not taken
    np.testing.assert_array_equal(run.t, 0.5 * np.arange(len(run.t)))
    assert run.t[-1] <= begin < run.t[-1] + 0.5
    reached = pf.gradient_flow(network, X, y, t1=begin, rtol=1e-8)
    np.testing.assert_allclose(run.network.W, reached.network.W, rtol=0, atol=1e-2)
    assert run.events["mine"].shape == (0,)


def test_an_event_that_fails_at_once_raises():
    network, X, y, _ = mixture()
    with pytest.raises(ZeroDivisionError, match="division"):
        flow(network, X, y, 20.0, Event("mine", lambda at: 1 / 0))


# ---- what goes in


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: loss_below(0.0), ValueError, "level"),
        (lambda: loss_below("0.1"), TypeError, "level"),
        (lambda: accuracy_reached(1.1), ValueError, "level"),
        (lambda: accuracy_reached(0.0), ValueError, "level"),
        (lambda: aligned(0.0), ValueError, "tau"),
        (lambda: aligned(float("nan")), ValueError, "tau"),
        (lambda: clusters_fitted(-1.0), ValueError, "tau"),
        (lambda: normalized_margin_reached(float("inf")), ValueError, "level"),
        (lambda: Event("", lambda at: 0.0), TypeError, "name"),
        (lambda: Event(3, lambda at: 0.0), TypeError, "name"),
        (lambda: Event("mine", 0.5), TypeError, "value"),
    ],
)
def test_bad_input_is_refused_by_name(make, error, named):
    with pytest.raises(error, match=rf"\b{named}\b"):
        make()


def test_an_event_that_is_not_defined_for_a_network_is_refused_before_any_work():
    _, X, y, _ = mixture()
    network = pf.TwoLayerNetwork(np.ones((2, 12)), [1.0, -1.0], "tanh")
    with pytest.raises(ValueError, match="tanh"):
        flow(network, X, y, 1.0, normalized_margin_reached(0.1))
