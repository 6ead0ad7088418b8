"""The networks: the paper's FCN, the lite network, the proposal network."""

from segmitos.training.networks.registry import NETWORKS, build_network, mitosis_logit

__all__ = ["NETWORKS", "build_network", "mitosis_logit"]
