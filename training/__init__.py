"""Train, evaluate, fuse and export RepVGG with MindSpore; never imported by the service."""

from training.device import limit_onednn

limit_onednn()  # before anything imports MindSpore: oneDNN reads the variable once
