"""
Voronoi regions
===============

Which centre does a neuron choose? The one it is closest to when it starts, of those of its own class.
"""

# %%
# Three dimensions are enough to see it: centres are the axes, the first two positive, the third negative.

import matplotlib.pyplot as plt
import numpy as np

import preluflow as pf

gmm = pf.OrthonormalGMM(dim=3, positive=2, negative=1, alpha=0.05, centers="canonical")
data = gmm.sample(300, balanced=True, rng=1)
start = pf.initialize(width=60, scale=1e-7, like=data.X, p=3, rng=2)
end = pf.gradient_flow(start, data.X, data.y, t1=20).network

# %%
# The region of a neuron is the centre of its own class with the largest positive cosine; a neuron with no positive
# cosine is in the void (-1), where it feels nothing to hold on to.

before, after = pf.voronoi_regions(start, gmm), pf.voronoi_regions(end, gmm)
names = {0: "first centre", 1: "second centre", 2: "third centre", -1: "void"}
for region, name in names.items():
    inside = before == region
    stayed = float(np.mean(after[inside] == region))
    print(f"{name:13s}: {int(inside.sum()):2d} neurons began here, {stayed:.0%} ended here")

# %%
# On the sphere, before and after. Markers say the region at the start, and whether a neuron's output weight is positive
# (filled) or negative (hollow). What begins in a region of its own class ends at that region's centre.

marks = {0: "o", 1: "^", 2: "s", -1: "D"}
shades = {0: "black", 1: "0.35", 2: "0.1", -1: "0.5"}
figure = plt.figure(figsize=(9, 4.6))
for place, (network, title) in enumerate(((start, "before"), (end, "after")), start=121):
    ax = pf.plots.sphere_panel(figure, place, view=(28, 40))
    pf.plots.sphere_outline(ax)
    for region, marker in marks.items():
        for positive in (True, False):
            chosen = (before == region) & ((network.v > 0) == positive)
            if chosen.any():
                style = {"marker": marker, "color": shades[region], "hollow": not positive}
                pf.plots.sphere_points(ax, network.directions[chosen], 36.0, **style)
    for k, direction in enumerate(gmm.centers):
        pf.plots.sphere_arrow(ax, direction, rf"$\mu_{k + 1}$")
    ax.set_title(title)
keys = [plt.Line2D([], [], color=shades[region], marker=marks[region], ls="", label=names[region]) for region in names]
figure.legend(handles=keys, loc="lower center", ncols=4, frameon=False)

# %%
# In many dimensions it is a statement about numbers, not a picture. The share of neurons whose region at time t is the
# one they end in says when fate is sealed: here nearly at the start, and for good when alignment is over.

gmm = pf.OrthonormalGMM(dim=200, positive=4, negative=3, alpha=0.1, rng=0)
data = gmm.sample(1050, balanced=True, rng=1)
start = pf.initialize(width=100, scale=1e-7, like=data.X, p=3, rng=2)
run = pf.gradient_flow(start, data.X, data.y, t1=60, observe=pf.Observe(every=1.0, what=["loss", "target"], gmm=gmm))
plt.figure(figsize=(5, 3.6), layout="constrained")
plt.plot(run.t, pf.theory.target_agreement(run), color="black")
plt.xlabel("time")
plt.ylabel("share of neurons in their last region")
plt.ylim(0.9, 1.01)

# %%
# Exercises
# ---------
#
# 1. With which probability is a random neuron of a class with K1 orthonormal centres in the void?
# 2. Theorem 1 asks that every region hold a neuron. How wide must a network be for that to be so with probability 0.99?
