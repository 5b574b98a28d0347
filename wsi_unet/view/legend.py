"""What stands around a picture: scale bar and legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

INK = (32, 32, 32)
FAINT = (110, 110, 110)
PAPER = (255, 255, 255)
MARGIN = 16

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class LegendEntry:
    """One item of a legend: a colour (R, G, B), a name and a remark such as its area."""

    color: tuple[int, int, int]
    name: str
    remark: str


@dataclass(frozen=True)
class _Pen:
    """Writes on one picture, at one text height."""

    draw: ImageDraw.ImageDraw
    size: int

    def write(self, x: float, y: float, text: str, fill: tuple[int, int, int]) -> float:
        """Write `text` from x, centred on y; return where it ends. "²" is raised by hand."""
        for part, raised in _parts(text):
            size = self.size * 0.62 if raised else self.size
            font = load_font(round(size), part)
            up = self.size * 0.28 if raised else 0
            self.draw.text((x, y - up), part, fill=fill, font=font, anchor="lm")
            x += font.getlength(part)
        return x


def _parts(text: str) -> list[tuple[str, bool]]:
    """Cut at "²", which Pillow's own font lacks: [(text, whether it is raised)]."""
    parts: list[tuple[str, bool]] = []
    for number, part in enumerate(text.split("²")):
        parts += ([("2", True)] if number else []) + ([(part, False)] if part else [])
    return parts


def text_width(text: str, size: int) -> float:
    """Return how wide `text` will be, px."""
    pen = _Pen(ImageDraw.Draw(Image.new("RGB", (1, 1))), size)
    return pen.write(0, 0, text, INK)


def load_font(size: int, text: str) -> Font:
    """Return Pillow's own font, or for text beyond ASCII a fuller one where the system has it."""
    if not text.isascii():
        try:
            return ImageFont.truetype("DejaVuSans.ttf", size)
        except OSError:
            pass  # some letters become boxes, which is no reason to give no picture
    return ImageFont.load_default(size)


def nice_length(at_most: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not above `at_most`.

    >>> [nice_length(length) for length in (730.0, 200.0, 0.19)]
    [500.0, 200.0, 0.1]
    """
    power = float(f"1e{f'{at_most:e}'.split('e')[1]}")
    return next(power * step for step in (5, 2, 1) if power * step <= at_most)


def length_text(micrometers: float) -> str:
    """Return a length in mm or nm (Pillow's own font has no µ).

    >>> length_text(50.0), length_text(2000.0), length_text(0.5)
    ('0.05 mm', '2 mm', '500 nm')
    """
    if micrometers < 1:
        return f"{micrometers * 1000:g} nm"
    return f"{micrometers / 1000:g} mm"


def draw_scale_bar(picture: Image.Image, pixel_size: float) -> None:
    """Draw a scale bar into the lower left corner.

    Args:
        picture: RGB; changed in place.
        pixel_size: of the picture, µm.
    """
    length = nice_length(picture.width * pixel_size / 4)
    width = max(1, round(length / pixel_size))
    size = font_size(picture)
    text = length_text(length)
    written = text_width(text, size)
    thick = max(3, size // 4)
    box_width = max(width, round(written)) + 2 * size
    box_height = 2 * size + thick + size // 2
    left, top = size // 2, picture.height - box_height - size // 2
    # A sheet of paper below, because neither black nor white shows on every slide.
    sheet = Image.new("RGB", (box_width, box_height), PAPER)
    below = picture.crop((left, top, left + box_width, top + box_height))
    picture.paste(Image.blend(below, sheet, 0.8), (left, top))
    draw = ImageDraw.Draw(picture)
    middle = left + box_width / 2
    _Pen(draw, size).write(middle - written / 2, top + size * 0.85, text, INK)
    y, start = top + box_height - size // 2 - thick, round(middle - width / 2)
    draw.rectangle((start, y, start + width - 1, y + thick - 1), fill=INK)


def with_legend(picture: Image.Image, title: str, entries: Sequence[LegendEntry]) -> Image.Image:
    """Return `picture` with a strip below it: a title, then swatches that flow over the lines."""
    size = font_size(picture)
    small = max(10, round(size * 0.85))
    line, swatch, space = round(size * 1.9), round(1.6 * size), size // 2
    widths = [
        round(swatch + text_width(entry.name, size) + space + text_width(entry.remark, small))
        for entry in entries
    ]
    needed = max([*widths, round(text_width(title, size))]) + 2 * MARGIN
    width = max(picture.width, needed)
    places: list[tuple[int, int]] = []
    x, row = MARGIN, 1
    for entry_width in widths:
        if x > MARGIN and x + entry_width > width - MARGIN:
            x, row = MARGIN, row + 1
        places.append((x, row))
        x += entry_width + 2 * size
    sheet = Image.new("RGB", (width, picture.height + (row + 1) * line + MARGIN), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    middle = picture.height + MARGIN // 2 + line // 2
    _Pen(draw, size).write(MARGIN, middle, title, INK)
    for entry, (x, row) in zip(entries, places, strict=True):
        y, half = middle + row * line, size // 2
        draw.rectangle((x, y - half, x + size, y + half), fill=entry.color, outline=INK)
        end = _Pen(draw, size).write(x + swatch, y, entry.name, INK)
        _Pen(draw, small).write(end + space, y, entry.remark, FAINT)
    return sheet


def font_size(picture: Image.Image) -> int:
    """Return a text height that can be read when the whole picture fills a screen, px."""
    return max(12, round(max(picture.size) / 70))
