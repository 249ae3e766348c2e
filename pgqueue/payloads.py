"""Types of payloads: those that msgspec knows, and models of pydantic anywhere inside them."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import inspect as types


def _is_model(kind: Any) -> bool:
    pydantic = sys.modules.get("pydantic")  # a model can only come from there
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def decoder_of(kind: Any) -> Callable[[bytes | str], Any]:
    """From JSON to a value of the type. TypeError, with the reason, for a type that no JSON can be
    read into."""
    decoder = msgspec.json.Decoder(kind, dec_hook=_into_foreign)
    for one in _parts(types.type_info(kind)):
        if isinstance(one, types.CustomType) and not _is_model(one.cls):
            raise TypeError(f"{getattr(one.cls, '__qualname__', one.cls)} cannot be read from JSON")
    return decoder.decode


def fitted(payload: Any, kind: Any) -> Any:
    """The payload, when it is one of the type or what JSON would give. Raises
    msgspec.ValidationError, TypeError, ValueError."""
    if isinstance(kind, type) and type(payload) is kind:
        return payload
    return msgspec.convert(
        msgspec.to_builtins(payload, enc_hook=to_plain), kind, dec_hook=_into_foreign
    )


def to_plain(value: Any) -> Any:
    """For msgspec's encoders, which do not know models of pydantic."""
    if _is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def members_of(kind: Any) -> dict[str, str] | None:
    """What the members of such a payload are called in Python, and in JSON; None when any name may
    be one. TypeError for a payload without members."""
    found: dict[str, str] = {}
    info = types.type_info(kind)
    for one in info.types if isinstance(info, types.UnionType) else [info]:
        match one:
            case types.AnyType() | types.DictType() | types.RawType():
                return None
            case types.StructType(array_like=False) | types.DataclassType() | types.TypedDictType():
                found |= {field.name: field.encode_name for field in one.fields}
            case types.CustomType(cls=kind) if _is_model(kind):
                fields = kind.model_fields.items()  # type: ignore[attr-defined]  # _is_model has looked
                found |= {
                    name: field.serialization_alias or field.alias or name for name, field in fields
                }
            case types.NoneType():
                continue
            case _:
                raise TypeError("its payload is no JSON object")
    return found


def _into_foreign(kind: type, plain: Any) -> Any:
    if not _is_model(kind):
        raise TypeError(f"{kind.__qualname__} cannot be read from JSON")
    # From JSON and not from Python: a strict model takes the text of a date there, and only there.
    return kind.model_validate_json(msgspec.json.encode(plain))  # type: ignore[attr-defined]  # _is_model has looked


def _parts(whole: types.Type) -> Iterator[types.Type]:
    """Every type that a type is made of; one that contains itself, once."""
    seen: set[int] = set()
    waiting: list[Any] = [whole]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tuple | list):
            waiting += one
        elif isinstance(one, types.Field):
            waiting.append(one.type)
        elif isinstance(one, types.Type) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [getattr(one, name) for name in one.__struct_fields__]
