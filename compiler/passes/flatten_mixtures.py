"""Mixtures of mixtures become weights over sources that sum to one."""

from fractions import Fraction

from trainwright.compiler.draft import Draft, Pass


def flatten_mixtures(draft: Draft) -> None:
    """Each level is normalised by itself, so `long = { base = 1, books = 1 }` is half books whatever `base` sums to.

    The arithmetic is exact on the decimal digits as written: 0.5 * 0.6 + 0.5 is 0.8, on every machine.
    """
    mixtures = draft.spec.data.mixtures

    def flat(name: str) -> dict[str, Fraction]:
        if name not in mixtures:
            return {name: Fraction(1)}
        total = sum((Fraction(str(weight)) for weight in mixtures[name].values()), Fraction(0))
        shares: dict[str, Fraction] = {}
        for member, weight in mixtures[name].items():
            for source, share in flat(member).items():
                shares[source] = shares.get(source, Fraction(0)) + share * Fraction(str(weight)) / total
        return shares

    draft.mixtures = {
        name: {source: float(share) for source, share in sorted(flat(name).items()) if share} for name in mixtures
    }


FLATTEN_MIXTURES = Pass(flatten_mixtures, needs=("spec.data", "mixtures are sound"), gives=("mixtures",))
