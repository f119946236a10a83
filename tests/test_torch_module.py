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


# ---- what a network cannot express, or torch cannot hold


class Other(torch.nn.Module):
    """A module that looks like ours, and computes what it is given."""

    def __init__(self, compute, dtype=torch.float64, activation="prelu", p=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.W = torch.nn.Parameter(torch.randn(6, 5, generator=generator, dtype=dtype))
        self.v = torch.nn.Parameter(torch.randn(6, generator=generator, dtype=dtype))
        self.activation, self.p, self.compute = activation, p, compute

    def forward(self, X):
        return self.compute(self, X)


def relu_net(self, X):
    return torch.relu(X @ self.W.T) @ self.v


WRONG = {
    "an output bias": lambda self, X: relu_net(self, X) + 1.8,
    "a hidden bias": lambda self, X: torch.relu(X @ self.W.T - 0.1) @ self.v,
    "a small bias": lambda self, X: relu_net(self, X) + 1e-3,
    "gelu": lambda self, X: torch.nn.functional.gelu(X @ self.W.T) @ self.v,
    "leaky relu": lambda self, X: torch.nn.functional.leaky_relu(X @ self.W.T, 0.01) @ self.v,
    "clipped": lambda self, X: torch.clamp(relu_net(self, X), -5.0, 5.0),
    "another layer": lambda self, X: torch.tanh(relu_net(self, X)),
    "normalised inputs": lambda self, X: relu_net(self, X / (1e-9 + X.norm(dim=1, keepdim=True))),
    "nan": lambda self, X: relu_net(self, X) * float("nan"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WRONG)
def test_a_module_that_computes_something_else_is_refused(name, dtype):
    with pytest.raises(ValueError, match=r"^module must compute.*bias"):
        pf.TwoLayerNetwork.from_torch(Other(WRONG[name], dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_that_computes_the_same_is_taken_as_it_is(dtype):
    for compute in (relu_net, lambda self, X: relu_net(self, X)[:, None]):
        module = Other(compute, dtype)
        np.testing.assert_allclose(
            pf.TwoLayerNetwork.from_torch(module).W, module.W.detach().numpy(), rtol=1e-6, atol=1e-7
        )
    module = Other(lambda self, X: relu_net(self, torch.nn.functional.dropout(X, training=self.training)))
    assert pf.TwoLayerNetwork.from_torch(module).width == 6
    assert module.training


def test_a_module_whose_forward_fails_or_gives_more_is_refused():
    def fails(self, X):
        raise RuntimeError("no luck")

    with pytest.raises(ValueError, match=r"module.*RuntimeError: no luck"):
        pf.TwoLayerNetwork.from_torch(Other(fails))
    with pytest.raises(ValueError, match=r"module must give one number"):
        pf.TwoLayerNetwork.from_torch(Other(lambda self, X: X))
    holder = Other(relu_net)
    plain = type("Plain", (), {"W": holder.W, "v": holder.v, "activation": "prelu", "p": 1.0})()
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got Plain"):
        pf.TwoLayerNetwork.from_torch(plain)


def scaled(network, log_scale):
    return network.replace(log_norm=network.log_norm + log_scale, log_abs_v=network.log_abs_v + log_scale)


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-3, 1e3, 1e9])
def test_a_round_trip_at_any_scale_that_the_dtype_holds(problem, activation, p, dtype, scale):
    network = scaled(problem(n=20, h=6, D=5).network(activation, p, dtype), np.log(scale))
    back = pf.TwoLayerNetwork.from_torch(network.to_torch())
    np.testing.assert_allclose(back.log_norm, network.log_norm, rtol=0, atol=1e-6)
    np.testing.assert_allclose(back.log_abs_v, network.log_abs_v, rtol=0, atol=1e-6)


@each_kind
def test_what_underflows_or_overflows_in_torch_is_refused_with_its_cure(problem, activation, p):
    network = problem(n=20, h=6, D=5).network(activation, p, "float32")
    for log_scale in (np.log(1e-60), np.log(1e60)):
        extreme = scaled(network, log_scale)
        with pytest.raises(ValueError, match=r"range of float32.*6 of 6 neurons.*astype\('float64'\)\.to_torch"):
            extreme.to_torch()
        module = extreme.astype("float64").to_torch()
        np.testing.assert_allclose(np.log(np.abs(module.v.detach().numpy())), extreme.log_abs_v, rtol=1e-12)
    for dtype in ("float32", "float64"):
        with pytest.raises(ValueError, match=rf"range of {dtype}.*1e-500.*network\.replace"):
            scaled(network.astype(dtype), -500.0 * np.log(10.0)).to_torch()
    swapped = network.replace(log_norm=network.log_norm - 200.0, log_abs_v=network.log_abs_v + 200.0)
    with pytest.raises(ValueError, match=r"range of float32"):
        swapped.to_torch()


def test_neurons_that_do_not_matter_may_be_lost(problem):
    network = problem(n=20, h=6, D=5).network(dtype="float32")
    log_norm = network.log_norm.copy()
    log_norm[2] -= 200.0
    W = network.replace(log_norm=log_norm).to_torch().W.detach().numpy()
    assert (W[2] == 0.0).all()
    assert np.abs(W[[0, 1, 3, 4, 5]]).min() > 0.0
    dead = pf.TwoLayerNetwork(np.zeros((2, 3)), np.zeros(2), dtype="float32")
    assert (dead.to_torch().W == 0.0).all()


# ---- networks with several outputs, biases and the like

LAYERS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", LAYERS)
@pytest.mark.parametrize("outputs", [1, 2, 10])
@pytest.mark.parametrize("biases", [(False, False), (True, False), (False, True), (True, True)])
def test_a_sequential_of_two_layers_is_read(dtype, activation, outputs, biases):
    torch.manual_seed(0)
    first, last = (
        torch.nn.Linear(*sizes, bias=bias) for sizes, bias in zip(((12, 20), (20, outputs)), biases, strict=True)
    )
    within = torch.nn.Sequential(first, LAYERS[activation](), torch.nn.Identity())
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), within, torch.nn.Dropout(), last).to(dtype)
    module[1].eval()
    network = pf.TwoLayerNetwork.from_torch(module)
    assert (module.training, module[1].training, module[3].training) == (True, False, True)
    assert network.activation == {"relu": "prelu", "tanh": "tanh"}[activation]
    assert (network.num_outputs, network.p) == (outputs, 1.0)
    assert network.plain == (outputs == 1 and biases == (False, False))
    assert network.classes.tolist() == ([-1, 1] if outputs == 1 else list(range(outputs)))
    X = torch.randn(50, 12, dtype=dtype, requires_grad=True)
    module.eval()
    f = module(X)
    digits = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    found, slopes = network.value_and_input_gradient(X.detach().numpy(), np.ones((50, outputs)))
    np.testing.assert_allclose(found.reshape(50, -1), f.detach().numpy(), rtol=0, atol=digits)
    f.sum().backward()
    np.testing.assert_allclose(slopes, X.grad.numpy(), rtol=0, atol=digits)
    again = pf.TwoLayerNetwork.from_torch(network.to_torch())
    np.testing.assert_allclose(again.W, network.W, rtol=0, atol=digits)
    np.testing.assert_allclose(
        again.decision_function(X.detach().numpy()), network.decision_function(X.detach().numpy()), rtol=0, atol=digits
    )


def general(activation, p, outputs, normalized, dtype):
    rng = np.random.default_rng(0)
    return pf.TwoLayerNetwork(
        rng.standard_normal((6, 5)),
        rng.standard_normal((6, outputs) if outputs > 1 else 6),
        activation,
        p,
        dtype=dtype,
        hidden_bias=rng.standard_normal(6),
        output_bias=rng.standard_normal(outputs),
        center=rng.standard_normal(5).astype(np.float32),  # so that torch has a point there, too
        normalize_input=normalized and activation != "tanh",
        classes=[4, 1, 3][: max(outputs, 2)],
    )


@each_kind
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_round_trip_of_any_network(activation, p, outputs, normalized, dtype):
    network = general(activation, p, outputs, normalized, dtype)
    module = network.to_torch()
    assert {name for name, _ in module.named_parameters()} == {"W", "v", "hidden_bias", "output_bias"}
    back = pf.TwoLayerNetwork.from_torch(module)
    assert (back.activation, back.p, back.normalize_input) == (activation, p, network.normalize_input)
    np.testing.assert_array_equal(back.classes, network.classes)
    digits = {"float32": 1e-6, "float64": 1e-13}[dtype]
    for name in ("W", "v", "hidden_bias", "output_bias", "center"):
        np.testing.assert_allclose(getattr(back, name), getattr(network, name), rtol=0, atol=digits)
    X = np.vstack([np.random.default_rng(1).standard_normal((20, 5)), network.center]).astype(dtype)
    expected, tensor = network.decision_function(X), torch.tensor(X, requires_grad=True)
    f = module(tensor)
    size = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(f.detach().numpy(), expected, rtol=0, atol=30 * digits * size)
    f.sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in module.parameters())
    assert torch.isfinite(tensor.grad[:20]).all()
    slopes = network.input_gradient(X, np.ones((21, outputs)))[:20]
    np.testing.assert_allclose(tensor.grad[:20].numpy(), slopes, rtol=0, atol=300 * digits * np.abs(slopes).max())


NO_TWO_LAYERS = {
    "one layer": lambda nn: nn.Sequential(nn.Linear(3, 2)),
    "no last layer": lambda nn: nn.Sequential(nn.Linear(3, 4), nn.ReLU()),
    "three layers": lambda nn: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
    "another activation": lambda nn: nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)),
    "no activation": lambda nn: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
    "a softmax": lambda nn: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1)),
    "a norm": lambda nn: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
    "nothing": lambda nn: nn.Sequential(),
}


@pytest.mark.parametrize("name", NO_TWO_LAYERS)
def test_a_sequential_of_something_else_is_refused(name):
    with pytest.raises(ValueError, match=r"module must be a Linear, a ReLU or Tanh, and a Linear"):
        pf.TwoLayerNetwork.from_torch(NO_TWO_LAYERS[name](torch.nn))


def test_a_sequential_that_computes_something_else_is_refused():
    class Twice(torch.nn.Linear):
        def forward(self, x):
            return 2.0 * super().forward(x)

    module = torch.nn.Sequential(Twice(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"module must compute the two layers"):
        pf.TwoLayerNetwork.from_torch(module)
    half = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).half()
    with pytest.raises(ValueError, match=r"float32 or float64, but .* is torch\.float16"):
        pf.TwoLayerNetwork.from_torch(half)


def test_parts_that_torch_cannot_hold_are_refused():
    network = pf.TwoLayerNetwork(np.eye(2, dtype=np.float32), [1.0, -1.0])
    for part, value in (("output_bias", [1e-60]), ("output_bias", [1e60]), ("center", [1e60, 0.0])):
        with pytest.raises(ValueError, match=rf"network must have a {part} in the range of float32"):
            network.replace(**{part: value}).to_torch()
        assert network.replace(**{part: value}).astype("float64").to_torch() is not None
