"""What a network's mean adds to mtcell as one more member.

python -m benchmarks.member                                            # mtae-adv, some of the data sets
python -m benchmarks.member --data kang_subset --member mtae-ot        # another network

Every context is held out in turn. Printed is the squared error of the predicted mean over that of no change, sampling
noise of the truth taken off both, summed over contexts and perturbations: of mtcell without the member, with it, and of
the network alone; the weights chosen; in how many contexts the error falls, and rises; and the processor's seconds of a
fit, cross-fitting included.
"""

import argparse
import time

import numpy as np
import pandas as pd

import multipert as mp
from benchmarks.ablation import squared_error
from benchmarks.split import DATA
from multipert.models.mtcell import MTCell
from multipert.process import own_process

SOME = ("kang_subset", "mcfaline_subset", "tal1_counts, replicates", "simulated", "simulated, contexts differ")


def compare(data: mp.PerturbationData, member: str) -> dict[str, object]:
    """The row of a data set."""
    whole = MTCell().fit(data)
    found, weights, seconds = [], [], []
    for k, context in enumerate(data.contexts):
        conditions = [c for c in range(1, len(data.conditions)) if k in whole._seen(c)]
        if not conditions:
            continue
        began = time.process_time()
        model = MTCell(member=member).fit(data, mp.leave_context_out(data, context), progress=False)
        seconds.append(time.process_time() - began)
        if model.member_ is None:
            raise SystemExit("one training context only: there is no member")
        network, sums = model.member_, np.zeros(4)
        for condition in conditions:
            truth = whole._contexts("mean", condition, np.array([k]))
            means = []
            for model.member_ in (None, network):
                means.append(model.known_response(condition, k))
            shifts = [mean.predicted - mean.control for mean in means]
            guesses = np.zeros(len(data.genes)), *shifts, network.shifts[condition, k]
            sums += [squared_error(guess, truth, 0) for guess in guesses]
        found.append(sums)
        weights.append(network.weight)
    errors = np.array(found)
    nothing, without, together, alone = errors.sum(axis=0)
    return {
        "mtcell": without / nothing,
        f"with {member}": together / nothing,
        f"{member} alone": alone / nothing,
        "weights": ", ".join(f"{weight:.2f}" for weight in weights),
        "better": (errors[:, 2] < errors[:, 1]).sum(),
        "worse": (errors[:, 2] > errors[:, 1]).sum(),
        "seconds": np.mean(seconds),
    }


def main() -> None:
    """Print the table."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(SOME), metavar="NAME")
    parser.add_argument("--member", default="mtae-adv", help="a network of the multi-task family")
    options = parser.parse_args()
    rows = {}
    for name in options.data:
        rows[name] = compare(DATA[name](), options.member)
        print(f"{name}: {rows[name]}", flush=True)
    with pd.option_context("display.width", 200, "display.max_columns", 40, "display.max_colwidth", 80):
        print(pd.DataFrame(rows).T.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
