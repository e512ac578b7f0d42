"""``multipert metrics``: what the scores mean."""

import sys


def metrics() -> None:
    """List the metrics: name, better direction, meaning."""
    from multipert.evaluation import METRICS, STUDY

    found, faults = METRICS.loaded()
    width = max(map(len, found))
    headings = {
        "study": "the study's nine, as published:",
        "ours": "ours (* in crossed halves where the prediction was made from the control cells it is scored with):",
        "counts": "of raw counts (--profile vcc2026):",
    }
    for kind, heading in headings.items():
        print(heading)
        for metric in found.values():
            if kind == ("study" if metric.name in STUDY else "counts" if metric.needs == "counts" else "ours"):
                mark = "*" if metric.shares_control else " "
                same = f" (the same number as {metric.same_as})" if metric.same_as else ""
                print(f"  {metric.name:{width}}{mark} {metric.better:5}  {metric.meaning}{same}")
    for fault in faults:
        print(f"multipert: {fault}", file=sys.stderr)
