"""Protocols: named, versioned descriptions of an evaluation, one YAML file each."""

from cmcgns.evaluation.protocols.protocol import (
    Cell,
    EvaluationProtocol,
    list_protocols,
    load_protocol,
    protocol_titles,
)

__all__ = ["Cell", "EvaluationProtocol", "list_protocols", "load_protocol", "protocol_titles"]
