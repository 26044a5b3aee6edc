"""Writes tests/golden/muon.json: matrices after some steps of Muon, by numpy in float64.

Written from the definition (Keller Jordan's post "Muon: an optimizer for hidden layers in neural networks"): Nesterov momentum
0.95, five Newton-Schulz iterations, scale max(1, rows / columns) ** 0.5, decoupled decay. Each update's singular values must lie in
the band that the post gives, about 0.7 to 1.2, unless they were tiny in the gradient.

    pip install numpy==2.4.6
    python tests/oracles/muon.py
"""

import json
import pathlib

import numpy as np

# rows, columns, stacked matrices, learning rate, weight decay
CASES = [(6, 6, 1, 0.02, 0.0), (5, 12, 1, 0.1, 0.1), (14, 4, 1, 0.05, 0.5), (7, 5, 3, 0.02, 0.1), (12, 20, 1, 0.02, 0.01)]
STEPS = 4


def orthogonalized(x):
    a, b, c = 3.4445, -4.7750, 2.0315
    before = np.linalg.svd(x, compute_uv=False)
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    after = np.linalg.svd(x, compute_uv=False)
    told = before / np.linalg.norm(before) > 0.02
    assert told.sum() >= len(told) - 1 and (after[: told.sum()] > 0.65).all() and (after < 1.25).all(), after
    return x


def updated(start, gradients, rate, decay, beta=0.95):
    matrix, momentum = start.copy(), np.zeros_like(start)
    for gradient in gradients:
        momentum = beta * momentum + (1 - beta) * gradient
        update = orthogonalized((1 - beta) * gradient + beta * momentum)
        rows, columns = matrix.shape
        matrix = matrix * (1 - rate * decay) - rate * max(1, rows / columns) ** 0.5 * update
    return matrix


def case(rng, rows, columns, stacked, rate, decay):
    draw = lambda: rng.standard_normal((stacked, rows, columns)).astype(np.float32)
    start, gradients = draw() / 4, [draw() for _ in range(STEPS)]
    matrices = [
        updated(start[i].astype(np.float64), [g[i].astype(np.float64) for g in gradients], rate, decay) for i in range(stacked)
    ]
    flat = lambda x: [float(f"{value:.9g}") for value in np.asarray(x).ravel()]
    return {
        "rows": rows,
        "cols": columns,
        "n_stacked": stacked,
        "rate": rate,
        "weight_decay": decay,
        "start": flat(start),
        "gradients": [flat(gradient) for gradient in gradients],
        "want": flat(matrices),
    }


def main():
    rng = np.random.default_rng(7)
    cases = [case(rng, *sizes) for sizes in CASES]
    path = pathlib.Path(__file__).parent.parent / "golden" / "muon.json"
    path.write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
