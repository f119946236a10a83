"""Training of any network: several outputs, numbers to be met, biases, a centre, normalised input, weights, one layer.

The oracle is naive: raw float64 weights, a gradient written out neuron by neuron, and finite differences of that.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import reference as ref

import preluflow as pf

KINDS = [("prelu", 1.0), ("prelu", 1.5), ("prelu", 3.0), ("polynomial", 2.0), ("polynomial", 2.7), ("tanh", 3.0)]
PARTS = [(), ("hidden",), ("output",), ("center",), ("normalized",), ("hidden", "output", "center", "normalized")]
each_kind = pytest.mark.parametrize(("activation", "p"), KINDS)


@dataclass
class Raw:
    """A network in raw weights, as it is trained: W (h, D) or (h, D + 1) with the biases in the last column."""

    W: np.ndarray
    V: np.ndarray  # (h, C)
    B: np.ndarray  # (C,)
    activation: str
    p: float
    hidden: bool = False
    center: np.ndarray | float = 0.0
    normalized: bool = False

    def seen(self, X):
        moved = X - self.center
        return np.column_stack([moved, np.ones(len(X))]) if self.hidden else moved

    def kappa(self, X):
        if not self.normalized or self.activation == "tanh":
            return np.ones(len(X))
        return np.linalg.norm(X - self.center, axis=1) ** (1.0 - self.p)

    def outputs(self, X):
        seen = self.seen(X)
        phi = np.column_stack([ref.neuron(seen, w, self.activation, self.p) for w in self.W])
        return self.kappa(X)[:, None] * (phi @ self.V) + self.B

    def loss(self, X, Y, loss, weight=1.0):
        F = self.outputs(X)
        if loss == "cross_entropy":
            each = np.log(np.exp(F).sum(axis=1)) - (Y * F).sum(axis=1)
        else:
            each = ref.losses(F, Y, loss).sum(axis=1)
        return np.mean(weight * each)

    def gradient(self, X, Y, loss, weight=1.0):
        """Of the mean loss in W, V and B."""
        F, seen, kappa = self.outputs(X), self.seen(X), self.kappa(X)
        if loss == "cross_entropy":
            R = Y - np.exp(F) / np.exp(F).sum(axis=1, keepdims=True)
        else:
            R = len(X) * np.column_stack([ref.residual(f, y, loss) for f, y in zip(F.T, Y.T, strict=True)])
        R = R * np.reshape(weight * np.ones(len(X)), (-1, 1)) / len(X)
        W, V = np.zeros_like(self.W), np.zeros_like(self.V)
        for j, w in enumerate(self.W):
            along = kappa * (R @ self.V[j])
            W[j] = -along @ ref.neuron_weight_gradient(seen, w, self.activation, self.p)
            V[j] = -(kappa * ref.neuron(seen, w, self.activation, self.p)) @ R
        return W, V, -R.sum(axis=0)

    def step(self, gradient, eta, decay=0.0, train="both", output=True):
        W, V, B = gradient
        inner, outer = train != "outer", train != "inner"
        return replace(
            self,
            W=self.W - eta * inner * (W + decay * self.W),
            V=self.V - eta * outer * (V + decay * self.V),
            B=self.B - eta * (outer and output) * (B + decay * self.B),
        )

    def network(self, dtype="float64", **more):
        """The network, whose pReLU neurons are normalised by ||w_j|| alone."""
        W, V = self.W, self.V
        if self.hidden:
            W = self.W[:, :-1]
            if self.activation == "prelu":
                ratio = np.linalg.norm(W, axis=1) / np.linalg.norm(self.W, axis=1)
                V = V * ratio[:, None] ** (self.p - 1.0)
        return pf.TwoLayerNetwork(
            W,
            V[:, 0] if V.shape[1] == 1 else V,
            self.activation,
            self.p,
            dtype=dtype,
            hidden_bias=self.W[:, -1] if self.hidden else None,
            output_bias=self.B if np.any(self.B) else None,
            center=None if np.ndim(self.center) == 0 else self.center,
            normalize_input=self.normalized and self.activation != "tanh",
            **more,
        )


def make(activation, p, outputs, parts=(), h=7, D=5, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    hidden = "hidden" in parts
    return Raw(
        scale * rng.standard_normal((h, D + hidden)),
        scale * rng.standard_normal((h, outputs)),
        0.3 * rng.standard_normal(outputs) if "output" in parts else np.zeros(outputs),
        activation,
        p,
        hidden,
        0.3 * rng.standard_normal(D) if "center" in parts else 0.0,
        "normalized" in parts,
    )


def problem(outputs, loss, n=60, D=5, seed=1):
    """X, y as a user has it, and the targets (n, C)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D)) / np.sqrt(D)
    if loss == "squared":
        Y = rng.standard_normal((n, outputs))
        return X, Y[:, 0] if outputs == 1 else Y, Y
    if outputs == 1:
        y = rng.choice([-1.0, 1.0], n)
        return X, y, y[:, None]
    y = rng.integers(0, outputs, n)
    return X, y, np.eye(outputs)[y]


def losses_of(outputs):
    return ("squared", "exponential", "logistic") if outputs == 1 else ("squared", "cross_entropy")


CASES = [(outputs, loss) for outputs in (1, 2, 5) for loss in losses_of(outputs)]
each_case = pytest.mark.parametrize(("outputs", "loss"), CASES)
each_parts = pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "+".join(parts) or "none")


def same(network, raw, atol):
    """Whether a network is that of raw weights."""
    expected = raw.network()
    np.testing.assert_allclose(network.W, expected.W, rtol=0, atol=atol)
    np.testing.assert_allclose(network.v, expected.v, rtol=0, atol=atol)
    for name in ("hidden_bias", "output_bias"):
        found, wanted = getattr(network, name), getattr(expected, name)
        np.testing.assert_allclose(
            0.0 if found is None else found, 0.0 if wanted is None else wanted, rtol=0, atol=atol
        )


# ---- gradients


@each_kind
@each_parts
@each_case
def test_the_oracles_gradient_is_that_of_its_loss(activation, p, parts, outputs, loss):
    """What everything below rests on: finite differences."""
    raw, (X, _, Y) = make(activation, p, outputs, parts), problem(outputs, loss, n=9)
    weight = np.linspace(0.2, 1.8, 9)

    def value(name, array):
        return replace(raw, **{name: array}).loss(X, Y, loss, weight)

    for name, found in zip("WVB", raw.gradient(X, Y, loss, weight), strict=True):
        wanted = ref.central_difference(partial(value, name), getattr(raw, name))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7 * max(1.0, np.abs(wanted).max()))


@each_kind
@each_parts
@each_case
def test_the_gradient_of_a_network_is_that_of_finite_differences(activation, p, parts, outputs, loss):
    raw, (X, y, Y) = make(activation, p, outputs, parts, h=4), problem(outputs, loss, n=12)
    network, weight = raw.network(), np.linspace(0.5, 1.5, 12)
    found = network.loss_gradient(X, y, loss=loss, sample_weight=weight)
    assert found.loss == pytest.approx(raw.loss(X, Y, loss, weight), rel=1e-12)
    np.testing.assert_allclose(found.outputs.reshape(12, -1), raw.outputs(X), rtol=0, atol=1e-12)

    def value(**exchanged):
        have = {"W": network.W, "v": network.v, "hidden_bias": network.hidden_bias, "output_bias": network.output_bias}
        have.update(exchanged)
        net = pf.TwoLayerNetwork(
            have["W"],
            have["v"],
            activation,
            p,
            hidden_bias=have["hidden_bias"],
            output_bias=have["output_bias"],
            center=network.center,
            normalize_input=network.normalize_input,
        )
        F = net.decision_function(X).reshape(12, -1)
        if loss == "cross_entropy":
            return np.mean(weight * (np.log(np.exp(F).sum(axis=1)) - (Y * F).sum(axis=1)))
        return np.mean(weight * ref.losses(F, Y, loss).sum(axis=1))

    for name in ("W", "v", "hidden_bias", "output_bias"):
        point = getattr(network, name)
        if point is None:
            assert getattr(found, name, None) is None
            continue
        wanted = ref.central_difference(lambda array, name=name: value(**{name: array}), np.array(point, dtype=float))
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-5, atol=2e-7 * max(1.0, np.abs(wanted).max()))


# ---- steps


@each_kind
@each_parts
@each_case
def test_descent_is_that_of_raw_weights(activation, p, parts, outputs, loss):
    raw = make(activation, p, outputs, parts, scale=0.5)
    X, y, Y = problem(outputs, loss)
    network, curve = raw.network(), []
    for _ in range(20):
        curve.append(raw.loss(X, Y, loss))
        raw = raw.step(raw.gradient(X, Y, loss), 0.02, output="output" in parts)
    curve.append(raw.loss(X, Y, loss))
    run = pf.gradient_descent(network, X, y, step=0.02, steps=20, loss=loss, observe=pf.Observe(every=1, what=["loss"]))
    np.testing.assert_allclose(run["loss"], curve, rtol=1e-10)
    same(run.network, raw, 1e-10)
    np.testing.assert_allclose(run.network.decision_function(X).reshape(len(X), -1), raw.outputs(X), rtol=0, atol=1e-9)


@each_case
@pytest.mark.parametrize("train", ["inner", "outer"])
def test_a_frozen_layer_stays_and_the_other_moves_as_alone(outputs, loss, train):
    for activation, p in KINDS:
        raw = make(activation, p, outputs, ("hidden", "output"), scale=0.3)
        X, y, Y = problem(outputs, loss)
        start = raw.network()
        for _ in range(8):
            raw = raw.step(raw.gradient(X, Y, loss), 0.02, train=train)
        run = pf.gradient_descent(start, X, y, step=0.02, steps=8, loss=loss, train=train)
        same(run.network, raw, 1e-11)
        sgd = pf.sgd(start, X, y, step=0.02, batch=len(X), epochs=8, loss=loss, train=train, rng=0)
        same(sgd.network, raw, 1e-11)
        if train == "outer":
            np.testing.assert_array_equal(run.network.directions, start.directions)
        elif activation != "prelu":  # v is trained with the norm of (w, b), and told with that of w
            np.testing.assert_array_equal(run.network.v, start.v)
        assert run.config["train"] == train


@each_case
def test_weight_decay_and_weights_of_points(outputs, loss):
    rng = np.random.default_rng(5)
    for activation, p in KINDS:
        raw = make(activation, p, outputs, ("hidden", "output"), scale=0.5)
        X, y, Y = problem(outputs, loss)
        weight = rng.uniform(0.0, 3.0, len(X))
        start, mean_one = raw.network(), weight / weight.mean()
        for _ in range(8):
            raw = raw.step(raw.gradient(X, Y, loss, mean_one), 0.05, decay=0.3)
        run = pf.gradient_descent(start, X, y, step=0.05, steps=8, loss=loss, weight_decay=0.3, sample_weight=weight)
        same(run.network, raw, 1e-11)
        assert run["loss"][-1] == pytest.approx(raw.loss(X, Y, loss, mean_one), rel=1e-11)
        batches = pf.sgd(
            start, X, y, step=0.05, batch=60, epochs=8, loss=loss, weight_decay=0.3, sample_weight=7.0 * weight, rng=1
        )
        same(batches.network, raw, 1e-11)


def test_a_weight_of_two_is_the_point_twice():
    X, y, _ = problem(3, "cross_entropy")
    twice = np.concatenate([np.arange(60), np.arange(20)])
    weight = np.where(np.arange(60) < 20, 2.0, 1.0)
    network = make("prelu", 2.0, 3, ("output",)).network()
    a = pf.gradient_descent(network, X, y, step=0.1, steps=10, loss="cross_entropy", sample_weight=weight)
    b = pf.gradient_descent(network, X[twice], y[twice], step=0.1, steps=10, loss="cross_entropy")
    np.testing.assert_allclose(a.network.W, b.network.W, rtol=0, atol=1e-12)
    np.testing.assert_allclose(a.network.v, b.network.v, rtol=0, atol=1e-12)
    assert a["loss"][-1] == pytest.approx(b["loss"][-1], rel=1e-12)


@each_kind
@pytest.mark.parametrize("outputs", [1, 3])
def test_fifty_steps_are_torchs_autograd_and_sgd(activation, p, outputs):
    torch = pytest.importorskip("torch")
    loss = "squared" if outputs == 1 else "cross_entropy"
    raw, (X, y, _) = make(activation, p, outputs, ("hidden", "output"), scale=0.5), problem(outputs, loss)
    W, V, B = (torch.tensor(array, requires_grad=True) for array in (raw.W, raw.V, raw.B))
    data, target = torch.tensor(raw.seen(X)), torch.tensor(y)
    optimizer = torch.optim.SGD([W, V, B], lr=0.05, weight_decay=0.1)
    rng = np.random.default_rng(7)
    for _ in range(5):
        order = rng.permutation(60)
        for first in range(0, 60, 6):
            rows = order[first : first + 6]
            z = data[rows] @ W.T
            phi = torch.tanh(z) if activation == "tanh" else torch.relu(z) ** p
            if activation == "prelu":
                phi = phi / W.norm(dim=1) ** (p - 1.0)
            F = phi @ V + B
            if outputs == 1:
                value = ((F[:, 0] - target[rows]) ** 2).mean()
            else:
                value = torch.nn.functional.cross_entropy(F, target[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    run = pf.sgd(raw.network(), X, y, step=0.05, batch=6, epochs=5, loss=loss, weight_decay=0.1, rng=7)
    same(run.network, replace(raw, **{k: t.detach().numpy() for k, t in (("W", W), ("V", V), ("B", B))}), 1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2, 10])
def test_bits_depend_on_neither_threads_nor_how_rows_lie(dtype, outputs, tmp_path):
    loss = "squared"
    X, y, _ = problem(outputs, loss, n=2800, D=40)  # enough work for two threads
    X = X.astype(dtype)
    file = np.memmap(tmp_path / "x", dtype=dtype, mode="w+", shape=X.shape)
    file[:] = X
    network = make("prelu", 3.0, outputs, PARTS[-1], h=70, D=40, scale=0.3).network(dtype)
    runs = [
        pf.gradient_descent(network, data, y, step=0.01, steps=5, loss=loss, num_threads=threads)
        for data, threads in ((X, 1), (X, 2), (file, 2))
    ]
    runs += [
        pf.sgd(network, data, y, step=0.01, batch=64, epochs=2, loss=loss, rng=0, num_threads=threads)
        for data, threads in ((X, 1), (file, 2))
    ]
    for a, b in ((runs[0], runs[1]), (runs[0], runs[2]), (runs[3], runs[4])):
        np.testing.assert_array_equal(a.network.directions, b.network.directions)
        np.testing.assert_array_equal(a.network.log_abs_v, b.network.log_abs_v)
        np.testing.assert_array_equal(a.network.output_bias, b.network.output_bias)
        np.testing.assert_array_equal(a["loss"], b["loss"])


def test_several_outputs_grow_from_a_scale_beyond_float64():
    """Epsilon = 1e-200: alone at first, every neuron grows by the same factor as at 1e-20."""
    X, y, _ = problem(3, "cross_entropy")
    raw = make("prelu", 3.0, 3)
    grown = []
    for scale in (1e-20, 1e-200):
        base = raw.network()
        start = base.replace(log_norm=base.log_norm + np.log(scale), log_abs_v=base.log_abs_v + np.log(scale))
        run = pf.gradient_descent(start, X, y, step=0.5, steps=30, loss="cross_entropy")
        grown.append((run.network.log_norm - np.log(scale), run.network.directions))
        assert run["loss"][-1] == pytest.approx(np.log(3.0), rel=1e-12)
    np.testing.assert_allclose(grown[0][0], grown[1][0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(grown[0][1], grown[1][1], rtol=0, atol=1e-12)
    assert grown[0][0].max() > 0.1


# ---- known answers


def test_least_squares_by_one_neuron():
    """A ReLU neuron whose bias keeps it active everywhere is linear: of least squares the solution is known."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-0.5, 0.5, (80, 3))
    y = X @ np.array([1.0, -2.0, 0.5]) + 3.0 + 0.1 * rng.standard_normal(80)
    network = pf.TwoLayerNetwork([[0.1, 0.2, -0.1]], [1.0], p=1.0, hidden_bias=[2.0])
    run = pf.gradient_descent(network, X, y, step=0.05, steps=20000)
    A = np.column_stack([X, np.ones(80)])
    solution, (squares,), *_ = np.linalg.lstsq(A, y, rcond=None)
    assert run["loss"][-1] == pytest.approx(squares / 80, rel=1e-9)
    found = run.network.decision_function(np.vstack([0.1 * np.eye(3), np.zeros(3)]))
    np.testing.assert_allclose(10.0 * (found[:3] - found[3]), solution[:3], rtol=0, atol=1e-6)
    assert found[3] == pytest.approx(solution[3], abs=1e-7)


def test_softmax_of_two_classes_is_the_logistic_loss_of_their_difference():
    """F = (-f/2, f/2): the same loss; V moves by half as much a step each, and so f as with half the step for v."""
    X, _, _ = problem(2, "cross_entropy")
    y = np.random.default_rng(3).integers(0, 2, 60)
    raw = make("prelu", 2.0, 1, scale=0.5)
    one = raw.network()
    two = pf.TwoLayerNetwork(raw.W, np.hstack([-0.5 * raw.V, 0.5 * raw.V]), "prelu", 2.0)
    a = one.loss_gradient(X, 2.0 * y - 1.0, loss="logistic")
    b = two.loss_gradient(X, y, loss="cross_entropy")
    assert a.loss == pytest.approx(b.loss, rel=1e-14)
    np.testing.assert_allclose(a.W, b.W, rtol=0, atol=1e-15)
    np.testing.assert_allclose(a.v, b.v[:, 1], rtol=0, atol=1e-15)
    np.testing.assert_allclose(-a.v, b.v[:, 0], rtol=0, atol=1e-15)
    frozen = [
        pf.gradient_descent(net, X, t, step=0.1, steps=20, loss=loss, train="inner")
        for net, t, loss in ((one, 2.0 * y - 1.0, "logistic"), (two, y, "cross_entropy"))
    ]
    np.testing.assert_allclose(frozen[0].network.W, frozen[1].network.W, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(frozen[0]["accuracy"], frozen[1]["accuracy"])


def test_labels_of_any_two_integers_train_as_minus_and_plus_one():
    X, y, _ = problem(1, "logistic")
    plain = make("prelu", 3.0, 1).network()
    named = plain.replace(classes=[4, 7])
    a = pf.gradient_descent(plain, X, y, step=0.1, steps=5, loss="logistic")
    b = pf.gradient_descent(named, X, np.where(y > 0, 7, 4), step=0.1, steps=5, loss="logistic")
    np.testing.assert_array_equal(a.network.directions, b.network.directions)
    assert a["accuracy"][-1] == b["accuracy"][-1]
    assert b.network.classes.tolist() == [4, 7]
    assert set(b.network.predict(X)) <= {4, 7}


# ---- what is observed


def test_accuracy_and_margins_are_those_of_the_largest_output():
    X, y, Y = problem(4, "cross_entropy")
    network = make("prelu", 2.0, 4, ("output",)).network().replace(classes=[3, 1, 2, 9])
    labels = network.classes[y]
    seen = []
    run = pf.gradient_descent(
        network,
        X,
        labels,
        step=0.1,
        steps=4,
        loss="cross_entropy",
        observe=pf.Observe(every=2, what=["loss", "accuracy", "margin", "norms", lambda at: seen.append(at)]),
        events=[pf.events.accuracy_reached(1e-9)],
    )
    for at, accuracy, margin in zip(seen, run["accuracy"], run["margin"], strict=True):
        F = at.network.decision_function(X)
        others = np.where(Y > 0, -np.inf, F).max(axis=1)
        assert accuracy == np.mean(at.network.predict(X) == labels)
        assert margin == pytest.approx((F[np.arange(60), y] - others).min(), abs=1e-12)
    assert run["v"].shape == (3, 7, 4)
    assert list(run.events) == ["accuracy_reached_1e-09"]


def test_numbers_to_be_met_have_a_loss_and_no_accuracy():
    X, y, _ = problem(1, "squared")
    network = make("prelu", 3.0, 1).network()
    run = pf.gradient_descent(network, X, y, step=0.01, steps=2)
    assert set(run.records) == {"loss"}
    with pytest.raises(ValueError, match="observing 'margin' needs labels"):
        pf.gradient_descent(network, X, y, step=0.01, steps=2, observe=pf.Observe(what=["margin"]))
    two = np.arange(60) % 2  # taken for labels, unless it is a column
    assert set(pf.gradient_descent(network, X, two[:, None], step=0.01, steps=2).records) == {"loss"}
    with pytest.raises(ValueError, match="event 'accuracy_reached_1' needs labels"):
        pf.gradient_descent(network, X, y, step=0.01, steps=2, events=[pf.events.accuracy_reached()])


def test_biases_that_begin_at_zero_are_trained_when_asked_for():
    X, y, _ = problem(1, "squared")
    network = make("prelu", 3.0, 1).network()
    for biases in ("hidden", "output", "both"):
        run = pf.gradient_descent(network, X, y, step=0.01, steps=5, biases=biases)
        assert (run.network.hidden_bias is not None) == (biases != "output")
        assert (run.network.output_bias is not None) == (biases != "hidden")
        assert run.config["biases"] == (["hidden", "output"] if biases == "both" else [biases])
    zero = pf.gradient_descent(network, X, y, step=0.01, steps=0, biases="both").network
    np.testing.assert_allclose(zero.W, network.W, rtol=1e-15)
    assert zero.plain


# ---- bad input


@pytest.mark.parametrize(
    ("outputs", "y", "cure"),
    [
        (1, np.arange(60) % 2, r"use network\.replace\(classes=\[0, 1\]\)"),
        (1, (np.arange(60) % 2 == 0), r"use network\.replace\(classes=\[0, 1\]\)"),
        (1, np.arange(60) % 4, r"initialize\(\.\.\., outputs=4\)\.replace\(classes=\[0, 1, 2, 3\]\)"),
        (3, 2 * (np.arange(60) % 3) + 1.0, r"use network\.replace\(classes=\[1, 3, 5\]\)"),
        (3, np.array(["a", "b", "c"])[np.arange(60) % 3], r"np\.unique\(y, return_inverse=True\)"),
        (3, np.array(["a", "b", "c"], dtype=object)[np.arange(60) % 3], r"np\.unique\(y, return_inverse=True\)"),
        (1, np.array(["no", "yes"])[np.arange(60) % 2], r"np\.array\(\[-1, 1\]\)\[np\.unique"),
        (1, np.array(["no", "yes"], dtype=object)[np.arange(60) % 2], r"np\.array\(\[-1, 1\]\)\[np\.unique"),
        (1, ["no", "yes"] * 30, r"np\.array\(\[-1, 1\]\)\[np\.unique"),
        (1, ["a", "b", "c"] * 20, r"np\.unique\(y, return_inverse=True\)\[1\] for .*outputs=3\)"),
    ],
)
def test_labels_that_are_not_the_networks_come_with_a_cure_that_works(outputs, y, cure):
    X, _, _ = problem(3, "squared")
    loss = "logistic" if outputs == 1 else "cross_entropy"
    train = partial(pf.gradient_descent, step=0.1, steps=1)
    network = make("prelu", 2.0, outputs).network()
    with pytest.raises((ValueError, TypeError), match=rf"^y must hold the labels .*{cure}") as caught:
        train(network, X, y, loss=loss)
    if np.asarray(y).dtype.kind in "UO":
        code = str(caught.value).rpartition("; encode them by ")[2].rpartition(", or use")[0]
        code, _, other = code.partition(" for a network of ")
        cured, y = network, eval(code, {"np": np, "y": y})
        if other:
            cured, loss = pf.initialize(4, scale=0.1, like=X, outputs=3, rng=0), "cross_entropy"
    elif "outputs" in cure:
        cured, loss = (
            pf.initialize(4, scale=0.1, like=X, outputs=4, rng=0).replace(classes=[0, 1, 2, 3]),
            "cross_entropy",
        )
    else:
        cured = eval(str(caught.value).rpartition("; use ")[2], {"network": network})
    assert train(cured, X, y, loss=loss).status == "finished"


def test_data_of_the_other_precision_come_with_a_cure():
    X, y = np.ones((4, 3), dtype=np.float32), np.ones(4)
    network = pf.initialize(2, 3, 0.1, dtype="float64", rng=0)
    with pytest.raises(TypeError, match=r"X\.astype\('float64'\) or network\.astype\('float32'\)"):
        pf.adam(network, X, y, batch=2, epochs=1)
    assert pf.adam(network.astype("float32"), X, y, batch=2, epochs=1).status == "finished"


def test_bad_targets_are_refused_by_name():
    X, _, _ = problem(3, "squared")
    three, one = make("prelu", 2.0, 3).network(), make("prelu", 2.0, 1).network()
    y = np.zeros(60, dtype=int)

    def refused(network, target, match, kind=ValueError, **options):
        calls = (
            lambda: pf.gradient_descent(network, X, target, step=0.1, steps=1, **options),
            lambda: pf.sgd(network, X, target, step=0.1, batch=9, epochs=1, **options),
            lambda: pf.adam(network, X, target, step=0.1, batch=9, epochs=1, **options),
        )
        for call in calls:
            with pytest.raises(kind, match=match):
                call()

    for loss in ("exponential", "logistic"):
        refused(three, y, "loss must be 'cross_entropy' or 'squared' for 3 outputs", loss=loss)
    refused(one, y, "loss must be 'logistic' for the cross-entropy of one output", loss="cross_entropy")
    refused(three, y + 5, "y must hold the labels 0, 1, 2, but y\\[0\\] is 5", loss="cross_entropy")
    refused(three, np.ones((60, 2)), r"y must have shape \(60,\) or \(60, 3\)", loss="squared")
    refused(three, np.ones((60, 3)), "shares of the classes", loss="cross_entropy")
    refused(one, np.full(60, 0.5), "y must hold the labels -1 and", loss="logistic")
    refused(one, np.full(60, np.nan), "y must be finite")
    refused(one, np.ones(59), r"y must have shape \(60,\)")
    refused(one, y + np.arange(60) % 2, r"use network.replace\(classes=\[0, 1\]\); .* y.reshape\(-1, 1\)")
    for weight, match in (
        (np.ones(59), r"sample_weight must have shape \(60,\)"),
        (-np.ones(60), "sample_weight must be at least 0"),
        (np.zeros(60), "sample_weight must not be 0 everywhere"),
    ):
        refused(one, np.ones(60), match, sample_weight=weight)
    refused(one, np.ones(60), "biases must be one of 'hidden', 'output', 'both'", biases="all")
    refused(one, np.ones(60), "train must be one of 'both', 'inner', 'outer'", train="none")
    refused(one, np.ones(60), "weight_decay must be at least 0", weight_decay=-1.0)


@pytest.mark.parametrize("parts", list(itertools.combinations(("hidden", "output", "center", "normalized"), 2)))
def test_what_is_trained_can_be_saved_and_certified(parts, tmp_path):
    X, y, _ = problem(3, "cross_entropy")
    run = pf.gradient_descent(make("prelu", 2.0, 3, parts).network(), X, y, step=0.1, steps=30, loss="cross_entropy")
    run.save(tmp_path / "run.npz")
    again = pf.Run.load(tmp_path / "run.npz").network
    np.testing.assert_array_equal(again.decision_function(X), run.network.decision_function(X))
    radius = pf.robust_radius(run.network, X, y)
    np.testing.assert_array_equal(radius.correct, run.network.predict(X) == y)
    assert np.all(radius.lower <= radius.upper)
