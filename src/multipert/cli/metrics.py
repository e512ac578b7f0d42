"""``multipert metrics``: what the scores mean."""

import sys


def metrics() -> None:
    """List the metrics: name, better direction, meaning."""
    from multipert.evaluation import METRICS, STUDY

    found, faults = METRICS.loaded()
    width = max(map(len, found))
    for heading, of_study in (
        ("the study's nine, as published:", True),
        (
            "ours (* taken in crossed halves where the prediction was made from the control cells it is scored with):",
            False,
        ),
    ):
        print(heading)
        for metric in found.values():
            if (metric.name in STUDY) == of_study:
                mark = "*" if metric.shares_control else " "
                same = f" (the same number as {metric.same_as})" if metric.same_as else ""
                print(f"  {metric.name:{width}}{mark} {metric.better:5}  {metric.meaning}{same}")
    for fault in faults:
        print(f"multipert: {fault}", file=sys.stderr)
