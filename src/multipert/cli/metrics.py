"""``multipert metrics``: what the scores mean."""

import sys


def metrics() -> None:
    """List the metrics: name, better direction, meaning."""
    from multipert.evaluation import METRICS

    found, faults = METRICS.loaded()
    width = max(map(len, found))
    for metric in found.values():
        print(f"{metric.name:{width}}  {metric.better:5}  {metric.meaning}")
    for fault in faults:
        print(f"multipert: {fault}", file=sys.stderr)
