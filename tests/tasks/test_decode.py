"""The stage decode on a tiny recipe: shared, cut and repeated, its pictures are the same bit for bit."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from pydantic import ValidationError

from ddoq_core.decode.selection import cross_entropy
from ddoq_core.encode.autoencoder import pictures_of
from ddoq_core.images import resized
from ddoq_core.train.accuracy import predict
from storage.artifact import Artifact
from tasks import cluster, decode
from tasks.inputs.models import load_autoencoder, load_classifier
from tasks.inputs.real import read_images
from tasks.inputs.stores import distilled_set, images_of, latents_of, prototypes_of
from tasks.recipe.settings import DecodeConfig, ImageConfig
from tests.tasks.conftest import Pipeline, complete

IMAGES = ImageConfig(size_px=8)
NUM_POINTS = 3
CONFIG = DecodeConfig(strength=0.5, guidance_scale=1.5, num_steps=8)
NAMES = tuple("0123456789")


def artifact_of(pipeline: Pipeline, label: str, config: DecodeConfig = CONFIG) -> Artifact:
    """A decode artifact with a folder of its own for each label."""
    above = {"cluster": pipeline.cluster, "autoencoder": pipeline.autoencoder, "prior": pipeline.prior}
    return Artifact(pipeline.cluster.root, "decode", decode.VERSION, {"test": label, **config.model_dump()}, above)


def run(
    artifact: Artifact, config: DecodeConfig = CONFIG, images: ImageConfig = IMAGES, names: Any = NAMES
) -> Artifact:
    decode.decode.fn(artifact, config, images, 0, tuple(names), "batch")
    return artifact


def arrays(artifact: Artifact, names: Any = NAMES) -> dict[str, dict[str, np.ndarray]]:
    return {name: images_of(artifact).read_class(name) for name in names}


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, found in one.items():
        assert found.keys() == other[name].keys()
        for key, value in found.items():
            np.testing.assert_array_equal(value, other[name][key], err_msg=f"{name}/{key}")


@pytest.fixture(scope="module")
def whole(pipeline: Pipeline) -> Artifact:
    artifact = run(artifact_of(pipeline, "whole"))
    assert artifact.is_done()
    return artifact


@pytest.fixture
def in_groups_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with larger latents: two classes of three pictures are a batch."""
    monkeypatch.setattr("ddoq_core.memory.MOST", 2 * NUM_POINTS)


def test_images_with_seed_and_centroid_beside_them(whole: Artifact) -> None:
    found = arrays(whole)
    for part in found.values():
        assert part["images"].shape == (NUM_POINTS, 8, 8, 3) and part["images"].dtype == np.uint8
        assert part["centroid"].tolist() == [0, 1, 2]
    assert len({seed for part in found.values() for seed in part["seed"].tolist()}) == 10 * NUM_POINTS
    assert np.stack([part["images"] for part in found.values()]).std() > 10


def test_each_class_is_a_unit_with_its_share_of_the_time(whole: Artifact) -> None:
    marks = whole.marks()
    assert set(marks) == set(NAMES)
    assert all(mark.facts == {"images": NUM_POINTS, "classes": [name]} for name, mark in marks.items())
    assert all(mark.seconds["compute"] > 0 and mark.seconds["write"] > 0 for mark in marks.values())


def decode_in_a_process(task: tuple[Artifact, tuple[str, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddoq_core.memory.MOST", 2 * NUM_POINTS)
        run(task[0], names=task[1])


@pytest.mark.slow
def test_two_workers_in_any_order_make_what_one_makes(pipeline: Pipeline, in_groups_of_two: None) -> None:
    alone, shared = artifact_of(pipeline, "alone"), artifact_of(pipeline, "shared")
    parts = [NAMES[:6], NAMES[6:]]  # whole groups, as the tasks of a run are
    for names in parts:
        run(alone, names=names)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(decode_in_a_process, [(shared, names) for names in reversed(parts)]))
    assert alone.is_done() and shared.is_done()
    assert_equal(arrays(alone), arrays(shared))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("written", [1, 3, 4, 9])
def test_a_run_that_was_cut_ends_with_the_same_pictures(
    written: int, pipeline: Pipeline, in_groups_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, commit = artifact_of(pipeline, f"cut {written}"), Artifact.commit
    with monkeypatch.context() as patch:

        def commit_or_die(artifact: Artifact, unit: str, *more: Any, **named: Any) -> Any:
            if artifact.num_marks() == written:
                raise Killed
            return commit(artifact, unit, *more, **named)

        patch.setattr(Artifact, "commit", commit_or_die)
        with pytest.raises(Killed):
            run(cut)
    assert len(cut.marks()) == written
    before = {unit: mark.files for unit, mark in cut.marks().items()}
    run(cut)
    assert all(cut.marks()[unit].files == files for unit, files in before.items()), "what was there is not touched"
    assert_equal(arrays(run(artifact_of(pipeline, "uncut"))), arrays(cut))


def test_only_the_groups_of_missing_classes_are_decoded(
    pipeline: Pipeline, in_groups_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = run(artifact_of(pipeline, "dropped"))
    before = arrays(artifact)
    for name in ("3", "8", "9"):
        artifact.forget(name)
    decoded: list[Any] = []
    of = decode.Decoded.of
    monkeypatch.setattr(
        decode.Decoded, "of", lambda self, group, clock: decoded.append(group) or of(self, group, clock)
    )
    run(artifact)
    assert decoded == [["2", "3"], ["8", "9"]]
    assert_equal(before, arrays(artifact))


def test_pictures_in_other_groups_are_the_same_to_the_eye(
    whole: Artifact, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddoq_core.memory.MOST", 2)  # less than a class: its pictures are in two batches
    other = arrays(run(artifact_of(pipeline, "small batches")))
    one, two = (np.stack([part["images"] for part in found.values()]).astype(int) for found in (arrays(whole), other))
    assert np.abs(one - two).max() <= 1
    assert (one != two).mean() <= 0.001


def test_pictures_of_another_training_size(whole: Artifact, pipeline: Pipeline) -> None:
    artifact = run(artifact_of(pipeline, "train_px"), images=ImageConfig(size_px=5))
    for name, part in arrays(artifact).items():
        expected = [Image.fromarray(x).resize((5, 5), Image.Resampling.BICUBIC) for x in arrays(whole)[name]["images"]]
        np.testing.assert_array_equal(part["images"], np.stack(expected))
    attributes = dict(zarr.open_group(images_of(artifact).path / "0").attrs)
    assert attributes == {
        "name": "0",
        "classes": ["0"],
        "method": "diffusion",
        "seed": 0,
        "resize": "bicubic",
    }


def test_several_draws_share_their_centroids_weight(whole: Artifact, pipeline: Pipeline) -> None:
    config = CONFIG.model_copy(update={"num_draws": 2})
    artifact = run(artifact_of(pipeline, "draws", config), config)
    found, single = arrays(artifact), arrays(whole)
    for name, part in found.items():
        assert part["centroid"].tolist() == [0, 1, 2, 0, 1, 2]
        assert part["seed"][:NUM_POINTS].tolist() == single[name]["seed"].tolist(), "the first draw stays the first"
        assert (part["images"][:NUM_POINTS] != part["images"][NUM_POINTS:]).any()
    drawn, once = distilled_set(artifact, "mass"), distilled_set(whole, "mass").weights
    w, labels = drawn.weights, drawn.labels
    assert len(drawn.images) == len(labels) == len(w) == 2 * NUM_POINTS * len(NAMES)
    per_class = w.reshape(len(NAMES), 2, NUM_POINTS)
    np.testing.assert_array_equal(per_class[:, 0], once.reshape(len(NAMES), NUM_POINTS))
    np.testing.assert_array_equal(per_class[:, 0], per_class[:, 1])
    np.testing.assert_allclose([w[labels == c].mean() for c in range(len(NAMES))], 1)


@pytest.mark.parametrize("method", ["autoencoder", "medoid"])
def test_without_a_diffusion_there_is_no_seed(method: Any, pipeline: Pipeline) -> None:
    config = CONFIG.model_copy(update={"method": method, "num_draws": 2})
    for part in arrays(run(artifact_of(pipeline, method, config), config)).values():
        assert set(part) == {"images", "centroid"}
        assert part["images"].shape == (NUM_POINTS, 8, 8, 3)
        assert part["centroid"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("method", "num_draws"), [("diffusion", 2), ("autoencoder", 1), ("medoid", 1), ("member", 1)])
def test_mosaics_hold_the_pictures_of_four_times_the_points(method: str, num_draws: int, pipeline: Pipeline) -> None:
    plain = {"method": method, "num_draws": num_draws}
    recipe = pipeline.recipe.with_changes({"methods": {"tiled": {"decode": {**plain, "mosaic": 2}}}})
    points = complete(cluster.plan(recipe, "tiled", 0, pipeline.encode))
    artifact = complete(decode.plan(recipe, "tiled", 0, points, pipeline.models))
    single = recipe.with_changes({"methods.tiled": {"decode": plain}})
    whole = arrays(complete(decode.plan(single, "tiled", 0, points, pipeline.models)))
    assert all(mark.facts["images"] == num_draws * NUM_POINTS for mark in artifact.marks().values())
    for name, part in arrays(artifact).items():
        assert part["images"].shape == (num_draws * NUM_POINTS, 8, 8, 3)
        assert part["centroid"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]] * num_draws
        assert ("seed" in part) == (method == "diffusion")
        for key in part.keys() - {"images"}:
            np.testing.assert_array_equal(part[key].ravel(), whole[name][key])
        for tile, picture in enumerate(resized(whole[name]["images"], 4)):
            top, left = 4 * (tile % 4 // 2), 4 * (tile % 2)
            np.testing.assert_array_equal(part["images"][tile // 4, top : top + 4, left : left + 4], picture)


OPTIONS: dict[str, dict[str, Any]] = {
    "ddpm": {"sampler": "ddpm"},
    "inversion": {"sampler": "ddim", "inversion": True},
    "centroid guidance": {"sampler": "ddim", "centroid_guidance": 0.5},
    "transport": {"sampler": "ddim", "centroid_guidance": 0.5, "centroid_guidance_to": "transport"},
    "matched strength": {"strength": None},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_reach_the_pictures(option: str, whole: Artifact, pipeline: Pipeline) -> None:
    config = CONFIG.model_copy(update=OPTIONS[option])
    first, again = (arrays(run(artifact_of(pipeline, f"{option} {k}", config), config)) for k in (1, 2))
    assert_equal(first, again)
    assert any((first[name]["images"] != part["images"]).any() for name, part in arrays(whole).items())


# --- what a recipe may ask for ----------------------------------------------------------------------------


def test_matched_noise_moves_the_start_and_keeps_the_seeds(pipeline: Pipeline, whole: Artifact) -> None:
    plain = arrays(whole)
    for noise in ("cell", "class"):
        config = CONFIG.model_copy(update={"noise": noise})
        found = arrays(run(artifact_of(pipeline, noise, config), config))
        assert all((found[name]["seed"] == plain[name]["seed"]).all() for name in NAMES)
        assert any((found[name]["images"] != plain[name]["images"]).any() for name in NAMES)


def test_the_teacher_chooses_among_candidates_of_each_centroid(pipeline: Pipeline, whole: Artifact) -> None:
    work = decode.plan(
        pipeline.recipe.with_changes({"decode.num_candidates": 4}), "ddoq", 0, pipeline.cluster, pipeline.models
    )
    chosen = arrays(complete(work))
    assert (
        "teacher" in work.artifact.parents
        and "teacher" not in decode.plan(pipeline.recipe, "ddoq", 0, pipeline.cluster, pipeline.models).artifact.parents
    )
    teacher, classes = load_classifier(pipeline.teacher), pipeline.index.classes
    first = other = 0.0
    for name, found in chosen.items():
        assert found["images"].shape == (NUM_POINTS, 8, 8, 3) and found["centroid"].tolist() == [0, 1, 2]
        labels = np.full(NUM_POINTS, classes.index(name))
        np.testing.assert_allclose(found["score"], cross_entropy(predict(teacher, found["images"]), labels), rtol=1e-3)
        first += cross_entropy(predict(teacher, arrays(whole)[name]["images"]), labels).sum()
        other += found["score"].sum()
    assert other < first, "the teacher knows them better than the first draws"
    assert len({seed for found in chosen.values() for seed in found["seed"].tolist()}) == 10 * NUM_POINTS


def cells_of(pipeline: Pipeline, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cell of each image of a class, the images as students see them, and their latents."""
    latents = latents_of(pipeline.encode)
    images = read_images(pipeline.shard, pipeline.index, latents.read_rows(name), pipeline.recipe.images.for_training)
    return prototypes_of(pipeline.cluster).read_array(name, "assignment"), images, latents.read_class(name)


def test_members_are_real_images_of_their_cells(pipeline: Pipeline) -> None:
    recipe = pipeline.recipe.with_changes({"decode": {"method": "member"}})
    first, again = (complete(decode.plan(recipe, "ddoq", k, pipeline.cluster, pipeline.models)) for k in (0, 1))
    assert set(first.parents) == {"cluster"}
    for name, part in arrays(first).items():
        assignment, images, _ = cells_of(pipeline, name)
        assert part["centroid"].tolist() == assignment[part["member"]].tolist() == list(range(NUM_POINTS))
        np.testing.assert_array_equal(part["images"], images[part["member"]])
    assert any((part["member"] != arrays(again)[name]["member"]).any() for name, part in arrays(first).items())


def test_the_teacher_chooses_among_members(pipeline: Pipeline) -> None:
    recipe = pipeline.recipe.with_changes({"decode": {"method": "member", "num_candidates": 3}})
    work = decode.plan(recipe, "ddoq", 0, pipeline.cluster, pipeline.models)
    assert set(work.artifact.parents) == {"cluster", "teacher"}
    teacher = load_classifier(pipeline.teacher)
    for name, part in arrays(complete(work)).items():
        assignment, images, _ = cells_of(pipeline, name)
        assert assignment[part["member"]].tolist() == list(range(NUM_POINTS))
        labels = np.full(len(images), pipeline.index.classes.index(name))
        scores = cross_entropy(predict(teacher, images), labels)
        np.testing.assert_allclose(part["score"], scores[part["member"]], rtol=1e-3)
        candidates = decode.members_of(pipeline.cluster, name, 3, 0)
        assert part["score"][0] == pytest.approx(scores[candidates[0]].min(), rel=1e-3), "nothing is kept before it"


def test_the_prior_starts_from_members(pipeline: Pipeline) -> None:
    """At a strength of which no step is left, pictures are members that came through the autoencoder."""
    config = CONFIG.model_copy(update={"start": "member", "strength": 1e-3})
    found = arrays(run(artifact_of(pipeline, "members", config), config))
    model = load_autoencoder(pipeline.autoencoder)
    for name, part in found.items():
        assignment, _, z = cells_of(pipeline, name)
        assert assignment[part["member"]].tolist() == part["centroid"].tolist() == list(range(NUM_POINTS))
        own = torch.from_numpy(z[part["member"]].astype(np.float32))
        np.testing.assert_allclose(part["images"].astype(int), pictures_of(model, own).astype(int), atol=1)
    with pytest.raises(ValidationError, match="leave it out where start is 'member'"):
        DecodeConfig(start="member", noise="cell")


def test_settings_that_are_as_before_are_in_no_digest(pipeline: Pipeline) -> None:
    plain = decode.identity(CONFIG, pipeline.recipe.prior, 0)
    assert not {"noise", "start", "num_candidates", "guided_channels"} & plain.keys()
    assert decode.identity(CONFIG.model_copy(update={"noise": "cell"}), pipeline.recipe.prior, 0)["noise"] == "cell"
