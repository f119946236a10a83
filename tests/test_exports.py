"""Results that leave: datasets, tables, pictures of any run, and what notebooks show."""

import dataclasses
import json
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

import preluflow as pf
from preluflow import _html, plots
from preluflow._notebook_figure import NotebookFigure


@pytest.fixture
def runs(small):
    """A run of each method, with everything observed, by method."""
    network, data, gmm = small
    what = ["loss", "alignment", "cluster_norms", "norms", "target", doubled]
    observe = {"what": what, "gmm": gmm}
    event = [pf.events.loss_below(0.9)]
    return {
        "gradient_descent": pf.gradient_descent(
            network, data.X, data.y, step=0.2, steps=30, observe=pf.Observe(every=10, **observe), events=event
        ),
        "sgd": pf.sgd(
            network, data.X, data.y, step=0.2, batch=7, epochs=4, rng=0, observe=pf.Observe(every=2, **observe)
        ),
        "gradient_flow": pf.gradient_flow(
            network, data.X, data.y, t1=6.0, observe=pf.Observe(every=2.0, **observe), events=event
        ),
    }


def doubled(at):
    """An observer of the user's."""
    return np.full((2, 3), 2.0 * at.t)


@pytest.fixture
def radius(small):
    network, data, _ = small
    return pf.robust_radius(network, data.X, data.y)


METHODS = ("gradient_descent", "sgd", "gradient_flow")


# ---- xarray


@pytest.mark.parametrize("method", METHODS)
def test_a_run_becomes_a_dataset_over_its_stops(runs, method):
    pytest.importorskip("xarray")
    run = runs[method]
    found = run.to_xarray()
    np.testing.assert_array_equal(found["t"], run.t)
    np.testing.assert_array_equal(found["iteration"], run.iterations)
    assert found["t"].dims == found["iteration"].dims == ("stop",)
    assert ("epoch" in found.coords) == (method == "sgd")
    assert set(found.data_vars) >= set(run.records) - {"epoch"}
    for name in set(run.records) - {"epoch"}:
        np.testing.assert_array_equal(found[name], run[name])
        assert found[name].attrs["long_name"]
    assert found["alignment"].dims == found["norms"].dims == ("stop", "neuron")
    assert found["cluster_norms"].dims == ("stop", "cluster")
    assert found["alignment_quartiles"].sel(quartile=0.5).values.tolist() == run["alignment_quartiles"][:, 1].tolist()
    assert found["doubled"].dims == ("stop", "doubled_1", "doubled_2")
    for name, times in run.events.items():
        np.testing.assert_array_equal(found[f"event_{name}"], times)
    assert found["loss"].attrs["units"] == "1" and found.attrs["status"] == run.status
    assert json.loads(found.attrs["config"]) == json.loads(json.dumps(run.config))


def test_epochs_are_those_of_sgd(runs):
    pytest.importorskip("xarray")
    assert runs["sgd"].to_xarray()["epoch"].values.tolist() == [0, 2, 4]


def test_a_run_goes_to_netcdf_and_back(runs, tmp_path):
    pytest.importorskip("netCDF4")
    import xarray

    found = runs["gradient_flow"].to_xarray()
    found.to_netcdf(tmp_path / "run.nc")
    assert xarray.load_dataset(tmp_path / "run.nc").identical(found)


def test_records_of_other_shapes_and_unhappy_names_have_axes_of_their_own(small):
    pytest.importorskip("xarray")
    network, data, _ = small

    def look(at):
        return {"stop": at.t, "norms": np.ones((2, 2)), "t": 1.0}

    run = pf.gradient_descent(network, data.X, data.y, step=0.1, steps=2, observe=pf.Observe(every=1, what=[look]))
    found = run.to_xarray()
    np.testing.assert_array_equal(found["stop_record"], run["stop"])
    np.testing.assert_array_equal(found["t_record"], 1.0)
    assert found["norms"].dims == ("stop", "norms_1", "norms_2")


# ---- pandas


def test_a_radius_becomes_a_table_of_points(radius):
    pytest.importorskip("pandas")
    found = radius.to_dataframe()
    assert found.index.name == "point" and len(found) == len(radius.lower)
    for name in ("lower", "upper", "correct", "reached"):
        np.testing.assert_array_equal(found[name], getattr(radius, name))
    assert found["certificate"].tolist() == radius.certificates
    np.testing.assert_array_equal(found["rounds"], radius.trace["rounds"])
    plain = dataclasses.replace(radius, reached=None, trace={})
    assert list(plain.to_dataframe().columns) == ["lower", "upper", "correct"]


@pytest.mark.parametrize(("module", "call"), [("xarray", "to_xarray"), ("pandas", "to_dataframe")])
def test_without_the_extra_one_is_told_what_to_install(runs, radius, monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    owner = runs["sgd"] if call == "to_xarray" else radius
    with pytest.raises(ImportError, match=rf"{call} needs {module}: pip install 'preluflow\[sweep\]'"):
        getattr(owner, call)()


# ---- pictures


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("record", ["loss", "alignment", "cluster_norms", "doubled"])
def test_panels_take_any_run(runs, method, record):
    run = runs[method]
    _, (ax,) = plots.new_figure(1)
    plots.record_panel(ax, run, record)
    at = {"gradient_descent": run.iterations, "sgd": run.records.get("epoch"), "gradient_flow": run.t}[method]
    for line in ax.lines:
        np.testing.assert_array_equal(line.get_xdata(), at)
    drawn = np.array([line.get_ydata() for line in ax.lines]).T
    np.testing.assert_array_equal(drawn, run[record].reshape(len(at), -1))
    assert ax.get_xlim() == (0, at[-1])


def test_a_record_of_many_entries_is_drawn_by_its_quartiles(small):
    network, data, _ = small

    def many(at):
        return np.arange(13.0) * (1 + at.t)

    run = pf.gradient_descent(network, data.X, data.y, step=0.1, steps=2, observe=pf.Observe(every=1, what=[many]))
    _, (ax,) = plots.new_figure(1)
    plots.record_panel(ax, run, "many")
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), 6.0 * (1 + run.t))


@pytest.mark.parametrize("method", METHODS)
def test_the_alignment_panel_takes_any_run(runs, method):
    run = runs[method]
    _, (ax,) = plots.new_figure(1)
    plots.alignment_panel(ax, run)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), run["alignment_quartiles"][:, 1])
    other = runs["sgd" if method != "sgd" else "gradient_flow"]
    with pytest.raises(ValueError, match="nominal"):
        plots.alignment_panel(ax, run, nominal=other)


def test_the_radius_panel_shows_accuracy_at_every_radius(radius):
    ax = radius.plot()
    certified, attacked = ax.lines
    eps = attacked.get_xdata()
    assert {0.0, *radius.lower, *radius.upper} <= set(eps)
    np.testing.assert_array_equal(certified.get_ydata(), radius.accuracy(eps)[0])
    np.testing.assert_array_equal(attacked.get_ydata(), radius.accuracy(eps)[1])
    assert radius.plot(ax) is ax and len(ax.lines) == 4


def test_figures_show_themselves_in_notebooks(radius):
    figure = radius.plot().figure
    assert isinstance(figure, NotebookFigure)
    assert figure._repr_png_().startswith(b"\x89PNG\r\n")


# ---- HTML


class Tags(HTMLParser):
    """Collects tags, and insists that they are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def test_notebooks_show_tables_and_sparklines(runs, radius, small):
    network, data, gmm = small
    own = pf.data.from_features(data.X, data.y)
    few = ((runs["sgd"], "finished"), (radius, "attacked"), (network, "prelu"), (data, "60, 12"))
    for shown, word in (*few, (gmm, "[-1, 1]"), (own, own.done[0])):
        tags = parsed(shown._repr_html_())
        assert {"table", "svg"} <= set(tags.seen) and word in tags.text, shown
        svg = shown._repr_html_()
        ElementTree.fromstring(svg[svg.index("<svg") : svg.index("</svg>") + 6])


def test_what_is_shown_is_escaped(runs):
    evil = "<script>alert('x')</script>&\""
    run = dataclasses.replace(runs["sgd"], message=evil, records={evil: runs["sgd"]["loss"]})
    tags = parsed(run._repr_html_())
    assert "script" not in tags.seen and "alert('x')" in tags.text
    assert "<script" not in _html.table(evil, {evil: evil}, "", evil)


def test_sparklines_are_within_their_frame_and_bear_anything():
    svg = ElementTree.fromstring(_html.line([(np.arange(5), [-1e308, 0, np.nan, 1e308, np.inf])]))
    points = [tuple(map(float, point.split(","))) for point in svg[0].attrib["points"].split()]
    assert len(points) == 3 and points[0] == (3.0, 45.0) and points[-1] == (237.0, 3.0)
    assert _html.line([([], [])]) == _html.line([([1.0], [np.nan])]) == _html.bars([]) == _html.bars([0, 0]) == ""
    heights = [float(bar.attrib["height"]) for bar in ElementTree.fromstring(_html.bars([1, 2, 0]))]
    assert heights == [21.0, 42.0, 0.0]


def test_runs_without_stops_dead_networks_and_broken_points_are_shown(runs, radius):
    run = runs["sgd"]
    empty = dataclasses.replace(run, t=run.t[:0], iterations=run.iterations[:0], records={})
    parsed(empty._repr_html_())
    parsed(pf.TwoLayerNetwork(np.zeros((2, 3)), np.zeros(2))._repr_html_())
    nothing = dataclasses.replace(radius, correct=np.zeros(len(radius.lower), dtype=bool), upper=np.full(60, np.inf))
    parsed(nothing._repr_html_())
    nothing.plot()
