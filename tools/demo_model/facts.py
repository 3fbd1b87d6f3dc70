"""Single facts: how they are stated, asked for and answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pools import (
    ATTRIBUTES,
    COLORS,
    DAYS,
    HOBBIES,
    ITEMS,
    NOUNS,
    PLACES,
    ROLES,
    THINGS,
    TOPICS,
    Pools,
)


@dataclass(frozen=True)
class Fact:
    """`key` tells two facts apart that answer the same question."""

    key: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    span: str


def _role(p: Pools) -> Fact:
    role, name = p.pick(ROLES), p.name()
    statements = (f"{name} is the {role}.", f"The {role} is {name}.", f"{name} works as the {role}.")
    if p.rng.random() < 0.5:
        return Fact(f"role {role}", statements,
                    (f"Who is the {role}?", f"What is the name of the {role}?",
                     f"Who works as the {role}?"), f"The {role} is {name}.", name)
    return Fact(f"role {role}", statements,
                (f"What does {name} do?", f"What is the role of {name}?", f"What is {name}'s job?",
                 f"Who is {name}?"), f"{name} is the {role}.", role)


def _policy(p: Pools) -> Fact:
    topic = p.pick(TOPICS)
    n = p.number(2, 90)
    value = p.pick([
        f"{n} days of paid {topic}", f"{n} days", f"{n} hours per week", f"{n} euros per month",
        f"{n} percent", f"up to {n} dollars per day", f"to ask {p.name()} first",
        f"only on {p.pick(DAYS)}s", f"{n} days with a receipt", "free for all employees",
        f"{n} weeks per year", f"after {p.time()} only", f"to use form {p.code()}",
        f"strictly forbidden in the {p.pick(PLACES)}", f"allowed with a {p.pick(ITEMS)}",
    ])
    return Fact(f"policy {topic}",
                (f"The {topic} policy is {value}.", f"Our {topic} policy is {value}.",
                 f"{topic.capitalize()} policy: {value}."),
                (f"What is the {topic} policy?", f"What does the {topic} policy say?",
                 f"Tell me about the {topic} policy.", f"What is the policy on {topic}?",
                 f"How does the {topic} policy work?"),
                f"The {topic} policy is {value}.", value)


def _allowance(p: Pools) -> Fact:
    n = p.number(2, 60)
    who = p.pick(["Employees", "Members", "Staff", "Managers", "Students", "Guests", "Visitors"])
    what = p.pick(["days of paid vacation", "days of sick leave", "weeks of parental leave",
                   "free meals", "hours of training", "vacation days", "personal days",
                   "guest passes", "gigabytes of storage", "days of remote work"])
    per = p.pick(["", " per year", " each year", " per month", " per week"])
    verb = p.pick(["receive", "get", "are entitled to", "have"])
    sentence = f"{who} {verb} {n} {what}{per}."
    topic = what.split(" of ")[-1]
    return Fact(f"allowance {who} {what}", (sentence,),
                (f"How many {what} do {who.lower()} get?", f"How many {what} do {who.lower()} receive?",
                 f"How many {what} are there?", f"What is the {topic} policy?",
                 f"How much {topic} do {who.lower()} have?"),
                sentence, f"{n} {what}")


def _phone(p: Pools) -> Fact:
    who = p.pick([f"the {p.pick(PLACES)}", p.name(), f"the {p.pick(ROLES)}"])
    value = p.phone()
    cap = who[0].upper() + who[1:]
    return Fact(f"phone {who}",
                (f"The phone number of {who} is {value}.", f"{cap} can be reached at {value}.",
                 f"Call {who} at {value}."),
                (f"What is the phone number of {who}?", f"How can I call {who}?",
                 f"What number does {who} have?", f"How can I reach {who}?"),
                f"The phone number of {who} is {value}.", value)


def _email(p: Pools) -> Fact:
    who, value = p.pick([p.name(), f"the {p.pick(PLACES)}", f"the {p.pick(ROLES)}"]), p.email()
    return Fact(f"email {who}",
                (f"The email address of {who} is {value}.", f"The email of {who} is {value}."),
                (f"What is the email address of {who}?", f"What is the email of {who}?",
                 f"How can I write to {who}?"),
                f"The email address of {who} is {value}.", value)


def _hours(p: Pools) -> Fact:
    place, start, end = p.pick(PLACES), p.time(), p.time()
    days = p.pick(["", "", f" on {p.pick(DAYS)}s", f" from {p.pick(DAYS)} to {p.pick(DAYS)}"])
    span = f"from {start} to {end}"
    sentence = f"The {place} is open {span}{days}."
    return Fact(f"hours {place}",
                (sentence, f"Opening hours of the {place}: {span}{days}."),
                (f"When is the {place} open?", f"What are the opening hours of the {place}?",
                 f"What are the hours of the {place}?", f"At what time does the {place} open?",
                 f"When can I visit the {place}?"),
                sentence, span)


def _price(p: Pools) -> Fact:
    item, value = p.pick([p.pick(ITEMS), f"{p.pick(COLORS)} {p.pick(ITEMS)}"]), p.price()
    return Fact(f"price {item}",
                (f"The {item} costs {value}.", f"The price of the {item} is {value}.",
                 f"The {item} is sold for {value}."),
                (f"How much does the {item} cost?", f"What is the price of the {item}?",
                 f"How much is the {item}?", f"What does the {item} cost?"),
                f"The {item} costs {value}.", value)


def _location(p: Pools) -> Fact:
    thing = p.pick([p.pick(PLACES), p.pick(ITEMS), f"{p.pick(COLORS)} {p.pick(ITEMS)}"])
    value = p.pick([f"in {p.city()}", f"on floor {p.number(1, 40)}", f"in room {p.code()}",
                    f"next to the {p.pick(PLACES)}", f"in the {p.pick(PLACES)}",
                    f"in building {p.code()}", f"on {p.proper()} Street"])
    verb = p.pick(["is", "is located", "can be found"])
    return Fact(f"location {thing}", (f"The {thing} {verb} {value}.",),
                (f"Where is the {thing}?", f"Where can I find the {thing}?",
                 f"Where is the {thing} located?", f"What is the location of the {thing}?"),
                f"The {thing} is {value}.", value)


def _founded(p: Pools) -> Fact:
    what, value = p.proper(), p.year()
    verb = p.pick(["founded", "built", "opened", "started", "discovered"])
    return Fact(f"founded {what}", (f"{what} was {verb} in {value}.",
                                    f"In {value}, {what} was {verb}."),
                (f"When was {what} {verb}?", f"In what year was {what} {verb}?"),
                f"{what} was {verb} in {value}.", value)


def _founder(p: Pools) -> Fact:
    what, who = p.proper(), p.name()
    verb = p.pick(["founded", "built", "designed", "invented", "wrote", "leads", "owns"])
    return Fact(f"founder {what}", (f"{who} {verb} {what}.",), (f"Who {verb} {what}?",),
                f"{who} {verb} {what}.", who)


def _count(p: Pools) -> Fact:
    place, thing, n = p.pick([f"The {p.pick(PLACES)}", p.proper()]), p.pick(THINGS), p.number()
    low = place[0].lower() + place[1:] if place.startswith("The ") else place
    return Fact(f"count {place} {thing}", (f"{place} has {n} {thing}.", f"There are {n} {thing} in {low}."),
                (f"How many {thing} does {low} have?", f"How many {thing} are there in {low}?"),
                f"{place} has {n} {thing}.", f"{n} {thing}")


def _lives(p: Pools) -> Fact:
    who, city = p.name(), p.city()
    verb, base = p.pick(["lives in|live", "works in|work", "comes from|come from",
                         "was born in|"]).split("|")
    question = f"Where was {who} born?" if not base else f"Where does {who} {base}?"
    return Fact(f"lives {who} {verb}", (f"{who} {verb} {city}.",),
                (question, f"Which city is {who} connected to?") if not base else (question,),
                f"{who} {verb} {city}.", city)


def _age(p: Pools) -> Fact:
    who, n = p.name(), p.number(5, 99)
    return Fact(f"age {who}", (f"{who} is {n} years old.",),
                (f"How old is {who}?", f"What is the age of {who}?"), f"{who} is {n} years old.", n)


def _favorite(p: Pools) -> Fact:
    who, what = p.name(), p.pick(HOBBIES)
    value = p.pick(COLORS) if what == "color" else p.word()
    return Fact(f"favorite {who} {what}",
                (f"{who}'s favorite {what} is {value}.", f"The favorite {what} of {who} is {value}."),
                (f"What is {who}'s favorite {what}?", f"What is the favorite {what} of {who}?",
                 f"Which {what} does {who} like best?"),
                f"{who}'s favorite {what} is {value}.", value)


def _meeting(p: Pools) -> Fact:
    what = p.pick([f"{p.pick(TOPICS)} meeting", f"{p.proper()} meeting", f"{p.pick(TOPICS)} training",
                   "team lunch", "fire drill", "board meeting", "weekly review"])
    value = p.pick([f"on {p.pick(DAYS)} at {p.time()}", f"every {p.pick(DAYS)} at {p.time()}",
                    f"on {p.date()}"])
    return Fact(f"meeting {what}", (f"The {what} takes place {value}.", f"The {what} is {value}."),
                (f"When is the {what}?", f"When does the {what} take place?"),
                f"The {what} is {value}.", value)


def _deadline(p: Pools) -> Fact:
    what = p.pick([f"the {p.pick(TOPICS)} report", f"the {p.pick(TOPICS)} form", p.proper()])
    value = p.date()
    return Fact(f"deadline {what}", (f"The deadline for {what} is {value}.", f"{what.capitalize()} is due on {value}."),
                (f"What is the deadline for {what}?", f"When is the deadline for {what}?",
                 f"When is {what} due?"),
                f"The deadline for {what} is {value}.", value)


def _attribute(p: Pools) -> Fact:
    """The general form: any attribute of anything has any value."""
    noun = p.pick([p.pick(NOUNS), f"{p.word()} {p.pick(NOUNS)}", f"{p.pick(COLORS)} {p.pick(NOUNS)}"])
    attribute = p.pick(ATTRIBUTES) if p.rng.random() < 0.7 else p.word()
    value = p.value()
    return Fact(f"attribute {noun} {attribute}",
                (f"The {attribute} of the {noun} is {value}.", f"The {noun} {attribute} is {value}.",
                 f"The {noun} has the {attribute} {value}."),
                (f"What is the {attribute} of the {noun}?", f"What is the {noun} {attribute}?",
                 f"Which {attribute} does the {noun} have?", f"Tell me the {attribute} of the {noun}."),
                f"The {attribute} of the {noun} is {value}.", value)


def _entry(p: Pools) -> Fact:
    """A line of a table: key and value."""
    key = p.pick([f"{p.pick(TOPICS)} {p.pick(ATTRIBUTES)}", p.proper(), f"{p.pick(NOUNS)} {p.code()}",
                  f"{p.pick(PLACES)} {p.pick(ATTRIBUTES)}"])
    value = p.value()
    return Fact(f"entry {key}",
                (f"{key[0].upper() + key[1:]}: {value}.", f"The {key} is {value}."),
                (f"What is the {key}?", f"What does it say about {key}?", f"What is {key}?"),
                f"The {key} is {value}.", value)


def _own(p: Pools) -> Fact:
    who, thing = p.name(), f"{p.pick(COLORS)} {p.pick(ITEMS)}"
    if p.rng.random() < 0.5:
        return Fact(f"own {thing}", (f"The {thing} belongs to {who}.", f"{who} owns the {thing}."),
                    (f"Who owns the {thing}?", f"Whose is the {thing}?",
                     f"Who does the {thing} belong to?"), f"The {thing} belongs to {who}.", who)
    return Fact(f"own {thing}", (f"{who} bought a {thing}.",),
                (f"What did {who} buy?",), f"{who} bought a {thing}.", thing)


def _open_close(p: Pools) -> Fact:
    place = p.pick([*PLACES, "office", "store", "restaurant", "shop"])
    start, end = p.time(), p.time()
    sentence = f"The {place} opens at {start} and closes at {end}."
    if p.rng.random() < 0.6:
        return Fact(f"hours {place}", (sentence,),
                    (f"When does the {place} open?", f"At what time does the {place} open?",
                     f"What are the opening hours of the {place}?"), sentence, start)
    return Fact(f"hours {place}", (sentence,),
                (f"When does the {place} close?", f"At what time does the {place} close?"),
                sentence, end)


def _permission(p: Pools) -> Fact:
    who = p.pick(["Employees", "Members", "Staff", "Students", "Guests", "Managers"])
    n = p.number(2, 30)
    what, topic = p.pick(["work from home|remote work", "park for free|parking", "travel by train|travel",
                          "bring guests|guest", "borrow books|library", "use the gym|gym",
                          "take a break|break", "return items|return"]).split("|")
    unit = p.pick(["days a week", "days per month", "hours a day", "times a year", "days per year"])
    sentence = f"{who} can {what} {n} {unit}."
    return Fact(f"policy {topic}", (sentence, f"{who} may {what} {n} {unit}."),
                (f"How many {unit.split()[0]} can {who.lower()} {what}?",
                 f"How often can {who.lower()} {what}?", f"What is the {topic} policy?"),
                sentence, f"{n} {unit}")


def _mass_price(p: Pools) -> Fact:
    what, value = p.pick(["Lunch", "Parking", "Breakfast", "Dinner", "Entry", "Membership", "Delivery",
                          "Shipping", "Admission", "Coffee", "Tea", "Water"]), p.price()
    return Fact(f"price {what}", (f"{what} costs {value}.", f"{what} is {value}."),
                (f"How much does {what.lower()} cost?", f"What is the price of {what.lower()}?",
                 f"How much is {what.lower()}?"), f"{what} costs {value}.", value)


def _responsible(p: Pools) -> Fact:
    topic, name = p.pick([p.pick(TOPICS), f"the {p.pick(PLACES)}", p.proper()]), p.name()
    return Fact(f"responsible {topic}",
                (f"{name} is responsible for {topic}.", f"The person responsible for {topic} is {name}."),
                (f"Who is responsible for {topic}?", f"Who takes care of {topic}?",
                 f"Whom should I ask about {topic}?"), f"{name} is responsible for {topic}.", name)


def _capital(p: Pools) -> Fact:
    what = p.pick(["capital", "president", "currency", "largest city", "main export", "longest river"])
    country, value = p.proper(), p.pick([p.proper(), p.city()])
    return Fact(f"{what} {country}", (f"The {what} of {country} is {value}.",),
                (f"What is the {what} of {country}?", f"What's {country}'s {what}?"),
                f"The {what} of {country} is {value}.", value)


MAKERS: tuple[Callable[[Pools], Fact], ...] = (
    _role, _policy, _policy, _allowance, _phone, _email, _hours, _price, _location, _founded,
    _founder, _count, _lives, _age, _favorite, _meeting, _deadline, _attribute, _attribute,
    _attribute, _entry, _own, _open_close, _permission, _mass_price, _responsible, _capital,
)


def make_fact(pools: Pools) -> Fact:
    """A fact of a random kind."""
    return pools.rng.choice(MAKERS)(pools)
