"""The catalogue of public datasets: what each is, and where it is published."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multipert.data.keys import Keys
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError


@dataclass(frozen=True)
class Part:
    """One file of a dataset.

    Attributes
    ----------
    url
        Where it is published.
    file
        What it is called there.
    """

    url: str
    file: str


@dataclass(frozen=True)
class Dataset:
    """A public dataset.

    Attributes
    ----------
    name
        What it is called here; on disk ``<name>.h5ad``.
    title
        What it is, in one phrase.
    source
        The publication, and who preprocessed it.
    size
        Cells x genes, as published.
    keys
        Where its cells say what they are.
    contexts
        The names of its contexts; empty where they are not known before it is here.
    preprocessing
        What it still needs: the arguments of :func:`multipert.data.preprocess`, and under ``choose_on`` which cells the
        study chose variable genes on (``"all"``); none where it is log-normalised already.
    published
        The published table its scores belong to.
    parts
        The files it is downloaded as, concatenated in this order; empty where it cannot be downloaded by itself.
    manual
        How to get it, where ``parts`` is empty.
    """

    name: str
    title: str
    source: str
    size: str
    keys: Keys
    contexts: tuple[str, ...]
    preprocessing: Mapping[str, Any] | None
    published: str | None
    parts: tuple[Part, ...]
    manual: str


def _keys(perturbation: str, context: str, control: str = "control") -> Keys:
    return Keys(perturbation_key=perturbation, control=control, context_key=context)


_BLOOD = ("B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK")
_KANG = "Kang et al. 2018, Nature Biotechnology 36:89; as preprocessed by the scGen study (Lotfollahi et al. 2019)"
_KANG_VALID = Part("https://www.dropbox.com/s/nqi971n0tk4nbfj/valid_pbmc.h5ad?dl=1", "valid_pbmc.h5ad")

DATASETS: Mapping[str, Dataset] = {
    one.name: one
    for one in (
        Dataset(
            name="kang",
            title="human blood cells (PBMCs) with and without interferon beta",
            source=_KANG,
            size="18,868 cells x 6,998 genes",
            keys=_keys("condition", "cell_type"),
            contexts=_BLOOD,
            preprocessing=None,
            published="kang",
            parts=(
                Part("https://www.dropbox.com/s/wk5zewf2g1oat69/train_pbmc.h5ad?dl=1", "train_pbmc.h5ad"),
                _KANG_VALID,
            ),
            manual="",
        ),
        Dataset(
            name="nault",
            title="mouse liver nuclei under eight doses of TCDD",
            source="Nault et al. 2021, 2022; GEO GSE184506",
            size="about 131,000 nuclei before filtering",
            keys=Keys(context_key="celltype", dose_key="Dose", compound="TCDD"),
            contexts=(),
            preprocessing={
                "min_counts": 500,
                "min_genes": 720,
                "min_cells": 100,
                "n_top_genes": 5000,
                "choose_on": "all",
            },
            published="nault",
            parts=(),
            manual=(
                "take the h5ad linked from the README of https://github.com/BhattacharyaLab/scVIDR, or make one of the "
                "counts and the metadata table at https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE184506 "
                "(obs columns 'celltype' and 'Dose', in ug/kg)"
            ),
        ),
        Dataset(
            name="hagai",
            title="mononuclear phagocytes of four species with and without lipopolysaccharide, 6 h",
            source="Hagai et al. 2018, Nature 563:197; as preprocessed by the scGen study (Lotfollahi et al. 2019)",
            size="77,642 cells x 6,619 genes",
            keys=_keys("condition", "species", control="unst"),
            contexts=("mouse", "pig", "rabbit", "rat"),
            preprocessing=None,
            published="hagai",
            parts=(
                Part("https://www.dropbox.com/s/eprgwhd98c9quiq/train_species.h5ad?dl=1", "train_species.h5ad"),
                Part("https://www.dropbox.com/s/bwq18z0mzy6h5d7/valid_species.h5ad?dl=1", "valid_species.h5ad"),
            ),
            manual="",
        ),
        Dataset(
            name="kang_subset",
            title="a tenth of kang: its validation file",
            source=_KANG,
            size="1,975 cells x 6,998 genes",
            keys=_keys("condition", "cell_type"),
            contexts=_BLOOD,
            preprocessing=None,
            published="kang",
            parts=(_KANG_VALID,),
            manual="",
        ),
        Dataset(
            name="mcfaline_subset",
            title="three glioblastoma cell lines under nine CRISPRi knock-downs",
            source="a subset of McFaline-Figueroa et al. 2024, Cell Genomics 4:100487",
            size="2,586 cells x 438 genes",
            keys=_keys("perturbation", "cell_line"),
            contexts=("A172", "T98G", "U87MG"),
            preprocessing=None,
            published=None,
            parts=(),
            manual=(
                "this subset is published nowhere; the whole is at "
                "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE225775: make an h5ad of log-normalised cells "
                "(obs columns 'perturbation', with label 'control', and 'cell_line')"
            ),
        ),
        Dataset(
            name="norman_subset",
            title="K562 cells under CRISPR activation of 18 genes and of 15 pairs of them",
            source="a subset of Norman et al. 2019, Science 365:786",
            size="3,375 cells x 250 genes",
            keys=_keys("perturbation", "cell_line"),
            contexts=("K562",),
            preprocessing=None,
            published=None,
            parts=(),
            manual=(
                "this subset is published nowhere; the whole is at "
                "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE133344, and through pertpy as "
                "pertpy.data.norman_2019(): make an h5ad of log-normalised cells (obs columns 'perturbation', with "
                "label 'control' and pairs written 'A+B', and 'cell_line')"
            ),
        ),
        Dataset(
            name="tal1_counts",
            title="mouse embryo chimeras with and without Tal1, raw counts",
            source="a subset of Pijuan-Sala et al. 2019, Nature 566:490",
            size="2,889 cells x 300 genes",
            keys=_keys("condition", "cell_type", control="host_wt"),
            contexts=("Blood progenitors 2", "Endothelium", "Neural crest"),
            preprocessing={"choose_on": "training"},
            published=None,
            parts=(),
            manual=(
                "this subset is published nowhere; the whole is in the R package MouseGastrulationData: make an h5ad "
                "of raw counts (obs columns 'condition', with labels 'host_wt' and 'tal1_ko', 'cell_type' and 'sample')"
            ),
        ),
    )
}
"""By name."""


def dataset(name: str) -> Dataset:
    """Look a dataset up.

    Raises
    ------
    InputError
        No dataset is called so.
    """
    if name not in DATASETS:
        raise InputError(f"there is no dataset {name!r} in the catalogue; {did_you_mean(name, DATASETS)}")
    return DATASETS[name]
