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
    """One item of a legend.

    Attributes:
        color: (R, G, B).
        name: what has that colour.
        remark: a remark, such as the area.
        dashed: whether it is a dashed line, and not an area with a colour.
    """

    color: tuple[int, int, int]
    name: str
    remark: str
    dashed: bool = False


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


def draw_scale_bar(
    band: Image.Image, pixel_size: float, picture: tuple[int, int], top: int
) -> None:
    """Draw what lies in a band of a scale bar in the lower left corner of a picture.

    Args:
        band: RGB rows of the picture; changed in place.
        pixel_size: size of its pixels, µm.
        picture: (width, height) of the whole picture, px.
        top: row of the picture that the band begins with.
    """
    length = round_length(picture[0] * pixel_size / 4)
    width = max(1, round(length / pixel_size))
    size = choose_font_size(picture)
    text = format_length(length)
    text_width = measure_text(text, size)
    thick = max(3, size // 4)
    box_width = max(width, round(text_width)) + 2 * size
    box_height = 2 * size + thick + size // 2
    left, upper = size // 2, picture[1] - box_height - size // 2 - top
    if upper >= band.height:
        return
    # On a light sheet, because neither black nor white shows on every slide.
    sheet = Image.new("RGB", (box_width, box_height), PAPER)
    below = band.crop((left, upper, left + box_width, upper + box_height))
    band.paste(Image.blend(below, sheet, 0.8), (left, upper))
    draw = ImageDraw.Draw(band)
    middle = left + box_width / 2
    _Pen(draw, size).write(middle - text_width / 2, upper + size * 0.85, text, INK)
    y, start = upper + box_height - size // 2 - thick, round(middle - width / 2)
    draw.rectangle((start, y, start + width - 1, y + thick - 1), fill=INK)


def draw_legend(
    picture: tuple[int, int], title: str, entries: Sequence[LegendEntry]
) -> Image.Image:
    """Return a strip with a title and the legend's entries, line by line.

    Args:
        picture: (width, height) of the picture above it, px. The strip is as wide, or wider if its
            texts need that.
        title: the first line.
        entries: what is explained.
    """
    size = choose_font_size(picture)
    small = max(10, round(size * 0.85))
    line, swatch, space = round(size * 1.9), round(1.6 * size), size // 2
    widths = [
        round(swatch + measure_text(entry.name, size) + space + measure_text(entry.remark, small))
        for entry in entries
    ]
    needed = max([*widths, round(measure_text(title, size))]) + 2 * MARGIN
    width = max(picture[0], needed)
    positions: list[tuple[int, int]] = []  # (x, line)
    x, row = MARGIN, 1
    for entry_width in widths:
        if x > MARGIN and x + entry_width > width - MARGIN:
            x, row = MARGIN, row + 1
        positions.append((x, row))
        x += entry_width + 2 * size
    sheet = Image.new("RGB", (width, (row + 1) * line + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    middle = MARGIN // 2 + line // 2
    _Pen(draw, size).write(MARGIN, middle, title, INK)
    for entry, (x, row) in zip(entries, positions, strict=True):
        y = middle + row * line
        _draw_swatch(draw, entry, (x, y - size // 2, x + size, y + size // 2))
        end = _Pen(draw, size).write(x + swatch, y, entry.name, INK)
        _Pen(draw, small).write(end + space, y, entry.remark, FAINT)
    return sheet


def _draw_swatch(
    draw: ImageDraw.ImageDraw, entry: LegendEntry, box: tuple[int, int, int, int]
) -> None:
    if not entry.dashed:
        draw.rectangle(box, fill=entry.color, outline=INK)
        return
    x0, y0, x1, y1 = box
    width = max(2, (x1 - x0) // 6)
    for number in range(0, 6, 2):  # three dashes on each side, black, with white between
        start, stop = (round(x0 + (x1 - x0) * (number + end) / 5) for end in (0, 1))
        down = y0 - x0
        for edge in (y0, y1 - width):
            draw.rectangle((start, edge, stop - 1, edge + width), fill=entry.color)
        for edge in (x0, x1 - width):
            draw.rectangle((edge, start + down, edge + width, stop - 1 + down), fill=entry.color)


def choose_font_size(picture: tuple[int, int]) -> int:
    """Return a text height, px, that can be read when the whole picture fills a screen."""
    return max(12, round(max(picture) / 70))
