"""The keys of a recipe, with types, bounds and meaning; each key is also a command-line flag.

The keys of the seed project keep their names and meaning. Defaults are our own: a missing key turns nothing on.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from training.config import policies, progressive
from training.config.choices import CALLBACKS, OPTIMIZERS, SCHEDULES
from training.config.values import (
    Count,
    Decay,
    Deviation,
    Factor,
    FolderOrUrl,
    OptionalCount,
    OptionalPath,
    OptionalPositive,
    OptionalStr,
    Probability,
    Rate,
    RunName,
    parse_list,
    parse_resume,
)
from training.errors import ConfigError
from weights.variants import VARIANTS

_UNUSUAL = re.compile(r"[^\w.]+")  # in the name of a folder

ARCH_ALIASES = {"RepVGG-A0-A0tiny": "RepVGG-A0"}  # the seed project's name for it

Layout = Literal["ImageNet", "ImageFolder", "CIFAR10", "CIFAR100", "FashionMNIST", "TinyImageNet", "CSV"]

if TYPE_CHECKING:
    Optimizer: TypeAlias = str
    Schedule: TypeAlias = str
else:  # a type checker cannot evaluate the names in the tables
    Optimizer, Schedule = Literal[tuple(OPTIMIZERS)], Literal[tuple(SCHEDULES)]


class TrainConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    # Architecture
    arch: str = Field("RepVGG-A0", description="an architecture from weights.variants.VARIANTS")
    num_classes: OptionalCount = Field(
        None, description="number of classes of the images, which is checked; None: as many as there are"
    )
    pretrained: OptionalPath = Field(
        None,
        description="checkpoint to evaluate, to export or to start training from; training also starts from a bundle, "
        "a folder or a name in the store, and takes from it what the recipe does not say of architecture and images",
    )
    reset_classifier: bool = Field(
        False, description="load `pretrained` except for its classifier, which starts fresh: to train other classes"
    )
    freeze: Annotated[int, Field(ge=0, le=5)] = Field(
        0,
        description="first stages that training leaves as they are, the stem being one; 5: only the classifier learns",
    )
    fixed_statistics: bool = Field(
        False,
        description="batch norms normalise by the statistics that the run starts with, as in evaluation, and not by "
        "those of each batch: for fine-tuning with few images",
    )
    fused: bool = Field(
        False,
        description="trains a bundle's kernels as they are served, one convolution a block, without branches and batch "
        "norms: for fine-tuning with few images",
    )
    kernel_norms: bool = Field(
        False,
        description="with `fused`, a batch norm after each kernel while it is trained: for images whose classes need "
        "other features than the bundle's, which takes a higher rate than kernels alone survive",
    )
    stem_init: Literal["random", "whitened"] = Field(
        "random", description="first kernels of the stem; whitened: computed from the training images, for short runs"
    )
    # Dataset
    data_url: FolderOrUrl = Field(
        "./dataset",
        description="folder with the images in the layout given by `set`; on ModelArts also an obs:// or s3:// address",
    )
    cache_dir: Path = Field(Path("/cache"), description="ModelArts: folder to which images from obs:// are copied")
    set: Layout = Field(
        "ImageNet",
        description="layout of data_url: ImageNet and ImageFolder are train/<class>/* and val/<class>/*, CSV a table "
        "of path, label and split, the others the files as published",
    )
    labels: Literal["single", "multi"] = Field(
        "single",
        description="multi: any number of labels may apply to an image (set: CSV, label such as cat|dog, or empty); "
        "each has a score of its own (sigmoid)",
    )
    dataset: OptionalStr = Field(
        None, description="title of the images in logs and in the bundle's manifest; None: the name in `set`"
    )
    licence: OptionalStr = Field(
        None, description="terms under which the weights may be used, for the bundle's manifest: those of the images"
    )
    holdout: Annotated[int, Field(ge=0)] = Field(
        0,
        description="number of training images to set aside and evaluate instead of val, drawn by seed in proportion "
        "to the classes; 0: evaluate val",
    )
    image_size: Count = Field(224, description="side of the network's square input in pixels")
    image_sizes: OptionalStr = Field(
        None,
        description="side of the training images from each epoch on, counted from 0, as in 0:48,8:64; evaluation and "
        "bundles always use image_size; None: image_size throughout",
    )
    crop: Literal["random_resized", "padded"] = Field(
        "random_resized",
        description="training crop: a random part of the photo, or the crop of evaluation, padded and shifted",
    )
    crop_scale: Annotated[tuple[Factor, Factor], BeforeValidator(parse_list)] = Field(
        (0.08, 1.0), description="crop: random_resized: smallest and largest share of the area"
    )
    crop_padding: Annotated[int, Field(ge=0)] = Field(4, description="crop: padded: zero padding in pixels")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    crop_pct: Annotated[float, Field(gt=0, le=1)] = Field(
        0.875, description="evaluation: fraction of the short side that the centre crop keeps"
    )
    mean: Annotated[tuple[Probability, Probability, Probability], BeforeValidator(parse_list)] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[Deviation, Deviation, Deviation], BeforeValidator(parse_list)] = (0.229, 0.224, 0.225)
    verify_images: Literal["headers", "pixels"] = Field(
        "pixels", description="how much of each image of train and val is read before the first epoch; headers is fast"
    )
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop",
        description="skip: a run leaves broken images out, lists them in skipped.txt and counts them in checkpoints",
    )
    num_parallel_workers: Count = Field(2, description="threads that read and augment images")
    # Augmentation
    auto_augment: OptionalStr = Field(
        None,
        description="policy in timm's notation: rand-m9-mstd0.5-inc1, augmix-m5-w4-d2, original, originalr; None: off",
    )
    hflip: Probability = Field(0.5, description="probability that an image is flipped horizontally")
    vflip: Probability = Field(
        0.0, description="probability that it is flipped vertically, for photos without an up and a down"
    )
    cutout: Annotated[int, Field(ge=0)] = Field(
        0, description="side in pixels of a square of each image that becomes the mean colour, for small images; 0: off"
    )
    color_jitter: Rate = Field(0.0, description="strength of random brightness, contrast and saturation; 0: off")
    re_prob: Probability = Field(0.0, description="probability of random erasing; 0: off")
    re_mode: Literal["const", "rand", "pixel"] = Field(
        "pixel", description="what erasing fills in: the mean colour, one random colour, or random pixels"
    )
    re_count: Count = Field(1, description="maximum number of erased rectangles per image")
    mix_up: Rate = Field(0.0, description="alpha of MixUp's beta distribution; 0: off")
    cutmix: Rate = Field(0.0, description="alpha of CutMix's beta distribution; 0: off")
    mixup_prob: Probability = Field(1.0, description="probability that MixUp or CutMix is applied at all")
    switch_prob: Probability = Field(0.5, description="probability of CutMix instead of MixUp if both are on")
    mixup_mode: Literal["batch", "elem", "pair"] = Field(
        "batch", description="one mixing ratio per batch, per image, or per pair of images"
    )
    plain_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="number of final epochs in which images are only cropped and flipped, whatever is set above"
    )
    # Learning rate
    base_lr: Rate = Field(
        0.1,
        description="learning rate for the whole batch of all devices; it is never scaled, so a recipe for 8 devices "
        "gives 8 times the rate of one device",
    )
    backbone_lr: Factor = Field(
        1.0, description="factor on the learning rates of everything but the classifier, for fine-tuning"
    )
    warmup_lr: Rate = Field(0.00000007, description="learning rate of the first warm-up step")
    min_lr: Rate = Field(
        0.000006, description="final learning rate of cosine_lr, poly_lr and wsd_lr, lower bound of exp_lr"
    )
    lr_scheduler: Schedule = "cosine_lr"
    warmup_length: Annotated[int, Field(ge=0)] = Field(0, description="epochs of linear warm-up")
    lr_milestones: Annotated[tuple[Count, ...], BeforeValidator(parse_list)] = Field(
        (), description="multistep_lr: epochs after which the rate is multiplied by lr_gamma"
    )
    lr_gamma: Factor = Field(0.1, description="multistep_lr: factor at each milestone")
    lr_decay: Factor = Field(0.97, description="exp_lr: factor per epoch")
    lr_power: Annotated[float, Field(gt=0)] = Field(
        1.0, description="exponent of poly_lr and of the cool-down of wsd_lr; 1 is a straight line"
    )
    cooldown_length: Annotated[int, Field(ge=0)] = Field(
        0, description="wsd_lr: number of final epochs in which the rate falls to min_lr"
    )
    # Training
    optimizer: Optimizer = "momentum"
    momentum: Decay = Field(0.9, description="for momentum, nesterov and muon")
    beta: Annotated[tuple[Decay, Decay], BeforeValidator(parse_list)] = Field(
        (0.9, 0.999),
        description="adamw, lamb, lion and adamw_lr: decay factors of the averaged gradient and of its square",
    )
    adamw_lr: OptionalPositive = Field(
        None,
        description="muon: learning rate of AdamW, on the schedule of base_lr, for the parameters that Muon does not "
        "orthogonalise; None: Nesterov momentum with Muon's rate for these",
    )
    weight_decay: Rate = Field(0.0001, description="not applied to batch norms and biases")
    custom_l2: bool = Field(
        False, description="RepVGG's own weight decay: of each block's equivalent kernel instead of its branches"
    )
    label_smoothing: Decay = 0.1
    class_weights: Literal["equal", "balanced"] = Field(
        "equal", description="balanced: an image counts in the loss in inverse proportion to the size of its class"
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled",
        description="balanced: an epoch draws as many images of each class, those of small classes several times",
    )
    teacher: OptionalPath = Field(
        None,
        description="bundle of the RepVGG family, a folder or a name in the store, that knows the same classes: the "
        "network learns from its answers too (distillation); None: off",
    )
    teacher_temperature: Annotated[float, Field(gt=0)] = Field(
        4.0, description="teacher: what both networks' logits are divided by, so that unlikely classes count"
    )
    teacher_weight: Probability = Field(0.5, description="teacher: its share of the loss; the labels have the rest")
    clip_global_norm_value: OptionalPositive = Field(
        None, description="maximum norm of all gradients together; None: no clipping"
    )
    accumulate_steps: Count = Field(1, description="batches whose gradients are averaged into one update")
    epochs: Count = 180
    batch_size: Count = Field(128, description="images per step on each device")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    # Mixed precision
    amp_level: Literal["O0", "O1", "O2", "O3"] = Field(
        "O0",
        description="O0: float32; float16 for convolutions and matrix products (O1), for everything except batch norms "
        "(O2), for everything (O3)",
    )
    is_dynamic_loss_scale: bool = Field(
        True, description="O1-O3: halve the loss scale at an overflow, double it after 2000 updates without one"
    )
    loss_scale: Annotated[float, Field(ge=1)] = Field(
        1024.0, description="O1-O3: the loss scale, or its initial value if it is dynamic"
    )
    # Averaged weights
    with_ema: bool = Field(False, description="evaluate and export an exponential moving average of the weights")
    ema_decay: Decay = Field(0.9999, description="share of the average that each update keeps")
    ema_forgets_start: bool = Field(
        True, description="keep less at first, so that random first weights are forgotten; False: for fine-tuning"
    )
    # Device and output
    device_target: Literal["Ascend", "GPU", "CPU"] = "Ascend"
    device_id: Annotated[int, Field(ge=0)] = Field(
        0, description="device of a single process; a launcher sets DEVICE_ID instead"
    )
    save_dir: Path = Field(Path("./runs"), description="checkpoints and logs are written to <save_dir>/<name>")
    name: RunName = Field(
        None, description="folder of the run in save_dir; None: the recipe's file name, without one <arch>-<dataset>"
    )
    train_url: OptionalStr = Field(
        None,
        description="ModelArts: address or folder to which <save_dir>/<name> is copied at every save, and from which a "
        "new job resumes",
    )
    resume: Annotated[Literal["auto", "none"] | Path, BeforeValidator(parse_resume)] = Field(
        "auto",
        description="auto: resume from the last checkpoint of this run if there is one; none: start a new run; "
        "FILE.ckpt: resume from that file",
    )
    checkpoint_minutes: OptionalPositive = Field(
        10.0, description="how often last.ckpt is also saved within an epoch; None: only at the end of an epoch"
    )
    resume_changed: bool = Field(
        False, description="resume although the recipe, the classes or the images changed what the run means"
    )
    eval_interval: Count = Field(1, description="epochs between two evaluations; the last epoch is always evaluated")
    patience: OptionalCount = Field(
        None, description="epochs without a better validation top-1 after which the run ends; None: it never ends early"
    )
    minutes: OptionalPositive = Field(
        None,
        description="time that a run may take: it makes fewer epochs if they are too slow, by a schedule of that "
        "length; None: no limit",
    )
    callbacks: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = Field(
        (),
        description=f"what else a run does: {', '.join(CALLBACKS)}, or package.module:function, which takes the "
        "configuration and returns a training.run.callbacks.Callback",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_arch_alias(cls, values: Any) -> Any:
        return {**values, "arch": ARCH_ALIASES.get(values["arch"], values["arch"])} if "arch" in values else values

    @model_validator(mode="after")
    def _check_network(self) -> TrainConfig:
        if self.arch not in VARIANTS:
            raise ValueError(f"unknown arch {self.arch!r}; did you mean {nearest(self.arch, list(VARIANTS))!r}?")
        if self.custom_l2 and VARIANTS[self.arch].block == "qarepvgg":
            raise ValueError(
                f"custom_l2 is for RepVGG only: {self.arch} has no batch norm after its 1x1 branch, and its authors "
                "use plain weight decay because custom_l2 widens the range of activations; set custom_l2: False"
            )
        if self.reset_classifier and not self.pretrained:
            raise ValueError("reset_classifier: True needs pretrained, the checkpoint that all other weights come from")
        if self.fused and not self.pretrained:
            raise ValueError("fused: True needs pretrained, the bundle whose kernels it trains")
        if self.kernel_norms and not self.fused:
            raise ValueError("kernel_norms: True is for fused: True; branches have batch norms of their own")
        if self.fused and self.custom_l2:
            raise ValueError("fused: True has no branches, whose kernels custom_l2 is about; set custom_l2: False")
        return self

    @model_validator(mode="after")
    def _check_images(self) -> TrainConfig:
        if self.auto_augment:
            policies.parse(self.auto_augment)
        if self.image_sizes:
            progressive.check(self.image_sizes, self.epochs)
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale {list(self.crop_scale)}: the smaller share comes first, as in [0.08, 1.0]")
        if self.plain_epochs > self.epochs:
            raise ValueError(f"plain_epochs ({self.plain_epochs}) exceeds epochs ({self.epochs})")
        if self.dataset in get_args(Layout) and self.dataset != self.set and "set" not in self.model_fields_set:
            raise ValueError(
                f"dataset is only a title; `set` gives the layout on disk: use set: {self.dataset} for the files as "
                "published, or set: ImageFolder for train/<class>/* and val/<class>/*"
            )
        return self

    @model_validator(mode="after")
    def _check_balance(self) -> TrainConfig:
        if self.class_weights == self.sampling == "balanced":
            raise ValueError(
                "class_weights and sampling are both balanced, which counts small classes twice: choose one"
            )
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> TrainConfig:
        if self.labels == "single":
            return self
        if self.set != "CSV":
            raise ValueError("labels: multi needs set: CSV, a table whose column label names them all, as in cat|dog")
        single = {
            "class_weights": "equal",
            "sampling": "shuffled",
            "holdout": 0,
            "on_bad_image": "stop",
            "teacher": None,
        }
        if wrong := [key for key, value in single.items() if getattr(self, key) != value]:
            raise ValueError(f"labels: multi does not go with {', '.join(wrong)}, which need one class for each image")
        return self

    @model_validator(mode="after")
    def _check_optimizer(self) -> TrainConfig:
        if self.adamw_lr and (self.optimizer != "muon" or self.base_lr == 0):
            raise ValueError("adamw_lr is for optimizer: muon with a base_lr above 0, whose schedule it follows")
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> TrainConfig:
        if self.warmup_length > self.epochs:
            raise ValueError(f"warmup_length ({self.warmup_length}) exceeds epochs ({self.epochs})")
        if self.lr_scheduler == "wsd_lr" and not 0 < self.cooldown_length <= self.epochs - self.warmup_length:
            raise ValueError(
                f"lr_scheduler: wsd_lr needs a cooldown_length of at least 1 that fits into epochs ({self.epochs}) "
                f"together with warmup_length ({self.warmup_length}); {self.cooldown_length} does not"
            )
        if self.lr_scheduler == "multistep_lr" and not self.lr_milestones:
            raise ValueError("lr_scheduler: multistep_lr needs lr_milestones, epochs such as [60, 120, 160]")
        if list(self.lr_milestones) != sorted({*self.lr_milestones}):
            raise ValueError(f"lr_milestones {list(self.lr_milestones)} must be strictly increasing")
        return self

    @property
    def run_dir(self) -> Path:
        return self.save_dir / (self.name or f"{self.arch}-{_UNUSUAL.sub('-', self.dataset_title)}")

    @property
    def classes(self) -> int:
        """`num_classes` where it is given or was counted. Raises ConfigError."""
        if self.num_classes is None:
            raise ConfigError("num_classes is not given, and there are no images to count the classes of")
        return self.num_classes

    @property
    def size_spans(self) -> dict[int, int]:
        """The first epoch of each size of training images -> how many epochs it lasts."""
        return progressive.spans(self.image_sizes, self.epochs) if self.image_sizes else {0: self.epochs}

    def at_epoch(self, epoch: int) -> TrainConfig:
        """The configuration with the augmentation and the image size of an epoch's training; epochs count from 0."""
        update: dict[str, Any] = {}
        if self.image_sizes:
            update["image_size"] = progressive.size_at(self.image_sizes, epoch)
        if epoch >= self.epochs - self.plain_epochs:
            update |= {"auto_augment": None, "color_jitter": 0.0, "re_prob": 0.0, "mix_up": 0.0, "cutmix": 0.0}
            update["cutout"] = 0
        return self.model_copy(update=update) if update else self

    @property
    def dataset_title(self) -> str:
        return self.dataset or self.set


def nearest(word: object, known: list[str]) -> str:
    """The name in `known` that is most similar to `word`, ignoring case."""
    by_lower = {name.lower(): name for name in known}
    return by_lower[difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.0)[0]]
