"""The flow of any network: several outputs, numbers to be met, biases, a centre, normalised input, weights, one layer.

The oracles are scipy's DOP853 on raw weights with the naive gradient, and solutions known in closed form.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import assert_same_networks, assert_same_runs, assert_whole
from scipy.integrate import solve_ivp
from test_train_general import Raw, losses_of, make, problem, same

import preluflow as pf
from preluflow import results
from preluflow._trained_form import TrainedForm
from preluflow.events import loss_below

ALL = ("hidden", "output", "center", "normalized")
KINDS = [("prelu", 3.0), ("prelu", 2.5), ("polynomial", 2.7), ("tanh", 3.0)]
CASES = [(outputs, loss) for outputs in (1, 3) for loss in losses_of(outputs)]
each_kind = pytest.mark.parametrize(("activation", "p"), KINDS)
each_case = pytest.mark.parametrize(("outputs", "loss"), CASES)
each_train = pytest.mark.parametrize("train", ["both", "inner", "outer"])


def flow(network, X, y, t1, **options):
    return pf.gradient_flow(network, X, y, t1=t1, **options)


def solve(raw: Raw, X, Y, t, loss, *, weight=1.0, decay=0.0, train="both", output=True):
    """Raw weights at time t by scipy's DOP853."""
    parts = {"W": raw.W, "V": raw.V, "B": raw.B}
    moving = {"W": train != "outer", "V": train != "inner", "B": train != "inner" and output}
    cuts = np.cumsum([part.size for part in parts.values()])[:-1]

    def unpack(theta):
        pieces = np.split(theta, cuts)
        return {name: piece.reshape(parts[name].shape) for name, piece in zip(parts, pieces, strict=True)}

    def field(_, theta):
        now = unpack(theta)
        gradient = dict(zip("WVB", replace(raw, **now).gradient(X, Y, loss, weight), strict=True))
        return np.concatenate([-moving[name] * (gradient[name] + decay * now[name]).ravel() for name in parts])

    start = np.concatenate([part.ravel() for part in parts.values()])
    found = solve_ivp(field, (0.0, t), start, method="DOP853", rtol=1e-10, atol=1e-11, t_eval=[t])
    assert found.success
    return replace(raw, **unpack(found.y[:, -1]))


def small(activation, p, outputs, parts, loss, seed=0):
    """Raw weights, X, y and targets, small enough for the oracle."""
    raw = make(activation, p, outputs, parts, h=3, D=3, seed=seed, scale=0.6)
    return raw, *problem(outputs, loss, n=14, D=3, seed=seed + 1)


# ---- against scipy in raw coordinates


@each_kind
@each_case
@pytest.mark.parametrize(
    ("parts", "train", "decay"), [((), "both", 0.0), (ALL, "both", 0.2), (ALL, "inner", 0.2), (ALL, "outer", 0.2)]
)
def test_the_flow_is_scipys_in_raw_coordinates(activation, p, outputs, loss, parts, train, decay):
    raw, X, y, Y = small(activation, p, outputs, parts, loss)
    weight = np.linspace(0.3, 1.7, len(X)) if parts else np.ones(len(X))
    run = flow(
        raw.network(), X, y, 3.0, loss=loss, method="dop853", rtol=1e-9, weight_decay=decay, train=train,
        sample_weight=weight,
    )  # fmt: skip
    exact = solve(raw, X, Y, 3.0, loss, weight=weight, decay=decay, train=train, output=bool(parts))
    assert run.status == "finished"
    assert max(np.abs(exact.W - raw.W).max(), np.abs(exact.V - raw.V).max()) > 0.05  # it does move
    same(run.network, exact, 1e-6)
    assert run["loss"][-1] == pytest.approx(exact.loss(X, Y, loss, weight), rel=1e-6)


@pytest.mark.parametrize("part", ALL)
@pytest.mark.parametrize("method", ["tsit5", "rk4"])
def test_each_part_alone_is_scipys(part, method):
    raw, X, y, Y = small("prelu", 3.0, 3, (part,), "cross_entropy")
    run = flow(raw.network(), X, y, 3.0, loss="cross_entropy", method=method, rtol=1e-9, step=0.01)
    same(run.network, solve(raw, X, Y, 3.0, "cross_entropy", output=part == "output"), 1e-6)


@each_case
def test_relu_neurons_that_stay_active_are_scipys(outputs, loss):
    """At p = 1 away from the kink, where the field is smooth."""
    rng = np.random.default_rng(3)
    _, y, Y = problem(outputs, loss, n=8, D=4)
    X = rng.uniform(0.2, 0.6, (8, 4))
    raw = Raw(
        rng.uniform(0.4, 1.0, (3, 5)), 0.5 * rng.standard_normal((3, outputs)), np.zeros(outputs), "prelu", 1.0, True
    )
    run = flow(raw.network(), X, y, 1.0, loss=loss, rtol=1e-9, biases="output", weight_decay=0.1)
    same(run.network, solve(raw, X, Y, 1.0, loss, decay=0.1), 1e-6)


# ---- known answers


def trained_form(network):
    """(W, b) and V as they are trained, whose norms are conserved."""
    form = TrainedForm.check(network, None, "both")
    U, log_norm, log_abs_v = form.inner(network)
    squares = np.exp(2.0 * log_abs_v).reshape(len(U), -1).sum(axis=1)
    return np.exp(2.0 * log_norm), squares


@pytest.mark.parametrize("parts", [(), ALL])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("activation", "p"), [("prelu", 3.0), ("prelu", 2.5), ("polynomial", 2.7)])
def test_balancedness_is_conserved_or_decays(activation, p, decay, parts):
    raw, X, y, _ = small(activation, p, 3, parts, "cross_entropy")
    q = p if activation == "polynomial" else 1.0
    start = raw.network()
    end = flow(start, X, y, 4.0, loss="cross_entropy", rtol=1e-9, weight_decay=decay).network
    (w0, v0), (w, v) = trained_form(start), trained_form(end)
    assert np.abs(w - w0).max() > 0.03
    np.testing.assert_allclose(w - q * v, np.exp(-2.0 * decay * 4.0) * (w0 - q * v0), rtol=0, atol=1e-7)


def test_several_outputs_start_beyond_float64():
    """Epsilon = 1e-300: until the network is felt it is that of 1e-30, but for the shift of log norms."""
    X, y, _ = problem(3, "cross_entropy")
    base = make("prelu", 3.0, 3).network()
    found = []
    for log_scale in (np.log(1e-30), np.log(1e-300)):
        start = base.replace(log_norm=base.log_norm + log_scale, log_abs_v=base.log_abs_v + log_scale)
        run = flow(start, X, y, 40.0, loss="cross_entropy")
        assert run.status == "finished"
        found.append((run.network, run.network.log_norm - log_scale, run.network.log_abs_v - log_scale))
    (a, *logs_a), (b, *logs_b) = found
    assert np.abs(logs_a[0] - base.log_norm).max() > 1.0
    np.testing.assert_allclose(b.directions, a.directions, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(a.sign, b.sign)
    for one, other in zip(logs_a, logs_b, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-9)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("scale", [1e-4, 1e-200])
def test_regression_on_orthogonal_inputs_is_the_logistic_curve(p, outputs, scale):
    """One aligned balanced neuron an input of target Y_i, weight k_i: Z = ||w||^2 has Z' = (4 k_i/n) Z (|Y_i| - Z)."""
    n, rng = 5, np.random.default_rng(2)
    X = np.eye(8)[[5, 1, 3, 0, 7]]  # to the bit: a product of 1e-17 would wake another neuron
    Y = rng.standard_normal((n, outputs)) * np.geomspace(0.5, 2.0, n)[:, None]
    length, weight = np.linalg.norm(Y, axis=1), np.linspace(0.6, 1.4, n)
    network = pf.TwoLayerNetwork.from_polar(
        X,
        np.full(n, np.log(scale)),
        np.sign(Y) if outputs > 1 else np.sign(Y[:, 0]),
        np.log(scale) + (np.log(np.abs(Y) / length[:, None]) if outputs > 1 else np.zeros(n)),
        "prelu",
        p,
    )
    rate = 4.0 * weight * length / n
    t1 = (2.0 * np.log(1.0 / scale) + 1.0) / rate.max()
    stops = np.linspace(0.1, 1.0, 6) * t1
    y = Y[:, 0] if outputs == 1 else Y
    run = flow(
        network, X, y, t1, rtol=1e-9, sample_weight=weight, observe=pf.Observe(at=stops, what=["loss"], networks=True)
    )
    for t, found in zip(run.t, run.networks, strict=True):
        # log Z, so that 1e-400 is a number
        log_Z0 = 2.0 * np.log(scale)
        log_Z = np.log(length) - np.logaddexp(0.0, np.log(length) - log_Z0 - rate * t)
        np.testing.assert_allclose(2.0 * found.log_norm, log_Z, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.directions, X, rtol=0, atol=1e-9)
    Z = np.exp(2.0 * run.network.log_norm)
    assert Z.max() > 0.3  # the first has been learnt
    np.testing.assert_allclose(run["loss"][-1], np.mean(weight * (length - Z) ** 2), rtol=1e-6)


@each_kind
def test_two_classes_with_opposite_frozen_layers_are_the_logistic_flow(activation, p):
    raw = make(activation, p, 1, ("hidden",), scale=0.5)
    X, y, _ = problem(1, "logistic")
    both = replace(raw, V=np.hstack([-raw.V / 2, raw.V / 2]), B=np.zeros(2))
    one = flow(raw.network(), X, y, 5.0, loss="logistic", train="inner", rtol=1e-9)
    two = flow(both.network(), X, (y > 0).astype(int), 5.0, loss="cross_entropy", train="inner", rtol=1e-9)
    assert np.abs(one.network.W - raw.network().W).max() > 0.1
    np.testing.assert_allclose(two.network.W, one.network.W, rtol=0, atol=1e-7)
    np.testing.assert_allclose(two.network.hidden_bias, one.network.hidden_bias, rtol=0, atol=1e-7)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-8)


def test_a_bias_alone_is_learnt_as_its_equation_says():
    """No neuron alive: B' = 2 (mean y - B) - lambda B, though neurons' output weights decay."""
    network = pf.TwoLayerNetwork(np.zeros((2, 3)), np.array([0.5, -2.0]), dtype="float64")
    X, y = np.ones((4, 3)), np.array([1.0, 2.0, 3.0, 6.0])
    run = flow(network, X, y, 1.5, biases="output", weight_decay=0.4, rtol=1e-9, dense=True)
    for t in (0.3, 1.0, 1.5):
        net = run.at(t)
        np.testing.assert_allclose(net.output_bias, 6.0 / 2.4 * (1.0 - np.exp(-2.4 * t)), rtol=1e-7)
        np.testing.assert_allclose(net.v, np.exp(-0.4 * t) * network.v, rtol=1e-12)


# ---- one output


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "p"), [*KINDS, ("prelu", 1.0)])
def test_one_output_with_a_part_of_no_effect_is_the_plain_flow(activation, p, dtype):
    raw, (X, y, _) = make(activation, p, 1, scale=0.5), problem(1, "squared")
    plain = raw.network(dtype)
    general = plain.replace(center=np.full(5, 1e-300))
    assert not general.plain
    a, b = (flow(net, X.astype(dtype), y, 3.0, observe=pf.Observe(every=1.0)) for net in (plain, general))
    digits = 1e-4 if dtype == "float32" else 1e-11
    assert a.stats["accepted"] == b.stats["accepted"]
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=digits)
    np.testing.assert_allclose(b.network.directions, a.network.directions, rtol=0, atol=digits)
    np.testing.assert_allclose(b.network.log_norm, a.network.log_norm, rtol=0, atol=digits)
    np.testing.assert_allclose(b.network.log_abs_v, a.network.log_abs_v, rtol=0, atol=10 * digits)


# ---- frozen layers


@each_case
@each_kind
def test_a_frozen_layer_keeps_its_very_bits(activation, p, outputs, loss):
    raw, X, y, _ = small(activation, p, outputs, ("output", "center"), loss)
    start = raw.network()
    for train, names in (("inner", ("sign", "log_abs_v", "output_bias")), ("outer", ("directions", "log_norm"))):
        run = flow(start, X, y, 2.0, loss=loss, train=train, weight_decay=0.1, dense=True)
        assert run.config["train"] == train
        for network in (run.network, run.at(0.7), run.at(0.0)):
            for name in names:
                np.testing.assert_array_equal(getattr(network, name), getattr(start, name))


# ---- between stops, files, joined runs


LOOK = pf.Observe(every=0.37, what=["loss", "norms"], networks=True)


def near(a, b, atol=1e-10):
    for name in ("directions", "log_norm", "sign", "log_abs_v", "offsets", "output_bias"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=name)


@each_kind
@each_train
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_at_is_what_a_stop_there_saw_and_survives_a_file(activation, p, train, outputs, method, tmp_path):
    raw, X, y, _ = small(activation, p, outputs, ALL, "squared")
    start = raw.network()
    W, v = start.W.copy(), start.v.copy()
    W[1] = 0.0  # a neuron that weight decay alone can move
    v[1] *= activation != "tanh"
    b = start.hidden_bias * (np.arange(3) != 1)
    options = {"method": method, "train": train, "weight_decay": 0.3, "dense": True}
    parts = {name: getattr(start, name) for name in ("output_bias", "center", "normalize_input")}
    start = pf.TwoLayerNetwork(W, v, activation, p, hidden_bias=b, dtype="float64", **parts)
    run = flow(start, X, y, 3.0, observe=LOOK, **options)
    for t, network in zip(run.t, run.networks, strict=True):
        near(run.at(t), network)
    run.save(tmp_path / "run.npz")
    again = pf.Run.load(tmp_path / "run.npz")
    assert_same_runs(again, run)
    for t in np.linspace(0.0, 3.0, 9):
        assert_same_networks(again.at(t), run.at(t))
    tight = flow(start, X, y, 1.3, **{**options, "dense": False}, rtol=1e-9).network
    near(flow(start, X, y, 3.0, **options, rtol=1e-9).at(1.3), tight, 1e-6)
    if train == "both" and activation != "tanh":
        np.testing.assert_allclose(tight.v[1], np.exp(-0.3 * 1.3) * start.v[1], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_train
def test_dense_output_takes_what_is_stated(dtype, train):
    raw, X, y, _ = small("prelu", 3.0, 3, ("hidden", "output"), "squared")
    run = flow(raw.network(dtype), X.astype(dtype), y, 3.0, dense=True, train=train)
    size = np.dtype(dtype).itemsize
    inner, outer = (0 if train == "outer" else 3 * 4 * size), (0 if train == "inner" else 3 * 3 * 8)
    assert run.stats["dense_bytes"] == run.stats["accepted"] * 5 * (inner + outer + 3 * 8 + 3 * 8)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_run_with_biases_goes_on_and_is_joined(through_a_file, tmp_path):
    X, y, _ = problem(3, "cross_entropy")
    network = make("prelu", 3.0, 3).network()
    options = {"loss": "cross_entropy", "weight_decay": 0.05, "observe": LOOK, "rtol": 1e-6, "dense": True}
    events = [loss_below(1.06), loss_below(1.03)]
    whole = flow(network, X, y, 6.0, biases="both", events=events, **options)
    first = flow(network, X, y, 2.22, biases="both", events=events, **options)
    if through_a_file:
        first.save(tmp_path / "first.npz")
        first = pf.Run.load(tmp_path / "first.npz")
    joined = flow(first, X, y, 6.0, join=True, events=events, **options)
    assert joined.status == "finished"
    assert_whole(joined)
    near(joined.network, whole.network, 1e-3)
    for t, found in zip(joined.t, joined.networks, strict=True):
        near(joined.at(t), found)
    assert len(whole.events["loss_below_1.03"]) == 1
    for name, times in whole.events.items():
        np.testing.assert_allclose(joined.events[name], times, rtol=1e-3)
    joined.save(tmp_path / "joined.npz")
    assert_same_runs(pf.Run.load(tmp_path / "joined.npz"), joined)
    for changed, match in (
        ({"weight_decay": 0.0}, "weight_decay of the run that is continued, 0.05"),
        ({"train": "inner"}, "train of the run that is continued, 'both'"),
    ):
        with pytest.raises(ValueError, match=match):
            flow(first, X, y, 6.0, join=True, **{**options, **changed})
    with pytest.raises(ValueError, match="sample_weight of the run that is continued, equal weights, got w"):
        flow(first, X, y, 6.0, join=True, sample_weight=np.arange(1.0, 1.0 + len(y)), **options)
    plain = flow(network, X, y, 1.0, **options)
    with pytest.raises(ValueError, match="biases of the run that is continued"):
        flow(plain, X, y, 6.0, join=True, biases="hidden", **options)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_weighted_run_is_joined_with_the_same_weights_only(through_a_file, tmp_path):
    X, y, _ = problem(1, "logistic")
    weight = np.random.default_rng(3).uniform(0.1, 3.0, len(y))
    network = make("prelu", 3.0, 1).network()
    first = flow(network, X, y, 1.0, loss="logistic", sample_weight=weight, weight_decay=0.1)
    assert first.config["weight_decay"] == 0.1
    if through_a_file:
        first.save(tmp_path / "first.npz")
        first = pf.Run.load(tmp_path / "first.npz")
    options = {"loss": "logistic", "weight_decay": 0.1, "join": True}
    joined = flow(first, X, y, 2.0, sample_weight=7.0 * weight, **options)  # only the ratios matter
    assert joined.config["sample_weight"] == first.config["sample_weight"]
    near(joined.network, flow(first, X, y, 2.0, loss="logistic", weight_decay=0.1, sample_weight=weight).network, 1e-6)
    other = weight.copy()
    other[-1] *= 1.0 + 1e-5
    for given, told in ((other, "weights with the digest"), (weight[::-1], "weights with"), (None, "equal weights")):
        with pytest.raises(ValueError, match=f"sample_weight of the run that is continued, weights .*, got {told}"):
            flow(first, X, y, 2.0, sample_weight=given, **options)


def test_equal_weights_are_no_part_of_a_configuration():
    X, y, _ = problem(1, "logistic")
    network = make("prelu", 3.0, 1).network()
    for train in (
        lambda **more: pf.gradient_descent(network, X, y, step=0.1, steps=1, **more),
        lambda **more: pf.sgd(network, X, y, step=0.1, batch=20, epochs=1, rng=0, **more),
        lambda **more: pf.adam(network, X, y, batch=20, epochs=1, rng=0, **more),
        lambda **more: flow(network, X, y, 0.1, **more),
    ):
        assert "sample_weight" not in train().config
        assert "sample_weight" not in train(sample_weight=np.full(len(y), 4.0)).config
        assert len(train(sample_weight=np.arange(len(y))).config["sample_weight"]) == 16
        assert train(weight_decay=0.5).config["weight_decay"] == 0.5


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("dense.output_bias", lambda a: a[..., :-1]),
        ("dense.output_bias", lambda a: a[:-1]),
        ("dense.output_bias", lambda a: a.astype(str)),
        ("dense.output_bias", lambda a: np.full_like(a, np.nan)),
        ("dense.output_bias", None),
        ("dense.rho", lambda a: a[..., 0]),
        ("dense.rho", lambda a: a[..., :-1]),
        ("dense.phi", lambda a: a[..., :-1]),
        ("dense.phi", lambda a: a[..., :0, :]),
    ],
)
def test_a_file_spoilt_is_refused(name, spoil, tmp_path):
    raw, X, y, _ = small("prelu", 3.0, 3, ("hidden", "output"), "squared")
    run = flow(raw.network(), X, y, 1.0, dense=True)
    arrays, meta = run.arrays(), run.meta()
    spoilt = arrays.pop(name)
    if spoil is not None:
        arrays[name] = spoil(spoilt)
    results.write_npz(tmp_path / "run.npz", "run", arrays, meta)
    with pytest.raises(ValueError, match=r"run\.npz.*damaged"):
        pf.Run.load(tmp_path / "run.npz")


def test_two_frozen_layers_are_refused_in_a_file(tmp_path):
    raw, X, y, _ = small("prelu", 3.0, 3, (), "squared")
    run = flow(raw.network(), X, y, 1.0, dense=True)
    arrays = run.arrays()
    arrays["dense.phi"], arrays["dense.rho"] = arrays["dense.phi"][..., :0], arrays["dense.rho"][..., :0]
    results.write_npz(tmp_path / "run.npz", "run", arrays, run.meta())
    with pytest.raises(ValueError, match="frozen"):
        pf.Run.load(tmp_path / "run.npz")


def test_a_run_without_steps_can_be_kept(tmp_path):
    raw, X, y, _ = small("prelu", 3.0, 3, ("hidden", "output"), "squared")
    run = flow(raw.network(), X, y, 0.0, dense=True)
    run.save(tmp_path / "run.npz")
    assert_same_networks(pf.Run.load(tmp_path / "run.npz").at(0.0), run.network)


# ---- bits, data, observers, interrupts


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2, 10])
@each_train
def test_bits_depend_on_neither_threads_nor_where_the_data_are(dtype, outputs, train, tmp_path):
    X, y, _ = problem(outputs, "squared", n=700, D=40)
    X = X.astype(dtype)
    file = np.memmap(tmp_path / "x", dtype=dtype, mode="w+", shape=X.shape)
    file[:] = X
    network = make("prelu", 3.0, outputs, ALL, h=70, D=40, scale=0.3).network(dtype)
    options = {"train": train, "weight_decay": 0.1, "observe": LOOK}
    one, two, mapped = (
        flow(network, data, y, 1.0, num_threads=threads, **options) for data, threads in ((X, 1), (X, 2), (file, 2))
    )
    assert one.stats["accepted"] >= 2
    assert_same_runs(one, two)
    assert_same_runs(one, mapped)


def test_stops_events_and_dense_output_leave_the_steps_alone():
    X, y, _ = problem(3, "cross_entropy")
    network = make("prelu", 3.0, 3, ALL).network()
    plain = flow(network, X, y, 8.0, loss="cross_entropy")
    busy = flow(network, X, y, 8.0, loss="cross_entropy", observe=LOOK, events=[loss_below(1.0)], dense=True)
    assert_same_networks(plain.network, busy.network)
    assert plain.stats["accepted"] == busy.stats["accepted"]
    np.testing.assert_array_equal(plain["loss"], busy["loss"][[0, -1]])
    (t,) = busy.events["loss_below_1"]
    at = busy.at(t).decision_function(X)
    value = np.mean(np.log(np.exp(at).sum(axis=1)) - at[np.arange(len(y)), y])
    assert value == pytest.approx(1.0, abs=1e-3)


def test_an_interrupt_keeps_what_was_done():
    X, y, _ = problem(3, "cross_entropy")
    network = make("prelu", 3.0, 3, ALL).network()

    def stop(at):
        if at.t > 2.0:
            raise KeyboardInterrupt
        return at.t

    look = pf.Observe(every=0.5, what=["loss", stop])
    run = flow(network, X, y, 8.0, loss="cross_entropy", observe=look, dense=True)
    assert run.status == "interrupted"
    assert len(run.t) == 5


def test_bad_arguments_are_refused_by_name():
    X, y, _ = problem(3, "cross_entropy")
    network = make("prelu", 2.0, 3).network()
    for options, match in (
        ({"loss": "logistic"}, "loss must be 'cross_entropy' or 'squared' for 3 outputs"),
        ({"sample_weight": -np.ones(60)}, "sample_weight must be at least 0"),
        ({"biases": "all"}, "biases must be one of 'hidden', 'output', 'both'"),
        ({"train": "none"}, "train must be one of 'both', 'inner', 'outer'"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
    ):
        with pytest.raises(ValueError, match=match):
            flow(network, X, y, 1.0, **{"loss": "cross_entropy", **options})
