"""The choices of a recipe whose code lives in a room above this one: name in the recipe -> "module:function".

The function is imported when it is used. To add an optimizer or a learning-rate schedule, write its function and add
one line here: the recipe key, its --help text and its errors follow from these tables.
"""

from __future__ import annotations

# Each function takes the groups of parameters, the learning rate of each update and the configuration.
OPTIMIZERS = {
    "momentum": "training.optim.optimizers:momentum",
    "sgd": "training.optim.optimizers:sgd",
    "nesterov": "training.optim.optimizers:nesterov",
    "adamw": "training.optim.optimizers:adamw",
    "lamb": "training.optim.optimizers:lamb",
    "lion": "training.optim.optimizers:lion",
    "muon": "training.optim.optimizers:muon",
}

# Each function takes the configuration and returns a Callback; a recipe may also name a function of its user's.
CALLBACKS = {
    "csv": "training.run.callbacks:csv_log",
    "tensorboard": "training.run.tensorboard:tensorboard",
}

# Each function takes a Curve and the number of an update, and returns its learning rate.
SCHEDULES = {
    "cosine_lr": "training.optim.learning_rate:cosine_lr",
    "multistep_lr": "training.optim.learning_rate:multistep_lr",
    "exp_lr": "training.optim.learning_rate:exp_lr",
    "poly_lr": "training.optim.learning_rate:poly_lr",
    "wsd_lr": "training.optim.learning_rate:wsd_lr",
    "constant_lr": "training.optim.learning_rate:constant_lr",
}
