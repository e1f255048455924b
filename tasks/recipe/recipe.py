"""The recipe: an entry of prefect.yaml, the parameter of every flow, with the settings of all stages and methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, field_validator, model_validator

from ddoq_core.train.protocol import Augmentation, Labels, Optimizer, Schedule, WeightsIn
from tasks.recipe.settings import (
    COMPARE,
    STAGES,
    Architecture,
    AutoencoderConfig,
    ClusterConfig,
    Count,
    DataConfig,
    Decay,
    DecodeConfig,
    EncodeConfig,
    ImageConfig,
    Minutes,
    PriorConfig,
    ProtocolName,
    Rate,
    Seed,
    Settings,
    Share,
    TeacherConfig,
    Weighting,
    each_once,
)

METHOD_NAME = 60  # characters
REAL = ("medoid", "member", "random")  # decode methods whose pictures are real images
WEIGHTS_OF: dict[str, tuple[Weighting, ...]] = {"random": ("uniform",), "given": ("given", "uniform")}  # no masses


class TrainConfig(Settings):
    """The one protocol under which every method's students are trained, and what the recipe changes in it."""

    architectures: Annotated[tuple[Architecture, ...], AfterValidator(each_once)] = Field(("resnet18",), min_length=1)
    protocol: ProtocolName = Field("fkd", description="a preset of tasks/recipe/protocols.py; what is set goes first")
    labels: Labels | None = Field(
        None, description="the teacher's, online or stored by the stage label, or the classes"
    )
    label_top_k: Count | None = Field(None, description="of stored labels, keep this many logits per picture")
    hard_phase: tuple[Share, Share] | None = Field(
        None,
        description="shares of the epochs, [from, until], in which the classes are the labels: HALD's are 1/6, 5/6",
    )
    label_smoothing: Share | None = Field(None, description="of class labels; HALD's script has 0.8")
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
    batch_norm_momentum: float | None = Field(None, gt=0, le=1)
    center_crop: float | None = Field(
        None,
        gt=0,
        le=1,
        description="held-out images are shown as Resize(size / this), CenterCrop(size); 0.875: 256, 224",
    )
    augmentation: Augmentation | None = Field(None, description="instead of the protocol's, as a whole")


class MethodConfig(Settings):
    """A row of the results: what it changes in the recipe's own cluster, decode and weights."""

    cluster: dict[str, Any] = Field({})
    decode: dict[str, Any] = Field({})
    weights: Weighting | None = None
    weights_in: WeightsIn | None = Field(None, description="instead of the protocol's, to compare what weights do")
    hard_phase: tuple[Share, Share] | None = Field(None, description="instead of the protocol's, to compare labels")
    label_smoothing: Share | None = None


class Method(NamedTuple):
    """The complete settings of one method."""

    cluster: ClusterConfig
    decode: DecodeConfig
    weights: Weighting
    in_protocol: dict[str, Any]

    @property
    def is_random(self) -> bool:
        """Whether it is real images at random, which weigh the same."""
        drawn = self.decode.method == "random" or (self.cluster.method, self.decode.method) == ("random", "medoid")
        return drawn and self.weights == "uniform"


class Recipe(Settings):
    """A whole distillation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    claim: str = ""
    ipc: Count = Field(10, description="images per class")
    seeds: Annotated[tuple[Seed, ...], AfterValidator(each_once)] = Field((0, 1, 2), min_length=1)
    minutes: Minutes | None = Field(
        None,
        description="about how long a run may take on all cores: trainings whose steps are left open get as many as "
        "fit, and students no more epochs than fit",
    )
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
    methods: dict[str, MethodConfig] = Field({"ddoq": MethodConfig()})

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
        size_px = self.images.for_training.size_px
        for method in self.methods:
            own = self.settings_of(method)
            mosaic = own.decode.mosaic
            _check_sampling(self.prior.kind, own.decode, method)
            if own.weights not in (fitting := WEIGHTS_OF.get(own.decode.method, (own.weights,))):
                raise ValueError(
                    f"weights={own.weights!r} of the method {method!r}: take {' or '.join(map(str, fitting))}"
                )
            if own.weights == "given" and own.decode.quantises:
                raise ValueError(f"weights='given' of the method {method!r} are of given sets: take sqrt or another")
            if size_px % mosaic:
                raise ValueError(
                    f"decode.mosaic={mosaic} of the method {method!r} does not divide pictures of {size_px} px: take "
                    f"another, or set images.size_px or images.train_px to a multiple of {mosaic}"
                )
        return self

    @model_validator(mode="after")
    def _minutes_are_told(self) -> Recipe:
        if self.minutes is None and self.left_open:
            raise ValueError(f"{self.left_open[0]} is left open: set it, or minutes=30 for the whole run")
        return self

    @property
    def left_open(self) -> list[str]:
        """The numbers of steps and epochs that the minutes decide."""
        return [name for name, number in self.lengths.items() if number is None]

    def within(self, minutes: float) -> Recipe:
        """The recipe with the lengths of its trainings left to these minutes."""
        return self.with_changes({"minutes": minutes, **dict.fromkeys(self.lengths)})

    @property
    def lengths(self) -> dict[str, int | None]:
        """How long each model is trained that is not given, by the setting that says so."""
        found: dict[str, int | None] = {}
        if self.autoencoder.train:
            found["autoencoder.train.num_steps"] = self.autoencoder.train.num_steps
        if self.prior.train:
            found["prior.train.num_steps"] = self.prior.train.num_steps
        if self.teacher.weights is None:
            found["teacher.num_epochs"] = self.teacher.num_epochs
        return found

    def settings_of(self, method: str) -> Method:
        """The complete settings of one method."""
        change = self.methods[method]
        cluster = ClusterConfig.model_validate({**self.cluster.model_dump(), **change.cluster})
        quantises = DecodeConfig.model_construct(method=change.decode.get("method", self.decode.method)).quantises
        inherited = self.decode.model_dump() if quantises else {}  # a recipe's decoding is of prototypes
        decode = DecodeConfig.model_validate({**inherited, **change.decode})
        usual = WEIGHTS_OF.get(decode.method, (self.weights,))[0]
        weights = usual if change.weights is None else change.weights
        names = {"weights_in", "hard_phase", "label_smoothing"}
        return Method(cluster, decode, weights, change.model_dump(include=names, exclude_none=True))

    def effective(self, method: str, counts: Iterable[int]) -> Method:
        """The settings of a method, less what makes no difference for classes of these sizes: where K divides each, D4M
        drops no images, and balanced cells weigh the same. So what is equal is made once."""
        own, num_points = self.settings_of(method), self.num_points(method)
        if not own.decode.quantises:
            return own
        if any(count % num_points for count in counts):
            return own
        if own.cluster.method == "stream-d4m":
            return own._replace(cluster=own.cluster.model_copy(update={"method": "stream"}))
        return own._replace(weights="uniform") if own.cluster.method == "balanced" else own

    def identity(self) -> dict[str, Any]:
        """All that changes a result: not the prose."""
        return self.model_dump(mode="json", exclude={"claim"})

    @property
    def questions(self) -> list[tuple[str, str]]:
        """Pairs of methods that a report compares: each with real images at random, what is decoded with medoids or
        members, whichever comes first, the first with D4M; what they are is in their settings."""
        methods = {name: self.settings_of(name) for name in self.methods}
        real = [name for name, own in methods.items() if own.decode.method in REAL and own.decode.mosaic == 1]
        random = [name for name in real if methods[name].is_random]
        of_cells = [name for name in real if name not in random]
        decoded = [name for name, own in methods.items() if own.decode.method not in REAL]
        first, *others = methods
        d4m = [name for name in others if methods[name].cluster.method == "stream-d4m"]
        against_random = [(name, random[0]) for name in methods if random and name != random[0]]
        against_real = [(name, of_cells[0]) for name in decoded if of_cells]
        return against_random + against_real + [(first, name) for name in d4m[:1]]

    def draw_of(self, seed: int) -> int:
        """The seed that draws the prototypes and pictures of a student's seed."""
        return seed if self.redistil else self.seeds[0]

    @property
    def through_prior(self) -> list[str]:
        """The methods that decode through the prior."""
        return [method for method in self.methods if self.settings_of(method).decode.method == "diffusion"]

    @property
    def quantises(self) -> bool:
        """Whether any method has prototypes, and so needs latents."""
        return any(self.settings_of(method).decode.quantises for method in self.methods)

    @property
    def given(self) -> dict[str, DecodeConfig]:
        """How the sets are read that methods name, by method."""
        decodes = {method: self.settings_of(method).decode for method in self.methods}
        return {method: decode for method, decode in decodes.items() if decode.method == "given"}

    @property
    def places(self) -> dict[str, str]:
        """Paths of images and weights that workers read, or names of weights on a hub, by the settings that say so."""
        found = {
            "data.path": self.data.path,
            "data.val_path": self.data.val_path,
            "autoencoder.weights": self.autoencoder.weights if self.quantises else None,
            "prior.weights": self.prior.weights if self.through_prior else None,
            "teacher.weights": self.teacher.weights,
            **{f"methods.{method}.decode.path": decode.path for method, decode in self.given.items()},
        }
        return {setting: path for setting, path in found.items() if path is not None}

    @property
    def selects(self) -> bool:
        """Whether the teacher chooses the pictures of any method."""
        return any(self.settings_of(method).decode.selects for method in self.methods)

    def num_points(self, method: str) -> int:
        """Prototypes K of a class: one for each image per class, of mosaics one for each of their tiles."""
        return self.ipc * self.settings_of(method).decode.mosaic ** 2

    def num_pictures(self, method: str) -> int:
        """Distilled pictures of a class that students see, of mosaics the tiles: one for each prototype, or as many as
        are drawn from it."""
        decode = self.settings_of(method).decode
        return self.num_points(method) * (decode.num_draws if decode.method == "diffusion" else 1)

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


def _check_sampling(kind: str, decode: DecodeConfig, method: str) -> None:
    """Raise ValueError for options that diffusers' own pipelines do not take."""
    if kind != "image-to-image" or decode.method != "diffusion":
        return
    named = {"sampler": "given", "inversion": False, "centroid_guidance": 0.0, "guided_channels": None}
    other = next((name for name, usual in named.items() if getattr(decode, name) != usual), None)
    if other or decode.strength is None:
        what = f"decode.{other} is the pipeline's own" if other else "set decode.strength"
        raise ValueError(f"prior.kind=image-to-image, method {method!r}: {what}")


def check_method_name(name: str) -> None:
    """Raise ValueError for a name that could not be part of a file's, on any system."""
    plain = name.translate(dict.fromkeys(map(ord, "-_.+"), "0")).isalnum() and name.isascii()
    if not plain or not name[0].isalnum() or ".." in name or len(name) > METHOD_NAME:
        raise ValueError(
            f"a method cannot be called {name[: 2 * METHOD_NAME]!r}: name it by at most {METHOD_NAME} letters, "
            "digits, - _ . and +, of which the first is a letter or a digit and no two are dots in a row"
        )
