import sys

import numpy as np
import pytest
import reference as ref
from conftest import assert_whole

import preluflow as pf
from preluflow.observe import OBSERVERS, Recorder, Snapshot

EVERY = 5


def observed(small, what, *, activation="prelu", steps=15, **options):
    """A run with what was asked for, and the network at each of its stops."""
    network, data, gmm = small
    if activation != "prelu":
        network = pf.TwoLayerNetwork(network.W, network.v, activation, network.p)
    networks = []
    request = pf.Observe(every=EVERY, what=[lambda at: networks.append(at.network) or 0.0, *what], gmm=gmm, **options)
    run = pf.gradient_descent(network, data.X, data.y, step=0.1, steps=steps, observe=request)
    assert run.status == "finished"
    assert len(networks) == steps // EVERY + 1
    return run, networks, data, gmm


each_activation = pytest.mark.parametrize("activation", ref.ACTIVATIONS)
each_homogeneous = pytest.mark.parametrize("activation", ["prelu", "polynomial"])


@each_activation
def test_loss_accuracy_and_margin(small, activation):
    run, networks, data, _ = observed(small, ["loss", "accuracy", "margin"], activation=activation)
    for stop, network in enumerate(networks):
        f = ref.forward(network.W, network.v, data.X, activation, network.p)
        assert run["loss"][stop] == pytest.approx(ref.losses(f, data.y, "squared").mean(), rel=1e-12)
        assert run["accuracy"][stop] == np.mean(data.y * f > 0)
        assert run["margin"][stop] == pytest.approx((data.y * f).min(), rel=1e-10)


@each_activation
def test_alignment_norms_and_cluster_norms(small, activation):
    names = ["alignment", "norms", "cluster_norms"]
    run, networks, _, gmm = observed(small, names, activation=activation)
    for stop, network in enumerate(networks):
        W, v = network.W, network.v
        norms = np.linalg.norm(W, axis=1)
        cosines = (W / norms[:, None]) @ gmm.centers.T
        best = cosines.max(axis=1)
        np.testing.assert_allclose(run["alignment"][stop], best, rtol=1e-12)
        np.testing.assert_allclose(run["alignment_quartiles"][stop], np.quantile(best, [0.25, 0.5, 0.75]), rtol=1e-12)
        np.testing.assert_allclose(run["norms"][stop], norms, rtol=1e-12)
        np.testing.assert_allclose(run["v"][stop], v, rtol=1e-12)
        sums, void = np.zeros(gmm.clusters), 0.0
        for j in range(len(v)):
            own = np.flatnonzero(gmm.labels == np.sign(v[j]))
            if cosines[j, own].max() > 0:
                sums[own[np.argmax(cosines[j, own])]] += norms[j] ** 2
            else:
                void += norms[j] ** 2
        np.testing.assert_allclose(run["cluster_norms"][stop], sums, rtol=1e-12)
        assert run["void_norm"][stop] == pytest.approx(void, rel=1e-12)


@each_homogeneous
def test_balancedness_drift_and_normalised_margin(small, activation):
    run, networks, data, _ = observed(small, ["balancedness_drift", "normalized_margin"], activation=activation)
    kappa, degree = (1.0, 2.0) if activation == "prelu" else (networks[0].p, networks[0].p + 1.0)
    balance = [np.sum(network.W**2, axis=1) - kappa * network.v**2 for network in networks]
    for stop, network in enumerate(networks):
        assert run["balancedness_drift"][stop] == pytest.approx(np.abs(balance[stop] - balance[0]).max(), abs=1e-14)
        theta = np.sqrt(np.sum(network.W**2) + np.sum(network.v**2))
        margin = (data.y * ref.forward(network.W, network.v, data.X, activation, network.p)).min()
        assert run["normalized_margin"][stop] == pytest.approx(margin / theta**degree, rel=1e-10)


@pytest.mark.parametrize("epsilon", [1e-7, 1e-100, 1e-300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accuracy_and_normalised_margin_do_not_see_the_scale(small, epsilon, dtype):
    network, data, _ = small
    what, values = pf.Observe(what=["accuracy", "normalized_margin"]), []
    for scale in (1.0, epsilon):
        scaled = network.replace(
            log_norm=network.log_norm + np.log(scale), log_abs_v=network.log_abs_v + np.log(scale)
        ).astype(dtype)
        run = pf.gradient_descent(scaled, data.X.astype(dtype), data.y, step=0.1, steps=0, observe=what)
        values.append([run["accuracy"][0], run["normalized_margin"][0]])
    assert 0.0 < values[0][0] < 1.0
    np.testing.assert_allclose(values[0], values[1], rtol={"float32": 2e-5, "float64": 1e-11}[dtype])


@each_homogeneous
def test_distances(small, activation):
    options = {"batch": 7, "steps": 11, "step_size": 0.3, "rng": 5}
    what = ["distance_estimate", "distance_bracket"]
    run, networks, _, gmm = observed(small, what, activation=activation, estimator=options)
    for stop, network in enumerate(networks):
        assert run["distance_estimate"][stop] == pf.distance_estimate(network, gmm, **options)
        bracket = pf.distance_bracket(network, gmm)
        assert (run["distance_lower"][stop], run["distance_upper"][stop]) == (bracket.lower, bracket.upper)


# ---- stops and user functions


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, [0, 10]),
        ({"every": 4}, [0, 4, 8, 10]),
        ({"every": 5}, [0, 5, 10]),
        ({"every": 11}, [0, 10]),
        ({"at": [7, 3]}, [0, 3, 7, 10]),
        ({"at": np.array([10, 0])}, [0, 10]),
        ({"every": 4, "at": 5}, [0, 4, 5, 8, 10]),
    ],
)
def test_stops(small, request_, expected):
    network, data, _ = small
    run = pf.gradient_descent(network, data.X, data.y, step=0.1, steps=10, observe=pf.Observe(**request_))
    np.testing.assert_array_equal(run.iterations, expected)
    np.testing.assert_allclose(run.t, 0.1 * np.array(expected), rtol=1e-15)
    assert run["loss"].shape == (len(expected),)


def test_user_functions_return_numbers_arrays_and_dicts(small):
    def largest(at):
        return float(np.abs(at.outputs).max())

    def outputs(at):
        return at.outputs

    def several(at):
        return {"iteration": at.iteration, "weights": at.network.W, "clusters": at.gmm.clusters}

    run, networks, data, gmm = observed(small, [largest, outputs, several])
    assert run["weights"].shape == (4, networks[0].width, networks[0].dim)
    np.testing.assert_array_equal(run["iteration"], run.iterations)
    np.testing.assert_array_equal(run["clusters"], gmm.clusters)
    for stop, network in enumerate(networks):
        np.testing.assert_array_equal(run["outputs"][stop], network.decision_function(data.X))
        assert run["largest"][stop] == np.abs(run["outputs"][stop]).max()
        np.testing.assert_array_equal(run["weights"][stop], network.W)
    assert "largest" in run
    assert "absent" not in run
    with pytest.raises(KeyError, match=r"absent.*largest"):
        _ = run["absent"]


def test_a_snapshot_says_where_the_run_stands(small):
    network, data, gmm = small
    seen = []
    request = pf.Observe(every=3, what=[lambda at: seen.append(at) or 0.0], gmm=gmm)
    pf.gradient_descent(network, data.X, data.y, step=0.25, steps=6, observe=request, num_threads=1)
    assert [at.iteration for at in seen] == [0, 3, 6]
    assert [at.t for at in seen] == [0.0, 0.75, 1.5]
    for at in seen:
        assert at.start is network
        assert at.gmm is gmm
        assert at.observe is request
        np.testing.assert_array_equal(at.y, data.y)
        assert at.loss == pytest.approx(np.mean((at.y - at.outputs) ** 2), rel=1e-13)


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (np.zeros(3), "shape"),
        ("a word", "real numbers"),
        ({"other": 1.0}, "other"),
        ({"loss": 1.0}, "two observers"),
    ],
)
def test_an_observer_that_changes_its_mind_ends_the_run(small, later, message):
    network, data, _ = small

    def fickle(at):
        return 0.0 if at.iteration < 6 else later

    run = pf.gradient_descent(
        network, data.X, data.y, step=0.1, steps=9, observe=pf.Observe(every=3, what=["loss", fickle])
    )
    assert run.status == "observer_failed"
    assert message in run.message
    np.testing.assert_array_equal(run.iterations, [0, 3])
    assert_whole(run)


def test_two_functions_of_one_name_do_not_overwrite_each_other(small):
    network, data, _ = small
    with pytest.raises((TypeError, ValueError), match="<lambda>"):
        pf.gradient_descent(
            network, data.X, data.y, step=0.1, steps=1, observe=pf.Observe(what=[lambda at: 1.0, lambda at: 2.0])
        )


def test_ctrl_c_at_any_line_of_the_recorder_leaves_stops_whole(small):
    network, data, _ = small

    def snapshot(iteration):
        return Snapshot(iteration, 0.1 * iteration, network, network, lambda: (1.0, data.y), data.X, data.y, request, 1)

    def interrupt_at(line):
        """A recorder with one stop, whose second is interrupted at the given line event; and whether it was."""
        recorder, count = Recorder(request), 0
        recorder.record(snapshot(0), {})

        def trace(frame, event, _):
            nonlocal count
            if frame.f_code is not Recorder.record.__code__:
                return None
            if event == "line":
                count += 1
                if count == line:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            recorder.record(snapshot(5), {})
        except KeyboardInterrupt:
            return recorder, True
        finally:
            sys.settrace(before)
        return recorder, False

    request = pf.Observe(what=["loss", "norms"])
    for line in range(1, 200):
        recorder, interrupted = interrupt_at(line)
        arrays = recorder.arrays()
        lengths = {len(recorder.stops), *(len(values) for values in arrays.values())}
        assert set(arrays) == {"loss", "norms", "v"}
        assert len(lengths) == 1, f"line event {line}: {lengths}"
        if not interrupted:
            break
    assert line > 5


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", [10.0, 1e3, 1e20])
@pytest.mark.parametrize("activation", ["prelu", "polynomial"])
@pytest.mark.parametrize("loss", ref.LOSSES)
def test_observing_a_run_that_diverges_does_not_lose_it(gmm, dtype, activation, loss, step):
    data = gmm.sample(60, balanced=True, dtype=dtype, rng=1)
    network = pf.initialize(8, gmm.dim, 0.3, activation=activation, dtype=dtype, rng=2)
    request = pf.Observe(every=1, what=sorted(OBSERVERS), gmm=gmm)
    run = pf.gradient_descent(network, data.X, data.y, step=step, steps=8, loss=loss, observe=request)
    assert run.status in ("finished", "not_finite", "observer_failed")
    assert_whole(run)
    assert len(run.t) >= 1
    assert not np.any(run["distance_lower"] > run["distance_upper"])


# ---- refusals


@pytest.mark.parametrize("name", sorted(name for name, entry in OBSERVERS.items() if entry.needs_gmm))
def test_what_needs_a_mixture_is_refused_without_one(name):
    with pytest.raises(ValueError, match=f"{name}.*gmm"):
        pf.Observe(what=[name])


@pytest.mark.parametrize("name", ["normalized_margin", "balancedness_drift", "distance_estimate", "distance_bracket"])
def test_what_tanh_does_not_have_is_refused_before_work(small, name):
    network, data, gmm = small
    tanh = pf.TwoLayerNetwork(network.W, network.v, "tanh")
    with pytest.raises(ValueError, match=f"{name}.*tanh"):
        pf.gradient_descent(tanh, data.X, data.y, step=0.1, steps=1, observe=pf.Observe(what=[name], gmm=gmm))


def test_a_user_function_without_its_mixture_raises_at_the_first_stop(small):
    network, data, _ = small
    with pytest.raises(ValueError, match="gmm"):
        pf.gradient_descent(
            network, data.X, data.y, step=0.1, steps=1, observe=pf.Observe(what=[lambda at: at.gmm.clusters])
        )
