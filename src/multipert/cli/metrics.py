"""``multipert metrics``: what the scores mean."""


def metrics() -> None:
    """List the metrics: name, better direction, meaning."""
    from multipert.evaluation import METRICS

    width = max(map(len, METRICS))
    for metric in METRICS.values():
        print(f"{metric.name:{width}}  {metric.better:5}  {metric.meaning}")
