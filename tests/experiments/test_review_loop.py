from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save_file

from experiments import review_loop
from experiments.laboratories import candidates
from experiments.laboratories.data import read_images
from experiments.laboratories.pools import SIZES, verifier_file
from segmitos.training.networks.verifier import VerifierNetwork
from tests.factories.synthetic_fields import write_cases


def test_features_are_what_the_verifiers_judge_by(tmp_path, monkeypatch):
    torch.manual_seed(0)
    files, weights, biases = [], [], []
    for side in SIZES:
        verifier = VerifierNetwork(side)
        files.append(tmp_path / verifier_file(1, side, 0))
        save_file(verifier.state_dict(), str(files[-1]))
        weights.append(verifier.head.weight[0].detach().numpy())
        biases.append(verifier.head.bias.item())
    # Drawn cells are no candidates of the real networks: these are in their place.
    xy = np.array([(20.0, 30.0), (60.5, 41.0), (3.0, 90.0)])
    monkeypatch.setattr(candidates, "find_candidates", lambda *given: (None, np.full(3, 0.5), xy))
    images = read_images("mitos12", write_cases(tmp_path, slides=1, fields=1))
    laboratory = review_loop._look(images, files[0], files[1], 1)
    small, large = np.split(laboratory.features[0], 2, axis=1)
    logits = [part @ w + b for part, w, b in zip((small, large), weights, biases, strict=True)]
    np.testing.assert_allclose(laboratory.found[0].verifier_logits, np.transpose(logits), atol=1e-4)
