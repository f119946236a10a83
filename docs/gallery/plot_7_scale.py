"""
From tiny epsilon to large
==========================

The theorem is about a vanishing initialisation. What is left of it at a scale that people use?
"""

# %%
# The same network, started at epsilon from 1e-300 to 0.15 (balanced: w = epsilon w_0, v = +-epsilon ||w_0||, so that at
# 1/sqrt(D) the weights have unit norm), trained to the same loss of 0.002.

import matplotlib.pyplot as plt
import numpy as np

import preluflow as pf

gmm = pf.OrthonormalGMM(dim=200, positive=4, negative=3, alpha=0.1, rng=0)
data, fresh = gmm.sample(1050, balanced=True, rng=1), gmm.sample(60, rng=3)
done = [pf.events.loss_below(2e-3, terminal=True)]
scales = [1e-300, 1e-30, 1e-7, 1e-3, 0.01, 0.02, 0.04, 0.07, 0.15]
runs, radii = [], []
for scale in scales:
    start = pf.initialize(width=100, scale=scale, like=data.X, p=3, rng=2)
    run = pf.gradient_flow(start, data.X, data.y, t1=5000, events=done)
    runs.append(run)
    radii.append(pf.robust_radius(run.network, fresh.X, fresh.y))
    quartile = float(np.quantile(pf.center_cosines(run.network, gmm).max(axis=1), 0.5))
    print(
        f"epsilon {scale:7g}: t = {run.t[-1]:6.1f}, {run.stats['gradients']:4d} gradients, "
        f"median cosine {quartile:.2f}, median radius {float(np.median(radii[-1].lower)):.3f}"
    )

# %%
# A start of 1e-300 is an ordinary number here, since weights are held by their logarithms: it costs the time the flow
# takes to grow, which is proportional to log(1/epsilon), and no accuracy.
#
# Towards the right the network fits before its neurons have turned (that is the "lazy" regime), and its radii fall
# although its loss is the same.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
shown = slice(2, None)
lower = np.array([np.median(radius.lower) for radius in radii])
upper = np.array([np.median(radius.upper) for radius in radii])
left.fill_between(scales[shown], lower[shown], upper[shown], color="0.7", lw=0)
left.semilogx(scales[shown], upper[shown], "k-", marker="o", ms=4, label="attacked")
left.semilogx(scales[shown], lower[shown], "k--", marker="o", mfc="white", ms=4, label="certified")
left.axhline(np.sqrt(2) / 2, color="0.6", ls=":")
left.set(xlabel="epsilon", ylabel="median l2 radius", ylim=(0, 0.75))
left.legend(loc="lower left")
cosines = [np.quantile(pf.center_cosines(run.network, gmm).max(axis=1), [0.25, 0.5, 0.75]) for run in runs]
right.fill_between(scales[shown], *np.array(cosines)[shown, ::2].T, color="0.8", lw=0)
right.semilogx(scales[shown], np.array(cosines)[shown, 1], "k-", marker="o", ms=4)
right.set(xlabel="epsilon", ylabel="cosine with the closest centre, quartiles", ylim=(0, 1.02))

# %%
# Exercises
# ---------
#
# 1. Does the time of alignment depend on epsilon? Use ``events.aligned`` at 1e-7 and at 1e-300.
# 2. In float64, at which epsilon does sigma(<x,w>)^3 of a raw weight vector w = epsilon u with <x,u> = 0.1 underflow to
#    0? (That is why weights are not held as they are.)
