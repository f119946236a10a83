"""
Alignment of neurons
====================

A network that starts at a tiny scale is zero for a long time, and yet its neurons move: they turn towards the centres
of their own class. This is the alignment phase of Min and Vidal (ICML 2025, Proposition 4).
"""

# %%
# Seven orthonormal clusters in 200 dimensions, four of them positive, and 100 neurons whose weights are 1e-7 times
# normal. The network is integrated by gradient flow, and at every unit of time we note how well each neuron is aligned
# with the closest centre, max_k cos(mu_k, w_j), and the loss.

import matplotlib.pyplot as plt
import numpy as np

import preluflow as pf

gmm = pf.OrthonormalGMM(dim=200, positive=4, negative=3, alpha=0.1, rng=0)
data = gmm.sample(1050, balanced=True, rng=1)
net = pf.initialize(width=100, scale=1e-7, like=data.X, p=3, rng=2)
look = pf.Observe(every=1.0, what=["loss", "alignment"], gmm=gmm)
run = pf.gradient_flow(net, data.X, data.y, t1=60, observe=look)

# %%
# Grey is one neuron each. Nearly all are aligned, or in the void where no centre of their class is to be seen, long
# before the loss, on the right, has moved at all: alignment costs nothing and gains nothing, it is what gradient flow
# does while the network is 0. A few stragglers turn later, and come too late to matter.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(run.t, run["alignment"], color="0.7", lw=0.6)
left.plot(run.t, run["alignment_quartiles"][:, 1], color="black", lw=2, label="median neuron")
left.set(xlabel="time", ylabel="cosine with the closest centre", ylim=(0, 1.02))
left.legend(loc="lower right")
right.plot(run.t, run["loss"], color="black", lw=2)
right.set(xlabel="time", ylabel="mean squared loss", ylim=(0, 1.05))

# %%
# Why? While f = 0, every point pulls with the same force, so a neuron feels nothing but the data. A neuron that has a
# positive cosine c with one centre only, of its own class, obeys::
#
#     c' = (C p / K) c^(p-1) (1 - c^2),    C = 2 for the squared loss,
#
# which ``theory.nominal_alignment`` solves. The curves below start at three cosines; ends of the alignment phase differ
# because a neuron that starts at a small cosine is slow at first: for p = 3 its speed is proportional to c^2.

t = np.linspace(0, 60, 241)
plt.figure(figsize=(5, 3.6), layout="constrained")
for start, line in ((0.05, ":"), (0.1, "--"), (0.2, "-")):
    nominal = pf.theory.nominal_alignment(t, start, p=3, clusters=gmm.clusters)
    plt.plot(t, nominal, "k" + line, label=f"from cosine {start}")
plt.xlabel("time")
plt.ylabel("cosine, nominal")
plt.legend()

# %%
# Exercises
# ---------
#
# 1. For p = 3 the equation above can be integrated by hand. How long does a neuron take from cosine c0 to cosine c1?
# 2. A random neuron in D dimensions begins at a cosine of about 1/sqrt(D). By which factor does alignment take longer
#    when D is four times as large? Let the flow on the centres themselves say whether you are right.
