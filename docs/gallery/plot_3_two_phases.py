"""
The loss in two phases
======================

First nothing happens to the loss, then everything: alignment, then convergence. Both have equations of their own.
"""

# %%
# Record, for every cluster, how well its neurons are aligned and their squared norms Z_k = sum_j ||w_j||^2.

import matplotlib.pyplot as plt
import numpy as np

import preluflow as pf

gmm = pf.OrthonormalGMM(dim=200, positive=4, negative=3, alpha=0.1, rng=0)
data = gmm.sample(1050, balanced=True, rng=1)
net = pf.initialize(width=100, scale=1e-7, like=data.X, p=3, rng=2)
look = pf.Observe(every=1.0, what=["loss", "cluster_alignment", "cluster_norms"], gmm=gmm)
run = pf.gradient_flow(net, data.X, data.y, t1=90, observe=look)
times = pf.theory.phase_times(run)
print(f"alignment is over at t1 = {times.t1:.0f}, the loss begins to fall at t2 = {times.t2:.0f},")
print(f"F^(p) is reached at t* = {times.t_star:.0f}")

# %%
# Once a cluster's neurons are aligned, Z_k obeys Z' = (4/K) (1 - Z) Z: a logistic curve, drawn dashed from the moment
# alignment is over. Nothing was fitted.

began = int(np.searchsorted(run.t, times.t1))
log_start = float(np.mean(np.log(run["cluster_norms"][began])))
nominal = pf.theory.nominal_norm(run.t[began:] - run.t[began], log_start, clusters=gmm.clusters)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained", sharex=True)
axes[0].plot(run.t, run["cluster_alignment"], color="0.5", lw=1)
axes[1].plot(run.t, run["cluster_norms"], color="0.5", lw=1)
axes[1].plot(run.t[began:], nominal, "k--", lw=2, label="eq. 14")
axes[1].legend(loc="upper left")
axes[2].plot(run.t, run["loss"], color="black", lw=2)
for ax, title in zip(axes, ("alignment of each cluster", "norms Z_k of each cluster", "mean squared loss")):
    ax.set(xlabel="time", title=title, ylim=(0, 1.2))
    for value, name in ((times.t1, "t1"), (times.t2, "t2"), (times.t_star, "t*")):
        ax.axvline(value, color="0.7", lw=1, ls=":")
        ax.text(value, 1.12, name, ha="center", backgroundcolor="white", fontsize=8)

# %%
# On a logarithmic axis the second phase is seen to begin at t = 0, too: norms grow exponentially from 1e-14 while the
# loss does not yet know of them.

plt.figure(figsize=(5, 3.6), layout="constrained")
plt.semilogy(run.t, run["cluster_norms"], color="0.5", lw=1)
plt.semilogy(run.t[began:], nominal, "k--", lw=2)
plt.xlabel("time")
plt.ylabel("norms Z_k")

# %%
# Exercises
# ---------
#
# 1. From Z' = (4/K) (1 - Z) Z: when does a cluster that starts at Z0 reach Z = 1/2?
# 2. Let epsilon be 1e-14 instead of 1e-7. By how much later does the loss fall below 1/2? Predict it from exercise 1,
#    then run the flow on the centres with both.
