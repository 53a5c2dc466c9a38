"""Small radiographs inside the page."""

import base64
import io

import numpy as np
from markupsafe import Markup
from PIL import Image

from cmcgns.inspect.material import Floats


def thumbnail(image: Floats) -> Markup:
    """An (S, S) image in [-1, 1] as PNG data for a page."""
    buffer = io.BytesIO()
    Image.fromarray(((image + 1) * 127.5).round().clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return Markup("data:image/png;base64,") + Markup(base64.b64encode(buffer.getvalue()).decode())
