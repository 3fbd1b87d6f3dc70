"""Measures the demo's eyes over HTTP on pictures that are drawn anew.

`python evaluate_eyes.py [--url http://127.0.0.1:6930] [--num 400]` asks a running server
and prints a Markdown table. Training draws from seeds of its own: scenes with shapes hardly
come twice, but of the pictures without any about half are ones that training had too.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from scenes import Question, ask, ask_both, draw, make_scene, what_question

SEED = 20_000_003


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def make_cases(num: int) -> list[tuple[str, list[str], Question]]:
    """(row, pictures, question), always the same for the same `num`."""
    rng = random.Random(SEED)
    cases: list[tuple[str, list[str], Question]] = []
    for count in (0, 1, 2):
        for _ in range(num if count in (1, 2) else num // 4):
            scene = make_scene(rng, count)
            row = f"What is in this image? ({count} shape{'s' if count != 1 else ''})"
            cases.append((row, [data_url(draw(rng, scene))], what_question(rng, scene)))
    for _ in range(num):
        scene = make_scene(rng)
        cases.append(("All kinds of questions", [data_url(draw(rng, scene))], ask(rng, scene)))
    for _ in range(num // 4):
        scenes = [make_scene(rng, 1) for _ in range(2)]
        pictures = [data_url(draw(rng, scene)) for scene in scenes]
        cases.append(("What is in these images? (two)", pictures, ask_both(rng, *scenes)))
    return cases


def answer_of(url: str, model: str, pictures: list[str], text: str) -> str:
    parts = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
    body = {
        "model": model,
        "temperature": 0,
        "max_tokens": 120,
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:6930")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--num", type=int, default=400, help="cases per row, about")
    parser.add_argument("--show-wrong", type=int, default=0, metavar="N")
    args = parser.parse_args()
    cases = make_cases(args.num)
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda case: answer_of(args.url, args.model, case[1], case[2].text), cases)
        )
    print("| Question | Right | Of | % |\n|---|---|---|---|")
    wrong: list[tuple[Question, str]] = []
    for row in dict.fromkeys(case[0] for case in cases):
        rows = [(c[2], a) for c, a in zip(cases, answers, strict=True) if c[0] == row]
        wrong += [(question, answer) for question, answer in rows if not question.is_right(answer)]
        right = sum(question.is_right(answer) for question, answer in rows)
        print(f"| {row} | {right} | {len(rows)} | {100 * right / len(rows):.1f} |")
    for question, answer in wrong[: args.show_wrong]:
        print(f"\n{question.text}\n  wanted: {question.answer}\n  got:    {answer}")


if __name__ == "__main__":
    main()
