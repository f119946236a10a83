"""Figures 5 and 6 at full scale over several seeds: worst and median of what the paper's curves show.

python bench/bench_figures.py [--seeds 5]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

import numpy as np

from preluflow.experiments import FIG5, FIG6, Options
from preluflow.experiments.fig5 import FULL, crossings, measure


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    for name, experiment in (("fig5", FIG5), ("fig6", FIG6)):
        cheap = replace(experiment, measure=partial(measure, what=("loss", "alignment")))
        found = []
        for seed in seeds:
            run = cheap.run(Options(seed=seed)).runs["noisy"]
            late = run["loss"][run.iterations >= 520].max()
            found.append((run["alignment_quartiles"][0, 1], *crossings(run), late))
        print(f"{name}, h={FULL.width}, seeds {list(seeds)}")
        labels = (
            "median alignment at the start",
            "alignment crosses 0.5",
            "loss crosses 0.5",
            "loss from 520 on, largest",
        )
        for label, values in zip(labels, np.array(found).T, strict=True):
            print(f"  {label}: median {np.median(values):.4g}, lowest {values.min():.4g}, highest {values.max():.4g}")


if __name__ == "__main__":
    main()
