"""What a phase takes over from the phase it starts from."""

from trainwright.spec.spec import Phase


def start_of(phases: tuple[Phase, ...], index: int) -> int | None:
    """The phase that this one starts from: the one `from` names, else the previous one, else none."""
    named = phases[index].from_
    if named is not None:
        return next(place for place, phase in enumerate(phases[:index]) if phase.name == named)
    return index - 1 if index else None


def owner_of(phases: tuple[Phase, ...], index: int, key: str) -> int | None:
    """The phase whose own value of `key` holds for this one: itself, or the nearest on its chain that states it."""
    place: int | None = index
    while place is not None and getattr(phases[place], key) is None:
        place = start_of(phases, place)
    return place


def curve_of(phases: tuple[Phase, ...], index: int) -> tuple[int, ...]:
    """The phases that share the learning-rate curve which phase `index` states, from that one on."""
    return tuple(place for place in range(index, len(phases)) if owner_of(phases, place, "learning_rate") == index)
