"""What PyTorch 2.13 (float64) gives at kinks, poles and ends of the range: value, first and second derivative.

Written down once, so that the tests need no PyTorch. Digits are those of `%.6g`; one number stands for all points.
`OURS` lists where this library deliberately gives something else, and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import dualgraph as dg

POINTS = "0 -0 1 -1 -2 1e-9 -1e-9 30 -30 inf -inf nan"
ORDERS = ("value", "first", "second")

KINKS: dict[str, tuple[str, str, str]] = {
    "abs": (
        "0 0 1 1 2 1e-9 1e-9 30 30 inf inf nan",
        "0 0 1 -1 -1 1 -1 1 -1 1 -1 0",
        "0",
    ),
    "sign": (
        "0 0 1 -1 -1 1 -1 1 -1 1 -1 0",
        "0",
        "0",
    ),
    "square": (
        "0 0 1 1 4 1e-18 1e-18 900 900 inf inf nan",
        "0 0 2 -2 -4 2e-9 -2e-9 60 -60 inf -inf nan",
        "2",
    ),
    "relu": (
        "0 0 1 0 0 1e-9 0 30 0 inf 0 nan",
        "0 0 1 0 0 1 0 1 0 1 0 1",
        "0",
    ),
    "leaky_relu": (
        "0 0 1 -.01 -.02 1e-9 -1e-11 30 -.3 inf -inf nan",
        ".01 .01 1 .01 .01 1 .01 1 .01 1 .01 .01",
        "0",
    ),
    "elu": (
        "0 0 1 -.632121 -.864665 1e-9 -1e-9 30 -1 inf -1 nan",
        "1 1 1 .367879 .135335 1 1 1 9.35762e-14 1 0 1",
        "0 0 0 .367879 .135335 0 1 0 9.35762e-14 0 0 0",
    ),
    "elu-2": (
        "0 0 1 -1.26424 -1.72933 1e-9 -2e-9 30 -2 inf -2 nan",
        "2 2 1 .735759 .270671 1 2 1 1.87152e-13 1 0 1",
        "0 0 0 .735759 .270671 0 2 0 1.87152e-13 0 0 0",
    ),
    "softplus": (
        ".693147 .693147 1.31326 .313262 .126928 .693147 .693147 30 9.35762e-14 inf 0 nan",
        ".5 .5 .731059 .268941 .119203 .5 .5 1 9.35762e-14 1 0 nan",
        ".25 .25 .196612 .196612 .104994 .25 .25 0 9.35762e-14 0 0 nan",
    ),
    "log_sigmoid": (
        "-.693147 -.693147 -.313262 -1.31326 -2.12693 -.693147 -.693147 -9.35762e-14 -30 0 -inf nan",
        ".5 .5 .268941 .731059 .880797 .5 .5 9.35762e-14 1 0 1 nan",
        "-.25 -.25 -.196612 -.196612 -.104994 -.25 -.25 -9.34808e-14 -9.35762e-14 0 0 nan",
    ),
    "softsign": (
        "0 0 .5 -.5 -.666667 1e-9 -1e-9 .967742 -.967742 nan nan nan",
        "1 1 .25 .25 .111111 1 1 .00104058 .00104058 nan nan nan",
        "0 0 -.25 .25 .0740741 -2 2 -6.71344e-5 6.71344e-5 nan nan nan",
    ),
    "silu": (
        "0 0 .731059 -.268941 -.238406 5e-10 -5e-10 30 -2.80729e-12 inf nan nan",
        ".5 .5 .927671 .0723295 -.0907842 .5 .5 1 -2.71371e-12 nan nan nan",
        ".5 .5 .302366 .302366 .0500622 .5 .5 -2.61746e-12 -2.62013e-12 nan nan nan",
    ),
    "gelu": (
        "0 0 .841345 -.158655 -.0455003 5e-10 -5e-10 30 0 inf nan nan",
        ".5 .5 1.08332 -.0833155 -.0852318 .5 .5 1 -4.42094e-195 nan nan nan",
        ".797885 .797885 .241971 .241971 -.107982 .797885 .797885 -1.32333e-193 -1.32333e-193 nan nan nan",
    ),
    "gelu-tanh": (
        "0 0 .841192 -.158808 -.0454023 5e-10 -5e-10 30 0 inf nan nan",
        ".5 .5 1.08296 -.0829641 -.0860993 .5 .5 1 0 nan nan nan",
        ".797885 .797885 .242148 .242148 -.107875 .797885 .797885 0 0 nan nan nan",
    ),
    "sigmoid": (
        ".5 .5 .731059 .268941 .119203 .5 .5 1 9.35762e-14 1 0 nan",
        ".25 .25 .196612 .196612 .104994 .25 .25 9.34808e-14 9.35762e-14 0 0 nan",
        "0 0 -.0908577 .0908577 .0799625 -1.25e-10 1.25e-10 -9.34808e-14 9.35762e-14 0 0 nan",
    ),
    "tanh": (
        "0 0 .761594 -.761594 -.964028 1e-9 -1e-9 1 -1 1 -1 nan",
        "1 1 .419974 .419974 .0706508 1 1 0 0 0 0 nan",
        "0 0 -.6397 .6397 .136219 -2e-9 2e-9 0 0 0 0 nan",
    ),
    "erf": (
        "0 0 .842701 -.842701 -.995322 1.12838e-9 -1.12838e-9 1 -1 1 -1 nan",
        "1.12838 1.12838 .415107 .415107 .020667 1.12838 1.12838 0 0 0 0 nan",
        "0 0 -.830215 .830215 .0826679 -2.25676e-9 2.25676e-9 0 0 nan nan nan",
    ),
    "sqrt": (
        "0 0 1 nan nan 3.16228e-5 nan 5.47723 nan inf nan nan",
        "inf -inf .5 nan nan 15811.4 nan .0912871 nan 0 nan nan",
        "-inf inf -.25 nan nan -7.90569e12 nan -.00152145 nan 0 nan nan",
    ),
    "rsqrt": (
        "inf -inf 1 nan nan 31622.8 nan .182574 nan 0 nan nan",
        "-inf inf -.5 nan nan -1.58114e13 nan -.0030429 nan 0 nan nan",
        "inf -inf .75 nan nan 2.37171e22 nan .000152145 nan 0 nan nan",
    ),
    "reciprocal": (
        "inf -inf 1 -1 -.5 1e9 -1e9 .0333333 -.0333333 0 0 nan",
        "-inf -inf -1 -1 -.25 -1e18 -1e18 -.00111111 -.00111111 0 0 nan",
        "inf -inf 2 -2 -.25 2e27 -2e27 7.40741e-5 -7.40741e-5 0 0 nan",
    ),
    "exp": (
        "1 1 2.71828 .367879 .135335 1 1 1.06865e13 9.35762e-14 inf 0 nan",
        "1 1 2.71828 .367879 .135335 1 1 1.06865e13 9.35762e-14 inf 0 nan",
        "1 1 2.71828 .367879 .135335 1 1 1.06865e13 9.35762e-14 inf 0 nan",
    ),
    "expm1": (
        "0 0 1.71828 -.632121 -.864665 1e-9 -1e-9 1.06865e13 -1 inf -1 nan",
        "1 1 2.71828 .367879 .135335 1 1 1.06865e13 9.35918e-14 inf 0 nan",
        "1 1 2.71828 .367879 .135335 1 1 1.06865e13 9.35918e-14 inf 0 nan",
    ),
    "log": (
        "-inf -inf 0 nan nan -20.7233 nan 3.4012 nan inf nan nan",
        "inf -inf 1 -1 -.5 1e9 -1e9 .0333333 -.0333333 0 0 nan",
        "-inf -inf -1 -1 -.25 -1e18 -1e18 -.00111111 -.00111111 0 0 nan",
    ),
    "log1p": (
        "0 0 .693147 -inf nan 1e-9 -1e-9 3.43399 nan inf nan nan",
        "1 1 .5 inf -1 1 1 .0322581 -.0344828 0 0 nan",
        "-1 -1 -.25 -inf -1 -1 -1 -.00104058 -.00118906 0 0 nan",
    ),
    "asin": (
        "0 0 1.5708 -1.5708 nan 1e-9 -1e-9 nan nan nan nan nan",
        "1 1 inf inf nan 1 1 nan nan nan nan nan",
        "0 0 inf -inf nan 1e-9 -1e-9 nan nan nan nan nan",
    ),
    "acos": (
        "1.5708 1.5708 0 3.14159 nan 1.5708 1.5708 nan nan nan nan nan",
        "-1 -1 -inf -inf nan -1 -1 nan nan nan nan nan",
        "0 0 -inf inf nan -1e-9 1e-9 nan nan nan nan nan",
    ),
    "atan": (
        "0 0 .785398 -.785398 -1.10715 1e-9 -1e-9 1.53748 -1.53748 1.5708 -1.5708 nan",
        "1 1 .5 .5 .2 1 1 .00110988 .00110988 0 0 nan",
        "0 0 -.5 .5 .16 -2e-9 2e-9 -7.39097e-5 7.39097e-5 nan nan nan",
    ),
    "clip": (
        "0 0 1 -1 -1 1e-9 -1e-9 1 -1 1 -1 nan",
        "1 1 1 1 0 1 1 0 0 0 0 0",
        "0",
    ),
    "clip-min": (
        "0 0 1 0 0 1e-9 0 30 0 inf 0 nan",
        "1 1 1 0 0 1 0 1 0 1 0 0",
        "0",
    ),
    "clip-max": (
        "0 0 1 -1 -2 1e-9 -1e-9 1 -30 1 -inf nan",
        "1 1 1 1 1 1 1 0 1 0 1 0",
        "0",
    ),
    "clip-crossed": (
        "-1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 nan",
        "0",
        "0",
    ),
    "clip-nan": (
        "nan",
        "0",
        "0",
    ),
    "power-0": (
        "1",
        "0",
        "0",
    ),
    "power-1": (
        "0 0 1 -1 -2 1e-9 -1e-9 30 -30 inf -inf nan",
        "1",
        "0",
    ),
    "power-2": (
        "0 0 1 1 4 1e-18 1e-18 900 900 inf inf nan",
        "0 0 2 -2 -4 2e-9 -2e-9 60 -60 inf -inf nan",
        "2",
    ),
    "power-3": (
        "0 0 1 -1 -8 1e-27 -1e-27 27000 -27000 inf -inf nan",
        "0 0 3 3 12 3e-18 3e-18 2700 2700 inf inf nan",
        "0 0 6 -6 -12 6e-9 -6e-9 180 -180 inf -inf nan",
    ),
    "power-half": (
        "0 0 1 nan nan 3.16228e-14 nan 164.317 nan inf inf nan",
        "0 0 1.5 nan nan 4.74342e-5 nan 8.21584 nan inf nan nan",
        "inf -inf .75 nan nan 23717.1 nan .136931 nan 0 nan nan",
    ),
    "power-of-2": (
        "1 1 2 .5 .25 1 1 1.07374e9 9.31323e-10 inf 0 nan",
        ".693147 .693147 1.38629 .346574 .173287 .693147 .693147 7.44261e8 6.45544e-10 inf 0 nan",
        ".480453 .480453 .960906 .240227 .120113 .480453 .480453 5.15882e8 4.47457e-10 inf 0 nan",
    ),
    "minimum-0": (
        "0 0 0 -1 -2 0 -1e-9 0 -30 0 -inf nan",
        ".5 .5 0 1 1 0 1 0 1 0 1 1",
        "0",
    ),
    "maximum-0": (
        "0 0 1 0 0 1e-9 0 30 0 inf 0 nan",
        ".5 .5 1 0 0 1 0 1 0 1 0 1",
        "0",
    ),
    "floor": (
        "0 0 1 -1 -2 0 -1 30 -30 inf -inf nan",
        "0",
        "0",
    ),
    "remainder-2": (
        "0 0 1 1 0 1e-9 2 0 0 nan nan nan",
        "1",
        "0",
    ),
}


def zeros(x: Any) -> Any:
    return dg.zeros(x.shape, dtype=x.dtype)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "elu-2": lambda x: dg.elu(x, 2.0),
    "gelu-tanh": lambda x: dg.gelu(x, "tanh"),
    "clip": lambda x: dg.clip(x, -1, 1),
    "clip-min": lambda x: dg.clip(x, 0.0),
    "clip-max": lambda x: dg.clip(x, max=1),
    "clip-crossed": lambda x: dg.clip(x, 1, -1.0),
    "clip-nan": lambda x: dg.clip(x, float("nan"), 1),
    **{f"power-{n}": lambda x, n=n: dg.power(x, n) for n in range(4)},
    "power-half": lambda x: dg.power(x, 1.5),
    "power-of-2": lambda x: dg.power(2.0, x),
    "minimum-0": lambda x: dg.minimum(x, zeros(x)),
    "maximum-0": lambda x: dg.maximum(zeros(x), x),
    "remainder-2": lambda x: dg.remainder(x, 2.0),
}

# (function, order): {point: what is given here}, in place of PyTorch's.
OURS: dict[tuple[str, str], dict[str, float]] = {
    ("sign", "value"): {"nan": math.nan},  # NumPy's; PyTorch gives 0
    ("abs", "first"): {"nan": math.nan},  # times the sign
    ("elu", "first"): {"nan": math.nan},  # PyTorch: 1 where it computes elements one by one, NaN where in vectors
    ("elu", "second"): {"nan": math.nan},
    ("elu-2", "first"): {"nan": math.nan},
    ("elu-2", "second"): {"nan": math.nan},
    ("power-half", "first"): {"-inf": math.inf},  # C99 and NumPy: pow(-inf, 1.5) = inf; PyTorch takes roots instead
    ("power-half", "second"): {"-inf": 0.0, "-0": math.inf},
}


def function(name: str) -> Callable[[Any], Any]:
    found: Callable[[Any], Any] = FUNCTIONS.get(name) or getattr(dg, name)
    return found


def expected(name: str, order: str) -> Any:
    """The row as an array with an element for each point."""
    row = np.array(KINKS[name][ORDERS.index(order)].split(), float)
    row = np.broadcast_to(row, len(POINTS.split())).copy()
    for point, value in OURS.get((name, order), {}).items():
        row[POINTS.split().index(point)] = value
    return row
