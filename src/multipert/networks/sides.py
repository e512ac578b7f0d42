"""Methods with two sides, control cells and perturbed cells, each with modules of its own."""

OTHER_SIDE = {"control": "perturbed", "perturbed": "control"}
"""The two sides, each with the one across from it."""
