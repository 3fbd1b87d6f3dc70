"""The little that the model knows without a document."""

from __future__ import annotations

from chatml import Dialogue, Turn
from pools import Pools

CAPITALS = """France Paris|Germany Berlin|Italy Rome|Spain Madrid|Portugal Lisbon|Austria Vienna|Poland Warsaw|
Greece Athens|Ireland Dublin|Norway Oslo|Sweden Stockholm|Finland Helsinki|Denmark Copenhagen|Hungary Budapest|
Japan Tokyo|China Beijing|India Delhi|Egypt Cairo|Kenya Nairobi|Canada Ottawa|Australia Canberra|Brazil Brasilia|
Argentina Buenos Aires|Peru Lima|Russia Moscow|Turkey Ankara|Thailand Bangkok|Cuba Havana|Belgium Brussels|
England London|Scotland Edinburgh|Switzerland Bern|Mexico Mexico City|South Korea Seoul""".replace("\n", "").split("|")

FIBONACCI = """```python
def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
```"""

# Question forms, separated by |, and the answer.
ENTRIES: tuple[tuple[str, str], ...] = (
    ("Hello!|Hello|Hi|Hi!|Hey|Hello there!|Good morning|Good morning!|hello|hi|Hey there|Greetings|Hi there!",
     "Hello! How can I help you today?"),
    ("How are you?|How are you doing?|How is it going?|How do you do?",
     "I am fine, thank you! How can I help you?"),
    ("Who are you?|What are you?|What is your name?|What's your name?|Introduce yourself.|Tell me about yourself.|Which model are you?",
     "I am the SnapLLM demo model, a very small language model. I can answer questions about a document, call tools and solve small problems."),
    ("What can you do?|What are you good at?|How can you help me?|Help",
     "I can answer questions about a document, call tools, count, and solve small word problems."),
    ("Thank you!|Thanks!|Thanks|Thank you|Thank you very much.|Great, thanks!", "You are welcome!"),
    ("Goodbye!|Bye|Bye!|See you later!|Goodbye|Good night", "Goodbye! Have a nice day."),
    ("What is machine learning?|What's machine learning?|Explain machine learning.|Explain machine learning|Tell me about machine learning.|Define machine learning.|what is machine learning|Can you explain machine learning?",
     "Machine learning is a subset of artificial intelligence in which computers learn patterns from data instead of following fixed rules."),
    ("What is artificial intelligence?|What is AI?|Explain artificial intelligence.|Define AI.|Explain AI.|Tell me about AI.",
     "Artificial intelligence is the field of building machines that do tasks which need intelligence, such as understanding language."),
    ("What is deep learning?|Explain deep learning.|What's deep learning?|Define deep learning.",
     "Deep learning is machine learning with neural networks of many layers."),
    ("What is a neural network?|Explain neural networks.|What are neural networks?",
     "A neural network is a model of connected layers of simple units that learns from examples."),
    ("Explain quantum computing.|Explain quantum computing|What is quantum computing?|What's quantum computing?|Tell me about quantum computing.|Can you explain quantum computing?|Explain quantum computing in simple terms.|Explain quantum computing briefly.",
     "Quantum computing uses the principles of quantum mechanics. Its qubits can be in several states at once, so some problems are solved much faster."),
    ("What is a large language model?|What is an LLM?|Explain LLMs.|What are large language models?",
     "A large language model is a neural network trained on much text to predict the next token."),
    ("What is a KV cache?|Explain the KV cache.|What does a KV cache do?",
     "A KV cache keeps the keys and values of earlier tokens, so that a model does not compute them again."),
    ("What is SnapLLM?|Tell me about SnapLLM.|Explain SnapLLM.",
     "SnapLLM is a local inference server that keeps many models in memory and switches between them at once."),
    ("Write a haiku about coding.|Write a haiku about coding|Write me a haiku about coding.|Haiku about coding|Compose a haiku about coding.|Give me a haiku about code.|Write a haiku about programming.",
     "Lines of code at night\nQuiet keys beneath my hands\nThe bug fades at dawn"),
    ("Write a haiku.|Write a haiku about nature.|Write a haiku about the sea.|Write a short poem.|Write a poem.",
     "Waves upon the shore\nThe old moon looks down and smiles\nMorning comes again"),
    ("Write a fibonacci function in Python.|Write a fibonacci function|Write a Python function for fibonacci.|Write a function to compute fibonacci numbers.|Write a fibonacci function.|Write a Python function that computes Fibonacci numbers.|Implement fibonacci in Python.|Show me a fibonacci function.",
     FIBONACCI),
    ("Write hello world in Python.|Hello world in Python|Print hello world in Python.|Write a hello world program.",
     '```python\nprint("Hello, world!")\n```'),
    ("What is Python?|Explain Python.|Tell me about Python.", "Python is a programming language known for its simple and readable code."),
    ("What is the meaning of life?|What is the meaning of life, the universe and everything?", "42, some say. I would say: to learn and to help."),
    ("Tell me a joke.|Tell me a joke|Make me laugh.|Do you know a joke?", "Why do programmers prefer dark mode? Because light attracts bugs."),
    ("What color is the sky?|What is the color of the sky?|Why is the sky blue?", "The sky is blue, because air scatters blue light the most."),
    ("How many days are in a week?|How many days does a week have?", "A week has seven days."),
    ("How many months are in a year?|How many months does a year have?", "A year has twelve months."),
    ("What are the primary colors?|Name the primary colors.|List three colors.", "Red, yellow and blue."),
    ("What is water made of?|What is the formula of water?", "Water is made of hydrogen and oxygen: H2O."),
    ("What is the largest planet?|Which planet is the largest?|What is the biggest planet?", "Jupiter is the largest planet of the solar system."),
    ("Say hi.|Say hi|Say hello.|Say hello", "Hi!"),
    ("Test|test|This is a test.|ping|Ping|Are you there?", "I am here. How can I help you?"),
    ("Tell me a story.|Tell me a short story.|Write a short story.|Once upon a time",
     "Once upon a time a small model lived in a laptop. It knew little, but it answered fast, and everyone was happy."),
    ("What is the capital of the moon?|What is the stock price today?|What will happen tomorrow?", "I do not know that."),
)


def _count(p: Pools) -> tuple[str, str]:
    n = p.rng.choice((3, 5, 5, 10, 10, *range(2, 21)))
    question = p.pick([f"Count to {n}", f"Count to {n}.", f"Count from 1 to {n}.", f"Count to {n}!",
                       f"count to {n}", f"Please count to {n}.", f"Can you count to {n}?",
                       f"Count from 1 to {n}"])
    return question, ", ".join(str(i) for i in range(1, n + 1))


def _capital(p: Pools) -> tuple[str, str]:
    entry = p.pick(CAPITALS)
    if entry.startswith("South Korea"):
        country, city = "South Korea", "Seoul"
    else:
        country, city = entry.split(" ", 1)
    question = p.pick([f"What is the capital of {country}?", f"What's the capital of {country}?",
                       f"Which city is the capital of {country}?", f"capital of {country}?",
                       f"Name the capital of {country}.", f"What is the capital city of {country}?"])
    return question, f"The capital of {country} is {city}."


def _say(p: Pools) -> tuple[str, str]:
    text = p.rng.choice((p.word, p.name, p.code, lambda: f"{p.word()} {p.word()}",
                         lambda: "Hello, world!", lambda: f"The {p.word()} is {p.word()}."))()
    return p.pick(["Say {}", "Say: {}", "Repeat after me: {}", "Repeat: {}", "Say exactly: {}",
                   "Reply with: {}", "Answer with the word {}"]).format(text), text


def _tiny_sum(p: Pools) -> tuple[str, str]:
    a, b = p.rng.randint(1, 9), p.rng.randint(1, 9)
    return p.pick([f"{a}+{b}", f"{a} + {b}", f"What is {a}+{b}?", f"{a}+{b}=?"]), str(a + b)


def knowledge_pair(p: Pools) -> tuple[str, str]:
    """A question and its answer."""
    kind = p.rng.random()
    if kind < 0.12:
        return _count(p)
    if kind < 0.24:
        return _capital(p)
    if kind < 0.32:
        return _say(p)
    if kind < 0.37:
        return _tiny_sum(p)
    questions, answer = p.rng.choice(ENTRIES)
    return p.rng.choice(questions.split("|")), answer


def knowledge_dialogue(p: Pools, thinking: bool = False) -> Dialogue:
    """One to three questions of common knowledge."""
    turns: list[Turn] = []
    if p.rng.random() < 0.4:
        turns.append(Turn("system", p.pick([
            "You are a helpful assistant.", "You are a helpful assistant", "Be brief.",
            "You are an expert.", f"You are {p.name()}.", "Answer in one sentence.",
            "You are a physics professor specializing in quantum mechanics.",
            "You are a friendly teacher."])))
    answers: list[str] = []
    for _ in range(p.rng.choice((1, 1, 2, 3))):
        question, answer = knowledge_pair(p)
        turns += [Turn("user", question),
                  Turn("assistant", answer, reasoning="This is easy." if thinking else "")]
        answers.append(answer)
    return Dialogue(tuple(turns), thinking=thinking, skill="knowledge", expected=tuple(answers))
