"""Settings that cannot be are refused by themselves, in one line with value and remedy, before anything is loaded."""

from __future__ import annotations

import time

import pytest

from flows.catalogue import load_recipe
from storage.errors import UsageError

NAME = "name it by at most 60 letters"
DEEP = "[" * 100_000

REFUSED = {  # --set → what the line says: the setting, and what would do
    "methods={}": ("methods", "name at least one method"),
    "methods=[]": ("methods=[]", "dictionary"),
    "methods=null": ("methods=None", "dictionary"),
    'methods={"a/b": {}}': ("'a/b'", NAME),
    'methods={"../a": {}}': ("'../a'", NAME),
    'methods={"a..b": {}}': ("'a..b'", NAME),
    'methods={"..": {}}': ("'..'", NAME),
    'methods={"$HOME": {}}': ("'$HOME'", NAME),
    'methods={"": {}}': ("''", NAME),
    'methods={" ": {}}': ("' '", NAME),
    'methods={"-a": {}}': ("'-a'", NAME),
    'methods={"a\\u0000": {}}': ("'a\\x00'", NAME),
    'methods={"[red]a": {}}': ("'[red]a'", NAME),
    f'methods={{"{"a" * 61}": {{}}}}': (repr("a" * 61), NAME),
    'methods={"a": {"decode": {"guidance_scale": 1e300}}}': ("guidance_scale", "less than or equal to 1000"),
    'methods={"a": {"decode": {"strength": NaN}}}': ("strength", "less than or equal to 1"),
    'methods={"a": {"weights": Infinity}}': ("weights", "uniform"),
    "methods.a/b={}": ("'a/b'", NAME),
    "train.architectures=[]": ("train.architectures=[]", "at least 1 item"),
    'train.architectures=[""]': ("train.architectures.0=''", "match pattern"),
    'train.architectures=["../x"]': ("train.architectures.0='../x'", "match pattern"),
    'train.architectures=["resnet18", "resnet18"]': ("train.architectures=['resnet18', 'resnet18']", "each value once"),
    "teacher.architecture=": ("teacher.architecture=''", "match pattern"),
    "autoencoder.train.channels=[]": ("autoencoder.train.channels=[]", "at least 1 item"),
    "autoencoder.train.channels=[0]": ("autoencoder.train.channels.0=0", "greater than 0"),
    "autoencoder.train.channels=[12]": ("autoencoder.train.channels.0=12", "multiple of 8"),
    "autoencoder.train.channels=[1000000000]": ("channels.0=1000000000", "less than or equal to 8192"),
    "autoencoder.train.channels=[8, 8, 8, 8, 8, 8, 8, 8, 8]": ("channels=[8", "at most 8 items"),
    'teacher={"weights": "a.pt", "start": "b.pt"}': ("teacher", "give teacher.start or teacher.weights"),
    'autoencoder.train={"kind": "components", "channels": [16, 32]}': (
        "autoencoder.train",
        "of one width: channels=(16, 16",
    ),
    'autoencoder.train={"kind": "components", "channels": [16], "latent_channels": 4}': (
        "autoencoder.train",
        "latent_channels=3",
    ),
    "autoencoder.train.latent_channels=1000000000": ("latent_channels=1000000000", "less than or equal to 8192"),
    "autoencoder.train.learning_rate=0": ("learning_rate=0", "greater than 0"),
    "autoencoder.train.learning_rate=-1": ("learning_rate=-1", "greater than 0"),
    "autoencoder.train.learning_rate=NaN": ("learning_rate=nan", "finite number"),
    "autoencoder.train.kl_weight=1e308": ("kl_weight=1e+308", "less than or equal to 1000"),
    "autoencoder.train.num_steps=1e30": ("num_steps=1e+30", "exceeded maximum size"),
    "autoencoder.train.num_steps=1000000000": ("num_steps=1000000000", "less than or equal to 10000000"),
    "autoencoder.train.seed=18446744073709551616": ("seed=18446744073709551616", "less than"),
    "autoencoder.train.seed=-1": ("seed=-1", "greater than or equal to 0"),
    "encode.seed=9223372036854775808": ("encode.seed=9223372036854775808", "less than"),
    "teacher.seed=1e400": ("teacher.seed=inf", "finite"),
    "seeds=[]": ("seeds=[]", "at least 1 item"),
    "seeds=[0, 0]": ("seeds=[0, 0]", "each value once"),
    "seeds=[36893488147419103232]": ("seeds.0=36893488147419103232", "less than"),
    "seeds=0": ("seeds=0", "tuple"),
    "data.split_seed=4294967296": ("data.split_seed=4294967296", "less than 4294967296"),
    "data.val_fraction=NaN": ("data.val_fraction=nan", "less than 1"),
    "data.val_fraction=1": ("data.val_fraction=1", "less than 1"),
    "data.max_refused=Infinity": ("data.max_refused=inf", "less than or equal to 1"),
    "data.path=": ("data.path=''", "at least 1 character"),
    'data.path="a\\u0000b"': ("data.path='a\\x00b'", "write it without"),
    f"data.path={'a' * 5000}": ("data.path='aaaa", "at most 4096 characters"),
    "images.size_px=1000000000": ("images.size_px=1000000000", "less than or equal to 4096"),
    "images.train_px=1000000000": ("images.train_px=1000000000", "less than or equal to 4096"),
    "teacher.learning_rate=NaN": ("teacher.learning_rate=nan", "finite number"),
    "teacher.learning_rate=-0.1": ("teacher.learning_rate=-0.1", "greater than 0"),
    "teacher.weight_decay=-Infinity": ("teacher.weight_decay=-inf", "finite number"),
    "teacher.min_gain=1e308": ("teacher.min_gain=1e+308", "less than or equal to 1000"),
    "teacher.weights=": ("teacher.weights=''", "at least 1 character"),
    'teacher.augmentation={"resized_crop": [5, -1]}': ("(5.0, -1.0)", "0 < smallest <= largest <= 1"),
    'teacher.augmentation={"resized_crop": [0, 1]}': ("(0.0, 1.0)", "0 < smallest <= largest <= 1"),
    'teacher.augmentation={"resized_crop": [0.5, NaN]}': ("(0.5, nan)", "0 < smallest <= largest <= 1"),
    'train.augmentation={"resized_crop": [0.9, 0.5]}': ("(0.9, 0.5)", "0 < smallest <= largest <= 1"),
    'train.augmentation={"shift_px": 1000000000}': ("1000000000", "at most 4096"),
    'train.augmentation={"shift": 1}': ("train.augmentation.shift=1", "nexpected"),
    "train.learning_rate=Infinity": ("train.learning_rate=inf", "finite number"),
    "train.momentum=NaN": ("train.momentum=nan", "less than 1"),
    "train.temperature=0": ("train.temperature=0", "greater than or equal to 0.001"),
    "train.temperature=1e308": ("train.temperature=1e+308", "less than or equal to 1000000"),
    "train.num_epochs=1000000000": ("train.num_epochs=1000000000", "less than or equal to"),
    "train.batch_size=0": ("train.batch_size=0", "greater than 0"),
    "weights=NaN": ("weights", "uniform"),
    "weights=1e308": ("weights", "uniform"),
    "prior.train.patch_size=1000000000": ("prior.train.patch_size=1000000000", "less than or equal to 4096"),
    "prior.train.num_layers=1000000000": ("prior.train.num_layers=1000000000", "less than or equal to 1000"),
    "prior.train.learning_rate=0": ("prior.train.learning_rate=0", "greater than 0"),
    "decode.guidance_scale=1e300": ("decode.guidance_scale=1e+300", "less than or equal to 1000"),
    "decode.guidance_scale=NaN": ("decode.guidance_scale=nan", "finite number"),
    "decode.num_steps=1000000000": ("decode.num_steps=1000000000", "less than or equal to 1000"),
    "decode.num_draws=1000000000": ("decode.num_draws=1000000000", "less than or equal to 1000"),
    "decode.mosaic=0": ("decode.mosaic=0", "greater than or equal to 1"),
    "decode.mosaic=5": ("decode.mosaic=5", "less than or equal to 4"),
    "decode.mosaic=3": ("decode.mosaic=3 of the method 'ddoq' does not divide pictures of 16 px", "a multiple of 3"),
    'methods={"a": {"decode": {"mosaic": 3}}}': ("decode.mosaic=3 of the method 'a'", "multiple of 3"),
    "decode.prompt={": ("decode.prompt='{'", "write a prompt like"),
    "decode.prompt={class}": ("decode.prompt='{class}'", "write a prompt like"),
    "decode.prompt={name.__class__}": ("decode.prompt='{name.__class__}'", "write a prompt like"),
    "cluster.num_starts=1000000000": ("cluster.num_starts=1000000000", "less than or equal to 10000"),
    "ipc=1000000000": ("ipc=1000000000", "less than or equal to"),
    "name=" + "a" * 61: ("name='aaa", "at most 60 characters"),
    f"ipc={'9' * 5000}": ("ipc", "exceeded maximum size"),
    f"methods={DEEP}": ("methods", "nested too deep"),
    f"data={DEEP}{']' * 100_000}": ("data", "nested too deep"),
    "decode.\x1b[31mstrength=0.4": ("'decode.\\x1b[31mstrength'", "there is no setting"),
    "\x00=1": ("'\\x00'", "there is no setting"),
    'train={"a\\u001b": 1}': ("train.'a\\x1b'=1", "not permitted"),
}


@pytest.mark.parametrize(
    "setting", REFUSED, ids=[setting[:60].encode("unicode_escape").decode() for setting in REFUSED]
)
def test_refused(setting: str) -> None:
    value, remedy = REFUSED[setting]
    start = time.monotonic()
    with pytest.raises(UsageError) as caught:
        load_recipe("digits", settings=[setting])
    told = str(caught.value)
    assert value in told and remedy in told, told[:1000]
    assert told.isprintable() and len(told) < 1000
    assert time.monotonic() - start < 2


GOOD = {
    'methods={"exact-0.25-by-sampling-medoid": {}, "A_1+b": {}}',
    "decode.guidance_scale=7.5",
    "decode.prompt=a photo of {name}, {{detailed}}",
    'train.augmentation={"resized_crop": [0.3, 0.3]}',
    "seeds=[9223372036854775807]",
    "data.path=/photos/Zoë's\u202f[old]",
    "train.learning_rate=0.0001",
    'methods={"mosaic": {"decode": {"mosaic": 2}}, "of-16": {"decode": {"method": "medoid", "mosaic": 4}}}',
}


@pytest.mark.parametrize("setting", sorted(GOOD))
def test_let_through(setting: str) -> None:
    load_recipe("digits", settings=[setting])
