"""The parts of a multimodal model, such as gemma-3-27b-it, that read images or sound: text takes another way."""

PARTS = ("vision_tower", "vision_model", "visual", "audio_tower", "multi_modal_projector")


def parts_not_for_text(model) -> list[str]:
    """The names of these parts within `model.model`, of a model of transformers; none of a language model."""
    return [name for name in PARTS if getattr(getattr(model, "model", None), name, None) is not None]


def drop_parts_not_for_text(model) -> None:
    """Free their memory. What is left keeps its names, so that LoRA adapters fit as before."""
    for name in parts_not_for_text(model):
        setattr(model.model, name, None)
