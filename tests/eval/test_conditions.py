"""Audits that tell a model that looks from one that does not, and a text from a letter."""

import pytest
from answers import questions, seeing

from stlite.eval import conditions
from stlite.eval.evaluate import evaluate


@pytest.mark.parametrize(
    ("orders", "looks", "ordered"),
    [
        (("forward",), True, True),
        (("forward", "shuffled", "reversed"), True, False),
        (conditions.CLAIMS.keys() | {"forward"}, False, False),
    ],
)
def test_the_arrow_of_time_tells_what_a_model_uses(tmp_path, orders, looks, ordered):
    samples, generate = questions(), seeing(orders)
    base = evaluate(samples, generate, tmp_path / "base", progress=False)
    made = conditions.arrow_of_time(samples, generate, tmp_path / "audit", base, progress=False)
    assert [r["run"] for r in made["tables"]["Arrow of time"]] == [
        "forward",
        "blank",
        "single",
        "shuffled",
        "reversed",
    ]
    assert (
        not (tmp_path / "audit" / "forward").exists()
        and (tmp_path / "audit" / "blank" / "records.jsonl").exists()
    )
    said = made["notes"][0]
    assert (": it looks at the video" in said) == looks and (
        "nothing shows that it looks" in said
    ) != looks
    assert (": it uses their order" in said) == ordered and (
        "nothing shows that it uses their order" in said
    ) != ordered
    assert ("give some answers away" in said) == (not looks)


def test_rotation_tells_a_text_from_a_letter(tmp_path):
    samples = questions()
    base = evaluate(samples, seeing(), tmp_path / "base", progress=False)
    made = conditions.option_rotation(samples, seeing(), tmp_path / "text", base, progress=False)
    assert made["notes"][0].startswith("100.0 %")
    assert sum(r["gold"] for r in made["tables"]["By letter"]) == pytest.approx(1)

    def always_b(samples, order):
        return [{"reply": "<answer>B</answer>", "tokens": 1} for _ in samples]

    base = evaluate(samples, always_b, tmp_path / "b", progress=False)
    made = conditions.option_rotation(samples, always_b, tmp_path / "letter", base, progress=False)
    assert made["notes"][0].startswith("0.0 %")
    assert [(r["letter"], r["chosen"], r["accuracy"]) for r in made["tables"]["By letter"]] == [
        ("A", 0, 0), ("B", 1, 1), ("C", 0, 0), ("D", 0, 0),
    ]  # fmt: skip


def test_frames_and_direct_answers_are_set_beside_each_other(tmp_path):
    samples = questions()
    made = conditions.frames(
        samples, lambda n: seeing(skill=n / 20), tmp_path, (1, 16), progress=False
    )
    rows = made["tables"]["Number of frames"]
    assert [r["run"] for r in rows] == ["1 frames", "16 frames"] and "gains" in made["notes"][0]
    base = evaluate(samples, seeing(), tmp_path / "base", progress=False)
    made = conditions.direct_answer(
        samples, seeing(skill=0.3), tmp_path / "direct", base, progress=False
    )
    assert "Without thinking the model loses" in made["notes"][0]
    with pytest.raises(KeyError, match="q0"):
        conditions.direct_answer(samples, seeing(), tmp_path / "x", base[1:], progress=False)
