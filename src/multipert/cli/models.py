"""``multipert models``: what there is to fit."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import typer


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One, in full.", show_default=False)] = None,
) -> None:
    """List the models, or print the card of one."""
    from multipert.models import MODELS, model_class, preset_names, preset_values, search_space, space_in_words

    if name is None:
        rows = [("model", "family", "conditions on", "presets", "paper")]
        found, faults = MODELS.loaded()
        rows += [(one.name, one.family, one.serves, ", ".join(preset_names(one)), one.source) for one in found.values()]
        _print_aligned(rows)
        for fault in faults:
            print(f"multipert: {fault}", file=sys.stderr)
        print("\n`multipert models NAME` prints what one does and assumes, its loss and its parameters.")
        return
    model = model_class(name)
    print(f"{model.name}: {model.title}\n")
    print(f"family         {model.family}\nconditions on  {model.serves}\nassumes        {model.assumes}")
    print(f"loss           {model.loss}\nsource         {model.source}\n")
    values = {preset: preset_values(model, preset) for preset in preset_names(model)}
    fields = dataclasses.fields(model.Parameters)
    if not fields:
        print("It has no parameters.")
        return
    space = search_space(model)
    _print_aligned(
        [
            ("parameter", *values, *(["tune tries"] if space else []), "meaning"),
            *(
                (
                    f.name,
                    *(_shown(preset[f.name]) for preset in values.values()),
                    *([space_in_words(space.get(f.name))] if space else []),
                    f.metadata.get("meaning", ""),
                )
                for f in fields
            ),
        ]
    )


def _print_aligned(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of text in columns; the last one runs free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
