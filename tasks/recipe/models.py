"""Settings of the models that a recipe trains or is given: autoencoder, teacher, prior."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from ddoq_core.train.protocol import Augmentation
from tasks.recipe.settings import Architecture, Count, Decay, Rate, Scale, Seed, Settings, Side, Text, Width

GIVEN, TRAINED = "[given]", "[trained]"  # in brackets, as flows.catalogue leaves out of messages
BY_MINUTES = "if none, as many as fit into the recipe's `minutes`"


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
    latent_channels: Width = 4
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
            if self.latent_channels > (most := 3 * 4 ** (len(self.channels) - 1)):
                raise ValueError(f"{len(self.channels)} stages give {most} components: latent_channels={most}")
        return self

    def stages(self, size_px: int) -> tuple[int, ...]:
        """Widths of the stages for images of a size."""
        return self.channels or (32,) * min(max(1, size_px.bit_length() - 3), 4)


class _Autoencoder(Settings):
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of encoding; auto: the device's fastest whose latents are within 2 % of float32's"
    )


class GivenAutoencoder(_Autoencoder):
    """Weights to load: AutoencoderKL, AutoencoderTiny, TAEF2."""

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


class TeacherConfig(Settings):
    """The network whose soft labels the students learn from."""

    architecture: Architecture = "resnet18"
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
        return self


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

    kind: Literal["dit", "stable-diffusion"]
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
