"""The quantiser alone: ten weighted prototypes of each handwritten digit, in pixels, and how far they are from it."""

from sklearn.datasets import load_digits

from ddoq_core import class_weights, effective_sample_size, quantize

images, digits = load_digits(return_X_y=True)  # (1797, 64) of 0 to 16, (1797,)
for digit in range(10):
    found = quantize(images[digits == digit], 10, seed=digit)
    weights = class_weights(found.counts, "sqrt")  # (10,), mean 1
    print(f"{digit}: inertia {found.inertia:.0f}, W2 {found.w2:.2f}, worth {effective_sample_size(weights):.1f} equal")
    print("   weights", *(f"{w:.2f}" for w in weights))
