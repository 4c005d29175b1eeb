"""Classify images with a repvgg server.

    from repvgg_client import Client

    with Client("http://127.0.0.1:8000") as client:
        for result in client.classify("photos/", top_k=3):
            print(result.name, result.predictions or result.error)

Requires httpx, and Pillow to send Pillow images or numpy arrays. It does not import the server.
"""

from repvgg_client.client import AsyncClient, Client
from repvgg_client.errors import ClientError, ConnectionFailed, ProblemError
from repvgg_client.images import Image
from repvgg_client.results import Cam, ImageFault, Judgement, Model, Prediction, Result

__all__ = [
    "Client",
    "AsyncClient",
    "Image",
    "Result",
    "Prediction",
    "Cam",
    "ImageFault",
    "Judgement",
    "Model",
    "ClientError",
    "ConnectionFailed",
    "ProblemError",
]
