"""
Why PGD lies
============

An attack that fails says nothing about the network. On pReLU networks the standard attack fails where a theorem says
that it cannot be the network's doing.
"""

# %%
# A network with p = 3, learned by the flow, and 100 fresh points.

import matplotlib.pyplot as plt
import numpy as np

import preluflow as pf

gmm = pf.OrthonormalGMM(dim=200, positive=4, negative=3, alpha=0.1, rng=0)
data, fresh = gmm.sample(1050, balanced=True, rng=1), gmm.sample(100, rng=3)
start = pf.initialize(width=100, scale=1e-7, like=data.X, p=3, rng=2)
net = pf.gradient_flow(start, data.X, data.y, t1=90).network

# %%
# Projected gradient ascent as the papers run it, at several radii, beside the bracket and beside the limit of
# Proposition 1: at sqrt(2)/2 no classifier is right on more than 1 - min(K1, K2)/K = 4/7 of the points.

radius = pf.robust_radius(net, fresh.X, fresh.y)
tried = [0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]
pgd = [pf.attacks.pgd(net, fresh.X, fresh.y, eps=eps, steps=300).accuracy for eps in tried]
limit = pf.theory.max_robust_accuracy(gmm)
for eps, share in zip(tried, pgd):
    certified, attacked = radius.accuracy(eps)
    print(f"radius {eps:.2f}: PGD leaves {share:.2f}, the truth is between {certified:.2f} and {attacked:.2f}")

radii = np.linspace(0.4, 0.9, 201)
certified, attacked = radius.accuracy(radii)
plt.figure(figsize=(6, 3.8), layout="constrained")
plt.fill_between(radii, certified, attacked, color="0.6", lw=0, label="the truth is in here")
plt.plot(radii, attacked, color="black")
plt.plot(tried, pgd, "ko--", mfc="white", label="what PGD reports")
plt.plot([np.sqrt(2) / 2, 0.9], [limit, limit], color="black", ls=":", label="Proposition 1: nobody is above")
plt.xlabel("l2 radius of the adversary")
plt.ylabel("robust accuracy")
plt.legend(loc="lower left")

# %%
# Where it gets stuck. Take a centre, lower its own coordinate to s, and look at the two gradients: that of the own
# coordinate falls as p s^(p-1), but that of a rival's coordinate is p t^(p-1) at t = 0, which is 0 for p > 1. So PGD
# goes straight towards the origin, where nothing is left to push; the way out is sideways.

own, rival = gmm.centers[0], gmm.centers[4]
amount = np.linspace(0, 1, 101)
straight = net.decision_function((own - amount[:, None] * own).astype(np.float32))
swap = net.decision_function((own + amount[:, None] * (rival - own) / np.sqrt(2)).astype(np.float32))
plt.figure(figsize=(6, 3.6), layout="constrained")
plt.plot(amount, straight, "k--", label="straight towards the origin")
plt.plot(amount, swap, "k-", label="swap the own centre for a rival")
plt.axhline(0, color="0.6", lw=1)
plt.axvline(np.sqrt(2) / 2, color="0.6", lw=1, ls=":")
plt.xlabel("length of the perturbation")
plt.ylabel("output of the network")
plt.legend()

# %%
# ``attacks.swap`` starts there, and ``robust_radius`` uses it; the certified end says that little is left to find.
#
# Exercises
# ---------
#
# 1. Compute the gradient of F^(p) at x = (1 - s) mu_1 and show that no component points to a rival.
# 2. Write an attack of your own that breaks every point at radius 0.8, in five lines, and hold it against the bracket.
