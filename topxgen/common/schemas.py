"""JSON checked against a schema, so that a damaged or foreign file ends in one line that names the field.

The schema of a format is a TypedDict beside the code that writes it: `Required`, `NotRequired` and unions say what a record
holds, `Annotated[int, msgspec.Meta(ge=0)]` bounds. Who reads a few fields of a file names them where it reads them: `fields`.
Records stay plain dicts, with the fields that the schema does not name.
"""

import json
import re
from functools import cache
from typing import Any, TypedDict, TypeVar, is_typeddict

import msgspec

from topxgen.common.lines import split_lines

T = TypeVar("T")
_NAMES = {"str": "text", "int": "integer", "float": "number", "array": "list", "bool": "true or false"}


@cache
def fields(**types: Any) -> type[dict]:
    """The schema of an object of which these fields are read, each of which may be missing: fields(name=str, links=list[fields(id=int)])."""
    return TypedDict("fields", types, total=False)


@cache
def _decoder(schema: type) -> msgspec.json.Decoder:
    return msgspec.json.Decoder(schema)


def decode(data: bytes, schema: type[T] = dict) -> T:
    """The value of the JSON in `data`. Raises ValueError naming the field and what it must hold.

    NaN and Infinity, which JSON does not have and some programs write, are read as null; lone surrogates, which UTF-8 and
    tokenizers cannot hold, as "?".
    """
    try:
        value = _decoder(schema).decode(data)
        return _decoder(dict).decode(data) if is_typeddict(schema) else value  # with the fields that it leaves out
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except msgspec.DecodeError as error:
        strict = _strict(data)
        if strict not in (None, data):
            return decode(strict, schema)
        raise ValueError(_malformed(str(error), data)) from None


def _strict(data: bytes) -> bytes | None:
    """What Python takes for JSON, and other programs with it, as JSON; None if it is none."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=lambda _: None)
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return None


def check(value: Any, schema: type) -> None:
    """Raise ValueError, as `decode` does, unless `value`, which is parsed already, fits `schema`."""
    try:
        msgspec.convert(value, schema)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def decode_yaml(text: str, schema: type[T] = dict) -> T:
    """The value of YAML text, {} of an empty one. Raises ValueError, in one line, for what is no YAML or does not fit `schema`."""
    import ruamel.yaml

    try:
        value = ruamel.yaml.YAML(typ="safe", pure=True).load(text) or {}
    except ruamel.yaml.error.YAMLError as error:
        raise ValueError(split_lines(str(error))[0]) from None
    check(value, schema)
    return value


def front_matter(card: str) -> dict:
    """The values at the head of a card of the Hub (README.md); {} if it has none that can be read."""
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---\s*(?:\n|$)", card, re.DOTALL)
    try:
        return decode_yaml(match[1]) if match else {}
    except ValueError:
        return {}


def _in_words(message: str) -> str:
    """A message of msgspec, such as "Expected `str | null`, got `int` - at `$.texts[0]`", in the words of ours."""
    problem, _, path = message.partition(" - at `$")
    problem = re.sub("`([^`]*)`", _type_in_words, problem)
    field = path.removesuffix("`").removeprefix(".")
    if field == "" and problem.startswith("Expected object"):
        return problem.replace("Expected object, got", "not a JSON object, but")
    problem = problem[0].lower() + problem[1:]
    return f"field {field}: {problem}" if field else problem


def _type_in_words(quoted: re.Match) -> str:
    return " or ".join(_NAMES.get(part, part) for part in quoted[1].split(" | "))


def _malformed(message: str, data: bytes) -> str:
    if not data.strip():
        return "it is empty"
    problem = message.removeprefix("JSON is malformed: ").replace("Input data was truncated", "cut off")
    position = re.search(r"\(byte (\d+)\)$", message)
    at = int(position[1]) if position else len(data)
    fields = re.findall(rb'"(\w+)"\s*:', data[max(0, at - 10_000) : at])
    field = f"field {fields[-1].decode()}: " if fields else ""
    return f"{field}not JSON: {problem}"
