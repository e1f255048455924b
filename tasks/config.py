"""Settings: one frozen model per stage, and the recipe that holds them. Knows no stage's code and loads no torch.

Everything in a stage's model changes its result and so goes into its digest; batch sizes that only change the
speed, devices and workers are not here. A recipe is one entry of prefect.yaml and the parameter of every flow.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

STAGES = (
    "shard", "autoencoder", "encode", "teacher", "prior", "cluster", "decode", "train", "evaluate", "report",
)  # fmt: skip
Weighting = Literal["uniform", "sqrt", "mass", "sqrt-paper"] | Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Settings):
    """Where the real images come from (stage shard)."""

    source: Literal["digits", "folder"] = "folder"
    path: str | None = Field(None, description="folder of the source: train/<class>/*.jpg (and val/), or <class>/*.jpg")
    val_fraction: float = Field(0.25, gt=0, lt=1, description="share held out per class, where the source has no val")
    split_seed: int = 0


class ImageConfig(Settings):
    """How every image is brought to size, for encoding as for training."""

    size_px: PositiveInt = 256
    resize: Literal["crop", "squash"] = "crop"


class AutoencoderTraining(Settings):
    """A small diffusers AutoencoderKL trained on the training images."""

    channels: tuple[PositiveInt, ...] = (32, 32, 32)
    latent_channels: PositiveInt = 4
    num_steps: PositiveInt = 600
    batch_size: PositiveInt = 32
    learning_rate: float = 2e-3
    kl_weight: float = 1e-6
    seed: int = 0


class AutoencoderConfig(Settings):
    """Weights to load (a diffusers folder or hub name), or how to train one."""

    weights: str | None = None
    subfolder: str | None = Field(None, description="'vae' for the autoencoder inside a pipeline folder")
    train: AutoencoderTraining | None = None

    @model_validator(mode="after")
    def _one_of(self) -> AutoencoderConfig:
        if (self.weights is None) == (self.train is None):
            raise ValueError("an autoencoder has either `weights` (a diffusers folder or hub name) or `train`")
        return self


class Augmentation(Settings):
    """What a training picture goes through, the same for every method."""

    shift_px: int = Field(0, ge=0, description="random shift in both directions by at most this, edges repeated")
    resized_crop: tuple[float, float] | None = Field(None, description="random crop of this share of the area, resized")
    flip: bool = Field(False, description="mirror half of the pictures")
    cutmix: bool = Field(False, description="one CutMix box and permutation per batch")


class TeacherConfig(Settings):
    """The network whose soft labels the students learn from."""

    architecture: str = "resnet18"
    weights: str | None = Field(None, description="'pretrained' (timm's), a checkpoint file, or nothing: train it here")
    num_epochs: PositiveInt = 16
    batch_size: PositiveInt = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    min_gain: float = Field(3.0, description="refuse a teacher whose top-1 is less than this many times chance")


class PriorTraining(Settings):
    """A small latent DiT trained on the latents (arXiv 2212.09748), with classifier-free guidance."""

    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    head_dim: PositiveInt = 32
    patch_size: PositiveInt = 2
    num_steps: PositiveInt = 1500
    batch_size: PositiveInt = 64
    learning_rate: float = 2e-3
    label_dropout: float = Field(0.1, ge=0, lt=1)
    seed: int = 0


class PriorConfig(Settings):
    """The diffusion model that decoding goes through: weights to load, or how to train one."""

    kind: Literal["trained", "dit", "stable-diffusion"] = "trained"
    weights: str | None = Field(None, description="diffusers pipeline folder or hub name, for dit and stable-diffusion")
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
    num_starts: PositiveInt = 10


class DecodeConfig(Settings):
    """How a prototype becomes a picture."""

    method: Literal["diffusion", "autoencoder", "medoid"] = "diffusion"
    strength: float = Field(0.7, gt=0, le=1, description="share of the noise schedule that the centroid is noised to")
    guidance_scale: float = Field(8.0, ge=0)
    num_steps: PositiveInt = 50
    prompt: str = Field(
        "{name}", description="stable-diffusion: the class prompt; {name} is its name, of ImageNet its class line"
    )
    negative_prompt: str = "cartoon, anime, painting"


class TrainConfig(Settings):
    """The one protocol under which every method's students are trained (arXiv 2306.13092, 2407.15138)."""

    architectures: tuple[str, ...] = ("resnet18",)
    num_epochs: PositiveInt = 300
    batch_size: PositiveInt = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    temperature: float = Field(20.0, gt=0)
    augmentation: Augmentation = Augmentation()


class MethodConfig(Settings):
    """A row of the results: what it changes in the recipe's own cluster, decode and weights."""

    cluster: dict[str, Any] = {}
    decode: dict[str, Any] = {}
    weights: Weighting | None = None


class Recipe(Settings):
    """A whole distillation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    claim: str = ""
    ipc: PositiveInt = Field(10, description="images per class")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    redistil: bool = Field(False, description="each seed draws prototypes and pictures anew, not only students")
    data: DataConfig
    images: ImageConfig = ImageConfig()
    autoencoder: AutoencoderConfig
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
        if name in STAGES:
            raise ValueError(f"a recipe cannot be called {name!r}, which is a stage")
        return name

    @model_validator(mode="after")
    def _methods_are_valid(self) -> Recipe:
        for method in self.methods:
            self.settings_of(method)
        return self

    def settings_of(self, method: str) -> tuple[ClusterConfig, DecodeConfig, Weighting]:
        """The complete settings of one method."""
        change = self.methods[method]
        cluster = ClusterConfig.model_validate({**self.cluster.model_dump(), **change.cluster})
        decode = DecodeConfig.model_validate({**self.decode.model_dump(), **change.decode})
        return cluster, decode, self.weights if change.weights is None else change.weights

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
        known = ", ".join(sorted(place)) if isinstance(place, dict) else "no settings below it"
        raise KeyError(f"there is no setting {dotted!r}; here there are: {known}")
    place[last] = value
