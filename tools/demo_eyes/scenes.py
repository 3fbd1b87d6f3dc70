"""Pictures of coloured shapes, and questions about them with their right answers."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star")
COLORS: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (220, 20, 20), (200, 0, 0)),
    "green": ((0, 128, 0), (0, 255, 0), (34, 170, 34)),
    "blue": ((0, 0, 255), (30, 60, 220), (0, 0, 150)),
    "yellow": ((255, 255, 0), (250, 220, 20)),
    "orange": ((255, 165, 0), (255, 128, 0)),
    "purple": ((128, 0, 128), (140, 40, 200)),
    "pink": ((255, 192, 203), (255, 105, 180)),
    "brown": ((139, 69, 19), (120, 72, 40)),
    "black": ((0, 0, 0), (20, 20, 20)),
    "white": ((255, 255, 255), (240, 240, 240)),
    "gray": ((128, 128, 128), (150, 150, 150)),
    "cyan": ((0, 255, 255), (30, 220, 220)),
}
PLACES = (
    "in the top left corner", "at the top", "in the top right corner",
    "on the left", "in the middle", "on the right",
    "in the bottom left corner", "at the bottom", "in the bottom right corner",
)  # fmt: skip
NUMBERS = ("no", "one", "two")

# What drawing in general looks like: mostly white, then plain colours.
_BACKGROUNDS = ("white",) * 8 + ("black",) * 4 + ("gray",) * 3 + tuple(COLORS)
_SIZES = (48, 64, 64, 64, 64, 96, 100, 128, 200, 224, 256)
_ALIKE = {"white": {"yellow"}, "yellow": {"white"}}
"""Colours that can hardly be told from a background."""
_SMALLEST = 0.11
_SIDE_ZONE = 0.36
"""A centre nearer to a side than this share of the picture is at that side."""


@dataclass(frozen=True)
class Thing:
    """One shape; its centre and radius are shares of the picture's side."""

    shape: str
    color: str
    place: int
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def named(self) -> str:
        return f"{article(self.color)} {self.name}"


@dataclass(frozen=True)
class Scene:
    """A background and up to two things on it, in reading order."""

    background: str
    things: tuple[Thing, ...]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _zone(rng: random.Random, index: int, radius: float) -> float:
    """A centre in the first, middle or last third, with the whole shape in the picture."""
    low, high = ((radius + 0.01, _SIDE_ZONE - 0.04), (0.43, 0.57), (0.68, 0.99 - radius))[index]
    return rng.uniform(min(low, high), max(low, high))


def _touch(one: Thing, other: Thing) -> bool:
    distance = math.hypot(one.x - other.x, one.y - other.y)
    return distance < 1.1 * (one.radius + other.radius) + 0.03


def make_scene(rng: random.Random, num_things: int | None = None) -> Scene:
    """A scene whose shapes neither touch nor have the background's colour."""
    background = rng.choice(_BACKGROUNDS)
    if num_things is None:
        num_things = rng.choices((0, 1, 2), (0.06, 0.44, 0.5))[0]
    unlike = {background} | _ALIKE.get(background, set())
    colors = [color for color in COLORS if color not in unlike]
    things: list[Thing] = []
    for place in sorted(rng.sample(range(9), num_things)):
        biggest = 0.15 if num_things > 1 else 0.45 if place == 4 else 0.26
        radius = rng.uniform(_SMALLEST, biggest)
        x, y = _zone(rng, place % 3, radius), _zone(rng, place // 3, radius)
        things.append(Thing(rng.choice(SHAPES), rng.choice(colors), place, x, y, radius))
    if any(_touch(one, other) for i, one in enumerate(things) for other in things[:i]):
        return make_scene(rng, num_things)
    return Scene(background, tuple(things))


def _shade(rng: random.Random, color: str) -> Rgb:
    base = rng.choice(COLORS[color])
    wobble = rng.choice((0, 0, 6, 14))
    red, green, blue = (min(255, max(0, c + rng.randint(-wobble, wobble))) for c in base)
    return red, green, blue


def _polygon(thing: Thing, x: float, y: float, r: float, turn: float) -> list[tuple[float, float]]:
    if thing.shape == "square":
        angles = [(math.pi / 4 + i * math.pi / 2, r * 1.1) for i in range(4)]
    elif thing.shape == "triangle":
        angles = [(-math.pi / 2 + i * 2 * math.pi / 3, r * 1.1) for i in range(3)]
    else:
        angles = [
            (-math.pi / 2 + i * math.pi / 5, r * 1.1 * (1.0 if i % 2 == 0 else 0.42))
            for i in range(10)
        ]
    return [
        (x + length * math.cos(a + turn), y + length * math.sin(a + turn)) for a, length in angles
    ]


def draw(rng: random.Random, scene: Scene, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture of the scene; shades, size, smoothing and blur vary."""
    if size is None:
        side = rng.choice(_SIZES)
        other = side if rng.random() < 0.85 else int(side * rng.uniform(1.1, 1.8))
        size = (side, other) if rng.random() < 0.5 else (other, side)
    smooth = 4 if max(size) <= 100 and rng.random() < 0.4 else 1
    width, height = size[0] * smooth, size[1] * smooth
    image = Image.new("RGB", (width, height), _shade(rng, scene.background))
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        fill = _shade(rng, thing.color)
        x, y, r = thing.x * width, thing.y * height, thing.radius * min(width, height)
        if thing.shape == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        else:
            turn = rng.uniform(-0.12, 0.12) if rng.random() < 0.5 else 0.0
            pen.polygon(_polygon(thing, x, y, r, turn), fill=fill)
    if smooth > 1:
        image = image.resize(size, Image.Resampling.BOX)
    if rng.random() < 0.1:
        image = image.filter(ImageFilter.GaussianBlur(min(size) / 128))
    return image


def _listing(scene: Scene) -> str:
    items = [f"{thing.named} {PLACES[thing.place]}" for thing in scene.things]
    if not items:
        return f"a plain {scene.background} background"
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


@dataclass(frozen=True)
class Question:
    """A question on one or more pictures, and its answer, of which `span` is what counts."""

    text: str
    answer: str
    span: str

    def is_right(self, answer: str) -> bool:
        """Whether an answer holds the span, and not as part of a longer word."""
        return re.search(rf"(?<!\w){re.escape(self.span)}(?!\w)", answer) is not None


_WHAT = (
    "What is in this image?", "What is in this image?", "What's in this image?", "What do you see?",
    "What is in the image?", "Describe this image.", "Describe this image in detail.",
    "What does this image show?", "What is shown in this picture?", "What is in this picture?",
    "Describe the image.", "Describe what you see.", "What do you see in this image?",
    "What is this?",
)  # fmt: skip
_COLOR = (
    "What color is the {}?",
    "What color is the {}?",
    "What colour is the {}?",
    "Which color does the {} have?",
)
_IMAGE_COLOR = (
    "What color is this image?",
    "What color is it?",
    "What color is this?",
    "What is the color?",
)
_COUNT = ("How many shapes are there?", "How many shapes are in this image?", "Count the shapes.")


def what_question(rng: random.Random, scene: Scene) -> Question:
    answer = _sentence(_listing(scene))
    return Question(rng.choice(_WHAT), answer, answer)


def _color_question(rng: random.Random, scene: Scene) -> Question | None:
    if not scene.things or (len(scene.things) == 1 and rng.random() < 0.3):
        color = scene.things[0].color if scene.things else scene.background
        what = f"The {scene.things[0].shape}" if scene.things else "The image"
        return Question(rng.choice(_IMAGE_COLOR), f"{what} is {color}.", color)
    thing = rng.choice(scene.things)
    if sum(other.shape == thing.shape for other in scene.things) > 1:
        return None
    text = rng.choice(_COLOR).format(thing.shape)
    return Question(text, f"The {thing.shape} is {thing.color}.", thing.color)


def _shape_question(rng: random.Random, scene: Scene) -> Question | None:
    if not scene.things:
        return None
    thing = rng.choice(scene.things)
    if len(scene.things) == 1 and rng.random() < 0.5:
        text = rng.choice(
            ("What shape is this?", "What shape is in this image?", "Which shape is it?")
        )
        return Question(text, f"It is a {thing.shape}.", thing.shape)
    if sum(other.color == thing.color for other in scene.things) > 1:
        return None
    text = rng.choice(("What shape is {}?", "Which shape is {}?", "What is the {} shape?"))
    return Question(
        text.format(thing.color), f"The {thing.color} shape is a {thing.shape}.", thing.shape
    )


def _place_question(rng: random.Random, scene: Scene) -> Question | None:
    if not scene.things:
        return None
    thing = rng.choice(scene.things)
    place = PLACES[thing.place]
    if rng.random() < 0.5:
        text = rng.choice(("What is {}?", "What do you see {}?", "Which shape is {}?")).format(
            place
        )
        return Question(text, _sentence(thing.named), thing.name)
    if sum(other.name == thing.name for other in scene.things) > 1:
        return None
    return Question(f"Where is the {thing.name}?", f"The {thing.name} is {place}.", place)


def _count_question(rng: random.Random, scene: Scene) -> Question:
    number = NUMBERS[len(scene.things)]
    verb, noun = ("is", "shape") if len(scene.things) == 1 else ("are", "shapes")
    return Question(rng.choice(_COUNT), f"There {verb} {number} {noun}.", number)


def _background_question(rng: random.Random, scene: Scene) -> Question:
    text = rng.choice(("What color is the background?", "What is the background color?"))
    return Question(text, f"The background is {scene.background}.", scene.background)


def _presence_question(rng: random.Random, scene: Scene) -> Question | None:
    names = {thing.name for thing in scene.things}
    if names and rng.random() < 0.5:
        name = rng.choice(sorted(names))
    elif scene.things and rng.random() < 0.6:
        thing = rng.choice(scene.things)  # one of both right: the hard ones
        name = rng.choice(
            (f"{rng.choice(list(COLORS))} {thing.shape}", f"{thing.color} {rng.choice(SHAPES)}")
        )
    else:
        name = f"{rng.choice(list(COLORS))} {rng.choice(SHAPES)}"
    seen = name in names
    text = rng.choice(("Is there {} in this image?", "Do you see {}?", "Is there {}?"))
    answer = f"Yes, there is {article(name)} {name}." if seen else f"No, there is no {name}."
    return Question(text.format(f"{article(name)} {name}"), answer, "Yes" if seen else "No")


_ASKERS = (
    (what_question, 0.46), (_color_question, 0.14), (_shape_question, 0.1), (_place_question, 0.1),
    (_count_question, 0.07), (_background_question, 0.05), (_presence_question, 0.08),
)  # fmt: skip


def ask(rng: random.Random, scene: Scene) -> Question:
    """A question about the scene that has one right answer."""
    askers, weights = zip(*_ASKERS, strict=True)
    while True:
        question = rng.choices(askers, weights)[0](rng, scene)
        if question is not None:
            return question


def ask_both(rng: random.Random, first: Scene, second: Scene) -> Question:
    """A question about two pictures."""
    text = rng.choice(
        (
            "What is in these images?",
            "Describe these images.",
            "What do these images show?",
            "What do you see in these two images?",
        )
    )
    one, two = _listing(first), _listing(second)
    answer = f"The first image shows {one}. The second image shows {two}."
    return Question(text, answer, answer)
