"""Words and values the dialogues are filled with.

Most names and codes are random: a model that has seen every value can remember
them, one that has not must copy. Random words, codes, phone numbers, prices and dates are
split into those of training and those of the evaluation; what is listed here, plain numbers,
years and times are not.
"""

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Callable
from functools import wraps

FIRST_NAMES = """Anna Ben Carla David Elena Felix Grace Henry Irene Jack Karen Liam Maria Nina Oscar Paula
Quinn Rosa Samuel Tina Uma Victor Wendy Xavier Yara Zoe Alice Bob Charles Diana Emma Frank George Hannah Ivan
Julia Kevin Laura Martin Nora Oliver Peter Rachel Simon Teresa Ursula Vera Walter Yusuf Ahmed Priya Chen Hiro
Sofia Lucas Mia Noah Ava Ethan Omar Leila Sven Ingrid Pablo Lucia Marco Giulia Pierre Claire John Jane Sarah
Michael Linda James Robert Mary Susan Tom Kate Paul Amy""".split()
LAST_NAMES = """Smith Jones Brown Taylor Wilson Davies Evans Thomas Johnson Roberts Walker Wright Green Hall
Wood Clarke Jackson Turner Hill Scott Cooper Morris Ward Moore King Baker Harris Lee Allen Young Garcia Lopez
Silva Rossi Weber Meyer Novak Kowalski Tanaka Kim Patel Singh Chen Nguyen Ali Hassan Larsen Berg Martin Doe""".split()
CITIES = """Paris London Berlin Madrid Rome Vienna Prague Oslo Lisbon Dublin Athens Warsaw Budapest Helsinki
Tokyo Osaka Seoul Beijing Shanghai Delhi Mumbai Cairo Nairobi Lagos Sydney Melbourne Toronto Montreal Boston
Chicago Denver Seattle Austin Dallas Houston Miami Atlanta Phoenix Portland Detroit Lima Bogota Santiago Munich
Hamburg Zurich Geneva Milan Naples Porto Lyon Nice Leeds York Bristol Dubai Singapore Bangkok Hanoi Manila""".split()
CITIES += ["New York", "San Francisco", "Los Angeles", "Hong Kong", "Cape Town", "Mexico City"]
COLORS = "red blue green yellow orange purple black white grey brown pink silver golden".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November
December""".split()
ROLES = """project manager|head of sales|head of marketing|chief executive|CEO|CTO|accountant|team lead|
office manager|lead engineer|designer|security officer|head of research|support lead|HR manager|director|
librarian|mayor|captain|head chef|principal|head of finance|data scientist|product owner|receptionist|
chief architect|treasurer|secretary|safety inspector|training coordinator""".replace("\n", "").split("|")
PLACES = """library|cafeteria|museum|main office|warehouse|parking garage|gym|bakery|reception|help desk|
swimming pool|pharmacy|post office|city hall|train station|airport|laboratory|meeting room|workshop|bookshop|
visitor center|hospital|school|theater|garden|server room|archive|clinic|bank|market|kitchen|showroom""".replace(
    "\n", ""
).split("|")
ITEMS = """coffee|sandwich|ticket|notebook|bicycle|lamp|chair|desk|umbrella|backpack|camera|keyboard|monitor|
phone|pizza|salad|cake|book|jacket|watch|printer|headset|tent|guitar|blanket|mug|pen|map|helmet|toaster""".replace(
    "\n", ""
).split("|")
THINGS = """rooms|employees|floors|students|members|desks|elevators|parking spaces|books|tables|chairs|
computers|windows|branches|vehicles|machines|servers|seats|visitors a day|volunteers""".replace("\n", "").split("|")
TOPICS = """vacation|travel|parking|remote work|dress code|expense|security|refund|visitor|lunch|overtime|
sick leave|password|return|privacy|safety|cleaning|pet|smoking|device|equipment|training|bonus|shipping|
cancellation|warranty|backup|meeting|recycling|printing|guest|holiday|noise|key card|laptop|phone|data""".replace(
    "\n", ""
).split("|")
ATTRIBUTES = """name|code|color|size|weight|height|version|status|capacity|address|budget|owner|limit|date|
number|level|type|speed|temperature|password|rate|length|target|score|region|language|motto|nickname""".replace(
    "\n", ""
).split("|")
NOUNS = """project|server|product|department|building|device|engine|river|bridge|ship|robot|garden|planet|
team|company|system|account|order|vehicle|machine|satellite|campaign|contract|route|package|printer|network|
printer|database|tower|station|laboratory|reactor|sensor|drone|tunnel|festival|recipe|document""".replace(
    "\n", ""
).split("|")
HOBBIES = "color food movie book sport animal drink season city song game fruit".split()
_ONSETS = "b d f g h j k l m n p r s t v w z br dr gr kl pl st tr sh ch".split()
_VOWELS = "a e i o u ai ea oo".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m", "k", "t", "x"]


def is_held_out(value: str) -> bool:
    """Whether a word, a value or a question is kept for the evaluation (one in eight)."""
    return zlib.crc32(value.encode()) % 8 == 0


def _split(draw: Callable[[Pools], str]) -> Callable[[Pools], str]:
    """Draws again until the value is one of the training's, or of the evaluation's."""

    @wraps(draw)
    def drawn(p: Pools) -> str:
        while True:
            value = draw(p)
            if is_held_out(value) == p.held_out:
                return value

    return drawn


class Pools:
    """Draws values. With `held_out`, those that are split are ones training never draws."""

    def __init__(self, rng: random.Random, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def pick(self, options: list[str]) -> str:
        return self.rng.choice(options)

    @_split
    def word(self) -> str:
        """A word of random syllables, lower case."""
        count = self.rng.choice((2, 2, 3))
        return "".join(
            self.pick(_ONSETS) + self.pick(_VOWELS) + self.pick(_CODAS) for _ in range(count)
        )

    def name(self) -> str:
        """A person's first name, often with a last name."""
        first = self.pick(FIRST_NAMES) if self.rng.random() < 0.5 else self.word().capitalize()
        if self.rng.random() < 0.4:
            return first
        last = self.pick(LAST_NAMES) if self.rng.random() < 0.5 else self.word().capitalize()
        return f"{first} {last}"

    def proper(self) -> str:
        """The name of a company, product or place."""
        return self.word().capitalize()

    def city(self) -> str:
        return self.pick(CITIES) if self.rng.random() < 0.6 else self.proper()

    def number(self, low: int = 2, high: int = 999) -> str:
        if self.rng.random() < 0.5:
            high = min(high, 99)
        return str(self.rng.randint(low, high))

    @_split
    def code(self) -> str:
        kind = self.rng.random()
        letters = "".join(self.rng.choices(string.ascii_uppercase, k=self.rng.randint(1, 3)))
        digits = "".join(self.rng.choices(string.digits, k=self.rng.randint(2, 5)))
        if kind < 0.4:
            return f"{letters}-{digits}"
        if kind < 0.7:
            return f"{letters}{digits}"
        return digits

    @_split
    def phone(self) -> str:
        groups = [3, 4] if self.rng.random() < 0.5 else [3, 3, 4]
        return "-".join("".join(self.rng.choices(string.digits, k=size)) for size in groups)

    def email(self) -> str:
        return f"{self.word()}@{self.word()}.{self.pick(['com', 'org', 'net'])}"

    @_split
    def price(self) -> str:
        if self.rng.random() < 0.6:
            return f"{self.number(2, 500)} dollars"
        return f"${self.number(1, 99)}.{self.rng.randint(0, 99):02d}"

    @_split
    def date(self) -> str:
        day = f"{self.pick(MONTHS)} {self.rng.randint(1, 28)}"
        return f"{day}, {self.rng.randint(1990, 2035)}" if self.rng.random() < 0.4 else day

    def year(self) -> str:
        return str(self.rng.randint(1800, 2030))

    def time(self) -> str:
        hour = self.rng.randint(1, 12)
        minute = self.pick(["", "", ":30", ":15", ":45"])
        return f"{hour}{minute} {self.pick(['am', 'pm'])}"

    def value(self) -> str:
        """A value of any kind."""
        return self.rng.choice(
            (self.code, self.number, self.proper, self.name, self.city, self.date, self.price)
        )()
