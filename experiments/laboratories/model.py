"""Writes the networks, the rule and the threshold as the built-in model file, and reads both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from experiments.laboratories.candidates import SETTINGS, screened_cascade
from experiments.laboratories.data import BACKGROUND, FIELDS
from experiments.laboratories.protocol import THRESHOLDS, Rule
from segmitos.detection.model_file import SCREENING, VERIFIER, ModelFile, write_model_file
from segmitos.detection.postprocess import FLOOR, Thresholds
from segmitos.detection.spec import cascade_context
from segmitos.detection.verify import REACH_PX
from segmitos.errors import UsageError
from segmitos.training.combine import store_half_precision
from segmitos.training.networks.proposal import ProposalNetwork

DESCRIPTION = (
    "five plain convolutions at 0.5 um per pixel propose; a verifier that also says what the map "
    "will find screens; networks of the `lite` recipe, averaged, make the map in patches; "
    "verifiers (EfficientNet-Lite0 to stride 16, patches of 20 um at two resolutions) judge its "
    "candidates; each verifier left out one laboratory"
)
LICENSE = "research use only: trained on data under CC BY-NC-ND and challenge terms"


def write_model(
    path: Path,
    networks: ModelFile,
    screening: bytes,
    verifiers: bytes,
    rule: Rule,
    threshold: float,
    validation: dict[str, Any],
) -> None:
    """Write the model file.

    Args:
        path: of the `.segmitos` file.
        networks: that make the map, with their proposals; the domain check and origin of their
            file are kept.
        screening: graph that judges the proposals.
        verifiers: graph that judges the candidates.
        rule: joins the map and the verifiers.
        threshold: least joined score of a detection.
        validation: counts by laboratory left out.
    """
    cascade = screened_cascade(networks)
    proposal_context_px = round(cascade.proposal_mpp / networks.spec.mpp) * (
        ProposalNetwork.context_px
    )
    spec = msgspec.structs.replace(
        networks.spec,
        name="lite",
        context_px=cascade_context(cascade, proposal_context_px) + REACH_PX,
        # Done before candidates are sought: what the verifier leaves is not smoothed again.
        smoothing_sigma_um=0.0,
        thresholds=Thresholds(FLOOR, 0.0, threshold),
        datasets=("background", "crops", *sorted(FIELDS)),
        laboratories=(*FIELDS, "MIDOG 2021 (three scanners)", "TUPAC16", *BACKGROUND),
        license=LICENSE,
        description=DESCRIPTION,
        validation=validation,
        cascade=cascade,
        verifier=msgspec.structs.replace(SETTINGS, **vars(rule)),
    )
    graphs = networks.graphs
    graphs[SCREENING] = store_half_precision(screening)
    graphs[VERIFIER] = store_half_precision(verifiers)
    write_model_file(path, spec, graphs)


def rule_of(model: ModelFile) -> tuple[Rule, int]:
    """Return a model file's joining rule, and the index of its threshold.

    Raises:
        UsageError: where it has no verifiers, or a threshold that is not among those of the
            protocol.
    """
    settings, threshold = model.spec.verifier, model.spec.thresholds.min_score
    at = np.flatnonzero(np.isclose(THRESHOLDS, threshold))
    if settings is None or not len(at):
        raise UsageError(f"{model.spec.name} is no model that experiments.laboratories wrote")
    rule = Rule(settings.map_weight, settings.verifier_weight, settings.intercept)
    return rule, int(at[0])
