"""What can be wrong with a file of weights or of labels, and with the name of a network.

WeightsError
├── CheckpointError   a file of weights is missing, broken, or belongs to another network
├── LabelsError       a file of labels is missing or is not one label a line
└── UnknownVariant    no such network, or its source says nothing about it
"""


class WeightsError(Exception):
    """Root of everything this package raises on purpose."""


class CheckpointError(WeightsError):
    """A file of weights is missing, broken, or belongs to another network."""


class LabelsError(WeightsError):
    """A file of labels cannot be used."""


class UnknownVariant(WeightsError):
    """There is no such network, or its source has published no preprocessing for it."""
