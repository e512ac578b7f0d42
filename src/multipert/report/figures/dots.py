"""Genes as the study's files have them: the dot plot, and where predicted genes differ from true ones."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from multipert.benchmark.profiles import Profile
from multipert.benchmark.records import Reference
from multipert.report.figures.cells import named_place, predicted_places
from multipert.report.figures.genes import predictions
from multipert.report.figures.panels import Group, Panel, Section, key
from multipert.report.figures.style import COLOURS, WIDE, Floats, name_places, short
from multipert.report.numbers import number
from multipert.report.summary import DatasetSummary
from multipert.report.svg import CLASS, INK, house_style

GENES_DRAWN = 12
"""Genes in a dot plot."""
PLOTS_DRAWN, CONTEXTS_DRAWN = 4, 8
"""Dot plots, one for each of the perturbations farthest from control, and the contexts in each."""
DIFFERENCES_DRAWN = 6
"""Contexts and perturbations whose differences are drawn."""
GENES_NAMED = 6
"""Genes named where predicted and true cells differ most."""

_LARGEST = 110.0  # area of a dot, in points, for a gene that all cells express


def dot_plot(summary: DatasetSummary) -> Section | None:
    """Draw how strongly, and in how many cells, the genes that respond most are expressed."""
    if not summary.shown:
        return None
    control, panels = summary.card.conditions[0], []
    for perturbation in summary.strongest(PLOTS_DRAWN):
        rows: list[tuple[str, Reference, Profile]] = []
        for reference in [one for one in summary.references if perturbation in one.profiles][:CONTEXTS_DRAWN]:
            predicted = predictions(summary, reference.held_out, perturbation)[0]
            profiles = (reference.profiles[control], reference.profiles[perturbation], predicted)
            named = zip(("control", "true", "predicted"), profiles, strict=True)
            rows += [(role, reference, profile) for role, profile in named if profile is not None]
        genes = summary.responding(perturbation, GENES_DRAWN)
        if not rows or not genes:
            continue
        mean, fraction = (np.array([_of(profile, r, genes, what) for _, r, profile in rows]) for what in _MOMENTS)
        names = [f"{short(reference.held_out)}, {role}" for role, reference, _ in rows]
        panels.append(
            Panel(
                dots(names, [role for role, _, _ in rows], genes, mean, fraction),
                perturbation,
                f"Dot plot of the genes that respond most under {perturbation}",
                "; ".join(
                    f"{name}: "
                    + ", ".join(
                        f"{gene} {number(float(m), 2)} in {number(100 * float(f), 0)}%"
                        for gene, m, f in zip(genes, ms, fs, strict=True)
                        if np.isfinite(m)
                    )
                    for name, ms, fs in zip(names, mean, fraction, strict=True)
                ),
            )
        )
    if not panels:
        return None
    text = Markup(
        "The deeper a dot, the higher the mean expression of the gene; the larger, the more of the cells express it at "
        "all. {} {} {} as {} predicts."
    ).format(key("control", "control"), key("true", "true"), key("predicted", "predicted"), summary.shown[0])
    return Section("dots", "Dot plot", "Dot plot", text, [Group(panels, size="wide")])


_MOMENTS = ("mean", "fraction")


def _of(profile: Profile, reference: Reference, genes: Sequence[str], what: str) -> Floats:
    """A moment of some genes, (genes,); NaN for those that this context's data lack."""
    at = {gene: place for place, gene in enumerate(reference.genes)}
    values = np.asarray(getattr(profile, what), dtype=np.float64)
    return np.array([values[at[gene]] if gene in at else np.nan for gene in genes])


def gene_differences(summary: DatasetSummary) -> Section | None:
    """Draw by how much the mean of each gene, and the share of cells that express it, differ from the truth."""
    panels = [_differences_panel(summary, *place) for place in predicted_places(summary)[:DIFFERENCES_DRAWN]]
    if not panels:
        return None
    text = Markup(
        "As {} predicts them. Each dot is a gene: to the right its mean is too high, upwards too many cells express "
        "it; in the middle both are right. Above each, the mean size of the two differences."
    ).format(summary.shown[0])
    return Section("differences", "Differences", "Where predicted genes differ", text, [Group(panels, size="wide")])


def _differences_panel(summary: DatasetSummary, reference: Reference, perturbation: str, predicted: Profile) -> Panel:
    true = reference.profiles[perturbation]
    mean, fraction = ((getattr(predicted, one) - getattr(true, one)).astype(np.float64) for one in _MOMENTS)
    sizes = [float(np.abs(values).mean()) for values in (mean, fraction)]
    scaled = np.hypot(mean / max(np.abs(mean).max(), 1e-9), fraction / max(np.abs(fraction).max(), 1e-9))
    worst = np.argsort(-scaled, kind="stable")[:GENES_NAMED]
    named = {reference.genes[gene]: int(gene) for gene in worst}
    said = f"mean {number(sizes[0], 3)}, share of cells {number(100 * sizes[1], 0)}%"
    return Panel(
        differences(mean, fraction, named),
        f"{named_place(summary, reference, perturbation)}: {said}",
        f"Differences of predicted from true genes, {perturbation} in {reference.held_out}",
        f"Scatter plot of {len(mean):,} genes. Mean size of the differences: {said}. Farthest off: {', '.join(named)}.",
    )


@house_style()
def dots(rows: Sequence[str], roles: Sequence[str], genes: Sequence[str], mean: Floats, fraction: Floats) -> Figure:
    """A dot for each population and gene.

    Parameters
    ----------
    rows, roles
        Names of the populations, from the top, and whose they are: ``control``, ``true`` or ``predicted``.
    genes
        Names of the columns.
    mean, fraction
        (rows, genes) mean expression, and the share of cells that express the gene; NaN where there is none.
    """
    figure = Figure(figsize=(WIDE, 1.3 + 0.22 * len(rows)))
    axes = figure.add_subplot()
    y, x = np.mgrid[: len(rows), : len(genes)]
    known = np.isfinite(mean)
    high = float(np.nanmax(mean)) or 1.0
    # Strokes without length and with round ends: a third of the bytes of marks.
    ends = np.stack([np.column_stack([x[known], y[known]])] * 2, axis=1)
    widths = np.sqrt(_LARGEST * fraction[known])
    drawn = LineCollection(list(ends), linewidths=widths, cmap="viridis_r", capstyle="round")
    drawn.set_gid(f"{CLASS}dots")
    drawn.set_array(mean[known])
    drawn.set_clim(0, high)
    axes.add_collection(drawn)
    axes.set_xticks(range(len(genes)), [short(gene) for gene in genes], rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    for tick, role in zip(axes.get_yticklabels(), roles, strict=True):
        tick.set_color(COLOURS[role])
    axes.tick_params(length=0)
    axes.set_xlim(-0.6, len(genes) - 0.4)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="mean", shrink=min(1.0, 6 / len(rows)), aspect=12, pad=0.02)
    sizes = [
        axes.scatter(
            [], [], s=_LARGEST * share, c="none", edgecolors=INK, linewidths=0.6, label=f"{share:.0%} of cells"
        )
        for share in (0.25, 0.5, 1.0)
    ]
    figure.legend(handles=sizes, loc="outside upper center", ncols=3, handletextpad=0.2, columnspacing=1.2, fontsize=9)
    return figure


@house_style()
def differences(mean: Floats, fraction: Floats, named: dict[str, int]) -> Figure:
    """Difference of the share of cells that express a gene against that of its mean, predicted less true.

    Parameters
    ----------
    mean, fraction
        (genes,) differences.
    named
        The genes to name: name to index.
    """
    figure = Figure(figsize=(WIDE, 3.6))
    axes = figure.add_subplot()
    axes.axhline(0, color=INK, lw=0.6, ls=(0, (4, 3)), zorder=1)
    axes.axvline(0, color=INK, lw=0.6, ls=(0, (4, 3)), zorder=1)
    axes.scatter(mean, fraction, s=7, color=COLOURS["predicted"], alpha=0.5, lw=0, rasterized=True, zorder=2)
    axes.set(xlabel="mean, predicted less true", ylabel="share of cells, predicted less true")
    axes.margins(0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    chosen = list(named.values())
    name_places(figure, axes, list(named), np.column_stack([mean, fraction])[chosen])
    return figure
