"""A sweep of fits, contexts held out x seeds: one at a time, and several stacked as one.

    python -m benchmarks.ensemble                                     # the study's sweep: on a GPU
    python -m benchmarks.ensemble --cells 2000 --epochs 2 --seeds 1 --members 2 4

The cells are simulated in the shape of Kang's: 18,868 x 6,998, seven contexts of unequal size, one perturbation. Both
ways do all fits, prepared and trained from the start; a short fit of each kind comes first and does not count.
"""

import argparse
import itertools
import time
from typing import Any

import numpy as np
import torch

import multipert as mp
from multipert.models.together import fit_together, fits_at_once
from multipert.process import own_process

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
CONTEXTS = tuple("ABCDEFG")


def cells_like_kangs(n_cells: int, n_genes: int) -> mp.PerturbationData:
    """Simulated cells in seven contexts, of which the largest has about three times as many as the smallest."""
    mean = n_cells / (2 * len(CONTEXTS))
    sizes = (round(0.7 * mean), round(2.0 * mean))
    adata = mp.simulate(n_genes=n_genes, contexts=CONTEXTS, perturbations=("stimulated",), cells_per_group=sizes)
    chosen = np.random.default_rng(0).permutation(adata.n_obs)[:n_cells]
    return mp.PerturbationData.from_anndata(adata[np.sort(chosen)].copy(), **KEYS)


def main() -> None:
    """Time the sweep both ways and print the ratio."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mtae")
    parser.add_argument("--preset", default="study")
    parser.add_argument("--cells", type=int, default=18_868)
    parser.add_argument("--genes", type=int, default=6_998)
    parser.add_argument("--epochs", type=int, help="by default the preset's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--members", type=int, nargs="+", help="fits together; by default as many as the device profits"
    )
    parser.add_argument("--alone", type=int, help="do only so many fits one at a time, and scale their time up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()

    data = cells_like_kangs(options.cells, options.genes)
    trials = [
        (mp.leave_context_out(data, context), seed)
        for seed, context in itertools.product(range(1, options.seeds + 1), CONTEXTS)
    ]
    where = {"device": options.device, "precision": options.precision, "progress": False}
    epochs = {} if options.epochs is None else {"epochs": options.epochs}

    def create(seed: int, **changes: int) -> mp.models.Model:
        return mp.models.create(options.model, preset=options.preset, seed=seed, **(epochs | changes))

    def sweep(chosen: list[tuple[mp.Split, int]], members: int, **changes: int) -> float:
        """Seconds that all fits take, ``members`` together."""
        started = time.perf_counter()
        for start in range(0, len(chosen), members):
            some = chosen[start : start + members]
            models = [create(seed, **changes) for _, seed in some]
            if members == 1:
                models[0].fit(data, some[0][0], **where)
            else:
                fit_together(models, data, [split for split, _ in some], **where)
        return time.perf_counter() - started

    steps = len(trials[0][0].train) // create(1).parameters.batch_size
    print(f"{data}\n{create(1)!r}: {len(trials)} fits, about {steps} steps an epoch; {torch.get_num_threads()} threads")
    few = trials[: options.alone]
    sweep(trials[:1], 1, epochs=1)
    alone = sweep(few, 1) * len(trials) / len(few)
    print(f"one at a time: {alone:.1f} s" + (f" (from {len(few)} fits)" if len(few) < len(trials) else ""), flush=True)
    for members in options.members or [fits_at_once(create(1), data, device=options.device)]:
        if members == 1:
            print("this device profits from no stacking: see --members")
            continue
        sweep(trials[:members], members, epochs=1)
        together = sweep(trials, members)
        print(f"{members} together: {together:.1f} s, {alone / together:.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
