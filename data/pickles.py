"""Reads pickles of arrays, numbers, texts and plain containers, and refuses every other one without running any of it.

A pickle is a program that may import and call anything. Python's own unpickler can be told which names to look up, but
not to do without BUILD, which changes whatever those are, and seven bytes make it take a gibibyte (``LONG_BINPUT`` with
a large index). This one has no instruction that imports, and the few names that arrays need stand for functions of
`data.pickled_arrays`. What is made is bounded by the file's length, since neither references nor shapes nor calls make
more bytes than are there.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from data.errors import DataError
from data.pickled_arrays import CALLS, VALUES, Call, Name, Unfinished, WrongError
from data.text import shown

MOST_STEPS = 1_000_000  # instructions; CIFAR-100's longest file has some 200,000
MOST_DIGITS = 40  # of a number as text, and bytes of a long one
MOST_NAME = 200  # characters of a module or of a name in it
KEYS = (str, bytes, int, float, bool, type(None))  # of dicts
ADMITTED = "nothing but arrays of numbers, numbers, texts, lists, tuples and dicts"


def read_pickle(data: bytes, place: Path) -> Any:
    """What a file of one pickle holds, of protocol 0 to 5; texts of Python 2 are bytes.

    Args:
        data: The file.
        place: Its name, for messages.

    Returns:
        None, bool, int, float, bytes, str, list, tuple, dict with keys that are none of the last three, or an array of
        numbers, which cannot be written to.

    Raises:
        DataError: It is damaged, or holds anything else.
    """
    return Machine(data, place).load()


class Machine:
    """Runs pickles that follow each other in a file."""

    def __init__(
        self,
        data: bytes,
        place: Path,
        calls: Mapping[str, Call] | None = None,
        values: frozenset[str] = frozenset(),
        persistent: Call | None = None,
    ) -> None:
        """
        Args:
            data: The file.
            place: Its name, for messages.
            calls: By name, what else may be called, each with its arguments.
            values: What else may be named.
            persistent: Called with what the file has in the place of something that lies outside of the pickle.
        """
        self.at = 0  # where the next pickle begins
        self._data, self._place, self._persistent = data, place, persistent
        self._steps, self._spare = 0, 0
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._calls = {**CALLS, **(calls or {})}
        self._names = self._calls.keys() | values | VALUES

    def load(self) -> Any:
        """Run one pickle.

        Raises:
            DataError: As from `read_pickle`.
        """
        self._stack, self._marked, self._memo = [], [], {}
        self._spare = len(self._data)  # bytes that calls may still make
        try:
            while (code := self._take(1)) != b".":
                self._steps += 1
                if self._steps > MOST_STEPS:
                    raise WrongError(f"has more than {MOST_STEPS:,} parts")
                if code not in STEPS:
                    raise WrongError(f"has pickle's instruction {code.hex()}, which files of this kind do not need")
                STEPS[code](self)
            return self._stack.pop()
        except WrongError as error:
            self.refuse(str(error))
        except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError):
            self.refuse("is damaged: it is not a pickle")

    def refuse(self, why: str) -> NoReturn:
        raise DataError(f"{self._place} {why}; it must be as published, and may hold {ADMITTED}.") from None

    # What instructions are made of.

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._data):
            raise WrongError("is damaged: it ends too early")
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _line(self, most: int) -> bytes:
        end = self._data.find(b"\n", self.at, self.at + most + 1)
        if end < 0:
            raise WrongError("is damaged: one of its lines is too long")
        return self._take(end + 1 - self.at)[:-1]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _to_mark(self) -> list[Any]:
        """What is above the last mark."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _push_tuple(self, count: int) -> None:
        if count > len(self._stack):
            raise IndexError
        items = tuple(self._stack[len(self._stack) - count :])
        del self._stack[len(self._stack) - count :]
        self._stack.append(items)

    def _put(self, key: int) -> None:
        value = self._memo[key] = self._stack[-1]
        if isinstance(value, Unfinished):
            value.memo.append(key)

    def _dict(self) -> None:
        items = self._to_mark()
        self._push({})
        self._fill(items)

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill([key, value])

    def _fill(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in KEYS:  # a deep tuple's hash can overflow the stack
                raise WrongError("has a dict with keys that are neither texts nor numbers")
            target[key] = value

    def _append(self) -> None:
        value = self._stack.pop()
        self._extend([value])

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._stack = self._marked.pop()

    def _long(self, count: int) -> None:
        if not 0 <= count <= MOST_DIGITS:
            raise WrongError("has a number that is too long")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def _int_line(self) -> None:
        line = self._line(MOST_DIGITS)
        self._push(line == b"01" if line in (b"00", b"01") else int(line.removesuffix(b"L")))

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise TypeError
        text = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if text not in self._names:
            raise WrongError(f"asks for {shown(f'{module}.{name}')}, which was not run")
        self._push(Name(text))

    def _stack_global(self) -> None:
        name = self._stack.pop()
        self._global(self._stack.pop(), name)

    def _global_lines(self) -> None:
        module = self._line(MOST_NAME).decode()
        self._global(module, self._line(MOST_NAME).decode())

    def _reduce(self) -> None:
        args, called = self._stack.pop(), self._stack.pop()
        if type(called) is not Name or type(args) is not tuple or called.text not in self._calls:
            raise WrongError("calls what cannot be called")
        made = self._calls[called.text](args)
        self._spare -= len(made) if type(made) is bytes else 0
        if self._spare < 0:  # one text, encoded again and again
            raise WrongError("makes more than is in it")
        self._push(made)

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is not Unfinished:
            raise WrongError("changes what it has made")
        value = self._stack[-1] = target.finished(state)
        for key in target.memo:
            if self._memo[key] is target:
                self._memo[key] = value

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise WrongError("asks for something outside of it")
        self._push(self._persistent(self._stack.pop()))


# By pickle's instruction; Python's pickletools.py describes them.
STEPS: dict[bytes, Callable[[Machine], object]] = {
    b"\x80": lambda m: m._take(1),  # the protocol
    b"\x95": lambda m: m._take(8),  # the length of a frame
    b"(": Machine._mark,
    b"0": Machine._pop,
    b"1": lambda m: m._to_mark(),
    b"2": lambda m: m._push(m._stack[-1]),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": Machine._int_line,
    b"L": Machine._int_line,
    b"J": lambda m: m._push(m._number("<i")),
    b"K": lambda m: m._push(m._number("<B")),
    b"M": lambda m: m._push(m._number("<H")),
    b"\x8a": lambda m: m._long(m._number("<B")),
    b"\x8b": lambda m: m._long(m._number("<i")),
    b"F": lambda m: m._push(float(m._line(MOST_DIGITS))),
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"T": lambda m: m._push(m._take(m._number("<I"))),
    b"U": lambda m: m._push(m._take(m._number("<B"))),
    b"B": lambda m: m._push(m._take(m._number("<I"))),
    b"C": lambda m: m._push(m._take(m._number("<B"))),
    b"\x8e": lambda m: m._push(m._take(m._number("<Q"))),
    b"\x96": lambda m: m._push(m._take(m._number("<Q"))),
    b"X": lambda m: m._push(m._take(m._number("<I")).decode("utf-8", "surrogatepass")),
    b"\x8c": lambda m: m._push(m._take(m._number("<B")).decode("utf-8", "surrogatepass")),
    b"\x8d": lambda m: m._push(m._take(m._number("<Q")).decode("utf-8", "surrogatepass")),
    b"V": lambda m: m._push(m._line(1 << 20).decode("raw-unicode-escape")),
    b"]": lambda m: m._push([]),
    b"}": lambda m: m._push({}),
    b")": lambda m: m._push(()),
    b"l": lambda m: m._push(m._to_mark()),
    b"t": lambda m: m._push(tuple(m._to_mark())),
    b"d": Machine._dict,
    b"\x85": lambda m: m._push_tuple(1),
    b"\x86": lambda m: m._push_tuple(2),
    b"\x87": lambda m: m._push_tuple(3),
    b"a": Machine._append,
    b"e": lambda m: m._extend(m._to_mark()),
    b"s": Machine._set_item,
    b"u": lambda m: m._fill(m._to_mark()),
    b"p": lambda m: m._put(int(m._line(MOST_DIGITS))),
    b"q": lambda m: m._put(m._number("<B")),
    b"r": lambda m: m._put(m._number("<I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"g": lambda m: m._push(m._memo[int(m._line(MOST_DIGITS))]),
    b"h": lambda m: m._push(m._memo[m._number("<B")]),
    b"j": lambda m: m._push(m._memo[m._number("<I")]),
    b"c": Machine._global_lines,
    b"\x93": Machine._stack_global,
    b"R": Machine._reduce,
    b"b": Machine._build,
    b"Q": Machine._persistent_id,
}
