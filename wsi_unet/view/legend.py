"""The scale bar and the legend of a picture."""

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
    """One item of a legend: a colour (R, G, B), a name, and a remark such as the area."""

    color: tuple[int, int, int]
    name: str
    remark: str


@dataclass(frozen=True)
class _Pen:
    """Writes on one picture at one text height, `size` px."""

    draw: ImageDraw.ImageDraw
    size: int

    def write(self, x: float, y: float, text: str, fill: tuple[int, int, int]) -> float:
        """Write `text` from x, vertically centred on y, and return the x where it ends."""
        for piece, raised in _split_superscripts(text):
            size = self.size * 0.62 if raised else self.size
            font = load_font(round(size), piece)
            up = self.size * 0.28 if raised else 0
            self.draw.text((x, y - up), piece, fill=fill, font=font, anchor="lm")
            x += font.getlength(piece)
        return x


def _split_superscripts(text: str) -> list[tuple[str, bool]]:
    """Split at "²", which Pillow's own font lacks: [(text, whether it is raised)]."""
    pieces: list[tuple[str, bool]] = []
    for number, piece in enumerate(text.split("²")):
        pieces += ([("2", True)] if number else []) + ([(piece, False)] if piece else [])
    return pieces


def measure_text(text: str, size: int) -> float:
    """Return the width of `text`, px."""
    pen = _Pen(ImageDraw.Draw(Image.new("RGB", (1, 1))), size)
    return pen.write(0, 0, text, INK)


def load_font(size: int, text: str) -> Font:
    """Return Pillow's own font; for text beyond ASCII, a fuller one if the system has it."""
    if not text.isascii():
        try:
            return ImageFont.truetype("DejaVuSans.ttf", size)
        except OSError:
            pass  # some letters become boxes, which is better than no picture
    return ImageFont.load_default(size)


def round_length(at_most: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is at most `at_most`.

    >>> [round_length(length) for length in (730.0, 200.0, 0.19)]
    [500.0, 200.0, 0.1]
    """
    power = float(f"1e{f'{at_most:e}'.split('e')[1]}")
    return next(power * step for step in (5, 2, 1) if power * step <= at_most)


def format_length(micrometres: float) -> str:
    """Write a length in mm or nm (Pillow's own font has no µ).

    >>> format_length(50.0), format_length(2000.0), format_length(0.5)
    ('0.05 mm', '2 mm', '500 nm')
    """
    if micrometres < 1:
        return f"{micrometres * 1000:g} nm"
    return f"{micrometres / 1000:g} mm"


def draw_scale_bar(picture: Image.Image, pixel_size: float) -> None:
    """Draw a scale bar into the lower left corner.

    Args:
        picture: RGB; changed in place.
        pixel_size: size of its pixels, µm.
    """
    length = round_length(picture.width * pixel_size / 4)
    width = max(1, round(length / pixel_size))
    size = choose_font_size(picture)
    text = format_length(length)
    text_width = measure_text(text, size)
    thick = max(3, size // 4)
    box_width = max(width, round(text_width)) + 2 * size
    box_height = 2 * size + thick + size // 2
    left, top = size // 2, picture.height - box_height - size // 2
    # On a light sheet, because neither black nor white shows on every slide.
    sheet = Image.new("RGB", (box_width, box_height), PAPER)
    below = picture.crop((left, top, left + box_width, top + box_height))
    picture.paste(Image.blend(below, sheet, 0.8), (left, top))
    draw = ImageDraw.Draw(picture)
    middle = left + box_width / 2
    _Pen(draw, size).write(middle - text_width / 2, top + size * 0.85, text, INK)
    y, start = top + box_height - size // 2 - thick, round(middle - width / 2)
    draw.rectangle((start, y, start + width - 1, y + thick - 1), fill=INK)


def add_legend(picture: Image.Image, title: str, entries: Sequence[LegendEntry]) -> Image.Image:
    """Return the picture above a strip with a title and the legend's entries, line by line."""
    size = choose_font_size(picture)
    small = max(10, round(size * 0.85))
    line, swatch, space = round(size * 1.9), round(1.6 * size), size // 2
    widths = [
        round(swatch + measure_text(entry.name, size) + space + measure_text(entry.remark, small))
        for entry in entries
    ]
    needed = max([*widths, round(measure_text(title, size))]) + 2 * MARGIN
    width = max(picture.width, needed)
    positions: list[tuple[int, int]] = []  # (x, line)
    x, row = MARGIN, 1
    for entry_width in widths:
        if x > MARGIN and x + entry_width > width - MARGIN:
            x, row = MARGIN, row + 1
        positions.append((x, row))
        x += entry_width + 2 * size
    sheet = Image.new("RGB", (width, picture.height + (row + 1) * line + MARGIN), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    middle = picture.height + MARGIN // 2 + line // 2
    _Pen(draw, size).write(MARGIN, middle, title, INK)
    for entry, (x, row) in zip(entries, positions, strict=True):
        y, half = middle + row * line, size // 2
        draw.rectangle((x, y - half, x + size, y + half), fill=entry.color, outline=INK)
        end = _Pen(draw, size).write(x + swatch, y, entry.name, INK)
        _Pen(draw, small).write(end + space, y, entry.remark, FAINT)
    return sheet


def choose_font_size(picture: Image.Image) -> int:
    """Return a text height, px, that can be read when the whole picture fills a screen."""
    return max(12, round(max(picture.size) / 70))
