"""The names of architectures, judged without torch and timm, whose imports take seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ddoq_core.errors import InvalidInput

CONVNET = re.compile(r"convnet-(?P<depth>[1-9]\d?)-(?P<width>[1-9]\d{0,3})")
RESNETAP = "resnetap-10"
RESNET = re.compile(r"resnet-(?P<depth>8|14|20|26|32|44|56|110)-(?P<width>[1-9]\d{0,3})")
TORCHVISIONS = re.compile(r"resnet(18|34|50|101|152)([.+].*)?")  # ResNets that torchvision has too
TOGETHER = "&"  # between the names of networks in an ensemble
SMALL_STEM, INSTANCE_NORM = "small-stem", "instance-norm"
AT_SIZE = re.compile(r"at-(?P<size_px>[1-9]\d{1,3})")
DEFINED = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)
RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}", re.MULTILINE | re.DOTALL)
OLD_NAME = re.compile(r"['\"]([\w.]+)['\"]\s*:")


def check_architecture(name: str, size_px: int) -> None:
    """Raise InvalidInput for a name that build_network does not know, or a ConvNet too deep for pictures of size_px."""
    base, *changes = name.split("+")
    if match := CONVNET.fullmatch(name):
        if size_px >> int(match["depth"]) == 0:
            raise InvalidInput(f"{name} halves {size_px} px away: take at most {size_px.bit_length() - 1} blocks")
    elif name != RESNETAP and not RESNET.fullmatch(name):
        known = timm_names()
        if (known and base.split(".")[0] not in known) or not all(map(is_change, changes)):
            raise unknown_architecture(name)


def together(names: Iterable[str]) -> str:
    """The name of an ensemble of networks by their names."""
    return TOGETHER.join(names)


def is_change(text: str) -> bool:
    """Whether what follows a "+" in a name is a change of a timm model that build_network knows."""
    return text in (SMALL_STEM, INSTANCE_NORM) or bool(AT_SIZE.fullmatch(text))


def initialisation(name: str) -> dict[str, str]:
    """What identifies the first weights of a network beside its name and seed: ResNets of SRe2L, D4M and RDED begin as
    torchvision's, whose last gammas are 1; timm's are 0, and a residual branch then has no gradient at first."""
    return {"initialisation": "torchvision"} if TORCHVISIONS.fullmatch(name) else {}


def may_have_batch_norm(name: str) -> bool:
    """Whether a network may have batch norm: not the field's own, nor what has instance norm in its place."""
    return not CONVNET.fullmatch(name) and name != RESNETAP and INSTANCE_NORM not in name.split("+")


def unknown_architecture(name: str) -> InvalidInput:
    """What to raise for a name that is none."""
    return InvalidInput(
        f"architecture {name!r} is neither a timm model (with +{SMALL_STEM}, +{INSTANCE_NORM}, +at-64) nor "
        f"convnet-DEPTH-WIDTH nor {RESNETAP} nor resnet-DEPTH-WIDTH of CIFAR (resnet-20-16)"
    )


@lru_cache(maxsize=1)
def timm_names() -> frozenset[str]:
    """The names of timm's models as its sources register them; none where they do so in another way."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    sources = [path.read_text() for path in (Path(spec.origin).parent / "models").rglob("*.py")]
    renamed = (name for text in sources for block in RENAMED.findall(text) for name in OLD_NAME.findall(block))
    return frozenset([*renamed, *(name for text in sources for name in DEFINED.findall(text))])
