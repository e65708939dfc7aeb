"""Figures in few digits, for people."""


def rounded(count: int | float) -> str:
    """Four digits and a power of 1000: 2339999252480 -> "2.34T"."""
    for factor, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.99995 * factor:  # what rounds to 1000 of the next smaller unit is one of this
            return f"{count / factor:.4g}{suffix}"
    return f"{count:,}"


def size(size_bytes: int | float) -> str:
    """Three digits and a binary unit: 12589824 -> "12.0 MiB"."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.{0 if unit == 'B' or value >= 100 else 1}f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def flops(count: float) -> str:
    """Two decimals and a power of 1000 of FLOPs: 47.37e9 -> "47.37 GF"."""
    return f"{count / 1e9:,.2f} GF" if count >= 1e9 else f"{count / 1e6:,.2f} MF"


def amount(value: float) -> str:
    """Hours or money: two decimals below a hundred, none above."""
    return f"{value:,.2f}" if 0 < value < 100 else f"{value:,.0f}"


def rough(value: float) -> str:
    """Three digits of an estimate: 254584.3 -> "~255,000"."""
    return f"~{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"~{value:.3g}"
