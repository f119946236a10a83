"""A naive float64 oracle in raw coordinates (W, v), written to be obviously right, not fast.

Its formulas are those of docs/mathematics.md#definitions.

W (h, D), v (h,), X (n, D), y (n,). Nothing here comes from the package.
"""

from __future__ import annotations

import numpy as np

ACTIVATIONS = ("prelu", "polynomial", "tanh")
LOSSES = ("squared", "exponential", "logistic")
DEGREES = (1.0, 1.5, 2.0, 2.7, 3.0, 4.5)
# Every activation with every degree it has.
KINDS = [(activation, p) for activation in ("prelu", "polynomial") for p in DEGREES] + [("tanh", 3.0)]


def relu_power(z, p):
    """sigma(z)^p for p > 0."""
    return np.where(z > 0, np.abs(z) ** p, 0.0)


def relu_slope(z, p):
    """P sigma(z)^(p-1), 0 where z <= 0 also at p = 1."""
    safe = np.where(z > 0, z, 1.0)
    return np.where(z > 0, p * safe ** (p - 1.0), 0.0)


# ---- one neuron phi(x; w), f = sum_j v_j phi(x; w_j)


def neuron(X, w, activation, p):
    """phi(x_i; w), shape (n,)."""
    z, norm = X @ w, np.sqrt(w @ w)
    if activation == "tanh":
        return np.tanh(z)
    if activation == "polynomial":
        return relu_power(z, p)
    return relu_power(z, p) / norm ** (p - 1.0) if norm > 0 else np.zeros(len(X))


def neuron_weight_gradient(X, w, activation, p):
    """D phi(x_i; w) / d w, shape (n, D)."""
    z, norm = X @ w, np.sqrt(w @ w)
    if activation == "tanh":
        return (1.0 - np.tanh(z) ** 2)[:, None] * X
    if activation == "polynomial":
        return relu_slope(z, p)[:, None] * X
    if norm == 0:
        return np.zeros_like(X)
    along_x = relu_slope(z, p)[:, None] * X / norm ** (p - 1.0)
    along_w = (p - 1.0) * relu_power(z, p)[:, None] * w / norm ** (p + 1.0)
    return along_x - along_w


def neuron_input_gradient(X, w, activation, p):
    """D phi(x_i; w) / d x, shape (n, D)."""
    z, norm = X @ w, np.sqrt(w @ w)
    if activation == "tanh":
        return (1.0 - np.tanh(z) ** 2)[:, None] * w
    if activation == "polynomial":
        return relu_slope(z, p)[:, None] * w
    return relu_slope(z, p)[:, None] * w / norm ** (p - 1.0) if norm > 0 else np.zeros_like(X)


# ---- the network


def forward(W, v, X, activation, p):
    """f(x_i), shape (n,)."""
    return sum(v_j * neuron(X, w_j, activation, p) for w_j, v_j in zip(W, v, strict=True))


def input_gradient(W, v, X, activation, p):
    """D f / d x at every x_i, shape (n, D)."""
    return sum(v_j * neuron_input_gradient(X, w_j, activation, p) for w_j, v_j in zip(W, v, strict=True))


def losses(f, y, loss):
    """Loss of every point, shape (n,)."""
    if loss == "squared":
        return (y - f) ** 2
    return np.exp(-y * f) if loss == "exponential" else np.log(1.0 + np.exp(-y * f))


def residual(f, y, loss):
    """r_i = -(1/n) d loss / d f, shape (n,)."""
    if loss == "squared":
        slope = -2.0 * (y - f)
    elif loss == "exponential":
        slope = -y * np.exp(-y * f)
    else:
        slope = -y / (1.0 + np.exp(y * f))
    return -slope / len(y)


def mean_loss(W, v, X, y, activation, p, loss):
    """Mean loss over the data."""
    return losses(forward(W, v, X, activation, p), y, loss).mean()


def loss_gradient(W, v, X, y, activation, p, loss):
    """Gradient of the mean loss in W (h, D) and v (h,)."""
    r = residual(forward(W, v, X, activation, p), y, loss)
    W_gradient = [-v_j * (r @ neuron_weight_gradient(X, w_j, activation, p)) for w_j, v_j in zip(W, v, strict=True)]
    v_gradient = [-(r @ neuron(X, w_j, activation, p)) for w_j in W]
    return np.array(W_gradient), np.array(v_gradient)


def descend(W, v, X, y, activation, p, loss, step, steps):
    """(W, v) after ``steps`` raw gradient-descent steps, and the loss before each step and at the end."""
    curve = []
    for _ in range(steps):
        curve.append(mean_loss(W, v, X, y, activation, p, loss))
        W_gradient, v_gradient = loss_gradient(W, v, X, y, activation, p, loss)
        W, v = W - step * W_gradient, v - step * v_gradient
    return W, v, np.array([*curve, mean_loss(W, v, X, y, activation, p, loss)])


# ---- reference classifiers


def cluster_prelu(centers, labels, X, p):
    """F^(p)(x) = sum_k label_k sigma(<x,mu_k>)^p (eq. 9)."""
    return sum(label * relu_power(X @ mu, p) for mu, label in zip(centers, labels, strict=True))


def class_average_relu(centers, labels, X):
    """F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->), mu_+- the normalised class averages."""
    total = np.zeros(len(X))
    for label in (1.0, -1.0):
        own = centers[labels == label]
        average = own.mean(axis=0)
        mu = average / np.linalg.norm(average)
        total += label * np.sqrt(len(own)) * relu_power(X @ mu, 1.0)
    return total


# ---- finite differences


def central_difference(function, point, step=1e-6):
    """Gradient of a scalar ``function`` of an array, by central differences; same shape as ``point``."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        ahead, behind = point.copy(), point.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2.0 * step)
    return gradient


# ---- any network


def general_forward(W, v, X, activation, p, hidden_bias=0.0, output_bias=0.0, center=0.0, normalized=False):
    """F_c(x_i), shape (n, C), for v (h, C)."""
    moved = X - center
    z = moved @ W.T + hidden_bias
    if activation == "tanh":
        return np.tanh(z) @ v + output_bias
    phi = relu_power(z, p)
    if activation == "prelu":
        phi = phi / np.linalg.norm(W, axis=1) ** (p - 1.0)
    kappa = np.linalg.norm(moved, axis=1) ** (1.0 - p) if normalized else np.ones(len(X))
    return kappa[:, None] * (phi @ v) + output_bias
