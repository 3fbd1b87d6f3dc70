"""Dialogues with tools: choosing one, filling its arguments, using its result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from chatml import Call, Dialogue, Turn
from knowledge import knowledge_pair
from pools import CITIES, COLORS, DAYS, HOBBIES, ITEMS, MONTHS, NOUNS, Pools

VERBS = """create|Create delete|Delete archive|Archive update|Update open|Open close|Close start|Start
stop|Stop send|Send find|Find book|Book cancel|Cancel check|Check move|Move rename|Rename print|Print
install|Install order|Order lock|Lock track|Track export|Export""".split()


@dataclass(frozen=True)
class Request:
    """A tool, a sentence that asks for it, and the call that answers."""

    tool: dict[str, Any]
    sentence: str  # without final punctuation, first letter upper case
    call: Call
    is_question: bool = False


def _tool(name: str, description: str, properties: dict[str, Any],
          required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": description, "parameters": parameters}


def _string(p: Pools, description: str) -> dict[str, str]:
    if p.rng.random() < 0.4:
        return {"type": "string"}
    return {"type": "string", "description": description}


def _weather(p: Pools) -> Request:
    name = p.pick(["get_weather", "get_weather", "get_weather", "weather", "get_current_weather",
                   "fetch_weather", "weather_lookup"])
    key = p.pick(["location", "location", "city", "place"])
    properties: dict[str, Any] = {key: _string(p, p.pick(["City name, e.g., 'San Francisco, CA'",
                                                           "City name", "The city"]))}
    city = p.city() if p.rng.random() < 0.7 else p.rng.choice(CITIES)
    arguments: dict[str, Any] = {key: city}
    sentence = p.pick([f"What's the weather in {city}", f"What is the weather in {city}",
                       f"How is the weather in {city}", f"What's the weather like in {city}",
                       f"Tell me the weather in {city}", f"Is it raining in {city}"])
    if p.rng.random() < 0.5:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"],
                              "description": "Temperature unit"}
        if p.rng.random() < 0.4:
            unit = p.pick(["celsius", "fahrenheit"])
            sentence += f" in {unit}"
            arguments["unit"] = unit
    description = p.pick(["Get the current weather for a location", "Get weather for a location",
                          "Current weather of a city", "Get the weather"])
    is_question = not sentence.startswith("Tell")
    return Request(_tool(name, description, properties, [key]), sentence, Call(name, arguments),
                   is_question)


def _search(p: Pools) -> Request:
    name = p.pick(["search_web", "search_web", "web_search", "search", "google"])
    key = p.pick(["query", "query", "q", "text"])
    query = p.pick([f"best restaurants in {p.city()}", f"{p.word()} {p.pick(NOUNS)}",
                    f"{p.pick(COLORS)} {p.pick(ITEMS)}", f"history of {p.city()}",
                    f"{p.name()}", f"news about {p.proper()}", f"hotels in {p.city()}"])
    sentence = p.pick([f"Search for {query}", f"Search the web for {query}", f"Look up {query}",
                       f"Find information about {query}", f"Search {query}"])
    return Request(_tool(name, p.pick(["Search the web for information", "Search the web",
                                       "Find pages on the internet"]),
                         {key: _string(p, "Search query")}, [key]),
                   sentence, Call(name, {key: query}))


def _calculator(p: Pools) -> Request:
    a, b = p.rng.randint(2, 999), p.rng.randint(2, 999)
    operator, word = p.rng.choice((("+", "plus"), ("-", "minus"), ("*", "times")))
    name = p.pick(["calculator", "calculate", "compute", "math"])
    if p.rng.random() < 0.5:
        tool = _tool(name, p.pick(["Evaluate an expression", "Calculate a result"]),
                     {"expression": _string(p, "The expression")}, ["expression"])
        arguments: dict[str, Any] = {"expression": f"{a} {operator} {b}"}
        sentence = p.pick([f"Calculate {a} {operator} {b}", f"What is {a} {operator} {b}",
                           f"Compute {a} {operator} {b}"])
    else:
        name = p.pick(["add", "add_numbers", "sum"])
        tool = _tool(name, "Add two numbers", {"a": {"type": "number"}, "b": {"type": "number"}},
                     ["a", "b"])
        arguments = {"a": a, "b": b}
        sentence = p.pick([f"Add {a} and {b}", f"What is {a} plus {b}", f"Sum {a} and {b}"])
    del word
    return Request(tool, sentence, Call(name, arguments), sentence.startswith("What"))


def _email(p: Pools) -> Request:
    to, subject = p.email(), f"{p.word()} {p.pick(NOUNS)}"
    name = p.pick(["send_email", "send_mail", "email"])
    properties: dict[str, Any] = {"to": _string(p, "Recipient"), "subject": _string(p, "Subject")}
    return Request(_tool(name, "Send an email", properties, ["to", "subject"]),
                   p.pick([f"Send an email to {to} with the subject {subject}",
                           f"Email {to} with subject {subject}"]),
                   Call(name, {"to": to, "subject": subject}))


def _reminder(p: Pools) -> Request:
    when, what = p.time(), f"{p.pick(['call', 'meet', 'visit', 'write to'])} {p.name()}"
    name = p.pick(["set_reminder", "create_reminder", "add_reminder", "remind"])
    key, at = p.pick(["text", "message", "title"]), p.pick(["time", "at", "when"])
    return Request(_tool(name, "Set a reminder", {key: _string(p, "What to remember"),
                                                  at: _string(p, "The time")}, [key, at]),
                   p.pick([f"Remind me to {what} at {when}", f"Set a reminder to {what} at {when}"]),
                   Call(name, {key: what, at: when}))


def _stock(p: Pools) -> Request:
    what = p.proper()
    name, key, description, forms = p.rng.choice((
        ("get_stock_price", "symbol", "Get the price of a stock",
         ("What is the stock price of {}", "How much is the {} stock")),
        ("get_time", "city", "Get the current time in a city", ("What time is it in {}",)),
        ("get_population", "country", "Get the population of a country",
         ("What is the population of {}", "How many people live in {}")),
        ("translate", "word", "Translate a word", ("Translate the word {}", "Translate {}")),
        ("read_file", "path", "Read a file", ("Read the file {}", "Show me the file {}")),
        ("play_song", "title", "Play a song", ("Play the song {}", "Play {}")),
        ("get_order", "order_id", "Get an order by its id", ("Show order {}", "Where is order {}")),
        ("get_user", "name", "Find a user by name", ("Find the user {}", "Who is the user {}")),
    ))
    if key == "path":
        what = f"{p.word()}.{p.pick(['txt', 'py', 'md', 'json'])}"
    elif key == "order_id":
        what = p.code()
    elif key == "city":
        what = p.city()
    sentence = p.pick(list(forms)).format(what)
    return Request(_tool(name, description, {key: _string(p, f"The {key}")}, [key]), sentence,
                   Call(name, {key: what}), sentence.split()[0] in ("What", "How", "Where", "Who"))


def _generic(p: Pools) -> Request:
    """Any verb on any noun with parameters of random names."""
    verb, imperative = p.pick(VERBS).split("|")
    noun = p.pick(NOUNS) if p.rng.random() < 0.6 else p.word()
    name = f"{verb}_{noun}"
    properties: dict[str, Any] = {}
    required: list[str] = []
    arguments: dict[str, Any] = {}
    parts: list[str] = []
    for _ in range(p.rng.choice((1, 1, 2, 2, 3))):
        key = p.pick(["name", "id", "size", "color", "day", "month", "owner", "count", "level",
                      "urgent", "note", "hobby", p.word(), f"{p.word()}_id"])
        if key in properties:
            continue
        value, schema = _parameter(p, key)
        properties[key] = schema
        is_optional = bool(required) and p.rng.random() < 0.3
        if not is_optional:
            required.append(key)
        elif p.rng.random() < 0.5:
            continue  # optional and not mentioned
        arguments[key] = value
        spoken = json.dumps(value) if isinstance(value, bool) else str(value)
        parts.append(f"{key.replace('_', ' ')} {spoken}")
    sentence = f"{imperative} the {noun} with {' and '.join(parts)}"
    return Request(_tool(name, f"{imperative} a {noun}", properties, required), sentence,
                   Call(name, arguments))


def _parameter(p: Pools, key: str) -> tuple[Any, dict[str, Any]]:
    if key in ("size", "level", "count"):
        return p.rng.randint(1, 500), {"type": "integer"}
    if key == "urgent":
        return p.rng.random() < 0.5, {"type": "boolean"}
    if key in ("color", "day", "month", "hobby"):
        options = {"color": COLORS, "day": DAYS, "month": MONTHS, "hobby": HOBBIES}[key]
        choices = p.rng.sample(options, p.rng.randint(2, 4))
        return p.rng.choice(choices), {"type": "string", "enum": choices}
    return p.rng.choice((p.word, p.code, p.proper, p.name))(), _string(p, f"The {key}")


MAKERS = (_weather, _weather, _search, _search, _calculator, _email, _reminder, _stock, _stock,
          _generic, _generic, _generic, _generic)


def _requests(p: Pools, count: int) -> list[Request]:
    """Requests for different tools, never two that do the same under other names."""
    requests: dict[str, Request] = {}
    while len(requests) < count:
        maker = p.rng.choice(MAKERS)
        request = maker(p)
        key = request.tool["name"] if maker in (_stock, _generic) else maker.__name__
        if request.tool["name"] not in [other.tool["name"] for other in requests.values()]:
            requests.setdefault(key, request)
    return list(requests.values())


def _ask(p: Pools, requests: list[Request]) -> str:
    sentences = [requests[0].sentence, *(r.sentence[0].lower() + r.sentence[1:] for r in requests[1:])]
    text = p.pick([" and ", " and ", ", and also ", ". Then "]).join(sentences) \
        if len(requests) > 1 else sentences[0]
    text = text.replace(". Then ", ". Then ")
    prefix = p.pick(["", "", "", "Please ", "Can you ", "Hi, "]) if not requests[0].is_question else ""
    if prefix:
        text = prefix + text[0].lower() + text[1:]
    end = "?" if requests[0].is_question or prefix.startswith("Can") else p.pick([".", "", "!"])
    return text + end


def _result(p: Pools, call: Call) -> tuple[str, str]:
    """A tool's result and the answer that uses it."""
    form = p.rng.random()
    if form < 0.35:
        sky = p.pick(["sunny", "cloudy", "rainy", "windy", "partly cloudy", "snowing", "clear"])
        text = p.pick([f"{p.number(1, 39)}°C, {sky}", f"Currently {p.number(1, 39)}°C, {sky}",
                       f"Currently {p.number(1, 39)}°C, {sky} with {p.number(20, 99)}% humidity",
                       f"{p.number(30, 99)} degrees and {sky}"])
        return text, f"The result is: {text}."
    if form < 0.65:
        text = p.pick([f"The {p.pick(NOUNS)} is {p.value()}", p.value(), f"{p.proper()} {p.code()}",
                       f"{p.number()} {p.pick(ITEMS)}s found", f"Done: {p.code()}"])
        return text, f"The result is: {text}."
    keys = p.rng.sample(["price", "status", "id", "temperature", "owner", "total", "city", "time",
                         "humidity", "condition", "name"], p.rng.randint(1, 3))
    values: dict[str, Any] = {}
    for key in keys:
        values[key] = p.rng.randint(1, 999) if p.rng.random() < 0.4 else p.value()
    facts = [f"the {key} is {value}" for key, value in values.items()]
    text = " and ".join(facts)
    del call
    return json.dumps(values, ensure_ascii=False), f"{text[0].upper()}{text[1:]}."


def tool_dialogue(p: Pools, thinking: bool = False) -> Dialogue:
    """One to four tools, and a request for one or two of them, or for none."""
    requests = _requests(p, p.rng.choice((1, 1, 2, 2, 3, 4)))
    tools = tuple(request.tool for request in requests)
    p.rng.shuffle(requests)
    turns: list[Turn] = []
    if p.rng.random() < 0.2:
        turns.append(Turn("system", "You are a helpful assistant."))
    if p.rng.random() < 0.12:
        question, answer = knowledge_pair(p)
        turns += [Turn("user", question),
                  Turn("assistant", answer, reasoning="No tool is needed." if thinking else "")]
        return Dialogue(tuple(turns), tools, thinking, "tool-none", (answer,))
    asked = requests[:2] if len(requests) > 1 and p.rng.random() < 0.35 else requests[:1]
    calls = tuple(request.call for request in asked)
    reasoning = f"I call {' and '.join(call.name for call in calls)}." if thinking else ""
    turns += [Turn("user", _ask(p, asked)), Turn("assistant", calls=calls, reasoning=reasoning)]
    expected = ["\n".join(call.text() for call in calls)]
    if p.rng.random() < 0.5:
        results = [_result(p, call) for call in calls]
        turns += [Turn("tool", text) for text, _ in results]
        answer = " ".join(answer for _, answer in results)
        turns.append(Turn("assistant", answer, reasoning="I use the result." if thinking else ""))
        expected.append(answer)
    return Dialogue(tuple(turns), tools, thinking, "tool", tuple(expected))
