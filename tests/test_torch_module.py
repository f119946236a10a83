import numpy as np
import pytest
import reference as ref

import preluflow as pf

torch = pytest.importorskip("torch")

each_kind = pytest.mark.parametrize(("activation", "p"), ref.KINDS)


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_and_the_same_function(problem, activation, p, dtype):
    data = problem(n=20, h=6, D=5)
    network, X = data.network(activation, p, dtype), data.X.astype(dtype)
    module = network.to_torch()
    back = pf.TwoLayerNetwork.from_torch(module)
    assert (back.activation, back.p, back.dtype) == (activation, p, np.dtype(dtype))
    digits = {"float32": 1e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(back.W, network.W, rtol=0, atol=digits)
    np.testing.assert_allclose(back.v, network.v, rtol=0, atol=digits)
    f = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(f, network.decision_function(X), rtol=0, atol=10 * digits)


@each_kind
def test_autograd_finds_the_same_gradients(problem, activation, p):
    data = problem(n=20, h=6, D=5)
    network = data.network(activation, p)
    module, X = network.to_torch(), torch.tensor(data.X, requires_grad=True)
    ((torch.tensor(data.y) - module(X)) ** 2).mean().backward()
    found = network.loss_gradient(data.X, data.y)
    np.testing.assert_allclose(module.W.grad.numpy(), found.W, rtol=0, atol=1e-13)
    np.testing.assert_allclose(module.v.grad.numpy(), found.v, rtol=0, atol=1e-13)
    chained = -found.residual[:, None] * network.input_gradient(data.X)
    np.testing.assert_allclose(X.grad.numpy(), chained, rtol=0, atol=1e-13)


def test_a_dead_neuron_stays_dead(problem):
    data = problem(n=20, h=6, D=5)
    data.W[2] = 0.0
    network = data.network()
    module = network.to_torch()
    f = module(torch.tensor(data.X))
    np.testing.assert_allclose(f.detach().numpy(), network.decision_function(data.X), rtol=0, atol=1e-13)
    f.sum().backward()
    assert torch.isfinite(module.W.grad).all()


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match=r"module.*activation"):
        pf.TwoLayerNetwork.from_torch(torch.nn.Linear(3, 1))
