"""The keys of a recipe: types, bounds and meaning, in one place; each key is a command-line flag too.

The seed project's keys keep their names and meaning; ours are the rest. Defaults are ours: a key that is not
written switches nothing on.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from training.config import policies
from training.network.variants import VARIANTS

ARCH_ALIASES = {"RepVGG-A0-A0tiny": "RepVGG-A0"}  # the seed's odd name for it

Set = Literal["ImageNet", "ImageFolder", "CIFAR10", "CIFAR100", "FashionMNIST"]


def _none(value: Any) -> Any:
    return None if value in ("None", "none", "null", "") else value


def _listed(value: Any) -> Any:
    """`[0.9, 0.999]` or `0.9,0.999` of a flag -> its parts."""
    if not isinstance(value, str):
        return value
    inner = value.strip("[]() ")
    return inner.split(",") if inner else []


def _resume(value: Any) -> Any:
    """The words for yes and no keep the meaning that they had when this was a switch."""
    word = str(value).lower()
    if word in ("true", "yes", "on", "1"):
        return "auto"
    if word in ("false", "no", "off", "0", "null", ""):
        return "none"
    if word in ("auto", "none"):
        return word
    if not word.endswith(".ckpt"):
        raise ValueError("must be auto, none or FILE.ckpt")
    return value


def _written(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


OptionalPath = Annotated[Path | None, BeforeValidator(_none)]
OptionalStr = Annotated[str | None, BeforeValidator(_none)]
FolderOrUrl = Annotated[str, BeforeValidator(_written)]  # as a Path, obs://bucket would lose a slash
OptionalPositive = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_none)]
Channels = Annotated[tuple[float, float, float], BeforeValidator(_listed)]
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0.0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=1)]


class TrainConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # Architecture
    arch: str = Field("RepVGG-A0", description="a name of training.network.variants.VARIANTS")
    num_classes: Count = 1000
    pretrained: OptionalPath = Field(None, description="checkpoint to evaluate, to export or to start from")
    reset_classifier: bool = Field(
        False, description="training starts from `pretrained` but for the classifier, which is new: for other classes"
    )
    stem_init: Literal["random", "whitened"] = Field(
        "random", description="first kernels of the stem; whitened: from the training images, for short runs"
    )
    # Dataset
    data_url: FolderOrUrl = Field(
        "./dataset",
        description="folder that holds the images in the layout of `set`, or on ModelArts its obs:// or s3:// address",
    )
    cache_dir: Path = Field(Path("/cache"), description="ModelArts: where images from obs:// are copied to")
    set: Set = Field(
        "ImageNet",
        description="layout of data_url: ImageNet and ImageFolder are train/<class>/* and val/<class>/*, the others "
        "their publishers' files",
    )
    dataset: OptionalStr = Field(
        None, description="title of the images in logs and in the bundle's manifest; None: the name in `set`"
    )
    image_size: Count = Field(224, description="side of the network's square input, pixels")
    crop: Literal["random_resized", "padded"] = Field(
        "random_resized",
        description="training crop: a random part of the photo, or a shifted crop of a padded small image",
    )
    crop_padding: Annotated[int, Field(ge=0)] = Field(4, description="pixels of zero padding for crop: padded")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    crop_pct: Annotated[float, Field(gt=0, le=1)] = Field(0.875, description="evaluation: share of the short side kept")
    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)
    verify_images: Literal["headers", "pixels"] = Field(
        "pixels", description="how far each training image is read before the first epoch; headers is quick"
    )
    num_parallel_workers: Count = Field(2, description="threads that read and augment images")
    # Augmentation
    auto_augment: OptionalStr = Field(
        None,
        description="policy as timm writes it: rand-m9-mstd0.5-inc1, augmix-m5-w4-d2, original, originalr; None: off",
    )
    hflip: Probability = Field(0.5, description="share of images mirrored left to right")
    color_jitter: Rate = Field(0.0, description="strength of random brightness, contrast and saturation; 0: off")
    re_prob: Probability = Field(0.0, description="share of images with a random rectangle erased; 0: off")
    re_mode: Literal["const", "rand", "pixel"] = Field(
        "pixel", description="what fills it: the mean colour, one random colour, or random pixels"
    )
    re_count: Count = Field(1, description="greatest number of rectangles an image")
    mix_up: Rate = Field(0.0, description="alpha of MixUp's beta distribution; 0: off")
    cutmix: Rate = Field(0.0, description="alpha of CutMix's beta distribution; 0: off")
    mixup_prob: Probability = Field(1.0, description="how often MixUp or CutMix is done at all")
    switch_prob: Probability = Field(0.5, description="how often it is CutMix where both are on")
    mixup_mode: Literal["batch", "elem", "pair"] = Field(
        "batch", description="one mixing ratio for the batch, for each image, or for each pair of images"
    )
    plain_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="the last epochs, in which images are cropped and mirrored only, whatever the keys above say"
    )
    # Learning rate
    base_lr: Rate = Field(
        0.1,
        description="for the batch of all devices as it is; nothing scales it: a recipe for 8 devices writes it 8-fold",
    )
    warmup_lr: Rate = Field(0.00000007, description="rate of the first step of the warm-up")
    min_lr: Rate = Field(0.000006, description="rate at the end of cosine_lr, poly_lr and wsd_lr, least rate of exp_lr")
    lr_scheduler: Literal["cosine_lr", "multistep_lr", "exp_lr", "poly_lr", "wsd_lr", "constant_lr"] = "cosine_lr"
    warmup_length: Annotated[int, Field(ge=0)] = Field(0, description="epochs of linear warm-up")
    lr_milestones: Annotated[tuple[Count, ...], BeforeValidator(_listed)] = Field(
        (), description="multistep_lr: epochs after which the rate is multiplied by lr_gamma"
    )
    lr_gamma: Factor = Field(0.1, description="multistep_lr: factor at each milestone")
    lr_decay: Factor = Field(0.97, description="exp_lr: factor an epoch")
    lr_power: Annotated[float, Field(gt=0)] = Field(
        1.0, description="poly_lr, and the end of wsd_lr: exponent; 1 is a straight line"
    )
    cooldown_length: Annotated[int, Field(ge=0)] = Field(
        0, description="wsd_lr: the last epochs, in which the rate falls to min_lr"
    )
    # Training
    optimizer: Literal["momentum", "sgd", "nesterov", "adamw", "lamb", "lion", "muon"] = "momentum"
    momentum: Decay = Field(0.9, description="of momentum, nesterov and muon")
    beta: Annotated[tuple[Decay, Decay], BeforeValidator(_listed)] = Field(
        (0.9, 0.999), description="of adamw, lamb and lion: averages of the gradient and of its square"
    )
    weight_decay: Rate = Field(0.0001, description="not applied to batch norms and biases")
    custom_l2: bool = Field(False, description="RepVGG's own: decay the blocks' equivalent kernels, not their branches")
    label_smoothing: Decay = 0.1
    clip_global_norm_value: OptionalPositive = Field(None, description="greatest norm of all gradients; None: off")
    accumulate_steps: Count = Field(1, description="batches whose gradients are averaged into one update")
    epochs: Count = 180
    batch_size: Count = Field(128, description="images a step on each device")
    seed: Annotated[int, Field(ge=0)] = 1
    # Mixed precision
    amp_level: Literal["O0", "O1", "O2", "O3"] = Field(
        "O0", description="O0 float32; float16 for O1 convolutions and products, O2 all but batch norms, O3 all"
    )
    is_dynamic_loss_scale: bool = Field(
        True, description="O1-O3: halve the loss scale at an overflow, double it after 2000 updates without"
    )
    loss_scale: Annotated[float, Field(ge=1)] = Field(1024.0, description="O1-O3: the static scale, or the first one")
    # Averaged weights
    with_ema: bool = Field(False, description="evaluate and export an exponential moving average of the weights")
    ema_decay: Decay = Field(0.9999, description="share of the average that an update keeps")
    # Where it runs and what it leaves
    device_target: Literal["Ascend", "GPU", "CPU"] = "Ascend"
    device_id: Annotated[int, Field(ge=0)] = Field(0, description="of a single process; a launcher says DEVICE_ID")
    save_dir: Path = Field(Path("./runs"), description="checkpoints and logs go to <save_dir>/<arch>")
    train_url: OptionalStr = Field(
        None,
        description="ModelArts: address or folder to which <save_dir>/<arch> is copied whenever the run is saved, and "
        "where a new job finds it to go on",
    )
    resume: Annotated[Literal["auto", "none"] | Path, BeforeValidator(_resume)] = Field(
        "auto",
        description="auto: go on from the last checkpoint of this run, if there is one; none: never; or FILE.ckpt",
    )
    checkpoint_minutes: OptionalPositive = Field(
        10.0, description="save last.ckpt that often inside an epoch, too; None: only when an epoch is over"
    )
    eval_interval: Count = Field(1, description="evaluate after every so many epochs; the last one always is")

    @model_validator(mode="before")
    @classmethod
    def _known_arch(cls, values: Any) -> Any:
        return {**values, "arch": ARCH_ALIASES.get(values["arch"], values["arch"])} if "arch" in values else values

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.arch not in VARIANTS:
            raise ValueError(f"unknown arch {self.arch!r}; did you mean {nearest(self.arch, list(VARIANTS))!r}?")
        if self.custom_l2 and VARIANTS[self.arch].block == "qarepvgg":
            raise ValueError(
                f"custom_l2 is RepVGG's: {self.arch} has no batch norm to weigh its 1x1 branch with, and its authors "
                "decay the plain kernels since custom_l2 spreads the activations; write custom_l2: False"
            )
        if self.reset_classifier and not self.pretrained:
            raise ValueError("reset_classifier: True needs pretrained, the checkpoint whose other weights are taken")
        if self.auto_augment:
            policies.parse(self.auto_augment)
        if self.warmup_length > self.epochs:
            raise ValueError(f"warmup_length ({self.warmup_length}) is longer than epochs ({self.epochs})")
        if self.lr_scheduler == "wsd_lr" and not 0 < self.cooldown_length <= self.epochs - self.warmup_length:
            raise ValueError(
                "lr_scheduler: wsd_lr needs cooldown_length, how many epochs at the end the rate falls; with the "
                f"warm-up it fits into epochs ({self.epochs}), and {self.cooldown_length} does not"
            )
        if self.plain_epochs > self.epochs:
            raise ValueError(f"plain_epochs ({self.plain_epochs}) are more than epochs ({self.epochs})")
        if self.dataset in get_args(Set) and self.dataset != self.set and "set" not in self.model_fields_set:
            raise ValueError(
                f"dataset is a title for people; the layout on disk is `set`: write set: {self.dataset} for its "
                "publisher's files or set: ImageFolder for train/<class>/* and val/<class>/*"
            )
        if self.lr_scheduler == "multistep_lr" and not self.lr_milestones:
            raise ValueError("lr_scheduler: multistep_lr needs lr_milestones, epochs such as [60, 120, 160]")
        if list(self.lr_milestones) != sorted({*self.lr_milestones}):
            raise ValueError(f"lr_milestones {list(self.lr_milestones)} must rise")
        return self

    @property
    def run_dir(self) -> Path:
        return self.save_dir / self.arch

    def augmented_at(self, epoch: int) -> TrainConfig:
        """The configuration that epoch 0, 1... draws its images by."""
        if epoch < self.epochs - self.plain_epochs:
            return self
        off = {"auto_augment": None, "color_jitter": 0.0, "re_prob": 0.0, "mix_up": 0.0, "cutmix": 0.0}
        return self.model_copy(update=off)

    @property
    def dataset_title(self) -> str:
        return self.dataset or self.set


def nearest(word: object, known: list[str]) -> str:
    """The likeliest meant one of `known`, whatever the case of `word`."""
    by_lower = {name.lower(): name for name in known}
    return by_lower[difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.0)[0]]
