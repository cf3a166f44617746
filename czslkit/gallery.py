"""One HTML page with a thumbnail and the predictions of every photo; it needs no other file and no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from .data.photos import Photo, opened
from .prediction import Prediction
from .report.escaping import printable
from .terminal import tracked

#: Longer side of a thumbnail, in pixels.
SIDE = 240
#: Most photos on one page, which then has about 20 MB.
MOST_PHOTOS = 2000


def gallery_page(
    photos: Sequence[Photo], predictions: Sequence[Prediction], about: str, *, progress: bool = False
) -> str:
    """Return the page of photos and their predictions as HTML.

    It shows the first ``MOST_PHOTOS`` photos that could be read, and lists the names of those that could not.

    Args:
        photos: the photos.
        predictions: one for each photo.
        about: a sentence on the method and its settings, for the head of the page.
        progress: show the progress.
    """
    import jinja2

    readable = [(photo, found) for photo, found in zip(photos, predictions, strict=True) if not found.error]
    shown = readable[:MOST_PHOTOS]
    with ThreadPoolExecutor() as pool:
        made = pool.map(thumbnail, [photo for photo, _ in shown])
        thumbnails = list(tracked(made, "thumbnails", len(shown), show=progress))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    return environment.from_string(_PAGE).render(
        cards=[(source, found, Path(found.image).name) for source, (_, found) in zip(thumbnails, shown, strict=True)],
        count=len(readable),
        errors=[found for found in predictions if found.error],
        about=about,
    )


def thumbnail(photo: Photo) -> str:
    """Return a photo as a JPEG of at most ``SIDE`` pixels on each side, as a data URI.

    Raises:
        DataError: the photo cannot be read.
    """
    with opened(photo) as picture:
        small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Predictions</title>
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #595959; --page: #fff; --card: #f3f3f3; --bar: #b9d6f2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eee; --faint: #b0b0b0; --page: #16181c; --card: #23262c; --bar: #2c4a6b; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 1.2em; }
p, li, figcaption { overflow-wrap: anywhere; }
p { color: var(--faint); max-width: 60em; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15em, 100%), 1fr)); gap: 1em; }
figure { margin: 0; padding: .7em; border-radius: .5em; background: var(--card); }
img { display: block; width: 100%; height: 12em; object-fit: contain; }
figcaption { margin: .5em 0; color: var(--faint); font-size: 13px; }
ol { list-style: none; margin: 0; padding: 0; }
ol li { display: flex; justify-content: space-between; gap: .6em; padding: .1em .4em; margin: .15em 0; }
ol li { background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); }
ol li:first-child { font-weight: 600; }
small { color: var(--faint); font-weight: 400; white-space: nowrap; }
</style>
<h1>Predictions</h1>
<p>{{ about | printable }} A bar and a percentage are the probability of a pair among all candidates; <em>new</em> marks
pairs without a training image.</p>
{% if cards | length < count %}
<p>To keep the page short, it shows the first {{ cards | length }} of {{ count }} photos.</p>
{% endif %}
<main>
{% for source, found, name in cards %}
<figure>
<img src="{{ source }}" alt="{{ name | printable }}" loading="lazy">
<figcaption title="{{ found.image | printable }}">{{ name | printable }}</figcaption>
<ol>
{% for pair in found.pairs %}
<li style="--share: {{ '%.1f' | format(100 * pair.probability) }}%"><span>{{ pair.attr | printable }} \
{{ pair.obj | printable }}{% if not pair.seen %} <small>new</small>{% endif %}</span>
<small>{{ '%.1f' | format(100 * pair.probability) }}%</small></li>
{% endfor %}
</ol>
</figure>
{% endfor %}
</main>
{% if errors %}
<h2>Photos that cannot be read</h2>
<ul>
{% for found in errors %}
<li>{{ found.error | printable }}</li>
{% endfor %}
</ul>
{% endif %}
</html>
"""
