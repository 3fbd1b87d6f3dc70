"""Questions about a document that stands in the context."""

from __future__ import annotations

from collections import Counter

from chatml import Dialogue, Turn
from facts import Fact, make_fact
from pools import CITIES, ITEMS, NOUNS, PLACES, TOPICS, Pools

NOT_STATED = "This is not stated in the document."
PREAMBLES = (
    "You are a helpful assistant.",
    "Use the following document to answer questions.",
    "Answer the user's questions from this document.",
    "You answer questions about the document below.",
)
QUESTION_FORMS = ("{}",) * 10 + (
    "Question: {}", "Please tell me: {}", "I have a question. {}", "According to the document, {}",
    "Hi! {}", "{} Thanks!", "{} Answer in one sentence.", "From the text: {}",
)


def _filler(p: Pools) -> str:
    return p.pick([
        f"Everyone likes the {p.pick(PLACES)} in the summer.",
        f"Please keep your {p.pick(ITEMS)} clean.",
        f"We are proud of our work in {p.pick(CITIES)}.",
        "This section was reviewed last year.",
        f"Questions about the {p.pick(NOUNS)} are always welcome.",
        "More details will follow soon.",
        f"The {p.pick(TOPICS)} rules apply to everyone.",
        "Thank you for reading this carefully.",
        f"A new {p.pick(NOUNS)} was shown to the guests.",
        "The weather was fine on that day.",
    ])


def _facts(p: Pools, count: int) -> list[Fact]:
    facts: dict[str, Fact] = {}
    while len(facts) < count:
        fact = make_fact(p)
        facts.setdefault(fact.key, fact)
    return list(facts.values())


def _document(p: Pools, facts: list[Fact]) -> str:
    sentences = [p.rng.choice(fact.statements) for fact in facts]
    for _ in range(int(len(sentences) * p.rng.choice((0, 0, 0.2, 0.5)))):
        sentences.insert(p.rng.randint(0, len(sentences)), _filler(p))
    form = p.rng.random()
    if form < 0.45:
        text = " ".join(sentences)
    elif form < 0.6:
        text = "\n".join(sentences)
    elif form < 0.75:
        text = "\n".join(f"- {sentence}" for sentence in sentences)
    else:
        size = p.rng.randint(2, 5)
        groups = [sentences[i:i + size] for i in range(0, len(sentences), size)]
        if form < 0.88:
            text = "\n\n".join(" ".join(group) for group in groups)
        else:
            text = "\n\n".join(
                f"## {p.pick(TOPICS).capitalize()}\n" + "\n".join(group) for group in groups
            )
    if p.rng.random() < 0.3:
        title = p.pick(["Company Handbook", "Handbook", "Notes", "Report", f"About {p.proper()}",
                        f"{p.proper()} Guide", "Employee Handbook", "Facts"])
        text = f"# {title}\n\n{text}" if p.rng.random() < 0.6 else f"{title}\n{text}"
    return text


def _question(p: Pools, question: str) -> str:
    form = p.rng.choice(QUESTION_FORMS)
    if form.startswith("According"):
        question = question[0].lower() + question[1:]
    return form.format(question)


def document_dialogue(p: Pools, num_facts: int, num_questions: int, thinking: bool = False) -> Dialogue:
    """Several questions on one document of `num_facts` facts."""
    facts = _facts(p, num_facts + 1)
    absent = facts.pop()
    document = _document(p, facts)
    answering = Counter(question.lower() for fact in facts for question in set(fact.questions))
    pairs: list[tuple[str, str, str]] = []
    for fact in p.rng.sample(facts, len(facts)):
        # Only what one fact alone answers: two may tell of free meals, of members and of guests.
        clear = [question for question in fact.questions if answering[question.lower()] == 1]
        if clear:
            pairs.append((p.rng.choice(clear), fact.answer, fact.span))
        if len(pairs) == num_questions:
            break
    unanswered = [question for question in absent.questions if not answering[question.lower()]]
    if unanswered and p.rng.random() < 0.2:
        pairs.insert(p.rng.randint(0, len(pairs)), (p.rng.choice(unanswered), NOT_STATED, NOT_STATED))

    turns: list[Turn] = []
    place = p.rng.random()
    in_user = ""
    if place < 0.55:
        turns.append(Turn("system", document))
    elif place < 0.7:
        turns.append(Turn("system", f"{p.pick(list(PREAMBLES))}\n\n{document}"))
    else:
        if place > 0.9:
            turns.append(Turn("system", "You are a helpful assistant."))
        in_user = p.pick([f"{document}\n\n", f"Context:\n{document}\n\n", f"{document}\n",
                          f"Here is a document:\n{document}\n\n"])
    for number, (question, answer, _) in enumerate(pairs):
        asked_text = _question(p, question)
        turns.append(Turn("user", in_user + asked_text if number == 0 else asked_text))
        reasoning = ""
        if thinking:
            found = answer != NOT_STATED
            reasoning = f"The document says: {answer}" if found else "The document does not say it."
        turns.append(Turn("assistant", answer, reasoning=reasoning))
    return Dialogue(tuple(turns), thinking=thinking, skill="document",
                    expected=tuple(span for _, _, span in pairs))


def copy_dialogue(p: Pools, length: int) -> Dialogue:
    """Repeat a random string: teaches copying by itself."""
    words = [p.rng.choice((p.word, p.code, p.name, p.email, p.phone))() for _ in range(length)]
    text = " ".join(words)
    form = p.pick(["Repeat: {}", "Say {}", "Say: {}", "Repeat after me: {}", "Copy this: {}"])
    return Dialogue((Turn("user", form.format(text)), Turn("assistant", text)), skill="copy",
                    expected=(text,))


def lookup_dialogue(p: Pools, num_pairs: int, num_questions: int) -> Dialogue:
    """A table of random keys and values: teaches looking up by itself."""
    table: dict[str, str] = {}
    while len(table) < num_pairs:
        table[p.word()] = p.rng.choice((p.word, p.code, p.number, p.proper))()
    joiner = p.pick([" is ", ": ", " = "])
    separator = p.pick([". ", "\n", ", "])
    document = separator.join(f"{key}{joiner}{value}" for key, value in table.items())
    turns = [Turn("system", document)]
    keys = p.rng.sample(list(table), min(num_questions, num_pairs))
    form = p.pick(["What is {}?", "{}?", "{}"])
    for key in keys:
        turns += [Turn("user", form.format(key)), Turn("assistant", f"{key} is {table[key]}.")]
    return Dialogue(tuple(turns), skill="lookup", expected=tuple(table[key] for key in keys))
