"""Does it change a verdict to bring genes to one scale before populations are compared? On real cells, simple models.

python -m benchmarks.one_scale [--data kang_subset]

Prints in how many held-out contexts each simple model comes nearer to the truth than no change does (both scored
without shared noise), by the distances of populations as they are and by those of genes on one scale, cut at 10
standard deviations.
"""

import argparse

import pandas as pd

import multipert as mp
from benchmarks.accuracy import KEYS, read
from multipert.evaluation import evaluate

METRICS = ("edist", "edist_scaled", "mmd_rbf", "mmd_rbf_scaled")
MODELS = ("mean-shift", "nearest-context", "linear", "resample", "mtcell")


def main() -> None:
    """Score every model in every context, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=KEYS, default="kang_subset")
    data = read(parser.parse_args().data)
    wins = []
    for context in data.contexts:
        split = mp.leave_context_out(data, context)
        control = data.to_anndata(data.rows(condition=data.control, context=context))
        models = {name: mp.models.create(name, seed=1).fit(data, split) for name in MODELS}
        for perturbation in data.perturbations:
            truth = data.to_anndata(data.rows(condition=perturbation, context=context))
            predicted = {name: model.predict(control, perturbation) for name, model in models.items()}
            scores = {
                name: evaluate(control=control, truth=truth, predicted=cells, metrics=METRICS)
                for name, cells in {"no change": control, **predicted}.items()
            }
            wins += [{"model": name, **(scores[name] < scores["no change"])} for name in MODELS]
    table = pd.DataFrame(wins).groupby("model", sort=False)[list(METRICS)].sum().astype(int)
    print(
        f"nearer to the truth than no change, of {len(wins) // len(MODELS)} responses of {len(data.contexts)} contexts"
    )
    print(table.to_string())


if __name__ == "__main__":
    main()
