"""The look that all pages share."""

import gradio as gr


def theme() -> gr.themes.Base:
    """Calm slate and indigo, with the reader's own system fonts: nothing is fetched."""
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
