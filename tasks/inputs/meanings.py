"""What the arrays of the stores say of themselves to those who open them with other programs."""

from __future__ import annotations

from storage.zarr_store import LATENT_AXES, Meaning, Meanings

PIXELS = ("height", "width", "colour")

PROTOTYPES: Meanings = {
    "centroids": Meaning("means of the latents in each cell", ("prototype", *LATENT_AXES[1:])),
    "counts": Meaning("images in each cell", ("prototype",)),
    "assignment": Meaning("the cell of each image of the class", ("image",)),
    "medoids": Meaning("the image of the class nearest to each centroid", ("prototype",)),
}

# The axis of tiles is a mosaic's.
IMAGES: Meanings = {
    "images": Meaning("pictures, sRGB from 0 to 255", ("picture", *PIXELS)),
    "centroid": Meaning("the prototype that a picture stands for", ("picture", "tile")),
    "member": Meaning("the image of the class that it is, or was drawn from", ("picture", "tile")),
    "seed": Meaning("the seed of a picture's noise", ("picture", "tile")),
    "score": Meaning("the teacher's cross-entropy, nats, by which a picture was chosen", ("picture", "tile")),
    "weight": Meaning("the weight that the set came with", ("picture", "tile")),
    "logits": Meaning("the soft label that the set came with, as logits", ("picture", "class")),
}

LABELS: Meanings = {
    "rows": Meaning("the distilled picture seen, in the order of an epoch", ("epoch", "picture")),
    "shift": Meaning("pixels by which it was moved, down and right", ("epoch", "picture", "direction")),
    "crop": Meaning("its crop: height and width as shares, centre (y, x) in [-1, 1]", ("epoch", "picture", "part")),
    "flip": Meaning("whether it was mirrored", ("epoch", "picture")),
    "box": Meaning("what CutMix replaced in a batch: top, bottom, left, right, pixels", ("epoch", "batch", "edge")),
    "partner": Meaning("the picture of the batch that CutMix took it from", ("epoch", "picture")),
    "logits": Meaning("the teacher's logits", ("epoch", "picture", "class")),
    "values": Meaning("the teacher's largest logits, in falling order", ("epoch", "picture", "rank")),
    "classes": Meaning("the classes of these logits", ("epoch", "picture", "rank")),
    "rest": Meaning("the one logit that stands for each other class", ("epoch", "picture")),
}

SAMPLES: Meanings = {
    "images": Meaning("pictures drawn from noise alone, sRGB from 0 to 255", ("picture", *PIXELS)),
    "closest": Meaning("the one nearest to a training image, and that image", ("pair", *PIXELS)),
}
