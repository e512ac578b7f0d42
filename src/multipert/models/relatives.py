"""What is known of a perturbation that training never saw: by the members of a combination, or by other doses."""

import math
from collections.abc import Collection, Mapping

from multipert.data.condition_names import members, undosed


def relatives(name: str, seen: Collection[str], doses: Mapping[str, float]) -> dict[str, float]:
    """The perturbations whose shifts, so weighted, add up to the one expected of another; empty if there are none.

    A combination ``A+B`` is the sum of its members. A dose lies on the line, in the logarithm of dose, between the
    nearest doses of its compound; below all of them it falls to nothing at dose 0 (in proportion to dose), above all it
    is as the highest.

    Parameters
    ----------
    name
        The perturbation, ``name@dose`` where there are doses.
    seen
        Perturbations whose shifts are known.
    doses
        The dose of each condition; empty without doses.
    """
    if name in doses:
        compound, dose = undosed(name), doses[name]
        ladder = sorted((doses[one], one) for one in seen if one in doses and undosed(one) == compound)
        below = [step for step in ladder if step[0] < dose]
        above = [step for step in ladder if step[0] > dose]
        if below and above:
            (low, first), (high, last) = below[-1], above[0]
            part = math.log(dose / low) / math.log(high / low)
            return {first: 1 - part, last: part}
        if above:
            return {above[0][1]: dose / above[0][0]}
        if below:
            return {below[-1][1]: 1.0}
    parts = members(name)
    if len(parts) > 1 and all(part in seen for part in parts):
        return {part: float(parts.count(part)) for part in parts}
    return {}
