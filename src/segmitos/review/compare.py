"""Readers side by side."""

from __future__ import annotations

from typing import Any

from segmitos.review.access import Reader
from segmitos.review.service import Service


def comparison(service: Service, name: str, reader: Reader) -> dict[str, Any]:
    return {}


def agreement_table(service: Service) -> dict[str, Any]:
    return {}
