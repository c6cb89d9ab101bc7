"""Few photons in many modes, the slow and plain way: polynomials of creation operators.

A pure state is a dict from occupation numbers (one per mode) to amplitude. It knows no closed form.
"""

import math
from collections.abc import Sequence

Occupation = tuple[int, ...]
State = dict[Occupation, complex]
Polynomial = dict[Occupation, complex]


def times(first: Polynomial, second: Polynomial) -> Polynomial:
    """The product of two polynomials of creation operators."""
    product: Polynomial = {}
    for a, amplitude_a in first.items():
        for b, amplitude_b in second.items():
            key = tuple(x + y for x, y in zip(a, b, strict=True))
            product[key] = product.get(key, 0.0) + amplitude_a * amplitude_b
    return product


def plus(polynomials: Sequence[tuple[complex, Polynomial]]) -> Polynomial:
    """The sum of polynomials with factors."""
    total: Polynomial = {}
    for factor, polynomial in polynomials:
        for key, amplitude in polynomial.items():
            total[key] = total.get(key, 0.0) + factor * amplitude
    return total


def mode(number: int, modes: int) -> Polynomial:
    """The creation operator of one mode."""
    return {tuple(int(place == number) for place in range(modes)): 1.0}


def power(polynomial: Polynomial, exponent: int, modes: int) -> Polynomial:
    """`polynomial` to the power `exponent`."""
    total: Polynomial = {(0,) * modes: 1.0}
    for _ in range(exponent):
        total = times(total, polynomial)
    return total


def state(polynomial: Polynomial) -> State:
    """What the polynomial makes of the vacuum: each a^+^n gives sqrt(n!)."""
    return {
        key: amplitude * math.prod(math.sqrt(math.factorial(n)) for n in key)
        for key, amplitude in polynomial.items()
    }
