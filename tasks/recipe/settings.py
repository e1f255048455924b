"""Settings: one frozen model per stage. Knows no stage's code and loads no torch.

Everything in a stage's model changes its result and so goes into its digest; batch sizes that only change the
speed, devices and workers are not here.
"""

from __future__ import annotations

import string
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, PositiveInt, Tag, model_validator

from ddoq_core.train.protocol import Augmentation

STAGES = (
    "shard", "view", "autoencoder", "encode", "teacher", "prior", "cluster", "decode", "measure", "label", "train",
    "evaluate", "sample", "report",
)  # fmt: skip
COMPARE = "compare"  # the stage of `ddoq compare`, in the place of report
Subset = Literal[
    "imagenette", "imagewoof", "imagenet100", "imageidc", "imagemeow", "imagesquawk", "imagefruit", "imageyellow"
]
BY_MINUTES = "if none, as many as fit into the recipe's `minutes`"
Quantizer = Literal["exact", "stream", "stream-d4m", "clvq", "balanced", "divisive", "centre-margin"]
ProtocolName = Literal["fkd", "rded", "hard", "rd3", "quick"]


def _printable(text: str) -> str:
    """The text. Raises ValueError for one that no terminal, file system or JSON file could take as it is."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("control characters, or bytes that are no text: write it without")
    return text


def each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values. Raises ValueError where one stands twice."""
    if len(set(values)) < len(values):
        raise ValueError("name each value once")
    return values


# Bounds are far above what anybody trains with: beyond them lie typing errors, and numbers that no machine holds.
Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_printable)]  # a name or a path
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(gt=0, le=10**7)]
Minutes = Annotated[float, Field(gt=0, le=10**6)]
Side = Annotated[int, Field(gt=0, le=4096)]
Width = Annotated[int, Field(gt=0, le=8192)]
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Architecture = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(gt=0, le=1)]
Noise = Literal["plain", "cell", "class"]
Channels = Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1, max_length=3)]
Steps = Annotated[int, Field(gt=0, le=1000)]  # of sampling, and tries of it
Rule = Literal["uniform", "sqrt", "mass", "sqrt-paper", "given"]  # given: those that a given set has, or 1
Weighting = Rule | Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


def _check_prompt(prompt: str) -> str:
    """The prompt. Raises ValueError for one with anything but {name} in braces."""
    try:
        fields = [parts[1:] for parts in string.Formatter().parse(prompt) if parts[1] is not None]
    except ValueError as error:
        raise ValueError(f"{error}: write a prompt like 'a photo of {{name}}'") from error
    if any(field != ("name", "", None) for field in fields):
        raise ValueError("of what stands in braces there is {name} alone: write a prompt like 'a photo of {name}'")
    return prompt


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are refused, of the core's dataclasses among them too."""

    model_config = ConfigDict(frozen=True, extra="forbid")


PUBLISHED = ("cifar10", "cifar100", "tiny-imagenet", "imagenette")  # data sets that are downloaded, each in a layout
AT_ADDRESSES = ("folder", "tar", "webdataset", "parquet")  # sources that are read from addresses too
GIVEN, TRAINED = "[given]", "[trained]"  # in brackets, as flows.catalogue leaves out of messages


def _either(found: Any, first: str, second: str, *, kind_of_second: str | None = None) -> str | None:
    """Which of two kinds of settings these are, by the one field of the two that is set; None where that is not one.

    kind_of_second  what `kind` must be, or be unset, if and only if the second field is set
    """
    values = found if isinstance(found, dict) else vars(found) if isinstance(found, Settings) else {}
    is_first, is_second = (values.get(name) is not None for name in (first, second))
    if is_first == is_second:
        return None
    if kind_of_second and (values.get("kind", kind_of_second) == kind_of_second) != is_second:
        return None
    return GIVEN if is_first else TRAINED


class DataConfig(Settings):
    """Where the real images come from (stage shard)."""

    source: Literal[
        "digits", "folder", "tar", "webdataset", "parquet", "cifar10", "cifar100", "tiny-imagenet", "imagenette"
    ] = Field(
        "folder",
        description="imagenette is fastai's, in a split of its own: the papers' is subset=imagenette of ILSVRC's",
    )
    path: Text | None = Field(
        None,
        description="a folder; for tar, webdataset and parquet also a file, a pattern or a range like a-{00..46}.tar; "
        "or an address of these that fsspec opens (s3://, https://, hf://, …)",
    )
    val_path: Text | None = Field(
        None, description="the validation images, of the same kind, where they are not with the others"
    )
    val_labels: Text | None = Field(
        None,
        description="ILSVRC's ground truth for a flat val_path: the devkit's folder or archive, Kaggle's "
        "LOC_val_solution.csv, or a text file of WordNet ids",
    )
    subset: Subset | None = Field(None, description="take the classes of this subset of ImageNet-1K alone")
    val_fraction: float = Field(0.25, gt=0, lt=1, description="share held out per class, where the source has no val")
    tune_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of each class's training images that no stage trains on or distils: by these `ddoq tune` "
        "finds settings, and a run the row that is exported",
    )
    split_seed: int = Field(0, ge=0, lt=2**32)
    max_pixels: PositiveInt = Field(178_956_970, le=178_956_970, description="larger images are refused")
    max_refused: float = Field(0.01, ge=0, le=1, description="fail if a larger share of the images cannot be shown")

    @model_validator(mode="after")
    def _addresses_can_be_read(self) -> DataConfig:
        for name in ("path", "val_path", "val_labels"):
            if "://" not in (text := getattr(self, name) or ""):
                continue
            if name == "val_labels":
                raise ValueError(f"data.{name}={text} is an address: fetch it, and give a path")
            if self.source not in AT_ADDRESSES:
                kinds = f"set data.source to what its files are: {', '.join(AT_ADDRESSES)}"
                raise ValueError(f"data.{name}={text} is an address: fetch it, and give a path, or {kinds}")
            if self.source == "folder" and text.startswith(("http://", "https://")):
                raise ValueError(f"data.{name}={text}: web servers list no folders: put the images into tars there")
            if "::" in text:  # fsspec's caches give wrong bytes where threads read at once
                raise ValueError(f"data.{name}={text} is a chain of file systems: give the last address alone")
        return self

    @model_validator(mode="after")
    def _validation_is_complete(self) -> DataConfig:
        if self.val_labels and (self.val_path is None or self.source not in ("folder", "tar")):
            raise ValueError("data.val_labels goes with data.val_path, and with data.source folder or tar")
        if self.val_path and self.source in ("digits", *PUBLISHED):
            raise ValueError(f"data.source {self.source!r} has its own validation images: leave data.val_path out")
        return self


class ImageConfig(Settings):
    """How every image is brought to size, antialiased."""

    size_px: Side = Field(256, description="side of the images that are encoded")
    resize: Literal["crop", "squash"] = Field(
        "crop", description="the short side and the centre, or squash as D4M does"
    )
    train_px: Side | None = Field(None, description="side for teacher, students and evaluation; size_px if none")

    @property
    def filters(self) -> dict[str, str]:
        """What identifies D4M's filters, where they are used: once they were others."""
        squashed = {"squashed": "bilinear"} if self.resize == "squash" else {}
        return squashed if self.train_px in (None, self.size_px) else {**squashed, "resized": "bicubic"}

    @property
    def for_encoding(self) -> ImageConfig:
        """What the latents depend on."""
        return ImageConfig(size_px=self.size_px, resize=self.resize)

    @property
    def for_training(self) -> ImageConfig:
        """How teacher and students see real images, and the size of distilled ones."""
        return ImageConfig(size_px=self.train_px or self.size_px)


class AutoencoderTraining(Settings):
    """A small autoencoder of diffusers trained on the training images."""

    kind: Literal["kl", "components"] = Field(
        "kl",
        description="kl: an AutoencoderKL; components: starts as the principal components of patches, which an "
        "AutoencoderTiny adds to; its latents have no posterior",
    )
    channels: tuple[Annotated[Width, Field(multiple_of=8)], ...] | None = Field(
        (32, 32, 32),
        min_length=1,
        max_length=8,
        description="widths of its stages, of components all alike, each of half the side of the one before; null: "
        "of 32 each, as many as give latents of 8 to 15 a side, at most four",
    )
    latent_channels: Width | None = Field(
        4, description="null: two for each pixel of a patch's side, 8 of 4×4 px as at images of 32, 16 of 8×8 as at 64"
    )
    num_steps: Count | None = Field(600, description=BY_MINUTES)
    batch_size: Count = 32
    learning_rate: Rate = 2e-3
    kl_weight: Scale = 1e-6
    seed: Seed = 0

    @model_validator(mode="after")
    def _components_are_few_and_of_one_width(self) -> AutoencoderTraining:
        if self.kind == "components" and self.channels:
            if len(set(self.channels)) > 1:
                raise ValueError(f"the stages of components are of one width: channels={self.channels[:1] * 3}")
            if (self.latent_channels or 1) > (most := 3 * 4 ** (len(self.channels) - 1)):
                raise ValueError(f"{len(self.channels)} stages give {most} components: latent_channels={most}")
        return self

    def shape(self, size_px: int) -> dict[str, Any]:
        """Widths of the stages, and how many channels latents have, for images of a size."""
        stages = self.channels or (32,) * min(max(1, size_px.bit_length() - 3), 4)
        return {"channels": stages, "latent_channels": self.latent_channels or max(3, 2 ** len(stages))}


class _Autoencoder(Settings):
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of encoding; auto: the device's fastest whose latents are within 2 % of float32's"
    )


class GivenAutoencoder(_Autoencoder):
    """Weights to load: AutoencoderKL, AutoencoderTiny, AutoencoderDC, TAEF2."""

    weights: Text = Field(description="a diffusers folder or hub name, or a folder of TAEF2's two files")
    subfolder: Text | None = Field(None, description="'vae' for the autoencoder inside a pipeline folder")
    train: None = None


class TrainedAutoencoder(_Autoencoder):
    """How the recipe trains one of its own."""

    weights: None = None
    subfolder: None = None
    train: AutoencoderTraining


AutoencoderConfig = Annotated[
    Annotated[GivenAutoencoder, Tag(GIVEN)] | Annotated[TrainedAutoencoder, Tag(TRAINED)],
    Discriminator(
        lambda found: _either(found, "weights", "train"),
        custom_error_type="either",
        custom_error_message="an autoencoder has either `weights` (a diffusers folder or hub name) or `train`",
    ),
]


class EncodeConfig(Settings):
    """How files become pixels, and what is taken from the autoencoder's posterior."""

    posterior: Literal["mean", "sample"] = Field("mean", description="a seeded sample is what D4M encodes")
    jpeg: Literal["full", "reduced"] = Field("full", description="reduced: decoded no larger than images.size_px needs")
    seed: Seed = 0


class TeacherConfig(Settings):
    """The network whose soft labels the students learn from."""

    architecture: Architecture = "resnet18"
    others: tuple[Architecture, ...] = Field(
        (), max_length=15, description="more teachers beside it, of which the logits are averaged, as G-VBSM has it"
    )
    weights: Text | None = Field(
        None, description="'pretrained' (timm's), a checkpoint file, or nothing: train it here"
    )
    start: Text | None = Field(
        None,
        description="'pretrained' (timm's) or a checkpoint file, from whose layers, but the last, the training goes on",
    )
    num_epochs: Count | None = Field(16, description=BY_MINUTES)
    batch_size: Count = 64
    learning_rate: Rate = 4e-3
    weight_decay: Decay = 0.01
    augmentation: Augmentation = Augmentation()
    seed: Seed = 0
    min_gain: Scale = Field(
        3.0,
        description="refuse a teacher whose top-1 is less than this many times chance, or than (1 + chance) / 2, or "
        "whose classes seem to be in another order; 0 takes any",
    )

    @model_validator(mode="after")
    def _start_is_of_a_training(self) -> TeacherConfig:
        if self.start and self.weights:
            raise ValueError("a teacher whose weights are given is not trained: give teacher.start or teacher.weights")
        if self.others and self.start not in (None, "pretrained"):
            raise ValueError("a checkpoint starts one network: leave teacher.others out, or take start='pretrained'")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether it is one network, or all of an ensemble from one file."""
        return not self.others or self.weights not in (None, "pretrained")

    @property
    def members(self) -> tuple[TeacherConfig, ...]:
        """Those that are made alone, each from a seed of its own."""
        if self.is_whole:
            return (self,)
        return tuple(
            self.model_copy(update={"architecture": name, "others": (), "seed": self.seed + k})
            for k, name in enumerate(self.architectures)
        )

    @property
    def architectures(self) -> tuple[str, ...]:
        """Of all members."""
        return (self.architecture, *self.others)


class PriorTraining(Settings):
    """A small transformer, trained on the latents as a rectified flow (arXiv 2401.08740) that can be guided."""

    num_layers: PositiveInt = Field(6, le=1000)
    num_heads: PositiveInt = Field(4, le=1000)
    head_dim: PositiveInt = Field(64, le=1024)
    patch_size: Side = Field(1, description="side of a token in latents; 1 unless there are some hundred of them")
    num_steps: Count | None = Field(5000, description=BY_MINUTES)
    batch_size: Count = 128
    learning_rate: Rate = 1e-3
    label_dropout: float = Field(0.1, ge=0, lt=1)
    flip: bool = Field(False, description="train on the latents of mirrored images too, which are encoded for it")
    seed: Seed = 0


class GivenPrior(Settings):
    """A diffusion model to load, that decoding goes through."""

    kind: Literal["dit", "stable-diffusion", "image-to-image"]
    weights: Text = Field(description="a diffusers pipeline's folder or hub name")
    train: None = None


class TrainedPrior(Settings):
    """How the recipe trains a diffusion model of its own."""

    kind: Literal["trained"] = "trained"
    weights: None = None
    train: PriorTraining


PriorConfig = Annotated[
    Annotated[GivenPrior, Tag(GIVEN)] | Annotated[TrainedPrior, Tag(TRAINED)],
    Discriminator(
        lambda found: _either(found, "weights", "train", kind_of_second="trained"),
        custom_error_type="either",
        custom_error_message="a prior of kind 'trained' has `train` and no `weights`; one of kind 'dit' or "
        "'stable-diffusion' has `weights` (a diffusers folder or hub name) and no `train`",
    ),
]


class ClusterConfig(Settings):
    """How the K prototypes of a class are found."""

    method: Quantizer | Literal["random"] = Field(
        "exact", description="divisive: bisecting k-means, as ManifoldGD; centre-margin: real images, as BPS chooses"
    )
    num_starts: PositiveInt = Field(10, le=10_000)

    @property
    def has_starts(self) -> bool:
        """Whether the method tries several starts."""
        return self.method == "exact" or self.is_whole

    @property
    def is_whole(self) -> bool:
        """Whether the method looks at all points of a class at once."""
        return self.method in ("balanced", "divisive", "centre-margin")


PROMPTED = ("stable-diffusion", "image-to-image")  # kinds of priors that know classes by prompts
GIVEN_ALONE = ("path", "class_order", "value_range", "mean", "std", "labels")


class DecodeConfig(Settings):
    """How a prototype becomes a picture."""

    method: Literal["diffusion", "autoencoder", "medoid", "member", "random", "given"] = Field(
        "diffusion",
        description="medoid: the real image nearest to the centroid; member: a real image of its cell, drawn at random "
        "from it; random: real images at random, without a prototype; given: somebody's set at `path`",
    )
    path: Text | None = Field(
        None, description="given: class folders, .pt or .npz, images.pt and labels.pt, Hugging Face's, or tars"
    )
    class_order: Text | None = Field(
        None, description="given, of bare numbers: 'sorted', or their names between commas or in a file"
    )
    value_range: tuple[float, float] | None = Field(None, description="given, of floats: what black and white are")
    mean: Channels | None = Field(
        None, description="given, of normalised floats: by which, one number or one a channel"
    )
    std: Channels | None = None
    labels: Literal["teacher", "own"] = Field(
        "teacher", description="given: soft labels of the recipe's teacher as for all others, or the set's own"
    )
    strength: Strength | None = Field(
        None,
        description="share of the noise schedule that the centroid is noised to, t of a trained prior; if none, to the "
        "signal-to-noise ratio of 0.7 on Stable Diffusion's schedule, as D4M",
    )
    guidance_scale: Scale = 8.0
    guided_channels: PositiveInt | None = Field(
        None, description="guide the first of the latents' channels alone, as DiT's own script and Minimax do 3 of 4"
    )
    num_steps: Steps = 50
    sampler: Literal["given", "ddim", "ddpm"] = Field("given", description="the prior's own, or another")
    inversion: bool = Field(False, description="the centroid's own noise by DDIM inversion; needs ddim")
    centroid_guidance: Scale = Field(0.0, description="pull towards the centroid, as MGD3; needs ddim or ddpm")
    centroid_guidance_to: Literal["own", "transport"] = Field(
        "own",
        description="transport: to where optimal transport sends it, among its class's centroids with their "
        "masses, as DMGD",
    )
    centroid_guidance_steps: tuple[Share, Share] = Field(
        (0.0, 0.5), description="shares of the steps, from and until: MGD3 stops after 25 of 50; DMGD's are 0.6, 0.9"
    )
    start: Literal["centroid", "member"] = Field(
        "centroid", description="what the prior starts from: the centroid, or each time another image of its cell"
    )
    noise: Noise = Field(
        "plain", description="matched: a centroid first gets the variance that quantising its cell or class left out"
    )
    num_draws: Steps = Field(1, description="pictures per centroid, each with the centroid's weight")
    num_candidates: Steps = Field(
        1, description="drawn for each picture or member, of which the teacher chooses one unlike those chosen already"
    )
    mosaic: int = Field(
        1, ge=1, le=4, description="tiles along a side of a picture, each of a prototype of its own; 1: no mosaic"
    )
    prompt: Annotated[str, AfterValidator(_check_prompt)] = Field(
        "{name}",
        description="of priors that know text: the class prompt; {name} is its name, of ImageNet its class line",
    )
    negative_prompt: str = "cartoon, anime, painting"

    @model_validator(mode="after")
    def _sampler_serves(self) -> DecodeConfig:
        if self.inversion and self.sampler != "ddim":
            raise ValueError(f"inversion needs sampler 'ddim', not {self.sampler!r}: set decode.sampler=ddim")
        if self.start == "member" and self.noise != "plain":
            raise ValueError(f"noise={self.noise!r} is what a centroid lacks: leave it out where start is 'member'")
        if self.centroid_guidance and self.sampler == "given":
            raise ValueError("centroid_guidance needs the sampler 'ddim' or 'ddpm': set decode.sampler=ddim")
        return self

    @model_validator(mode="after")
    def _given_is_told(self) -> DecodeConfig:
        told = [name for name in GIVEN_ALONE if getattr(self, name) != DecodeConfig.model_fields[name].default]
        if self.method == "given" and self.path is None:
            raise ValueError("a given set has a place: set decode.path")
        if self.method == "given" and self.mosaic > 1:
            raise ValueError("mosaics are made of our own pictures: leave decode.mosaic out of a given set")
        if self.method != "given" and told:
            raise ValueError(f"{told[0]} is of a given set: set decode.method=given, or leave it out")
        if (self.mean is None) != (self.std is None) or (self.mean and self.value_range):
            raise ValueError("mean and std go together, and not with value_range")
        if self.value_range and not self.value_range[0] < self.value_range[1]:
            raise ValueError("value_range is [lowest, highest], e.g. [0, 1]")
        return self

    @property
    def quantises(self) -> bool:
        """Whether the pictures are of prototypes."""
        return self.method not in ("random", "given")

    @property
    def selects(self) -> bool:
        """Whether the teacher chooses among what is drawn."""
        return self.method in ("diffusion", "member") and self.num_candidates > 1

    @property
    def sampling(self) -> dict[str, Any]:
        """What the prior's sampling takes."""
        names = {"strength", "guidance_scale", "guided_channels", "num_steps", "inversion"}
        return self.model_dump(include={*names, "centroid_guidance", "centroid_guidance_steps"})
