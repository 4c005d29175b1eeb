"""Numbers on the command line, for argparse."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> float:
    """A finite number above 0."""
    if not 0 < (number := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def not_negative(text: str) -> float:
    """A finite number, 0 or above."""
    if not 0 <= (number := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or above")
    return number


def positive_count(text: str) -> int:
    """A whole number, 1 or above."""
    if not (number := _number(text)) >= 1 or not number.is_integer():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or above")
    return int(number)


def add_price(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--core-hour-price",
        type=positive,
        metavar="P",
        help="price of one CPU core for one hour, in any currency: also prints the cost of a million images",
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
