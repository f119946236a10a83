"""
Brackets and certificates
=========================

What does "certified" mean, what does "attacked" mean, and how can you check either without believing us?
"""

# %%
# A network that is not well-behaved: ReLU, from a large start, so that its neurons point anywhere.

import matplotlib.pyplot as plt
import numpy as np

import preluflow as pf

gmm = pf.OrthonormalGMM(dim=50, positive=3, negative=3, alpha=0.3, rng=0)
data, fresh = gmm.sample(600, balanced=True, rng=1), gmm.sample(100, rng=3)
start = pf.initialize(60, 50, scale=0.5, kind="gaussian", p=1, rng=2)
net = pf.gradient_flow(start, data.X, data.y, t1=30, loss="logistic").network.astype("float64")

# %%
# Three levels: "fast" takes the best of a few closed forms, "tight" adds trust-region certificates, "exact" branch and
# bound. The lower end rises, the upper end falls.

levels = {level: pf.robust_radius(net, fresh.X, fresh.y, level) for level in ("fast", "tight", "exact")}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained", sharey=True)
order = np.argsort(levels["exact"].upper)
for ax, (level, radius) in zip(axes, levels.items()):
    ax.fill_between(range(len(order)), radius.lower[order], radius.upper[order], color="0.7", lw=0)
    ax.plot(radius.upper[order], "k-", lw=1, label="attacked")
    ax.plot(radius.lower[order], "k--", lw=1, label="certified")
    right = radius.correct
    ratio = float(np.median(radius.lower[right] / radius.upper[right]))
    ax.set(title=f'"{level}": median ratio {ratio:.3f}', xlabel="point, sorted")
axes[0].set_ylabel("l2 radius")
axes[0].legend()

# %%
# The upper end comes with a proof that you can run: adding the witness to the point makes it an error.

radius = levels["exact"]
moved = fresh.X.astype(np.float64) + radius.witness
print("all witnesses are errors:", bool(np.all((fresh.y * net.decision_function(moved))[radius.correct] <= 0)))
print("and as long as said:     ", bool(np.allclose(np.linalg.norm(radius.witness, axis=1), radius.upper)))

# %%
# The lower end is a theorem about all perturbations, so no experiment proves it; but an experiment could refute it.
# Here are the margins after ten thousand random perturbations of exactly that length, for one point: they come nowhere
# near 0, which says how useless random search is, and nothing about the bound. The witness, hardly longer, reaches 0.

point = int(np.flatnonzero(radius.correct)[0])
noise = np.random.default_rng(4).standard_normal((10_000, 50))
noise *= radius.lower[point] / np.linalg.norm(noise, axis=1, keepdims=True)
margins = fresh.y[point] * net.decision_function(fresh.X[point] + noise)
clean = float(fresh.y[point] * net.decision_function(fresh.X[[point]].astype(np.float64))[0])
plt.figure(figsize=(6, 3.4), layout="constrained")
plt.hist(margins, bins=60, color="0.7")
plt.axvline(clean, color="black", ls="--", label="at the point")
plt.axvline(0, color="black", label="decision boundary")
plt.xlabel("margin y f of randomly perturbed points")
plt.ylabel("number")
plt.legend()

# %%
# Exercises
# ---------
#
# 1. Write a function that checks a ``RobustRadius``: every witness is an error and no longer than ``upper``, and
#    nothing that you can think of within ``lower`` is one.
# 2. Take p = 1 and one neuron of each sign, f(x) = a sigma(<x,u>) - b sigma(<x,w>), and a point with y = +1. What is
#    its radius in closed form? (The errors are a union of two half-spaces. Which ones?)
