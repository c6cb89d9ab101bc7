"""Short ways to talk to the physical layer of a bench."""

from typing import Any

from qstack.machine import Send
from qstack.physical.service import (
    Allocate,
    Allocated,
    ApplyGate,
    AttemptsStart,
)
from tests.physical.worlds import Bench, chain

APP, OTHER = "app/1", "app/2"
MS = 1_000_000
TOKEN = b"t" * 16


def bench(nodes: str = "abc", probability: float = 1.0, **more: Any) -> Bench:
    return Bench(chain(nodes, probability, **more))


def allocate(on: Bench, owner: str = APP, node: str = "a") -> bytes:
    on.tell(node, owner, Allocate(call=999))
    on.run(on.now + MS)
    answer = on.heard(node, owner)[-1]
    assert isinstance(answer, Allocated), answer
    return answer.qubit


def gate(call: int | None, name: Any, *qubits: bytes, angle: float = 0.0) -> ApplyGate:
    return ApplyGate(call=call, name=name, qubits=[*qubits], angle=angle)


def start(batch: int, link: str = "a-b", **more: Any) -> AttemptsStart:
    fields: dict[str, Any] = {
        "token": TOKEN,
        "kind": "keep",
        "bright_state": None,
        "pairs": 1,
        "basis": None,
    }
    return AttemptsStart(batch=batch, link=link, **(fields | more))


def only(answers: list[Any]) -> Any:
    (answer,) = answers
    return answer


def operation_of(effects: list[Any], kind: type[Any]) -> Any:
    return next(e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind))
