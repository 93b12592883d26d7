"""A small count for each of millions of ids, one byte each where ids are consecutive, as those of paragraphs and prompts."""

_NO_ARRAY = bytearray()
_SPARSE = 16  # bytes that an id may take in an array; others, and values above 255, are in a dict


class IdCounts:
    """Integers by id, 0 for ids without one."""

    def __init__(self):
        self._arrays: dict[tuple[str, int, str], bytearray] = {}
        self._others: dict[str, int] = {}
        self._used = 0  # ids that have been given a place in an array

    def __getitem__(self, name: str) -> int:
        if (value := self._others.get(name)) is not None:
            return value
        array, number = self._place(name)
        return array[number] if number is not None and number < len(array) else 0

    def __setitem__(self, name: str, value: int) -> None:
        array, number = self._place(name)
        if name in self._others or number is None or not 0 <= value < 256:
            self._others[name] = value
            return
        if number >= len(array):
            if number > _SPARSE * (len(array) + self._used + 64):
                self._others[name] = value
                return
            array.extend(bytes(number + 1 - len(array) + number // 8))
        self._used += not array[number]
        array[number] = value

    def add(self, name: str) -> int:
        """One more for `name`; its new value."""
        array, number = self._place(name)
        if number is not None and number < len(array) and array[number] < 255 and name not in self._others:
            self._used += not array[number]
            array[number] += 1
            return array[number]
        self[name] = value = self[name] + 1
        return value

    def _place(self, name: str) -> tuple[bytearray, int | None]:
        """The array that has the numbers of such ids, and the index there. Basque-7 and Basque-07 are in two."""
        head, _, part = name.rpartition(".")
        if not (part.isdecimal() and part.isascii() and len(part) <= 3 and head):
            head, part = name, ""
        prefix = head.rstrip("0123456789")
        digits = head[len(prefix) :]
        if not 0 < len(digits) < 10:
            return _NO_ARRAY, None
        key = prefix, len(digits), part
        if (array := self._arrays.get(key)) is None:
            array = self._arrays[key] = bytearray()
        return array, int(digits)
