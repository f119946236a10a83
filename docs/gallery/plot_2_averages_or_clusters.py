"""
Averages or clusters
====================

The same data, the same flow, and the same tiny start: a ReLU network (p = 1) learns the average of each class, a pReLU
network with p = 3 learns every cluster. Both classify perfectly, but an adversary needs twice the effort for one.
"""

# %%
# Train both.

import matplotlib.pyplot as plt
import numpy as np

import preluflow as pf

gmm = pf.OrthonormalGMM(dim=200, positive=4, negative=3, alpha=0.1, rng=0)
data, fresh = gmm.sample(1050, balanced=True, rng=1), gmm.sample(300, rng=3)
nets = {}
for p in (1, 3):
    start = pf.initialize(width=100, scale=1e-7, like=data.X, p=p, rng=2)
    nets[p] = pf.gradient_flow(start, data.X, data.y, t1=90).network
    print(f"p = {p}: accuracy on fresh points {float(np.mean(nets[p].predict(fresh.X) == fresh.y)):.2f}")

# %%
# Where do the neurons that matter point? Below are the cosines with the seven centres of the 20 neurons of largest
# contribution, the product of their two norms. Those of p = 1 have the same cosine, 1/sqrt(4) or 1/sqrt(3), with all
# centres of their class: they are the class's average. Those of p = 3 have chosen one centre each.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
for ax, (p, net) in zip(axes, nets.items()):
    largest = np.argsort(net.contributions)[::-1][:20]
    cosines = pf.center_cosines(net, gmm)[largest]
    order = np.lexsort((np.argmax(cosines, axis=1), -net.v[largest]))
    image = ax.imshow(cosines[order], vmin=-0.1, vmax=1, cmap="Greys", aspect="auto")
    ax.set(title=f"p = {p}", xlabel="centre (0 to 3 positive, 4 to 6 negative)", xticks=range(7), yticks=[0, 9, 19])
axes[0].set_ylabel("neuron")
figure.colorbar(image, ax=axes, label="cosine")

# %%
# Now ask how far each fresh point is from the decision boundary. ``robust_radius`` brackets it: an adversary needs at
# least ``lower`` (certified) and at most ``upper`` (attacked). The curves are the share of points that survive; the
# truth is in the band between the dashed and the solid one.

radii = np.linspace(0, 0.8, 161)
plt.figure(figsize=(6, 3.8), layout="constrained")
for (p, net), color in zip(nets.items(), ("0.55", "black")):
    radius = pf.robust_radius(net, fresh.X, fresh.y, "tight")
    certified, attacked = radius.accuracy(radii)
    plt.fill_between(radii, certified, attacked, color=color, alpha=0.3, lw=0)
    plt.plot(radii, certified, color=color, ls="--")
    plt.plot(radii, attacked, color=color, label=f"p = {p}")
plt.axvline(1 / np.sqrt(7), color="0.55", ls=":")
plt.axvline(np.sqrt(2) / 2, color="black", ls=":")
plt.xlabel("l2 radius of the adversary")
plt.ylabel("robust accuracy")
plt.legend(loc="lower left")

# %%
# The dotted lines are what theory says of the two limits: 1/sqrt(K) for the class averages, and sqrt(2)/2 for F^(3),
# beyond which no classifier whatever can be robust.
#
# Exercises
# ---------
#
# 1. Show that the distance of mu_k to the boundary of F(x) = sqrt(K1) sigma(<x,mu_+>) - sqrt(K2) sigma(<x,mu_->), the
#    class averages, is 1/sqrt(K), and give the perturbation.
# 2. Do the same for F^(p) with p > 2: give a perturbation of length sqrt(2)/2. Why is there no shorter one?
