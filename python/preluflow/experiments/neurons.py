"""Where neurons go: directions in R^3 before, during and after training, for p = 1 and p = 3 (MV24's picture).

Three orthonormal centres in R^3, mu_1 and mu_2 positive and mu_3 negative: the fewest with which the two predictions
differ. With p = 1 a positive neuron ends halfway between its class's centres, at the class average
mu_+ = (mu_1 + mu_2)/sqrt(2) (MV24); with p = 3 it ends at the centre whose Voronoi region it starts in (MV25). For the
negative class, of one cluster, the two are the same and serve as a control.

alpha = 0.05, for the negative cluster's noise bends p = 1's positive neurons away from mu_+ by an angle of about alpha
(their cosine ends near 0.997 here, 0.993 at alpha = 0.1), where p = 3's smooth activation hardly sees it.

With p = 1 the way is not straight: a neuron that sees only one centre of its class turns to that one first, until the
noise of the other's points, now nearly orthogonal to it, switches it on for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preluflow import plots
from preluflow._files import write_file
from preluflow.data import OrthonormalGMM
from preluflow.experiments._harness import Experiment, Options, Outcome, Row, Session, completed, drawn, set_title
from preluflow.flow import gradient_flow
from preluflow.initialization import VOID, initialize
from preluflow.observe import Observe, Snapshot
from preluflow.results import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

POWERS = {"p1": 1.0, "p3": 3.0}

VIEW = (24.0, 12.0)

ALIGNED = 0.99

ANIMATION = "neurons.gif"
FRAMES_A_SECOND = 10


@dataclass(frozen=True)
class Config:
    """Problem and recipe; ``negligible`` is relative to the class's largest contribution."""

    positive: int = 2
    negative: int = 1
    alpha: float = 0.05
    n: int = 900
    width: int = 120
    scale: float = 1e-7
    t1: float = 60.0
    first: float = 0.05
    stops: int = 120
    frames: int = 60
    seeds: int = 5
    negligible: float = 1e-3


FULL = Config()
QUICK = replace(FULL, n=300, width=50, stops=48, frames=14, seeds=1)


def look(at: Snapshot) -> dict[str, Any]:
    """Observe what the pictures show: directions (h, 3) and contributions (h,)."""
    return {"directions": at.network.directions, "contributions": at.network.contributions}


def mixture(config: Config) -> OrthonormalGMM:
    """Return the mixture, its centres on the axes."""
    return OrthonormalGMM(3, config.positive, config.negative, config.alpha, centers="canonical")


def train(config: Config, p: float, seed: int, options: Options) -> Run:
    """Run the flow for one p; the same data and the same initial directions for either."""
    rng_data, rng_network = np.random.default_rng(seed).spawn(2)
    data = mixture(config).sample(config.n, balanced=True, dtype="float64", rng=rng_data)
    network = initialize(config.width, 3, config.scale, p=p, dtype="float64", rng=rng_network)
    observe = Observe(at=np.geomspace(config.first, config.t1, config.stops), what=("loss", look))
    return gradient_flow(
        network,
        data.X,
        data.y,
        t1=config.t1,
        rtol=1e-4,
        observe=observe,
        progress=options.progress,
        num_threads=options.num_threads,
    )


def own_cosines(directions: NDArray[Any], sign: NDArray[Any], config: Config) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cosines with the nearest own-class centre and with the own class's average, each (..., h)."""
    gmm = mixture(config)
    cosines = directions @ gmm.centers.T
    own = sign[:, None] == gmm.labels
    nearest = np.where(own, cosines, -np.inf).max(axis=-1)
    average = np.where(own, cosines, 0.0).sum(axis=-1) / np.sqrt(own.sum(axis=-1))
    return nearest, average


def starts_in(run: Run, config: Config) -> NDArray[np.intp]:
    """Region each neuron starts in (Def. 1), ``VOID`` included, from the record."""
    gmm = mixture(config)
    own = np.where(run.network.sign[:, None] == gmm.labels, run["directions"][0] @ gmm.centers.T, -np.inf)
    return np.where(own.max(axis=1) > 0, own.argmax(axis=1), VOID)


def final_cosines(run: Run, config: Config) -> NDArray[Any]:
    """Cosine with the predicted direction at the end, of neurons neither void at the start nor negligible at the end.

    Predicted is the own class's average for p = 1 and the centre of the region the neuron started in for p > 1.
    """
    sign, region, size = run.network.sign, starts_in(run, config), run["contributions"][-1]
    largest = np.where(sign > 0, size[sign > 0].max(initial=0.0), size[sign < 0].max(initial=0.0))
    kept = (region != VOID) & (size > config.negligible * largest)
    end = run["directions"][-1]
    if run.network.p == 1.0:
        return np.asarray(own_cosines(end, sign, config)[1][kept])
    return np.asarray((end[kept] @ mixture(config).centers.T)[np.arange(kept.sum()), region[kept]])


def measure(session: Session) -> None:
    """Run every seed: the first is kept whole, of the others only what the table needs."""
    config, options, found = session.config, session.options, []
    for seed in range(options.seed, options.seed + config.seeds):
        ends = []
        for key, p in POWERS.items():
            trained = train(config, p, seed, options)
            trained = session.keep(key, trained) if seed == options.seed else completed(trained)
            ends.append(_summary(final_cosines(trained, config)))
        found.append(ends)
        share, median, kept = np.moveaxis(np.array(found, dtype=np.float64), 2, 0)  # each (seeds, p)
        session.outcome.arrays = {"share": share, "median": median, "kept": kept.astype(np.int64)}


def _summary(end: NDArray[Any]) -> tuple[float, float, int]:
    if not end.size:
        return float("nan"), float("nan"), 0
    return float(np.mean(end > ALIGNED)), float(np.median(end)), end.size


def _config(outcome: Outcome) -> Config:
    return Config(**{name: outcome.config[name] for name in vars(FULL)})


# ---- drawing


def _names(config: Config) -> list[tuple[NDArray[Any], str]]:
    """Return the arrows of a panel: the centres, and the positive class's average."""
    centers = mixture(config).centers
    arrows = [(center, rf"$\mu_{k + 1}$") for k, center in enumerate(centers)]
    average = centers[: config.positive].sum(axis=0) / np.sqrt(config.positive)
    return [*arrows, (average, r"$\mu_+$")]


def _panel(figure: Figure, position: Any, config: Config, zoom: float) -> Any:
    ax = plots.sphere_panel(figure, position, view=VIEW, zoom=zoom)
    plots.sphere_outline(ax)
    for direction, name in _names(config):
        plots.sphere_arrow(ax, direction, name, color="#6a6a6a" if name == r"$\mu_+$" else plots.INK)
    return ax


def _kinds(run: Run, config: Config) -> list[tuple[str, NDArray[Any], dict[str, Any]]]:
    sign, void = run.network.sign, starts_in(run, config) == VOID
    looks = (("positive", sign > 0, plots.BLUE, "o"), ("negative", sign < 0, plots.ORANGE, "^"))
    return [
        (f"{name}, void at the start" if hollow else name, of & (void == hollow), {**look, "hollow": hollow})
        for name, of, color, marker in looks
        for look in ({"color": color, "marker": marker},)
        for hollow in (False, True)
    ]


def _scatter(ax: Any, run: Run, stop: int, config: Config, scale: float) -> list[Any]:
    """Draw the neurons at a stop; the area of a marker grows with the neuron's share of the largest contribution."""
    contributions = run["contributions"][stop]
    areas = scale * (0.15 + 0.85 * np.sqrt(contributions / contributions.max()))
    drawn = []
    for _, which, look in _kinds(run, config):
        drawn += plots.sphere_points(ax, run["directions"][stop][which], areas[which], **look)
    return drawn


def _counts(run: Run, stop: int, config: Config) -> str:
    """Say how many neurons point at each arrow, which a dot on top of others does not show."""
    near = {name: int(np.sum(run["directions"][stop] @ to > ALIGNED)) for to, name in _names(config)}
    found = ", ".join(f"{count} at {name}" for name, count in near.items() if count)
    return f"cos > {ALIGNED:g}: {found or 'none'}"


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    looks = (("positive", plots.BLUE, "o"), ("negative", plots.ORANGE, "^"))
    return [
        Line2D([], [], ls="", marker=marker, color=color, mfc="none" if hollow else color, ms=6, label=name)
        for sign, color, marker in looks
        for hollow, name in ((False, f"{sign} neuron"), (True, f"{sign}, void at the start"))
    ]


def _alignment_panel(ax: Any, run: Run, config: Config) -> None:
    live, sign = starts_in(run, config) != VOID, run.network.sign
    nearest, average = own_cosines(run["directions"], sign, config)
    curves = (
        (average, sign > 0, {"color": plots.INK, "label": r"positive: with $\mu_+$"}),
        (nearest, sign > 0, {"color": plots.BLUE, "ls": "--", "label": "positive: with nearest centre"}),
        (nearest, sign < 0, {"color": plots.ORANGE, "ls": "-.", "label": r"negative: with $\mu_3$"}),
    )
    for cosines, of, line in curves:
        if np.any(live & of):
            ax.plot(run.t[1:], np.median(cosines[1:, live & of], axis=1), **line)
    ax.plot(run.t[1:], run["loss"][1:], color=plots.GREY, ls=":", lw=2.2, label="loss")
    ax.axhline(np.sqrt(0.5), color=plots.GREY, lw=0.8)
    ax.annotate(
        r"$\sqrt{1/2}$", (1.0, np.sqrt(0.5)), xycoords=("axes fraction", "data"), xytext=(3, 0), va="center",
        textcoords="offset points", fontsize=9, annotation_clip=False,
    )  # fmt: skip
    ax.set(xscale="log", xlim=(config.first, config.t1), ylim=(-0.02, 1.04), xlabel="time $t$")
    ax.set_ylabel("median cosine (non-void neurons), loss")
    plots.legend_above(ax, columns=2)


@drawn
def draw(outcome: Outcome) -> Figure:
    """Draw the start, the end and the way between, a row for each p."""
    config = _config(outcome)
    figure = plots.blank_figure(12.4, 8.2)
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 1.15))
    for row, (key, p) in enumerate(POWERS.items()):
        kept = outcome.runs[key]
        for column, stop in enumerate((0, len(kept.t) - 1)):
            ax = _panel(figure, grid[row, column], config, zoom=1.55)
            _scatter(ax, kept, stop, config, 46.0)
            ax.set_title(f"$p={p:g}$: {('start', 'end')[column]}, $t={kept.t[stop]:.3g}$", fontsize=11, y=1.12)
            ax.text2D(0.5, -0.04, _counts(kept, stop, config), transform=ax.transAxes, ha="center", fontsize=9)
        _alignment_panel(figure.add_subplot(grid[row, 2]), kept, config)
    figure.legend(handles=_handles(), loc="outside lower center", ncols=4, frameon=False)
    set_title(figure, outcome, "Neuron directions under gradient flow", "D=3", "n", "width", "alpha", "scale", "seed")
    return figure


def animate(outcome: Outcome, folder: Path) -> list[Path]:
    """Write ``neurons.gif``: both p side by side along the flow, drawn from the record."""
    frames = _frames(outcome)

    def write(stream: BinaryIO) -> None:
        frames[0].save(
            stream, format="GIF", save_all=True, append_images=frames[1:], duration=1000 // FRAMES_A_SECOND, loop=0
        )

    path = folder / ANIMATION
    write_file(path, write, within=folder)
    return [path]


def _frames(outcome: Outcome) -> list[Image]:
    """Draw the pictures of the animation; the last one again and again, so that it rests at the end."""
    config = _config(outcome)
    frames = []
    with plots.style():
        figure = plots.blank_figure(7.0, 4.0, layout=None)
        grid = figure.add_gridspec(1, 2, left=0.0, right=1.0, bottom=0.05, top=0.84, wspace=0.0)
        panels = {key: _panel(figure, grid[0, i], config, zoom=1.5) for i, key in enumerate(POWERS)}
        for ax, p, towards in zip(panels.values(), POWERS.values(), ("class averages", "centres"), strict=True):
            ax.set_title(f"$p={p:g}$: to the {towards}", fontsize=10, y=1.09)
        caption = figure.suptitle("", fontsize=11, y=0.99)
        figure.legend(handles=_handles(), loc="lower center", ncols=4, frameon=False, fontsize=8, handletextpad=0.1)
        last = min(len(outcome.runs[key].t) for key in POWERS) - 1
        for stop in np.unique(np.linspace(0, last, min(config.frames, last + 1)).round().astype(int)):
            losses = ", ".join(f"{outcome.runs[key]['loss'][stop]:.2f}" for key in POWERS)
            caption.set_text(f"$t={outcome.runs['p3'].t[stop]:.2f}$,  losses {losses}")
            drawn = []
            for key, ax in panels.items():
                drawn += _scatter(ax, outcome.runs[key], stop, config, 36.0)
            frames += [_image(figure, dpi=90)] * (13 if stop == last else 1)
            for artist in drawn:
                artist.remove()
    return frames


def _image(figure: Figure, dpi: int) -> Image:
    from matplotlib import rc_context
    from PIL import Image

    width, height = (int(inches * dpi + 1e-8) for inches in figure.get_size_inches())
    pixels = BytesIO()
    with rc_context({"savefig.bbox": None}):  # a user's "tight" would give frames of different sizes
        figure.savefig(pixels, format="rgba", dpi=dpi)
    return Image.frombuffer("RGBA", (width, height), pixels.getvalue(), "raw", "RGBA", 0, 1).convert("RGB")


def table(outcome: Outcome) -> list[Row]:
    """Hold the neurons' ends against the two predictions."""
    config = _config(outcome)
    rows = []
    for key, p in POWERS.items():
        kept = outcome.runs[key]
        end = final_cosines(kept, config)
        towards = f"cos > {ALIGNED:g} with the {'class average' if p == 1.0 else 'centre of its region'}"
        share, median, count = _summary(end)
        rows += [
            Row(f"p={p:g}: share of neurons with {towards}", f"{share:.3f} of {count}", "-", "1"),
            Row("  median of that cosine", f"{median:.5f}", "-", "1"),
            Row("  loss at the end", f"{kept['loss'][-1]:.2e}"),
        ]
        nearest, average = own_cosines(kept["directions"][-1], kept.network.sign, config)
        live = (starts_in(kept, config) != VOID) & (kept.network.sign > 0)
        other = nearest if p == 1.0 else average
        what = "nearest centre" if p == 1.0 else "class average"
        middle = f"{np.median(other[live]):.5f}" if live.any() else "-"
        rows.append(
            Row(f"  positive neurons: median cosine with the {what}", middle, "-", f"{config.positive**-0.5:.5f}")
        )
    if "share" in outcome.arrays:
        shares, medians = outcome.arrays["share"], outcome.arrays["median"]
        for column, p in enumerate(POWERS.values()):
            low, middle = np.min(shares[:, column]), np.median(shares[:, column])
            rows.append(
                Row(f"p={p:g}, {len(shares)} seeds: that share, worst and median", f"{low:.3f}, {middle:.3f}", "-", "1")
            )
            low, middle = np.min(medians[:, column]), np.median(medians[:, column])
            rows.append(Row("  the median cosine, worst and median", f"{low:.5f}, {middle:.5f}", "-", "1"))
    return rows


NEURONS = Experiment(
    "neurons",
    "neuron directions in R^3 before, during and after training, p = 1 and p = 3",
    measure,
    draw,
    table,
    presets={"paper": FULL, "quick": QUICK},
    main="p3",
    more=animate,
    files=(ANIMATION,),
    seconds={"paper": 5, "quick": 2},
)
