"""Settings: one frozen model per stage, and the recipe that holds them. Knows no stage's code and loads no torch.

Everything in a stage's model changes its result and so goes into its digest; batch sizes that only change the
speed, devices and workers are not here. A recipe is one entry of prefect.yaml and the parameter of every flow.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from ddoq_core.train.protocol import Augmentation, Labels, Optimizer, Schedule, WeightsIn
from tasks.recipe.values import (
    Architecture,
    Count,
    Decay,
    Rate,
    Scale,
    Seed,
    Side,
    Text,
    Width,
    check_method_name,
    check_prompt,
    each_once,
)

STAGES = (
    "shard", "autoencoder", "encode", "teacher", "prior", "cluster", "decode", "measure", "label", "train", "evaluate",
    "sample", "report",
)  # fmt: skip
COMPARE = "compare"  # the stage of `ddoq compare`, in the place of report
Subset = Literal[
    "imagenette", "imagewoof", "imagenet100", "imageidc", "imagemeow", "imagesquawk", "imagefruit", "imageyellow"
]
ProtocolName = Literal["fkd", "rded", "hard", "quick"]
Weighting = Literal["uniform", "sqrt", "mass", "sqrt-paper"] | Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are refused, of the core's dataclasses among them too."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Settings):
    """Where the real images come from (stage shard)."""

    source: Literal["digits", "folder", "tar", "webdataset", "parquet", "cifar10", "imagenette"] = "folder"
    path: Text | None = Field(
        None,
        description="a folder; for tar, webdataset and parquet also a file, a pattern or a range like a-{00..46}.tar",
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
    split_seed: int = Field(0, ge=0, lt=2**32)
    max_pixels: PositiveInt = Field(178_956_970, le=178_956_970, description="larger images are refused")
    max_refused: float = Field(0.01, ge=0, le=1, description="fail if a larger share of the images cannot be shown")

    @model_validator(mode="after")
    def _validation_is_complete(self) -> DataConfig:
        if self.val_labels and (self.val_path is None or self.source not in ("folder", "tar")):
            raise ValueError("data.val_labels goes with data.val_path, and with data.source folder or tar")
        if self.val_path and self.source in ("digits", "cifar10", "imagenette"):
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
    def for_encoding(self) -> ImageConfig:
        """What the latents depend on."""
        return ImageConfig(size_px=self.size_px, resize=self.resize)

    @property
    def for_training(self) -> ImageConfig:
        """How teacher and students see real images, and the size of distilled ones."""
        return ImageConfig(size_px=self.train_px or self.size_px)


class AutoencoderTraining(Settings):
    """A small diffusers AutoencoderKL trained on the training images."""

    channels: tuple[Annotated[Width, Field(multiple_of=8)], ...] = Field((32, 32, 32), min_length=1, max_length=8)
    latent_channels: Width = 4
    num_steps: Count = 600
    batch_size: Count = 32
    learning_rate: Rate = 2e-3
    kl_weight: Scale = 1e-6
    seed: Seed = 0


class AutoencoderConfig(Settings):
    """Weights to load (AutoencoderKL, AutoencoderTiny, TAEF2), or how to train one."""

    weights: Text | None = Field(None, description="a diffusers folder or hub name, or a folder of TAEF2's two files")
    subfolder: Text | None = Field(None, description="'vae' for the autoencoder inside a pipeline folder")
    train: AutoencoderTraining | None = None
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of encoding; auto: the device's fastest whose latents are within 2 % of float32's"
    )

    @model_validator(mode="after")
    def _one_of(self) -> AutoencoderConfig:
        if (self.weights is None) == (self.train is None):
            raise ValueError("an autoencoder has either `weights` (a diffusers folder or hub name) or `train`")
        return self


class EncodeConfig(Settings):
    """What is taken from the autoencoder's posterior."""

    posterior: Literal["mean", "sample"] = Field("mean", description="a seeded sample is what D4M encodes")
    seed: Seed = 0


class TeacherConfig(Settings):
    """The network whose soft labels the students learn from."""

    architecture: Architecture = "resnet18"
    weights: Text | None = Field(
        None, description="'pretrained' (timm's), a checkpoint file, or nothing: train it here"
    )
    num_epochs: Count = 16
    batch_size: Count = 64
    learning_rate: Rate = 4e-3
    weight_decay: Decay = 0.01
    augmentation: Augmentation = Augmentation()
    seed: Seed = 0
    min_gain: Scale = Field(
        3.0, description="refuse a teacher whose top-1 is less than this many times chance, or than (1 + chance) / 2"
    )


class PriorTraining(Settings):
    """A small latent DiT trained on the latents (arXiv 2212.09748), with classifier-free guidance."""

    num_layers: PositiveInt = Field(4, le=1000)
    num_heads: PositiveInt = Field(4, le=1000)
    head_dim: PositiveInt = Field(32, le=1024)
    patch_size: Side = 2
    num_steps: Count = 1500
    batch_size: Count = 64
    learning_rate: Rate = 2e-3
    label_dropout: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["scaled_linear", "cosine"] = "scaled_linear"
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    min_snr_gamma: Rate | None = Field(None, description="min-SNR weighting (arXiv 2303.09556), usually 5")
    seed: Seed = 0


class PriorConfig(Settings):
    """The diffusion model that decoding goes through: weights to load, or how to train one."""

    kind: Literal["trained", "dit", "stable-diffusion"] = "trained"
    weights: Text | None = Field(
        None, description="diffusers pipeline folder or hub name, for dit and stable-diffusion"
    )
    train: PriorTraining | None = None

    @model_validator(mode="after")
    def _one_of(self) -> PriorConfig:
        if self.kind == "trained" and (self.train is None or self.weights):
            raise ValueError("a prior of kind 'trained' has `train` and no `weights`")
        if self.kind != "trained" and (self.weights is None or self.train):
            raise ValueError(
                f"a prior of kind {self.kind!r} has `weights` (a diffusers folder or hub name), no `train`"
            )
        return self


class ClusterConfig(Settings):
    """How the K prototypes of a class are found."""

    method: Literal["exact", "stream", "stream-d4m", "clvq", "balanced", "random"] = "exact"
    num_starts: PositiveInt = Field(10, le=10_000)

    @property
    def has_starts(self) -> bool:
        """Whether the method tries several starts."""
        return self.method in ("exact", "balanced")


class DecodeConfig(Settings):
    """How a prototype becomes a picture."""

    method: Literal["diffusion", "autoencoder", "medoid"] = "diffusion"
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the noise schedule that the centroid is noised to; if none, to the signal-to-noise ratio "
        "of 0.7 on Stable Diffusion's schedule, as D4M",
    )
    guidance_scale: Scale = 8.0
    num_steps: PositiveInt = Field(50, le=1000)
    sampler: Literal["given", "ddim", "ddpm"] = Field("given", description="the prior's own, or another")
    inversion: bool = Field(False, description="the centroid's own noise by DDIM inversion, as D3HR; needs ddim")
    centroid_guidance: Scale = Field(0.0, description="pull towards the centroid, as MGD3; needs ddim or ddpm")
    num_draws: PositiveInt = Field(1, le=1000, description="pictures per centroid, each with the centroid's weight")
    prompt: Annotated[str, AfterValidator(check_prompt)] = Field(
        "{name}", description="stable-diffusion: the class prompt; {name} is its name, of ImageNet its class line"
    )
    negative_prompt: str = "cartoon, anime, painting"

    @model_validator(mode="after")
    def _sampler_serves(self) -> DecodeConfig:
        if self.inversion and self.sampler != "ddim":
            raise ValueError(f"inversion needs sampler 'ddim', not {self.sampler!r}: set decode.sampler=ddim")
        if self.centroid_guidance and self.sampler == "given":
            raise ValueError("centroid_guidance needs the sampler 'ddim' or 'ddpm': set decode.sampler=ddim")
        return self

    @property
    def sampling(self) -> dict[str, Any]:
        """What the prior's sampling takes."""
        names = {"strength", "guidance_scale", "num_steps", "inversion", "centroid_guidance"}
        return self.model_dump(include=names)


class TrainConfig(Settings):
    """The one protocol under which every method's students are trained, and what the recipe changes in it."""

    architectures: Annotated[tuple[Architecture, ...], AfterValidator(each_once)] = Field(("resnet18",), min_length=1)
    protocol: ProtocolName = Field("fkd", description="a preset of tasks/protocols.py; what is set below comes first")
    labels: Labels | None = Field(
        None, description="the teacher's in the training step, the teacher's from the stage label, or the classes"
    )
    label_top_k: Count | None = Field(None, description="of stored labels, keep this many logits per picture")
    weights_in: WeightsIn | None = Field(
        None, description="weights multiply the loss, or are the probabilities by which an epoch's pictures are drawn"
    )
    num_epochs: Count | None = None
    batch_size: Count | None = None
    optimizer: Optimizer | None = None
    learning_rate: Rate | None = None
    momentum: float | None = Field(None, ge=0, lt=1)
    weight_decay: Decay | None = None
    schedule: Schedule | None = None
    temperature: float | None = Field(None, ge=1e-3, le=1e6)
    augmentation: Augmentation | None = Field(None, description="instead of the protocol's, as a whole")


class MethodConfig(Settings):
    """A row of the results: what it changes in the recipe's own cluster, decode and weights."""

    cluster: dict[str, Any] = {}
    decode: dict[str, Any] = {}
    weights: Weighting | None = None
    weights_in: WeightsIn | None = Field(None, description="instead of the protocol's, to compare what weights do")


class Method(NamedTuple):
    """The complete settings of one method."""

    cluster: ClusterConfig
    decode: DecodeConfig
    weights: Weighting
    weights_in: WeightsIn | None


class Recipe(Settings):
    """A whole distillation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    claim: str = ""
    ipc: Count = Field(10, description="images per class")
    seeds: Annotated[tuple[Seed, ...], AfterValidator(each_once)] = Field((0, 1, 2), min_length=1)
    redistil: bool = Field(False, description="each seed draws prototypes and pictures anew, not only students")
    data: DataConfig
    images: ImageConfig = ImageConfig()
    autoencoder: AutoencoderConfig
    encode: EncodeConfig = EncodeConfig()
    teacher: TeacherConfig = TeacherConfig()
    prior: PriorConfig
    cluster: ClusterConfig = ClusterConfig()
    decode: DecodeConfig = DecodeConfig()
    weights: Weighting = "sqrt"
    train: TrainConfig = TrainConfig()
    methods: dict[str, MethodConfig] = {"ddoq": MethodConfig()}

    @field_validator("name")
    @classmethod
    def _not_a_stage(cls, name: str) -> str:
        if name in (*STAGES, COMPARE):
            raise ValueError(f"a recipe cannot be called {name!r}, which is a stage")
        return name

    @field_validator("methods")
    @classmethod
    def _methods_have_names(cls, methods: dict[str, MethodConfig]) -> dict[str, MethodConfig]:
        if not methods:
            raise ValueError('name at least one method, e.g. methods={"ddoq": {}}')
        for name in methods:
            check_method_name(name)
        return methods

    @model_validator(mode="after")
    def _methods_are_valid(self) -> Recipe:
        for method in self.methods:
            self.settings_of(method)
        return self

    def settings_of(self, method: str) -> Method:
        """The complete settings of one method."""
        change = self.methods[method]
        cluster = ClusterConfig.model_validate({**self.cluster.model_dump(), **change.cluster})
        decode = DecodeConfig.model_validate({**self.decode.model_dump(), **change.decode})
        weights = self.weights if change.weights is None else change.weights
        return Method(cluster, decode, weights, change.weights_in)

    def identity(self) -> dict[str, Any]:
        """All that changes a result: not the prose."""
        return self.model_dump(mode="json", exclude={"claim"})

    def draw_of(self, seed: int) -> int:
        """The seed that draws the prototypes and pictures of a student's seed."""
        return seed if self.redistil else self.seeds[0]

    @property
    def through_prior(self) -> list[str]:
        """The methods that decode through the prior."""
        return [method for method in self.methods if self.settings_of(method).decode.method == "diffusion"]

    def num_pictures(self, method: str) -> int:
        """Distilled pictures of a class: one for each centroid, or as many as are drawn from it."""
        decode = self.settings_of(method).decode
        return self.ipc * (decode.num_draws if decode.method == "diffusion" else 1)

    def with_changes(self, changes: dict[str, Any]) -> Recipe:
        """A copy with dotted settings replaced, e.g. {"decode.strength": 0.4}; raises KeyError for unknown names."""
        tree = self.model_dump()
        for dotted, value in changes.items():
            _replace(tree, dotted, value)
        return Recipe.model_validate(tree)


def _replace(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    place: Any = tree
    for name in path:
        place = place.get(name) if isinstance(place, dict) else None
    if not isinstance(place, dict) or (last not in place and path != ["methods"]):
        known = ", ".join(sorted(place)) if isinstance(place, dict) else "none, set what is above it as a whole"
        raise KeyError(f"there is no setting {dotted!r}; here there are: {known}")
    place[last] = value
