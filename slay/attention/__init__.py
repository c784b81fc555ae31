"""The mechanisms, one short file each; `layer` holds what they share."""

from slay.registry import get_attention_class, list_attention_types, register_attention

__all__ = ["get_attention_class", "list_attention_types", "register_attention"]
