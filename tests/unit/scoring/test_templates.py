"""The template language: what it can do, what it must not, and that a value stays a value."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from genrm_scoring import templates
from genrm_scoring.errors import ConfigurationError, PromptTooLong, Unaskable
from genrm_scoring.templates import ONE, SEVERAL, Template, defused
from genrm_scoring.templates.sandbox import LONGEST_QUESTION, LONGEST_TEMPLATE
from hypothesis import given
from hypothesis import strategies as st


def rendered(source: str, **values: Any) -> str:
    return Template(source, ONE | SEVERAL).render(values)


WITHIN, ENDS = "{% for x in responses %}{% for y in responses %}", "{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ question }}: {{ response }}", "q: r"),
        ("{% if reference %}{{ reference }}{% else %}none{% endif %}", "none"),
        ("{{ reference | default('none') }}", "none"),
        ("{% if reference is defined %}yes{% endif %}", ""),
        ("{% for one in responses %}{{ loop.index }}. {{ one }}\n{% endfor %}", "1. a\n2. b\n"),
        ("{% for a in responses %}{% for b in responses %}{{ a }}{{ b }} {% endfor %}{% endfor %}", "aa ab ba bb "),
        ("{{ responses | length }} {{ responses | join(', ') }} {{ responses[0] }}{{ responses[-1] }}", "2 a, b ab"),
        ("{{ question | upper }}{{ question[:1] }}{{ question | json }}", 'Qq"q"'),
        ("{# for whoever reads this #}{{ response }}", "r"),
        ("{% for x in ['a', 'b'] %}{{ x }}{% endfor %}{{ response }}", "abr"),
        ("{% for x in responses %}" + "{{ x | upper }}" * 256 + "{% endfor %}", "A" * 256 + "B" * 256),
        (WITHIN + "{% if x == y %}={% endif %}" * 16 + ENDS, "=" * 32),
    ],
)
def test_a_template_writes_chooses_and_goes_through_the_responses(source: str, text: str) -> None:
    assert rendered(source, question="q", response="r", responses=["a", "b"], reference=None) == text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "{{ respnse }}",
            "'respnse' is no variable; did you mean response? there are extra, ground_truth, principle, question,",
        ),
        ("{{ zzz }}", "'zzz' is no variable; there are"),
        ("{{ self }}", "'self' is no variable"),
        ("{{ range }}", "'range' is no variable"),
        ("{{ response", "line 1: "),
        ("a\n{% if %}", "line 2: "),
        ("{{ response | nope }}", "nope"),
        ("{{ response | format }}", "format"),
        ("{{ response | attr('x') }}", "attr"),
        ("{{ response | map('upper') }}", "map"),
        ("{{ response is callable }}", "callable"),
        ("{{ response.upper() }}", "a call is not allowed"),
        ("{{ range(10) }}", "a call is not allowed"),
        ("{{ response * 1000000000 }}", "arithmetic (mul)"),
        ("{{ 10 ** 10 ** 10 }}", "arithmetic (pow)"),
        ("{{ response ~ response }}", "~ is not allowed"),
        ("{% set a = response %}", "{% set %} is not allowed"),
        ("{% macro a() %}{{ a() }}{% endmacro %}", "{% macro %} is not allowed"),
        ("{% include '/etc/passwd' %}", "{% include %} is not allowed"),
        ("{% import 'os' as os %}", "{% import %} is not allowed"),
        ("{% extends 'x' %}", "{% extends %} is not allowed"),
        ("{% for c in question %}{{ c }}{% endfor %}", "a loop over something else than responses"),
        ("{% for x in responses recursive %}{{ loop(x) }}{% endfor %}", "recursive"),
        ("{{ question | join(response) }}", "join of something else than responses"),
        ("{{ responses | join(response) }}", "a computed argument"),
        ("{{ responses | join(*responses) }}", "a computed argument"),
        ("{{ response | truncate(length=3) }}", "keyword is not allowed"),
        ("{{ responses[question] }}", "an index that is computed"),
        ("{% for x in [" + "1," * 40 + "] %}{% endfor %}", "a loop over 40 constants"),
        (f"{{% for x in responses %}}{'{{ x | upper }}' * 257}{{% endfor %}}", "more than 256 filters"),
        (
            f"{WITHIN}{'{% if x in y %}{% endif %}' * 17}{ENDS}",
            "more than 16 filters, tests and comparisons in a loop in",
        ),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_a_template_must_not_do_is_refused_when_it_is_read(source: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Template(source, ONE | SEVERAL)
    assert str(refused.value).startswith("scoring.template: ") and says in str(refused.value)


EXTRA: dict[str, Any] = {
    "rm_prompt_0": "Is {response} right?",
    "level": 3,
    "hard": False,
    "none": None,
    "items": "its own key",
    "a b": "spaced",
    "rubric": {"tone": "polite", "weights": [1, 2]},
    "chosen": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}],
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ extra.level }}", "3"),
        ("{{ extra.items }}", "its own key"),
        ("{{ extra['a b'] }}", "spaced"),
        ("{{ extra.rubric.tone }} {{ extra.rubric['weights'][1] }}", "polite 2"),
        ("{{ extra.chosen[-1].content }}", "4"),
        ("{{ extra.rubric | json }}", '{"tone": "polite", "weights": [1, 2]}'),
        ("{{ extra.rm_prompt_0 | replace('{response}', response) }}", "Is r right?"),
        ("{{ extra.rm_prompt_0 | replace('{response}', 'it') | upper }}", "IS IT RIGHT?"),
        ("{% if extra.hint %}{{ extra.hint }}{% else %}no hint{% endif %}", "no hint"),
        ("{{ extra.none | default('none') }} {{ extra.hint.more is defined }}", "none False"),
        ("{% if extra.level > 2 and not extra.hard %}hard{% endif %}", "hard"),
        ("{% if 'role' in extra.chosen[0] %}chat{% endif %}", "chat"),
        ("{{ ground_truth.target }} of {{ ground_truth.numbers | json }}", "98 of [44, 19]"),
        ("{{ ground_truth | json }}", '{"target": 98, "numbers": [44, 19]}'),
    ],
)
def test_a_template_may_ask_for_what_the_data_set_says_in_its_own_words(source: str, text: str) -> None:
    truth = {"target": 98, "numbers": [44, 19]}
    assert rendered(source, response="r", extra=EXTRA, ground_truth=truth, question=None) == text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ extra.hnt }}", "lacks: extra.hnt; extra has a b, chosen, hard, items, level, rm_prompt_0, rubric"),
        ("{{ extra.none }}", "extra.none; extra has"),
        ("{{ extra.rubric.tne }}", "extra.rubric.tne; extra.rubric has tone, weights"),
        ("{{ extra.hnt.more[0] }}", "extra.hnt; extra has"),
        ("{{ extra.level.x }}", "no 'x' in a int"),
        ("{{ extra.rm_prompt_0.upper }}", "no 'upper' in a str"),
        ("{{ extra.rm_prompt_0.__class__ }}", "no '__class__' in a str"),
        ("{{ extra.rubric.keys }}", "extra.rubric.keys; extra.rubric has"),
        ("{{ extra.__class__ }}", "extra.__class__; extra has"),
        ("{{ extra.path }}", "extra.path; extra has"),
        ("{{ extra }}", "extra is an object with a b, chosen, hard"),
        (
            "{{ extra.rubric }}",
            "extra.rubric is an object with tone, weights; write one of its keys, or extra.rubric |",
        ),
        ("{{ extra.chosen }}", "a list is no text; write one of its items, or all of it with | json"),
        ("{{ extra.chosen[7].content }}", "no element 7"),
        ("{{ extra.rubric | replace('a', 'b') }}", "it takes a text"),
        ("{{ extra.rm_prompt_0 | replace('{response}', reference) }}", "'reference' is undefined"),
        ("{{ extra.hnt | replace('a', 'b') }}", "extra.hnt; extra has"),
        ("{{ extra.level < response }}", "cannot be written for this sample"),
        ("{{ ground_truth.target }}", "'ground_truth' is undefined"),
    ],
)
def test_a_key_that_the_sample_lacks_is_named_with_those_it_has(source: str, says: str) -> None:
    with pytest.raises(Unaskable) as refused:
        rendered(source, response="r", extra=EXTRA)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ extra[question] }}", "an index that is computed"),
        ("{% for x in extra.chosen %}{% endfor %}", "a loop over something else than responses"),
        ("{{ response.x }}", "extra and ground_truth have keys"),
        ("{{ response | replace('a') }}", "replace takes a text and what to write for it"),
        ("{{ response | replace('', 'b') }}", "replace takes a text"),
        ("{{ response | replace(question, 'b') }}", "replace takes a text"),
        ("{{ response | replace('a', question | upper) }}", "replace takes a text"),
        ("{{ response " + "| replace('a', response) " * 4 + "}}", "more than 2 replace in one expression"),
    ],
)
def test_what_the_data_set_says_makes_no_template_slow(source: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Template(source, ONE | SEVERAL)
    assert says in str(refused.value)


def test_a_replacement_has_a_longest_length_too() -> None:
    with pytest.raises(PromptTooLong):
        rendered("{{ extra.a | replace('x', response) }}", extra={"a": "x" * 10_000}, response="y" * 10_000)


def test_what_the_data_set_says_is_defused_however_it_is_put_together() -> None:
    extra = {"a": "<|im_end|>", "b": {"<|im_start|>": ["[INST]"]}, "c": "<{response}|im_end|>"}
    for source in ("{{ extra.a }}", "{{ extra.b | json }}", "{{ extra.c | replace('{response}', response) }}"):
        text = rendered(source, extra=extra, response="")
        assert text and not any(token in text for token in SPECIAL)
    assert "<|" not in rendered("{{ extra['b']['<|im_start|>'] | json }}", extra=extra)


ESCAPES = [
    "{{ response.__class__ }}",
    "{{ response['__class__'] }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ response | attr('__class__') }}",
    "{{ responses.append }}",
    "{{ loop.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ config }}{{ request }}{{ g }}",
    "{{ namespace(x=1) }}",
    "{% for x in [].__class__.__base__.__subclasses__() %}{% endfor %}",
    "{{ '%s' % response }}",
    "{{ '{0.__class__}'.format(response) }}",
    "{{ response.format_map({}) }}",
    "{% do response %}",
    "{% debug %}",
    "{% trans %}{% endtrans %}",
    "{{ (response, response)[0].__class__ }}",
    "{{ responses[0:1:1].__len__ }}",
    "{{ response | default(response.__class__) }}",
    "{% for x in responses if x.__class__ %}{% endfor %}",
    "{% with a=1 %}{% endwith %}",
    "{% call x() %}{% endcall %}",
    "{% filter upper %}{% endfilter %}",
    "{% autoescape true %}{% endautoescape %}",
    "{{ {'a': 1} }}",
    "{% import x %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_template_reaches_out_of_its_variables(source: str) -> None:
    with pytest.raises(ConfigurationError):
        Template(source, ONE | SEVERAL)


PIECES = [
    *ESCAPES, "{{ extra.__class__ }}", "{{ extra.a.format }}", "{{ extra.items }}",
    "{% for x in responses %}", "{% endfor %}", "{% if question %}", "{% endif %}", "{{ question }}",
    "{{ x }}", "{{", "}}", "{%", "{#", "text",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_no_patchwork_of_template_does_either(parts: list[str]) -> None:
    source = "".join(parts)
    try:
        text = rendered(source, question="q", response="r", responses=["a", "b"], extra={"a": "e"})
    except (ConfigurationError, Unaskable):
        return
    assert not any(word in text for word in ("class", "object at", "<function", "builtin", "module"))


@pytest.mark.parametrize(
    "source",
    ["{" * 20_000, "{{" + "(" * 10_000 + "response" + ")" * 10_000 + "}}", "{% if response %}" * 1_500,
     "{{ response }}" + "{# " * 5_000, "{{ response " + "| trim " * 4_000 + "}}", "{{" + "not " * 8_000 + "response }}",
     "{% for x in responses %}" * 1_000 + "{% endfor %}" * 1_000],
    ids=lambda source: repr(source[:20]),
)  # fmt: skip
def test_a_template_that_is_meant_to_take_long_does_not(source: str) -> None:
    began = time.process_time()
    with contextlib.suppress(ConfigurationError):
        rendered(source, response="r" * 1000, responses=["a"] * 64)
    assert time.process_time() - began < 5.0


def test_a_template_has_a_longest_length() -> None:
    with pytest.raises(ConfigurationError, match=f"write at most {LONGEST_TEMPLATE}"):
        Template("x" * LONGEST_TEMPLATE + "{{ response }}", ONE)


def test_a_question_has_a_longest_length_too() -> None:
    loops = "{% for a in responses %}{% for b in responses %}{{ a }}{% endfor %}{% endfor %}"
    with pytest.raises(PromptTooLong):
        rendered(loops, responses=["x" * 10_000] * 64)
    assert len(rendered("{{ response }}", response="x" * (LONGEST_QUESTION - 1))) == LONGEST_QUESTION - 1


def test_a_value_that_the_sample_lacks_cannot_be_written() -> None:
    with pytest.raises(Unaskable, match="'reference' is undefined"):
        rendered("{{ reference }}", reference=None)


@pytest.mark.parametrize(
    "value",
    ["{{ question }}", "{% for x in y %}", "{# #}", "{{ 1/0 }}", "%}{{", "{{ self.__init__ }}", "\n# for x in y"],
)
def test_template_syntax_in_a_value_is_text(value: str) -> None:
    assert rendered("{{ response }}", response=value) == value


SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|endoftext|>", "<|user|>", "<|assistant|>",
    "<|channel|>", "<|return|>", "<|END_OF_TURN_TOKEN|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>",
    "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<s>", "</s>", "<pad>", "<unk>", "[INST]", "[/INST]",
    "[SYSTEM_PROMPT]", "[TOOL_CALLS]", "<<SYS>>", "<</SYS>>", "[gMASK]", "[BOS]", "]~b]", "[e~[", "<think>", "</think>",
    "<tool_call>", "<extra_id_1>", "<unused7>", "<reserved_106>", "<seed:bos>", "[CLS]", "[SEP]", "[MASK]",
]  # fmt: skip
OURS = ["<response>", "</response>", "</Response>", "</response_a>", "<response_12>", "</question>", "<reference>"]


@pytest.mark.parametrize("token", [*SPECIAL, *OURS])
def test_a_special_token_in_a_value_is_no_token_any_more(token: str) -> None:
    text = rendered("{{ response }} {{ responses | join('') }}", response=f"a{token}b", responses=[token, token * 2])
    assert token not in text
    assert text.replace(" ", "") == f"a{token}b{token}{token * 2}"


@given(st.lists(st.one_of(st.sampled_from([*SPECIAL, *OURS, "<", "|", "[", "]", ">", "/"]), st.text(max_size=3))))
def test_no_patchwork_of_tokens_is_one(parts: list[str]) -> None:
    text = defused("".join(parts))
    assert not [token for token in [*SPECIAL, *OURS] if token in text]


@given(st.text())
def test_nothing_but_a_space_is_added_to_a_value(text: str) -> None:
    assert defused(text).replace(" ", "") == text.replace(" ", "")
    assert len(defused(text)) - len(text) <= text.count("<") + text.count("[") + text.count("]")


@pytest.mark.parametrize(
    "text", ["a < b and b > c", "[1, 2]", r"\[x\]", "<div>", "List[int]", "[A]", "if a<b:", "x[I]"]
)
def test_what_is_no_token_stays_as_it_is(text: str) -> None:
    assert defused(text) == text


@pytest.mark.parametrize(
    "name",
    ["boxed-true-false", "pointwise-1-10", "five-criteria", "rider-json", "pairwise-abtie", "listwise-ranking",
     "critique-then-score"],
)  # fmt: skip
def test_every_built_in_template_is_one_of_the_language(name: str) -> None:
    variables = Template(templates.built_in(name), templates.ONE | templates.PAIR | templates.SEVERAL).variables
    assert "question" in variables and any(variable.startswith("response") for variable in variables)
