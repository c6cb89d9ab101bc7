"""Checks of arguments: each raises ValueError and names what was wrong, with its value."""

import math


def require_unit(**values: float) -> None:
    """Raises ValueError, naming the parameter, unless each value is in 0..1."""
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is in 0..1, not {value}")


def require_not_negative(**values: float) -> None:
    """Raises ValueError, naming the parameter, unless each value is finite and at least 0."""
    for name, value in values.items():
        if not (value >= 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} is finite and not negative, not {value}")


def require_positive(**values: float) -> None:
    """Raises ValueError, naming the parameter, unless each value is finite and above 0."""
    for name, value in values.items():
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} is finite and above 0, not {value}")


def require_finite(**values: float) -> None:
    """Raises ValueError, naming the parameter, unless each value is finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is finite, not {value}")


def require_at_least(least: float, **values: float) -> None:
    """Raises ValueError, naming the parameter, unless each value is finite and at least `least`."""
    for name, value in values.items():
        if not (value >= least and math.isfinite(value)):
            raise ValueError(f"{name} is finite and at least {least:g}, not {value}")
