"""The card of an exported set: what it is, under which terms, and how it was made."""

from __future__ import annotations

import json
from typing import Any

from tasks.export.handout import Handout, front_text

TOLD = ("accuracy", "command")  # in a paragraph of their own
BY_DDOQ = "by\nddoq (optimal quantisation in latent space, arXiv 2501.07681)"
WHAT = {  # the pictures of a method of decode, and where they come from
    "medoid": ("real pictures", f"chosen {BY_DDOQ}"),
    "member": ("real pictures", f"of the cells that were found {BY_DDOQ}"),
    "random": ("real pictures", "drawn at random\nby ddoq, as what distilled ones are measured by"),
    "given": ("pictures", "of a set that\nothers made, as ddoq read it"),
}


def _scored(card: dict[str, Any]) -> str:
    """What students of it came to, and the command that finds it again."""
    lines = []
    for row in card.get("accuracy", []):
        half = row["95 % interval, half"]
        spread = " %, one seed" if half is None else f" ± {100 * half:.1f} % (95 % interval, {row['seeds']} seeds)"
        lines.append(f"- {row['student']}: top-1 {100 * row['top-1']:.1f}{spread}")
    found = "\n".join(["Of its method, on held-out real images:", "", *lines, ""]) if lines else ""
    if "command" not in card:
        return f"## How it does\n\n{found}\n" if found else ""
    again = f"In this folder, with ddoq and the real images (data.path is theirs):\n\n    {card['command']}\n"
    return f"## How it does\n\n{found}\n{again}\n"


def front_matter(handout: Handout, form: str, more: dict[str, Any]) -> str:
    """What a hub reads of a card: terms, what it is for, how large it is; and more of the form's own."""
    num = len(handout.images)
    sizes = {1000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K"}
    where = " ".join(handout.card["source"].values())
    told = {
        "license": "other",
        "license_name": f"that of {where}",
        "pretty_name": f"{where}, distilled to {num // len(handout.classes)} images per class",
        "tags": ["dataset-distillation", "dataset-condensation", "ddoq", form],
        "task_categories": ["image-classification"],
        "size_categories": [next((size for most, size in sizes.items() if num < most), "100K<n<1M")],
        **more,
    }
    return front_text(told)


def card_text(handout: Handout, front: str) -> str:
    """The data set's card, in Markdown, behind its front matter."""
    where = " ".join(handout.card["source"].values())
    kind, origin = WHAT.get(handout.card["pictures"]["method"], ("synthetic pictures", f"made {BY_DDOQ}"))
    made = {name: value for name, value in handout.card.items() if name not in TOLD}
    settings = json.dumps(made, indent=1, default=str)
    mosaic, size_px = handout.card["pictures"].get("mosaic", 1), handout.images.shape[1]
    tiles = f"""
They are the tiles of {len(handout.images) // mosaic**2} mosaics of {mosaic}×{mosaic}, which were kept in the pixels of
as many pictures: of {size_px // mosaic} px each, brought up to {size_px} px bilinearly as students are shown them.
"""
    return f"""{front}# A distilled data set

{len(handout.images)} {kind} of {len(handout.classes)} classes, {size_px} px, {origin}.
{tiles if mosaic > 1 else ""}
Each picture has a weight: multiply its loss by it. The mean over a class is 1, or at most 1 for the rule
`sqrt-paper`. `centroid` is the number of the prototype within its class. Soft labels, where there are any, are a
teacher's logits for the picture as it is, without augmentation.

## Licence

These pictures derive from: {where}. Its licence and terms of use hold for them too, as may those of the
autoencoder, the diffusion model and the teacher. Read them before you pass the set on.

{_scored(handout.card)}## How it was made

```json
{settings}
```
"""
