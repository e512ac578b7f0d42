"""``multipert models``: what there is to fit."""

import dataclasses
from typing import Annotated

import typer


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One, in full.", show_default=False)] = None,
) -> None:
    """List the models, or print the card of one."""
    from multipert.models import MODELS, model_class, preset_names, preset_values

    if name is None:
        width = max(map(len, MODELS))
        for model in MODELS.values():
            print(f"{model.name:{width}}  {model.title}")
        print("\nmultipert models NAME prints parameters, presets and source.")
        return
    model = model_class(name)
    print(f"{model.name}: {model.title}\nsource: {model.source}")
    fields = dataclasses.fields(model.Parameters)
    if not fields:
        print("parameters: none")
        return
    presets = {preset: preset_values(name, preset) for preset in preset_names()}
    rows = [("parameter", *presets, "meaning")]
    for field in fields:
        values = (_shown(presets[preset][field.name]) for preset in presets)
        rows.append((field.name, *values, field.metadata["meaning"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
