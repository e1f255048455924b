from timm.data import ImageNetInfo

from ddoq_core.imagenet import describe, imagenet_index, prompt_name


def test_imagenet_classes_go_by_their_wordnet_id() -> None:
    assert describe("n01440764") == "tench, Tinca tinca"
    assert (imagenet_index("n01440764"), imagenet_index("n15075141")) == (0, 999)


def test_names_that_two_classes_share_are_told_apart() -> None:
    cranes = ("n02012849", "n03126707")  # the bird and the machine
    assert {imagenet_index(wnid) for wnid in cranes} == {134, 517}


def test_other_names_stay_as_they_are() -> None:
    assert describe("horse") == "horse"
    assert imagenet_index("horse") is None


def test_no_two_classes_have_one_prompt() -> None:
    names = ImageNetInfo().label_names()
    prompts = {name: prompt_name(name) for name in names}
    assert len(set(prompts.values())) == 1000
    assert prompts["n02012849"].startswith("crane: large long-necked wading bird")
    assert prompts["n03126707"].startswith("crane: lifts and moves heavy objects")
    assert {name for name in names if prompts[name] != describe(name)} == {
        "n02012849", "n03126707", "n03710637", "n03710721",
    }  # fmt: skip
    assert prompt_name("crane") == "crane"
